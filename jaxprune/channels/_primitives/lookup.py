"""Rules of look-ups: gathers (embeddings) and moving windows."""

from jaxprune.channels._flow.flow import Flow, Source, Value, rule, shape_of


@rule("gather")
def gather(flow: Flow, equation, operand: Value, indices: Value) -> list[Value]:
    """Axes taken whole pass; axes that are looked up stay."""
    numbers = equation.params["dimension_numbers"]
    sizes = equation.params["slice_sizes"]
    shape = shape_of(equation.invars[0])
    batched = dict(
        zip(
            numbers.operand_batching_dims,
            numbers.start_indices_batching_dims,
            strict=True,
        )
    )
    window = []
    for d, axis in enumerate(operand.axes):
        whole = d not in numbers.start_index_map and sizes[d] == shape[d]
        if d in batched:
            flow.unify(axis, indices.axes[batched[d]])
            continue
        if d in numbers.collapsed_slice_dims or not whole:
            flow.pin(axis, "looks up along it")
        if d not in numbers.collapsed_slice_dims:
            found = flow.atoms.fixed(f"the result of {flow.where}")
            window.append((axis if whole else found, d))
    flow.pin(indices.axes[-1], "reads it as coordinates")
    rest = iter(indices.axes[:-1])
    offsets = dict(zip(numbers.offset_dims, window, strict=True))
    rank = len(equation.outvars[0].aval.shape)
    axes = tuple(offsets[d][0] if d in offsets else next(rest) for d in range(rank))
    silent = frozenset(d for d in offsets if offsets[d][1] in operand.silent)
    origins = {d: origin for d, (_, origin) in offsets.items()}
    source = _looked_up(flow, operand.source, origins, rank)
    return [Value(axes, source, silent)]


def _looked_up(flow: Flow, source: Source | None, origins, rank: int) -> Source | None:
    """The source of a look-up, which makes the channels of the axes taken whole."""
    if source is None:
        return None
    names = [
        source.axes[origins[d]] if d in origins else frozenset() for d in range(rank)
    ]
    flow.makers.update((source.leaf, axis) for axes in names for axis in axes)
    return Source(source.leaf, tuple(names))


@rule("dynamic_slice")
def dynamic_slice(flow: Flow, equation, value: Value, *starts: Value) -> list[Value]:
    """Axes taken whole pass; a moving window along an axis needs all of it."""
    shape = shape_of(equation.invars[0])
    axes = list(value.axes)
    for d, size in enumerate(equation.params["slice_sizes"]):
        if size != shape[d]:
            flow.pin(axes[d], "takes a moving window of it")
            axes[d] = flow.atoms.fixed(f"the result of {flow.where}")
    return [Value(tuple(axes), value.source, value.silent)]


@rule("dynamic_update_slice")
def dynamic_update_slice(
    flow: Flow, equation, value: Value, update: Value, *starts: Value
) -> list[Value]:
    """Axes written whole join; a moving window along an axis needs all of it."""
    whole, part = (shape_of(atom) for atom in equation.invars[:2])
    axes = list(value.axes)
    for d, axis in enumerate(update.axes):
        if whole[d] == part[d]:
            axes[d] = flow.unify(axes[d], axis)
        else:
            flow.pin(axes[d], "writes a moving window of it")
            flow.pin(axis, "writes it to a moving window")
            axes[d] = flow.atoms.fixed(f"the result of {flow.where}")
    return [Value(tuple(axes))]
