"""Pushing channel identities through a jaxpr.

`Flow.run` visits the equations in order and applies the flow rule of each primitive. A
primitive without rules pins every axis it touches, with its name and place as the
reason; nothing is ever guessed.

What a run found is kept in a `Frame`, so that `evaluate` can later run the same jaxpr
with fewer channels. A jaxpr that is called twice gets two frames.

What depends on no argument is a constant. It couples nothing: whoever reads it gets
axes of its own, and `evaluate` computes it whole and cuts it there. An array that
repeats one entry along an axis is treated in the same way along this axis.
"""

import dataclasses
from collections.abc import Sequence
from typing import Any, NamedTuple

import jax
import numpy as np
from jax.extend import core as jex

from jaxprune.channels._flow import equations, routing
from jaxprune.channels._flow.atoms import Atoms, Axis, Fixed
from jaxprune.channels._flow.equations import Called, Constant, UnknownLayout
from jaxprune.channels._flow.reasons import Reason, Why
from jaxprune.channels._flow.registry import PRIMITIVES
from jaxprune.channels._flow.routing import Numbers, Route

PINNED, DENSE_COUNT, RENORMALISE = "pinned", "dense-count", "renormalise"
NORMS = (PINNED, DENSE_COUNT, RENORMALISE)
"""What becomes of channels that are summed over, as `trace_channels` says."""


class Source(NamedTuple):
    """The leaf that an array is a view of.

    Attributes:
      leaf: the number of the leaf.
      axes: for every axis of the array, the axes of the leaf that it runs over.
    """

    leaf: int
    axes: tuple[frozenset[int], ...]


Total = tuple[tuple[Axis, Any], ...]
"""Axes that were summed over, with their sizes."""


class Value(NamedTuple):
    """What is known of one array in the program.

    Attributes:
      axes: its axes.
      source: the leaf that it is a view of, if it is one.
      zero_axes: the axes along which it is zero at removed indices, once the parameters
        of the removed channels are zero.
      constant: the array, if it depends on no argument.
      repeated: the axes along which it repeats one entry.
      total: the axes over which it is a sum, with their sizes, if it is a view of one.
      route: what its entries are numbers of, if they are numbers of what was chosen.
      never: whether it is False everywhere.
    """

    axes: tuple[Axis, ...]
    source: Source | None = None
    zero_axes: frozenset[int] = frozenset()
    constant: Constant | None = None
    repeated: frozenset[int] = frozenset()
    total: Total | None = None
    route: Numbers | None = None
    never: bool = False

    def own(self) -> "Value":
        """Return it with its axes for all readers, for where it is cut before."""
        return self._replace(constant=None, repeated=frozenset())


@dataclasses.dataclass(eq=False)
class Frame:
    """One run of one jaxpr: what is known of its arrays, and of the jaxprs it calls.

    Attributes:
      jaxpr: the jaxpr.
      consts: the values of its constants.
      values: what is known of its variables.
      uses: what an equation knows of an operand that is a constant, or repeats, by the
        numbers of the equation and the operand; the results of the jaxpr come last.
      children: frames of the jaxprs that an equation calls, by its number.
      notes: what a flow rule leaves for the evaluation, by the number of the equation.
      opaque: numbers of equations that pinned all they touch, and of constant ones:
        they run as they are.
    """

    jaxpr: Any
    consts: Sequence[Any] = ()
    values: dict[Any, Value] = dataclasses.field(default_factory=dict)
    uses: dict[tuple[int, int], Value] = dataclasses.field(default_factory=dict)
    children: dict[int, list["Frame"]] = dataclasses.field(default_factory=dict)
    notes: dict[int, Any] = dataclasses.field(default_factory=dict)
    opaque: set[int] = dataclasses.field(default_factory=set)


