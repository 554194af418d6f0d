"""How equations that mention sizes, or call other jaxprs, run with fewer channels."""

import jax
import jax.numpy as jnp
import numpy as np

from jaxprune.channels._flow.evaluate import (
    MASKED_RULES,
    SMALL_RULES,
    Evaluation,
    Site,
    rule,
    take,
)
from jaxprune.channels._flow.flow import shape_of

# Sizes rewritten.


def _new_shape(ev: Evaluation, site: Site, i: int = 0):
    return ev.shape(site.result(i), site.equation.outvars[i].aval.shape)


@rule("broadcast_in_dim", "empty", table=SMALL_RULES)
def shaped(ev: Evaluation, site: Site, *arrays):
    """The shape of the result is a parameter."""
    return site.bind(*arrays, shape=_new_shape(ev, site))


@rule("reshape", table=SMALL_RULES)
def reshape(ev: Evaluation, site: Site, *arrays):
    """The shape of the result is a parameter of another name."""
    return site.bind(*arrays, new_sizes=_new_shape(ev, site))


@rule("iota", "random_bits", table=SMALL_RULES)
def cut_after(ev: Evaluation, site: Site, *arrays):
    """Made whole, so that what stays has the numbers it had, and cut."""
    return [ev.cut(out, site.result(i)) for i, out in enumerate(site.bind(*arrays))]


@rule("concatenate", table=SMALL_RULES)
def concatenate(ev: Evaluation, site: Site, *arrays):
    """Operands of size 1 that were made whole are left out here."""
    d, start, parts = site.params["dimension"], 0, []
    kept = ev.kept(site.result().axes[d])
    for i, array in enumerate(arrays):
        size = shape_of(site.equation.invars[i])[d]
        whole = array.shape[d] == 1 and ev.kept(site.operand(i).axes[d]) is None
        if kept is None or size != 1 or not whole or start in kept:
            parts.append(array)
        start += size
    return site.bind(*parts) if len(parts) > 1 else parts


@rule("split", table=SMALL_RULES)
def split(ev: Evaluation, site: Site, array):
    """Every part keeps what is left of it."""
    d = site.params["axis"]
    sizes = tuple(_new_shape(ev, site, i)[d] for i in range(len(site.params["sizes"])))
    return site.bind(array, sizes=sizes)


@rule("slice", table=SMALL_RULES)
def slice_(ev: Evaluation, site: Site, array):
    """What stays of the slice is found among what stays of the operand."""
    params, value = site.params, site.operand(0)
    starts, limits = list(params["start_indices"]), list(params["limit_indices"])
    strides = list(params["strides"] or (1,) * len(starts))
    kept: list[np.ndarray | None] = [None] * len(starts)
    for d, axis in enumerate(value.axes):
        indices = ev.kept(axis)
        if indices is None:
            continue
        inside = (indices >= starts[d]) & (indices < limits[d])
        inside &= (indices - starts[d]) % strides[d] == 0
        kept[d] = np.flatnonzero(inside)
        starts[d], limits[d], strides[d] = 0, len(indices), 1
    if array.shape == tuple(limits) and not any(starts) and set(strides) <= {1}:
        return [take(array, tuple(kept))]
    (array,) = site.bind(
        array,
        start_indices=tuple(starts),
        limit_indices=tuple(limits),
        strides=tuple(strides),
    )
    return [take(array, tuple(kept))]


@rule("pad", table=SMALL_RULES)
def pad(ev: Evaluation, site: Site, array, filling):
    """At each end, the padding that is left; a cut takes what is left of the cut."""
    value, out, config = site.operand(0), site.result(), []
    for d, (low, high, inside) in enumerate(site.params["padding_config"]):
        old, new = ev.kept(value.axes[d]), ev.kept(out.axes[d])
        if (old is None and new is None) or low == high == inside == 0:
            config.append((low, high, inside))
            continue
        before = shape_of(site.equation.invars[0])[d]
        after = shape_of(site.equation.outvars[0])[d]
        old = np.arange(before) if old is None else old
        new = np.arange(after) if new is None else new
        ends = np.sum(new < low), np.sum(new >= after - max(high, 0))
        cuts = np.sum(old < -low), np.sum(old >= before + min(high, 0))
        amounts = [int(end - gone) for end, gone in zip(ends, cuts, strict=True)]
        config.append((*amounts, 0))
    return site.bind(array, filling, padding_config=tuple(config))


@rule("gather", table=SMALL_RULES)
def gather(ev: Evaluation, site: Site, operand, indices):
    """Axes that are taken whole are taken whole."""
    shape = shape_of(site.equation.invars[0])
    sizes = tuple(
        ev.size(axis, size) if size == whole else size
        for axis, size, whole in zip(
            site.operand(0).axes, site.params["slice_sizes"], shape, strict=True
        )
    )
    return site.bind(operand, indices, slice_sizes=sizes)


