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
reason: inputs and outputs, axes that are summed or normalised over (layer norm; unless
`norms` says otherwise), and whatever meets a primitive that has no rule.

    graph = trace_channels(apply_fn, params, images)
    print(graph)
    small = graph.compact(masks, params)

The graph owns the functions that were traced: `graph.compact` and `graph.masked` return
them with fewer channels. Functions of the same parameters (a network in training and in
evaluation mode) are traced together; their groups are those that all of them allow.
"""

import dataclasses
import functools
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jaxprune.base._checks import check_callable
from jaxprune.base._sharding import replicated
from jaxprune.channels._blocks import Block, blocks_of, gated
from jaxprune.channels._flow import grouping, roles, routing, unused
from jaxprune.channels._flow.atoms import Fixed
from jaxprune.channels._flow.checks import check_arrays
from jaxprune.channels._flow.flow import DENSE_COUNT, NORMS, PINNED
from jaxprune.channels._flow.reasons import Reason
from jaxprune.channels._show import drawing, printing
from jaxprune.channels._trace import Traced, abstract, trace

if TYPE_CHECKING:
    from jaxprune.channels._compaction import Compacted

_ONLY = "apply_fn"  # the name of a function that is traced alone


class Function(NamedTuple):
    """A function of the parameters, with example inputs of its own.

    Attributes:
      apply_fn: a pure function `apply_fn(params, *inputs)`.
      inputs: a tuple of pytrees of arrays or of `jax.ShapeDtypeStruct`.
    """

    apply_fn: Callable[..., Any]
    inputs: tuple[Any, ...]


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

    def sums(self, array: Any) -> Any:
        """Return the sum of what lies in each channel.

            s_c = sum over the indices i with channels[i] = c of sum a[..., i, ...]

        Args:
          array: an array of the shape of the leaf: the absolute values of the weights,
            their squares, or where they are not zero. NumPy arrays are summed on the
            host, in their own precision.

        Returns:
          An array of shape (channels,): NumPy's if `array` is, else JAX's.

        Examples:
          >>> channels = np.array([0, 1, 0, -1], np.int32)
          >>> member = Member(leaf="scale", axis=0, role="member", channels=channels)
          >>> member.sums(np.array([1.0, 2.0, 3.0, 4.0])).tolist()
          [4.0, 2.0]
        """
        others = tuple(d for d in range(array.ndim) if d != self.axis)
        (places,) = np.nonzero(self.channels >= 0)
        channels, totals = self.channels[places], array.sum(axis=others)
        shape = (int(self.channels.max()) + 1,)  # every channel lies on every member
        if isinstance(array, np.ndarray):
            sums = np.zeros(shape, totals.dtype)
            np.add.at(sums, channels, totals[places])
            return sums
        return (
            jnp.zeros(shape, totals.dtype).at[channels].add(replicated(totals)[places])
        )


@dataclasses.dataclass(frozen=True, kw_only=True, eq=False)
class Group:
    """Channels of one kind: each can be removed, from all members at once.

    Attributes:
      name: leaf and axis of the first producer, as in `conv1/kernel:3`.
      size: the number of channels.
      members: where they lie.
      role: what they are for, read off the program: `heads`, `kv_heads` (of grouped
        queries those that keys and values have; `heads` are then the queries of each),
        `head_features`, `mlp` (hidden units between products), `width` (the residual
        stream), `experts` or `channels` (of convolutions, and all others).
      fewest: how many must stay: of experts as many as are chosen, else 1.
    """

    name: str
    size: int
    members: tuple[Member, ...]
    role: str
    fewest: int
    _atoms: np.ndarray = dataclasses.field(repr=False)

    @property
    def producers(self) -> tuple[str, ...]:
        """Names of the leaves that make the channels."""
        return self._with_role("producer", "both")

    @property
    def consumers(self) -> tuple[str, ...]:
        """Names of the leaves that read the channels."""
        return self._with_role("consumer", "both")

    @property
    def makers(self) -> tuple[Member, ...]:
        """The members with which the channels are made; all where there are none.

        An expert is made with all of its weights, its column of the router among them.
        """
        if self.role == roles.EXPERTS:
            return self.members
        made = tuple(m for m in self.members if m.role in ("producer", "both"))
        return made or self.members

    def _with_role(self, *roles) -> tuple[str, ...]:
        return tuple(dict.fromkeys(m.leaf for m in self.members if m.role in roles))


@dataclasses.dataclass(frozen=True, kw_only=True, eq=False)
class Pinned:
    """Indices of a leaf that cannot be removed.

    Attributes:
      leaf: the name of the leaf.
      axis: the axis.
      indices: the indices, int64.
      kind: the kind of reason.
      reason: why, in words, and where in the program.
    """

    leaf: str
    axis: int
    indices: np.ndarray
    kind: Reason
    reason: str

    @property
    def touches_input(self) -> bool:
        """Whether the channels are those of an input of the function."""
        return self.kind is Reason.INPUT

    @property
    def touches_output(self) -> bool:
        """Whether the channels are those of an output of the function."""
        return self.kind is Reason.OUTPUT


@dataclasses.dataclass(frozen=True, kw_only=True, eq=False)
class ChannelGraph:
    """The channel groups of a network, and its functions. `print` shows a table.

    Attributes:
      groups: by name, in the order of the program.
      pinned: what cannot be removed, and why.
      unknown: primitives without a rule that the program contains, and where; they
        pinned all they touched.
      leaves: shapes and dtypes of the parameters, by name.
      functions: the functions that were traced, with their inputs, abstract; a function
        that was traced alone is called `apply_fn`.
      main: the name of the function whose operations the costs count: `eval` if there
        is one of that name, else the first.
      norms: what becomes of channels that are summed over, as given to
        `trace_channels`.
    """

    groups: Mapping[str, Group]
    pinned: tuple[Pinned, ...]
    unknown: Mapping[str, str]
    leaves: Mapping[str, jax.ShapeDtypeStruct]
    functions: Mapping[str, Function]
    main: str
    norms: str
    _traced: Traced = dataclasses.field(repr=False)

    def __str__(self) -> str:
        return printing.table(self)

    @property
    def blocks(self) -> Mapping[str, Block]:
        """The residual branches that can go, by name, in the order of the program.

        A branch is the summand f(x) of an addition x + f(x), if it multiplies with
        parameters that it alone reads. Found are those outside of branches, loops other
        than scans, and functions with their own derivative.

        Examples:
          >>> import jax.numpy as jnp
          >>> def network(params, x):
          ...     x = x + jnp.tanh(x @ params["up"]) @ params["down"]
          ...     return x @ params["out"]
          >>> shapes = {"up": (3, 4), "down": (4, 3), "out": (3, 2)}
          >>> params = {name: jnp.ones(shape) for name, shape in shapes.items()}
          >>> graph = trace_channels(network, params, jnp.ones((1, 3)))
          >>> (block,) = graph.blocks.values()
          >>> block.name, block.layers, block.leaves
          ('down:block', 1, ('down', 'up'))
          >>> small = graph.compact({"down:block": np.array([False])}, params)
          >>> jax.tree.map(jnp.shape, small.trees[0])
          {'down': None, 'out': (3, 2), 'up': None}
          >>> small.apply_fn(small.trees[0], jnp.ones((1, 3))).tolist()
          [[3.0, 3.0]]
        """
        return self._blocks

    @functools.cached_property
    def _blocks(self) -> Mapping[str, Block]:
        return blocks_of(self._traced)

    @property
    def roles(self) -> dict[str, tuple[str, ...]]:
        """The names of the groups by role, in the order of the program.

        Examples:
          >>> import jax.numpy as jnp
          >>> mlp = lambda params, x: jnp.tanh(x @ params["w1"]) @ params["w2"]
          >>> params = {"w1": jnp.ones((3, 8)), "w2": jnp.ones((8, 2))}
          >>> trace_channels(mlp, params, jnp.ones((1, 3))).roles
          {'mlp': ('w1:1',)}
        """
        found: dict[str, tuple[str, ...]] = {}
        for name, group in self.groups.items():
            found[group.role] = (*found.get(group.role, ()), name)
        return found

    def gated(self, *, function: str | None = None) -> Callable[..., Any]:
        """Return a function of parameters, gates and inputs: x + m f(x) at each block.

        With gates of 0 and 1 it computes what the network without the blocks of gate 0
        does; it is differentiable in the gates, so that

            |dL / dm| at m = 1

        is the first-order change of the loss without a layer, to rank layers by.

        Args:
          function: the name of one of `functions`; `main` if not given.

        Returns:
          `apply_fn(params, gates, *inputs)`; `gates` are numbers of shape (layers,) by
          the name of a block, those of other blocks are 1.

        Raises:
          ValueError: if no function has that name; when called, if a name is that of no
            block or gates have another shape.

        Examples:
          >>> import jax.numpy as jnp
          >>> network = lambda params, x: x + x @ params["w"]
          >>> params = {"w": jnp.ones((2, 2))}
          >>> graph = trace_channels(network, params, jnp.ones((1, 2)))
          >>> gates = {"w:block": jnp.array([0.25])}
          >>> graph.gated()(params, gates, jnp.ones((1, 2))).tolist()
          [[1.5, 1.5]]
        """
        return gated(self, function)

    def compact(
        self, masks: Mapping[str, Any], *trees: Any, unread: bool = False
    ) -> "Compacted":
        """Remove channels from the functions and from trees.

            small.apply_fn(small.trees[0], x) = graph.masked(masks)(params, x)

        up to rounding: sums over channels have fewer terms.

        Args:
          masks: what stays: bool arrays of shape (channels,) by group name, groups that
            are not named keep all channels, and of shape (layers,) by the name of a
            block, of which all layers may go; or masks of weights, a tree in the
            structure of the parameters as `channel_masks` reads it.
          *trees: what shrinks with it: the parameters, parts of them, batch statistics,
            optimizer states, averages: anything whose leaves are called like leaves of
            the graph and have their shapes. Leaves may be `jax.ShapeDtypeStruct`.
            Scalars, integers that belong to no leaf, and constants of sizes that no
            axis with removed channels has pass as they are.
          unread: for masks of weights alone: whether a removed channel may be one that
            masked weights do not set to zero, a filter in front of a normalisation for
            instance, which turns zeros into a constant. The compact network has no
            such constant.

        Returns:
          The smaller functions and the smaller trees. A leaf that only blocks read that
          are gone is None in the trees; stacked layers that are gone are cut from their
          first axis.

        Raises:
          ValueError: if the masks do not fit the graph, remove a whole group or split
            one; if they are masks of weights and the graph has no group, or a removed
            channel has a value that is read and `unread` is False; if a leaf of a tree
            has another shape than the parameter it belongs to (factored second moments,
            as adafactor keeps them).
          TypeError: if a mask is not boolean.

        Examples:
          >>> import jax, jax.numpy as jnp
          >>> def mlp(params, x):
          ...     return jnp.tanh(x @ params["w1"]) @ params["w2"]
          >>> params = {"w1": jnp.ones((3, 4)), "w2": jnp.ones((4, 2))}
          >>> graph = trace_channels(mlp, params, jnp.ones((1, 3)))
          >>> masks = {"w1:1": jnp.array([True, False, True, False])}
          >>> small = graph.compact(masks, params)
          >>> jax.tree.map(jnp.shape, small.trees[0])
          {'w1': (3, 2), 'w2': (2, 2)}
          >>> small.apply_fn(small.trees[0], jnp.ones((5, 3))).shape
          (5, 2)
        """
        # Not at the top: compaction needs the graph.
        from jaxprune.channels import _compaction

        return _compaction.compact(self, masks, *trees, unread=unread)

    def masked(
        self, masks: Mapping[str, Any], *, function: str | None = None
    ) -> Callable[..., Any]:
        """Return a function in which nobody reads the removed channels.

        It takes the parameters at full size. Wherever a convolution or a product sums
        over removed channels, it sums zeros; all else is left alone. `compact` computes
        the same at a smaller size, and gradients with respect to what both hold are
        equal too.

        Removed blocks are left out of the function: x takes the place of x + f(x).

        Args:
          masks: as for `compact`.
          function: the name of one of `functions`; `main` if not given.

        Returns:
          A function of the parameters and the inputs.

        Raises:
          ValueError: as `compact`, and if no function has that name.
          TypeError: as `compact`.

        Examples:
          >>> import jax.numpy as jnp
          >>> params = {"w1": jnp.ones((3, 4)), "w2": jnp.ones((4, 2))}
          >>> mlp = lambda params, x: (x @ params["w1"]) @ params["w2"]
          >>> graph = trace_channels(mlp, params, jnp.ones((1, 3)))
          >>> half = graph.masked({"w1:1": jnp.array([True, False, True, False])})
          >>> half(params, jnp.ones((1, 3))).tolist()
          [[6.0, 6.0]]
        """
        from jaxprune.channels import _compaction

        return _compaction.masked(self, masks, function=function)

    def plot(self) -> Any:
        """Draw the groups as rails past the weights that make and read them.

        A rail is a group, with its size at the head; a full mark makes its channels, a
        ring reads them. `graph.plot().savefig("channels.svg")` writes it.

        Returns:
          A `matplotlib.figure.Figure`.

        Raises:
          ImportError: if matplotlib is missing (`pip install jaxprune[plot]`).
        """
        return drawing.draw(self)


def trace_channels(
    apply_fn: Callable[..., Any] | Mapping[str, Callable[..., Any] | Function],
    params: Any,
    *inputs: Any,
    axis_sizes: Mapping[Any, int] | None = None,
    updated: Mapping[str, str] | None = None,
    norms: str = PINNED,
) -> ChannelGraph:
    """Find the groups of channels of a network that can be removed together.

    The function is traced, never run. Indices that the program couples are one channel;
    channels that occur on the same axes of the same leaves form a group.

    Args:
      apply_fn: a pure function `apply_fn(params, *inputs)`; what it returns is pinned,
        except updated leaves. Or several such functions by name, in training and in
        evaluation mode for instance: a channel is then one that all of them allow to
        remove, and `compact` returns all of them. One with other inputs is given as
        `Function(apply_fn, inputs)`.
      params: everything that may shrink: a pytree of arrays or of
        `jax.ShapeDtypeStruct`. To shrink batch statistics too, pass them here, as in
        `{"params": ..., "batch_stats": ...}`; arrays that `apply_fn` closes over shrink
        by themselves.
      *inputs: example inputs, arrays or `jax.ShapeDtypeStruct`; they keep their shapes.
        The number of examples does not matter.
      axis_sizes: for functions that name mapped axes, `BatchNorm(axis_name="batch")`
        for instance, the sizes of these axes, as in `{"batch": jax.device_count()}`;
        the graph is the same for all sizes. Call the compact function where the axes
        are: under `pmap`, `shard_map` or `vmap`.
      updated: which outputs are updated leaves, and shrink with them: from names of
        outputs, or of folders of outputs, to those of leaves. `{"1": "state"}` says
        that the second output holds updated leaves of `params["state"]`; `{}` that no
        output does. None stands for what Flax returns, `logits, {"batch_stats": ...}`:
        an item of a tuple, or a collection in it, of which every array has the name and
        the shape of a leaf of `params`.
      norms: what becomes of channels that a sum reads, as those behind a layer norm or
        an RMS norm, and so of the width of a transformer:

        - `pinned`: they stay.
        - `dense-count`: they can go. A sum is a product with ones, so a removed channel
          contributes zero, to every sum of a norm, and the divisor is what the program
          says, the number of channels of the dense network. Compact and masked networks
          are equal.
        - `renormalise`: they can go, and a sum that is divided by the number of its
          terms (less one, for a variance of samples) is divided by the number of those
          that are left, as by a network that was written at the smaller width. Compact
          networks equal `graph.masked`, but no masks of parameters: removing channels
          changes what the norms of the others compute. A sum whose division is not seen
          (past a loop or a branch) keeps the dense number. In functions with their own
          derivative these channels stay.

    Experts go with their logits: where `top_k` or `argmax` chooses along an axis, and
    weights are stacked along it, what is removed is not chosen, and maxima and sums
    over the axis (a softmax, before or after) are over what is left, as with logits of
    minus infinity. At least as many stay as are chosen (`Group.fewest`).

    Returns:
      The graph. What no output depends on is dropped first: dead code, debugging
      prints and callbacks with what only they read. Leaves that nothing uses are
      pinned. A constant, an array that depends on no argument, couples nothing.

    Raises:
      TypeError: if an input or a parameter is no array, a Python integer for instance.
      ValueError: if `params` is empty, a size is symbolic, no function is given, or
        `norms` is none of the three.
      NameError: if a function names an axis that is not in `axis_sizes`.

    Examples:
      >>> import jax.numpy as jnp
      >>> def mlp(params, x):
      ...     return jnp.tanh(x @ params["w1"] + params["b1"]) @ params["w2"]
      >>> params = {"w1": jnp.ones((3, 8)), "b1": jnp.ones(8), "w2": jnp.ones((8, 2))}
      >>> graph = trace_channels(mlp, params, jnp.ones((1, 3)))
      >>> (group,) = graph.groups.values()
      >>> group.name, group.size, group.producers, group.consumers
      ('w1:1', 8, ('w1',), ('w2',))

      >>> loss = lambda params, x, y: jnp.mean((mlp(params, x) - y) ** 2)
      >>> together = {
      ...     "eval": mlp,
      ...     "loss": Function(loss, (jnp.ones((1, 3)), jnp.ones((1, 2)))),
      ... }
      >>> graph = trace_channels(together, params, jnp.ones((1, 3)))
      >>> sorted(graph.compact({}, params).functions)
      ['eval', 'loss']
    """
    _check_norms(norms)
    functions = _functions(apply_fn, inputs)
    for function in functions.values():
        check_arrays(params, function.inputs)
    main = "eval" if "eval" in functions else next(iter(functions))
    try:
        traced = trace(
            functions,
            params,
            main=main,
            axis_sizes=axis_sizes or {},
            updated=updated,
            norms=norms,
        )
    except NameError as error:
        error.add_note(
            "`trace_channels(..., axis_sizes=...)`: if the function names a mapped "
            "axis, pass its size, as in `axis_sizes={'batch': 8}`."
        )
        raise
    return _graph_of(functions, traced)


def _check_norms(norms: Any) -> None:
    if norms not in NORMS:
        raise ValueError(
            f"`trace_channels(norms={norms!r})`: must be one of {list(NORMS)}. "
            f"Pass {DENSE_COUNT!r} to let channels behind norms go exactly."
        )


def check_graph(call: str, graph: Any) -> None:
    """Refuse what is no channel graph.

    Raises:
      TypeError: `graph` is none.
    """
    if not isinstance(graph, ChannelGraph):
        raise TypeError(
            f"`{call}(graph)`: must be a `ChannelGraph`, got a "
            f"{type(graph).__name__}. Pass what `trace_channels(apply_fn, params, "
            "inputs)` returned."
        )


def _functions(apply_fn, inputs) -> dict[str, Function]:
    """Return the functions to trace, by name, with abstract inputs."""
    if not isinstance(apply_fn, Mapping):
        apply_fn = {_ONLY: apply_fn}
    if not apply_fn:
        raise ValueError(
            "`trace_channels(apply_fn={})`: must hold at least one function. Pass "
            "`{'train': train_fn, 'eval': eval_fn}`, or one function alone."
        )
    for one in apply_fn.values():
        one = one.apply_fn if isinstance(one, Function) else one
        example = "`lambda params, x: model.apply(params, x)`, for instance"
        check_callable("trace_channels", "apply_fn", one, example)
    return {
        name: one if isinstance(one, Function) else Function(one, inputs)
        for name, one in apply_fn.items()
    }


def _graph_of(functions: Mapping[str, Function], traced: Traced) -> ChannelGraph:
    program = traced.program
    flow, args = program.flow, program.args[: len(traced.names)]
    unused.pin_unused(flow, args)
    rows = grouping.resolved_leaves(flow, args)
    raw = grouping.raw_groups(flow, rows)
    alone = [g for g in raw if len(g.atoms) == 1]
    where = grouping.positions(raw, flow.atoms.count)
    count = len(traced.names)
    named = roles.roles(flow, program.frame, count, rows, raw, where)
    groups: dict[str, Group] = {}
    for number, item in enumerate(raw):
        if len(item.atoms) > 1:
            leaf, axis = item.places[0]
            name = unique = f"{traced.names[leaf]}:{axis}"
            while unique in groups:
                unique = f"{name}#{2 + sum(n.startswith(name + '#') for n in groups)}"
            groups[unique] = _group(
                traced, rows, unique, item, where, number, named[number]
            )
    return ChannelGraph(
        groups=groups,
        pinned=tuple(_pins(traced, rows, alone)),
        unknown=dict(flow.unknown),
        leaves=dict(zip(traced.names, traced.leaves, strict=True)),
        functions={
            name: Function(one.apply_fn, jax.tree.map(abstract, one.inputs))
            for name, one in functions.items()
        },
        main=traced.main,
        norms=traced.norms,
        _traced=traced,
    )


def _group(traced, rows, name, raw, where, number, role) -> Group:
    flow = traced.program.flow
    members = []
    for place in raw.places:
        makes, reads = place in flow.producers, place in flow.consumers
        part = "producer" if makes else "consumer" if reads else "member"
        channels = grouping.channel_of(rows[place], where, number)
        members.append(
            Member(
                leaf=traced.names[place[0]],
                axis=place[1],
                role="both" if makes and reads else part,
                channels=channels,
            )
        )
    return Group(
        name=name,
        size=len(raw.atoms),
        members=tuple(members),
        role=role,
        fewest=routing.fewest(flow.atoms, flow.routes, raw.atoms),
        _atoms=raw.atoms,
    )


def _pins(traced, rows, alone):
    """Collect the indices of leaves that stay, by reason."""
    atoms = traced.program.flow.atoms
    lonely = np.zeros(atoms.count, bool)
    for group in alone:
        lonely[group.atoms] = True
    for i, name in enumerate(traced.names):
        for d, axis in enumerate(traced.program.args[i].axes):
            reasons = atoms.why(axis)
            for number in np.unique(reasons[reasons >= 0]):
                indices = np.flatnonzero(reasons == number)
                yield _pin(name, d, indices, *atoms.reasons[number])
            if isinstance(axis, Fixed):
                continue
            single = lonely[rows[i, d]].any(axis=1) & (reasons < 0)
            if single.any():
                text = "its indices are coupled into one channel, the only one"
                yield _pin(name, d, np.flatnonzero(single), Reason.ALONE, text)


def _pin(leaf, axis, indices, kind, reason) -> Pinned:
    return Pinned(leaf=leaf, axis=axis, indices=indices, kind=kind, reason=reason)
