"""One pass through a program that computes it, and what its weights see on the way.

The equations of the traced function are evaluated one after the other. Every value
carries the leaves whose entries it still holds; where such a value meets a product, the
sums of the other operand are taken. Calls are entered; loops are run as loops: sums of
a leaf over which a scan runs are stacked like the leaf, all others are carried.
"""

import dataclasses
import math
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import jax
import jax.core
import jax.numpy as jnp
import numpy as np
from jax.extend import core as jex

from jaxprune import tree
from jaxprune.base._checks import varying_zeros
from jaxprune.calibration import _inputs as inputs
from jaxprune.calibration._inputs import Inputs
from jaxprune.calibration._views import Axes, Use, View
from jaxprune.channels._flow import equations

_CALLS = equations.CALLS | equations.OWN_DERIVATIVE
_SAME = equations.SAME | equations.ALIKE
_MOVES = {
    *("transpose", "reshape", "squeeze", "expand_dims", "rev", "slice", "split", "pad"),
    *("dynamic_slice", "gather", "concatenate", "broadcast_in_dim"),
}
_CUTS = ("gather", "dynamic_slice")
# What keeps shapes but mixes entries.
_MIXES = {
    *("sort", "cumsum", "cumprod", "cummax", "cummin", "cumlogsumexp", "fft"),
    *("cholesky", "triangular_solve", "custom_call", "pure_callback", "io_callback"),
    *("scatter", "scatter-add", "scatter-mul"),
}
_SMALL = 1 << 12  # entries of constants that are computed while tracing


class Value(NamedTuple):
    """An array of the program.

    Attributes:
      array: the array.
      views: leaf name to where its entries are in the array.
      data: whether the array depends on the inputs of the function.
    """

    array: Any
    views: Mapping[str, View] = {}
    data: bool = False

    @property
    def keys(self) -> tuple[Any, ...]:
        """What is known of the array."""
        return (sorted(view.key for view in self.views.values()), self.data)


class Walk:
    """A pass through a program.

    Attributes:
      gram: whether Gram matrices are computed.
      uses: the products that were met, in the order of the program.
      lost: leaf name to why its entries are not followed.
    """

    def __init__(self, gram: bool):
        self.gram = gram
        self.uses: dict[str, Use] = {}
        self.lost: dict[str, str] = {}

    def run(self, program: equations.Called, values: Sequence[Value]):
        """Evaluate a jaxpr; returns its results, and the sums by the keys of uses."""
        jaxpr, consts = program
        known = dict(zip(jaxpr.constvars, map(Value, consts), strict=True))
        known |= dict(zip(jaxpr.invars, values, strict=True))
        found: dict[str, Inputs] = {}

        def read(atom):
            return Value(atom.val) if isinstance(atom, jex.Literal) else known[atom]

        for equation in jaxpr.eqns:
            operands = [read(atom) for atom in equation.invars]
            outs, more = self._equation(equation, operands)
            merge(found, more)
            known |= dict(zip(equation.outvars, outs, strict=True))
        return [read(atom) for atom in jaxpr.outvars], found

    def _equation(self, equation: Any, operands: list[Value]):
        name = equation.primitive.name
        if name in _CALLS:
            return self.run(equations.body(Params(equation)), operands)
        if name in _LOOPS:
            return _LOOPS[name](self, equation, operands)
        arrays = _bind(equation, operands)
        data = any(value.data for value in operands)
        if name in _PRODUCTS:
            found = _PRODUCTS[name](self, equation, operands)
            return [Value(array, {}, data) for array in arrays], found
        views = self._followed(equation, operands, data)
        return [Value(a, v, data) for a, v in zip(arrays, views, strict=True)], {}

    def lose(self, views: Mapping[str, View], reason: str) -> None:
        """Note why leaves are not followed any further."""
        for name in views:
            self.lost.setdefault(name, reason)

    def meet(self, view: View, axes: Axes, equation: Any, side: int) -> str:
        """Note that a leaf is an operand of a product; returns the key of the use."""
        shape = tuple(equation.invars[side].aval.shape)
        use = Use(view, axes, shape, equation.primitive.name)
        self.uses[use.key] = use
        return use.key

    def _followed(self, equation, operands, data) -> Sequence[Mapping[str, View]]:
        """Return which leaves the results of an equation hold."""
        name, number = equation.primitive.name, len(equation.outvars)
        nothing: list[Mapping[str, View]] = [{}] * number
        if not any(value.views for value in operands):
            return nothing
        every = {k: v for value in operands for k, v in value.views.items()}
        if name in _SAME:
            return [value.views for value in operands[:number]]
        if data:
            how = "looked up by" if name in _CUTS else "changed by"
            self.lose(every, f"{how} values that depend on the inputs, by `{name}`")
            return nothing
        moved: Any = _moved(equation, operands) if name in _MOVES else None
        if moved is None and name not in _MOVES | _MIXES and number == 1:
            shape = equation.outvars[0].aval.shape
            kept = [
                {
                    n: dataclasses.replace(view, exact=False)
                    for n, view in value.views.items()
                }
                for value, atom in zip(operands, equation.invars, strict=True)
                if getattr(atom.aval, "shape", None) == shape
            ]
            moved = [{k: v for views in kept for k, v in views.items()}]
        moved = nothing if moved is None else moved
        gone = {k: v for k, v in every.items() if not any(k in m for m in moved)}
        how = "cut where the program says" if name in _CUTS else "changed"
        self.lose(gone, f"{how}, by `{name}`, before it meets a product")
        return moved


