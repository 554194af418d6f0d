"""The latent garrote of channels: limits at every step, gates, the derivative."""

import functools
import itertools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import jaxprune
from jaxprune import costs
from jaxprune.base import Limit

SIZES = (6, 24, 16, 30, 4)


def _network(x):
    """Three hidden layers, of which each is a group."""

    def apply_fn(params, x):
        for i in range(3):
            x = jnp.tanh(x @ params[f"w{i}"])
        return x @ params["w3"]

    rng = np.random.default_rng(0)
    params = {
        f"w{i}": jnp.asarray(rng.normal(size=shape) / np.sqrt(shape[0]), jnp.float32)
        for i, shape in enumerate(itertools.pairwise(SIZES))
    }
    return apply_fn, params, jaxprune.trace_channels(apply_fn, params, x)


@pytest.fixture
def x():
    return jnp.asarray(np.random.default_rng(1).normal(size=(32, 6)), jnp.float32)


def _macs(counts):
    """Operations of the chain, as a fraction of the dense ones."""
    widths = [SIZES[0], *counts, SIZES[-1]]
    dense = sum(a * b for a, b in itertools.pairwise(SIZES))
    return sum(a * b for a, b in itertools.pairwise(widths)) / dense


def _reference(shares, limit):
    """Numbers of channels in double precision, by trying logits one by one."""
    offsets = (np.arange(3) + 1) * (np.sqrt(5) - 1) / 2 % 1
    best = np.ones(3)
    for a in np.linspace(-8, 20, 200_001):
        k = 1 / (1 + np.exp(-(a + np.asarray(shares))))
        counts = np.clip(np.floor(k * SIZES[1:4] + offsets), 1, SIZES[1:4])
        if _macs(counts) > limit:
            break
        best = counts
    return best


def _pruner(graph, limit=0.4, **kwargs):
    target = jaxprune.at_most(costs.macs(graph), limit)
    return jaxprune.channel_garrote(graph, target, steps=10, **kwargs)


def _variables(graph, shares):
    return dict(zip(graph.groups, map(jnp.float32, shares), strict=True))


@pytest.mark.parametrize("shares", [(0, 0, 0), (0.7, -1.2, 0.2), (4.0, -3.0, 0.0)])
@pytest.mark.parametrize("power", [1.0, 2.5, 4.0])
def test_the_network_is_that_of_the_formula(x, shares, power):
    _, params, graph = _network(x)
    pruner = _pruner(graph, power=power)
    pruned = jax.jit(pruner.apply)(params, _variables(graph, shares), step=10)
    counts = _reference(shares, 0.4).astype(int)
    for i, (name, count) in enumerate(zip(graph.groups, counts, strict=True)):
        w, reader = np.asarray(params[f"w{i}"], np.float64), params[f"w{i + 1}"]
        b = np.sqrt(np.mean(w**2, axis=0))
        t = np.sort(b)[::-1][count] if count < len(b) else 0
        gates = np.where(b > t, 1 - (t / b) ** (power * b.mean() / b.std()), 0)
        want = np.asarray(reader) * gates[:, None]
        np.testing.assert_allclose(pruned.params[f"w{i + 1}"], want, atol=2e-6)
        assert float(pruned.keep_ratios[name]) == pytest.approx(count / len(b))
    np.testing.assert_array_equal(pruned.params["w0"], params["w0"])


def test_every_limit_is_met_at_every_step(x):
    _, params, graph = _network(x)
    macs, weights = costs.macs(graph), costs.parameters(graph)
    falling = optax.linear_schedule(1.0, 0.3, 8)
    limits = [Limit(macs, falling), jaxprune.at_most(weights, 0.5)]
    pruner = jaxprune.channel_garrote(graph, limits, steps=10)
    apply = jax.jit(pruner.apply)
    variables = _variables(graph, (0.5, -0.5, 0.0))
    last = 1.0
    for step in range(12):
        ratios = jax.device_get(apply(params, variables, step=step).keep_ratios)
        cost = float(macs({n: np.float64(r) for n, r in ratios.items()}))
        assert cost <= float(falling(step)) * (1 + 1e-6)
        if step >= 10:
            assert float(weights(ratios)) <= 0.5 * (1 + 1e-6)
        last = min(last, cost)
    assert 0.2 < last <= 0.3
    # Nothing is removed while the limits allow everything.
    first = apply(params, variables, step=0)
    assert all(float(r) == 1 for r in first.keep_ratios.values())
    np.testing.assert_array_equal(first.params["w2"], params["w2"])


