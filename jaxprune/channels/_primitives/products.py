"""Convolutions and matrix products, which read channels by multiplying with weights.

A channel that nobody reads is one whose weights are zero, and can go.
"""

from typing import NamedTuple

import jax.numpy as jnp
import numpy as np

from jaxprune.channels._flow import atoms as atoms_lib
from jaxprune.channels._flow import dependence
from jaxprune.channels._flow.atoms import Fixed
from jaxprune.channels._flow.evaluate import Evaluation
from jaxprune.channels._flow.flow import Flow, Site, Source, Value, Work, pin_all
from jaxprune.channels._flow.reasons import Reason
from jaxprune.channels._flow.registry import Primitive, register


def _contract(flow: Flow, lhs: Value, i: int, rhs: Value, j: int) -> None:
    """Join two axes that are multiplied and summed, and notes who reads whom.

    A parameter is a consumer if masking it masks the product: not behind a sigmoid.
    """
    flow.unify(lhs.axes[i], rhs.axes[j])
    guarded = False
    for value, d, other, e in ((lhs, i, rhs, j), (rhs, j, lhs, i)):
        if value.source is not None and d in value.zero_axes:
            _consumes(flow, value.source, d, e in other.zero_axes)
            guarded = True
    if not guarded and not isinstance(lhs.axes[i], Fixed):
        flow.activation_products.append(lhs.axes[i])
        if i not in lhs.zero_axes and j not in rhs.zero_axes:
            flow.unmaskable.append((flow.where, lhs.axes[i]))


def _consumes(flow: Flow, source: Source, d: int, reads_zeros: bool) -> None:
    places = {(source.leaf, axis) for axis in source.axes[d]}
    flow.consumers |= places
    if not reads_zeros:
        flow.nonzero_reads |= places


def read(flow: Flow, value: Value, d: int) -> None:
    """Note that a sum reads an axis, as a product with ones.

    Zero weights of a leaf that is summed itself make its terms zero; an activation may
    be zero with all the weights that make it, or never.
    """
    axis = value.axes[d]
    if value.source is not None and d in value.zero_axes:
        _consumes(flow, value.source, d, reads_zeros=False)
    elif not isinstance(axis, Fixed):
        flow.activation_products.append(axis)
        if d not in value.zero_axes:
            flow.unmaskable.append((flow.where, axis))


def _produces(flow: Flow, value: Value, d: int) -> None:
    if value.source is not None:
        leaf = value.source.leaf
        flow.producers.update((leaf, axis) for axis in value.source.axes[d])


def _arrays(site: Site, values):
    """Axes, sizes and bytes per entry of operands and result."""
    atoms = (*site.equation.invars[:2], site.equation.outvars[0])
    return tuple(
        (value.axes, atom.aval.shape, np.dtype(atom.aval.dtype).itemsize)
        for value, atom in zip(values, atoms, strict=True)
    )


def _record(flow: Flow, site: Site, axes, values) -> None:
    sizes = [size for _, size in axes]
    if not all(isinstance(size, (int, np.integer)) for size in sizes):
        return
    flow.work.append(
        Work(
            name=flow.where,
            macs=flow.trips * int(np.prod(sizes, dtype=object)),
            trips=flow.trips,
            path=tuple(flow.path),
            leaves=frozenset(v.source.leaf for v in values if v.source is not None),
            axes=tuple(axes),
            arrays=_arrays(site, values),
        )
    )


# Matrix products.


def dot_general(flow: Flow, site: Site, lhs: Value, rhs: Value) -> list[Value]:
    """Contracted axes join, batch axes join and pass, free axes pass."""
    contracts, batches = site.params["dimension_numbers"]
    batch = [
        flow.unify(lhs.axes[i], rhs.axes[j]) for i, j in zip(*batches, strict=True)
    ]
    for i, j in zip(*contracts, strict=True):
        _contract(flow, lhs, i, rhs, j)
    for number, value in enumerate((lhs, rhs)):
        if value.source is not None:
            for d in (*contracts[number], *batches[number]):
                flow.stack(value.axes[d])
    shapes = site.shapes()
    free, work = [], []
    zero_axes = {
        n
        for n, (i, j) in enumerate(zip(*batches, strict=True))
        if i in lhs.zero_axes or j in rhs.zero_axes
    }
    for number, value in enumerate((lhs, rhs)):
        bound = (*contracts[number], *batches[number])
        for d, axis in enumerate(value.axes):
            if d not in bound:
                if d in value.zero_axes:
                    zero_axes.add(len(batch) + len(free))
                free.append(axis)
                _produces(flow, value, d)
                work.append((axis, shapes[number][d]))
    work += [(lhs.axes[d], shapes[0][d]) for d in (*contracts[0], *batches[0])]
    out = Value((*batch, *free), None, frozenset(zero_axes))
    _record(flow, site, work, (lhs, rhs, out))
    return [out]