class Params(equations.Parameters):
    """Parameters of an equation."""

    def __init__(self, equation: Any):
        super().__init__(equation.params)


def _bind(equation: Any, operands: Sequence[Value]) -> list[Any]:
    arrays = [value.array for value in operands]
    small = all(
        not isinstance(x, jax.core.Tracer) and np.size(x) <= _SMALL for x in arrays
    )
    sizes = [math.prod(getattr(v.aval, "shape", ())) for v in equation.outvars]
    if small and max(sizes, default=0) <= _SMALL and not equation.effects:
        try:
            with jax.ensure_compile_time_eval():
                return equations.bind(equation, arrays)
        except (NameError, NotImplementedError, ValueError):
            pass  # Of a mapped axis, for instance, that only the program binds.
    return equations.bind(equation, arrays)


def merge(found: dict[str, Inputs], more: Mapping[str, Inputs]) -> None:
    """Add sums by key."""
    for key, sums in more.items():
        found[key] = inputs.added(found[key], sums) if key in found else sums


def _moved(equation: Any, operands: list[Value]) -> Sequence[Mapping[str, View]] | None:
    """Return the views behind a primitive that moves entries, None if it cannot be."""
    name, number = equation.primitive.name, len(equation.outvars)
    changes = {"sharding": None} if "sharding" in equation.params else {}
    if name == "broadcast_in_dim" and _grows(equation):
        return None
    others = [value.array for value in operands[1:]]
    if name == "concatenate":
        return [_side_by_side(equation, operands)]
    if name in _CUTS:
        if any(isinstance(x, jax.core.Tracer) for x in others):
            return None
        others = [np.asarray(x) for x in others]
    if any(value.views for value in operands[1:]):
        return None
    shown = {k: v for k, v in equation.params.items() if k != "sharding"}
    fixed = [x.tobytes().hex() for x in others if isinstance(x, np.ndarray)]
    key = f"{name} {shown} {fixed}"

    def apply_one(x, number):
        extra = [jnp.zeros((), x.dtype)] if name == "pad" else others
        return equations.bind(equation, [x, *extra], **changes)[number]

    return [
        {
            leaf: view.then(
                lambda x, i=i: apply_one(x, i), key if number == 1 else f"{key} [{i}]"
            )
            for leaf, view in operands[0].views.items()
        }
        for i in range(number)
    ]