def test_what_is_not_kept_goes_on_learning(x):
    apply_fn, params, graph = _network(x)
    pruner, variables = _pruner(graph), _variables(graph, (0, 0, 0))

    def loss(params, through):
        seen = pruner.apply(params, variables, step=10).params if through else params
        return jnp.sum(apply_fn(seen, x) ** 2)

    seen = pruner.apply(params, variables, step=10).params
    ours = jax.grad(loss)(params, through=True)
    want = jax.grad(loss)(seen, through=False)
    for name in params:  # dv/dw = 1, also of rows that are zero
        np.testing.assert_allclose(ours[name], want[name], rtol=1e-4, atol=1e-5)
    assert np.any(np.asarray(seen["w1"]) == 0, axis=1).any()


@pytest.mark.slow
def test_the_derivative_is_that_along_networks_of_equal_cost():
    # Many channels of known importances: finite differences of counts are smooth.
    sizes = (1, 900, 700, 1)
    rng = np.random.default_rng(2)
    params = {
        f"w{i}": jnp.asarray(np.exp(0.5 * rng.normal(size=shape)), jnp.float32)
        for i, shape in enumerate(itertools.pairwise(sizes))
    }

    def mlp(params, x):
        return jnp.tanh(jnp.tanh(x @ params["w0"]) @ params["w1"]) @ params["w2"]

    graph = jaxprune.trace_channels(mlp, params, jnp.ones((1, 1)))
    cost = costs.macs(graph)
    pruner = _pruner(graph, 0.3)
    weights = [jnp.asarray(rng.normal(size=n), jnp.float32) for n in sizes[1:3]]

    def measured(shares):
        """A smooth function of the gates, and the ratios."""
        variables = _variables(graph, shares)
        pruned = pruner.apply(params, variables, step=10)
        gates = [
            pruned.params[f"w{i}"].mean(1) / params[f"w{i}"].mean(1) for i in (1, 2)
        ]
        pairs = zip(gates, weights, strict=True)
        terms = [jnp.sum(g * (1 + 0.1 * w)) for g, w in pairs]
        return terms[0] - 0.7 * terms[1], pruned.keep_ratios

    shares = jnp.array([0.3, -0.4], jnp.float32)
    (_, ratios), slope = jax.value_and_grad(measured, has_aux=True)(shares)
    far = 0.25
    numeric = []
    for i in range(2):
        step = jnp.zeros(2).at[i].set(far)
        up, down = measured(shares + step)[0], measured(shares - step)[0]
        numeric.append(float(up - down) / (2 * far))
    # The kernel that counts channels is a third as wide as their spread.
    np.testing.assert_allclose(slope, numeric, rtol=0.2)
    # The keep ratios move so that the cost does not.
    moved = jax.jacobian(lambda s: cost(measured(s)[1]))(shares)
    np.testing.assert_allclose(moved, 0, atol=1e-6)
    assert sum(float(r) for r in ratios.values()) < 2


def test_shares_find_the_layer_that_the_loss_needs(x):
    _, params, graph = _network(x)
    pruner = _pruner(graph, 0.3)
    variables = pruner.init(params)
    first, *_ = graph.groups

    @jax.jit
    def step(variables):
        def loss(variables):  # more of the first group is better
            return -pruner.apply(params, variables, step=10).keep_ratios[first]

        return jax.tree.map(lambda v, g: v - g, variables, jax.grad(loss)(variables))

    before = pruner.apply(params, variables, step=10).keep_ratios
    for _ in range(40):
        variables = step(variables)
    after = pruner.apply(params, variables, step=10).keep_ratios
    assert float(after[first]) > float(before[first]) + 0.2
    assert float(costs.macs(graph)(after)) <= 0.3 * (1 + 1e-6)


