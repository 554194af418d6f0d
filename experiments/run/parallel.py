"""Data parallelism: one step over all devices, by `jit`, `fsdp` or `pmap`.

All split the batch. `jit` and `pmap` hold the state whole on every device; `fsdp`
splits every large array of it too, so that each device holds its share of parameters,
latent weights and momentum. Under `jit` and `fsdp` the arrays are global and sharded
over a mesh with one axis, `data`; under `pmap` every array has a leading axis of
devices. One device is the smallest mesh, not a special case.
"""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import NamedSharding, PartitionSpec

AXIS = "data"
_LARGE = 1024  # entries of an array that is worth splitting


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


def _mesh(devices=None):
    devices = list(devices or jax.devices())
    auto = (jax.sharding.AxisType.Auto,)
    return jax.make_mesh((len(devices),), (AXIS,), axis_types=auto, devices=devices)


def _global_arrays(devices=None):
    mesh = _mesh(devices)
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


def by_fsdp() -> Parallel:
    """`jax.jit` with every large array of the state split over all devices.

    An array is split along its longest axis that the devices divide; one without such
    an axis stays whole. The step is the same program: XLA gathers the weights of a
    layer where it computes with them, and scatters their gradients.
    """
    whole = by_jit()

    def shardings(tree):
        return jax.tree.map(lambda x: _split(jnp.shape(x)), tree)

    def replicate(tree):
        spread = jax.tree.map(
            lambda x: x if _is_spread(x) else whole.replicate(x), tree
        )
        # A copy, as `by_jit` makes one.
        copy = jax.jit(
            lambda t: jax.tree.map(jnp.copy, t), out_shardings=shardings(spread)
        )
        return copy(spread)

    def compile(step):
        def kept(state, batch):
            state, metrics = step(state, batch)
            return jax.lax.with_sharding_constraint(state, shardings(state)), metrics

        return jax.jit(kept, donate_argnums=0)

    return whole._replace(compile=compile, replicate=replicate)


def _is_spread(x):
    return isinstance(x, jax.Array) and len(x.sharding.device_set) == jax.device_count()


def _split(shape: Sequence[int]) -> NamedSharding:
    count = jax.device_count()
    spec: list[str | None] = [None] * len(shape)
    lengths = [length if length % count == 0 else 0 for length in shape]
    if lengths and max(lengths) and np.prod(shape) >= _LARGE:
        spec[int(np.argmax(lengths))] = AXIS
    return NamedSharding(_mesh(), PartitionSpec(*spec))


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
    """Returns the way of this name: `jit`, `fsdp` or `pmap`."""
    return {"jit": by_jit, "fsdp": by_fsdp, "pmap": by_pmap}[name]()
