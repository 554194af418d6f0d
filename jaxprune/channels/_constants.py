"""Constants that products read, found by walking through a program with values.

`_flow.dependence` says of every entry of every array whether it depends on the inputs;
here the products with a parameter are collected, with what they read and the vector
that is added to their result: `Read`.
"""

from collections.abc import Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax.extend import core as jex

from jaxprune.channels._flow import dependence
from jaxprune.channels._flow.dependence import Known, Tag, fixed
from jaxprune.channels._flow.flow import Frame, Site
from jaxprune.channels._flow.registry import PRIMITIVES
from jaxprune.channels._primitives.products import Product


class Read(NamedTuple):
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
      reads: products with a leaf.
      uses: how often each leaf is read, views of it aside.
    """

    def __init__(self):
        self.reads: list[Read] = []
        self.uses: dict[int, int] = {}
        self._met: list[tuple[Any, Product]] = []

    def run(self, frame: Frame, args: Sequence[Known]) -> list[Known]:
        """Walk through the jaxpr of a frame; returns what is known of its results."""
        jaxpr = frame.jaxpr
        variables = (*jaxpr.constvars, *jaxpr.invars)
        held = [fixed(const) for const in frame.consts]
        known: dict[Any, Known] = dict(zip(variables, (*held, *args), strict=True))

        def read(atom) -> Known:
            return fixed(atom.val) if isinstance(atom, jex.Literal) else known[atom]

        outer, self._met = self._met, []
        for index, equation in enumerate(jaxpr.eqns):
            operands = [read(atom) for atom in equation.invars]
            outs = self._step(Site(frame, index), operands)
            known.update(zip(equation.outvars, outs, strict=True))
        met, self._met = self._met, outer
        for equation, product in met:
            bias = _bias(jaxpr, equation.outvars[0], product.place, read)
            source = read(equation.invars[product.operand])
            self.reads.append(_read(product, bias, source))
        return [read(out) for out in jaxpr.outvars]

    def use(self, *operands: Known) -> None:
        """Count one reading of the leaves that arrays are."""
        for known in operands:
            if known.tag is not None:
                leaf = known.tag.leaf
                self.uses[leaf] = self.uses.get(leaf, 0) + 1

    def meet(self, site: Site, product: Product) -> None:
        """Collect a product with a leaf."""
        self._met.append((site.equation, product))

    def _step(self, site: Site, operands: Sequence[Known]) -> Sequence[Known]:
        rule = None
        if site.index not in site.frame.opaque:
            rule = PRIMITIVES[site.name].varies
        return (rule or dependence.as_a_whole)(self, site, operands)


def walk(program: Any, leaves: Sequence[Any], inputs: Sequence[Any]) -> Walk:
    """Walk through a program with these parameters; compiled, and run once.

    Args:
      program: a `Program` whose first arguments are the leaves.
      leaves: the parameters.
      inputs: any inputs; what the walk finds does not depend on them.
    """
    kept: list[Walk] = []

    def run(leaves, inputs):
        made = Walk()
        args = [
            fixed(x)._replace(tag=Tag(i, 0 if jnp.ndim(x) == 1 else None))
            for i, x in enumerate(leaves)
        ]
        args += [Known(x, jnp.ones(jnp.shape(x), bool)) for x in inputs]
        made.use(*made.run(program.frame, args))
        kept.append(made)
        return [(read.value, read.zero, read.constant) for read in made.reads]

    found = jax.device_get(jax.jit(run)(leaves, inputs))
    (made,) = kept
    made.reads = [
        read._replace(value=value, zero=zero, constant=constant)
        for read, (value, zero, constant) in zip(made.reads, found, strict=True)
    ]
    return made


def _bias(jaxpr, result, place: int, read) -> tuple[int, int] | None:
    """Return the vector added to, or taken from, a result that nothing else reads."""
    consumers = [e for e in jaxpr.eqns for atom in e.invars if atom is result]
    if len(consumers) != 1 or any(out is result for out in jaxpr.outvars):
        return None
    (equation,) = consumers
    sign = {"add": 1, "add_any": 1, "sub": -1}.get(equation.primitive.name)
    if sign is None or (sign == -1 and equation.invars[0] is not result):
        return None
    (other,) = (atom for atom in equation.invars if atom is not result)
    tag = read(other).tag
    return (tag.leaf, sign) if tag is not None and tag.axis == place else None


def _read(product: Product, bias, known: Known) -> Read:
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
    return Read(product, bias, first, zero, constant)
