"""Constants that products read, found by walking through a program with values.

`dependence` says of every entry of every array whether it depends on the inputs; here
the products with a parameter are collected, with what they read and the vector that is
added to their result: `Site`.
"""

from collections.abc import Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.extend import core as jex

from jaxprune.channels._dependence import (
    SUMS,
    VIEWS,
    Known,
    Tag,
    bind,
    fixed,
    varies_of,
)
from jaxprune.channels._primitives.elementwise import words

_CALLS = words(
    "jit pjit closed_call core_call custom_jvp_call custom_vjp_call remat2 remat "
    "checkpoint"
)


class Product(NamedTuple):
    """A product of an activation with a leaf, contracted over one axis of each.

    Attributes:
      leaf: the number of the leaf, the weight.
      axis: the axis of the weight that is contracted over.
      out: the axis of the weight that the result keeps.
      operand: which operand the activation is.
      over: the axis of the activation that is contracted over.
      place: the axis of the result on which `out` lies.
      padded: whether zeros are read beside the activation.
    """

    leaf: int
    axis: int
    out: int
    operand: int
    over: int
    place: int
    padded: bool


class Site(NamedTuple):
    """A product, with what is known of the channels that it reads.

    Attributes:
      product: the product.
      bias: the number of the vector that is added to the result, first of all and as
        the only thing that becomes of it, and its sign there; None if there is none.
      value: for every index of the axis what the product reads there.
      zero: whether that is zero for every input, everywhere.
      constant: whether it is the same for every input, and everywhere, without padding.
    """

    product: Product
    bias: tuple[int, int] | None
    value: Any
    zero: Any
    constant: Any


class Walk:
    """One walk through a program.

    Attributes:
      sites: products with a leaf.
      uses: how often each leaf is read, views of it aside.
    """

    def __init__(self):
        self.sites: list[Site] = []
        self.uses: dict[int, int] = {}

    def run(self, jaxpr, consts: Sequence[Known], args: Sequence[Known]):
        """Walks through an open jaxpr; returns what is known of its results."""
        known: dict[Any, Known] = {}
        known.update(zip(jaxpr.constvars, consts, strict=True))
        known.update(zip(jaxpr.invars, args, strict=True))

        def read(atom) -> Known:
            return fixed(atom.val) if isinstance(atom, jex.Literal) else known[atom]

        met: list[tuple[Any, Product]] = []
        for equation in jaxpr.eqns:
            operands = [read(atom) for atom in equation.invars]
            outs = self._step(equation, operands)
            known.update(zip(equation.outvars, outs, strict=True))
            product = _product(equation, operands)
            if product is not None:
                met.append((equation, product))
        for equation, product in met:
            bias = _bias(jaxpr, equation.outvars[0], product.place, read)
            read_from = read(equation.invars[product.operand])
            self.sites.append(_site(product, bias, read_from))
        return [read(out) for out in jaxpr.outvars]

    def use(self, known: Known) -> None:
        """Counts one reading of the leaf that an array is."""
        if known.tag is not None:
            leaf = known.tag.leaf
            self.uses[leaf] = self.uses.get(leaf, 0) + 1

    def _step(self, equation, operands: Sequence[Known]) -> list[Known]:
        name = equation.primitive.name
        if name in _CALLS:
            params = equation.params
            inner = params["call_jaxpr"] if "call_jaxpr" in params else params["jaxpr"]
            closed = hasattr(inner, "consts")
            consts = [fixed(c) for c in inner.consts] if closed else []
            return self.run(inner.jaxpr if closed else inner, consts, operands)
        values = bind(equation, [k.value for k in operands])
        varies = varies_of(equation, operands, values)
        if name in VIEWS:
            return [Known(values[0], varies[0], _view(equation, operands[0].tag))]
        for one in operands:
            self.use(one)
        return [Known(v, w) for v, w in zip(values, varies, strict=True)]


