"""Properties that hold for any input, tried on inputs that hypothesis makes up.

Whatever is given, the library answers rightly or refuses in its own words: a ValueError
or TypeError whose message begins with the function that was called. `JAXPRUNE_FUZZ=n`
tries n inputs of each property, other ones every time; without it few are tried, always
the same.
"""

import fnmatch
import functools
import os
import re

import flax
import hypothesis
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from hypothesis import strategies as st

import jaxprune
from jaxprune import channels, costs, prox, schedules, transforms, tree
from jaxprune.base import Limit

FUZZ = int(os.environ.get("JAXPRUNE_FUZZ", "0"))


def tried(number):
    """Tries a property on so many inputs, or on as many as `JAXPRUNE_FUZZ` says."""
    return hypothesis.settings(
        max_examples=FUZZ or number,
        derandomize=not FUZZ,
        deadline=None,
        database=None,
        suppress_health_check=list(hypothesis.HealthCheck),
    )


def refused(call):
    """The result of a call, or None if the library refuses it in its own words."""
    try:
        return call()
    except (ValueError, TypeError) as error:
        if not re.match(r"`[a-z_.\d]+[(`\[]", str(error)):
            raise
        return None


# Inputs. Shapes come from a short list, so that programs are compiled once.

SHAPES = [(), (0,), (5,), (4, 3), (2, 4, 3)]
FLOATS = [jnp.float32, jnp.bfloat16, jnp.float16]
NAMES = ["kernel", "bias", "scale", "w", "embedding", "a.b", "k/v"]
RATIOS = st.one_of(
    st.floats(0, 1, width=32),
    st.integers(1, 99).map(lambda percent: percent / 100),
    st.sampled_from([0.0, 1.0, -0.5, 1.5, float("nan"), 1e-9, 1 / 3]),
)


@st.composite
def arrays(draw, dtypes=(*FLOATS, jnp.int32, jnp.bool_)):
    """An array: random numbers, all equal ones, with zeros, with NaN or infinity."""
    shape, dtype = draw(st.sampled_from(SHAPES)), draw(st.sampled_from(dtypes))
    rng = np.random.default_rng(draw(st.integers(0, 99)))
    values = rng.normal(size=shape)
    if draw(st.booleans()):
        values = np.round(values)
    special = draw(st.sampled_from([None, None, None, 0.0, -0.0, 1e4, np.inf, np.nan]))
    if special is not None and jnp.issubdtype(dtype, jnp.floating):
        values = np.where(rng.random(shape) < 0.2, special, values)
    return jnp.asarray(values).astype(dtype)


_ANY = arrays()


@st.composite
def trees(draw, leaves=_ANY):
    """Parameters: a dictionary of layers, in one of several containers."""
    layers = draw(
        st.lists(
            st.dictionaries(st.sampled_from(NAMES), leaves, max_size=2), max_size=2
        )
    )
    kind = draw(st.sampled_from(["dict", "frozen", "tuple", "list"]))
    if kind in ("tuple", "list"):
        return (tuple if kind == "tuple" else list)(layers)
    named = {f"layer{i}": layer for i, layer in enumerate(layers)}
    return flax.core.freeze(named) if kind == "frozen" else named


WHERE = st.sampled_from(
    [
        tree.kernels,
        "*",
        "*kernel",
        ("*bias", "*w"),
        True,
        tree.selection(exclude="*scale"),
        tree.selection("*", exclude="*bias"),
        lambda params: jax.tree.map(lambda leaf: jnp.ndim(leaf) > 1, params),
    ]
)


def chosen(params, where):
    """The selected leaves by name, or None if the selection is refused."""
    return refused(lambda: tree.select(params, where))


def has_nan(arrays_):
    return any(bool(jnp.isnan(x.astype(jnp.float32)).any()) for x in arrays_)


# Selections and masks.


