"""Constants that pruned channels still carry, moved into the biases behind them.

A channel that no input reaches, because all weights that make it are zero, is not zero:
its bias, or the offset of its normalisation, goes through the activation to everyone
who reads it. That constant can be added to their biases once and for all:

    b_o + sum_c W_co v_c + others = b'_o + others,    b'_o = b_o + sum_c W_co v_c

and then nobody reads the channel:

    folded = fold_constants(graph, pruned_params)
    small = graph.compact(live_channels(graph, folded), folded)

The constants are found by running the program (`_flow.dependence`), so any
activation will do, and a constant that passes through several layers is seen too.
"""

from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxprune import tree as jtree
from jaxprune.channels import _constants as constants
from jaxprune.channels._constants import Read
from jaxprune.channels._flow.checks import leaves_of
from jaxprune.channels._graph import ChannelGraph, Group, check_graph
from jaxprune.channels._liveness import meets_activations


def fold_constants(graph: ChannelGraph, params: Any) -> Any:
    """Move constants of channels that no input reaches into the biases behind them.

        b <- b + w v,   w <- 0    for a channel of constant value v

    Folded are the channels of which every consumer allows it exactly; its weights for
    them become zero, and `live_channels` finds them dead. A consumer allows it if the
    channel is zero there, or if all of this holds: the channel has one value at all
    positions; the consumer is a dense layer, or a convolution without padding (at a
    border with padding the constant would count less); its result goes straight to an
    addition of a vector of parameters, or a subtraction (the mean of a normalisation in
    evaluation mode); weight and vector are not cast first, the weight is not reshaped,
    and neither is used anywhere else. All other channels stay as they are. Exact for
    inputs of the sizes that were traced, any number of examples.

    Args:
      graph: the channel graph, traced in evaluation mode to see through
        normalisations.
      params: the parameters that were traced, pruned.

    Returns:
      Parameters with which the function is the same, up to rounding.

    Raises:
      ValueError: if names or shapes are not those that were traced.

    >>> from jaxprune.channels import trace_channels
    >>> def mlp(p, x):
    ...     return jax.nn.relu(x @ p["w1"] + p["b1"]) @ p["w2"] + p["b2"]
    >>> params = {
    ...     "w1": jnp.array([[1.0, 0.0]]),
    ...     "b1": jnp.array([0.0, 3.0]),
    ...     "w2": jnp.array([[1.0], [2.0]]),
    ...     "b2": jnp.array([0.5]),
    ... }
    >>> graph = trace_channels(mlp, params, jnp.ones((4, 1)))
    >>> folded = fold_constants(graph, params)
    >>> folded["b2"].tolist(), folded["w2"].tolist()
    ([6.5], [[1.0], [0.0]])
    """
    check_graph("fold_constants", graph)
    traced = graph._traced
    named = leaves_of(graph, params, "fold_constants(graph, params)")
    leaves = [
        jnp.asarray(x, like.dtype)
        for x, like in zip(named.values(), traced.leaves, strict=True)
    ]
    # Any inputs do; where a value depends on them it is not used.
    inputs = [_any(x) for x in traced.inputs]
    made = constants.walk(traced.program, leaves, inputs)
    reads = {
        (traced.names[r.product.leaf], r.product.axis): r
        for r in made.reads
        if made.uses[r.product.leaf] == 1
    }
    gone: dict[tuple[str, int], np.ndarray] = {
        place: np.zeros(len(read.value), bool) for place, read in reads.items()
    }
    for group in graph.groups.values():
        if not meets_activations(graph, group):
            folded = _foldable(group, reads, made.uses)
            for member in group.members:
                if member.role == "consumer":
                    here = member.channels >= 0
                    rows = here & folded[np.maximum(member.channels, 0)]
                    if rows.any():
                        gone[member.leaf, member.axis] |= rows
    return jtree.replace(params, _fold(traced.names, named, reads, gone))


def _any(like: jax.ShapeDtypeStruct) -> jax.Array:
    if jnp.issubdtype(like.dtype, jax.dtypes.prng_key):
        return jnp.broadcast_to(jax.random.key(0), like.shape)
    return jnp.ones(like.shape, like.dtype)


def _foldable(
    group: Group, reads: Mapping[tuple[str, int], Read], uses: Mapping[int, int]
) -> np.ndarray:
    """Which channels every consumer allows to fold."""
    folded = np.ones(group.size, bool)
    for member in group.members:
        if member.role in ("consumer", "both"):
            here = member.channels >= 0
            exact = np.zeros(len(here), bool)
            read = reads.get((member.leaf, member.axis))
            if member.role == "consumer" and read is not None:
                shifted = read.bias is not None and uses[read.bias[0]] == 1
                exact = read.zero | (read.constant & shifted)
            folded[member.channels[here & ~exact]] = False
    return folded


def _fold(names, named, reads, gone) -> dict[str, Any]:
    """Return the weights without the rows that go, and the vectors that make up."""
    result = dict(named)
    for (leaf, axis), read in reads.items():
        rows = gone[leaf, axis]
        if not rows.any():
            continue
        weight = jnp.moveaxis(
            jnp.asarray(result[leaf]), (axis, read.product.out), (0, 1)
        )
        if read.bias is not None:
            number, sign = read.bias
            matrix = weight.sum(axis=tuple(range(2, weight.ndim)))
            value = jnp.where(rows, read.value, 0).astype(weight.dtype)
            shift = jnp.matmul(value, matrix, precision=jax.lax.Precision.HIGHEST)
            result[names[number]] = jnp.asarray(result[names[number]]) + sign * shift
        weight = weight.at[rows].set(0)
        result[leaf] = jnp.moveaxis(weight, (0, 1), (axis, read.product.out))
    return result