def walk(program: Any, leaves: Sequence[Any], inputs: Sequence[Any]) -> Walk:
    """Walks through a program with these parameters; compiled, and run once.

    Args:
      program: a `Program` whose first arguments are the leaves.
      leaves: the parameters.
      inputs: any inputs; what the sites say does not depend on them.
    """
    kept: list[Walk] = []

    def run(leaves, inputs):
        made = Walk()
        args = [
            fixed(x)._replace(tag=Tag(i, 0 if jnp.ndim(x) == 1 else None))
            for i, x in enumerate(leaves)
        ]
        args += [Known(x, jnp.ones(jnp.shape(x), bool)) for x in inputs]
        consts = [fixed(c) for c in program.consts]
        for out in made.run(program.frame.jaxpr, consts, args):
            made.use(out)
        kept.append(made)
        return [(site.value, site.zero, site.constant) for site in made.sites]

    found = jax.device_get(jax.jit(run)(leaves, inputs))
    (made,) = kept
    made.sites = [
        site._replace(value=value, zero=zero, constant=constant)
        for site, (value, zero, constant) in zip(made.sites, found, strict=True)
    ]
    return made


def _view(equation, tag: Tag | None) -> Tag | None:
    """The tag of a view: of a vector the axis is followed, other shapes must stay."""
    before = equation.invars[0].aval.shape
    after = equation.outvars[0].aval.shape
    if tag is None or tag.axis is None:
        return tag if before == after else None
    if equation.primitive.name == "broadcast_in_dim":
        axis = equation.params["broadcast_dimensions"][tag.axis]
        return Tag(tag.leaf, axis)
    long = [d for d, size in enumerate(after) if size > 1]
    return Tag(tag.leaf, long[0]) if len(long) == 1 else None


def _product(equation, operands) -> Product | None:
    """The product of an activation with a whole leaf over one axis, if it is one."""
    params, name = equation.params, equation.primitive.name
    weights = [
        n
        for n, k in enumerate(operands)
        if k.tag is not None and k.tag.axis is None and np.ndim(k.value) > 1
    ]
    if name not in SUMS or len(weights) != 1:
        return None
    (w,) = weights
    leaf, x = operands[w].tag.leaf, 1 - w
    if name == "dot_general":
        contracts, batches = params["dimension_numbers"]
        if len(contracts[0]) != 1 or batches[0] or np.ndim(operands[w].value) != 2:
            return None
        (axis,), (over,) = contracts[w], contracts[x]
        place = 0 if w == 0 else np.ndim(operands[x].value) - 1
        return Product(leaf, axis, 1 - axis, x, over, place, False)
    groups = params["feature_group_count"], params["batch_group_count"]
    if groups != (1, 1) or w != 1:
        return None
    numbers = params["dimension_numbers"]
    padded = any(tuple(pad) != (0, 0) for pad in params["padding"])
    padded |= any(d != 1 for d in params["lhs_dilation"])
    (out, axis, *_), over = numbers.rhs_spec, numbers.lhs_spec[1]
    return Product(leaf, axis, out, 0, over, numbers.out_spec[1], padded)


def _bias(jaxpr, result, place: int, read) -> tuple[int, int] | None:
    """The vector that is added to, or taken from, a result that nothing else reads."""
    readers = [e for e in jaxpr.eqns for atom in e.invars if atom is result]
    if len(readers) != 1 or any(out is result for out in jaxpr.outvars):
        return None
    (equation,) = readers
    sign = {"add": 1, "add_any": 1, "sub": -1}.get(equation.primitive.name)
    if sign is None or (sign == -1 and equation.invars[0] is not result):
        return None
    (other,) = (atom for atom in equation.invars if atom is not result)
    tag = read(other).tag
    return (tag.leaf, sign) if tag is not None and tag.axis == place else None


def _site(product: Product, bias, known: Known) -> Site:
    value, varies = (
        jnp.moveaxis(a, product.over, -1) for a in (known.value, known.varies)
    )
    others = tuple(range(value.ndim - 1))
    first = value[(0,) * (value.ndim - 1)]
    still = ~varies.any(axis=others)
    everywhere = jnp.broadcast_to(first, value.shape)
    same = (value == everywhere).all(axis=others) & jnp.isfinite(first)
    zero = still & (value == 0).all(axis=others)
    constant = still & same & (not product.padded)
    return Site(product, bias, first, zero, constant)
