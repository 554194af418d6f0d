"""What a spiking network sends, and the operations that this costs."""

from collections.abc import Callable, Iterable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn

from experiments.models.sew_resnet import SEWResNet

Counter = Callable[[Any, Any], dict[str, Any]]
"""`params, batch_stats` to what a network sends; see `counter`."""


def counter(model: nn.Module, batches: Iterable[Any], shard: Any) -> Counter | None:
    """Returns what counts the spikes of a network; None if it sends none.

    A spike that a layer reads costs an addition for each of its weights that is not
    zero (a synaptic operation). The first layer reads pixels and the last one means
    over time: they cost a multiplication for each weight that is not zero, as often as
    it is used, once for all steps of time.

    Args:
      model: the module.
      batches: test data, iterated over at every count.
      shard: puts a batch on devices.

    Returns:
      A function from parameters and statistics to `synaptic_operations` and
      `multiplications` of an image in the mean, the same of a network with no zero
      (`dense_...`), and `layers`: by the name of a layer that reads spikes its
      `spikes` (in the mean for a neuron that it reads and a step of time; more than 1
      where blocks add) and both numbers of operations.
    """
    if not isinstance(model, SEWResNet):
        return None
    count = jax.jit(_make_count(model))

    def total(params, batch_stats):
        parts = [count(params, batch_stats, shard(batch)) for batch in batches]
        sums = [jax.tree.map(np.float64, part) for part in jax.device_get(parts)]
        images, layers = jax.tree.map(lambda *x: sum(x), *sums)
        means = jax.tree.map(lambda x: float(x / images), layers)
        return _summed(means, model.reads_numbers)

    return total


def _summed(layers: dict[str, Any], reads_numbers: frozenset[str]) -> dict[str, Any]:
    """Adds the operations of layers, those that read spikes apart."""
    spiking = {n: x for n, x in layers.items() if n not in reads_numbers}
    others = {n: x for n, x in layers.items() if n in reads_numbers}
    kinds = {"synaptic_operations": spiking, "multiplications": others}
    found: dict[str, Any] = {}
    for name, kind in kinds.items():
        found[name] = sum(x["operations"] for x in kind.values())
        found[f"dense_{name}"] = sum(x["dense_operations"] for x in kind.values())
    return {**found, "layers": spiking}


def _make_count(model: SEWResNet):
    """`params, batch_stats, batch` to the images, and sums over them by layer."""

    def count(params, batch_stats, batch):
        called = []

        def look(layer, args, kwargs, context):
            if isinstance(context.module, nn.Conv | nn.Dense):
                called.append((context.module, args[0]))
            return layer(*args, **kwargs)

        with nn.intercept_methods(look):
            variables = {"params": params, "batch_stats": batch_stats}
            model.apply(variables, batch["image"], train=False)
        return jnp.sum(batch["valid"]), dict(
            _row(model, layer, x, batch["valid"]) for layer, x in called
        )

    return count


def _row(model: SEWResNet, layer: nn.Conv | nn.Dense, x: jax.Array, valid: jax.Array):
    """The name of a layer, and its sums over the valid images."""
    name, images = "/".join(layer.path), valid.size
    alone = layer.clone(parent=None, name=None, use_bias=False)

    # Ones that XLA cannot know of: a sum over a convolution with a constant kernel of
    # ones reads memory that is not its own on CPUs (jaxlib 0.10.2).
    def ones(x):
        return 0 * x + 1

    read = ones(x) if name in model.reads_numbers else x
    kernel = layer.variables["params"]["kernel"]

    def total(x):  # time and images share the first axis, images are inside
        each = x.reshape(-1, images, x.size // len(x))
        return jnp.sum(each, axis=(0, 2)) @ valid

    def operations(weights):
        return total(alone.apply({"params": {"kernel": weights}}, read))

    return name, {
        "spikes": total(x) * images / x.size,
        "operations": operations((kernel != 0).astype(x.dtype)),
        "dense_operations": operations(ones(kernel)),
    }
