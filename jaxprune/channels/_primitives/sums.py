"""Sums over channels, and the means that norms make of them.

A sum is a product with ones. By default it pins what it sums over; where the caller
allows it, a removed channel contributes zero, as to any product. What divides the sum
is then a constant of the program, the number of channels of the dense network, unless
norms are to be renormalised: then a sum that is divided by the number of its terms is
divided by the number of those that are left.
"""

import functools
from collections.abc import Iterator
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.extend import core as jex

from jaxprune.channels._flow.evaluate import Evaluation
from jaxprune.channels._flow.flow import (
    PINNED,
    RENORMALISE,
    Flow,
    Frame,
    Site,
    Total,
    Value,
)
from jaxprune.channels._flow.registry import Primitive, register
from jaxprune.channels._primitives import elementwise, products, reductions


class Mean(NamedTuple):
    """A sum that is divided by the number of its terms, less a correction.

    Attributes:
      operand: which operand of the equation is the constant.
      power: 1 if it is the divisor, -1 if it is a factor, the reciprocal.
      total: what was summed over.
      correction: 0, or 1 for the variance of a sample.
    """

    operand: int
    power: int
    total: Total
    correction: int


def reduce_sum(flow: Flow, site: Site, value: Value) -> list[Value]:
    """Read channels, as a product with ones does, if they may be summed."""
    if flow.norms == PINNED:
        return reductions.reduce_zeros(flow, site, value)
    gone = site.params["axes"]
    for d in gone:
        products.read(flow, value, d)
    left = [d for d in range(len(value.axes)) if d not in gone]
    zero_axes = frozenset(n for n, d in enumerate(left) if d in value.zero_axes)
    total = tuple((value.axes[d], site.shape()[d]) for d in gone)
    axes = tuple(value.axes[d] for d in left)
    return [Value(axes, None, zero_axes, total=total)]


def masked_sum(ev: Evaluation, site: Site, array):
    """Return a sum in which removed channels are zero."""
    for d in site.params["axes"]:
        array = ev.without(array, site.operand(0).axes[d], d)
    return site.bind(array)


register(
    "reduce_sum",
    Primitive(reduce_sum, masked=masked_sum, varies=reductions.any_reduced),
)


def _scaled(flow: Flow, site: Site, *values: Value, power: int, zero) -> list[Value]:
    """Join the axes; note where a sum is divided by the number of its terms."""
    outs = elementwise.elementwise(flow, site, *values, zero=zero)
    mean = _mean(site, values, power)
    if mean is not None:
        site.frame.notes[site.index] = mean
    if mean is not None and flow.norms == RENORMALISE:
        flow.renormalised += [(flow.where, axis) for axis, _ in mean.total]
    return outs


def _mean(site: Site, values, power: int) -> Mean | None:
    """Return the mean that an equation makes of a sum, if it makes one."""
    for number in (1,) if power == 1 else (0, 1):
        total = values[1 - number].total
        if not all(isinstance(size, (int, np.integer)) for _, size in total or ()):
            continue
        amount = _number(site, number, values) if total else None
        if total is None or amount is None or not amount > 0:
            continue
        divisor = amount**power
        terms = int(np.prod([size for _, size in total], dtype=object))
        dtype = site.equation.outvars[0].aval.dtype
        for correction in (0, 1):
            far = abs(divisor - (terms - correction))
            if terms > correction and far <= 2 * float(jnp.finfo(dtype).eps) * terms:
                return Mean(number, power, total, correction)
    return None


def _number(site: Site, operand: int, values) -> float | None:
    """Return the one number that a constant operand holds, None if it is none."""
    atom = site.equation.invars[operand]
    dtype = site.equation.outvars[0].aval.dtype
    if not jnp.issubdtype(dtype, jnp.floating):
        return None
    if isinstance(atom, jex.Literal):
        array = atom.val
    elif values[operand].constant is not None:
        array = values[operand].constant.value()
    else:
        return None
    if array is None or np.size(array) == 0:
        return None
    flat = np.asarray(array).astype(np.float64).ravel()
    return float(flat[0]) if (flat == flat[0]).all() else None


def share(ev: Evaluation, mean: Mean) -> float:
    """Return what is left of the divisor of a mean, as a fraction of the dense one."""
    sizes = [size for _, size in mean.total]
    kept = [ev.kept(axis) for axis, _ in mean.total]
    left = [n if k is None else len(k) for n, k in zip(sizes, kept, strict=True)]
    terms, rest = (int(np.prod(count, dtype=object)) for count in (sizes, left))
    return (rest - mean.correction) / (terms - mean.correction)


def run_scaled(ev: Evaluation, site: Site, *arrays):
    """Divide a sum by the number of the terms that are left, if norms are to."""
    mean = site.note
    if mean is not None and ev.program.flow.norms == RENORMALISE:
        ratio = share(ev, mean)
        if ratio != 1:
            operand = arrays[mean.operand]
            factor = ratio if mean.power == 1 else np.divide(1, ratio)
            # A number in double precision: half of 768 is 384 exactly.
            wide = operand if isinstance(operand, jax.Array) else np.float64(operand)
            scaled = jnp.asarray(wide * factor, jnp.asarray(operand).dtype)
            arrays = [*arrays[: mean.operand], scaled, *arrays[mean.operand + 1 :]]
    return site.bind(*arrays)


for _name, _power, _zero, _varies in (
    ("div", 1, elementwise.as_first, elementwise.any_operand),
    ("mul", -1, elementwise.if_any, elementwise.of_product),
):
    register(
        _name,
        Primitive(
            functools.partial(_scaled, power=_power, zero=_zero),
            small=run_scaled,
            masked=run_scaled,
            varies=_varies,
        ),
    )


def means(frame: Frame) -> Iterator[tuple[Site, Mean]]:
    """Yield the means that a frame takes, those of jaxprs that it calls included."""
    for index, note in frame.notes.items():
        if isinstance(note, Mean):
            yield Site(frame, index), note
    for children in frame.children.values():
        for child in children:
            yield from means(child)
