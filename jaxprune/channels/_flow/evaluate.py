"""Running a traced program with fewer channels.

`Program` is a jaxpr together with what `flow` found in it. `Program.remover` says which
atoms are removed, given which indices of its arguments are, and an `Evaluation` runs
the jaxpr accordingly, in one of two ways:

    small:   every array v of the program becomes v[kept]; shapes that are written in
             the equations are rewritten;
    masked:  every array keeps its shape; whatever multiplies and sums over a removed
             channel sees zeros there.

The first computes what the second does, because every primitive either treats the
channels apart or is such a product; the rules of `flow` admit nothing else.
"""

import dataclasses
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.extend import core as jex

from jaxprune.channels._flow.atoms import Axis, Fixed
from jaxprune.channels._flow.flow import Flow, Frame, Value

Kept = tuple[np.ndarray | None, ...]
"""For every axis of an array the sorted indices that stay; None if all do."""

RULES: dict[str, Callable[..., Any]] = {}
"""Primitives that call other jaxprs; those in none of the tables run as they are."""

SMALL_RULES: dict[str, Callable[..., Any]] = {}
"""Primitives whose equations mention sizes."""

MASKED_RULES: dict[str, Callable[..., Any]] = {}
"""Primitives that multiply and sum over channels."""


def rule(*names: str, table: dict | None = None):
    """Registers `(evaluation, site, *arrays) -> arrays` for primitives."""

    def register(function):
        for name in names:
            (RULES if table is None else table)[name] = function
        return function

    return register


@dataclasses.dataclass(frozen=True, eq=False)
class Site:
    """One equation of one frame."""

    frame: Frame
    index: int

    @property
    def equation(self):
        """The equation."""
        return self.frame.jaxpr.eqns[self.index]

    @property
    def params(self) -> dict[str, Any]:
        """The equation's parameters."""
        return self.equation.params

    @property
    def children(self) -> list[Frame]:
        """Frames of the jaxprs that the equation calls."""
        return self.frame.children[self.index]

    def operand(self, i: int) -> Value:
        """What is known of operand i, which has axes."""
        value = self.frame.value(self.equation.invars[i])
        return Value(()) if value is None else value

    def result(self, i: int = 0) -> Value:
        """What is known of result i."""
        return self.frame.values[self.equation.outvars[i]]

    def bind(self, *arrays, **changes):
        """Applies the primitive with some of its parameters changed."""
        primitive = self.equation.primitive
        params = primitive.get_bind_params({**self.params, **changes})
        outs = primitive.bind(*arrays, **params)
        return outs if primitive.multiple_results else [outs]


@dataclasses.dataclass(frozen=True, eq=False)
class Program:
    """A closed jaxpr and what is known of all its arrays."""

    flow: Flow
    frame: Frame
    consts: Sequence[Any]
    args: Sequence[Value]
    outs: Sequence[Value]

    def remover(self, kept: Sequence[Kept], names: Callable[[int], str]) -> np.ndarray:
        """Finds the atoms to remove so that of the arguments just `kept` is left.

        Returns:
          Booleans, one for each atom.

        Raises:
          ValueError: if the program couples the indices otherwise.
        """
        atoms = self.flow.atoms
        stays, goes = np.zeros(atoms.count, bool), np.zeros(atoms.count, bool)
        wanted = []
        for i, (value, indices) in enumerate(zip(self.args, kept, strict=True)):
            for d, (axis, left) in enumerate(zip(value.axes, indices, strict=True)):
                if isinstance(axis, Fixed):
                    if left is not None:
                        _refuse(atoms, names(i), d, atoms.why(axis)[0])
                    continue
                rows = atoms.resolve(axis)
                keep = np.ones(len(rows), bool)
                if left is not None:
                    keep = np.isin(np.arange(len(rows)), left)
                    wanted.append((i, d, axis, rows, keep))
                stays[rows[keep].ravel()] = True
                goes[rows[~keep].ravel()] = True
        removed = goes & ~stays
        removed[0] = False
        for i, d, axis, rows, keep in wanted:
            wrong = ~keep & ~removed[rows].any(axis=1)
            if wrong.any():
                _refuse(atoms, names(i), d, atoms.why(axis[wrong])[0])
        return removed


