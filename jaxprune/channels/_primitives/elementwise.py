"""Primitives that treat channels alike and apart.

The result has the axes of its operands. Operands may have axes of size 1 that are
broadcast, or be scalars. Identities, which only say where an array lies or how it is
compiled, pass every operand by itself.
"""

import functools
from collections.abc import Callable, Sequence

import jax.numpy as jnp
import numpy as np
from jax.extend import core as jex

from jaxprune.channels._flow import dependence, equations, routing
from jaxprune.channels._flow.flow import (
    Flow,
    Site,
    Source,
    Total,
    Value,
    pin_all,
)
from jaxprune.channels._flow.reasons import Reason
from jaxprune.channels._flow.registry import Primitive, register

Zero = Callable[[Site, Sequence[frozenset[int]]], frozenset[int]]
"""From the zero axes of the operands to those of the result."""


def elementwise(flow: Flow, site: Site, *values: Value, zero: Zero) -> list[Value]:
    """Join the axes of all operands, axis by axis."""
    shape, shapes = site.result_shape(), site.shapes()
    axes = []
    for d, size in enumerate(shape):
        joined = None
        for value, own in zip(values, shapes, strict=True):
            if not own:
                continue
            if own[d] != size:
                flow.pin(value.axes[d], Reason.RESULT, "broadcasts it")
            elif joined is None:
                joined = value.axes[d]
            else:
                joined = flow.unify(joined, value.axes[d])
        axes.append(flow.fresh(size) if joined is None else joined)
    zero_axes = zero(site, _zero_axes(site, values, shapes, shape))
    source, total = _source(values, shapes, shape), _total(site, values)
    return [Value(tuple(axes), source, zero_axes, total=total)]


def _total(site: Site, values) -> Total | None:
    """Return what the result is a sum over, if it is its only operand."""
    return values[0].total if site.name in equations.SAME else None


def _zero_axes(site: Site, values, shapes, shape) -> list[frozenset[int]]:
    """For each operand the axes of the result along which it is zero where removed."""
    zero = []
    for atom, value, own in zip(site.equation.invars, values, shapes, strict=True):
        if isinstance(atom, jex.Literal) and not own and atom.val == 0:
            zero.append(frozenset(range(len(shape))))
        else:
            zero.append(
                frozenset(d for d in value.zero_axes if own and own[d] == shape[d])
            )
    return zero


def _source(values, shapes, shape) -> Source | None:
    """Return the leaf of which all operands of full shape are views."""
    full = [v.source for v, own in zip(values, shapes, strict=True) if own == shape]
    if not full or full[0] is None:
        return None
    same = all(s is not None and s.leaf == full[0].leaf for s in full)
    return full[0] if same else None


def _never(site: Site, zero) -> frozenset[int]:
    return frozenset()


def _if_all(site: Site, zero) -> frozenset[int]:
    """Return where all operands are zero: f(0, 0) = 0."""
    return frozenset.intersection(*zero)


def if_any(site: Site, zero) -> frozenset[int]:
    """Return where one operand is zero: a product."""
    return frozenset.union(*zero)


def as_first(site: Site, zero) -> frozenset[int]:
    """Return where the first operand is zero: a quotient."""
    return zero[0]


def _as_power(site: Site, zero) -> frozenset[int]:
    return zero[0] if site.params["y"] > 0 else frozenset()


def _if_all_cases(site: Site, zero) -> frozenset[int]:
    """Return where all cases are zero, whichever is selected."""
    return frozenset.intersection(*zero[1:])


@dependence.rule
def any_operand(site: Site, operands, values):
    start = jnp.zeros(np.shape(values[0]), bool)
    return [functools.reduce(jnp.logical_or, [k.varies for k in operands], start)]


@dependence.rule
def of_product(site: Site, operands, values):
    """Stop what varies at factors that are zero, whatever the input."""
    (x, a, _), (y, b, _) = operands
    varies = (a & (b | (y != 0))) | (b & (a | (x != 0)))
    return [jnp.broadcast_to(varies, np.shape(values[0]))]


def _rules(zero: Zero, varies=any_operand) -> Primitive:
    return Primitive(functools.partial(elementwise, zero=zero), varies=varies)


register(
    "abs add add_any asin asinh atan atanh cbrt ceil convert_element_type erf erf_inv "
    "expm1 floor imag log1p max min name neg real reduce_precision round sign sin "
    "sinh sqrt square stop_gradient sub tan tanh",
    _rules(_if_all),
)
register("copy copy_p", _rules(_if_all, dependence.view))
register("and", _rules(if_any, of_product))
register("integer_pow", _rules(_as_power))
register("select_n", _rules(_if_all_cases))
register(
    "acos acosh atan2 bessel_i0e bessel_i1e clamp clz complex conj cos cosh digamma "
    "eq_to erfc exp exp2 ge gt igamma igamma_grad_a igammac is_finite le le_to lgamma "
    "log logistic lt lt_to mulhi ne nextafter not or polygamma population_count pow "
    "random_gamma_grad regularized_incomplete_beta rem rsqrt shift_left "
    "shift_right_arithmetic shift_right_logical xor zeros_like zeta",
    _rules(_never),
)


def equal(flow: Flow, site: Site, *values: Value) -> list[Value]:
    """Join axes; numbers that are compared with a range say which axis it lists."""
    (out,) = elementwise(flow, site, *values, zero=_never)
    for value, other in (values, values[::-1]):
        if value.route is None:
            continue
        for d, axis in enumerate(out.axes):
            if routing.lists(other.constant, d, value.route):
                flow.unify(value.route.axis, axis)
    return [out]


register("eq", Primitive(equal, varies=any_operand))


def bitcast_convert_type(flow: Flow, site: Site, value: Value) -> Sequence[Value]:
    """Elementwise between types of equal width."""
    if site.shape() != site.result_shape():
        return pin_all(flow, site, value)
    return elementwise(flow, site, value, zero=_never)


register("bitcast_convert_type", Primitive(bitcast_convert_type, varies=any_operand))


def each_alike(flow: Flow, site: Site, *values: Value) -> list[Value]:
    """Every operand passes by itself."""
    return list(values)


@dependence.rule
def _each_alike(site: Site, operands, values):
    return [known.varies for known in operands]


_ALIKE = Primitive(each_alike, varies=_each_alike, moves=True)
register(" ".join(equations.ALIKE), _ALIKE)