def masked_dot(ev: Evaluation, site: Site, *operands):
    """Both operands are zero where a removed channel would be summed."""
    contracts, _ = site.params["dimension_numbers"]
    operands = list(operands)
    for i, axes in enumerate(contracts):
        for d in axes:
            operands[i] = ev.without(operands[i], site.operand(i).axes[d], d)
    return site.bind(*operands)


@dependence.rule
def _reached(site: Site, operands, values):
    """Entries that something that varies reaches with a weight that is not zero."""
    x, w = operands
    reached = False
    for a, b in (
        (x.varies, w.varies | (w.value != 0)),
        (x.varies | (x.value != 0), w.varies),
    ):
        numbers = [a.astype(jnp.float32), b.astype(jnp.float32)]
        (count,) = site.bind(*numbers, preferred_element_type=np.float32)
        reached |= count > 0
    return [reached]


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


def _weight(operands) -> int | None:
    """Return the number of the operand that is a leaf of several axes, if one is."""
    weights = [
        n
        for n, known in enumerate(operands)
        if known.tag is not None and known.tag.axis is None and np.ndim(known.value) > 1
    ]
    return weights[0] if len(weights) == 1 else None


def _dot_product(site: Site, operands) -> Product | None:
    """Return the product with a matrix over one axis, if it is one."""
    w = _weight(operands)
    if w is None:
        return None
    contracts, batches = site.params["dimension_numbers"]
    if len(contracts[0]) != 1 or batches[0] or np.ndim(operands[w].value) != 2:
        return None
    x = 1 - w
    (axis,), (over,) = contracts[w], contracts[x]
    place = 0 if w == 0 else np.ndim(operands[x].value) - 1
    return Product(operands[w].tag.leaf, axis, 1 - axis, x, over, place, False)


def _convolution_product(site: Site, operands) -> Product | None:
    """Return the convolution with a leaf as kernel, if it is one without groups."""
    params = site.params
    groups = params["feature_group_count"], params["batch_group_count"]
    if groups != (1, 1) or _weight(operands) != 1:
        return None
    numbers = params["dimension_numbers"]
    padded = any(tuple(pad) != (0, 0) for pad in params["padding"])
    padded |= any(d != 1 for d in params["lhs_dilation"])
    (out, axis, *_), over = numbers.rhs_spec, numbers.lhs_spec[1]
    leaf = operands[1].tag.leaf
    return Product(leaf, axis, out, 0, over, numbers.out_spec[1], padded)


def _met(product_of):
    """Return the rule of the walk for a product, which also collects it."""

    def known_of(walk, site: Site, operands):
        product = product_of(site, operands)
        if product is not None:
            walk.meet(site, product)
        return _reached(walk, site, operands)

    return known_of


register(
    "dot_general",
    Primitive(dot_general, masked=masked_dot, varies=_met(_dot_product)),
)


# Products with one matrix for each group of rows (experts).


def ragged_dot(
    flow: Flow, site: Site, lhs: Value, rhs: Value, sizes: Value
) -> list[Value]:
    """Contracted and free axes as in a product; rows and groups of rows stay."""
    numbers = site.params["ragged_dot_dimension_numbers"]
    contracts, batches = numbers.dot_dimension_numbers
    ragged, groups = numbers.lhs_ragged_dimensions, numbers.rhs_group_dimensions
    text = "divides rows among groups along it"
    for value, axes in ((lhs, ragged), (rhs, groups), (sizes, range(len(sizes.axes)))):
        for d in axes:
            flow.pin(value.axes[d], Reason.READ_WHOLE, text)
    if any(d in ragged for d in (*contracts[0], *batches[0])) or batches[0]:
        return pin_all(flow, site, lhs, rhs)
    for i, j in zip(*contracts, strict=True):
        _contract(flow, lhs, i, rhs, j)
    free, work, shapes = [], [], site.shapes()
    for number, (value, bound) in enumerate(
        ((lhs, contracts[0]), (rhs, (*contracts[1], *groups)))
    ):
        for d, axis in enumerate(value.axes):
            if d not in bound:
                free.append(axis)
                _produces(flow, value, d)
                work.append((axis, shapes[number][d]))
    out = Value(tuple(free))
    work += [(lhs.axes[d], shapes[0][d]) for d in contracts[0]]
    _record(flow, site, work, (lhs, rhs, out))
    return [out]


