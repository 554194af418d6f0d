"""Look-ups (embeddings), writes, and moving windows.

Axes that are taken or written whole pass, also where the program gives a start for
them. Along other axes the positions decide: where they are constants of the program,
rows are taken as by a slice; otherwise the axis stays.
"""

from collections.abc import Sequence
from typing import NamedTuple

import jax.numpy as jnp
import numpy as np

from jaxprune.channels._flow import routing
from jaxprune.channels._flow.atoms import Axis, Fixed
from jaxprune.channels._flow.evaluate import Evaluation, take
from jaxprune.channels._flow.flow import Flow, Site, Source, Value
from jaxprune.channels._flow.reasons import Reason
from jaxprune.channels._flow.registry import Primitive, register

_LOOKS_UP, _POSITIONS = "looks up along it", "reads it as coordinates"


def _constant(value: Value) -> np.ndarray | None:
    """Return the positions that an operand holds, if they are known."""
    array = None if value.constant is None else value.constant.value()
    return None if array is None else np.asarray(array)


def _inside(start, size, whole) -> bool:
    """Whether a window lies inside its axis; a symbolic axis is taken whole."""
    if not isinstance(whole, (int, np.integer)):
        return bool(start == 0 and size == whole)
    return isinstance(size, (int, np.integer)) and 0 <= start <= whole - size


def _rows(axis: Axis, start: int, size) -> Axis:
    return axis if isinstance(axis, Fixed) else axis[start : start + size]


# Windows that are read.


def _starts_of_gather(site: Site, places: np.ndarray | None) -> list[int] | None:
    """Return the start along each axis, if one window is taken at known positions."""
    numbers, shape = site.params["dimension_numbers"], site.shape()
    if places is None or places.ndim != 1 or numbers.operand_batching_dims:
        return None
    starts = [0] * len(shape)
    for d, place in zip(numbers.start_index_map, places.tolist(), strict=True):
        starts[d] = place
    windows = zip(starts, site.params["slice_sizes"], shape, strict=True)
    return starts if all(_inside(*window) for window in windows) else None


def _take_window(flow: Flow, site: Site, value: Value, starts, gone=()) -> list[Value]:
    """Take rows at known starts; axes in `gone` are dropped, so their index stays."""
    axes, left = [], []
    for d, size in enumerate(site.params["slice_sizes"]):
        axis = _rows(value.axes[d], starts[d], size)
        if d in gone:
            text = "drops the axis, so its only index stays"
            flow.pin(axis, Reason.RESULT, text)
        else:
            axes.append(axis)
            left.append(d)
    source = value.source
    if source is not None:
        source = Source(source.leaf, tuple(source.axes[d] for d in left))
    zero_axes = frozenset(n for n, d in enumerate(left) if d in value.zero_axes)
    site.frame.notes[site.index] = starts
    return [Value(tuple(axes), source, zero_axes)]


def _run_window(ev: Evaluation, site: Site, array, starts, gone=()):
    """Find what stays of the window among what stays of the operand."""
    kept: list[np.ndarray | None] = []
    for axis, start, size, whole in zip(
        site.operand(0).axes,
        starts,
        site.params["slice_sizes"],
        site.shape(),
        strict=True,
    ):
        indices = ev.kept(axis)
        if indices is None and size == whole:
            kept.append(None)
            continue
        indices = np.arange(whole) if indices is None else indices
        kept.append(np.flatnonzero((indices >= start) & (indices < start + size)))
    return [jnp.squeeze(take(array, tuple(kept)), tuple(gone))]


def gather(flow: Flow, site: Site, operand: Value, indices: Value) -> list[Value]:
    """Axes taken whole pass; along others rows are taken, or the axis stays."""
    if indices.route is not None and operand.constant is not None:
        return [_translate(flow, site, operand, indices)]
    places = _constant(indices)
    starts = _starts_of_gather(site, places)
    if starts is not None:
        gone = site.params["dimension_numbers"].collapsed_slice_dims
        return _take_window(flow, site, operand, starts, gone)
    row = _row_axis(site)
    if places is not None and row is not None and _all_inside(site, places, row):
        site.frame.notes[site.index] = places[:, 0]
        return [_look_up(flow, site, operand, indices, (row, places[:, 0]))]
    return [_look_up(flow, site, operand, indices, None)]


