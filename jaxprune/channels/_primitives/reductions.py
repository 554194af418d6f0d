"""Primitives that work on some axes and treat the others apart.

A maximum, a sort or a Fourier transform along an axis reads all its channels, so they
stay; along other axes channels pass. `passing` and `leading` say so for primitives
that declare the axes on which they work.
"""

from collections.abc import Callable, Iterable, Sequence

import jax
import jax.numpy as jnp
import numpy as np

from jaxprune.channels._flow import dependence, routing
from jaxprune.channels._flow.atoms import Axis
from jaxprune.channels._flow.evaluate import Evaluation, take
from jaxprune.channels._flow.flow import Flow, Site, Value
from jaxprune.channels._flow.reasons import Reason
from jaxprune.channels._flow.registry import Primitive, register

_READS = "reads all of it"


def passing(worked_on: Callable[[Site], Iterable[int]], text: str = _READS):
    """Make the flow rule of a primitive that works on some axes.

    Operands and results have the same axes; those of operands join, one by one.

    Args:
      worked_on: from the equation to the numbers of the axes it works on.
      text: what it does to them.
    """

    def flow_rule(flow: Flow, site: Site, *values: Value) -> list[Value]:
        axes = list(values[0].axes)
        for value in values[1:]:
            axes = [flow.unify(x, y) for x, y in zip(axes, value.axes, strict=True)]
        for d in worked_on(site):
            flow.pin(axes[d], Reason.READ_WHOLE, text)
            axes[d] = flow.made_fixed()
        return [Value(tuple(axes)) for _ in site.equation.outvars]

    return flow_rule


def leading(worked_on: Callable[[Site], Sequence[int]]):
    """Make the flow rule of a primitive that works on the last axes.

    Args:
      worked_on: from the equation to the number of last axes of each operand on which
        it works; those before join, and are the first axes of all results.
    """

    def flow_rule(flow: Flow, site: Site, *values: Value) -> list[Value]:
        axes = None
        for value, count in zip(values, worked_on(site), strict=True):
            before = len(value.axes) - count
            for axis in value.axes[before:]:
                flow.pin(axis, Reason.READ_WHOLE, _READS)
            own = value.axes[:before]
            pairs = zip(own if axes is None else axes, own, strict=True)
            axes = [flow.unify(x, y) for x, y in pairs]
        axes = axes or []
        made = flow.made_fixed()
        ranks = [len(site.result_shape(i)) for i in range(len(site.equation.outvars))]
        return [Value((*axes, *(made,) * (rank - len(axes)))) for rank in ranks]

    return flow_rule


# Reductions, which drop the axes.


def reduce(flow: Flow, site: Site, value: Value) -> list[Value]:
    """Return a reduced axis is read whole, so it stays; the others pass."""
    gone = site.params["axes"]
    for d in gone:
        flow.pin(value.axes[d], Reason.READ_WHOLE, _READS)
    left = [d for d in range(len(value.axes)) if d not in gone]
    return [Value(tuple(value.axes[d] for d in left))]


def reduce_zeros(flow: Flow, site: Site, value: Value) -> list[Value]:
    """Return a reduction whose result is zero where the operand is.

    Along experts it is one of those that stay.
    """
    gone = site.params["axes"]
    for d in gone:
        flow.read_whole(value.axes[d], _READS)
    left = [d for d in range(len(value.axes)) if d not in gone]
    zero_axes = frozenset(n for n, d in enumerate(left) if d in value.zero_axes)
    return [Value(tuple(value.axes[d] for d in left), None, zero_axes)]


def of_what_stays(ev: Evaluation, site: Site, array):
    """Reduce what stays along the reduced axes."""
    return site.bind(_staying(ev, site, array, site.params["axes"]))


def _staying(ev: Evaluation, site: Site, array, axes: Sequence[int]):
    """Return an array of full size without what goes along some axes."""
    value = site.operand(0)
    kept = [ev.kept(a) if d in axes else None for d, a in enumerate(value.axes)]
    return take(array, tuple(kept))


@dependence.rule
def any_reduced(site: Site, operands, values):
    return [operands[0].varies.any(axis=site.params["axes"])]


register(
    "reduce_max reduce_min",
    Primitive(reduce_zeros, masked=of_what_stays, varies=any_reduced),
)
register("reduce_prod", Primitive(reduce, varies=any_reduced))
register("reduce_and reduce_or reduce_xor argmin", Primitive(reduce))


def between_devices(flow: Flow, site: Site, *values: Value) -> list[Value]:
    """Pass sums between devices; where `vmap` maps these, an axis is reduced.

    Named axes are those of devices, numbers those of `vmap`. The axes of each operand
    pass by themselves.
    """
    gone = {axis for axis in site.params["axes"] if isinstance(axis, int)}
    if not gone:
        return list(values)
    for value in values:
        for d in gone:
            flow.pin(value.axes[d], Reason.READ_WHOLE, _READS)
    return [
        Value(tuple(axis for d, axis in enumerate(value.axes) if d not in gone))
        for value in values
    ]


register("psum psum_invariant pmax pmin", Primitive(between_devices))


