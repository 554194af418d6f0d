"""Decompositions and solves, which work on the last axes of each operand."""

from typing import Any

import jax

from jaxprune.channels._flow import equations
from jaxprune.channels._flow.evaluate import Evaluation
from jaxprune.channels._flow.flow import Flow, Site, Value
from jaxprune.channels._flow.reasons import Reason
from jaxprune.channels._flow.registry import Primitive, register
from jaxprune.channels._primitives.calls import join
from jaxprune.channels._primitives.reductions import leading

register(
    "cholesky eig eigh geqrf geqp3 hessenberg lu qr schur svd tridiagonal",
    Primitive(leading(lambda site: [2] * len(site.equation.invars))),
)
register("householder_product", Primitive(leading(lambda site: [2, 1])))
register("lu_pivots_to_permutation", Primitive(leading(lambda site: [1])))


def triangular_solve(flow: Flow, site: Site, matrix: Value, value: Value):
    """Pin the axis that the matrix is multiplied with; pass the other one."""
    solved = len(value.axes) - (2 if site.params["left_side"] else 1)
    for axis in (*matrix.axes[-2:], value.axes[solved]):
        flow.pin(axis, Reason.READ_WHOLE, "solves along it")
    axes = list(value.axes)
    for d, axis in enumerate(matrix.axes[:-2]):
        axes[d] = flow.unify(axes[d], axis)
    return [Value(tuple(axes))]


register("triangular_solve", Primitive(triangular_solve))


def tridiagonal_solve(
    flow: Flow, site: Site, low: Value, middle: Value, high: Value, value: Value
):
    """Pin the axis of the diagonals; pass that of right-hand sides."""
    for axis in (low.axes[-1], middle.axes[-1], high.axes[-1], value.axes[-2]):
        flow.pin(axis, Reason.READ_WHOLE, "solves along it")
    axes = list(value.axes)
    for diagonal in (low, middle, high):
        for d, axis in enumerate(diagonal.axes[:-1]):
            axes[d] = flow.unify(axes[d], axis)
    return [Value(tuple(axes))]


register("tridiagonal_solve", Primitive(tridiagonal_solve))


_PARTS = ("matvec", "solve", "transpose_solve")


def _parts(params, operands):
    """Return the constants of each function of a solve by name, and what is solved."""
    consts, start = {}, 0
    for name, count in params["const_lengths"]._asdict().items():
        consts[name] = operands[start : start + count]
        start += count
    return consts, operands[start:]


def linear_solve(flow: Flow, site: Site, *values: Value) -> list[Value]:
    """Follow the functions of a solve, which all keep the channels of its operand."""
    params = site.params
    consts, solved = _parts(params, values)
    solved = [Value(value.axes) for value in solved]  # Cut before the call.
    for name in _PARTS:
        function = getattr(params["jaxprs"], name)
        if function is None:
            continue
        before = len(flow.work)
        args = [*consts[name], *solved]
        outs = flow.call(equations.called(function), args, name)
        join(flow, solved, outs)
        if name != "solve":
            del flow.work[before:]
    return solved


def run_linear_solve(ev: Evaluation, site: Site, *arrays):
    """Solve with the same functions, of fewer channels."""
    params = site.params
    consts, arrays = _parts(params, arrays)
    given = [name for name in _PARTS if getattr(params["jaxprs"], name) is not None]
    frames = dict(zip(given, site.children, strict=True))

    def function(name):
        return lambda xs: ev.run(frames[name], [*consts[name], *xs])

    def solver(name) -> Any:
        # JAX passes the product first, which the frame holds itself.
        return (lambda _, xs: function(name)(xs)) if name in frames else None

    return jax.lax.custom_linear_solve(
        function("matvec"),
        list(arrays),
        solve=solver("solve"),
        transpose_solve=solver("transpose_solve"),
    )


register(
    "custom_linear_solve linear_solve",
    Primitive(linear_solve, small=run_linear_solve, masked=run_linear_solve),
)
