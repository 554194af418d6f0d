"""Smaller functions, and smaller trees: pruned channels leave for good.

`graph.compact` is a transformation of functions, as `jax.grad` is: it returns the
functions that were traced, as functions of smaller parameters that compute the same. No
model code has to accept widths.

    graph = trace_channels(apply_fn, params, images)
    masks = random_channel_masks(key, graph, 0.5)
    small = graph.compact(masks, params, opt_state)
    logits = small.apply_fn(small.trees[0], images)

What is computed is exactly the network in which nobody reads the removed channels:

    small.apply_fn(small.trees[0], x) = graph.masked(masks)(params, x)
                                      = apply_fn(consumer-masked params, x)

A sum over channels has fewer terms and may be added up in another order, so equality is
up to rounding. The second form is a statement about the program, and the definition.
The third holds where a parameter stands at every product that reads a pruned channel;
between two activations (queries and keys) `consumer_masks` masks their producers.

Shapes change here and only here, on the host. The smaller functions may be transformed
by `jit`, `grad` and `vmap`, and take other batch sizes: they trace the functions again
for each, as `jit` does.
"""

import functools
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax
import jax.core
import jax.numpy as jnp
import numpy as np

from jaxprune import tree as jtree
from jaxprune.base._protocols import Masks
from jaxprune.channels._counts import check_groups
from jaxprune.channels._flow.atoms import Fixed
from jaxprune.channels._flow.evaluate import Evaluation, Kept
from jaxprune.channels._flow.reasons import Reason
from jaxprune.channels._graph import ChannelGraph
from jaxprune.channels._liveness import live_channels
from jaxprune.channels._masks import is_by_name, read_masks, removed_atoms
from jaxprune.channels._trace import Traced, abstract, trace, without_blocks
from jaxprune.channels._trees import shrink


class Compacted(NamedTuple):
    """A compact network.

    Attributes:
      functions: the smaller functions by name, of the smaller parameters and the same
        inputs.
      trees: the trees given to `compact`, smaller.
      masks: for every group which channels are left, bool, shape (channels,), and for
        every block that lost layers which are left, bool, shape (layers,).
      kept: for every leaf, for every axis, the original indices of what is left.
      main: the name of the main function of the graph.
    """

    functions: dict[str, Callable[..., Any]]
    trees: tuple[Any, ...]
    masks: dict[str, np.ndarray]
    kept: dict[str, tuple[np.ndarray, ...]]
    main: str

    @property
    def apply_fn(self) -> Callable[..., Any]:
        """The main function, the only one where one was traced."""
        return self.functions[self.main]

    @property
    def widths(self) -> dict[str, int]:
        """For everything in `masks` the number of channels, or of layers, left."""
        return {name: int(np.sum(mask)) for name, mask in self.masks.items()}


def compact(
    graph: ChannelGraph,
    masks: Mapping[str, Any] | Masks,
    *trees: Any,
    unread: bool = False,
) -> Compacted:
    """Remove channels from functions and trees; see `ChannelGraph.compact`."""
    _check_removable("compact", graph, masks)
    read = read_masks("graph.compact", graph, masks)
    if not unread and not is_by_name(graph, masks):
        _check_silent(graph, masks, read)
    left = _left(graph, read)
    _check_nothing_empty(graph, left.kept)
    whole = {name: np.ones(group.size, bool) for name, group in graph.groups.items()}
    return Compacted(
        functions={
            name: _runner(graph, name, left, small=True) for name in graph.functions
        },
        trees=tuple(shrink(graph, left.kept, one, left.gone) for one in trees),
        masks={**whole, **{n: m for n, m in read.items() if n in whole}, **left.blocks},
        kept={name: _indices(graph, name, left) for name in left.kept},
        main=graph.main,
    )


def masked(
    graph: ChannelGraph, masks: Mapping[str, Any] | Masks, *, function: str | None
) -> Callable[..., Any]:
    """Return a function that reads no removed channel; see `ChannelGraph.masked`."""
    name = graph.main if function is None else function
    if name not in graph.functions:
        raise ValueError(
            f"`graph.masked(function={function!r})`: must be the name of a function "
            f"that was traced. Pass one of {list(graph.functions)}."
        )
    _check_removable("masked", graph, masks)
    left = _left(graph, read_masks("graph.masked", graph, masks))
    return _runner(graph, name, left, small=False)


