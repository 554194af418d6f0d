"""Data parallelism: one step over all devices, by `jit` or by `pmap`.

Both hold the state whole on every device and split the batch. Under `jit` the arrays
are global and sharded over a mesh with one axis, `data`; under `pmap` every array has a
leading axis of devices. One device is the smallest mesh, not a special case.
"""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import numpy as np
from jax.sharding import NamedSharding, PartitionSpec

AXIS = "data"


class Parallel(NamedTuple):
    """How a step is spread over devices."""

    # The name of the mapped axis that the step must reduce over, or None.
    axis_name: str | None
    # `(state, batch) -> (state, metrics)` to the same, compiled; the state is donated.
    compile: Callable[[Callable], Callable]
    # A batch of NumPy arrays of this process to arrays on its devices.
    shard: Callable[[Any], Any]
    # A tree to the form in which a step takes it, on every device.
    replicate: Callable[[Any], Any]
    # That form back to global arrays, as checkpoints and evaluation take it.
    collect: Callable[[Any], Any]
    # What one device of this process holds of that form, and stays there.
    peek: Callable[[Any], Any]


def by_jit(devices: Sequence[Any] | None = None) -> Parallel:
    """`jax.jit` over a `NamedSharding` of all devices, or of those given."""
    shard, replicate, collect = _global_arrays(devices)
    return Parallel(
        axis_name=None,
        compile=lambda step: jax.jit(step, donate_argnums=0),
        shard=shard,
        replicate=replicate,
        collect=collect,
        peek=lambda tree: tree,
    )


def _global_arrays(devices=None):
    devices = list(devices or jax.devices())
    auto = (jax.sharding.AxisType.Auto,)
    mesh = jax.make_mesh((len(devices),), (AXIS,), axis_types=auto, devices=devices)
    split = NamedSharding(mesh, PartitionSpec(AXIS))
    whole = NamedSharding(mesh, PartitionSpec())

    def shard(batch):
        return jax.tree.map(
            lambda x: jax.make_array_from_process_local_data(split, x), batch
        )

    def replicate(tree):
        # Through the host: a copy, so that donating the state never takes an array
        # that others hold.
        return jax.tree.map(
            lambda x: jax.make_array_from_process_local_data(whole, _on_host(x)), tree
        )

    return shard, replicate, lambda tree: tree


def _local(x):
    # Of an array that spans processes only a part is ours; ours is whole.
    return x.addressable_data(0) if isinstance(x, jax.Array) else x


def _on_host(x):
    return np.array(_local(x))


def by_pmap() -> Parallel:
    """`jax.pmap` over the devices of this process, gradients averaged over all."""
    _, replicate_global, _ = _global_arrays()
    count = jax.local_device_count()

    def shard(batch):
        return jax.tree.map(lambda x: x.reshape(count, -1, *x.shape[1:]), batch)

    def replicate(tree):
        return jax.tree.map(lambda x: np.stack([_on_host(x)] * count), tree)

    def collect(tree):
        return replicate_global(jax.tree.map(lambda x: x[0], tree))

    return Parallel(
        axis_name=AXIS,
        # The state stays on every device; metrics, equal on all, come back once.
        compile=lambda step: jax.pmap(
            step, axis_name=AXIS, donate_argnums=0, out_axes=(0, None)
        ),
        shard=shard,
        replicate=replicate,
        collect=collect,
        peek=lambda tree: jax.tree.map(lambda x: _local(x)[0], tree),
    )


def create(name: str) -> Parallel:
    """Returns the way of this name, `jit` or `pmap`."""
    return by_pmap() if name == "pmap" else by_jit()