def test_finalize_and_compact_compute_what_was_trained(x):
    apply_fn, params, graph = _network(x)
    pruning = jaxprune.pruning(_pruner(graph, 0.5))
    optimizer = pruning.optimizer(optax.sgd(0.01))
    trainable = pruning.init(params)
    state = optimizer.init(trainable)

    @jax.jit
    def step(trainable, state):
        def loss(trainable):
            params, penalty = pruning(trainable)
            return jnp.mean(apply_fn(params, x) ** 2) + penalty

        updates, state = optimizer.update(jax.grad(loss)(trainable), state, trainable)
        return optax.apply_updates(trainable, updates), state

    for _ in range(12):
        trainable, state = step(trainable, state)
    small, final = pruning.compact(trainable)
    assert final.report.limits == {"macs": 0.5}
    assert 0.4 < final.report.costs["macs"] <= 0.5
    want = apply_fn(final.params, x)
    got = small.functions["apply_fn"](small.trees[0], x)
    np.testing.assert_allclose(got, want, rtol=1e-5, atol=1e-6)
    # Where no channel was added to fill the limit, the trained network is left.
    variables = trainable["variables"]
    masks = pruning.pruner.masks(trainable["params"], variables)
    weights = pruning.pruner.final_weights(trainable["params"], variables, masks)
    seen = pruning.pruner.apply(trainable["params"], variables, step=12).params
    for name, leaf in seen.items():
        np.testing.assert_allclose(weights[name], leaf, atol=1e-6)


def test_groups_that_are_fixed_keep_their_numbers(x):
    _, params, graph = _network(x)
    first, second, third = graph.groups
    pruner = _pruner(graph, fixed={first: 1.0, second: 0.5})
    variables = pruner.init(params)
    assert list(variables) == [third]
    ratios = pruner.apply(params, variables, step=10).keep_ratios
    assert first not in ratios
    assert float(ratios[second]) == 0.5
    prior = costs.relative_entropy(graph)  # of the groups that may shrink
    assert float(prior(ratios)) >= 0
    masks = pruner.masks(params, variables)
    assert masks[first].all()
    assert masks[second].sum() == 8
    kept = {n: np.float64(m.mean()) for n, m in masks.items()}
    assert float(costs.macs(graph)(kept)) <= 0.4


def test_equal_importances_are_kept_whole_or_not_at_all(x):
    _, params, graph = _network(x)
    equal = lambda params: {n: jnp.ones(g.size) for n, g in graph.groups.items()}
    pruner = _pruner(graph, importance=equal)
    pruned = pruner.apply(params, pruner.init(params), step=10)
    for i, ratio in enumerate(pruned.keep_ratios.values(), start=1):
        rows = np.asarray(pruned.params[f"w{i}"] / params[f"w{i}"])
        assert set(np.unique(rows)) <= {0.0, 1.0}
        assert rows.mean() == pytest.approx(float(ratio))


def test_weights_that_are_nan_do_not_vanish(x):
    _, params, graph = _network(x)
    params["w1"] = params["w1"].at[3, 2].set(jnp.nan)
    pruned = _pruner(graph).apply(params, _variables(graph, (0, 0, 0)), step=10)
    assert np.isnan(np.asarray(pruned.params["w1"])).any()


@pytest.mark.parametrize(
    ("kwargs", "message"),
    [
        ({"power": 0.0}, r"channel_garrote\(power=0.0\)"),
        ({"fixed": {"*": 1.0}}, "must leave a group"),
        ({"fixed": {"nope": 1.0}}, r"channel_garrote\(fixed=\{'nope'.*matches none"),
        ({"limit": 1e-4}, r"channel_garrote\(limits\)`: `at_most` of 'macs', 0.0001"),
    ],
)
def test_what_is_out_of_range_is_refused(x, kwargs, message):
    with pytest.raises(ValueError, match=message):
        _pruner(_network(x)[2], **kwargs)