def _row_axis(site: Site) -> int | None:
    """Return the axis along which rows are taken, if all others are taken whole."""
    numbers = site.params["dimension_numbers"]
    if len(site.shape(1)) != 2 or len(numbers.start_index_map) != 1:
        return None
    if tuple(numbers.collapsed_slice_dims) != tuple(numbers.start_index_map):
        return None
    return (
        int(numbers.start_index_map[0]) if not numbers.operand_batching_dims else None
    )


def _all_inside(site: Site, places, row: int) -> bool:
    size = site.shape()[row]
    known = isinstance(size, (int, np.integer))
    return known and bool(((places >= 0) & (places < size)).all())


def _look_up(flow: Flow, site: Site, operand: Value, indices: Value, rows) -> Value:
    """Follow a look-up; `rows` are an axis and the known positions along it."""
    numbers, sizes = site.params["dimension_numbers"], site.params["slice_sizes"]
    shape, found = site.shape(), list(indices.axes[:-1])
    batched = dict(
        zip(
            numbers.operand_batching_dims,
            numbers.start_indices_batching_dims,
            strict=True,
        )
    )
    window: list[tuple[Axis, int]] = []
    for d, axis in enumerate(operand.axes):
        if d in batched:
            flow.unify(axis, indices.axes[batched[d]])
        elif rows is not None and d == rows[0]:
            found = [axis if isinstance(axis, Fixed) else axis[rows[1]]]
        elif d in numbers.collapsed_slice_dims:
            _point(flow, site, operand, indices, d)
        elif sizes[d] == shape[d]:
            window.append((axis, d))
        else:
            flow.pin(axis, Reason.READ_WHOLE, _LOOKS_UP)
            window.append((flow.made_fixed(), d))
    flow.pin(indices.axes[-1], Reason.READ_WHOLE, _POSITIONS)
    offsets = dict(zip(map(int, numbers.offset_dims), window, strict=True))
    rank, rest = len(site.result_shape()), iter(found)
    axes = tuple(offsets[d][0] if d in offsets else next(rest) for d in range(rank))
    zero_axes = frozenset(d for d in offsets if offsets[d][1] in operand.zero_axes)
    origins = {d: origin for d, (_, origin) in offsets.items()}
    return Value(axes, _looked_up(flow, operand.source, origins, rank), zero_axes)


def _translate(flow: Flow, site: Site, operand: Value, indices: Value) -> Value:
    """Look up in a constant, whole; a table of numbers gives channels other numbers."""
    assert indices.route is not None
    for axis in operand.axes:
        flow.pin(axis, Reason.READ_WHOLE, _LOOKS_UP)
    out = _look_up(flow, site, operand, indices._replace(route=None), None)
    return out._replace(route=routing.looked_up(indices.route, operand.constant))


def _point(flow: Flow, site: Site, operand: Value, indices: Value, d: int) -> None:
    """Look up along an axis: it stays, unless numbers of experts are looked up."""
    alone = tuple(site.params["dimension_numbers"].start_index_map) == (d,)
    numbers = indices.route if alone else None
    if numbers is None or not routing.are_positions(numbers, site.shape()[d]):
        flow.pin(operand.axes[d], Reason.READ_WHOLE, _LOOKS_UP)
        return
    flow.unify(numbers.axis, operand.axes[d])
    flow.read_whole(operand.axes[d], _LOOKS_UP)
    if operand.source is not None:
        flow.stack(operand.axes[d])
    site.frame.notes[site.index] = _Pointed(d)


class _Pointed(NamedTuple):
    """A look-up of numbers of the dense network along an axis."""

    axis: int


def _looked_up(flow: Flow, source: Source | None, origins, rank: int) -> Source | None:
    """Return the source of a look-up, which makes channels of axes taken whole."""
    if source is None:
        return None
    names = [
        source.axes[origins[d]] if d in origins else frozenset() for d in range(rank)
    ]
    flow.producers.update((source.leaf, axis) for axes in names for axis in axes)
    return Source(source.leaf, tuple(names))


