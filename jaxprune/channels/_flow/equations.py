"""What equations of jaxprs say, for every supported version of JAX.

This is the only module that knows how JAX lays out parameters of equations that call
other jaxprs. A layout that it does not know raises `UnknownLayout`; `flow` then pins
what the equation touches.
"""

from collections.abc import Sequence
from typing import Any, NamedTuple

import jax
import jax.core
from jax.extend import core as jex
from jax.interpreters import partial_eval

# They say over which mapped axes an array varies, and exist inside of `shard_map` only.
_VARYING = frozenset({"pvary", "pcast", "pbroadcast"})
CALLS = frozenset(
    {"jit", "pjit", "closed_call", "core_call", "remat", "remat2", "checkpoint"}
)
"""Primitives that compute what the jaxpr in them does, of the same operands."""
OWN_DERIVATIVE = frozenset(
    {"custom_jvp_call", "custom_vjp_call", "custom_vjp_call_jaxpr"}
)
"""The same, with another derivative."""
SAME = frozenset(
    {"convert_element_type", "copy", "copy_p", "name", "reduce_precision"}
    | {"stop_gradient"}
)
"""Primitives whose result is their operand, in another type at most."""
ALIKE = frozenset(
    {"optimization_barrier", "device_put", "reshard", "layout_constraint", "pcast"}
    | {"pvary", "pbroadcast", "mesh_cast", "sharding_constraint"}
)
"""Primitives of which every result is the operand of its place."""
DEBUGGING = frozenset({"debug_callback", "debug_print"})


class UnknownLayout(Exception):
    """The parameters of an equation are not laid out as in any known version."""


class Parameters(dict):
    """Parameters of an equation; one that is missing raises `UnknownLayout`."""

    def __missing__(self, key):
        raise UnknownLayout(key)


class Called(NamedTuple):
    """A jaxpr that an equation calls, and its constants."""

    jaxpr: Any
    consts: Sequence[Any]


class ScanParts(NamedTuple):
    """How many operands of a scan are constants, and how many are carried."""

    consts: int
    carry: int


def called(jaxpr: Any) -> Called:
    """Return an open or closed jaxpr with its constants.

    Until JAX 0.10 a closed jaxpr wraps an open one; later there is one class.
    """
    return Called(getattr(jaxpr, "jaxpr", jaxpr), tuple(getattr(jaxpr, "consts", ())))


def body(params: Parameters) -> Called:
    """Return what a call, a checkpoint or a function with own derivatives calls."""
    return called(params["call_jaxpr" if "call_jaxpr" in params else "jaxpr"])


def scan_parts(params: Parameters) -> ScanParts:
    """Return how the operands of a scan are divided.

    Until JAX 0.10 two numbers say so; later a flat tree of three parts.
    """
    if "num_consts" in params:
        return ScanParts(params["num_consts"], params["num_carry"])
    try:
        consts, carry, _ = (len(part) for part in params["ft_in"].unpack())
    except (AttributeError, TypeError, ValueError) as error:
        raise UnknownLayout("ft_in") from error
    return ScanParts(consts, carry)


def bind(equation: Any, arrays: Sequence[Any], **changes: Any) -> list:
    """Apply the primitive of an equation, with some of its parameters changed."""
    primitive = equation.primitive
    params = primitive.get_bind_params({**equation.params, **changes})
    outs = primitive.bind(*arrays, **params)
    return list(outs) if primitive.multiple_results else [outs]


def live(jaxpr: Any) -> Any:
    """Drop equations on which no result depends, in called jaxprs too.

    Debugging prints and callbacks are dropped as well, with what only they read: they
    are no results, and JAX promises nothing about them. Other effects stay.
    """
    jaxpr = _without_debugging(jaxpr)
    everything = [True] * len(jaxpr.outvars)
    return partial_eval.dce_jaxpr(jaxpr, everything, instantiate=True)[0]


def _without_debugging(jaxpr):
    """Leaves out debugging equations; an unchanged jaxpr is returned itself."""
    equations = [
        _with_inner(e) for e in jaxpr.eqns if e.primitive.name not in DEBUGGING
    ]
    if len(equations) == len(jaxpr.eqns) and all(
        new is old for new, old in zip(equations, jaxpr.eqns, strict=True)
    ):
        return jaxpr
    return jaxpr.replace(eqns=equations, effects=_effects_of(jaxpr, equations))


def _effects_of(jaxpr, equations):
    """Return the effects that are left, those that still occur in equations."""
    left = {effect for equation in equations for effect in equation.effects}
    return {effect for effect in jaxpr.effects if effect in left}


def _with_inner(equation):
    if not equation.effects:
        return equation
    params = {k: _replace_inner(v) for k, v in equation.params.items()}
    if all(params[k] is v for k, v in equation.params.items()):
        return equation
    inner = [called(j).jaxpr for j in jex.jaxprs_in_params(params)]
    left = {type(effect) for jaxpr in inner for effect in jaxpr.effects}
    effects = {effect for effect in equation.effects if type(effect) in left}
    return equation.replace(params=params, effects=effects)


def _replace_inner(parameter: Any) -> Any:
    """Return a parameter whose jaxprs have lost their debugging equations."""
    if isinstance(parameter, tuple) and any(map(_is_jaxpr, parameter)):
        new = [_replace_inner(item) for item in parameter]
        if all(a is b for a, b in zip(new, parameter, strict=True)):
            return parameter
        make = getattr(parameter, "_make", tuple)  # Of a NamedTuple, its type.
        return make(new)
    if not _is_jaxpr(parameter):
        return parameter
    inner = called(parameter).jaxpr
    stripped = _without_debugging(inner)
    if stripped is inner:
        return parameter
    return stripped if inner is parameter else _closed(parameter, stripped)


def _closed(closed: Any, jaxpr: Any) -> Any:
    """Return a closed jaxpr, of the older kind, with another open one inside."""
    return closed.replace(jaxpr=jaxpr)


def _is_jaxpr(x) -> bool:
    return isinstance(x, (jex.Jaxpr, jex.ClosedJaxpr))


class Constant:
    """An array that depends on no argument of the program.

    It is computed when its value is asked for, once.
    """

    def __init__(self, equation: Any, operands: Sequence["Constant"], number: int = 0):
        self._equation = equation
        self._operands = operands
        self._number = number
        self._known = False
        self._value: Any = None

    @classmethod
    def of(cls, value: Any) -> "Constant":
        """Return the constant of a known value."""
        constant = cls(None, ())
        constant._known, constant._value = True, value
        return constant

    def value(self) -> Any:
        """Return the array; None if it cannot be computed outside the program."""
        if not self._known:
            self._known, self._value = True, self._compute()
        unknown = self._value is None or isinstance(self._value, jax.core.Tracer)
        return None if unknown else self._value

    def _compute(self):
        arrays = [operand.value() for operand in self._operands]
        sizes = [getattr(v.aval, "shape", ()) for v in self._equation.outvars]
        if any(array is None for array in arrays) or not all(
            isinstance(size, int) for shape in sizes for size in shape
        ):
            return None
        if self._equation.primitive.name in _VARYING:
            return arrays[self._number]
        try:
            with jax.ensure_compile_time_eval():
                return bind(self._equation, arrays)[self._number]
        except (NameError, NotImplementedError):
            return None  # Of an axis name, for instance, that only the program binds.
