"""Primitives that move, join, cut and repeat axes."""

import numpy as np
from jax.extend import core as jex

from jaxprune.channels._flow import atoms as atoms_lib
from jaxprune.channels._flow import dependence
from jaxprune.channels._flow.atoms import Axis, Fixed
from jaxprune.channels._flow.evaluate import Evaluation, take
from jaxprune.channels._flow.flow import Flow, Site, Source, Value, pin_all
from jaxprune.channels._flow.reasons import Reason
from jaxprune.channels._flow.registry import Primitive, register

_NO_AXES: frozenset[int] = frozenset()


def _view(value: Value, axes) -> Source | None:
    """Return the source of a view: its axes as numbers of those of `value`, or None."""
    if value.source is None:
        return None
    own = value.source.axes
    return Source(
        value.source.leaf, tuple(_NO_AXES if d is None else own[d] for d in axes)
    )


def _moved(value: Value, axes) -> frozenset[int]:
    """Return the zero axes of a view whose axes are numbered axes of `value`."""
    return frozenset(d for d, own in enumerate(axes) if own in value.zero_axes)


def _known(sizes) -> bool:
    """Whether no size is symbolic."""
    return all(isinstance(size, (int, np.integer)) for size in sizes)


def _new_shape(ev: Evaluation, site: Site, i: int = 0):
    return ev.shape(site.result(i), site.result_shape(i))


# Permuted axes.


def transpose(flow: Flow, site: Site, value: Value) -> list[Value]:
    """Permutes the axes."""
    order = site.params["permutation"]
    axes = tuple(value.axes[d] for d in order)
    return [Value(axes, _view(value, order), _moved(value, order))]


register("transpose", Primitive(transpose, varies=dependence.moved, moves=True))


def rev(flow: Flow, site: Site, value: Value) -> list[Value]:
    """Reverses the rows of axes."""
    flipped = site.params["dimensions"]
    axes = tuple(
        axis[::-1] if d in flipped and not isinstance(axis, Fixed) else axis
        for d, axis in enumerate(value.axes)
    )
    return [Value(axes, value.source, value.zero_axes)]


register("rev", Primitive(rev, varies=dependence.moved, moves=True))


# Axes of size 1, and new ones.


def squeeze(flow: Flow, site: Site, value: Value) -> list[Value]:
    """Drop axes of size 1: their only index has to stay."""
    gone = site.params["dimensions"]
    for d in gone:
        _pin_only(flow, value.axes[d])
    kept = [d for d in range(len(value.axes)) if d not in gone]
    axes = tuple(value.axes[d] for d in kept)
    return [Value(axes, _view(value, kept), _moved(value, kept), total=value.total)]


def _pin_only(flow: Flow, axis: Axis) -> None:
    flow.pin(axis, Reason.RESULT, "drops the axis, so its only index stays")


register("squeeze", Primitive(squeeze, varies=dependence.view, moves=True))


def broadcast_in_dim(flow: Flow, site: Site, value: Value, *_sizes) -> list[Value]:
    """Leave new and repeated axes free: they join whatever they meet."""
    places = site.params["broadcast_dimensions"]
    shape, own = site.params["shape"], site.shape()
    axes, repeated = [flow.fresh(size) for size in shape], set(range(len(shape)))
    for d, place in enumerate(places):
        if own[d] == shape[place]:
            axes[place] = value.axes[d]
            repeated.remove(place)
        else:
            flow.pin(value.axes[d], Reason.RESULT, "repeats it")
    origin = [places.index(d) if d in places else None for d in range(len(shape))]
    zero_axes = _moved(value, origin)
    return [
        Value(
            tuple(axes),
            _view(value, origin),
            zero_axes,
            repeated=frozenset(repeated),
            total=value.total,
        )
    ]


def with_shape(ev: Evaluation, site: Site, *arrays):
    """Return the shape of the result is a parameter."""
    return site.bind(*arrays, shape=_new_shape(ev, site))


register(
    "broadcast_in_dim",
    Primitive(broadcast_in_dim, small=with_shape, varies=dependence.view, moves=True),
)


def born(flow: Flow, site: Site, *values: Value) -> list[Value]:
    """Random numbers are free; the indices removed are cut from them."""
    for value in values:
        for axis in value.axes:
            flow.pin(axis, Reason.READ_WHOLE, "reads it as a key")
    results = range(len(site.equation.outvars))
    return [flow.fresh_value(site.result_shape(i)) for i in results]