def reduce_with(flow: Flow, site: Site, *values: Value) -> list[Value]:
    """Return a reduction by any function: operands, then the values to start from."""
    operands = values[: len(values) // 2]
    axes = passing(lambda site: site.params["dimensions"])(flow, site, *operands)
    left = [d for d in range(len(axes[0].axes)) if d not in site.params["dimensions"]]
    return [Value(tuple(value.axes[d] for d in left)) for value in axes]


register("reduce", Primitive(reduce_with))


# Along one axis.

_cumulative = Primitive(passing(lambda site: [site.params["axis"]]))
register("cumsum cumprod cummax cummin cumlogsumexp", _cumulative)
register(
    "sort",
    Primitive(passing(lambda site: [site.params["dimension"]], "sorts along it")),
)


def _searched(site: Site) -> list[int]:
    params = site.params
    axis = params.get("axis", params.get("reduction_dimension", -1))
    return [axis % len(site.shape())]


register("approx_top_k", Primitive(passing(_searched, "sorts along it")))


# Choices along one axis.


def top_k(flow: Flow, site: Site, value: Value) -> list[Value]:
    """Choose among channels; what is chosen has an axis of its own, and numbers."""
    d = routing.chosen_axis(site.equation)
    axes = list(value.axes)
    axes[d] = flow.made_fixed()
    route = _route(flow, value.axes[d], site.params["k"])
    return [Value(tuple(axes)), Value(tuple(axes), route=route)]


def argmax(flow: Flow, site: Site, value: Value) -> list[Value]:
    """Choose one channel."""
    d = routing.chosen_axis(site.equation)
    axes = tuple(axis for e, axis in enumerate(value.axes) if e != d)
    return [Value(axes, route=_route(flow, value.axes[d], 1))]


def _route(flow: Flow, axis: Axis, count: int) -> routing.Numbers | None:
    """Note a choice along an axis, unless all of it stays anyway."""
    if not isinstance(axis, np.ndarray) or not isinstance(count, int):
        flow.pin(axis, Reason.READ_WHOLE, "sorts along it")
        return None
    return flow.choose(axis, count)


def run_choice(ev: Evaluation, site: Site, array):
    """Choose among what stays, and return the numbers of the dense network."""
    d = routing.chosen_axis(site.equation)
    kept = ev.kept(site.operand(0).axes[d])
    if kept is None:
        return site.bind(array)
    array = array if ev.small else _staying(ev, site, array, [d])
    *chosen, places = site.bind(array)
    return [*chosen, jnp.asarray(kept, places.dtype)[places]]


for _name, _rule in (("top_k", top_k), ("argmax", argmax)):
    register(_name, Primitive(_rule, small=run_choice, masked=run_choice))


def _transformed(site: Site) -> range:
    rank = len(site.shape())
    return range(rank - len(site.params["fft_lengths"]), rank)


register("fft", Primitive(passing(_transformed)))


# Sliding windows.


def reduce_window(flow: Flow, site: Site, *values: Value) -> list[Value]:
    """Axes with a window of one pass; the others are read along.

    Operands are arrays, and for a reduction by any function values to start from.
    """
    arrays = values[: len(site.equation.outvars)]
    params, size = site.params, len(arrays[0].axes)
    axes = list(arrays[0].axes)
    for value in arrays[1:]:
        axes = [flow.unify(x, y) for x, y in zip(axes, value.axes, strict=True)]
    for d in range(size):
        plain = params["window_dimensions"][d] == params["window_strides"][d] == 1
        plain &= tuple(params["padding"][d]) == (0, 0)
        plain &= (params.get("base_dilation") or (1,) * size)[d] == 1
        if not plain:
            flow.pin(axes[d], Reason.WINDOW, "slides along it")
            axes[d] = flow.fixed(Reason.RESULT, "an axis under a sliding window")
    return [Value(tuple(axes)) for _ in site.equation.outvars]


@dependence.rule
def _under_window(site: Site, operands, values):
    """Whether anything varies under a sliding window."""
    params = site.params
    most = jax.lax.reduce_window(
        operands[0].varies.astype(jnp.float32),
        -np.inf,
        jax.lax.max,
        params["window_dimensions"],
        params["window_strides"],
        params["padding"],
        params["base_dilation"],
        params["window_dilation"],
    )
    return [most > 0]


register(
    "reduce_window_max reduce_window_sum reduce_window_min",
    Primitive(reduce_window, varies=_under_window),
)
register("reduce_window", Primitive(reduce_window))


def select_and_scatter_add(
    flow: Flow, site: Site, source: Value, operand: Value
) -> list[Value]:
    """Follow the derivative of a maximum over windows: axes without a window pass."""
    params, axes = site.params, list(operand.axes)
    for d, axis in enumerate(source.axes):
        plain = params["window_dimensions"][d] == params["window_strides"][d] == 1
        if plain and tuple(params["padding"][d]) == (0, 0):
            axes[d] = flow.unify(axes[d], axis)
            continue
        for each in (axes[d], axis):
            flow.pin(each, Reason.WINDOW, "slides along it")
    return [Value(tuple(axes))]


register("select_and_scatter_add", Primitive(select_and_scatter_add))
