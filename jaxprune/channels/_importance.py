"""How much each channel matters: functions from parameters to importances.

Every factory takes a graph and returns `importance(params) -> {group: (channels,)}`,
float32 and not negative, to be ranked within a group or over all of them. Any function
of that form can stand in its place.

References:
  [DSA] Ning et al., ECCV 2020, arXiv:2004.02164.
  [Slimming] Liu et al., "Learning Efficient Convolutional Networks through Network
  Slimming", ICCV 2017, arXiv:1708.06519.
  [PFEC] Li et al., "Pruning Filters for Efficient ConvNets", ICLR 2017,
  arXiv:1608.08710.
  [SSL] Wen et al., "Learning Structured Sparsity in Deep Neural Networks", NeurIPS
  2016, arXiv:1608.03665.
  [Taylor] Molchanov et al., "Importance Estimation for Neural Network Pruning", CVPR
  2019, arXiv:1906.10771.
"""

from collections.abc import Callable, Iterable, Mapping
from typing import Any

import jax
import jax.numpy as jnp

from jaxprune import tree as jtree
from jaxprune.base._protocols import Params
from jaxprune.channels._gates import apply_gates, plan_gates
from jaxprune.channels._graph import ChannelGraph, Group, check_graph

Importance = Callable[[Params], dict[str, jax.Array]]


def norm_scales(
    graph: ChannelGraph, *, name: str = "scale", otherwise: Importance | None = None
) -> Importance:
    """Return the importance by the scale of the first norm on the way of a channel.

        b_c = |gamma_c|                                [DSA] Sec. 4, [Slimming] Eq. (1)

    Of the several norms of a residual group the first of the program counts, the
    authors' choice.

    Args:
      graph: the channel graph.
      name: the last part of the names of scales.
      otherwise: the importance of the groups that pass through no norm, such as
        `filter_norms(graph)`. The channels of one group are compared with each other
        only, so groups may be ranked by different importances.

    Returns:
      `params -> {group: (channels,)}`, float32; of the whole tree that was traced, or
      of its part `params`.

    Raises:
      ValueError: if a group has no member of that name and `otherwise` is not given,
        naming the group.

    Examples:
      >>> from jaxprune.channels import trace_channels
      >>> def apply_fn(params, x):
      ...     return jnp.tanh((x @ params["w1"]) * params["scale"]) @ params["w2"]
      >>> params = {
      ...     "w1": jnp.ones((3, 2)),
      ...     "scale": jnp.array([1.0, -2.0]),
      ...     "w2": jnp.ones((2, 1)),
      ... }
      >>> graph = trace_channels(apply_fn, params, jnp.ones((1, 3)))
      >>> norm_scales(graph)(params)["w1:1"].tolist()
      [1.0, 2.0]
    """
    check_graph("norm_scales", graph)
    firsts = {}
    for group in graph.groups.values():
        scales = [m for m in group.members if m.leaf.split("/")[-1] == name]
        if not scales and otherwise is not None:
            continue
        if not scales:
            raise ValueError(
                f"`norm_scales(graph, name={name!r})`: group {group.name!r} has no "
                f"member of that name; its members are "
                f"{sorted({m.leaf for m in group.members})}. Use `filter_norms(graph)`."
            )
        firsts[group.name] = scales[0]

    def importance(params):
        leaves = _leaves("norm_scales", params, graph)
        scales = {
            group: member.sums(jnp.abs(leaves[member.leaf].astype(jnp.float32)))
            for group, member in firsts.items()
        }
        if len(scales) == len(graph.groups) or otherwise is None:
            return scales
        return {**otherwise(params), **scales}

    return importance


def filter_norms(graph: ChannelGraph, *, order: int = 1) -> Importance:
    """Return the importance by the norm of the weights that make a channel.

        b_c = (mean |w|^order)^(1 / order)  over all producers      [PFEC] Sec. 3.1

    The mean rather than the sum: so that groups whose filters differ in size can be
    ranked together. Within a group the order is the same.

    Args:
      graph: the channel graph.
      order: 1 or 2.

    Returns:
      `params -> {group: (channels,)}`, float32.

    Raises:
      ValueError: if `order` is neither.

    Examples:
      >>> from jaxprune.channels import trace_channels
      >>> mlp = lambda params, x: jnp.tanh(x @ params["w1"]) @ params["w2"]
      >>> params = {"w1": jnp.array([[1.0, -3.0]]), "w2": jnp.array([[2.0], [1.0]])}
      >>> graph = trace_channels(mlp, params, jnp.ones((1, 1)))
      >>> filter_norms(graph)(params)["w1:1"].tolist()
      [1.0, 3.0]
    """
    check_graph("filter_norms", graph)
    if order not in (1, 2):
        raise ValueError(
            f"`filter_norms(order={order!r})`: must be 1 or 2. Pass 1 for sums of "
            "magnitudes, 2 for Euclidean norms."
        )

    def importance(params):
        leaves = _leaves("filter_norms", params, graph)
        return {
            name: _mean_power(group, group.makers, leaves, order) ** (1 / order)
            for name, group in graph.groups.items()
        }

    return importance