def cut_after(ev: Evaluation, site: Site, *arrays):
    """All numbers are drawn, so that what stays has the numbers it had, then cut."""
    return [ev.cut(out, site.result(i)) for i, out in enumerate(site.bind(*arrays))]


register("iota empty random_bits", Primitive(born, small=cut_after))


# Joined axes.


def _join_others(flow: Flow, values, skipped: int | None = None) -> list[Axis]:
    """Join all operands axis by axis, one axis left out."""
    axes = list(values[0].axes)
    for value in values[1:]:
        for d, axis in enumerate(value.axes):
            axes[d] = axes[d] if d == skipped else flow.unify(axes[d], axis)
    return axes


def concatenate(flow: Flow, site: Site, *values: Value) -> list[Value]:
    """Put the rows of one axis end to end, joins the others.

    A single index can be left out here, though it cannot be removed where it is made.
    """
    d = site.params["dimension"]
    sizes = [shape[d] for shape in site.shapes()]
    axes = _join_others(flow, values, d)
    if _known(sizes):
        parts = [value.axes[d] for value in values]
        for i, size in enumerate(sizes):
            if size == 1 and isinstance(parts[i], Fixed):
                parts[i] = flow.atoms.fresh(1)
        axes[d] = atoms_lib.concatenate(parts, sizes)
    else:
        for value in values:
            text = "joins it to an axis of symbolic size"
            flow.pin(value.axes[d], Reason.SYMBOLIC, text)
        axes[d] = flow.fixed(Reason.SYMBOLIC, "an axis of symbolic size")
    zero_axes = frozenset.intersection(*(value.zero_axes for value in values))
    return [Value(tuple(axes), None, zero_axes)]


def run_concatenate(ev: Evaluation, site: Site, *arrays):
    """Operands of size 1 that were made whole are left out here."""
    d, start, parts = site.params["dimension"], 0, []
    kept = ev.kept(site.result().axes[d])
    for i, array in enumerate(arrays):
        size = site.shape(i)[d]
        whole = array.shape[d] == 1 and ev.kept(site.operand(i).axes[d]) is None
        if kept is None or size != 1 or not whole or start in kept:
            parts.append(array)
        start += size
    return site.bind(*parts) if len(parts) > 1 else parts


register(
    "concatenate",
    Primitive(concatenate, small=run_concatenate, varies=dependence.moved, moves=True),
)


def stack(flow: Flow, site: Site, *values: Value) -> list[Value]:
    """Join all operands axis by axis; the new axis stays."""
    d = site.params["axis"]
    axes = _join_others(flow, values)
    axes.insert(d, flow.fixed(Reason.RESULT, "an axis along which arrays are stacked"))
    zero_axes = frozenset.intersection(*(value.zero_axes for value in values))
    return [Value(tuple(axes), None, frozenset(e + (e >= d) for e in zero_axes))]


register("stack", Primitive(stack, varies=dependence.moved, moves=True))


def unstack(flow: Flow, site: Site, value: Value) -> list[Value]:
    """Return the axis that is taken apart stays; the others pass."""
    d = site.params["axis"]
    flow.pin(value.axes[d], Reason.RESULT, "takes it apart")
    kept = [e for e in range(len(value.axes)) if e != d]
    axes = tuple(value.axes[e] for e in kept)
    part = Value(axes, _view(value, kept), _moved(value, kept))
    return [part for _ in site.equation.outvars]


register("unstack", Primitive(unstack, varies=dependence.moved, moves=True))


# Cut axes.


def split(flow: Flow, site: Site, value: Value) -> list[Value]:
    """Cuts the rows of one axis."""
    d, outs, start = site.params["axis"], [], 0
    for size in site.params["sizes"]:
        axis = value.axes[d]
        if not isinstance(axis, Fixed):
            axis = axis[start : start + size]
        axes = (*value.axes[:d], axis, *value.axes[d + 1 :])
        outs.append(Value(axes, value.source, value.zero_axes))
        start += size
    return outs


def run_split(ev: Evaluation, site: Site, array):
    """Every part keeps what is left of it."""
    d = site.params["axis"]
    sizes = tuple(_new_shape(ev, site, i)[d] for i in range(len(site.params["sizes"])))
    return site.bind(array, sizes=sizes)


register(
    "split", Primitive(split, small=run_split, varies=dependence.moved, moves=True)
)


def slice_(flow: Flow, site: Site, value: Value) -> list[Value]:
    """Take rows of every axis."""
    axes = tuple(
        axis if isinstance(axis, Fixed) else axis[slice(*bounds)]
        for axis, bounds in zip(value.axes, _bounds(site.params), strict=True)
    )
    return [Value(axes, value.source, value.zero_axes)]


