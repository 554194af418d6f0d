"""Which channels of a network belong together, read off the program itself.

A network is a function `apply_fn(params, *inputs)`. Traced, it is a list of equations
over a closed set of primitives, and every primitive says which channels of its result
are which channels of its operands: an addition couples them, a convolution makes new
ones, a concatenation puts them side by side. `trace_channels` follows every index of
every axis of every parameter through the program and returns the *groups* of channels
that can only be removed together, wherever they are: kernels, biases, statistics, both
sides of a residual sum, the rows of a dense layer behind a flattened image.

Nothing depends on how the network was written: Linen, NNX, plain JAX; convolutions with
groups, attention, recurrence, scans. What cannot be removed is *pinned*, with the
reason: inputs and outputs, axes that are summed or normalised over (layer norm), and
whatever meets a primitive that has no rule.

    graph = trace_channels(apply_fn, params, images)
    print(graph)

`jaxprune.channels` removes channels, `jaxprune.costs` prices them.
"""

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any

import jax
import numpy as np

from jaxprune.channels._flow import grouping
from jaxprune.channels._flow.atoms import Fixed
from jaxprune.channels._flow.checks import check_arrays
from jaxprune.channels._show import drawing, printing
from jaxprune.channels._trace import Traced, trace


@dataclasses.dataclass(frozen=True, kw_only=True, eq=False)
class Member:
    """One axis of one leaf on which channels of a group lie.

    Attributes:
      leaf: the name of the leaf.
      axis: the axis.
      role: `producer` if a convolution, product or look-up makes the channels with
        this leaf, `consumer` if one reads them with it, `both`, or `member` for what
        only travels along: biases, norms, statistics, depthwise kernels.
      channels: for every index of the axis the channel of the group that lies there,
        -1 for none; int32, shape (axis size,).
    """

    leaf: str
    axis: int
    role: str
    channels: np.ndarray


@dataclasses.dataclass(frozen=True, kw_only=True, eq=False)
class Group:
    """Channels of one kind: each can be removed, from all members at once.

    Attributes:
      name: leaf and axis of the first producer, as in `conv1/kernel:3`.
      size: the number of channels.
      members: where they lie.
    """

    name: str
    size: int
    members: tuple[Member, ...]
    _atoms: np.ndarray = dataclasses.field(repr=False)

    @property
    def producers(self) -> tuple[str, ...]:
        """Names of the leaves that make the channels."""
        return self._with_role("producer", "both")

    @property
    def consumers(self) -> tuple[str, ...]:
        """Names of the leaves that read the channels."""
        return self._with_role("consumer", "both")

    def _with_role(self, *roles) -> tuple[str, ...]:
        return tuple(dict.fromkeys(m.leaf for m in self.members if m.role in roles))


@dataclasses.dataclass(frozen=True, kw_only=True, eq=False)
class Pinned:
    """Indices of a leaf that cannot be removed.

    Attributes:
      leaf: the name of the leaf.
      axis: the axis.
      indices: the indices, int64.
      reason: why, and where in the program.
      touches_input: whether the reason is an input of the function.
      touches_output: whether the reason is an output of the function.
    """

    leaf: str
    axis: int
    indices: np.ndarray
    reason: str

    @property
    def touches_input(self) -> bool:
        """Whether the channels are those of an input of the function."""
        return "an input of the function" in self.reason

    @property
    def touches_output(self) -> bool:
        """Whether the channels are those of an output of the function."""
        return "an output of the function" in self.reason


@dataclasses.dataclass(frozen=True, kw_only=True, eq=False)
class ChannelGraph:
    """The channel groups of a network. `print` shows them as a table.

    Attributes:
      groups: by name, in the order of the program.
      pinned: what cannot be removed, and why.
      unknown: primitives without a rule that the program contains, and where; they
        pinned all they touched.
      leaves: shapes and dtypes of the parameters, by name.
    """

    groups: Mapping[str, Group]
    pinned: tuple[Pinned, ...]
    unknown: Mapping[str, str]
    leaves: Mapping[str, jax.ShapeDtypeStruct]
    _traced: Traced = dataclasses.field(repr=False)

    def __str__(self) -> str:
        return printing.table(self)

    def plot(self) -> Any:
        """Draws the groups as rails past the weights that make and read them.

        A rail is a group, with its size at the head; a full mark makes its channels, a
        ring reads them. `graph.plot().savefig("channels.svg")` writes it.

        Returns:
          A `matplotlib.figure.Figure`.

        Raises:
          ImportError: if matplotlib is missing (`pip install jaxprune[plot]`).
        """
        return drawing.draw(self)


