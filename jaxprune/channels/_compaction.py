"""A smaller function, and smaller trees: pruned channels leave for good.

`compact` is a transformation of functions, as `jax.grad` is: it takes the function that
was traced and returns one that computes the same with smaller parameters. No model code
has to accept widths.

    graph = trace_channels(apply_fn, params, images)
    masks = random_channel_masks(key, graph, 0.5)
    small = compact(apply_fn, graph, masks, params, opt_state)
    logits = small.apply_fn(small.trees[0], images)

What is computed is exactly the network in which nobody reads the removed channels:

    small.apply_fn(small.trees[0], x) = masked(apply_fn, graph, masks)(params, x)
                                      = apply_fn(consumer-masked params, x)

A sum over channels has fewer terms and may be added up in another order, so equality is
up to rounding. The second form is a statement about the program, and the definition.
The third holds where a parameter stands at every product that reads a pruned channel;
between two activations (queries and keys) `consumer_masks` masks their producers.

Shapes change here and only here, on the host. The smaller function may be transformed
by `jit`, `grad` and `vmap`, and takes other batch sizes: it traces `apply_fn` again for
each, as `jit` does.
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
from jaxprune.channels._flow.evaluate import Evaluation, Kept
from jaxprune.channels._graph import ChannelGraph
from jaxprune.channels._masks import channel_masks, removed_atoms
from jaxprune.channels._trace import fingerprint, trace
from jaxprune.channels._trees import shrink


class Compacted(NamedTuple):
    """A compact network.

    Attributes:
      apply_fn: the smaller function, of the smaller parameters and the same inputs.
      trees: the trees given to `compact`, smaller.
      widths: for every group the number of channels left.
      kept: for every leaf, for every axis, the original indices of what is left.
    """

    apply_fn: Callable[..., Any]
    trees: tuple[Any, ...]
    widths: dict[str, int]
    kept: dict[str, tuple[np.ndarray, ...]]


def compact(
    apply_fn: Callable[..., Any],
    graph: ChannelGraph,
    masks: Mapping[str, Any] | Masks,
    *trees: Any,
) -> Compacted:
    """Removes channels from a function and from trees.

    Args:
      apply_fn: the function that was traced, `apply_fn(params, *inputs)`.
      graph: `trace_channels(apply_fn, params, *inputs)`.
      masks: what stays: bool arrays of shape (channels,) by group name, groups that
        are not named stay whole; or masks in the structure of the parameters, as
        `channel_masks` reads them.
      *trees: what shrinks with it: the parameters, parts of them, batch statistics,
        optimizer states, averages: anything whose leaves are called like leaves of
        the graph and have their shapes. Scalars pass as they are.

    Returns:
      The smaller function and the smaller trees.

    Raises:
      ValueError: if the masks do not fit the graph, remove a whole group or split one;
        if `apply_fn` is not the function that was traced, or depends on more than its
        arguments; if a leaf of a tree has another shape than the parameter it belongs
        to (factored second moments, as adafactor keeps them).
      TypeError: if a mask is not boolean.

    >>> import jax, jax.numpy as jnp
    >>> from jaxprune.channels import trace_channels
    >>> def mlp(params, x):
    ...     return jnp.tanh(x @ params["w1"]) @ params["w2"]
    >>> params = {"w1": jnp.ones((3, 4)), "w2": jnp.ones((4, 2))}
    >>> graph = trace_channels(mlp, params, jnp.ones((1, 3)))
    >>> masks = {"w1:1": jnp.array([True, False, True, False])}
    >>> small = compact(mlp, graph, masks, params)
    >>> jax.tree.map(jnp.shape, small.trees[0])
    {'w1': (3, 2), 'w2': (2, 2)}
    >>> small.apply_fn(small.trees[0], jnp.ones((5, 3))).shape
    (5, 2)
    """
    masks = channel_masks(graph, masks)
    _check_same_program(apply_fn, graph)
    kept = _kept_leaves(graph, masks)
    _check_nothing_empty(graph, kept)
    return Compacted(
        apply_fn=_runner(apply_fn, graph, kept, small=True),
        trees=tuple(shrink(graph, kept, one) for one in trees),
        widths={
            name: int(np.sum(masks[name])) if name in masks else group.size
            for name, group in graph.groups.items()
        },
        kept={name: _indices(graph, name, k) for name, k in kept.items()},
    )


def masked(
    apply_fn: Callable[..., Any], graph: ChannelGraph, masks: Mapping[str, Any] | Masks
) -> Callable[..., Any]:
    """Returns the network in which nobody reads the removed channels.

    It takes the parameters at full size. Wherever a convolution or a product sums over
    removed channels, it sums zeros; all else is left alone. `compact` computes the same
    at a smaller size, and gradients with respect to what both hold are equal too.

    Args:
      apply_fn: the function that was traced.
      graph: its graph.
      masks: as for `compact`.

    Raises:
      ValueError: as `compact`.
      TypeError: as `compact`.
    """
    masks = channel_masks(graph, masks)
    _check_same_program(apply_fn, graph)
    return _runner(apply_fn, graph, _kept_leaves(graph, masks), small=False)


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
                    f"`compact`: the masks leave nothing of leaf {name!r}, axis "
                    f"{axis}, which several groups share. Keep one channel there."
                )


def _indices(graph, name, kept: Kept):
    shape = graph.leaves[name].shape
    return tuple(
        np.arange(size) if left is None else left
        for size, left in zip(shape, kept, strict=True)
    )


def _check_same_program(apply_fn, graph):
    traced = graph._traced
    avals = jax.tree.unflatten(traced.in_tree, (*traced.leaves, *traced.inputs))
    # A new function, lest JAX answer with the trace that it remembers.
    closed = jax.make_jaxpr(lambda *args: apply_fn(*args))(*avals)
    if fingerprint(closed.jaxpr) != fingerprint(traced.program.frame.jaxpr):
        raise ValueError(
            "`compact(apply_fn, graph, ...)`: `apply_fn` must be the pure function "
            "that `graph` was traced from; traced again with the same shapes it is "
            "another program. Either it is another function, or it depends on "
            "something besides its arguments: a counter, a flag, a global. Make it an "
            "argument, or close over a constant."
        )


def _runner(apply_fn, graph, kept: Mapping[str, Kept], *, small: bool):
    """The function that evaluates `apply_fn`, traced anew for every set of shapes."""
    cache: dict[Any, tuple[Any, Any]] = {}
    traced = graph._traced

    def prepare(params, inputs, key):
        if key in cache:
            return cache[key]
        full = [
            jax.ShapeDtypeStruct(leaf.shape, given.dtype)
            for leaf, given in zip(traced.leaves, jax.tree.leaves(params), strict=True)
        ]
        dense = jax.tree.unflatten(jax.tree.structure(params), full)
        new = trace(apply_fn, dense, inputs)
        held = [*kept.values(), *((None,) * x.ndim for x in new.inputs)]
        removed = new.program.remover(
            held, lambda i: f"leaf {traced.names[i]!r}" if i < len(kept) else "an input"
        )
        made = Evaluation(new.program, removed, small=small), new.out_tree
        if not any(isinstance(c, jax.core.Tracer) for c in new.program.consts):
            cache[key] = made
        return made

    @functools.wraps(apply_fn)
    def run(params, *inputs):
        _check_shapes(graph, kept if small else {}, params)
        flat, structure = jax.tree.flatten((params, *inputs))
        flat = [x if hasattr(x, "shape") else jnp.asarray(x) for x in flat]
        params, *inputs = jax.tree.unflatten(structure, flat)
        key = structure, tuple((x.shape, x.dtype) for x in flat)
        program, out_tree = prepare(params, inputs, key)
        return jax.tree.unflatten(out_tree, program(*flat))

    return run


def _check_shapes(graph, kept, params):
    given = jtree.named_leaves(params)
    if list(given) != list(graph.leaves):
        raise ValueError(
            "the compact function takes the leaves that were traced: "
            f"{list(graph.leaves)}, got {list(given)}."
        )
    for name, leaf in graph.leaves.items():
        left = kept.get(name, (None,) * len(leaf.shape))
        shape = tuple(
            size if k is None else len(k)
            for size, k in zip(leaf.shape, left, strict=True)
        )
        if tuple(given[name].shape) != shape:
            raise ValueError(
                f"leaf {name!r} must have shape {shape}, got {given[name].shape}: the "
                "masks and the trees must come from the same call of `compact`."
            )
