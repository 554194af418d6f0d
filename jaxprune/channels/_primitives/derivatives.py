"""Functions that bring their own derivative keep it, with fewer channels.

The derivative is traced at full size, through the public `jax.jvp` and `jax.vjp`, and
then runs with fewer channels like any other program. A `custom_vjp` function keeps its
arguments for the backward pass and recomputes there what it needs besides.
"""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from jaxprune.channels._flow import equations
from jaxprune.channels._flow.evaluate import Evaluation, derive, take
from jaxprune.channels._flow.flow import RENORMALISE, Flow, Site, Value
from jaxprune.channels._flow.reasons import Reason
from jaxprune.channels._flow.registry import Primitive, register
from jaxprune.channels._primitives import sums
from jaxprune.channels._primitives.calls import walk_call


def call(flow: Flow, site: Site, *values: Value) -> list[Value]:
    """Follow the called jaxpr.

    Constants are cut before the call, since the derivative is a program of its own. For
    the same reason a mean of what is left is none here: the divisor that the derivative
    holds cannot be told from other constants.
    """
    values = tuple(value.own() for value in values)
    outs = flow.call(equations.body(site.params), values)
    if flow.norms == RENORMALISE:
        for _, mean in sums.means(site.children[-1]):
            for axis, _ in mean.total:
                text = "takes a mean over it, and has a derivative of its own"
                flow.pin(axis, Reason.READ_WHOLE, text)
    return outs


class _Floats(NamedTuple):
    """The floating ones among the operands or the results of a function.

    Attributes:
      places: their numbers.
      values: what is known of them.
      avals: their shapes and dtypes.
    """

    places: Sequence[int]
    values: Sequence[Value]
    avals: Sequence[jax.ShapeDtypeStruct]


def _aval(atom) -> jax.ShapeDtypeStruct:
    return jax.ShapeDtypeStruct(atom.aval.shape, atom.aval.dtype)


def _floats(atoms, value_of) -> _Floats:
    places = [
        i
        for i, atom in enumerate(atoms)
        if jnp.issubdtype(atom.aval.dtype, jnp.inexact)
    ]
    values = [value_of(i) for i in places]
    return _Floats(places, values, [_aval(atoms[i]) for i in places])


class _Derivative:
    """The derivative rule of one equation: of tangents, or of cotangents.

    Attributes:
      operands: the floating operands of the equation.
      results: the floating results.
    """

    def __init__(self, ev: Evaluation, site: Site):
        self.ev, self.site = ev, site
        self.operands = _floats(site.equation.invars, site.operand)
        self.results = _floats(site.equation.outvars, site.result)

    def function(self, *arrays):
        """Evaluate the function itself, with fewer channels."""
        return self.ev.run(self.site.children[0], arrays)

    def tangents(self, primals, tangents) -> list:
        """Return the tangents of the floating results."""

        def dense(primals, tangents):
            original, floats = self._in_floats(primals)
            return jax.jvp(original, floats, tangents)[1]

        given = [tangents[i] for i in self.operands.places]
        return self._run(dense, self.operands, self.results, primals, given)

    def cotangents(self, primals, cotangents) -> list:
        """Return the cotangents of the floating operands."""

        def dense(primals, cotangents):
            original, floats = self._in_floats(primals)
            return jax.vjp(original, *floats)[1](cotangents)

        given = [cotangents[i] for i in self.results.places]
        return self._run(dense, self.results, self.operands, primals, given)

    def _in_floats(self, primals) -> tuple[Callable[..., Any], list]:
        """Return the original function, of its floating arguments and results."""

        def function(*floats):
            args = list(primals)
            for i, x in zip(self.operands.places, floats, strict=True):
                args[i] = x
            outs = self.site.bind(*args)
            return [outs[i] for i in self.results.places]

        return function, [primals[i] for i in self.operands.places]

    def _run(self, dense, given: _Floats, made: _Floats, primals, arrays) -> list:
        """Run `dense(primals, arrays)` with the channels that the site keeps."""
        ev, equation = self.ev, self.site.equation
        operands = [self.site.operand(i) for i in range(len(equation.invars))]
        avals = [_aval(atom) for atom in equation.invars]
        closed = jax.make_jaxpr(dense)(avals, list(given.avals))
        program = derive(closed, ev.program.flow.norms)
        kept = [ev.kept_of(value) for value in (*operands, *given.values)]
        name = f"the derivative of `{self.site.name}`"
        removed = program.remover(kept, lambda i: f"argument {i} of {name}")
        run = Evaluation(program, removed, small=ev.small)
        results = run(*primals, *arrays)
        for i, (out, value) in enumerate(zip(program.outs, made.values, strict=True)):
            free = out.repeated if out.constant is None else range(len(out.axes))
            wanted = ev.kept_of(value)
            loose = [left if d in free else None for d, left in enumerate(wanted)]
            results[i] = take(results[i], tuple(loose)) if ev.small else results[i]
            found = list(run.kept_of(out))
            for d in free:
                found[d] = wanted[d]
            if not _alike(found, wanted):
                raise ValueError(
                    f"`apply_fn(params, ...)`: {name} keeps other channels than the "
                    "function itself, so these channels must stay. Leave their group "
                    "out of the masks."
                )
        return results


def _alike(kept, others) -> bool:
    lists = [
        [None if left is None else left.tolist() for left in one]
        for one in (kept, others)
    ]
    return lists[0] == lists[1]


def run_custom_jvp(ev: Evaluation, site: Site, *arrays):
    """Run the function; its tangents are those of the original rule."""
    derivative = _Derivative(ev, site)
    function = jax.custom_jvp(derivative.function)

    @function.defjvp
    def _(primals, tangents):
        made = iter(derivative.tangents(primals, tangents))
        values = function(*primals)
        return values, [
            next(made)
            if i in derivative.results.places
            else jnp.zeros(value.shape, jax.dtypes.float0)
            for i, value in enumerate(values)
        ]

    return function(*arrays)


register(
    "custom_jvp_call",
    Primitive(call, small=run_custom_jvp, masked=run_custom_jvp, varies=walk_call),
)


def run_custom_vjp(ev: Evaluation, site: Site, *arrays):
    """Run the function; its cotangents are those of the original rule."""
    derivative = _Derivative(ev, site)
    function = jax.custom_vjp(derivative.function)

    def backward(primals, cotangents):
        made = iter(derivative.cotangents(primals, cotangents))
        return tuple(
            next(made) if i in derivative.operands.places else None
            for i in range(len(primals))
        )

    function.defvjp(lambda *xs: (function(*xs), xs), backward)
    return function(*arrays)


register(
    "custom_vjp_call",
    Primitive(call, small=run_custom_vjp, masked=run_custom_vjp, varies=walk_call),
)