def _bounds(params) -> list[tuple]:
    """Start, limit and stride of a slice, for every axis."""
    starts, limits = params["start_indices"], params["limit_indices"]
    strides = params["strides"] or (1,) * len(starts)
    return list(zip(starts, limits, strides, strict=True))


def run_slice(ev: Evaluation, site: Site, array):
    """Return what stays of the slice is found among what stays of the operand."""
    kept: list[np.ndarray | None] = []
    bounds = _bounds(site.params)
    for d, (axis, (start, limit, stride)) in enumerate(
        zip(site.operand(0).axes, bounds, strict=True)
    ):
        indices = ev.kept(axis)
        if indices is None:
            kept.append(None)
            continue
        inside = (indices >= start) & (indices < limit)
        kept.append(np.flatnonzero(inside & ((indices - start) % stride == 0)))
        bounds[d] = 0, len(indices), 1
    starts, limits, strides = zip(*bounds, strict=True) if bounds else ((), (), ())
    if array.shape != limits or any(starts) or set(strides) - {1}:
        (array,) = site.bind(
            array, start_indices=starts, limit_indices=limits, strides=strides
        )
    return [take(array, tuple(kept))]


register(
    "slice", Primitive(slice_, small=run_slice, varies=dependence.moved, moves=True)
)


# Lengthened axes.


def pad(flow: Flow, site: Site, value: Value, filling: Value) -> list[Value]:
    """Leave new channels at the ends free; negative amounts cut; no gaps inside."""
    atom, axes = site.equation.invars[1], list(value.axes)
    zeros = isinstance(atom, jex.Literal) and atom.val == 0
    del filling
    for d, (low, high, inside) in enumerate(site.params["padding_config"]):
        if isinstance(axes[d], Fixed) or low == high == inside == 0:
            continue
        if inside:
            flow.pin(axes[d], Reason.WINDOW, "puts gaps between its indices")
            axes[d] = flow.fixed(Reason.RESULT, "a padded axis")
            continue
        axis = axes[d][max(-low, 0) : len(axes[d]) - max(-high, 0)]
        ends = [flow.atoms.fresh(max(amount, 0)) for amount in (low, high)]
        parts = [ends[0], axis, ends[1]]
        axes[d] = atoms_lib.concatenate(parts, [len(part) for part in parts])
    return [Value(tuple(axes), None, value.zero_axes if zeros else _NO_AXES)]


def run_pad(ev: Evaluation, site: Site, array, filling):
    """At each end, the padding that is left; a cut takes what is left of the cut."""
    value, out, config = site.operand(0), site.result(), []
    for d, (low, high, inside) in enumerate(site.params["padding_config"]):
        old, new = ev.kept(value.axes[d]), ev.kept(out.axes[d])
        if (old is None and new is None) or low == high == inside == 0:
            config.append((low, high, inside))
            continue
        before, after = site.shape()[d], site.result_shape()[d]
        old = np.arange(before) if old is None else old
        new = np.arange(after) if new is None else new
        ends = [new < low, new >= after - max(high, 0)]
        cuts = [old < -low, old >= before + min(high, 0)]
        amounts = [
            int(end.sum()) - int(gone.sum())
            for end, gone in zip(ends, cuts, strict=True)
        ]
        config.append((*amounts, 0))
    return site.bind(array, filling, padding_config=tuple(config))


register("pad", Primitive(pad, small=run_pad, varies=dependence.moved, moves=True))


def tile(flow: Flow, site: Site, value: Value) -> list[Value]:
    """Repeats the rows of an axis."""
    axes = tuple(
        axis if isinstance(axis, Fixed) else np.tile(axis, (times, 1))
        for axis, times in zip(value.axes, site.params["reps"], strict=True)
    )
    return [Value(axes, None, value.zero_axes)]


register("tile", Primitive(tile, varies=dependence.moved, moves=True))


# Merged and factored axes.


