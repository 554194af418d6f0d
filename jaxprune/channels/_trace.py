"""From a function of parameters to a `Program` with named leaves."""

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
import jax.core

import jaxprune.channels._primitives  # noqa: F401, registers the rules
from jaxprune import tree
from jaxprune.channels._flow import equations, states
from jaxprune.channels._flow.evaluate import Program
from jaxprune.channels._flow.flow import Flow, Source, Value
from jaxprune.channels._flow.reasons import Reason


@dataclasses.dataclass(frozen=True, eq=False)
class Traced:
    """Programs whose first arguments are the leaves of one tree of parameters.

    Attributes:
      programs: by name; they share the identities of the leaves. Their outputs and
        their other arguments are pinned.
      main: the name of the program whose work counts as that of the network.
      names: the names of the leaves.
      leaves: their shapes and dtypes.
      inputs: shapes and dtypes of the other arguments of the main program.
      out_trees: the structures of what the functions return.
      axes: the names of the mapped axes that the functions may use.
      updated: which outputs are updated leaves, as `states.replaced` reads it.
      norms: what becomes of channels that are summed over, one of `NORMS`.
    """

    programs: Mapping[str, Program]
    main: str
    names: tuple[str, ...]
    leaves: tuple[jax.ShapeDtypeStruct, ...]
    inputs: tuple[jax.ShapeDtypeStruct, ...]
    out_trees: Mapping[str, Any]
    axes: tuple[Any, ...]
    updated: Mapping[str, str] | None
    norms: str

    @property
    def program(self) -> Program:
        """The main program."""
        return self.programs[self.main]


def abstract(x: Any, shape: tuple[int, ...] | None = None) -> Any:
    """Return the shape and dtype of an array, concrete or not.

    Args:
      x: an array, or what this returns.
      shape: another shape; that of `x` if not given.
    """
    shape = tuple(x.shape) if shape is None else shape
    kind = jax.typeof(x) if isinstance(x, jax.core.Tracer) else x
    if isinstance(kind, jax.core.ShapedArray) and kind.manual_axis_type.varying:
        # Under `shard_map`; only this form says over which mapped axes values differ.
        return kind.update(shape=shape)
    weak = bool(getattr(x, "weak_type", False))
    return jax.ShapeDtypeStruct(shape, x.dtype, weak_type=weak)


def trace(
    functions: Mapping[str, tuple[Callable[..., Any], Sequence[Any]]],
    params: Any,
    *,
    main: str,
    axis_sizes: Mapping[Any, int],
    updated: Mapping[str, str] | None,
    norms: str,
) -> Traced:
    """Trace functions of the same parameters, and push identities through them.

    Args:
      functions: pairs of a function and its inputs, by name.
      params: the parameters.
      main: the function that is traced first, and whose work counts.
      axis_sizes: sizes of mapped axes that the functions name.
      updated: which outputs are updated leaves, as `states.replaced` reads it.
      norms: what becomes of channels that are summed over, one of `NORMS`.
    """
    flow = Flow(norms)
    avals = jax.tree.map(abstract, params)
    named = tree.named_leaves(avals)
    args = [
        Value(
            tuple(flow.fresh(size) for size in leaf.shape),
            Source(i, tuple(frozenset({d}) for d in range(len(leaf.shape)))),
            frozenset(range(len(leaf.shape))),
        )
        for i, leaf in enumerate(named.values())
    ]
    programs, out_trees, works = {}, {}, {}
    for name in sorted(functions, key=lambda name: name != main):
        flow.work = works[name] = []
        programs[name], out_trees[name] = _program(
            flow, *functions[name], avals, args, axis_sizes, updated
        )
    flow.work = works[main]
    return Traced(
        programs,
        main,
        tuple(named),
        tuple(named.values()),
        tuple(jax.tree.leaves(jax.tree.map(abstract, functions[main][1]))),
        out_trees,
        tuple(axis_sizes),
        updated,
        norms,
    )


def _program(flow: Flow, apply_fn, inputs, params, args, axis_sizes, updated):
    """Run one function; returns its program and the structure of its result."""
    inputs = jax.tree.map(abstract, tuple(inputs))
    axes = tuple(axis_sizes.items()) or None
    make = jax.make_jaxpr(apply_fn, axis_env=axes, return_shape=True)
    closed, out = make(params, *inputs)
    called = equations.called(closed)
    fixed = flow.fixed(Reason.INPUT, "an input of the function")
    others = [Value((fixed,) * len(x.shape)) for x in jax.tree.leaves(inputs)]
    args = [*args, *others]
    outs, frame = flow.run(called._replace(jaxpr=equations.live(called.jaxpr)), args)
    found = states.outputs(out, outs)
    states.settle_outputs(flow, tree.named_leaves(params), args, found, updated)
    return Program(flow, frame, args, outs), jax.tree.structure(out)


def updated_leaves(
    apply_fn: Callable[..., Any],
    params: Any,
    inputs: Sequence[Any],
    updated: Mapping[str, str] | None = None,
) -> dict[str, int]:
    """Return the leaves that a function returns updated, by name.

    Args:
      apply_fn: the function.
      params: its parameters.
      inputs: its inputs.
      updated: which outputs are updated leaves, as `states.replaced` reads it.

    Returns:
      Leaf name to the number of the output. Leaves that are returned as they came are
      not updated.
    """
    avals = jax.tree.map(abstract, (params, *inputs))
    closed, out = jax.make_jaxpr(apply_fn, return_shape=True)(*avals)
    named = tree.named_leaves(avals[0])
    numbers = {name: i for i, name in enumerate(named)}
    found = {}
    outs = states.outputs(out, equations.called(closed).jaxpr.outvars)
    for i, name in enumerate(states.replaced(outs, named, updated)):
        if name and outs[i].value is not closed.jaxpr.invars[numbers[name]]:
            found[name] = i
    return found