@tried(40)
@hypothesis.given(trees(), WHERE)
def test_a_selection_selects_leaves_that_are_there_or_is_refused(params, where):
    found = chosen(params, where)
    if found is None:
        return
    known = tree.named_leaves(params)
    assert found.keys() <= known.keys()
    flags = tree.named_leaves(tree.resolve(params, where))
    assert {name for name, flag in flags.items() if flag} == found.keys()
    if isinstance(where, str):
        assert all(fnmatch.fnmatch(name, where) for name in found)


PRUNERS = {
    "global_magnitude": lambda where: jaxprune.global_magnitude(
        sparsity=0.5, where=where
    ),
    "magnitude": lambda where: jaxprune.magnitude(sparsity=0.5, where=where),
    "ltp": lambda where: jaxprune.ltp(where=where),
    "soft_thresholding": lambda where: jaxprune.soft_thresholding(where=where),
    "random_erk": lambda where: jaxprune.random_erk(jax.random.key(0), where=where),
}


@tried(20)
@hypothesis.given(trees(), WHERE, RATIOS, st.sampled_from(sorted(PRUNERS)))
def test_masks_keep_what_was_asked_or_are_refused(params, where, keep_ratio, method):
    pruner = refused(lambda: PRUNERS[method](where))
    variables = refused(lambda: pruner.init(params))
    if variables is None:
        return
    masks = refused(lambda: pruner.masks(params, variables, keep_ratio=keep_ratio))
    if masks is None:
        return
    assert 0 < keep_ratio <= 1
    selected, masks = chosen(params, where), tree.named_leaves(masks)
    for name, mask in masks.items():
        assert mask.dtype == bool
        assert name in selected or bool(np.all(mask))
    sizes = {name: leaf.size for name, leaf in selected.items()}
    kept = {name: int(jnp.sum(masks[name])) for name in selected}
    size = sum(sizes.values())
    total = jaxprune.masks.keep_count(keep_ratio, size)
    assert sum(kept.values()) == total
    if method == "magnitude":  # Which rounds what each leaf keeps of the total.
        assert all(abs(kept[n] - total * sizes[n] / size) < 1 for n in kept)


@tried(15)
@hypothesis.given(trees(arrays(FLOATS)), RATIOS, st.sampled_from(sorted(PRUNERS)))
def test_no_nan_is_pruned_in_silence(params, keep_ratio, method):
    pruner = PRUNERS[method](tree.selection("*"))
    variables = refused(lambda: pruner.init(params))
    if variables is None:
        return
    masks = refused(lambda: pruner.masks(params, variables, keep_ratio=keep_ratio))
    if masks is None:
        return
    final = pruner.final_weights(params, variables, masks)
    before, after = (tree.named_leaves(x) for x in (params, final))
    assert {n: x.dtype for n, x in before.items()} == {
        n: x.dtype for n, x in after.items()
    }
    if not has_nan(before.values()):
        assert not has_nan(after.values())
    elif method != "random_erk":  # Which does not look at the weights.
        assert has_nan(after.values())


# Proximal operators.

OPERATORS = {
    "soft_threshold": prox.soft_threshold,
    "hard_threshold": prox.hard_threshold,
    "non_negative_soft_threshold": prox.non_negative_soft_threshold,
    "elastic_net": functools.partial(prox.elastic_net, l1=1.0, l2=0.5),
    "group": functools.partial(prox.group_soft_threshold, group_axes=-1),
    "top_k": functools.partial(prox.top_k, keep_ratio=0.3),
    "global_top_k": functools.partial(prox.global_top_k, keep_ratio=0.3),
}


@tried(30)
@hypothesis.given(
    arrays(FLOATS), st.floats(-1, 100, width=32), st.sampled_from(sorted(OPERATORS))
)
def test_proximal_operators_shrink_towards_zero(x, scaling, name):
    got = refused(lambda: OPERATORS[name]({"w": x}, scaling))
    if got is None:
        return
    y = got["w"]
    assert (y.shape, y.dtype) == (x.shape, x.dtype)
    nan = np.isnan(np.asarray(x, np.float32))
    x, y = (np.asarray(leaf, np.float32) for leaf in (x, y))
    if not nan.any():
        assert not np.isnan(y).any()
        assert (np.abs(y) <= np.abs(x)).all()
        assert (np.sign(y) * np.sign(x) >= 0).all()
    elif name == "soft_threshold":
        np.testing.assert_array_equal(np.isnan(y), nan)