def _grows(equation) -> bool:
    sizes = [math.prod(v.aval.shape) for v in (equation.invars[0], equation.outvars[0])]
    return sizes[0] < sizes[1]


def _side_by_side(equation, operands: list[Value]) -> dict[str, View]:
    """Return the views behind a concatenation: zeros lie in the place of the others."""
    shapes = [tuple(atom.aval.shape) for atom in equation.invars]
    axis, found = equation.params["dimension"], {}
    for i, value in enumerate(operands):

        def apply(x, i=i):
            parts = [
                x if j == i else jnp.zeros(s, x.dtype) for j, s in enumerate(shapes)
            ]
            return jnp.concatenate(parts, axis)

        for leaf, view in value.views.items():
            found[leaf] = view.then(apply, f"concatenate {axis} {shapes} [{i}]")
    return found


def _sides(walk: Walk, operands: list[Value], names: str):
    """Yield the sides of a product on which weights meet data."""
    for side in (0, 1):
        value, other = operands[side], operands[1 - side]
        if value.views and (other.views or value.data):
            walk.lose(value.views, f"multiplied with other weights, by `{names}`")
        elif value.views:
            yield side, value, other


def _dot_general(walk: Walk, equation: Any, operands: list[Value]) -> dict[str, Inputs]:
    contracted, batch = equation.params["dimension_numbers"]
    found: dict[str, Inputs] = {}
    for side, value, other in _sides(walk, operands, "dot_general"):
        rank = len(equation.invars[side].aval.shape)
        axes, of_batch, of_contracted = inputs.contracted_axes(
            contracted[side], batch[side], rank
        )
        sums = inputs.of_product(
            other.array,
            [batch[1 - side][i] for i in of_batch],
            [contracted[1 - side][i] for i in of_contracted],
            walk.gram,
        )
        for view in value.views.values():
            merge(found, {walk.meet(view, axes, equation, side): sums})
    return found


def _convolution(walk: Walk, equation: Any, operands: list[Value]) -> dict[str, Inputs]:
    params = equation.params
    numbers, groups = params["dimension_numbers"], params["feature_group_count"]
    if params["batch_group_count"] != 1 or operands[0].views:
        every = {**operands[0].views, **operands[1].views}
        walk.lose(every, "operand of a convolution in the place of its input")
        return {}
    outputs, channels, *space = numbers.rhs_spec
    axes = Axes((), (*space, channels), (outputs,), groups)
    found: dict[str, Inputs] = {}
    for _, value, other in _sides(walk, operands, "conv_general_dilated"):
        kernel = [equation.invars[1].aval.shape[d] for d in space]
        out = [equation.outvars[0].aval.shape[d] for d in numbers.out_spec[2:]]
        sums = inputs.of_convolution(other.array, kernel, out, params, walk.gram)
        for view in value.views.values():
            merge(found, {walk.meet(view, axes, equation, 1): sums})
    return found


_ROWS_BY_GROUP = ((((1,), (1,)), ((), ())), (0,), (0,))


def _ragged(walk: Walk, equation: Any, operands: list[Value]) -> dict[str, Inputs]:
    numbers = equation.params["ragged_dot_dimension_numbers"]
    layout = (
        tuple(tuple(map(tuple, part)) for part in numbers.dot_dimension_numbers),
        tuple(numbers.lhs_ragged_dimensions),
        tuple(numbers.rhs_group_dimensions),
    )
    every = {**operands[0].views, **operands[1].views}
    if layout != _ROWS_BY_GROUP or operands[0].views:
        walk.lose(every, "operand of a ragged product of another layout")
        return {}
    found: dict[str, Inputs] = {}
    if operands[1].views and not operands[1].data:
        sums = inputs.of_ragged_product(operands[0].array, operands[2].array, walk.gram)
        for view in operands[1].views.values():
            key = walk.meet(view, Axes((0,), (1,), (2,)), equation, 1)
            merge(found, {key: sums})
    return found


