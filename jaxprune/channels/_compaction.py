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
from jaxprune.channels._flow.evaluate import Evaluation, Kept
from jaxprune.channels._graph import ChannelGraph
from jaxprune.channels._liveness import live_channels
from jaxprune.channels._masks import is_by_name, read_masks, removed_atoms
from jaxprune.channels._trace import abstract, trace
from jaxprune.channels._trees import shrink


class Compacted(NamedTuple):
    """A compact network.

    Attributes:
      functions: the smaller functions by name, of the smaller parameters and the same
        inputs.
      trees: the trees given to `compact`, smaller.
      masks: for every group which channels are left, bool, shape (channels,).
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
        """For every group the number of channels left."""
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
    kept = _kept_leaves(graph, read)
    _check_nothing_empty(graph, kept)
    return Compacted(
        functions={
            name: _runner(graph, name, kept, small=True) for name in graph.functions
        },
        trees=tuple(shrink(graph, kept, one) for one in trees),
        masks={
            name: read.get(name, np.ones(group.size, bool))
            for name, group in graph.groups.items()
        },
        kept={name: _indices(graph, name, k) for name, k in kept.items()},
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
    kept = _kept_leaves(graph, read_masks("graph.masked", graph, masks))
    return _runner(graph, name, kept, small=False)


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


def _kept_leaves(graph, masks) -> dict[str, Kept]:
    """For every leaf and axis the indices that stay, None for all."""
    program = graph._traced.program
    run = Evaluation(program, removed_atoms(graph, masks), small=True)
    values = program.args[: len(graph._traced.names)]
    return {
        name: run.kept_of(value)
        for name, value in zip(graph._traced.names, values, strict=True)
    }


def _check_nothing_empty(graph, kept):
    for name, indices in kept.items():
        for axis, left in enumerate(indices):
            if left is not None and len(left) == 0:
                raise ValueError(
                    f"`graph.compact(masks)`: nothing is left of leaf {name!r}, axis "
                    f"{axis}, which several groups share. Keep one channel there."
                )


def _indices(graph, name, kept: Kept):
    shape = graph.leaves[name].shape
    return tuple(
        np.arange(size) if left is None else left
        for size, left in zip(shape, kept, strict=True)
    )


def _runner(graph, name: str, kept: Mapping[str, Kept], *, small: bool):
    """Return the function that evaluates one of the graph, for any shapes of inputs."""
    cache: dict[Any, tuple[Any, Any]] = {}
    traced, apply_fn = graph._traced, graph.functions[name].apply_fn

    def prepare(params, inputs, key):
        if key in cache:
            return cache[key]
        full = [
            abstract(given, leaf.shape)
            for leaf, given in zip(traced.leaves, jax.tree.leaves(params), strict=True)
        ]
        dense = jax.tree.unflatten(jax.tree.structure(params), full)
        # Mapped axes are those of the caller, who may have other sizes.
        new = trace(
            {name: (apply_fn, inputs)},
            dense,
            main=name,
            axis_sizes={},
            updated=traced.updated,
            norms=traced.norms,
        )
        held = [*kept.values(), *((None,) * x.ndim for x in new.inputs)]
        removed = new.program.remover(
            held, lambda i: f"leaf {traced.names[i]!r}" if i < len(kept) else "an input"
        )
        evaluation = Evaluation(new.program, removed, small=small)
        made = evaluation, new.out_trees[name]
        if not any(isinstance(c, jax.core.Tracer) for c in new.program.consts):
            cache[key] = made
        return made

    @functools.wraps(apply_fn)
    def run(params, *inputs):
        _check_shapes(graph, kept if small else {}, params)
        flat, structure = jax.tree.flatten((params, *inputs))
        flat = [x if hasattr(x, "shape") else jnp.asarray(x) for x in flat]
        params, *inputs = jax.tree.unflatten(structure, flat)
        sizes = tuple(_size_here(axis) for axis in traced.axes)
        key = structure, tuple(abstract(x) for x in flat), sizes
        program, out_tree = prepare(params, inputs, key)
        return jax.tree.unflatten(out_tree, program(*flat))

    return run


def _size_here(axis) -> int | None:
    """Return the size of a mapped axis where this is called; None outside of it."""
    try:
        return jax.lax.axis_size(axis)
    except NameError:
        return None


def _check_shapes(graph, kept, params):
    given = jtree.named_leaves(params)
    if list(given) != list(graph.leaves):
        raise ValueError(
            "`apply_fn(params, ...)`: the parameters of a compact or masked network "
            f"must have the leaves that were traced, {list(graph.leaves)}, got "
            f"{list(given)}. Pass the `trees` of the same call of `compact`."
        )
    for name, leaf in graph.leaves.items():
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
