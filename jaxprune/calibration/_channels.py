"""How much channels and blocks do on a sample of data.

References:
  [Minitron] Muralidharan et al., "Compact Language Models via Pruning and Knowledge
  Distillation", NeurIPS 2024, arXiv:2407.14679.
  [FLAP] An et al., "Fluctuation-based Adaptive Structured Pruning for Large Language
  Models", AAAI 2024, arXiv:2312.11983.
  [ShortGPT] Men et al., "ShortGPT: Layers in Large Language Models are More Redundant
  Than You Expect", 2024, arXiv:2403.03853.
"""

import jax
import jax.numpy as jnp

from jaxprune import tree
from jaxprune.base._dtypes import at_least_float32
from jaxprune.calibration._statistics import Statistics, require, summed
from jaxprune.channels._graph import ChannelGraph, Group, Member, check_graph
from jaxprune.channels._importance import Importance


def activation_norms(
    graph: ChannelGraph,
    statistics: Statistics,
    *,
    weighted: bool = False,
    otherwise: Importance | None = None,
) -> Importance:
    """Return the importance by the size of a channel's activations, where it is read.

        b_c = sqrt(mean_r x_rc^2)               [Minitron] Sec. 2.2, with the L2 norm
        b_c = sqrt(mean_r sum_o (x_rc w_co)^2)  if `weighted`,    [FLAP] Eq. (4), Wanda

    over the rows r of all products that read the channel. The activation is what the
    product multiplies, behind norms and nonlinearities.

    Args:
      graph: the channel graph.
      statistics: from `calibrate`, of the function and the tree that were traced, or of
        its part `params`.
      weighted: whether an activation counts times the weights that read it: how much of
        the outputs is lost without the channel.
      otherwise: the importance of the groups that no product with known inputs reads,
        such as `filter_norms(graph)`.

    Returns:
      `params -> {group: (channels,)}`, float32, for `important_channels` and
      `largest_channels`; the parameters count only if `weighted`.

    Raises:
      TypeError: `statistics` are none.
      ValueError: a group is read by no product of which the statistics know the inputs,
        and `otherwise` is not given; or leaves have other shapes.

    Examples:
      >>> from jaxprune.calibration import calibrate
      >>> from jaxprune.channels import trace_channels
      >>> mlp = lambda params, x: (x @ params["w1"]) @ params["w2"]
      >>> params = {"w1": jnp.array([[1.0, -3.0]]), "w2": jnp.array([[2.0], [1.0]])}
      >>> x = jnp.array([[1.0], [1.0]])
      >>> graph = trace_channels(mlp, params, x)
      >>> statistics = calibrate(mlp, params, [x])
      >>> activation_norms(graph, statistics)(params)["w1:1"].tolist()
      [1.0, 3.0]
      >>> activation_norms(graph, statistics, weighted=True)(params)["w1:1"].tolist()
      [2.0, 3.0]
    """
    call = "activation_norms"
    check_graph(call, graph)
    require(call, statistics, ())
    readers = {
        name: _readers(group, statistics) for name, group in graph.groups.items()
    }
    unread = [name for name, members in readers.items() if not members]
    if unread and otherwise is None:
        raise ValueError(
            f"`{call}(graph, statistics)`: every group must be read by a product whose "
            f"inputs are known, {unread[0]!r} is not. Pass "
            "`otherwise=filter_norms(graph)`, or statistics of the function that was "
            "traced."
        )

    def importance(params):
        weights = _by_known_names(params, statistics) if weighted else {}
        found = dict(otherwise(params)) if unread and otherwise is not None else {}
        for name, group in graph.groups.items():
            if readers[name]:
                found[name] = _size(group, readers[name], statistics, weights, weighted)
        return {name: found[name] for name in graph.groups}

    return importance


def _known_name(name: str, statistics: Statistics) -> str | None:
    for known in (name, name.removeprefix("params/"), f"params/{name}"):
        if known in statistics.inputs:
            return known
    return None


def _readers(group: Group, statistics: Statistics) -> list[tuple[Member, str]]:
    """Return the members that read the channels, with their names in the statistics."""
    found = []
    for member in group.members:
        known = _known_name(member.leaf, statistics)
        if member.role in ("consumer", "both") and known is not None:
            found.append((member, known))
    return found


def _by_known_names(params, statistics: Statistics):
    named = tree.named_leaves(params)
    known = {_known_name(name, statistics): leaf for name, leaf in named.items()}
    return {name: leaf for name, leaf in known.items() if name is not None}


def _size(group: Group, readers, statistics, weights, weighted: bool) -> jax.Array:
    total = rows = jnp.zeros(group.size, jnp.float32)
    for member, name in readers:
        uses, inputs = statistics.uses[name], statistics.inputs[name]
        squares = summed(uses, inputs, "square_sum").astype(jnp.float32)
        count = summed(uses, inputs, "count").astype(jnp.float32)
        if weighted:
            squares = squares * jnp.square(weights[name].astype(jnp.float32))
            # One row counts once, however many outputs read it.
            count = count * member.channels.shape[0] / max(count.size, 1)
        total, rows = total + member.sums(squares), rows + member.sums(count)
    return jnp.sqrt(total / jnp.maximum(rows, 1e-30))


def block_influence(before: jax.Array, after: jax.Array) -> jax.Array:
    """Return how much a block changes the direction of what passes through it.

        1 - mean_r  x_r^T y_r / (|x_r| |y_r|)                   [ShortGPT] Eq. (1)

    A block of influence 0 passes its input on, up to its size: removing the blocks of
    the lowest influence is pruning in depth. A row of zeros counts as changed.

    Args:
      before: x, the input of the block, shape (..., features).
      after: y, its output, of the same shape.

    Returns:
      A scalar in [0, 2], float32 or wider.

    Raises:
      ValueError: the shapes differ.

    Examples:
      >>> x = jnp.array([[1.0, 0.0], [1.0, 0.0]])
      >>> float(block_influence(x, jnp.array([[2.0, 0.0], [0.0, 1.0]])))
      0.5
    """
    if jnp.shape(before) != jnp.shape(after):
        raise ValueError(
            f"`block_influence(before, after)`: both must have one shape, got "
            f"{jnp.shape(before)} and {jnp.shape(after)}. Pass the residual stream in "
            "front of the block and behind it."
        )
    dtype = at_least_float32(before.dtype, after.dtype)
    x, y = before.astype(dtype), after.astype(dtype)
    sizes = jnp.linalg.norm(x, axis=-1) * jnp.linalg.norm(y, axis=-1)
    cosines = jnp.sum(x * y, axis=-1) / jnp.where(sizes == 0, 1, sizes)
    return 1 - jnp.mean(cosines)
