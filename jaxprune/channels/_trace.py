"""From a function of parameters to a `Program` with named leaves."""

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
import jax.core
import numpy as np

import jaxprune.channels._primitives  # noqa: F401, registers the rules
from jaxprune import tree
from jaxprune.channels._flow import blocks, equations, routing, states
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
      structure: that of the parameters.
      inputs: shapes and dtypes of the other arguments of the main program.
      out_trees: the structures of what the functions return.
      axes: the sizes of the mapped axes that the functions may use, by name.
      updated: which outputs are updated leaves, as `states.replaced` reads it.
      norms: what becomes of channels that are summed over, one of `NORMS`.
    """

    programs: Mapping[str, Program]
    main: str
    names: tuple[str, ...]
    leaves: tuple[jax.ShapeDtypeStruct, ...]
    structure: Any
    inputs: tuple[jax.ShapeDtypeStruct, ...]
    out_trees: Mapping[str, Any]
    axes: Mapping[Any, int]
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
    stay: Mapping[str, np.ndarray] | None = None,
) -> Traced:
    """Trace functions of the same parameters, and push identities through them.

    Args:
      functions: pairs of a function and its inputs, by name.
      params: the parameters.
      main: the function that is traced first, and whose work counts.
      axis_sizes: sizes of mapped axes that the functions name.
      updated: which outputs are updated leaves, as `states.replaced` reads it.
      norms: what becomes of channels that are summed over, one of `NORMS`.
      stay: which layers of blocks stay, bool, by name; of others all.
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
            flow, *functions[name], avals, args, axis_sizes, updated, stay or {}
        )
    flow.settle()
    flow.work = works[main]
    return Traced(
        programs,
        main,
        tuple(named),
        tuple(named.values()),
        jax.tree.structure(params),
        tuple(jax.tree.leaves(jax.tree.map(abstract, functions[main][1]))),
        out_trees,
        dict(axis_sizes),
        updated,
        norms,
    )


def _program(flow: Flow, apply_fn, inputs, params, args, axis_sizes, updated, stay):
    """Run one function; returns its program and the structure of its result."""
    inputs = jax.tree.map(abstract, tuple(inputs))
    axes = tuple(axis_sizes.items()) or None
    make = jax.make_jaxpr(apply_fn, axis_env=axes, return_shape=True)
    closed, out = make(params, *inputs)
    called = live_program(closed)
    gone = {name: ~mask for name, mask in stay.items() if not mask.all()}
    if gone:
        called = _without(called, list(tree.named_leaves(params)), gone, axes)
    fixed = flow.fixed(Reason.INPUT, "an input of the function")
    others = [Value((fixed,) * len(x.shape)) for x in jax.tree.leaves(inputs)]
    args = [*args, *others]
    flow.route_sizes = routing.sizes(called.jaxpr)
    outs, frame = flow.run(called, args)
    found = states.outputs(out, outs)
    states.settle_outputs(flow, tree.named_leaves(params), args, found, updated)
    return Program(flow, frame, args, outs), jax.tree.structure(out)


def live_program(closed: Any) -> equations.Called:
    """Return a closed jaxpr without what no result depends on."""
    called = equations.called(closed)
    return called._replace(jaxpr=equations.live(called.jaxpr))


def _without(called: equations.Called, names, gone: Mapping[str, Any], axes):
    """Return a program without some layers of some blocks."""
    edits = edits_of(called, names, gone)
    avals = [abstract(variable.aval) for variable in called.jaxpr.invars]

    def run(*args):
        return blocks.run(called, args, edits)

    return live_program(jax.make_jaxpr(run, axis_env=axes)(*avals))


def edits_of(
    called: equations.Called, names: Sequence[str], gates: Mapping[str, Any]
) -> blocks.Edits:
    """Return what gates make of the additions of a program.

    Args:
      called: the program, whose first arguments are the leaves.
      names: the names of the leaves.
      gates: by the names of blocks, of shape (layers,): NumPy booleans, True where the
        branch goes, or what multiplies it. Blocks that the program lacks are left out.
    """
    found = blocks.named(blocks.find(called.jaxpr, len(names)), called.jaxpr, names)
    edits = {}
    for name, gate in gates.items():
        if name not in found:
            continue
        block = found[name]
        if block.layers > 1:
            edits[block.path] = blocks.Edit(block.identity, gate, True)
        elif not isinstance(gate, np.ndarray):
            edits[block.path] = blocks.Edit(block.identity, gate[0], False)
        elif gate[0]:
            edits[block.path] = blocks.Edit(block.identity, None, False)
    return edits


def without_blocks(traced: Traced, functions: Any, stay: Mapping[str, np.ndarray]):
    """Return the same functions without some layers of some blocks.

    Args:
      traced: the functions with all blocks.
      functions: by name, each with its inputs.
      stay: which layers of blocks stay, bool, by name.
    """
    return trace(
        {name: tuple(one) for name, one in functions.items()},
        jax.tree.unflatten(traced.structure, traced.leaves),
        main=traced.main,
        axis_sizes=traced.axes,
        updated=traced.updated,
        norms=traced.norms,
        stay=stay,
    )


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
