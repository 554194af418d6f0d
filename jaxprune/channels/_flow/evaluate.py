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
from jax.sharding import NamedSharding

from jaxprune.base._sharding import fitting, replicated, sharded_like
from jaxprune.channels._flow import equations
from jaxprune.channels._flow.atoms import Axis, Fixed
from jaxprune.channels._flow.flow import Flow, Frame, Site, Value
from jaxprune.channels._flow.reasons import Reason
from jaxprune.channels._flow.registry import PRIMITIVES

Kept = tuple[np.ndarray | None, ...]
"""For every axis of an array the sorted indices that stay; None if all do."""


@dataclasses.dataclass(frozen=True, eq=False)
class Program:
    """A closed jaxpr and what is known of all its arrays."""

    flow: Flow
    frame: Frame
    args: Sequence[Value]
    outs: Sequence[Value]

    @property
    def consts(self) -> Sequence[Any]:
        """The values of the constants of the jaxpr."""
        return self.frame.consts

    def remover(self, kept: Sequence[Kept], names: Callable[[int], str]) -> np.ndarray:
        """Find the atoms to remove so that of the arguments just `kept` is left.

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
                        _refuse(atoms, names(i), d, axis)
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
                _refuse(atoms, names(i), d, axis[wrong])
        return removed


def _refuse(atoms, name, axis, rows):
    where = f"`apply_fn(params, ...)`: channels of {name}, axis {axis}, must stay"
    causes = atoms.causes(rows)
    if not causes:
        raise ValueError(
            f"{where}, they are coupled with indices that are kept. Remove all members "
            "of a group together, as channel masks by group name do."
        )
    symbolic = [cause for cause in causes if cause.reason is Reason.SYMBOLIC]
    remedy = (
        "These inputs make another program than the traced ones: trace the function "
        "with them, or leave the group out of the masks."
    )
    if symbolic:
        remedy = (
            "The masks are not the cause: with inputs of symbolic size these channels "
            "cannot be followed. Use inputs of fixed sizes."
        )
    raise ValueError(f"{where}: {(symbolic or causes)[-1].text}. {remedy}")


class Evaluation:
    """One evaluation of a program, small or masked."""

    def __init__(self, program: Program, removed: np.ndarray, *, small: bool):
        self.program = program
        self.removed = removed
        self.small = small
        self._cache: dict[int, tuple[Axis, np.ndarray | None]] = {}

    def kept(self, axis: Axis) -> np.ndarray | None:
        """Return the indices of an axis that stay, None if all do."""
        if isinstance(axis, Fixed):
            return None
        if id(axis) not in self._cache:
            rows = self.program.flow.atoms.resolve(axis)
            keep = ~self.removed[rows].any(axis=1)
            indices = None if keep.all() else np.flatnonzero(keep)
            self._cache[id(axis)] = (axis, indices)
        return self._cache[id(axis)][1]

    def kept_of(self, value: Value) -> Kept:
        """Return `kept` for every axis."""
        return tuple(self.kept(axis) for axis in value.axes)

    def size(self, axis: Axis, size):
        """Return the size that is left of an axis."""
        kept = self.kept(axis) if self.small else None
        return size if kept is None else len(kept)

    def shape(self, value: Value, shape) -> tuple:
        """Return the shape that is left of an array."""
        return tuple(self.size(a, s) for a, s in zip(value.axes, shape, strict=True))

    def cut(self, array, value: Value):
        """Return what is left of an array of full size."""
        return take(array, self.kept_of(value)) if self.small else array

    def without(self, array, axis: Axis, d: int):
        """Return an array with zeros at the removed indices of its axis number d."""
        kept = self.kept(axis)
        if kept is None:
            return array
        stays = np.isin(np.arange(array.shape[d]), kept)
        stays = stays.reshape([-1 if e == d else 1 for e in range(array.ndim)])
        return jnp.where(stays, array, jnp.zeros((), array.dtype))

    def _cut_use(self, array, use: Value):
        """Cuts an operand that an equation knows for itself."""
        if use.constant is not None or not self.small:
            return self.cut(array, use)
        kept: list[np.ndarray | None] = [None] * len(use.axes)
        for d in use.repeated:  # All entries are equal: the first ones do.
            left = self.kept(use.axes[d])
            kept[d] = None if left is None else np.arange(len(left))
        return take(array, tuple(kept))

    def run(self, frame: Frame, args: Sequence[Any]) -> list:
        """Evaluate the jaxpr of a frame."""
        jaxpr = frame.jaxpr
        variables = (*jaxpr.constvars, *jaxpr.invars)
        arrays = dict(zip(variables, (*frame.consts, *args), strict=True))

        def read(index, number, atom):
            array = atom.val if isinstance(atom, jex.Literal) else arrays[atom]
            use = frame.uses.get((index, number))
            return array if use is None else self._cut_use(array, use)

        for index, equation in enumerate(jaxpr.eqns):
            atoms = enumerate(equation.invars)
            operands = [read(index, number, atom) for number, atom in atoms]
            outs = self._step(Site(frame, index), operands)
            arrays.update(zip(equation.outvars, outs, strict=True))
        last = len(jaxpr.eqns)
        return [read(last, number, out) for number, out in enumerate(jaxpr.outvars)]

    def _step(self, site: Site, operands):
        rule = None
        if site.index not in site.frame.opaque:
            rules = PRIMITIVES[site.name]
            rule = rules.small if self.small else rules.masked
        if self.small:
            site = dataclasses.replace(site, changes=self._shardings(site))
        if rule is None:
            return site.bind(*operands)
        return rule(self, site, *operands)

    def _shardings(self, site: Site) -> dict[str, Any]:
        """Return the shardings that an equation names, of its result as it is here.

        An axis stays sharded where the devices divide what is left of it.
        """
        named = {
            name: parameter
            for name, parameter in site.equation.params.items()
            if isinstance(parameter, NamedSharding)
        }
        if not named:
            return {}
        full = site.result_shape()
        shape = self.shape(site.result(), full)
        return {n: fitting(s, shape) for n, s in named.items() if shape != full}

    def __call__(self, *args):
        """Evaluate the program on flat arguments."""
        return self.run(self.program.frame, args)


def take(array, kept: Kept):
    """Return the sub-array of the indices kept along every axis.

    Runs of indices are sliced, others gathered. NumPy arrays stay NumPy arrays.
    """
    for d, indices in enumerate(kept):
        if indices is None:
            continue
        if isinstance(array, np.ndarray):
            array = np.take(array, indices, axis=d)
            continue
        whole = replicated(array, [d])
        if len(indices) and np.array_equal(
            indices, np.arange(indices[0], indices[0] + len(indices))
        ):
            start = int(indices[0])
            part = jax.lax.slice_in_dim(whole, start, start + len(indices), axis=d)
        else:
            part = jnp.take(whole, indices, axis=d, mode="clip")
        array = part if whole is array else sharded_like(part, array)
    return array


def derive(closed_jaxpr, norms: str) -> Program:
    """Pushes identities through a closed jaxpr of which nothing else is known."""
    flow = Flow(norms)
    args = [flow.fresh_value(aval.shape) for aval in closed_jaxpr.in_avals]
    outs, frame = flow.run(equations.called(closed_jaxpr), args)
    return Program(flow, frame, args, outs)
