"""Gates on channels, applied to the weights that read them.

A channel whose gate is m is read as m times its value: every kernel that contracts over
it has its input rows multiplied by m. With m = 0 that is exactly the network without
the channel, whatever its bias or norm; with m between 0 and 1, or random, it is the
soft form of it, differentiable in m. No activation is touched, so the cost is one
multiplication per weight.

Where two activations meet in a product (queries and keys) no weight stands. There all
members of the group are multiplied instead, so that one of the activations is zero when
m is; that is exact for gates of 0 and 1.
"""

import functools
from collections.abc import Iterable, Iterator, Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import ArrayLike

from jaxprune import tree as jtree
from jaxprune.base._protocols import Masks, Params
from jaxprune.channels._graph import ChannelGraph, check_graph


class GatePlan(NamedTuple):
    """Where the channels of a graph are read, worked out once.

    Attributes:
      sizes: group name to the number of its channels.
      places: leaf name to pairs of an axis and, for every index there, the numbers of
        the gates that multiply it, int32 of shape (axis size, width). Gates are
        numbered through all groups in the order of `sizes`; the number after the last
        stands for an open gate.
    """

    sizes: dict[str, int]
    places: dict[str, tuple[tuple[int, np.ndarray], ...]]


def plan_gates(graph: ChannelGraph, groups: Iterable[str] | None = None) -> GatePlan:
    """Find the weights that read each channel of a graph.

    Args:
      graph: the channel graph.
      groups: the names of the groups that get gates; all if not given.

    Returns:
      What `apply_gates` works from.

    Raises:
      ValueError: if a name is that of no group; if two activations meet over channels
        of a group, and neither needs to be zero when its parameters are, or if the
        channels are experts: no gate on parameters would be exact.

    Examples:
      >>> from jaxprune.channels import trace_channels
      >>> mlp = lambda params, x: jnp.tanh(x @ params["w1"]) @ params["w2"]
      >>> params = {"w1": jnp.array([[1.0, -3.0]]), "w2": jnp.array([[2.0], [1.0]])}
      >>> graph = trace_channels(mlp, params, jnp.ones((1, 1)))
      >>> plan = plan_gates(graph)
      >>> plan.sizes, [(leaf, places[0][0]) for leaf, places in plan.places.items()]
      ({'w1:1': 2}, [('w2', 0)])
    """
    check_graph("plan_gates", graph)
    flow = graph._traced.program.flow
    names = list(graph.groups if groups is None else groups)
    unknown = sorted(set(names) - graph.groups.keys())
    if unknown:
        raise ValueError(
            f"`plan_gates(graph, groups)`: no group is called {unknown}; the groups "
            f"are {list(graph.groups)}."
        )
    gated = {name: graph.groups[name] for name in names}
    sizes = {name: group.size for name, group in gated.items()}
    open_gate = sum(sizes.values())
    number = np.full(flow.atoms.count, open_gate, np.int32)
    start = 0
    for group in gated.values():
        number[group._atoms] = np.arange(start, start + group.size)
        start += group.size
    _check_maskable(flow, number, open_gate)
    return GatePlan(sizes, _places(graph, number, open_gate))


def _check_maskable(flow, number: np.ndarray, open_gate: int) -> None:
    """Refuse gates on channels for which no mask of parameters is exact."""

    def gated(axis) -> bool:
        rows = isinstance(axis, np.ndarray)
        return rows and bool((number[flow.atoms.resolve(axis)] != open_gate).any())

    for where, axis in flow.unmaskable:
        if gated(axis):
            raise ValueError(
                f"`plan_gates(graph)`: {where} multiplies two activations, or sums "
                "one, over channels that may go, and none is zero when its parameters "
                "are, so no mask of parameters is exact. Mask the program, with "
                "`graph.masked`, or remove the channels, with `graph.compact`."
            )
    for route in flow.routes:
        if gated(route.axis):
            raise ValueError(
                f"`plan_gates(graph)`: {route.where} chooses among experts, and a "
                "router with weights of zero has a logit of 0, not of minus infinity, "
                "so no mask of parameters is exact. Mask the program, with "
                "`graph.masked`; or leave experts out, with `fixed={'experts': 1.0}` "
                "or the names of the other groups."
            )
    for where, axis in flow.renormalised:
        if gated(axis):
            raise ValueError(
                f"`plan_gates(graph)`: {where} takes the mean of the channels that are "
                "left, so no mask of parameters is exact. Mask the program, with "
                "`graph.masked`; or plan the gates of a graph that was traced with "
                "`norms='dense-count'`, whose groups are the same."
            )


def _places(graph, number: np.ndarray, open_gate: int):
    """Return for every leaf the axes on which gates act, and their numbers."""
    flow = graph._traced.program.flow
    exposed = np.zeros(flow.atoms.count, bool)
    for axis in flow.activation_products:
        if isinstance(axis, np.ndarray):
            exposed[flow.atoms.resolve(axis)] = True
    places: dict[str, tuple[tuple[int, np.ndarray], ...]] = {}
    names = graph._traced.names
    values = graph._traced.program.args[: len(names)]
    for i, (name, value) in enumerate(zip(names, values, strict=True)):
        for d, axis in enumerate(value.axes):
            if not isinstance(axis, np.ndarray):
                continue
            rows = flow.atoms.resolve(axis)
            gates = number[rows]
            if (i, d) not in flow.consumers:
                gates = np.where(exposed[rows], gates, open_gate)
            if (gates != open_gate).any():
                places[name] = (*places.get(name, ()), (d, gates))
    return places


