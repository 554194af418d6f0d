"""Rules of primitives that call other jaxprs: calls, branches and loops."""

from jaxprune.channels._flow.flow import Flow, Source, Value, rule


@rule("jit", "pjit", "closed_call", "core_call", "custom_jvp_call", "custom_vjp_call")
def call(flow: Flow, equation, *values: Value) -> list[Value]:
    """A call is what it calls."""
    params = equation.params
    jaxpr = params["call_jaxpr"] if "call_jaxpr" in params else params["jaxpr"]
    if hasattr(jaxpr, "consts"):
        return flow.closed(jaxpr, values)
    return flow.call(jaxpr, (), values)


@rule("remat2", "remat", "checkpoint")
def remat(flow: Flow, equation, *values: Value) -> list[Value]:
    """Recomputing changes nothing."""
    return flow.call(equation.params["jaxpr"], (), values)


@rule("cond")
def cond(flow: Flow, equation, index: Value, *values: Value) -> list[Value]:
    """The results of all branches join; the largest branch counts as work."""
    before, most, first = len(flow.work), [], None
    for number, branch in enumerate(equation.params["branches"]):
        outs = flow.closed(branch, values, f"branch{number}")
        work = flow.work[before:]
        del flow.work[before:]
        most = max(most, work, key=lambda w: sum(item.macs for item in w))
        first = join(flow, first, outs) if first else outs
    flow.work += most
    return [Value(value.axes) for value in first or ()]


def join(flow: Flow, xs, ys) -> list[Value]:
    """Joins two lists of values, axis by axis."""
    return [
        Value(tuple(flow.unify(a, b) for a, b in zip(x.axes, y.axes, strict=True)))
        for x, y in zip(xs, ys, strict=True)
    ]


@rule("while")
def while_(flow: Flow, equation, *values: Value) -> list[Value]:
    """What goes into the body joins what comes out; one trip counts as work."""
    params = equation.params
    n, m = params["cond_nconsts"], params["body_nconsts"]
    tests, consts, carry = values[:n], values[n : n + m], values[n + m :]
    carry = [Value(value.axes) for value in carry]
    flow.closed(params["cond_jaxpr"], [*tests, *carry], "cond")
    outs = flow.closed(params["body_jaxpr"], [*consts, *carry], "body")
    return join(flow, carry, outs)


@rule("scan")
def scan(flow: Flow, equation, *values: Value) -> list[Value]:
    """The carry joins what comes out; steps, and the layers of a stack, stay."""
    params = equation.params
    n, m = params["num_consts"], params["num_consts"] + params["num_carry"]
    consts, carry = values[:n], [Value(value.axes) for value in values[n:m]]
    slices = []
    for value in values[m:]:
        flow.pin(value.axes[0], "runs over it, step by step")
        source = value.source
        if source is not None:
            source = Source(source.leaf, source.axes[1:])
        silent = frozenset(d - 1 for d in value.silent if d > 0)
        slices.append(Value(value.axes[1:], source, silent))
    trips = params["length"]
    flow.trips *= trips
    outs = flow.closed(params["jaxpr"], [*consts, *carry, *slices], "body")
    flow.trips //= max(trips, 1)
    steps = flow.atoms.fixed("the steps of a scan")
    stacked = [Value((steps, *value.axes)) for value in outs[len(carry) :]]
    return [*join(flow, carry, outs[: len(carry)]), *stacked]
