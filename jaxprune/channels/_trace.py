"""From a function of parameters to a `Program` with named leaves."""

import dataclasses
from collections.abc import Callable, Sequence
from typing import Any

import jax
import numpy as np
from jax.extend import core as jex

import jaxprune.channels._primitives  # noqa: F401, registers the rules
from jaxprune import tree
from jaxprune.channels._flow.evaluate import Program
from jaxprune.channels._flow.flow import Flow, Source, Value


@dataclasses.dataclass(frozen=True, eq=False)
class Traced:
    """A program whose first arguments are the leaves of a tree of parameters.

    Attributes:
      program: the program; its outputs and its other arguments are pinned.
      names: the names of the leaves.
      leaves: their shapes and dtypes.
      inputs: shapes and dtypes of the other arguments.
      in_tree: the structure of `(params, *inputs)`.
      out_tree: the structure of what the function returns.
    """

    program: Program
    names: tuple[str, ...]
    leaves: tuple[jax.ShapeDtypeStruct, ...]
    inputs: tuple[jax.ShapeDtypeStruct, ...]
    in_tree: Any
    out_tree: Any


def abstract(x) -> jax.ShapeDtypeStruct:
    """The shape and dtype of an array, concrete or not."""
    weak = getattr(x, "weak_type", False)
    return jax.ShapeDtypeStruct(x.shape, x.dtype, weak_type=bool(weak))


def trace(apply_fn: Callable[..., Any], params: Any, inputs: Sequence[Any]) -> Traced:
    """Traces `apply_fn(params, *inputs)` and pushes channel identities through it."""
    avals = jax.tree.map(abstract, (params, *inputs))
    closed, out = jax.make_jaxpr(apply_fn, return_shape=True)(*avals)
    flow = Flow()
    named = tree.named_leaves(avals[0])
    args = [
        Value(
            tuple(flow.fresh(size) for size in leaf.shape),
            Source(i, tuple(frozenset({d}) for d in range(len(leaf.shape)))),
            frozenset(range(len(leaf.shape))),
        )
        for i, leaf in enumerate(named.values())
    ]
    others = jax.tree.leaves(avals[1:])
    args += [flow.fixed_value(x.shape, "an input of the function") for x in others]
    consts = [flow.fresh_value(np.shape(c)) for c in closed.consts]
    outs, frame = flow.run(closed.jaxpr, consts, args)
    _settle_outputs(flow, named, args, out, outs)
    return Traced(
        Program(flow, frame, closed.consts, args, outs),
        tuple(named),
        tuple(named.values()),
        tuple(others),
        jax.tree.structure(avals),
        jax.tree.structure(out),
    )


def _settle_outputs(flow, named, args, out, outs):
    """Pins outputs, but joins updated leaves with the leaves that they replace.

    An output is an updated leaf if its key path ends with the whole name of a leaf of
    the same shape, as in `logits, {"batch_stats": ...} = apply_fn(params, x)`.
    """
    numbers = {name: i for i, name in enumerate(named)}
    for path, (aval, value) in zip(
        (path for path, _ in jax.tree_util.tree_leaves_with_path(out)),
        zip(jax.tree.leaves(out), outs, strict=True),
        strict=True,
    ):
        leaf = _replaced(path, aval, numbers, named)
        for d, axis in enumerate(value.axes):
            if leaf is None:
                flow.atoms.pin(axis, "it is an output of the function")
            else:
                why = f"the updated leaf {list(named)[leaf]}"
                flow.atoms.unify(args[leaf].axes[d], axis, why)


def _replaced(path, aval, numbers, named) -> int | None:
    for start in range(len(path)):
        if isinstance(path[start], jax.tree_util.SequenceKey):
            continue
        name = tree.name_of(path[start:])
        if name in numbers and named[name].shape == aval.shape:
            return numbers[name]
    return None


def fingerprint(jaxpr) -> tuple:
    """A summary of a jaxpr that equal programs share: primitives and shapes."""
    steps = []
    for equation in jaxpr.eqns:
        shapes = tuple(str(out.aval) for out in equation.outvars)
        inner = tuple(
            fingerprint(getattr(sub, "jaxpr", sub))
            for sub in jex.jaxprs_in_params(equation.params)
        )
        steps.append((equation.primitive.name, shapes, inner))
    return tuple(steps)