def test_what_is_missing_is_refused(x):
    _, params, graph = _network(x)
    pruner = _pruner(graph)
    with pytest.raises(ValueError, match="the limits need the step"):
        pruner.apply(params, pruner.init(params))
    with pytest.raises(ValueError, match=r"variables must be those of \['w0:1'"):
        pruner.apply(params, {"w0:1": jnp.float32(0)}, step=1)
    with pytest.raises(ValueError, match="must be a limit or several"):
        jaxprune.channel_garrote(graph, [], steps=3)
    with pytest.raises(TypeError, match=r"must be a `Limit`, got 0\.5"):
        jaxprune.channel_garrote(graph, [0.5], steps=3)
    with pytest.raises(ValueError, match="the method holds its limits itself"):
        jaxprune.pruning(pruner, jaxprune.at_most(costs.macs(graph), 0.5))
    never = Limit(costs.macs(graph), lambda step: 1e-4 + 0.0 * step)
    with pytest.raises(ValueError, match="smallest reachable cost"):
        jaxprune.channel_garrote(graph, never, steps=3)


def test_a_cost_of_ones_own_is_held_too(x):
    _, params, graph = _network(x)
    mean = lambda ratios: sum(ratios.values()) / 3
    target = jaxprune.at_most(mean, 0.5, name="mean")
    pruner = jaxprune.channel_garrote(graph, target, steps=1)
    ratios = pruner.apply(params, pruner.init(params), step=1).keep_ratios
    assert 0.45 < float(mean(ratios)) <= 0.5 * (1 + 1e-6)


@pytest.mark.slow
def test_it_runs_under_vmap_and_in_half_precision(x):
    _, params, graph = _network(x)
    half = jax.tree.map(lambda w: w.astype(jnp.bfloat16), params)
    pruner = _pruner(graph)
    variables = _variables(graph, (0.3, 0.0, -0.3))
    one = pruner.apply(half, variables, step=10)
    assert one.params["w1"].dtype == jnp.bfloat16
    stacked = jax.tree.map(lambda v: jnp.stack([v, -v]), variables)
    both = jax.vmap(lambda v: pruner.apply(params, v, step=10).keep_ratios)(stacked)
    alone = pruner.apply(params, variables, step=10).keep_ratios
    for name, ratio in alone.items():
        np.testing.assert_array_equal(both[name][0], ratio)


@pytest.mark.parametrize("way", ["sharded", "shard_map"])
def test_devices_agree_with_one(x, way):
    apply_fn, params, graph = _network(x)
    pruner = _pruner(graph)
    variables = _variables(graph, (0.3, 0.0, -0.3))
    mesh = jax.make_mesh((2,), ("d",), (jax.sharding.AxisType.Auto,))

    def slopes(params, variables, x, mean=lambda loss: loss):
        def loss(params, variables):
            seen, ratios = pruner.apply(params, variables, step=10)
            cost = sum(ratios.values())
            return mean(jnp.mean(apply_fn(seen, x) ** 2) + 0.1 * cost)

        return jax.grad(loss, (0, 1))(params, variables)

    want = jax.jit(slopes)(params, variables, x)
    spec = jax.sharding.PartitionSpec
    if way == "sharded":
        place = lambda a, s: jax.device_put(a, jax.sharding.NamedSharding(mesh, s))
        split = {n: place(w, spec("d", None)) for n, w in params.items()}
        got = jax.jit(slopes)(split, variables, place(x, spec("d")))
    else:
        over = functools.partial(slopes, mean=lambda x: jax.lax.pmean(x, "d"))
        mapped = jax.shard_map(
            over,
            mesh=mesh,
            in_specs=(spec(), spec(), spec("d")),
            out_specs=spec(),
        )
        got = jax.jit(mapped)(params, variables, x)
    for one, other in zip(*map(jax.tree.leaves, (want, got)), strict=True):
        np.testing.assert_allclose(other, one, rtol=1e-4, atol=1e-6)


def test_shares_move_by_adam_at_a_hundredth_by_default(x):
    _, params, graph = _network(x)
    pruner = _pruner(graph)
    variables = pruner.init(params)
    state = pruner.optimizer.init(variables)
    moved, _ = pruner.optimizer.update(variables, state)  # of gradients 0
    assert not any(jax.tree.leaves(moved))
    ones = jax.tree.map(jnp.ones_like, variables)
    moved, _ = pruner.optimizer.update(ones, state)
    assert len(moved) == 3
    np.testing.assert_allclose(jax.tree.leaves(moved), -0.01, rtol=1e-5)