def trace_channels(
    apply_fn: Callable[..., Any], params: Any, *inputs: Any
) -> ChannelGraph:
    """Finds the groups of channels of a network that can be removed together.

    The function is traced, never run. Indices that the program couples are one channel;
    channels that occur on the same axes of the same leaves form a group.

    Args:
      apply_fn: a pure function `apply_fn(params, *inputs)`; what it returns is pinned.
        Where it also returns updated leaves, batch statistics for instance, under the
        names that they have in `params`, these follow their leaves.
      params: everything that may shrink: a pytree of arrays or of
        `jax.ShapeDtypeStruct`. To shrink batch statistics too, pass them here, as in
        `{"params": ..., "batch_stats": ...}`; arrays that `apply_fn` closes over shrink
        by themselves.
      *inputs: example inputs, arrays or `jax.ShapeDtypeStruct`; they keep their shapes.
        The number of examples does not matter.

    Returns:
      The graph.

    Raises:
      TypeError: if an input or a parameter is no array, a Python integer for instance.
      ValueError: if `params` is empty, or a size is symbolic.

    >>> import jax.numpy as jnp
    >>> def mlp(params, x):
    ...     return jnp.tanh(x @ params["w1"] + params["b1"]) @ params["w2"]
    >>> params = {"w1": jnp.ones((3, 8)), "b1": jnp.ones(8), "w2": jnp.ones((8, 2))}
    >>> graph = trace_channels(mlp, params, jnp.ones((1, 3)))
    >>> (group,) = graph.groups.values()
    >>> group.name, group.size, group.producers, group.consumers
    ('w1:1', 8, ('w1',), ('w2',))
    """
    check_arrays(params, inputs)
    return _graph_of(trace(apply_fn, params, inputs))


def _graph_of(traced: Traced) -> ChannelGraph:
    program = traced.program
    flow, args = program.flow, program.args[: len(traced.names)]
    rows = grouping.resolved_leaves(flow, args)
    raw = grouping.raw_groups(flow, rows)
    alone = [g for g in raw if len(g.atoms) == 1]
    where = grouping.positions(raw, flow.atoms.count)
    groups: dict[str, Group] = {}
    for number, item in enumerate(raw):
        if len(item.atoms) > 1:
            leaf, axis = item.places[0]
            name = unique = f"{traced.names[leaf]}:{axis}"
            while unique in groups:
                unique = f"{name}#{2 + sum(n.startswith(name + '#') for n in groups)}"
            groups[unique] = _group(traced, rows, unique, item, where, number)
    return ChannelGraph(
        groups=groups,
        pinned=tuple(_pins(traced, rows, alone)),
        unknown=dict(flow.unknown),
        leaves=dict(zip(traced.names, traced.leaves, strict=True)),
        _traced=traced,
    )


def _group(traced, rows, name, raw, where, number) -> Group:
    flow = traced.program.flow
    members = []
    for place in raw.places:
        makes, reads = place in flow.makers, place in flow.readers
        role = "producer" if makes else "consumer" if reads else "member"
        channels = grouping.channel_of(rows[place], where, number)
        members.append(
            Member(
                leaf=traced.names[place[0]],
                axis=place[1],
                role="both" if makes and reads else role,
                channels=channels,
            )
        )
    return Group(
        name=name, size=len(raw.atoms), members=tuple(members), _atoms=raw.atoms
    )


def _pins(traced, rows, alone):
    """Collects the indices of leaves that stay, by reason."""
    atoms = traced.program.flow.atoms
    lonely = np.zeros(atoms.count, bool)
    for group in alone:
        lonely[group.atoms] = True
    for i, name in enumerate(traced.names):
        for d, axis in enumerate(traced.program.args[i].axes):
            if isinstance(axis, Fixed):
                reason = atoms.reasons[atoms.why(axis)[0]]
                yield Pinned(leaf=name, axis=d, indices=np.arange(1), reason=reason)
                continue
            reasons = atoms.why(axis)
            single = lonely[rows[i, d]].any(axis=1) & (reasons < 0)
            for number in np.unique(reasons[reasons >= 0]):
                indices = np.flatnonzero(reasons == number)
                reason = atoms.reasons[number]
                yield Pinned(leaf=name, axis=d, indices=indices, reason=reason)
            if single.any():
                yield Pinned(
                    leaf=name,
                    axis=d,
                    indices=np.flatnonzero(single),
                    reason="its indices are coupled into one channel, the only one",
                )