@dataclasses.dataclass(frozen=True, eq=False)
class Site:
    """One equation of one frame.

    Attributes:
      frame: the frame.
      index: the number of the equation.
      changes: parameters that `bind` gives the primitive in place of the equation's.
    """

    frame: Frame
    index: int
    changes: dict[str, Any] = dataclasses.field(default_factory=dict)

    @property
    def equation(self):
        """The equation."""
        return self.frame.jaxpr.eqns[self.index]

    @property
    def name(self) -> str:
        """The name of the primitive."""
        return self.equation.primitive.name

    @property
    def params(self) -> equations.Parameters:
        """The equation's parameters."""
        return equations.Parameters(self.equation.params)

    @property
    def children(self) -> list[Frame]:
        """Frames of the jaxprs that the equation calls."""
        return self.frame.children[self.index]

    @property
    def note(self) -> Any:
        """What the flow rule left for the evaluation, None if nothing."""
        return self.frame.notes.get(self.index)

    def shape(self, i: int = 0) -> tuple[int, ...]:
        """Return the shape of operand i in the program."""
        return self.equation.invars[i].aval.shape

    def shapes(self) -> list[tuple[int, ...]]:
        """Return the shapes of all operands."""
        return [self.shape(i) for i in range(len(self.equation.invars))]

    def result_shape(self, i: int = 0) -> tuple[int, ...]:
        """Return the shape of result i in the program, () of what is no array."""
        return getattr(self.equation.outvars[i].aval, "shape", ())

    def operand(self, i: int) -> Value:
        """Return what is known of operand i."""
        use = self.frame.uses.get((self.index, i))
        return self.frame.values[self.equation.invars[i]] if use is None else use

    def result(self, i: int = 0) -> Value:
        """Return what is known of result i."""
        return self.frame.values[self.equation.outvars[i]]

    def bind(self, *arrays, **changes) -> list:
        """Apply the primitive with some of its parameters changed."""
        return equations.bind(self.equation, arrays, **{**self.changes, **changes})


class Work(NamedTuple):
    """One convolution or matrix product.

    Attributes:
      name: where in the program.
      macs: multiply-accumulate operations when nothing is removed.
      trips: how often it runs, more than once in a scan.
      path: its place, the numbers of the equations from the outermost jaxpr on.
      leaves: the leaves that are multiplied with.
      axes: the axes over whose product they run, with their sizes.
      arrays: of both operands and the result, axes, sizes and bytes per entry.
    """

    name: str
    macs: int
    trips: int
    path: tuple[int, ...]
    leaves: frozenset[int]
    axes: tuple[tuple[Axis, int], ...]
    arrays: tuple[tuple[tuple[Axis, ...], tuple[int, ...], int], ...]


