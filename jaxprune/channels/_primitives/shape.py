"""Rules of primitives that move, join, cut and repeat axes."""

import numpy as np

from jaxprune.channels._flow import atoms as atoms_lib
from jaxprune.channels._flow.atoms import Fixed
from jaxprune.channels._flow.flow import Flow, Source, Value, pin_all, rule, shape_of

_NO_AXES: frozenset[int] = frozenset()


def _view(value: Value, axes) -> Source | None:
    """The source of a view whose axes are numbered axes of `value`, None for new."""
    if value.source is None:
        return None
    own = value.source.axes
    return Source(
        value.source.leaf, tuple(_NO_AXES if d is None else own[d] for d in axes)
    )


def _moved(value: Value, axes) -> frozenset[int]:
    """The silent axes of a view whose axes are numbered axes of `value`."""
    return frozenset(d for d, own in enumerate(axes) if own in value.silent)


@rule("transpose")
def transpose(flow: Flow, equation, value: Value) -> list[Value]:
    """Permutes the axes."""
    order = equation.params["permutation"]
    axes = tuple(value.axes[d] for d in order)
    return [Value(axes, _view(value, order), _moved(value, order))]


@rule("rev")
def rev(flow: Flow, equation, value: Value) -> list[Value]:
    """Reverses the rows of axes."""
    flipped = equation.params["dimensions"]
    axes = tuple(
        axis[::-1] if d in flipped and not isinstance(axis, Fixed) else axis
        for d, axis in enumerate(value.axes)
    )
    return [Value(axes, value.source, value.silent)]


@rule("squeeze")
def squeeze(flow: Flow, equation, value: Value) -> list[Value]:
    """Drops axes of size 1: their only index has to stay."""
    gone = equation.params["dimensions"]
    for d in gone:
        flow.pin(value.axes[d], "drops the axis, so its only index stays")
    kept = [d for d in range(len(value.axes)) if d not in gone]
    axes = tuple(value.axes[d] for d in kept)
    return [Value(axes, _view(value, kept), _moved(value, kept))]


@rule("broadcast_in_dim")
def broadcast_in_dim(flow: Flow, equation, value: Value, *_sizes) -> list[Value]:
    """New and repeated axes are free: they join whatever they meet."""
    shape, places = equation.params["shape"], equation.params["broadcast_dimensions"]
    own = shape_of(equation.invars[0])
    axes: list = [None] * len(shape)
    for d, place in enumerate(places):
        if own[d] == shape[place]:
            axes[place] = value.axes[d]
        else:
            flow.pin(value.axes[d], "repeats it")
    origin = [places.index(d) if d in places else None for d in range(len(shape))]
    made = tuple(
        flow.fresh(size) if axis is None else axis
        for size, axis in zip(shape, axes, strict=True)
    )
    return [Value(made, _view(value, origin), _moved(value, origin))]


@rule("iota", "empty", "random_bits")
def born(flow: Flow, equation, *values: Value) -> list[Value]:
    """Arrays made from nothing are free; the indices removed are cut from them."""
    for value in values:
        for axis in value.axes:
            flow.pin(axis, "reads it as a key")
    return [flow.fresh_value(out.aval.shape) for out in equation.outvars]


@rule("concatenate")
def concatenate(flow: Flow, equation, *values: Value) -> list[Value]:
    """Puts the rows of one axis end to end, joins the others.

    A single index can be left out here, though it cannot be removed where it is made.
    """
    d = equation.params["dimension"]
    sizes = [shape_of(atom)[d] for atom in equation.invars]
    axes = list(values[0].axes)
    for value in values[1:]:
        for e, axis in enumerate(value.axes):
            axes[e] = axes[e] if e == d else flow.unify(axes[e], axis)
    if all(isinstance(size, (int, np.integer)) for size in sizes):
        parts = [value.axes[d] for value in values]
        for i, size in enumerate(sizes):
            if size == 1 and isinstance(parts[i], Fixed):
                parts[i] = flow.atoms.fresh(1)
        axes[d] = atoms_lib.concatenate(parts, sizes)
    else:
        for value in values:
            flow.pin(value.axes[d], "joins it to an axis of symbolic size")
        axes[d] = flow.atoms.fixed("an axis of symbolic size")
    silent = frozenset.intersection(*(value.silent for value in values))
    return [Value(tuple(axes), None, silent)]


@rule("stack")
def stack(flow: Flow, equation, *values: Value) -> list[Value]:
    """Joins all operands axis by axis; the new axis stays."""
    d = equation.params["axis"]
    axes = list(values[0].axes)
    for value in values[1:]:
        axes = [flow.unify(x, y) for x, y in zip(axes, value.axes, strict=True)]
    axes.insert(d, flow.atoms.fixed("an axis along which arrays are stacked"))
    silent = frozenset.intersection(*(value.silent for value in values))
    return [Value(tuple(axes), None, frozenset(e + (e >= d) for e in silent))]


@rule("unstack")
def unstack(flow: Flow, equation, value: Value) -> list[Value]:
    """The axis that is taken apart stays; the others pass."""
    d = equation.params["axis"]
    flow.pin(value.axes[d], "takes it apart")
    axes = (*value.axes[:d], *value.axes[d + 1 :])
    silent = frozenset(e - (e > d) for e in value.silent if e != d)
    source = value.source
    if source is not None:
        source = Source(source.leaf, (*source.axes[:d], *source.axes[d + 1 :]))
    return [Value(axes, source, silent) for _ in equation.outvars]