def _refuse(atoms, name, axis, reason):
    cause = (
        atoms.reasons[reason]
        if reason >= 0
        else "it is coupled with indices that are kept"
    )
    raise ValueError(
        f"channels of {name}, axis {axis}, cannot be removed: {cause}. Remove all "
        "members of a group together, as channel masks by group name do."
    )


class Evaluation:
    """One evaluation of a program, small or masked."""

    def __init__(self, program: Program, removed: np.ndarray, *, small: bool):
        self.program = program
        self.removed = removed
        self.small = small
        self.rules = {**RULES, **(SMALL_RULES if small else MASKED_RULES)}
        self._cache: dict[int, tuple[Axis, np.ndarray | None]] = {}

    def kept(self, axis: Axis) -> np.ndarray | None:
        """Returns the indices of an axis that stay, None if all do."""
        if isinstance(axis, Fixed):
            return None
        if id(axis) not in self._cache:
            rows = self.program.flow.atoms.resolve(axis)
            keep = ~self.removed[rows].any(axis=1)
            indices = None if keep.all() else np.flatnonzero(keep)
            self._cache[id(axis)] = (axis, indices)
        return self._cache[id(axis)][1]

    def kept_of(self, value: Value) -> Kept:
        """Returns `kept` for every axis."""
        return tuple(self.kept(axis) for axis in value.axes)

    def size(self, axis: Axis, size):
        """Returns the size that is left of an axis."""
        kept = self.kept(axis) if self.small else None
        return size if kept is None else len(kept)

    def shape(self, value: Value, shape) -> tuple:
        """Returns the shape that is left of an array."""
        return tuple(self.size(a, s) for a, s in zip(value.axes, shape, strict=True))

    def cut(self, array, value: Value):
        """Returns what is left of an array of full size."""
        return take(array, self.kept_of(value)) if self.small else array

    def run(self, frame: Frame, consts: Sequence[Any], args: Sequence[Any]) -> list:
        """Evaluates the jaxpr of a frame."""
        jaxpr, arrays = frame.jaxpr, {}

        def read(atom):
            if isinstance(atom, jex.Literal):
                value = frame.value(atom)
                return atom.val if value is None else self.cut(atom.val, value)
            return arrays[atom]

        arrays.update(zip(jaxpr.constvars, consts, strict=True))
        arrays.update(zip(jaxpr.invars, args, strict=True))
        for index, equation in enumerate(jaxpr.eqns):
            site = Site(frame, index)
            function = self.rules.get(equation.primitive.name)
            operands = [read(atom) for atom in equation.invars]
            if function is None:
                outs = site.bind(*operands)
            else:
                outs = function(self, site, *operands)
            arrays.update(zip(equation.outvars, outs, strict=True))
        return [read(out) for out in jaxpr.outvars]

    def run_closed(self, frame: Frame, closed: Any, args) -> list:
        """Evaluates what has `consts`, which may lose channels like parameters."""
        values = [frame.values[v] for v in frame.jaxpr.constvars]
        consts = [self.cut(c, v) for c, v in zip(closed.consts, values, strict=True)]
        return self.run(frame, consts, args)

    def __call__(self, *args):
        """Evaluates the program on flat arguments."""
        return self.run_closed(self.program.frame, self.program, args)


def take(array, kept: Kept):
    """Returns the sub-array of the indices kept along every axis.

    Runs of indices are sliced, others gathered. NumPy arrays stay NumPy arrays.
    """
    for d, indices in enumerate(kept):
        if indices is None:
            continue
        if isinstance(array, np.ndarray):
            array = np.take(array, indices, axis=d)
        elif len(indices) and np.array_equal(
            indices, np.arange(indices[0], indices[0] + len(indices))
        ):
            start = int(indices[0])
            array = jax.lax.slice_in_dim(array, start, start + len(indices), axis=d)
        else:
            array = jnp.take(array, indices, axis=d, mode="clip")
    return array


def derive(closed_jaxpr) -> Program:
    """Pushes identities through a closed jaxpr of which nothing else is known."""
    flow = Flow()
    consts = [flow.fresh_value(np.shape(c)) for c in closed_jaxpr.consts]
    args = [flow.fresh_value(aval.shape) for aval in closed_jaxpr.in_avals]
    outs, frame = flow.run(closed_jaxpr.jaxpr, consts, args)
    return Program(flow, frame, closed_jaxpr.consts, args, outs)