def masked_ragged_dot(ev: Evaluation, site: Site, lhs, rhs, sizes):
    """Both operands are zero where a removed channel would be summed."""
    contracts, _ = site.params["ragged_dot_dimension_numbers"].dot_dimension_numbers
    operands = [lhs, rhs]
    for i, axes in enumerate(contracts):
        for d in axes:
            operands[i] = ev.without(operands[i], site.operand(i).axes[d], d)
    return site.bind(*operands, sizes)


register("ragged_dot_general", Primitive(ragged_dot, masked=masked_ragged_dot))


# Convolutions.


def convolution(flow: Flow, site: Site, lhs: Value, rhs: Value) -> list[Value]:
    """Input channels join the kernel's, the kernel's outputs pass; groups factor.

    With g groups the input channels are (group, input), the output channels (group,
    output): a whole group can go, or the same inputs or outputs of every group.
    """
    params = site.params
    if params["batch_group_count"] != 1:
        return pin_all(flow, site, lhs, rhs)
    numbers = params["dimension_numbers"]
    (b, c, *space), (o, i, *window) = numbers.lhs_spec, numbers.rhs_spec
    for value, axes in ((lhs, space), (rhs, window)):
        for d in axes:
            flow.pin(value.axes[d], Reason.WINDOW, "slides along it")
    if params["feature_group_count"] == 1:
        _contract(flow, lhs, c, rhs, i)
    else:
        _contract_groups(flow, site, lhs, rhs)
    if params["feature_group_count"] == 1 or site.shape(1)[i] > 1:
        _produces(flow, rhs, o)
    fixed = flow.fixed(Reason.RESULT, "a spatial axis of a convolution")
    axes = [fixed] * len(lhs.axes)
    out_b, out_c, *_ = numbers.out_spec
    axes[out_b], axes[out_c] = lhs.axes[b], rhs.axes[o]
    out = Value(tuple(axes), None, frozenset({out_c} if o in rhs.zero_axes else ()))
    work = [(rhs.axes[d], size) for d, size in enumerate(site.shape(1))]
    work += [(fixed, size) for size in _positions(site)]
    _record(flow, site, [*work, (lhs.axes[b], site.shape(0)[b])], (lhs, rhs, out))
    return [out]


def _positions(site: Site) -> list:
    """Return the sizes over which a kernel slides, or a transposed one reads."""
    numbers = site.params["dimension_numbers"]
    if any(dilation != 1 for dilation in site.params["lhs_dilation"]):
        return [site.shape(0)[d] for d in numbers.lhs_spec[2:]]
    return [site.result_shape()[d] for d in numbers.out_spec[2:]]


def _contract_groups(flow: Flow, site: Site, lhs: Value, rhs: Value) -> None:
    numbers, count = (
        site.params["dimension_numbers"],
        site.params["feature_group_count"],
    )
    c, (o, i) = numbers.lhs_spec[1], numbers.rhs_spec[:2]
    inputs, outputs = site.shape(1)[i], site.shape(1)[o] // count
    groups = lhs.axes[c] if inputs == 1 else flow.fresh(count)
    if inputs > 1:
        merged = atoms_lib.product([groups, rhs.axes[i]], [count, inputs])
        flow.unify(lhs.axes[c], merged)
        if rhs.source is not None and i in rhs.zero_axes:
            _consumes(flow, rhs.source, i, c in lhs.zero_axes)
        elif not isinstance(rhs.axes[i], Fixed):
            flow.activation_products.append(rhs.axes[i])
            flow.unmaskable.append((flow.where, rhs.axes[i]))
    per_group = [groups, flow.fresh(outputs)]
    merged = atoms_lib.product(per_group, [count, outputs]) if outputs > 1 else groups
    flow.unify(rhs.axes[o], merged)
    site.frame.notes[site.index] = groups


def small_convolution(ev: Evaluation, site: Site, lhs, rhs):
    """There are fewer groups, where whole groups went."""
    count = site.params["feature_group_count"]
    count = count if site.note is None else ev.size(site.note, count)
    return site.bind(lhs, rhs, feature_group_count=count)


def masked_convolution(ev: Evaluation, site: Site, lhs, rhs):
    """Both operands are zero where a removed channel would be summed."""
    numbers = site.params["dimension_numbers"]
    c, i = numbers.lhs_spec[1], numbers.rhs_spec[1]
    lhs = ev.without(lhs, site.operand(0).axes[c], c)
    rhs = ev.without(rhs, site.operand(1).axes[i], i)
    return site.bind(lhs, rhs)


register(
    "conv_general_dilated",
    Primitive(
        convolution,
        small=small_convolution,
        masked=masked_convolution,
        varies=_met(_convolution_product),
    ),
)
