"""Which leaves are operands of products and convolutions, read off the traced program.

The program is walked once, from arguments to results. Every value carries the leaves
whose entries it still holds one by one, through casts, transposes, reshapes, slices and
whatever is done entry by entry with values that do not depend on the inputs (a mask, a
norm of the weights). A leaf is an operand if such a value meets a product.
"""

import itertools
import math
import re
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
from jax.extend import core

from jaxprune.base._protocols import Params
from jaxprune.tree._names import named_leaves
from jaxprune.tree._selection import Decided, Selection

_PRODUCTS = frozenset(
    {"dot_general", "conv_general_dilated", "ragged_dot", "ragged_dot_general"}
)
_LAYOUT = re.compile(
    r"""
    transpose | reshape | squeeze | expand_dims | rev | broadcast_in_dim | slice
    | dynamic_slice | gather | concatenate | pad | split | copy | copy_p | device_put
    | sharding_constraint | optimization_barrier | pvary | pcast | reshard
    """,
    re.VERBOSE,
)


class _Value(NamedTuple):
    """What is known of one value of the program.

    Attributes:
      leaves: the leaves whose entries it holds, each with whether a loop runs over its
        first axis.
      data: whether it depends on the inputs.
    """

    leaves: frozenset[tuple[str, bool]] = frozenset()
    data: bool = False


class _Walk(NamedTuple):
    """The operands found so far: leaf name, whether stacked, to the primitive."""

    found: dict[tuple[str, bool], str]


def operands(apply_fn: Callable[..., Any], params: Params, *inputs: Any) -> Selection:
    """Select the leaves that are operands of products, from the traced function.

    A leaf is selected if one of its entries, changed at most entry by entry and by
    values that depend on no input, multiplies in a `dot_general`, a
    `conv_general_dilated` or a ragged product. So biases, scales, positions, class
    tokens and embeddings that are looked up are left out whatever they are called. A
    leaf over whose first axis a `scan` runs is declared as stacked layers.

    Args:
      apply_fn: `(params, *inputs) -> outputs`; traced, not run.
      params: a pytree of arrays, possibly abstract.
      *inputs: further arguments, arrays or `jax.ShapeDtypeStruct`.

    Returns:
      A `Selection` for parameters of these names, for every argument called `where`.

    Raises:
      ValueError: when applied, the parameters have other leaves.

    Examples:
      >>> import jax.numpy as jnp
      >>> params = {"table": jnp.ones((9, 4)), "m": jnp.ones((4, 2))}
      >>> where = operands(lambda p, i: p["table"][i] @ p["m"], params, jnp.arange(3))
      >>> where(params)
      {'m': True, 'table': False}
    """
    closed = jax.make_jaxpr(apply_fn)(params, *inputs)
    names = list(named_leaves(params))
    jaxpr = closed.jaxpr
    values = [_Value(frozenset({(name, False)})) for name in names]
    values += [_Value(data=True)] * (len(jaxpr.invars) - len(names))
    walk = _Walk({})
    _run(walk, jaxpr, values)
    choices, stacked = {}, {}
    for name in names:
        uses = {over: walk.found.get((name, over)) for over in (False, True)}
        use = uses[False] or uses[True]
        choices[name] = (
            use is not None,
            f"operand of `{use}`" if use else "operand of no product",
        )
        stacked[name] = (uses[True] is not None and uses[False] is None, "")
    return Selection(where=Decided(choices=choices), stacked=Decided(choices=stacked))


def _run(walk: _Walk, jaxpr: Any, values: Sequence[_Value]) -> list[_Value]:
    """Return what is known of the results of a jaxpr."""
    known = dict(zip(jaxpr.invars, values, strict=True))

    def read(atom):
        return _Value() if isinstance(atom, core.Literal) else known.get(atom, _Value())

    for equation in jaxpr.eqns:
        ins = [read(atom) for atom in equation.invars]
        known |= zip(equation.outvars, _equation(walk, equation, ins), strict=True)
    return [read(atom) for atom in jaxpr.outvars]


def _open(jaxpr: Any) -> Any:
    return getattr(jaxpr, "jaxpr", jaxpr)