# Schedules.

NUMBERS = st.one_of(st.floats(-2, 5), st.sampled_from([0.0, 1.0, float("nan")]))
STEPS = st.integers(-3, 1000)


@tried(30)
@hypothesis.given(NUMBERS, NUMBERS, STEPS, STEPS)
def test_a_ramp_stays_between_its_ends(start, end, begin_step, end_step):
    ramp = refused(
        lambda: schedules.cubic_ramp(
            start, end, begin_step=begin_step, end_step=end_step
        )
    )
    if ramp is None or not np.isfinite([start, end]).all():
        return
    at = [0, begin_step, (begin_step + end_step) // 2, end_step, 10_000]
    values = [float(ramp(max(step, 0))) for step in at]
    low, high = sorted((start, end))
    assert all(low - 1e-5 <= value <= high + 1e-5 for value in values)
    assert values[-1] == pytest.approx(end, abs=1e-5)


@tried(30)
@hypothesis.given(NUMBERS, STEPS, st.sampled_from(["linear", "s_lats", "sine"]))
def test_thresholds_rise_to_their_end(final, steps, name):
    schedule = refused(lambda: getattr(schedules, name)(final, steps))
    if schedule is None:
        return
    values = [float(schedule(step)) for step in (0, steps // 3, steps, 10 * steps)]
    assert all(0 <= value <= final * (1 + 1e-5) + 1e-6 for value in values)
    assert values[-2:] == pytest.approx([final] * 2, rel=1e-4, abs=1e-6)


# Budgets.


# Each limit is a program of its own.
BOUNDS = st.sampled_from([0.05, 0.5, 1.0, 0.0, -0.5, float("nan")])


@tried(6)
@hypothesis.given(
    st.sampled_from(["dual_ascent", "admm"]),
    RATIOS if FUZZ else BOUNDS,
    st.sampled_from([1, 3]),
    st.integers(0, 99),
)
def test_the_state_of_a_budget_is_finite_and_its_penalty_pushes_down(
    name, at_most, sites, seed
):
    def cost(keep_ratios):
        return sum(keep_ratios.values()) / len(keep_ratios)

    budget = refused(lambda: getattr(jaxprune, name)(jaxprune.at_most(cost, at_most)))
    if budget is None:
        return
    rng = np.random.default_rng(seed)
    seen = jnp.asarray(rng.uniform(0, 1, (20, sites)), jnp.float32)
    as_dict = lambda row: {f"s{i}": row[i] for i in range(sites)}
    state = refused(lambda: budget.init(as_dict(seen[0])))
    if state is None:
        return

    @jax.jit
    def run(state):
        def one(state, row):
            gradient = jax.grad(budget.penalty)(as_dict(row), state)
            return budget.update(as_dict(row), state), gradient

        return jax.lax.scan(one, state, seen)

    state, gradients = run(state)
    for leaf in jax.tree.leaves(state):
        assert np.isfinite(np.asarray(leaf, np.float32)).all()
    for gradient in gradients.values():
        assert np.isfinite(gradient).all()
        assert name == "admm" or (np.asarray(gradient) >= 0).all()


# Channels.


@functools.cache
def chain(widths):
    """The graph of layers of these widths, one behind the other."""

    def apply_fn(params, x):
        for i in range(len(params) - 1):
            x = jnp.tanh(x @ params[f"w{i}"])
        return x @ params[f"w{len(params) - 1}"]

    sizes = (3, *widths, 2)
    params = {
        f"w{i}": jax.ShapeDtypeStruct(sizes[i : i + 2], jnp.float32)
        for i in range(len(sizes) - 1)
    }
    x = jax.ShapeDtypeStruct((1, 3), jnp.float32)
    return channels.trace_channels(apply_fn, params, x)


@tried(25)
@hypothesis.given(
    st.sampled_from([(4,), (5, 9), (16, 3, 7)]),
    st.lists(RATIOS, min_size=3, max_size=3),
    st.lists(RATIOS, min_size=1, max_size=2),
    st.sampled_from([1, 2, 8]),
)
def test_rounded_channels_exceed_no_limit(widths, ratios, bounds, multiple_of):
    graph = chain(widths)
    kinds = (costs.macs, costs.parameters)
    keep_ratios = dict(zip(graph.groups, ratios, strict=False))
    limits = [
        Limit(kind(graph), bound, kind.__name__)
        for kind, bound in zip(kinds, bounds, strict=False)
    ]
    counts = refused(
        lambda: channels.round_to_limits(
            graph, keep_ratios, limits, multiple_of=multiple_of
        )
    )
    if counts is None:
        return
    for name, group in graph.groups.items():
        assert 1 <= counts[name] <= group.size
        assert counts[name] % multiple_of == 0 or counts[name] == group.size
    reached = {
        name: np.float64(counts[name] / group.size)
        for name, group in graph.groups.items()
    }
    for limit in limits:
        assert float(limit.cost(reached)) <= limit.at_most * (1 + 1e-6)


# Transformations.

COMPLETE = {
    "lats": lambda s: transforms.lats(optax.sgd(0.1), sparsity=s, steps=4),
    "ista": lambda s: optax.chain(optax.sgd(0.1), transforms.ista(sparsity=s, steps=4)),
    "gradual_magnitude": lambda s: transforms.gradual_magnitude(
        optax.sgd(0.1), sparsity=s, steps=4
    ),
}
WRAPPERS = {
    "plain": lambda tx: tx,
    "clipped": lambda tx: optax.chain(optax.clip_by_global_norm(1.0), tx),
    "masked": lambda tx: optax.masked(tx, {"a": True, "b": False}),
    "partition": lambda tx: optax.partition(
        {"x": tx, "y": optax.sgd(0.1)}, {"a": "x", "b": "y"}
    ),
    "every other": lambda tx: optax.MultiSteps(tx, 2),
}


# That steps of 16-bit weights are rounded is said, and true.
@pytest.mark.filterwarnings("ignore:.*was given master weights:UserWarning")
@tried(6)
@hypothesis.given(
    st.sampled_from(sorted(COMPLETE)),
    st.sampled_from(sorted(WRAPPERS)),
    st.sampled_from(FLOATS),
    RATIOS,
)
def test_an_asked_sparsity_is_reached_inside_every_wrapper(
    method, wrapper, dtype, sparsity
):
    make = lambda: WRAPPERS[wrapper](COMPLETE[method](sparsity))
    tx = refused(make)
    if tx is None:
        return
    rng = np.random.default_rng(0)
    draw = lambda *shape: jnp.asarray(rng.normal(size=shape), dtype)
    params = {"a": {"kernel": draw(8, 5)}, "b": {"bias": draw(5)}}
    gradient = jax.tree.map(lambda p: 0.1 * jnp.ones_like(p), params)

    @jax.jit
    def step(carry):
        params, state = carry
        updates, state = tx.update(gradient, state, params)
        return optax.apply_updates(params, updates), state

    state = refused(lambda: tx.init(params))
    if state is None:
        return
    carry = params, state
    for _ in range(12):
        carry = step(carry)
    kernel, bias = carry[0]["a"]["kernel"], carry[0]["b"]["bias"]
    assert (kernel.dtype, bias.dtype) == (dtype, dtype)
    assert np.isfinite(np.asarray(kernel, np.float32)).all()
    size = kernel.size
    least = size - jaxprune.masks.keep_count(1 - sparsity, size) if sparsity < 1 else 0
    assert int(jnp.sum(kernel == 0)) >= least - 1
    assert not bool(jnp.any(bias == 0))
