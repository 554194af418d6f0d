"""Rules of primitives that read along an axis: products, reductions, look-ups.

A convolution or matrix product reads a channel by multiplying it with a weight, so a
channel that nobody reads is one whose weights are zero, and can go. A sum, a maximum, a
sort or a look-up along an axis reads all its channels, so they stay.
"""

import numpy as np

from jaxprune.channels._flow import atoms as atoms_lib
from jaxprune.channels._flow.atoms import Fixed
from jaxprune.channels._flow.flow import (
    Flow,
    Source,
    Value,
    Work,
    pin_all,
    rule,
    shape_of,
)


def _contract(flow: Flow, lhs: Value, i: int, rhs: Value, j: int) -> None:
    """Joins two axes that are multiplied and summed, and notes who reads whom.

    A parameter is a reader if masking it masks the product: not behind a sigmoid.
    """
    flow.unify(lhs.axes[i], rhs.axes[j])
    guarded = False
    for value, d, other, e in ((lhs, i, rhs, j), (rhs, j, lhs, i)):
        if value.source is not None and d in value.silent:
            _reads(flow, value.source, d, e in other.silent)
            guarded = True
    if not guarded and not isinstance(lhs.axes[i], Fixed):
        flow.unguarded.append(lhs.axes[i])
        if i not in lhs.silent and j not in rhs.silent:
            flow.unmaskable[flow.where] = lhs.axes[i]


def _reads(flow: Flow, source: Source, d: int, silent: bool) -> None:
    places = {(source.leaf, axis) for axis in source.axes[d]}
    flow.readers |= places
    if not silent:
        flow.read_loud |= places


def _makes(flow: Flow, value: Value, d: int) -> None:
    if value.source is not None:
        leaf = value.source.leaf
        flow.makers.update((leaf, axis) for axis in value.source.axes[d])


def _arrays(equation, values):
    """Axes, sizes and bytes per entry of operands and result."""
    atoms = (*equation.invars[:2], equation.outvars[0])
    return tuple(
        (value.axes, shape_of(atom), np.dtype(atom.aval.dtype).itemsize)
        for value, atom in zip(values, atoms, strict=True)
    )


def _record(flow: Flow, equation, axes, values) -> None:
    sizes = [size for _, size in axes]
    if not all(isinstance(size, (int, np.integer)) for size in sizes):
        return
    flow.work.append(
        Work(
            name=flow.where,
            macs=flow.trips * int(np.prod(sizes, dtype=object)),
            trips=flow.trips,
            leaves=frozenset(v.source.leaf for v in values if v.source is not None),
            axes=tuple(axes),
            arrays=_arrays(equation, values),
        )
    )


@rule("dot_general")
def dot_general(flow: Flow, equation, lhs: Value, rhs: Value) -> list[Value]:
    """Contracted axes join, batch axes join and pass, free axes pass."""
    contracts, batches = equation.params["dimension_numbers"]
    batch = [
        flow.unify(lhs.axes[i], rhs.axes[j]) for i, j in zip(*batches, strict=True)
    ]
    for i, j in zip(*contracts, strict=True):
        _contract(flow, lhs, i, rhs, j)
    shapes = [shape_of(atom) for atom in equation.invars]
    free, work = [], []
    silent = {
        n
        for n, (i, j) in enumerate(zip(*batches, strict=True))
        if i in lhs.silent or j in rhs.silent
    }
    for value, bound, shape in zip(
        (lhs, rhs), zip(contracts, batches, strict=True), shapes, strict=True
    ):
        for d, axis in enumerate(value.axes):
            if d not in bound[0] and d not in bound[1]:
                if d in value.silent:
                    silent.add(len(batch) + len(free))
                free.append(axis)
                _makes(flow, value, d)
                work.append((axis, shape[d]))
    work += [(lhs.axes[d], shapes[0][d]) for d in (*contracts[0], *batches[0])]
    out = Value((*batch, *free), None, frozenset(silent))
    _record(flow, equation, work, (lhs, rhs, out))
    return [out]


@rule("conv_general_dilated")
def conv_general_dilated(flow: Flow, equation, lhs: Value, rhs: Value) -> list[Value]:
    """Input channels join the kernel's, the kernel's outputs pass; groups factor.

    With g groups the input channels are (group, input), the output channels (group,
    output): a whole group can go, or the same inputs or outputs of every group.
    """
    params = equation.params
    if params["batch_group_count"] != 1:
        return pin_all(flow, equation, lhs, rhs)
    numbers = params["dimension_numbers"]
    (b, c, *space), (o, i, *window) = numbers.lhs_spec, numbers.rhs_spec
    for value, axes in ((lhs, space), (rhs, window)):
        for d in axes:
            flow.pin(value.axes[d], "slides along it")
    shapes = [shape_of(atom) for atom in equation.invars]
    if params["feature_group_count"] == 1:
        _contract(flow, lhs, c, rhs, i)
    else:
        _groups(flow, equation, lhs, c, rhs, i, o)
    if params["feature_group_count"] == 1 or shapes[1][i] > 1:
        _makes(flow, rhs, o)
    fixed = flow.atoms.fixed("a spatial axis of a convolution")
    axes = [fixed] * len(lhs.axes)
    out_b, out_c, *out_space = numbers.out_spec
    axes[out_b], axes[out_c] = lhs.axes[b], rhs.axes[o]
    silent = frozenset({out_c} if o in rhs.silent else ())
    out = Value(tuple(axes), None, silent)
    transposed = any(dilation != 1 for dilation in params["lhs_dilation"])
    sizes = shapes[0] if transposed else equation.outvars[0].aval.shape
    places = [sizes[d] for d in (space if transposed else out_space)]
    work = [(rhs.axes[d], shapes[1][d]) for d in range(len(rhs.axes))]
    work += [(fixed, size) for size in places] + [(lhs.axes[b], shapes[0][b])]
    _record(flow, equation, work, (lhs, rhs, out))
    return [out]