def _check_removable(call: str, graph, masks) -> None:
    """Refuse masks of weights where no channel can be removed; {} removes none."""
    if not is_by_name(graph, masks):
        check_groups(call, graph)


def _check_silent(graph, masks, read) -> None:
    """Refuse masks of weights under which a removed channel still has a value."""
    given = jtree.named_leaves(masks)
    weights = {
        name: np.broadcast_to(np.asarray(given[name]), leaf.shape).astype(np.float32)
        for name, leaf in graph.leaves.items()
    }
    live = live_channels(graph, weights)
    for name, mask in read.items():
        heard = ~mask & live[name]
        if heard.any():
            raise ValueError(
                f"`graph.compact(masks)`: the masks of weights must set to zero what "
                f"they remove, but channels {np.flatnonzero(heard).tolist()} of group "
                f"{name!r} keep a value that is read: a bias, a normalisation or an "
                "activation makes one of zero weights. Mask the weights that read "
                "them, as `consumer_masks` does; or move the constants first, with "
                "`fold_constants`; or pass `unread=True` to remove the channels with "
                "their values."
            )


class _Left(NamedTuple):
    """What is left of the leaves.

    Attributes:
      kept: for every leaf and axis the indices that stay, None for all.
      gone: the names of leaves that nothing reads any more.
      blocks: which layers stay of blocks that lost some.
    """

    kept: dict[str, Kept]
    gone: frozenset[str]
    blocks: dict[str, np.ndarray]


def _left(graph, masks) -> _Left:
    """Return what masks by name leave of the leaves."""
    traced = graph._traced
    run = Evaluation(traced.program, removed_atoms(graph, masks), small=True)
    values = traced.program.args[: len(traced.names)]
    kept = {
        name: run.kept_of(value)
        for name, value in zip(traced.names, values, strict=True)
    }
    blocks = {n: m for n, m in masks.items() if n not in graph.groups and not m.all()}
    if not blocks:
        return _Left(kept, frozenset(), {})
    rest = without_blocks(traced, graph.functions, blocks)
    gone = _read_leaves(traced) - _read_leaves(rest)
    for i, name in enumerate(traced.names):
        rows = _layers_left(traced, rest, i)
        if rows is not None and name not in gone:
            kept[name] = (rows, *kept[name][1:])
    return _Left(kept, frozenset(gone), blocks)


def _read_leaves(traced: Traced) -> set[str]:
    """Return the names of the leaves that some program reads, or returns."""
    found = set()
    for program in traced.programs.values():
        jaxpr = program.frame.jaxpr
        ends = [*(equation.invars for equation in jaxpr.eqns), jaxpr.outvars]
        read = {id(atom) for atoms in ends for atom in atoms}
        arguments = zip(traced.names, jaxpr.invars, strict=False)
        found |= {name for name, variable in arguments if id(variable) in read}
    return found


def _layers_left(traced: Traced, rest: Traced, leaf: int) -> np.ndarray | None:
    """Return the layers of a stacked leaf over which loops still run, None for all."""
    before, after = (t.program.args[leaf].axes for t in (traced, rest))
    if not before or isinstance(before[0], Fixed):
        return None
    old, new = traced.program.flow.atoms, rest.program.flow.atoms
    reasons = old.why(before[0])
    if any(r < 0 or old.reasons[r].reason is not Reason.LAYERS for r in reasons):
        return None
    stays = new.why(after[0]) >= 0
    return None if stays.all() else np.flatnonzero(stays)


def _check_nothing_empty(graph, kept):
    for name, indices in kept.items():
        for axis, left in enumerate(indices):
            if left is not None and len(left) == 0:
                raise ValueError(
                    f"`graph.compact(masks)`: nothing is left of leaf {name!r}, axis "
                    f"{axis}, which several groups share. Keep one channel there."
                )