_PRODUCTS = {
    "dot_general": _dot_general,
    "conv_general_dilated": _convolution,
    "ragged_dot_general": _ragged,
}


class Loop(NamedTuple):
    """What is known of a carry when a loop has been probed.

    Attributes:
      carry: the values with which the loop begins, of which is known what holds for
        all of its steps.
      outs: what one step returns, abstract.
      found: the sums of one step, abstract.
    """

    carry: list[Value]
    outs: list[Value]
    found: dict[str, Any]


def _settled(walk: Walk, step, carry: list[Value], slices: Sequence[Any]) -> Loop:
    """Probe a loop until what is known of its carry holds for all steps."""
    while True:
        outs: list[Value] = []

        def probe(arrays, slices, carry=carry, outs=outs):
            given = [v._replace(array=a) for v, a in zip(carry, arrays, strict=True)]
            results, found = step(given, slices)
            outs[:] = [value._replace(array=None) for value in results]
            return [value.array for value in results], found

        arrays = [value.array for value in carry]
        shapes, found = _abstract(probe, arrays, list(slices))
        outs = [v._replace(array=s) for v, s in zip(outs, shapes, strict=True)]
        after = [_joined(a, b) for a, b in zip(carry, outs, strict=False)]
        if all(a.keys == b.keys for a, b in zip(carry, after, strict=True)):
            return Loop(carry, outs, found)
        for before, value in zip(carry, after, strict=True):
            gone = {k: v for k, v in before.views.items() if k not in value.views}
            walk.lose(gone, "changed by the steps of a loop")
        carry = after


def _abstract(fn: Any, *args: Any) -> Any:
    """Return what a function returns, abstract, with the axes over which it varies."""
    closed, shapes = jax.make_jaxpr(fn, return_shape=True)(*args)
    return jax.tree.unflatten(jax.tree.structure(shapes), closed.out_avals)


def _joined(a: Value, b: Value) -> Value:
    """Return what holds for both of two values."""
    views = {
        name: view
        for name, view in a.views.items()
        if name in b.views and b.views[name].key == view.key
    }
    return Value(a.array, views, a.data or b.data)


def _zeros(shapes: Any) -> Any:
    """Return zeros of abstract values."""
    return jax.tree.map(varying_zeros, shapes)


def _scan(walk: Walk, equation: Any, operands: list[Value]):
    params = Params(equation)
    parts, body = equations.scan_parts(params), equations.called(params["jaxpr"])
    consts, rest = operands[: parts.consts], operands[parts.consts :]
    carry, over = rest[: parts.carry], rest[parts.carry :]
    scan = object()
    views = [{k: v.scanned(scan) for k, v in x.views.items()} for x in over]

    def step(carry, slices):
        inside = [
            Value(array, view, value.data)
            for array, view, value in zip(slices, views, over, strict=True)
        ]
        return walk.run(body, [*consts, *carry, *inside])

    slices = [var.aval for var in body.jaxpr.invars[parts.consts + parts.carry :]]
    loop = _settled(walk, step, carry, slices)
    stacked = {key for key in loop.found if scan in walk.uses[key].view.scans}
    carried = {k: v for k, v in loop.found.items() if k not in stacked}

    def run(state, slices):
        arrays, sums = state
        given = [v._replace(array=a) for v, a in zip(loop.carry, arrays, strict=True)]
        outs, found = step(given, slices)
        arrays = [value.array for value in outs]
        more = {key: inputs.added(sums[key], found[key]) for key in carried}
        every = {key: found[key] for key in stacked}
        return (arrays[: len(carry)], more), (arrays[len(carry) :], every)

    begin = (
        [value.array for value in loop.carry],
        _zeros(carried),
    )
    options = {k: params[k] for k in ("length", "reverse", "unroll")}
    arrays = [value.array for value in over]
    (last, sums), (ys, every) = jax.lax.scan(run, begin, arrays, **options)
    tracked = [v._replace(array=a) for v, a in zip(loop.carry, last, strict=True)]
    outs = loop.outs[len(carry) :]
    for value in outs:
        walk.lose(value.views, "stacked by a scan before it meets a product")
    results = [Value(a, {}, v.data) for a, v in zip(ys, outs, strict=True)]
    return [*tracked, *results], {**sums, **every}