@rule("split")
def split(flow: Flow, equation, value: Value) -> list[Value]:
    """Cuts the rows of one axis."""
    d, outs, start = equation.params["axis"], [], 0
    for size in equation.params["sizes"]:
        axis = value.axes[d]
        if not isinstance(axis, Fixed):
            axis = axis[start : start + size]
        axes = (*value.axes[:d], axis, *value.axes[d + 1 :])
        outs.append(Value(axes, value.source, value.silent))
        start += size
    return outs


@rule("slice")
def slice_(flow: Flow, equation, value: Value) -> list[Value]:
    """Takes rows of every axis."""
    params = equation.params
    strides = params["strides"] or (1,) * len(value.axes)
    axes = tuple(
        axis if isinstance(axis, Fixed) else axis[start:limit:stride]
        for axis, start, limit, stride in zip(
            value.axes,
            params["start_indices"],
            params["limit_indices"],
            strides,
            strict=True,
        )
    )
    return [Value(axes, value.source, value.silent)]


@rule("pad")
def pad(flow: Flow, equation, value: Value, filling: Value) -> list[Value]:
    """New channels at the ends are free; negative amounts cut; no gaps inside."""
    del filling
    axes = list(value.axes)
    for d, (low, high, inside) in enumerate(equation.params["padding_config"]):
        if isinstance(axes[d], Fixed) or low == high == inside == 0:
            continue
        if inside:
            flow.pin(axes[d], "puts gaps between its indices")
            axes[d] = flow.atoms.fixed("a padded axis")
            continue
        axis = axes[d][max(-low, 0) : len(axes[d]) - max(-high, 0)]
        ends = [flow.atoms.fresh(max(amount, 0)) for amount in (low, high)]
        parts = [ends[0], axis, ends[1]]
        axes[d] = atoms_lib.concatenate(parts, [len(part) for part in parts])
    return [Value(tuple(axes))]


@rule("tile")
def tile(flow: Flow, equation, value: Value) -> list[Value]:
    """Repeats the rows of an axis."""
    axes = tuple(
        axis if isinstance(axis, Fixed) else np.tile(axis, (times, 1))
        for axis, times in zip(value.axes, equation.params["reps"], strict=True)
    )
    return [Value(axes)]


@rule("reshape")
def reshape(flow: Flow, equation, value: Value, *_sizes) -> list[Value]:
    """Multiplies axes into one, or factors one into several.

    Axes are matched in blocks of equal product. A merged index is removed if one of its
    factors is; an axis that is split is bound to fresh factors in the same way.
    """
    if equation.params["dimensions"] is not None:
        return pin_all(flow, equation, value)
    old, new = shape_of(equation.invars[0]), equation.params["new_sizes"]
    axes: list = [flow.atoms.fixed("an axis of size 1")] * len(new)
    names: list[frozenset[int]] = [_NO_AXES] * len(new)
    silent: set[int] = set()
    for d, size in enumerate(old):
        if size == 1:
            flow.pin(value.axes[d], "drops the axis, so its only index stays")
    for ins, outs in blocks(old, new):
        made = _reshape_block(flow, value, old, new, ins, outs)
        for d, axis in zip(outs, made, strict=True):
            axes[d] = axis
            if all(i in value.silent or isinstance(value.axes[i], Fixed) for i in ins):
                silent.add(d)
            if value.source is not None:
                names[d] = _NO_AXES.union(*(value.source.axes[i] for i in ins))
    source = None
    if value.source is not None:
        source = Source(value.source.leaf, tuple(names))
    return [Value(tuple(axes), source, frozenset(silent))]


def _reshape_block(flow, value, old, new, ins, outs):
    axes = [value.axes[d] for d in ins]
    if len(ins) == len(outs) == 1:
        return axes
    if all(isinstance(axis, Fixed) for axis in axes):
        return [axes[0]] * len(outs)
    sizes = [*(old[d] for d in ins), *(new[d] for d in outs)]
    if not all(isinstance(size, (int, np.integer)) for size in sizes):
        for axis in axes:
            flow.pin(axis, "merges it with an axis of symbolic size")
        return [flow.atoms.fixed("an axis of symbolic size")] * len(outs)
    flat = atoms_lib.product(axes, [old[d] for d in ins])
    if len(outs) == 1:
        return [flat]
    made = [flow.fresh(new[d]) for d in outs]
    flow.unify(flat, atoms_lib.product(made, [new[d] for d in outs]))
    return made


def blocks(old, new):
    """Yields the smallest runs of axes of equal product, axes of size 1 left out.

    >>> list(blocks((2, 3, 4, 1), (6, 2, 2)))
    [([0, 1], [0]), ([2], [1, 2])]
    """
    ins = [d for d, size in enumerate(old) if size != 1]
    outs = [d for d, size in enumerate(new) if size != 1]
    tail = []
    while ins and outs and old[ins[0]] == new[outs[0]]:
        yield [ins.pop(0)], [outs.pop(0)]
    while ins and outs and old[ins[-1]] == new[outs[-1]]:
        tail.append(([ins.pop()], [outs.pop()]))
    known = all(isinstance(old[d], (int, np.integer)) and old[d] > 0 for d in ins)
    if known and all(isinstance(new[d], (int, np.integer)) for d in outs):
        yield from _runs(old, new, ins, outs)
    elif ins or outs:
        yield ins, outs
    yield from tail


def _runs(old, new, ins, outs):
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