def channel_norms(graph: ChannelGraph, *, name: str = "scale") -> Importance:
    """Return the importance by the norm of all that makes a channel, scales included.

        b_c = sqrt(mean of w^2)  over all producers and scales of norms [SSL] Eq. (4)

    A filter in front of a norm may have any size, and a scale behind it too: what both
    weigh together is what weight decay and group lasso make small.

    Args:
      graph: the channel graph.
      name: the last part of the names of scales.

    Returns:
      `params -> {group: (channels,)}`, float32.

    Examples:
      >>> from jaxprune.channels import trace_channels
      >>> mlp = lambda params, x: jnp.tanh(x @ params["w1"]) @ params["w2"]
      >>> params = {"w1": jnp.array([[1.0, -3.0]]), "w2": jnp.array([[2.0], [1.0]])}
      >>> graph = trace_channels(mlp, params, jnp.ones((1, 1)))
      >>> channel_norms(graph)(params)["w1:1"].tolist()
      [1.0, 3.0]
    """
    check_graph("channel_norms", graph)

    def is_scale(member):
        return member.leaf.split("/")[-1] == name

    def importance(params):
        leaves = _leaves("channel_norms", params, graph)
        found = {}
        for group in graph.groups.values():
            members = (*group.makers, *(m for m in group.members if is_scale(m)))
            members = tuple(dict.fromkeys(members))
            found[group.name] = jnp.sqrt(_mean_power(group, members, leaves, 2))
        return found

    return importance


def filter_norms_and_scales(graph: ChannelGraph, *, name: str = "scale") -> Importance:
    """Return the importance by the product of `filter_norms` and `norm_scales`.

        b_c = |gamma_c| mean |w|   over all producers                  [DSA] Sec. 4

    The scale acts on normalised outputs, so the product is not the size of anything
    that is computed; it is one of the authors' choices.

    Args:
      graph: the channel graph.
      name: the last part of the names of scales.

    Returns:
      `params -> {group: (channels,)}`, float32.

    Raises:
      ValueError: if a group has no member of that name.

    Examples:
      >>> from jaxprune.channels import trace_channels
      >>> def apply_fn(params, x):
      ...     return jnp.tanh((x @ params["w1"]) * params["scale"]) @ params["w2"]
      >>> params = {
      ...     "w1": jnp.array([[1.0, -3.0]]),
      ...     "scale": jnp.array([1.0, -2.0]),
      ...     "w2": jnp.ones((2, 1)),
      ... }
      >>> graph = trace_channels(apply_fn, params, jnp.ones((1, 1)))
      >>> filter_norms_and_scales(graph)(params)["w1:1"].tolist()
      [1.0, 6.0]
    """
    check_graph("filter_norms_and_scales", graph)
    filters, scales = filter_norms(graph), norm_scales(graph, name=name)

    def importance(params):
        first, second = filters(params), scales(params)
        return {group: first[group] * second[group] for group in first}

    return importance


def taylor(graph: ChannelGraph, loss: Callable[[Params], jax.Array]) -> Importance:
    """Return the importance by the first-order change of the loss without a channel.

        b_c = |dL / dm_c| at m = 1,  m the gates of `apply_gates`     [Taylor] Eq. (8)

    which is the sum of g w over the weights that read the channel.

    Args:
      graph: the channel graph.
      loss: `params -> scalar`, on a sample of the training data; its gradient is
        taken whenever the importance is computed.

    Returns:
      `params -> {group: (channels,)}`, float32.

    Raises:
      ValueError: as `plan_gates`.

    Examples:
      >>> from jaxprune.channels import trace_channels
      >>> mlp = lambda params, x: jnp.tanh(x @ params["w1"]) @ params["w2"]
      >>> params = {"w1": jnp.array([[1.0, -3.0]]), "w2": jnp.array([[2.0], [1.0]])}
      >>> graph = trace_channels(mlp, params, jnp.ones((1, 1)))
      >>> loss = lambda params: jnp.sum(mlp(params, jnp.ones((1, 1))))
      >>> [round(x, 3) for x in taylor(graph, loss)(params)["w1:1"].tolist()]
      [1.523, 0.995]
    """
    check_graph("taylor", graph)
    plan = plan_gates(graph)

    def importance(params):
        whole = {name: jnp.ones(size, jnp.float32) for name, size in plan.sizes.items()}
        slopes = jax.grad(lambda gates: loss(apply_gates(plan, params, gates)))(whole)
        return jax.tree.map(jnp.abs, slopes)

    return importance


