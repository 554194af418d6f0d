"""Functions that bring their own derivative keep it, with fewer channels.

The derivative is traced at full size, through the public `jax.jvp` and `jax.vjp`, and
then runs with fewer channels like any other program. A `custom_vjp` function keeps its
arguments for the backward pass and recomputes there what it needs besides.
"""

import jax
import jax.numpy as jnp

from jaxprune.channels._flow.evaluate import Evaluation, Site, derive, rule


def _is_float(x) -> bool:
    return jnp.issubdtype(x.dtype, jnp.inexact)


def _floats(atoms) -> list[int]:
    return [i for i, atom in enumerate(atoms) if _is_float(atom.aval)]


def _abstract(atom):
    return jax.ShapeDtypeStruct(atom.aval.shape, atom.aval.dtype)


def _in_floats(site: Site, primals):
    """The original function, of its floating arguments, to its floating results."""
    places = _floats(site.equation.invars)
    results = _floats(site.equation.outvars)

    def function(*floats):
        args = list(primals)
        for i, x in zip(places, floats, strict=True):
            args[i] = x
        outs = site.bind(*args)
        return [outs[i] for i in results]

    return function, [primals[i] for i in places]


def _run(ev: Evaluation, site: Site, dense, extra, results, primals, others):
    """Runs `dense(primals, others)` with the channels that the site keeps.

    `extra` and `results` are what is known of the `others` and of the results.
    """
    equation = site.equation
    operands = [site.operand(i) for i in range(len(equation.invars))]
    abstract = [_abstract(atom) for atom in equation.invars]
    program = derive(jax.make_jaxpr(dense)(abstract, [_abstract(a) for a, _ in extra]))
    kept = [ev.kept_of(v) for v in (*operands, *(value for _, value in extra))]
    name = f"the derivative of `{equation.primitive.name}`"
    removed = program.remover(kept, lambda i: f"argument {i} of {name}")
    run = Evaluation(program, removed, small=ev.small)
    for out, value in zip(program.outs, results, strict=True):
        for mine, theirs in zip(run.kept_of(out), ev.kept_of(value), strict=True):
            alike = mine is theirs is None
            if mine is not None and theirs is not None:
                alike = mine.tolist() == theirs.tolist()
            if not alike:
                raise ValueError(
                    f"{name} keeps other channels than the function itself, so these "
                    "channels cannot be removed. Leave their group out of the masks."
                )
    return run(*primals, *others)


@rule("custom_jvp_call")
def custom_jvp_call(ev: Evaluation, site: Site, *arrays):
    """The tangents are those of the original rule."""
    (frame,), equation = site.children, site.equation
    ins, outs = _floats(equation.invars), _floats(equation.outvars)

    @jax.custom_jvp
    def function(*xs):
        return ev.run_closed(frame, site.params["call_jaxpr"], xs)

    def dense(primals, tangents):
        original, floats = _in_floats(site, primals)
        return jax.jvp(original, floats, tangents)[1]

    @function.defjvp
    def _(primals, tangents):
        extra = [(equation.invars[i], site.operand(i)) for i in ins]
        results = [site.result(i) for i in outs]
        given = [tangents[i] for i in ins]
        made = iter(_run(ev, site, dense, extra, results, primals, given))
        values = function(*primals)
        zero = [jnp.zeros(v.shape, jax.dtypes.float0) for v in values]
        return values, [
            next(made) if i in outs else zero[i] for i in range(len(values))
        ]

    return function(*arrays)


@rule("custom_vjp_call")
def custom_vjp_call(ev: Evaluation, site: Site, *arrays):
    """The cotangents are those of the original rule."""
    (frame,), equation = site.children, site.equation
    ins, outs = _floats(equation.invars), _floats(equation.outvars)

    @jax.custom_vjp
    def function(*xs):
        return ev.run_closed(frame, site.params["call_jaxpr"], xs)

    def dense(primals, cotangents):
        original, floats = _in_floats(site, primals)
        return jax.vjp(original, *floats)[1](cotangents)

    def backward(primals, cotangents):
        extra = [(equation.outvars[i], site.result(i)) for i in outs]
        results = [site.operand(i) for i in ins]
        given = [cotangents[i] for i in outs]
        made = iter(_run(ev, site, dense, extra, results, primals, given))
        return tuple(next(made) if i in ins else None for i in range(len(primals)))

    function.defvjp(lambda *xs: (function(*xs), xs), backward)
    return function(*arrays)
