"""Primitives that call other jaxprs: calls, branches and loops."""

import jax
import jax.numpy as jnp

from jaxprune.channels._flow import equations
from jaxprune.channels._flow.atoms import Fixed
from jaxprune.channels._flow.evaluate import Evaluation
from jaxprune.channels._flow.flow import PINNED, Flow, Site, Source, Value
from jaxprune.channels._flow.reasons import Reason
from jaxprune.channels._flow.registry import Primitive, register


def call(flow: Flow, site: Site, *values: Value) -> list[Value]:
    """Follow the called jaxpr."""
    return flow.call(equations.body(site.params), values)


def run_call(ev: Evaluation, site: Site, *arrays):
    """Run the called jaxpr in place of the call."""
    return ev.run(site.children[0], arrays)


def walk_call(walk, site: Site, operands):
    """Walk through the called jaxpr."""
    return walk.run(site.children[0], operands)


register(
    "jit pjit closed_call core_call",
    Primitive(call, small=run_call, masked=run_call, varies=walk_call),
)


def run_remat(ev: Evaluation, site: Site, *arrays):
    """Keep recomputing in the backward pass, under the same policy."""

    def function(*arrays):
        return ev.run(site.children[0], arrays)

    keep = {k: site.params[k] for k in ("prevent_cse", "policy") if k in site.params}
    return jax.checkpoint(function, **keep)(*arrays)


register(
    "remat2 remat checkpoint",
    Primitive(call, small=run_remat, masked=run_remat, varies=walk_call),
)


def cond(flow: Flow, site: Site, index: Value, *values: Value) -> list[Value]:
    """Join the results of all branches; count the largest one as work."""
    before, most, first = len(flow.work), [], None
    for number, branch in enumerate(site.params["branches"]):
        outs = flow.call(equations.called(branch), values, f"branch{number}")
        work = flow.work[before:]
        del flow.work[before:]
        most = max(most, work, key=lambda w: sum(item.macs for item in w))
        first = outs if first is None else join(flow, first, outs)
    flow.work += most
    return [Value(value.axes) for value in first or ()]


def join(flow: Flow, xs, ys) -> list[Value]:
    """Join two lists of values, axis by axis."""
    return [
        Value(tuple(flow.unify(a, b) for a, b in zip(x.axes, y.axes, strict=True)))
        for x, y in zip(xs, ys, strict=True)
    ]


def run_cond(ev: Evaluation, site: Site, index, *arrays):
    """Run the same branches, smaller."""
    branches = [lambda *xs, frame=frame: ev.run(frame, xs) for frame in site.children]
    return jax.lax.switch(index, branches, *arrays)


register("cond", Primitive(cond, small=run_cond, masked=run_cond))


def _parts_of_while(params, operands):
    """Return the constants of the condition and of the body, and what is carried."""
    n, m = params["cond_nconsts"], params["body_nconsts"]
    return operands[:n], operands[n : n + m], operands[n + m :]


def while_(flow: Flow, site: Site, *values: Value) -> list[Value]:
    """Join what goes into the body and what comes out; count one trip as work."""
    params = site.params
    tests, consts, carry = _parts_of_while(params, values)
    carry = [Value(value.axes) for value in carry]
    flow.call(equations.called(params["cond_jaxpr"]), [*tests, *carry], "cond")
    body = equations.called(params["body_jaxpr"])
    return join(flow, carry, flow.call(body, [*consts, *carry], "body"))


def run_while(ev: Evaluation, site: Site, *arrays):
    """Run the same loop over a smaller carry."""
    tests, consts, carry = _parts_of_while(site.params, arrays)
    test, body = site.children
    return jax.lax.while_loop(
        lambda carry: ev.run(test, [*tests, *carry])[0],
        lambda carry: ev.run(body, [*consts, *carry]),
        list(carry),
    )


register("while", Primitive(while_, small=run_while, masked=run_while))


def scan(flow: Flow, site: Site, *values: Value) -> list[Value]:
    """Join the carry and what comes out; pin steps, and the layers of a stack."""
    params = site.params
    parts = equations.scan_parts(params)
    consts, rest = values[: parts.consts], values[parts.consts :]
    slices = [_slice_of(flow, value) for value in rest[parts.carry :]]
    zero = _zero_carry(flow, params, consts, rest[: parts.carry], slices)
    carry = [
        Value(value.axes, None, z)
        for value, z in zip(rest[: parts.carry], zero, strict=True)
    ]
    trips = flow.trips
    flow.trips *= params["length"]
    body = equations.called(params["jaxpr"])
    outs = flow.call(body, [*consts, *carry, *slices], "body")
    flow.trips = trips
    steps = flow.fixed(Reason.LAYERS, "the steps of a scan")
    stacked = [Value((steps, *value.axes)) for value in outs[len(carry) :]]
    joined = join(flow, carry, outs[: len(carry)])
    joined = [out._replace(zero_axes=z) for out, z in zip(joined, zero, strict=True)]
    return [*joined, *stacked]


def _zero_carry(flow: Flow, params, consts, carry, slices) -> list[frozenset[int]]:
    """Return the axes along which what a scan carries is zero at every step.

    It is what it starts with and every step keeps. Only sums over channels ask for it.
    """
    if flow.norms == PINNED:
        return [frozenset()] * len(carry)
    zero = [value.zero_axes for value in carry]
    while True:
        trial = Flow(flow.norms)
        known = [value.zero_axes for value in consts] + zero
        known += [value.zero_axes for value in slices]
        args = [
            _like(trial, value, z)
            for value, z in zip((*consts, *carry, *slices), known, strict=True)
        ]
        outs, _ = trial.run(equations.called(params["jaxpr"]), args)
        kept = [z & out.zero_axes for z, out in zip(zero, outs, strict=False)]
        if kept == zero:
            return zero
        zero = kept


def _like(trial: Flow, value: Value, zero_axes: frozenset[int]) -> Value:
    """Return a value of another flow that is fixed along the same axes."""
    fixed = trial.fixed(Reason.RESULT, "an axis that stays")
    axes = tuple(
        fixed if isinstance(axis, Fixed) else trial.fresh(len(axis))
        for axis in value.axes
    )
    return Value(axes, None, zero_axes)


def _slice_of(flow: Flow, value: Value) -> Value:
    """Return what one step of a scan reads of a stacked array."""
    flow.pin(value.axes[0], Reason.LAYERS, "runs over it, step by step")
    source = value.source
    if source is not None:
        source = Source(source.leaf, source.axes[1:])
    zero_axes = frozenset(d - 1 for d in value.zero_axes if d > 0)
    return Value(value.axes[1:], source, zero_axes)


def run_scan(ev: Evaluation, site: Site, *arrays):
    """Run the same loop over smaller carries and slices."""
    params = site.params
    parts = equations.scan_parts(params)
    consts, rest = arrays[: parts.consts], list(arrays[parts.consts :])
    (frame,) = site.children

    def step(carry, slices):
        outs = ev.run(frame, [*consts, *carry, *slices[0]])
        return outs[: parts.carry], outs[parts.carry :]

    # The second array says how many steps: `length` must not be symbolic.
    carry, stacked = jax.lax.scan(
        step,
        rest[: parts.carry],
        (rest[parts.carry :], jnp.empty((params["length"], 0), bool)),
        reverse=params["reverse"],
        unroll=params["unroll"],
    )
    return [*carry, *stacked]


register("scan", Primitive(scan, small=run_scan, masked=run_scan))