@rule("dynamic_slice", table=SMALL_RULES)
def dynamic_slice(ev: Evaluation, site: Site, array, *starts):
    """Axes that are taken whole are taken whole."""
    sizes = ev.shape(site.result(), site.params["slice_sizes"])
    return site.bind(array, *starts, slice_sizes=sizes)


@rule("conv_general_dilated", table=SMALL_RULES)
def conv(ev: Evaluation, site: Site, lhs, rhs):
    """Fewer groups, where whole groups went."""
    count = site.params["feature_group_count"]
    groups = site.frame.notes.get(site.index)
    count = count if groups is None else ev.size(groups, count)
    return site.bind(lhs, rhs, feature_group_count=count)


# Removed channels unread.


def _silence(ev: Evaluation, array, axis, d):
    kept = ev.kept(axis)
    if kept is None:
        return array
    stays = np.isin(np.arange(array.shape[d]), kept)
    stays = stays.reshape([-1 if e == d else 1 for e in range(array.ndim)])
    return jnp.where(stays, array, jnp.zeros((), array.dtype))


@rule("dot_general", table=MASKED_RULES)
def masked_dot(ev: Evaluation, site: Site, *operands):
    """Both operands are zero where a removed channel would be summed."""
    contracts, _ = site.params["dimension_numbers"]
    operands = list(operands)
    for i, axes in enumerate(contracts):
        for d in axes:
            operands[i] = _silence(ev, operands[i], site.operand(i).axes[d], d)
    return site.bind(*operands)


@rule("conv_general_dilated", table=MASKED_RULES)
def masked_conv(ev: Evaluation, site: Site, lhs, rhs):
    """Both operands are zero where a removed channel would be summed."""
    numbers = site.params["dimension_numbers"]
    c, i = numbers.lhs_spec[1], numbers.rhs_spec[1]
    lhs = _silence(ev, lhs, site.operand(0).axes[c], c)
    rhs = _silence(ev, rhs, site.operand(1).axes[i], i)
    return site.bind(lhs, rhs)


# Calls, branches and loops.


@rule("jit", "pjit", "closed_call", "core_call")
def call(ev: Evaluation, site: Site, *arrays):
    """A call is what it calls."""
    params = site.params
    jaxpr = params["call_jaxpr"] if "call_jaxpr" in params else params["jaxpr"]
    if hasattr(jaxpr, "consts"):
        return ev.run_closed(site.children[0], jaxpr, arrays)
    return ev.run(site.children[0], (), arrays)


@rule("remat2", "remat", "checkpoint")
def remat(ev: Evaluation, site: Site, *arrays):
    """Still recomputed in the backward pass, under the same policy."""

    def function(*arrays):
        return ev.run(site.children[0], (), arrays)

    keep = {k: site.params[k] for k in ("prevent_cse", "policy") if k in site.params}
    return jax.checkpoint(function, **keep)(*arrays)


@rule("cond")
def cond(ev: Evaluation, site: Site, index, *arrays):
    """The same branches, smaller."""
    branches = [
        lambda *xs, frame=frame, branch=branch: ev.run_closed(frame, branch, xs)
        for frame, branch in zip(site.children, site.params["branches"], strict=True)
    ]
    return jax.lax.switch(index, branches, *arrays)


@rule("while")
def while_(ev: Evaluation, site: Site, *arrays):
    """The same loop over a smaller carry."""
    params = site.params
    n, m = params["cond_nconsts"], params["body_nconsts"]
    tests, consts, carry = arrays[:n], arrays[n : n + m], arrays[n + m :]
    test, body = site.children

    def go_on(carry):
        return ev.run_closed(test, params["cond_jaxpr"], [*tests, *carry])[0]

    def step(carry):
        return ev.run_closed(body, params["body_jaxpr"], [*consts, *carry])

    return jax.lax.while_loop(go_on, step, list(carry))


@rule("scan")
def scan(ev: Evaluation, site: Site, *arrays):
    """The same loop over smaller carries and slices."""
    params = site.params
    n, m = params["num_consts"], params["num_consts"] + params["num_carry"]
    (frame,) = site.children

    def step(carry, slices):
        outs = ev.run_closed(frame, params["jaxpr"], [*arrays[:n], *carry, *slices])
        return outs[: m - n], outs[m - n :]

    carry, stacked = jax.lax.scan(
        step,
        list(arrays[n:m]),
        list(arrays[m:]),
        length=params["length"],
        reverse=params["reverse"],
        unroll=params["unroll"],
    )
    return [*carry, *stacked]