def reshape(flow: Flow, site: Site, value: Value, *_sizes) -> list[Value]:
    """Multiplies axes into one, or factors one into several.

    Axes are matched in blocks of equal product. A merged index is removed if one of its
    factors is; an axis that is split is bound to fresh factors in the same way.
    """
    if site.params["dimensions"] is not None:
        return pin_all(flow, site, value)
    old, new = site.shape(), site.params["new_sizes"]
    axes: list = [flow.fixed(Reason.SIZE_ONE, "an axis of size 1")] * len(new)
    names: list[frozenset[int]] = [_NO_AXES] * len(new)
    zero_axes: set[int] = set()
    for d, size in enumerate(old):
        if isinstance(size, (int, np.integer)) and size == 1:
            _pin_only(flow, value.axes[d])
    for ins, outs in blocks(old, new):
        made = _reshape_block(flow, value, old, new, ins, outs)
        zero = all(
            i in value.zero_axes or isinstance(value.axes[i], Fixed) for i in ins
        )
        for d, axis in zip(outs, made, strict=True):
            axes[d] = axis
            if zero:
                zero_axes.add(d)
            if value.source is not None:
                names[d] = _NO_AXES.union(*(value.source.axes[i] for i in ins))
    source = None
    if value.source is not None:
        source = Source(value.source.leaf, tuple(names))
    return [Value(tuple(axes), source, frozenset(zero_axes), total=value.total)]


def _reshape_block(flow: Flow, value: Value, old, new, ins, outs) -> list[Axis]:
    axes = [value.axes[d] for d in ins]
    if len(ins) == len(outs) == 1:
        return axes
    if all(isinstance(axis, Fixed) for axis in axes):
        return [axes[0]] * len(outs)
    if not _known([*(old[d] for d in ins), *(new[d] for d in outs)]):
        for axis in axes:
            flow.pin(axis, Reason.SYMBOLIC, "merges it with an axis of symbolic size")
        return [flow.fixed(Reason.SYMBOLIC, "an axis of symbolic size")] * len(outs)
    flat = atoms_lib.product(axes, [old[d] for d in ins])
    if len(outs) == 1:
        return [flat]
    made = [flow.fresh(new[d]) for d in outs]
    flow.unify(flat, atoms_lib.product(made, [new[d] for d in outs]))
    return made


def blocks(old, new):
    """Yield the smallest runs of axes of equal product, axes of size 1 left out.

    Next to symbolic sizes the runs are found from the end.

    >>> list(blocks((2, 3, 4, 1), (6, 2, 2)))
    [([0, 1], [0]), ([2], [1, 2])]
    """
    ins = [d for d, size in enumerate(old) if not _known([size]) or size != 1]
    outs = [d for d, size in enumerate(new) if not _known([size]) or size != 1]
    while ins and outs and _equal(old[ins[0]], new[outs[0]]):
        yield [ins.pop(0)], [outs.pop(0)]
    if _known([*(old[d] for d in ins), *(new[d] for d in outs)]):
        yield from _runs(old, new, ins, outs)
        return
    while ins and outs:
        run = _last_run(old, new, ins, outs)
        if run is None:
            break
        yield run
    if ins or outs:
        yield ins, outs


def _equal(size, other) -> bool:
    """Whether two sizes are equal, for all values of their symbols."""
    return bool(size == other)


def _runs(old, new, ins, outs):
    tail = []
    while ins and outs and old[ins[-1]] == new[outs[-1]]:
        tail.append(([ins.pop()], [outs.pop()]))
    if all(old[d] > 0 for d in ins):
        while ins:
            run_in, run_out = [ins.pop(0)], [outs.pop(0)]
            left, right = old[run_in[0]], new[run_out[0]]
            while left != right:
                if left < right:
                    run_in.append(ins.pop(0))
                    left *= old[run_in[-1]]
                else:
                    run_out.append(outs.pop(0))
                    right *= new[run_out[-1]]
            yield run_in, run_out
    elif ins or outs:
        yield ins, outs
    yield from tail


def _last_run(old, new, ins, outs):
    """Take the last run off both lists; None, and nothing, if sizes are unknown."""
    run_in, run_out = [ins[-1]], [outs[-1]]
    left, right = old[run_in[0]], new[run_out[0]]
    while not _equal(left, right):
        if not _known([left, right]) or left == 0 or right == 0:
            return None
        source, run, rest = (old, run_in, ins) if left < right else (new, run_out, outs)
        if len(run) == len(rest):
            return None
        run.insert(0, rest[-len(run) - 1])
        if left < right:
            left *= source[run[0]]
        else:
            right *= source[run[0]]
    del ins[-len(run_in) :], outs[-len(run_out) :]
    return run_in, run_out


def run_reshape(ev: Evaluation, site: Site, *arrays):
    """Return the shape of the result is a parameter."""
    return site.bind(*arrays, new_sizes=_new_shape(ev, site))


register(
    "reshape",
    Primitive(reshape, small=run_reshape, varies=dependence.view, moves=True),
)