def _while(walk: Walk, equation: Any, operands: list[Value]):
    params = Params(equation)
    n, m = params["cond_nconsts"], params["body_nconsts"]
    tests, consts, carry = operands[:n], operands[n : n + m], operands[n + m :]
    test = equations.called(params["cond_jaxpr"])
    body = equations.called(params["body_jaxpr"])
    loop = _settled(walk, lambda c, _: walk.run(body, [*consts, *c]), carry, ())

    def given(arrays):
        return [v._replace(array=a) for v, a in zip(loop.carry, arrays, strict=True)]

    def holds(state):
        return walk.run(test, [*tests, *given(state[0])])[0][0].array

    def run(state):
        arrays, sums = state
        outs, found = walk.run(body, [*consts, *given(arrays)])
        more = {key: inputs.added(sums[key], found[key]) for key in sums}
        return [value.array for value in outs], more

    begin = (
        [value.array for value in loop.carry],
        _zeros(loop.found),
    )
    arrays, sums = jax.lax.while_loop(holds, run, begin)
    return given(arrays), sums


def _cond(walk: Walk, equation: Any, operands: list[Value]):
    index, *given = operands
    arrays = [value.array for value in given]
    bodies = [equations.called(x) for x in equation.params["branches"]]

    def step(body):
        def run(_, arrays):
            inside = [v._replace(array=a) for v, a in zip(given, arrays, strict=True)]
            return walk.run(body, inside)

        return run

    probed = [_settled(walk, step(body), [], arrays) for body in bodies]
    every: dict[str, Any] = {}
    for loop in probed:
        every |= loop.found

    def branch(body):
        def run(*arrays):
            outs, found = step(body)((), arrays)
            return [v.array for v in outs], {
                **_zeros(every),
                **found,
            }

        return run

    results, sums = jax.lax.switch(index.array, list(map(branch, bodies)), *arrays)
    outs = probed[0].outs
    for loop in probed[1:]:
        outs = [_joined(a, b) for a, b in zip(outs, loop.outs, strict=True)]
    data = [value.data or index.data for value in outs]
    for value in outs:
        if index.data:
            walk.lose(value.views, "chosen by values that depend on the inputs")
    return [
        Value(a, {} if d else v.views, d)
        for a, v, d in zip(results, outs, data, strict=True)
    ], sums


_LOOPS = {"scan": _scan, "while": _while, "cond": _cond}


def walked(fn: Any, params: Any, arguments: Sequence[Any], wanted: Any, gram: bool):
    """Evaluate a function, and return the pass and its sums by the keys of uses.

    Args:
      fn: `(params, *inputs) -> outputs`.
      params: the parameters.
      arguments: the inputs.
      wanted: the names of the leaves that are followed.
      gram: whether Gram matrices are computed.
    """
    closed = equations.called(jax.make_jaxpr(fn)(params, *arguments))
    program = closed._replace(jaxpr=equations.live(closed.jaxpr))
    values = [
        Value(leaf, {name: View(name, np.shape(leaf))} if name in wanted else {})
        for name, leaf in tree.named_leaves(params).items()
    ]
    values += [Value(leaf, {}, True) for leaf in jax.tree.leaves(tuple(arguments))]
    walk = Walk(gram)
    _, found = walk.run(program, values)
    return walk, found
