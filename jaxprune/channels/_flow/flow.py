"""Pushing channel identities through a jaxpr.

`Flow.run` visits the equations in order and applies one rule to each, from the table
`RULES` that the modules `rules_*` fill. A primitive without a rule pins every axis it
touches, with its name and place as the reason; nothing is ever guessed.

What a run found is kept in a `Frame`, so that `evaluate` can later run the same jaxpr
with fewer channels. A jaxpr that is called twice gets two frames.
"""

import dataclasses
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np
from jax.extend import core as jex

from jaxprune.channels._flow.atoms import Atoms, Axis, Fixed


class Source(NamedTuple):
    """The leaf that an array is a view of.

    Attributes:
      leaf: the number of the leaf.
      axes: for every axis of the array, the axes of the leaf that it runs over.
    """

    leaf: int
    axes: tuple[frozenset[int], ...]


class Value(NamedTuple):
    """What is known of one array in the program.

    Attributes:
      axes: its axes.
      source: the leaf that it is a view of, if it is one.
      silent: the axes along which it is zero at removed indices, once the parameters of
        the removed channels are zero.
    """

    axes: tuple[Axis, ...]
    source: Source | None = None
    silent: frozenset[int] = frozenset()


@dataclasses.dataclass(eq=False)
class Frame:
    """One run of one jaxpr: what is known of its arrays, and of the jaxprs it calls."""

    jaxpr: Any
    values: dict[Any, Value]
    children: dict[int, list["Frame"]] = dataclasses.field(default_factory=dict)
    notes: dict[int, Any] = dataclasses.field(default_factory=dict)

    def value(self, atom) -> Value | None:
        """Returns what is known of a variable; of a scalar literal, nothing."""
        if isinstance(atom, jex.Literal):
            return self.values.get(id(atom))
        return self.values[atom]


class Work(NamedTuple):
    """One convolution or matrix product.

    Attributes:
      name: where in the program.
      macs: multiply-accumulate operations when nothing is removed.
      trips: how often it runs, more than once in a scan.
      leaves: the leaves that are multiplied with.
      axes: the axes over whose product they run, with their sizes.
      arrays: of both operands and the result, axes, sizes and bytes per entry.
    """

    name: str
    macs: int
    trips: int
    leaves: frozenset[int]
    axes: tuple[tuple[Axis, int], ...]
    arrays: tuple[tuple[tuple[Axis, ...], tuple[int, ...], int], ...]


Rule = Callable[..., Sequence[Value]]
RULES: dict[str, Rule] = {}


def rule(*names: str) -> Callable[[Rule], Rule]:
    """Registers a rule `(flow, equation, *values) -> values` for primitives."""

    def register(function):
        for name in names:
            if name in RULES:
                raise ValueError(f"`rule({name!r})`: the primitive has a rule already.")
            RULES[name] = function
        return function

    return register