def _indices(graph, name, left: _Left):
    shape = graph.leaves[name].shape
    if name in left.gone:
        return tuple(np.arange(0) for _ in shape)
    return tuple(
        np.arange(size) if indices is None else indices
        for size, indices in zip(shape, left.kept[name], strict=True)
    )


def _runner(graph, name: str, left: _Left, *, small: bool):
    """Return the function that evaluates one of the graph, for any shapes of inputs."""
    cache: dict[Any, tuple[Evaluation, Any]] = {}
    traced, apply_fn = graph._traced, graph.functions[name].apply_fn
    gone = left.gone if small else frozenset()

    def prepare(params, inputs, key):
        if key in cache:
            return cache[key]
        dense = _dense(traced, params, gone)
        made, consts = _prepared(traced, name, apply_fn, dense, inputs, left, small)
        if not any(isinstance(c, jax.core.Tracer) for c in consts):
            cache[key] = made
        return made

    @functools.wraps(apply_fn)
    def run(params, *inputs):
        _check_shapes(graph, left.kept if small else {}, gone, params)
        flat, structure = jax.tree.flatten((params, *inputs))
        flat = [x if hasattr(x, "shape") else jnp.asarray(x) for x in flat]
        params, *inputs = jax.tree.unflatten(structure, flat)
        sizes = tuple(_size_here(axis) for axis in traced.axes)
        key = structure, tuple(abstract(x) for x in flat), sizes
        program, out_tree = prepare(params, inputs, key)
        named = jtree.named_leaves(params)
        leaves = [named.get(leaf) for leaf in traced.names]  # None for those gone.
        args = [*leaves, *flat[len(named) :]]
        return jax.tree.unflatten(out_tree, program(*args))

    return run


def _prepared(traced: Traced, name, apply_fn, params, inputs, left: _Left, small: bool):
    """Trace for these inputs; return the evaluation, its result's tree, constants."""
    # Mapped axes are those of the caller, who may have other sizes.
    new = trace(
        {name: (apply_fn, inputs)},
        params,
        main=name,
        axis_sizes={},
        updated=traced.updated,
        norms=traced.norms,
        stay=left.blocks,
    )
    held = [
        (None,) * len(indices) if leaf in left.gone else indices
        for leaf, indices in left.kept.items()
    ]
    count = len(held)
    held += [(None,) * x.ndim for x in new.inputs]
    removed = new.program.remover(
        held, lambda i: f"leaf {traced.names[i]!r}" if i < count else "an input"
    )
    evaluation = Evaluation(new.program, removed, small=small)
    return (evaluation, new.out_trees[name]), new.program.consts


def _dense(traced: Traced, params, gone) -> Any:
    """Return parameters of full size, abstract, in the structure that was given."""
    named = jtree.named_leaves(params)
    full = [
        abstract(named.get(name, leaf), leaf.shape)
        for name, leaf in zip(traced.names, traced.leaves, strict=True)
    ]
    structure = traced.structure if gone else jax.tree.structure(params)
    return jax.tree.unflatten(structure, full)


def _size_here(axis) -> int | None:
    """Return the size of a mapped axis where this is called; None outside of it."""
    try:
        return jax.lax.axis_size(axis)
    except NameError:
        return None


def _check_shapes(graph, kept, gone, params):
    given = jtree.named_leaves(params)
    wanted = [name for name in graph.leaves if name not in gone]
    if list(given) != wanted:
        raise ValueError(
            "`apply_fn(params, ...)`: the parameters of a compact or masked network "
            f"must have the leaves that were traced, {wanted}, got "
            f"{list(given)}. Pass the `trees` of the same call of `compact`."
        )
    for name in wanted:
        leaf = graph.leaves[name]
        left = kept.get(name, (None,) * len(leaf.shape))
        shape = tuple(
            size if k is None else len(k)
            for size, k in zip(leaf.shape, left, strict=True)
        )
        if tuple(given[name].shape) != shape:
            raise ValueError(
                f"`apply_fn(params, ...)`: leaf {name!r} of this network must have "
                f"shape {shape}, got {given[name].shape}. Pass the `trees` of the same "
                "call of `compact`."
            )