def run_gather(ev: Evaluation, site: Site, operand, indices):
    """Axes that are taken whole are taken whole; rows are found among those left."""
    numbers, sizes = site.params["dimension_numbers"], site.params["slice_sizes"]
    if isinstance(site.note, _Pointed):
        indices = _place(ev, site, indices)
    elif isinstance(site.note, list):
        gone = numbers.collapsed_slice_dims
        return _run_window(ev, site, operand, site.note, gone)
    elif site.note is not None:
        row = int(numbers.start_index_map[0])
        kept = ev.kept(site.operand(0).axes[row])
        if kept is not None:
            places = site.note[np.isin(site.note, kept)]
            places = np.searchsorted(kept, places)
            rows = jnp.take(operand, places, axis=row, mode="clip")
            rank = len(site.result_shape())
            (place,) = set(range(rank)) - set(map(int, numbers.offset_dims))
            return [jnp.moveaxis(rows, row, place)]
    sizes = tuple(
        ev.size(axis, size) if size == whole else size
        for axis, size, whole in zip(
            site.operand(0).axes, sizes, site.shape(), strict=True
        )
    )
    return site.bind(operand, indices, slice_sizes=sizes)


def _place(ev: Evaluation, site: Site, numbers):
    """Return where rows of the dense network are among those left; all named stay."""
    kept = ev.kept(site.operand(0).axes[site.note.axis])
    if kept is None:
        return numbers
    places = np.zeros(site.shape()[site.note.axis], np.int64)
    places[kept] = np.arange(len(kept))
    return jnp.asarray(places, numbers.dtype)[numbers]


register("gather", Primitive(gather, small=run_gather, moves=True))


def _clipped(site: Site, values: Sequence[Value], sizes) -> list[int] | None:
    """Return the known starts of a moving window, which JAX keeps inside its axis."""
    known = (int, np.integer)
    clipped = []
    for value, whole, size in zip(values, site.shape(), sizes, strict=True):
        if size == whole:
            clipped.append(0)
            continue
        start = _constant(value)
        if start is None or not (isinstance(whole, known) and isinstance(size, known)):
            return None
        clipped.append(int(np.clip(int(start), 0, whole - size)))
    return clipped


def dynamic_slice(flow: Flow, site: Site, value: Value, *starts: Value) -> list[Value]:
    """Axes taken whole pass; a moving window along an axis needs all of it."""
    sizes, shape = site.params["slice_sizes"], site.shape()
    known = _clipped(site, starts, sizes)
    if known is not None:
        return _take_window(flow, site, value, known)
    axes = list(value.axes)
    for d, size in enumerate(sizes):
        if size != shape[d]:
            flow.pin(axes[d], Reason.READ_WHOLE, "takes a moving window of it")
            axes[d] = flow.made_fixed()
    return [Value(tuple(axes), value.source, value.zero_axes)]


def run_dynamic_slice(ev: Evaluation, site: Site, array, *starts):
    """Axes that are taken whole are taken whole."""
    if site.note is not None:
        return _run_window(ev, site, array, site.note)
    sizes = ev.shape(site.result(), site.params["slice_sizes"])
    return site.bind(array, *starts, slice_sizes=sizes)


register("dynamic_slice", Primitive(dynamic_slice, small=run_dynamic_slice, moves=True))


# Windows that are written.


def _write(flow: Flow, axis: Axis, part: Axis, start, size, whole) -> Axis:
    """Join what is written with the rows that it is written to, if they are known."""
    if size == whole:
        return flow.unify(axis, part)
    if start is None:
        flow.pin(axis, Reason.READ_WHOLE, "writes a moving window of it")
        flow.pin(part, Reason.READ_WHOLE, "writes it to a moving window")
        return flow.made_fixed()
    if isinstance(axis, Fixed):
        flow.unify(axis, part)
    else:
        flow.unify(axis[start : start + size], part)
    return axis


def _start_left(ev: Evaluation, axis: Axis, start: int) -> int:
    """Where a window starts among the rows that are left."""
    kept = ev.kept(axis)
    return start if kept is None else int(np.sum(kept < start))


def dynamic_update_slice(
    flow: Flow, site: Site, value: Value, update: Value, *starts: Value
) -> list[Value]:
    """Join what is written and the rows it is written to; they must be known."""
    whole, part = site.shape(0), site.shape(1)
    known = _clipped(site, starts, part)
    site.frame.notes[site.index] = known
    axes = tuple(
        _write(
            flow,
            value.axes[d],
            axis,
            None if known is None else known[d],
            part[d],
            whole[d],
        )
        for d, axis in enumerate(update.axes)
    )
    return [Value(axes, None, value.zero_axes & update.zero_axes)]