def _equation(walk: _Walk, equation: Any, ins: list[_Value]) -> list[_Value]:
    name = equation.primitive.name
    if name in _PRODUCTS:
        for leaf in itertools.chain(*(value.leaves for value in ins[:2])):
            walk.found.setdefault(leaf, name)
        return [_Value(data=any(v.data for v in ins))] * len(equation.outvars)
    inner = _inner(equation)
    if name == "scan":
        return _scan(walk, equation, inner[0], ins)
    if name == "cond":
        results = [_run(walk, jaxpr, ins[1:]) for jaxpr in inner]
        return [_joined(outs, ins[:1]) for outs in zip(*results, strict=True)]
    if name == "while":
        return _while(walk, equation, ins)
    if len(inner) == 1 and len(inner[0].invars) == len(ins):
        outs = _run(walk, inner[0], ins)
        if len(outs) == len(equation.outvars):
            return outs
    if inner:  # A call of an unknown kind: look for products, follow nothing further.
        for jaxpr in inner:
            _run(walk, jaxpr, [_Value(data=True)] * len(jaxpr.invars))
        return [_Value(data=True)] * len(equation.outvars)
    return _entries(equation, ins)


def _inner(equation: Any) -> list[Any]:
    """Return the jaxprs that an equation calls."""
    if equation.primitive.name == "custom_vjp_call":
        return [_open(equation.params["call_jaxpr"])]
    if equation.primitive.name == "custom_jvp_call":
        return [_open(equation.params["call_jaxpr"])]
    return [_open(jaxpr) for jaxpr in core.jaxprs_in_params(equation.params)]


def _joined(values: Sequence[_Value], others: Sequence[_Value] = ()) -> _Value:
    return _Value(
        frozenset().union(*(value.leaves for value in values)),
        any(value.data for value in [*values, *others]),
    )


def _entries(equation: Any, ins: list[_Value]) -> list[_Value]:
    """Follow entries through what acts on them one by one, or moves them."""
    data = any(value.data for value in ins)
    sizes = [math.prod(getattr(v.aval, "shape", ())) for v in equation.invars]
    outs = []
    for out in equation.outvars:
        size = math.prod(out.aval.shape)
        moves = bool(_LAYOUT.fullmatch(equation.primitive.name))
        leaves = [
            value.leaves
            for value, before in zip(ins, sizes, strict=True)
            # What grows is repeated: a scale, a bias. What shrinks was summed, unless
            # it was cut out.
            if before == size or (moves and not _repeats(equation))
        ]
        outs.append(_Value(frozenset() if data else frozenset().union(*leaves), data))
    return outs


def _repeats(equation: Any) -> bool:
    if equation.primitive.name != "broadcast_in_dim":
        return False
    before = math.prod(equation.invars[0].aval.shape)
    return math.prod(equation.outvars[0].aval.shape) > before


def _scan(walk: _Walk, equation: Any, body: Any, ins: list[_Value]) -> list[_Value]:
    """Run the body of a scan on slices of what it runs over."""
    inside = []
    for value, atom, var in zip(ins, equation.invars, body.invars, strict=True):
        over = len(atom.aval.shape) > len(var.aval.shape)
        leaves = frozenset((leaf, True) for leaf, _ in value.leaves)
        inside.append(_Value(leaves, value.data) if over else value)
    carried = [
        len(outer.aval.shape) == len(inner.aval.shape)
        for outer, inner in zip(equation.outvars, body.outvars, strict=True)
    ]
    over = [
        len(atom.aval.shape) > len(var.aval.shape)
        for atom, var in zip(equation.invars, body.invars, strict=True)
    ]
    carry_end = over.index(True) if any(over) else len(over)
    start = carry_end - sum(carried)
    for _ in range(2):  # What is carried holds what went in and what came out.
        outs = _run(walk, body, inside)
        for i, value in enumerate(outs[: sum(carried)]):
            inside[start + i] = _joined([inside[start + i], value])
    return outs


def _while(walk: _Walk, equation: Any, ins: list[_Value]) -> list[_Value]:
    """Run the body of a while loop; constants of its condition come first."""
    body = _open(equation.params["body_jaxpr"])
    inside = ins[len(ins) - len(body.invars) :]
    consts = inside[: len(body.invars) - len(body.outvars)]
    carry = inside[len(consts) :]
    for _ in range(2):  # As in `_scan`.
        outs = _run(walk, body, [*consts, *carry])
        carry = [_joined([a, b]) for a, b in zip(carry, outs, strict=True)]
    return carry