def _groups(flow, equation, lhs, c, rhs, i, o):
    count = equation.params["feature_group_count"]
    inputs = shape_of(equation.invars[1])[i]
    outputs = shape_of(equation.invars[1])[o] // count
    groups = lhs.axes[c] if inputs == 1 else flow.fresh(count)
    if inputs > 1:
        merged = atoms_lib.product([groups, rhs.axes[i]], [count, inputs])
        flow.unify(lhs.axes[c], merged)
        if rhs.source is not None and i in rhs.silent:
            _reads(flow, rhs.source, i, c in lhs.silent)
        elif not isinstance(rhs.axes[i], Fixed):
            flow.unguarded.append(rhs.axes[i])
            flow.unmaskable[flow.where] = rhs.axes[i]
    per_group = [groups, flow.fresh(outputs)]
    merged = atoms_lib.product(per_group, [count, outputs]) if outputs > 1 else groups
    flow.unify(rhs.axes[o], merged)
    flow.frame.notes[flow.index] = groups


@rule(
    "reduce_sum",
    "reduce_max",
    "reduce_min",
    "reduce_prod",
    "reduce_and",
    "reduce_or",
    "reduce_xor",
    "argmax",
    "argmin",
)
def reduce(flow: Flow, equation, value: Value) -> list[Value]:
    """A reduced axis is read whole, so it stays; the others pass."""
    gone = equation.params["axes"]
    for d in gone:
        flow.pin(value.axes[d], "reads all of it")
    left = [d for d in range(len(value.axes)) if d not in gone]
    silent = frozenset(n for n, d in enumerate(left) if d in value.silent)
    if equation.primitive.name not in ("reduce_sum", "reduce_max", "reduce_min"):
        silent = frozenset()
    return [Value(tuple(value.axes[d] for d in left), None, silent)]


def _pass_but(flow: Flow, equation, values, stay, why: str) -> list[Value]:
    """Joins all operands axis by axis, and pins the axes numbered `stay`."""
    axes = list(values[0].axes)
    for value in values[1:]:
        axes = [flow.unify(x, y) for x, y in zip(axes, value.axes, strict=True)]
    for d in stay:
        flow.pin(axes[d], why)
    return [Value(tuple(axes)) for _ in equation.outvars]


@rule("cumsum", "cumprod", "cummax", "cummin", "cumlogsumexp")
def cumulative(flow: Flow, equation, value: Value) -> list[Value]:
    """Every index reads those before it, so the axis stays."""
    d = equation.params["axis"]
    return _pass_but(flow, equation, [value], [d], "reads all of it")


@rule("sort")
def sort(flow: Flow, equation, *values: Value) -> list[Value]:
    """The sorted axis stays; all operands move together."""
    d = equation.params["dimension"]
    return _pass_but(flow, equation, values, [d], "sorts along it")


@rule("top_k", "approx_top_k")
def top_k(flow: Flow, equation, value: Value) -> list[Value]:
    """The axis that is searched stays, and the result's axis with it."""
    d = equation.params.get("axis", equation.params.get("reduction_dimension", -1))
    d = d % len(value.axes)
    flow.pin(value.axes[d], "sorts along it")
    axes = list(value.axes)
    axes[d] = flow.atoms.fixed(f"the result of {flow.where}")
    return [Value(tuple(axes)) for _ in equation.outvars]


@rule("reduce_window_max", "reduce_window_sum", "reduce_window_min")
def reduce_window(flow: Flow, equation, value: Value) -> list[Value]:
    """Axes with a window of one pass; the others are read along."""
    params = equation.params
    size = len(value.axes)
    axes = list(value.axes)
    for d in range(size):
        plain = params["window_dimensions"][d] == params["window_strides"][d] == 1
        plain &= tuple(params["padding"][d]) == (0, 0)
        plain &= (params.get("base_dilation") or (1,) * size)[d] == 1
        if not plain:
            flow.pin(axes[d], "slides along it")
            axes[d] = flow.atoms.fixed("an axis under a sliding window")
    return [Value(tuple(axes))]