def apply_gates(
    plan: GatePlan, params: Params, gates: Mapping[str, ArrayLike]
) -> Params:
    """Multiply the weights that read each channel by its gate.

        w'[c, ...] = m_c w[c, ...]   for every kernel w that contracts over channel c

    Args:
      plan: `plan_gates(graph)`.
      params: the parameters that were traced, or the part of them that is called
        `params`.
      gates: group name to gates, shape (channels,), any dtype; groups that are not
        named are open. Differentiable in gates and parameters.

    Returns:
      A tree of the structure, shapes and dtypes of `params`.

    Raises:
      ValueError: if a group is unknown or of another size, or a leaf that reads
        channels is missing.

    Examples:
      >>> from jaxprune.channels import trace_channels
      >>> def mlp(params, x):
      ...     return jnp.tanh(x @ params["w1"]) @ params["w2"]
      >>> params = {"w1": jnp.ones((3, 2)), "w2": jnp.ones((2, 1))}
      >>> plan = plan_gates(trace_channels(mlp, params, jnp.ones((1, 3))))
      >>> apply_gates(plan, params, {"w1:1": jnp.array([1.0, 0.25])})["w2"].tolist()
      [[1.0], [0.25]]
    """
    leaves, gated = jtree.named_leaves(params), {}
    for name, axis, factor in _factors("apply_gates", plan, leaves, gates):
        leaf = gated.get(name, leaves[name])
        shape = [-1 if d == axis else 1 for d in range(leaf.ndim)]
        gated[name] = leaf * factor.reshape(shape).astype(leaf.dtype)
    return jtree.replace(params, gated)


def gate_masks(plan: GatePlan, params: Params, gates: Mapping[str, ArrayLike]) -> Masks:
    """Return masks of the weights that read channels whose gate is not zero.

        mask[c, ...] = (m_c != 0)   for every kernel that contracts over channel c

    Args:
      plan: `plan_gates(graph)`.
      params: as for `apply_gates`, possibly abstract.
      gates: group name to gates, shape (channels,), any dtype; groups that are not
        named are open.

    Returns:
      A tree of bool arrays of the structure of `params`: of the parameter's shape where
      it reads channels of the plan, else the scalar True.

    Raises:
      ValueError: as `apply_gates`.

    Examples:
      >>> from jaxprune.channels import trace_channels
      >>> mlp = lambda params, x: jnp.tanh(x @ params["w1"]) @ params["w2"]
      >>> params = {"w1": jnp.array([[1.0, -3.0]]), "w2": jnp.array([[2.0], [1.0]])}
      >>> graph = trace_channels(mlp, params, jnp.ones((1, 1)))
      >>> gates = {"w1:1": jnp.array([1.0, 0.0])}
      >>> gate_masks(plan_gates(graph), params, gates)["w2"].tolist()
      [[True], [False]]
    """
    leaves = jtree.named_leaves(params)
    masks = {name: jnp.asarray(True) for name in leaves}
    for name, axis, factor in _factors("gate_masks", plan, leaves, gates):
        size = leaves[name].shape
        shape = [-1 if d == axis else 1 for d in range(len(size))]
        here = jnp.broadcast_to((factor != 0).reshape(shape), size)
        masks[name] = here if masks[name].ndim == 0 else masks[name] & here
    return jtree.replace(params, masks)


def _factors(call, plan, leaves, gates) -> Iterator[tuple[str, int, jax.Array]]:
    """Yield what multiplies each index of each axis on which channels are read."""
    _check_gates(call, plan, gates)
    dtype = jnp.result_type(jnp.float32, *gates.values())
    whole = [
        jnp.asarray(gates[name], dtype) if name in gates else jnp.ones(size, dtype)
        for name, size in plan.sizes.items()
    ]
    numbered = jnp.concatenate([*whole, jnp.ones(1, dtype)])
    for name, places in plan.places.items():
        present = _present(call, name, leaves)
        for axis, numbers in places:
            columns = [numbered[column] for column in numbers.T]
            yield present, axis, functools.reduce(jnp.multiply, columns)


def _check_gates(call, plan, gates: Mapping[str, Any]) -> None:
    for name, gate in gates.items():
        if name not in plan.sizes:
            raise ValueError(
                f"`{call}(gates)`: no group is called {name!r}. The groups are "
                f"{list(plan.sizes)}."
            )
        if jnp.shape(gate) != (plan.sizes[name],):
            raise ValueError(
                f"`{call}(gates)`: the gates of group {name!r} must have shape "
                f"{(plan.sizes[name],)}, got {jnp.shape(gate)}. Pass one number for "
                "each channel."
            )


def _present(call, name, leaves) -> str:
    """Return the name of a leaf of the graph in a tree, or in its part `params`."""
    if name in leaves:
        return name
    short = name.removeprefix("params/")
    if short in leaves:
        return short
    raise ValueError(
        f"`{call}(params)`: leaf {name!r} reads channels and is missing; the leaves "
        f"are {list(leaves)}. Pass the parameters that were traced."
    )