def run_dynamic_update_slice(ev: Evaluation, site: Site, array, update, *starts):
    """Write the window among the rows that are left."""
    if site.note is not None:
        axes = site.operand(0).axes
        starts = [
            jnp.asarray(_start_left(ev, axis, place), start.dtype)
            for axis, place, start in zip(axes, site.note, starts, strict=True)
        ]
    return site.bind(array, update, *starts)


register(
    "dynamic_update_slice",
    Primitive(dynamic_update_slice, small=run_dynamic_update_slice),
)


def scatter(
    flow: Flow, site: Site, operand: Value, indices: Value, update: Value
) -> list[Value]:
    """Axes written whole join; axes along which positions are given stay.

    Positions that are constants of the program make rows of those axes join instead.
    """
    numbers, whole, part = (
        site.params["dimension_numbers"],
        site.shape(0),
        site.shape(2),
    )
    windows = map(int, numbers.update_window_dims)
    rest = [d for d in range(len(part)) if d not in numbers.update_window_dims]
    batched = dict(
        zip(
            numbers.operand_batching_dims,
            numbers.scatter_indices_batching_dims,
            strict=True,
        )
    )
    starts = _starts_of_scatter(site, _constant(indices))
    site.frame.notes[site.index] = starts
    axes, zero_axes = [], set()
    for d, axis in enumerate(operand.axes):
        start, u = (None if starts is None else starts[d]), None
        if d in batched:
            flow.unify(axis, indices.axes[batched[d]])
            u = rest[batched[d]]
            axis = flow.unify(axis, update.axes[u])
        elif d in numbers.inserted_window_dims:
            written = axis if start is None else _rows(axis, start, 1)
            flow.pin(written, Reason.READ_WHOLE, "writes along it")
        else:
            u = next(windows)
            axis = _write(flow, axis, update.axes[u], start, part[u], whole[d])
        axes.append(axis)
        if u is not None and d in operand.zero_axes and u in update.zero_axes:
            zero_axes.add(d)
    _pin_positions(flow, indices, update, rest, batched.values())
    return [Value(tuple(axes), None, frozenset(zero_axes))]


def _pin_positions(flow: Flow, indices: Value, update: Value, rest, batched) -> None:
    """Pins the axes along which positions, and what is written there, lie."""
    for n, u in enumerate(rest):
        if n not in batched:
            flow.pin(update.axes[u], Reason.READ_WHOLE, "writes it along another axis")
            flow.pin(indices.axes[n], Reason.READ_WHOLE, _POSITIONS)
    flow.pin(indices.axes[-1], Reason.READ_WHOLE, _POSITIONS)


def _starts_of_scatter(site: Site, places: np.ndarray | None) -> list[int] | None:
    """Return the start along each axis, if one window is written at known positions."""
    numbers, whole, part = (
        site.params["dimension_numbers"],
        site.shape(0),
        site.shape(2),
    )
    if places is None or places.ndim != 1 or numbers.operand_batching_dims:
        return None
    sizes: list = [part[u] for u in numbers.update_window_dims]
    for d in sorted(numbers.inserted_window_dims):
        sizes.insert(d, 1)
    starts = [0] * len(whole)
    for d, place in zip(
        numbers.scatter_dims_to_operand_dims, places.tolist(), strict=True
    ):
        starts[d] = place
    windows = zip(starts, sizes, whole, strict=True)
    return starts if all(_inside(*window) for window in windows) else None


def run_scatter(ev: Evaluation, site: Site, operand, indices, update):
    """Known positions are found among the rows that are left."""
    if site.note is not None:
        axes = site.operand(0).axes
        dims = site.params["dimension_numbers"].scatter_dims_to_operand_dims
        places = [_start_left(ev, axes[d], site.note[d]) for d in dims]
        indices = jnp.asarray(places, indices.dtype).reshape(indices.shape)
    return site.bind(operand, indices, update)


register(
    "scatter scatter-add scatter_add scatter-sub scatter_sub scatter-mul scatter_mul "
    "scatter-min scatter_min scatter-max scatter_max",
    Primitive(scatter, small=run_scatter),
)