def squared_taylor(
    graph: ChannelGraph, loss: Callable[..., jax.Array], batches: Iterable[Any]
) -> Importance:
    """Return the importance by squared first-order changes of the loss, over batches.

        b_c = mean_b (dL_b / dm_c)^2 at m = 1                         [Taylor] Eq. (8)

    with the gates m of `apply_gates`, that is the square of the sum of g w over the
    weights that read the channel. Squared batch by batch, changes of either sign do not
    cancel, as they do in the gradient of the whole sample that `taylor` takes.

    Args:
      graph: the channel graph.
      loss: `(params, *batch) -> scalar`, L_b.
      batches: what else the loss takes, for each batch; a tuple holds several
        arguments. They are held in a list, and run whenever the importance is computed.

    Returns:
      `params -> {group: (channels,)}`, float32.

    Raises:
      ValueError: there is no batch; or as `plan_gates`.

    Examples:
      >>> from jaxprune.channels import trace_channels
      >>> mlp = lambda params, x: jnp.tanh(x @ params["w1"]) @ params["w2"]
      >>> params = {"w1": jnp.array([[1.0, -3.0]]), "w2": jnp.array([[2.0], [1.0]])}
      >>> graph = trace_channels(mlp, params, jnp.ones((1, 1)))
      >>> loss = lambda params, x: jnp.sum(mlp(params, x))
      >>> importance = squared_taylor(
      ...     graph, loss, [jnp.ones((1, 1)), -jnp.ones((1, 1))]
      ... )
      >>> [round(x, 3) for x in importance(params)["w1:1"].tolist()]
      [2.32, 0.99]
    """
    check_graph("squared_taylor", graph)
    plan = plan_gates(graph)
    given = [batch if isinstance(batch, tuple) else (batch,) for batch in batches]
    if not given:
        raise ValueError(
            "`squared_taylor(batches)`: must hold at least one batch, got none. Pass a "
            "list of the arguments of the loss."
        )

    @jax.jit
    def squares(params, batch):
        whole = {name: jnp.ones(size, jnp.float32) for name, size in plan.sizes.items()}
        slopes = jax.grad(lambda m: loss(apply_gates(plan, params, m), *batch))(whole)
        return jax.tree.map(jnp.square, slopes)

    def importance(params):
        found = [squares(params, batch) for batch in given]
        return jax.tree.map(lambda *all_: sum(all_) / len(all_), *found)

    return importance


def _leaves(call: str, params, graph) -> Mapping[str, Any]:
    """Return leaves by their names in the graph, of the tree or its part `params`."""
    leaves = jtree.named_leaves(params)
    if not leaves.keys() & graph.leaves.keys():
        leaves = {f"params/{name}": leaf for name, leaf in leaves.items()}
    needed: dict[str, None] = {}
    for group in graph.groups.values():
        # Groups without a producer are judged by all members, of which statistics may
        # lie outside of `params`.
        made = [m.leaf for m in group.makers if m.role != "member" or m.leaf in leaves]
        needed.update(dict.fromkeys(made or [group.makers[0].leaf]))
    for name in needed:
        shape = tuple(graph.leaves[name].shape)
        if name not in leaves or jnp.shape(leaves[name]) != shape:
            got = jnp.shape(leaves[name]) if name in leaves else "none of that name"
            raise ValueError(
                f"`{call}(graph)(params)`: leaf {name!r} must have the shape that was "
                f"traced, {shape}; got {got}. Pass the tree that was traced, or its "
                "part `params`."
            )
    return leaves


def _mean_power(group: Group, members, leaves, order: int) -> jax.Array:
    total, count = jnp.zeros(group.size, jnp.float32), 0
    for member in members:
        leaf = leaves.get(member.leaf)
        if leaf is not None:
            total += member.sums(jnp.abs(leaf.astype(jnp.float32)) ** order)
            here = int((member.channels >= 0).sum())
            count += leaf.size // leaf.shape[member.axis] * here
    return total * group.size / max(count, 1)