class Flow:
    """One trip through a program; collects what graphs and costs need.

    Attributes:
      atoms: the identities of channels.
      producers: (leaf, axis) of channels that a product or look-up makes.
      consumers: (leaf, axis) over which a product contracts.
      nonzero_reads: consumers of channels that need not be zero where they are removed.
      norms: what a sum over channels is, one of `NORMS`.
      activation_products: axes over which two activations are contracted, or one is
        summed.
      unmaskable: those of them, with their place, that are not zero where they are
        removed.
      renormalised: axes, with their place, over which a mean is taken of what is left.
      first_use: when each leaf is first read.
      unknown: primitives without rules, and where they are.
      work: convolutions and matrix products.
      routes: choices among channels, of experts by a router.
      route_sizes: the lengths of axes that are chosen from; of other lengths none is.
      stacked: axes of leaves that products treat apart, or that are looked up along.
      trips: how often the current jaxpr runs.
      path: the numbers of the equations that are visited, from the outermost jaxpr on.
    """

    def __init__(self, norms: str = PINNED):
        self.atoms = Atoms()
        self.norms = norms
        self.producers: set[tuple[int, int]] = set()
        self.consumers: set[tuple[int, int]] = set()
        self.nonzero_reads: set[tuple[int, int]] = set()
        self.activation_products: list[Axis] = []
        self.unmaskable: list[tuple[str, Axis]] = []
        self.renormalised: list[tuple[str, Axis]] = []
        self.first_use: dict[int, int] = {}
        self.unknown: dict[str, str] = {}
        self.work: list[Work] = []
        self.routes: list[Route] = []
        self.route_sizes: frozenset[int] = frozenset()
        self.stacked: list[Axis] = []
        self.trips = 1
        self.path: list[int] = []
        self._stack: list[str] = []
        self._site: Any = None  # The equation that is visited.
        self._clock = 0
        self._readers: list[tuple[Axis, Why]] = []

    # What rules use.

    @property
    def where(self) -> str:
        """The primitive and its place, for reasons and messages."""
        stack = [*self._stack, str(self._site.equation.source_info.name_stack)]
        place = "/".join(part for part in stack if part)
        return f"`{self._site.name}`" + (f" in {place}" if place else "")

    def fresh(self, size) -> Axis:
        """Return an axis that nothing constrains yet."""
        if not isinstance(size, (int, np.integer)):
            return self.fixed(Reason.SYMBOLIC, "an axis of symbolic size")
        if size == 1:
            return self.fixed(Reason.SIZE_ONE, "an axis of size 1")
        return self.atoms.fresh(int(size))

    def fresh_value(self, shape) -> Value:
        """Return a value with axes that nothing constrains yet."""
        return Value(tuple(self.fresh(size) for size in shape))

    def constant_value(self, shape, constant: Constant) -> Value:
        """Return a constant; each reader gets axes of its own."""
        return self.fresh_value(shape)._replace(constant=constant)

    def fixed(self, reason: Reason, text: str) -> Fixed:
        """Return an axis of which nothing can be removed."""
        return self.atoms.fixed(Why(reason, text))

    def made_fixed(self) -> Fixed:
        """Return an axis that the current equation makes at a fixed size."""
        return self.fixed(Reason.RESULT, f"the result of {self.where}")

    def pin(self, axis: Axis, reason: Reason, text: str) -> None:
        """Pins an axis; the text is completed with the place in front."""
        if not isinstance(axis, Fixed):
            self.atoms.pin(axis, Why(reason, f"{self.where} {text}"))

    def read_whole(self, axis: Axis, text: str) -> None:
        """Pins an axis, unless experts turn out to lie there: readers read the rest."""
        if isinstance(axis, np.ndarray) and len(axis) in self.route_sizes:
            self._readers.append((axis, Why(Reason.READ_WHOLE, f"{self.where} {text}")))
        else:
            self.pin(axis, Reason.READ_WHOLE, text)

    def stack(self, axis: Axis) -> None:
        """Note an axis of a leaf on which experts may lie."""
        if isinstance(axis, np.ndarray) and len(axis) in self.route_sizes:
            self.stacked.append(axis)

    def choose(self, axis: np.ndarray, count: int) -> Numbers:
        """Note a choice among the channels of an axis; return what its numbers say."""
        self.routes.append(Route(axis, count, self.where))
        return Numbers(axis, np.arange(len(axis)))

    def settle(self) -> None:
        """Pins what is read whole and holds no experts; the last step of all."""
        routing.settle(self.atoms, self.routes, self.stacked, self._readers)

    def unify(self, x: Axis, y: Axis) -> Axis:
        """Join two axes of equal size."""
        if x is y:
            return x
        return self.atoms.unify(x, y, self.where)

    # Running.

    def run(self, program: Called, args: Sequence[Value], name: str = ""):
        """Pushes values through a jaxpr; returns the results and the frame."""
        jaxpr, consts = program
        frame = Frame(jaxpr, consts)
        held = [
            self.constant_value(np.shape(const), Constant.of(const)) for const in consts
        ]
        variables = (*jaxpr.constvars, *jaxpr.invars)
        frame.values.update(zip(variables, (*held, *args), strict=True))
        outer = self._site
        self._stack.append(name)
        self.path.append(0)
        for index, equation in enumerate(jaxpr.eqns):
            self.path[-1] = index
            self._site = Site(frame, index)
            outs = self._step(self._site)
            frame.values.update(zip(equation.outvars, outs, strict=True))
        self._stack.pop()
        self.path.pop()
        self._site = outer
        outs = [
            self._read(frame, len(jaxpr.eqns), i, out)
            for i, out in enumerate(jaxpr.outvars)
        ]
        return outs, frame

    def call(self, program: Called, args: Sequence[Value], name: str = ""):
        """Run a jaxpr that the current equation calls, and keeps its frame."""
        site = self._site
        place = str(site.equation.source_info.name_stack)
        name = "/".join(part for part in (place, name) if part)
        outs, frame = self.run(program, args, name)
        site.frame.children.setdefault(site.index, []).append(frame)
        return outs

    def _read(self, frame, index: int, number: int, atom) -> Value:
        """Return what an equation, or the end of the jaxpr, knows of one operand."""
        shape = getattr(atom.aval, "shape", ())
        if isinstance(atom, jex.Literal):
            value = Value((), constant=Constant.of(atom.val))
        else:
            value = frame.values[atom]
        if value.source is not None:
            self._clock += 1
            self.first_use.setdefault(value.source.leaf, self._clock)
        if value.constant is not None:
            value = self.constant_value(shape, value.constant)
            frame.uses[index, number] = value
        elif value.repeated:
            axes = list(value.axes)
            for d in value.repeated:
                axes[d] = self.fresh(shape[d])
            value = value._replace(axes=tuple(axes))
            frame.uses[index, number] = value
        return value

    def _step(self, site: Site) -> Sequence[Value]:
        constants = self._constants(site)
        if constants is not None:
            return constants
        values = [
            self._read(site.frame, site.index, i, atom)
            for i, atom in enumerate(site.equation.invars)
        ]
        rules = PRIMITIVES.get(site.name)
        if rules is None:
            return pin_all(self, site, *values)
        try:
            outs = rules.flow(self, site, *values)
        except UnknownLayout as parameter:
            text = (
                f"has the unknown parameter {parameter}"
                if str(parameter) in site.equation.params
                else f"lacks the parameter {parameter} in JAX {jax.__version__}"
            )
            return pin_all(self, site, *values, text=text)
        outs = routing.followed(site.equation, values, outs)
        if not rules.moves and site.index not in site.frame.children:
            for value in values:
                for axis in value.axes:
                    self.atoms.use(axis)
        return outs

    def _constants(self, site: Site) -> list[Value] | None:
        """Return the results of an equation if it depends on no argument, else None."""
        equation, operands = site.equation, []
        for atom in equation.invars:
            if isinstance(atom, jex.Literal):
                operands.append(Constant.of(atom.val))
                continue
            constant = site.frame.values[atom].constant
            if constant is None:
                return None
            operands.append(constant)
        if equation.effects:
            return None
        site.frame.opaque.add(site.index)
        fixed = self.fixed(Reason.RESULT, "a constant")
        return [
            Value(
                (fixed,) * len(site.result_shape(i)),
                constant=Constant(equation, operands, i),
            )
            for i in range(len(equation.outvars))
        ]


def pin_all(
    flow: Flow,
    site: Site,
    *values: Value,
    text: str = "has no rule that lets channels be removed",
) -> list[Value]:
    """Pins everything an equation touches: the rule of primitives without a rule."""
    axes = [axis for value in values for axis in value.axes]
    if any(not isinstance(axis, Fixed) for axis in axes):
        flow.unknown[site.name] = flow.where
    for axis in axes:
        flow.pin(axis, Reason.NO_RULE, text)
        flow.atoms.use(axis)
    site.frame.opaque.add(site.index)
    site.frame.children.pop(site.index, None)
    fixed = flow.fixed(Reason.NO_RULE, f"the result of {flow.where}, which {text}")
    return [
        Value((fixed,) * len(site.result_shape(i)))
        for i in range(len(site.equation.outvars))
    ]