class Flow:
    """One trip through a program; collects what graphs and costs need."""

    def __init__(self):
        self.atoms = Atoms()
        self.readers: set[tuple[int, int]] = set()  # (leaf, axis) contracted over
        self.read_loud: set[tuple[int, int]] = set()  # what is read need not be zero
        self.makers: set[tuple[int, int]] = set()  # (leaf, axis) made by a product
        self.unguarded: list[Axis] = []  # contracted between two activations
        self.unmaskable: dict[str, Axis] = {}  # of these, not silent on either side
        self.first_use: dict[int, int] = {}
        self.unknown: dict[str, str] = {}
        self.work: list[Work] = []
        self.trips = 1
        self._stack: list[str] = []
        self.frame: Any = None  # That of the jaxpr being run, a `Frame`.
        self.index = 0
        self._clock = 0

    # What rules use.

    @property
    def where(self) -> str:
        """The primitive and its place, for reasons and messages."""
        equation = self.frame.jaxpr.eqns[self.index]
        stack = [*self._stack, str(equation.source_info.name_stack)]
        place = "/".join(part for part in stack if part)
        return f"`{equation.primitive.name}`" + (f" in {place}" if place else "")

    def fresh(self, size, why: str = "an axis of size 1") -> Axis:
        """Returns an axis that nothing constrains yet."""
        if not isinstance(size, (int, np.integer)):
            return self.atoms.fixed("an axis of symbolic size")
        return self.atoms.fixed(why) if size == 1 else self.atoms.fresh(int(size))

    def fresh_value(self, shape) -> Value:
        """Returns a value with axes that nothing constrains yet."""
        return Value(tuple(self.fresh(size) for size in shape))

    def fixed_value(self, shape, why: str) -> Value:
        """Returns a value of which nothing can be removed."""
        return Value((self.atoms.fixed(why),) * len(shape))

    def pin(self, axis: Axis, why: str) -> None:
        """Pins an axis; the reason is completed with the place."""
        if not isinstance(axis, Fixed):
            self.atoms.pin(axis, f"{self.where} {why}")

    def unify(self, x: Axis, y: Axis) -> Axis:
        """Joins two axes of equal size."""
        if x is y:
            return x
        return self.atoms.unify(x, y, self.where)

    # Running.

    def run(self, jaxpr, consts: Sequence[Value], args: Sequence[Value], name=""):
        """Pushes values through an open jaxpr; returns the results and the frame."""
        frame = Frame(jaxpr, {})
        for variables, values in ((jaxpr.constvars, consts), (jaxpr.invars, args)):
            frame.values.update(zip(variables, values, strict=True))
        outer = self.frame, self.index
        self._stack.append(name)
        self.frame = frame
        for self.index, equation in enumerate(jaxpr.eqns):
            outs = self._step(equation)
            frame.values.update(zip(equation.outvars, outs, strict=True))
        self._stack.pop()
        self.frame, self.index = outer
        return [self._read(frame, out) for out in jaxpr.outvars], frame

    def call(self, jaxpr, consts, args, name: str = ""):
        """Runs a jaxpr that the current equation calls, and keeps its frame."""
        here, index = self.frame, self.index
        place = str(here.jaxpr.eqns[index].source_info.name_stack)
        name = "/".join(part for part in (place, name) if part)
        outs, frame = self.run(jaxpr, consts, args, name)
        here.children.setdefault(index, []).append(frame)
        return outs

    def closed(self, closed_jaxpr, args, name: str = ""):
        """Runs a closed jaxpr; its constants may lose channels like parameters."""
        consts = [self.fresh_value(np.shape(c)) for c in closed_jaxpr.consts]
        return self.call(closed_jaxpr.jaxpr, consts, args, name)

    def _read(self, frame, atom) -> Value:
        if isinstance(atom, jex.Literal):
            if id(atom) not in frame.values:
                frame.values[id(atom)] = self.fresh_value(shape_of(atom))
            return frame.values[id(atom)]
        value = frame.values[atom]
        if value.source is not None:
            self._clock += 1
            self.first_use.setdefault(value.source.leaf, self._clock)
        return value

    def _step(self, equation) -> Sequence[Value]:
        values = [self._read(self.frame, atom) for atom in equation.invars]
        function = RULES.get(equation.primitive.name)
        if function is None:
            self.unknown[equation.primitive.name] = self.where
            return pin_all(self, equation, *values)
        return function(self, equation, *values)


def pin_all(flow: Flow, equation, *values: Value) -> list[Value]:
    """Pins everything an equation touches: the rule of primitives without a rule."""
    why = "has no rule that lets channels be removed"
    for value in values:
        for axis in value.axes:
            flow.pin(axis, why)
    reason = f"the result of {flow.where}, which {why}"
    return [
        flow.fixed_value(getattr(out.aval, "shape", ()), reason)
        for out in equation.outvars
    ]


def shape_of(atom) -> tuple[int, ...]:
    """The shape of a variable or literal."""
    return atom.aval.shape
