"""DSA: gates equal masks, keep ratios learn, budgets are met to the channel."""

import functools
import itertools
import re
from pathlib import Path

import chex
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import jaxprune
from jaxprune import channels, costs
from jaxprune.base import Limit
from jaxprune.channels import apply_gates, plan_gates
from jaxprune.methods import bernoulli_mask, concrete_mask, deterministic_mask
from tests.support.networks import ResNet


@functools.cache
def _network():
    """A residual network of eight layers, its graph, and a batch of small images."""
    model = ResNet(num_classes=10, blocks_per_stage=1)
    x = jax.random.normal(jax.random.key(1), (4, 8, 8, 1))
    tree = jax.jit(lambda: model.init(jax.random.key(0), x, train=False))()
    # Scales that differ, as training makes them.
    keys = iter(jax.random.split(jax.random.key(2), 99))
    tree["params"] = jax.tree_util.tree_map_with_path(
        lambda path, leaf: (
            jax.random.uniform(next(keys), leaf.shape, minval=0.2, maxval=2.0)
            if path[-1].key == "scale"
            else leaf
        ),
        tree["params"],
    )
    apply_fn = functools.partial(_apply, model)
    return apply_fn, tree, jaxprune.trace_channels(apply_fn, tree, x), x


def _apply(model, tree, x):
    return model.apply(tree, x, train=True, mutable=["batch_stats"])[0]


def test_gates_of_zero_and_one_are_the_masked_network():
    apply_fn, tree, graph, x = _network()
    masks = jaxprune.channels.random_channel_masks(jax.random.key(3), graph, 0.5)
    want = jax.jit(graph.masked(masks))(tree, x)
    gates = {name: jnp.asarray(mask, jnp.float32) for name, mask in masks.items()}
    plan = plan_gates(graph)
    apply = jax.jit(apply_fn)
    np.testing.assert_allclose(
        apply(apply_gates(plan, tree, gates), x), want, atol=1e-6
    )
    part = {**tree, "params": apply_gates(plan, tree["params"], gates)}
    np.testing.assert_allclose(apply(part, x), want, atol=1e-6)


def test_gates_multiply_the_activations_that_are_read():
    def apply_fn(params, x):
        return jnp.tanh(x @ params["w1"] + params["b1"][None]) @ params["w2"]

    rng = np.random.default_rng(0)
    draw = lambda *shape: jnp.asarray(rng.normal(size=shape), jnp.float32)
    params = {"w1": draw(3, 5), "b1": draw(5), "w2": draw(5, 2)}
    x, gate = draw(7, 3), jnp.asarray(rng.random(5), jnp.float32)
    plan = plan_gates(jaxprune.trace_channels(apply_fn, params, x))

    def gated(gate):
        return apply_fn(apply_gates(plan, params, {"w1:1": gate}), x)

    def by_hand(gate):
        hidden = jnp.tanh(x @ params["w1"] + params["b1"][None])
        return (hidden * gate[None]) @ params["w2"]

    np.testing.assert_allclose(gated(gate), by_hand(gate), rtol=1e-5)
    loss = lambda f: lambda g: jnp.sum(jnp.sin(f(g)))
    np.testing.assert_allclose(
        jax.grad(loss(gated))(gate), jax.grad(loss(by_hand))(gate), rtol=1e-4
    )


@pytest.mark.parametrize(
    ("gates", "message"),
    [
        ({"nothing": jnp.ones(3)}, "no group is called 'nothing'"),
        (
            {"params/conv0/kernel:3": jnp.ones(3)},
            r"must have shape \(16,\), got \(3,\)",
        ),
    ],
)
def test_gates_that_do_not_fit_are_refused(gates, message):
    _, tree, graph, _ = _network()
    with pytest.raises(ValueError, match=message):
        apply_gates(plan_gates(graph), tree, gates)
    with pytest.raises(ValueError, match="reads channels and is missing"):
        apply_gates(plan_gates(graph), {"other": jnp.ones(3)}, {})


def test_importances_are_what_they_say():
    apply_fn, tree, graph, x = _network()
    params, sign = tree["params"], np.where(np.arange(16) % 3, 1, -1)
    name = "params/stage1_block1/conv1/kernel:3"
    block = dict(params["stage1_block1"])
    # A scale may be negative: its size counts.
    block["bn1"] = {**block["bn1"], "scale": sign * block["bn1"]["scale"]}
    params = {**params, "stage1_block1": block}
    tree = {**tree, "params": params}
    scale = jnp.abs(block["bn1"]["scale"])
    filters = jnp.mean(jnp.abs(block["conv1"]["kernel"]), axis=(0, 1, 2))
    near = functools.partial(np.testing.assert_allclose, rtol=1e-5)
    near(channels.norm_scales(graph)(params)[name], scale)
    near(channels.filter_norms(graph)(params)[name], filters)
    both = channels.filter_norms_and_scales(graph)(params)[name]
    near(both, scale * filters)
    square = channels.filter_norms(graph, order=2)(params)[name]
    near(square, jnp.sqrt(jnp.mean(block["conv1"]["kernel"] ** 2, axis=(0, 1, 2))))
    # Filters of nine weights for each of 16 inputs, and one scale.
    whole = (9 * 16 * square**2 + scale**2) / (9 * 16 + 1)
    near(channels.channel_norms(graph)(params)[name], jnp.sqrt(whole))
    # Of a residual stream the first norm counts, and all four filters.
    stream = "params/conv0/kernel:3"
    near(channels.norm_scales(graph)(params)[stream], params["bn0"]["scale"])
    # The whole tree is read as its part is.
    chex.assert_trees_all_close(
        channels.filter_norms(graph)(tree), channels.filter_norms(graph)(params)
    )

    def loss(params):
        return jnp.sum(apply_fn({**tree, "params": params}, x) ** 2)

    taylor = jax.jit(channels.taylor(graph, loss))(params)[name]
    kernel = block["conv2"]["kernel"]
    slope = jax.jit(jax.grad(loss))(params)["stage1_block1"]["conv2"]["kernel"]
    near(taylor, jnp.abs(jnp.sum(kernel * slope, axis=(0, 1, 3))), rtol=1e-3)


def _mlp():
    def apply_fn(params, x):
        return jnp.tanh(x @ params["w1"]) @ params["w2"]

    params = {"w1": jnp.ones((3, 8)), "w2": jnp.ones((8, 2))}
    return params, jaxprune.trace_channels(apply_fn, params, jnp.ones((1, 3)))


def test_all_weights_that_make_a_group_must_have_the_shape_that_was_traced():
    def apply_fn(params, x):
        return jnp.tanh(x @ params["a"] + x @ params["b"]) @ params["out"]

    kernel = jnp.ones((3, 8))
    params = {"a": kernel, "b": -2 * kernel, "out": jnp.ones((8, 2))}
    graph = jaxprune.trace_channels(apply_fn, params, jnp.ones((1, 3)))
    importance = channels.filter_norms(graph)
    ((_, norms),) = importance(params).items()
    np.testing.assert_allclose(norms, 1.5 * np.ones(8), rtol=1e-6)
    with pytest.raises(ValueError, match=r"'b' must have .*\(3, 8\); got none of"):
        importance({"a": params["a"], "out": params["out"]})
    with pytest.raises(ValueError, match=r"'b' must have .*\(3, 8\); got \(3, 7\)"):
        importance({**params, "b": jnp.ones((3, 7))})
    # What only reads the channels does not count, and may be missing.
    ((_, alone),) = importance({"a": params["a"], "b": params["b"]}).items()
    np.testing.assert_array_equal(alone, norms)


def test_no_norm_where_the_importance_needs_one_is_refused():
    _, graph = _mlp()
    with pytest.raises(ValueError, match="group 'w1:1' has no member of that name"):
        jaxprune.dsa(graph, sharpness=1.0, importance=channels.norm_scales(graph))
    # By default such a group is ranked by its filter norms.
    pruner, named = (
        jaxprune.dsa(graph, sharpness=1.0, importance=importance)
        for importance in (None, channels.filter_norms(graph))
    )
    params = _mlp()[0]
    for name, mask in pruner.masks(params, pruner.init(params)).items():
        np.testing.assert_array_equal(
            mask, named.masks(params, named.init(params))[name]
        )
    with pytest.raises(ValueError, match=r"order=3.*must be 1 or 2"):
        channels.filter_norms(graph, order=3)


@pytest.mark.parametrize("sampler", [bernoulli_mask, concrete_mask, deterministic_mask])
def test_ratios_and_what_is_seen(sampler):
    _, tree, graph, _ = _network()
    pruner = jaxprune.dsa(graph, sharpness=20.0, sampler=sampler, init_logit=0.0)
    variables = pruner.init(tree["params"])
    apply = jax.jit(pruner.apply)
    seen, ratios = apply(tree["params"], variables, key=jax.random.key(0), step=3)
    chex.assert_trees_all_close(ratios, dict.fromkeys(graph.groups, 0.5))
    chex.assert_trees_all_equal_shapes_and_dtypes(seen, tree["params"])
    kernel = seen["stage3_block1"]["conv2"]["kernel"]
    rows = jnp.any(kernel != 0, axis=(0, 1, 3))
    if sampler is deterministic_mask:
        assert int(rows.sum()) == 32
        scale = tree["params"]["stage3_block1"]["bn1"]["scale"]
        assert scale[rows].min() > scale[~rows].max()
        again = apply(tree["params"], variables)[0]
        chex.assert_trees_all_equal(again, seen)
    elif sampler is bernoulli_mask:
        assert 20 <= int(rows.sum()) <= 44
        other, _ = apply(tree["params"], variables, key=jax.random.key(1), step=3)
        other_rows = jnp.any(
            other["stage3_block1"]["conv2"]["kernel"] != 0, axis=(0, 1, 3)
        )
        assert (rows != other_rows).any()
    else:
        factor = kernel / tree["params"]["stage3_block1"]["conv2"]["kernel"]
        assert jnp.std(factor) > 0.1


def _certain(key, probabilities, kept):
    """A sampler without chance: a gate is its probability."""
    del key, kept
    return probabilities


def test_gates_are_drawn_from_keep_probabilities_of_the_sharpness_of_the_step():
    _, graph = _mlp()
    params = {"w1": jnp.arange(1.0, 25).reshape(3, 8), "w2": jnp.ones((8, 2))}
    pruner = jaxprune.dsa(
        graph, sharpness=lambda step: 1.0 + 3 * step, sampler=_certain, init_logit=0.3
    )
    alpha, b = 1 / (1 + np.exp(-0.3)), np.asarray(params["w1"]).mean(0)
    for step, sharpness in ((None, 1.0), (0, 1.0), (2, 7.0)):
        seen, _ = pruner.apply(params, pruner.init(params), step=step)
        p, _ = jaxprune.methods.keep_probabilities(
            jnp.float32(alpha), jnp.asarray(b), sharpness
        )
        np.testing.assert_allclose(seen["w2"][:, 0], p, rtol=1e-5)


@pytest.mark.parametrize("kept", [0.4, 2.4, 2.6, 5.45, 5.55, 7.6])
def test_ratios_are_rounded_to_the_nearest_number_of_channels(kept):
    _, graph = _mlp()
    params = {"w1": jnp.arange(1.0, 25).reshape(3, 8), "w2": jnp.ones((8, 2))}
    pruner = jaxprune.dsa(graph, sampler=deterministic_mask)
    variables = {"w1:1": jnp.float32(np.log(kept / (8 - kept)))}
    want = np.arange(8) >= 8 - max(round(kept), 1)  # the last weigh most
    masks = pruner.masks(params, variables)
    np.testing.assert_array_equal(masks["w1:1"], want)
    seen = pruner.apply(params, variables).params
    np.testing.assert_array_equal(seen["w2"][:, 0] != 0, want)


def test_masks_keep_exactly_the_counts_that_are_given():
    _, tree, graph, _ = _network()
    pruner = jaxprune.dsa(graph, sharpness=2.0)
    variables = pruner.init(tree["params"])
    ratios = {n: jax.nn.sigmoid(v) for n, v in variables.items()}
    limit = Limit(costs.macs(graph), 0.5)
    counts = channels.round_to_limits(graph, jax.device_get(ratios), limit)
    masks = pruner.masks(tree["params"], variables, counts=counts)
    assert {name: int(mask.sum()) for name, mask in masks.items()} == counts
    scores = channels.norm_scales(graph)(tree["params"])
    for name, mask in masks.items():
        score = np.asarray(scores[name])
        assert score[mask].min() > score[~mask].max(initial=-1)
    assert graph.compact(masks, tree).widths == counts
    name = next(iter(counts))
    one = pruner.masks(tree["params"], variables, counts={name: 1})
    assert [int(m.sum()) for m in one.values()][1:] == [
        g.size for g in graph.groups.values()
    ][1:]
    with pytest.raises(ValueError, match="must be a whole number from 1 to"):
        pruner.masks(tree["params"], variables, counts={name: 0})


def test_groups_that_are_fixed_are_not_learned():
    _, tree, graph, _ = _network()
    whole, half, *learned = graph.groups
    pruner = jaxprune.dsa(
        graph, sharpness=2.0, fixed={whole: 1.0, half: 0.5}, init_logit=0.0
    )
    variables = pruner.init(tree["params"])
    assert list(variables) == learned
    assert pruner.fixed == {whole: 1.0, half: 0.5}
    seen, ratios = pruner.apply(tree["params"], variables, key=jax.random.key(0))
    assert whole not in ratios
    assert float(ratios[half]) == 0.5
    closed = {whole: np.zeros(graph.groups[whole].size)}
    readers = channels.gate_masks(channels.plan_gates(graph), tree["params"], closed)
    ours, theirs = jaxprune.tree.named_leaves(seen), jaxprune.tree.named_leaves(readers)
    read = [name for name, mask in theirs.items() if mask.ndim]
    assert read
    assert all(bool(jnp.any(ours[name] != 0)) for name in read)
    masks = pruner.masks(tree["params"], variables)
    assert masks[whole].all()
    assert masks[half].mean() == 0.5
    with pytest.raises(ValueError, match="must leave a group"):
        jaxprune.dsa(graph, fixed={"*": 1.0})
    with pytest.raises(ValueError, match=r"dsa\(fixed=\{'nope': ...\}\).*matches none"):
        jaxprune.dsa(graph, fixed={"nope": 1.0})


def test_an_importance_of_the_wrong_length_is_refused():
    _, tree, graph, _ = _network()
    five = lambda params: {name: jnp.ones(5) for name in graph.groups}
    pruner = jaxprune.dsa(graph, importance=five, sharpness=2.0)
    variables = pruner.init(tree["params"])
    with pytest.raises(
        ValueError, match=r"must have shape \(\d+,\), one number .* got \(5,\)"
    ):
        pruner.apply(tree["params"], variables, key=jax.random.key(0))


@pytest.mark.parametrize("sharpness", [0.0, -1.0, float("inf")])
def test_a_sharpness_out_of_range_is_refused(sharpness):
    with pytest.raises(ValueError, match=r"sharpness=.*positive and finite"):
        jaxprune.dsa(_network()[2], sharpness=sharpness)


def test_the_sharpness_grows_over_the_steps_of_the_search():
    published = lambda epoch: 0.05 * 1.1**epoch
    beta_2 = jaxprune.methods.sharpness_schedule(
        8_000, initial=published(20), final=published(100)
    )
    for step, epoch in ((0, 20), (2_000, 40), (8_000, 100), (9_000, 100)):
        assert float(beta_2(step)) == pytest.approx(published(epoch), rel=1e-5)
    default = jaxprune.methods.sharpness_schedule(10)
    assert float(default(0)) == pytest.approx(published(20), rel=0.02)
    assert float(default(10)) == pytest.approx(published(100), rel=0.02)
    for wrong in (
        {"steps": 0},
        {"steps": 9, "initial": -1.0},
        {"steps": 9, "final": 0},
    ):
        with pytest.raises(ValueError, match=rf"{list(wrong)[-1]}=.*must be positive"):
            jaxprune.methods.sharpness_schedule(**wrong)


def test_the_sharpness_as_published_grows_once_in_an_epoch():
    published = lambda epoch: 0.05 * 1.1**epoch
    beta_2 = jaxprune.methods.sharpness_schedule(
        800, initial=published(20), final=published(100), every=10
    )
    for step, epoch in ((0, 20), (9, 20), (10, 21), (205, 40), (799, 99), (800, 100)):
        assert float(beta_2(step)) == pytest.approx(published(epoch), rel=1e-5)
    assert float(beta_2(200)) == pytest.approx(2.263, rel=1e-3)
    with pytest.raises(ValueError, match=r"every=0\)`: .*at least 1"):
        jaxprune.methods.sharpness_schedule(9, every=0)


def _documented_sampler():
    """The sampler of `docs/deviations.md`, as a reader copies it."""
    text = (Path(__file__).parents[2] / "docs/deviations.md").read_text()
    found = {}
    exec(text.split("```python\n")[1].split("```")[0], found)
    return found["only_drawn"]


def test_a_dropped_channel_has_the_gradient_of_the_formula_or_that_of_the_code():
    def apply_fn(params, x):
        return jax.nn.relu(x @ params["w1"]) @ params["w2"]

    params = {"w1": jnp.array([[1.0, 2.0]]), "w2": jnp.array([[3.0], [5.0]])}
    x = jnp.ones((1, 1))  # the channels add 1 * 3 and 2 * 5
    plan = plan_gates(jaxprune.trace_channels(apply_fn, params, x))
    p = jnp.array([0.7, 0.4])
    draws = [jax.random.key(i) for i in range(40)]
    key = next(k for k in draws if bernoulli_mask(k, p).tolist() == [1.0, 0.0])

    def output(p, sampler):
        gates = {"w1:1": sampler(key, p, None)}
        return apply_fn(apply_gates(plan, params, gates), x).sum()

    for sampler, slope in (
        (bernoulli_mask, [3.0, 10.0]),
        (_documented_sampler(), [3.0, 0.0]),
    ):
        value, got = jax.value_and_grad(output)(p, sampler)
        assert float(value) == 3.0
        np.testing.assert_allclose(got, slope, rtol=1e-6)


def test_without_a_floor_the_derivative_is_that_of_the_paper():
    b = jnp.exp(jnp.array([-1.0, 0.0, 1.0]))
    weights = jnp.array([1.0, 10.0, 100.0])

    def loss(alpha):
        p, _ = jaxprune.methods.keep_probabilities(alpha, b, 2.0, floor=0.0)
        return jnp.sum(weights * p)

    # By symmetry beta_1 = 1 at alpha = 1/2, so p = sigmoid(-2), 1/2, sigmoid(2).
    p = 1 / (1 + np.exp([2.0, 0.0, -2.0]))
    slopes = p * (1 - p)
    want = 3 * np.sum(np.asarray(weights) * slopes) / np.sum(slopes)
    assert float(jax.grad(loss)(jnp.float32(0.5))) == pytest.approx(want, rel=1e-5)


def test_the_default_sharpness_draws_a_fifth_of_the_channels_otherwise():
    b = jnp.exp(0.3 * jax.random.normal(jax.random.key(0), (400,)))
    p, _ = jaxprune.methods.keep_probabilities(jnp.float32(0.5), b, 8.0)
    kept = jnp.argsort(jnp.argsort(-b)) < 200
    assert float(jnp.mean(jnp.abs(p - kept))) == pytest.approx(0.2, abs=0.02)


def test_gates_of_an_unknown_group_are_refused():
    with pytest.raises(ValueError, match=r"no group is called \['nope'\]"):
        plan_gates(_network()[2], ["nope"])


def test_gates_are_as_precise_as_they_are_given():
    with jax.enable_x64(True):
        params = {"w1": jnp.ones((3, 2)), "w2": jnp.ones((2, 1))}
        mlp = lambda params, x: jnp.tanh(x @ params["w1"]) @ params["w2"]
        graph = jaxprune.trace_channels(mlp, params, jnp.ones((1, 3)))
        gates = {"w1:1": jnp.array([1 / 3, 1e-60])}
        seen = apply_gates(plan_gates(graph), params, gates)
        assert seen["w2"][:, 0].tolist() == [1 / 3, 1e-60]


def test_a_limit_of_one_keeps_everything():
    sizes = [3, 9, 7, 7, 5, 2]  # whose costs sum to 1.0000000000000002
    params = {
        f"w{i}": jnp.ones(shape) for i, shape in enumerate(itertools.pairwise(sizes))
    }

    def mlp(params, x):
        for weights in params.values():
            x = jnp.tanh(x @ weights)
        return x

    graph = jaxprune.trace_channels(mlp, params, jnp.ones((1, 3)))
    whole = {name: group.size for name, group in graph.groups.items()}
    macs = jaxprune.costs.macs(graph)
    assert channels.round_to_limits(graph, {}, Limit(macs, 1.0)) == whole
    assert channels.uniform_ratio(graph, Limit(macs, 1.0)) == 1.0


def test_the_bound_that_a_message_names_is_accepted():
    _, _, graph, _ = _network()
    macs = jaxprune.costs.macs(graph)
    with pytest.raises(ValueError, match="smallest reachable cost") as error:
        channels.round_to_limits(graph, {}, Limit(macs, 1e-6))
    bound = float(re.search(r"between ([\d.e-]+),", str(error.value))[1])
    counts = channels.round_to_limits(graph, {}, Limit(macs, bound))
    assert set(counts.values()) == {1}


def test_a_key_is_asked_for():
    _, tree, graph, _ = _network()
    pruner = jaxprune.dsa(graph, sharpness=1.0)
    with pytest.raises(ValueError, match="must be a typed PRNG key"):
        pruner.apply(tree["params"], pruner.init(tree["params"]))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"sharpness": 1.0, "floor": 1.0}, "floor=1.0"),
        ({"sharpness": -1.0}, "sharpness=-1.0"),
    ],
)
def test_bad_arguments_are_named(arguments, message):
    _, _, graph, _ = _network()
    with pytest.raises(ValueError, match=message):
        jaxprune.dsa(graph, **arguments)


def test_a_graph_without_groups_is_refused():
    graph = jaxprune.trace_channels(
        lambda p, x: x @ p, jnp.ones((3, 2)), jnp.ones((1, 3))
    )
    with pytest.raises(ValueError, match=r"`dsa\(graph\)`: .* `print\(graph\)`"):
        jaxprune.dsa(graph, sharpness=1.0)


def test_masks_keep_the_most_important_of_the_learned_ratio():
    _, tree, graph, _ = _network()
    params = tree["params"]
    pruner = jaxprune.dsa(graph, sharpness=5.0)
    variables = {name: jnp.float32(0.0) for name in graph.groups}
    masks = pruner.masks(params, variables)
    rows = masks["params/stage1_block1/conv1/kernel:3"]
    scale = params["stage1_block1"]["bn1"]["scale"]
    assert int(rows.sum()) == 8
    assert scale[rows].min() > scale[~rows].max()
    chex.assert_trees_all_equal(jax.jit(pruner.masks)(params, variables), masks)
    with pytest.raises(ValueError, match="must be a number"):
        pruner.masks(params, {**variables, next(iter(variables)): jnp.float32("nan")})


def test_ratios_follow_what_the_loss_needs_under_a_budget():
    """Two groups, of which the loss needs one: that one stays, the other pays."""

    def apply_fn(params, x):
        useful = jnp.tanh(x @ params["a"]["in"] * params["a"]["scale"][None])
        idle = jnp.tanh(x @ params["b"]["in"] * params["b"]["scale"][None])
        return useful @ params["a"]["out"] + 1e-3 * idle @ params["b"]["out"]

    rng = np.random.default_rng(0)
    draw = lambda *shape: jnp.asarray(rng.normal(size=shape), jnp.float32)
    block = lambda: {"in": draw(6, 16), "scale": 1 + draw(16) / 9, "out": draw(16, 3)}
    params, x = {"a": block(), "b": block()}, draw(64, 6)
    graph = jaxprune.trace_channels(apply_fn, params, x)
    want = apply_fn(params, x)
    pruner = jaxprune.dsa(graph, sharpness=8.0, init_logit=3.0)
    variables = pruner.init(params)
    limit = jaxprune.at_most(costs.macs(graph), 0.6, ramp=(0, 150))
    budget = jaxprune.admm(limit, min_keep_ratio=1 / 16)
    optimizer = optax.adam(0.1, b2=0.99)

    @jax.jit
    def run():
        def step(carry, key):
            variables, opt_state, state = carry

            def objective(variables):
                seen, ratios = pruner.apply(params, variables, key=key)
                loss = jnp.mean((apply_fn(seen, x) - want) ** 2)
                return loss + budget.penalty(ratios, state), ratios

            grads, ratios = jax.grad(objective, has_aux=True)(variables)
            updates, opt_state = optimizer.update(grads, opt_state, variables)
            variables = optax.apply_updates(variables, updates)
            return (variables, opt_state, budget.update(ratios, state)), None

        # Names and shapes are those of the variables.
        start = variables, optimizer.init(variables), budget.init(variables)
        return jax.lax.scan(step, start, jax.random.split(jax.random.key(0), 400))[0]

    found, _, state = run()
    ratios = {name: float(jax.nn.sigmoid(v)) for name, v in found.items()}
    assert ratios["a/in:1"] > 0.85 > 0.4 > ratios["b/in:1"]
    assert float(state.cost[0]) == pytest.approx(0.6, abs=0.05)


@pytest.mark.parametrize("multiple_of", [1, 8])
@pytest.mark.parametrize("limit", [0.75, 0.33, 0.25])
def test_rounding_meets_the_budget_to_the_channel(limit, multiple_of):
    _, _, graph, _ = _network()
    rng = np.random.default_rng(0)
    macs, parameters = costs.macs(graph), costs.parameters(graph)
    ratios = dict(
        zip(graph.groups, rng.uniform(0.3, 1, len(graph.groups)).tolist(), strict=True)
    )
    sizes = {name: group.size for name, group in graph.groups.items()}
    at = lambda counts: {name: counts[name] / sizes[name] for name in sizes}
    both = [Limit(macs, limit), Limit(parameters, limit)]
    for limits in (both[:1], both):
        counts = channels.round_to_limits(
            graph, ratios, limits, multiple_of=multiple_of
        )
        assert all(one.cost(at(counts)) <= one.at_most for one in limits)
        for name in sizes:
            assert counts[name] >= min(multiple_of, sizes[name])
            assert counts[name] % multiple_of == 0 or counts[name] == sizes[name]
            if counts[name] < sizes[name]:
                more = {**counts, name: counts[name] + multiple_of}
                assert any(one.cost(at(more)) > one.at_most for one in limits)
        if multiple_of == 1 and len(limits) == 1:
            assert macs(at(counts)) > limit - 0.01


def test_an_infeasible_budget_names_the_smallest_cost():
    _, _, graph, _ = _network()
    macs = costs.macs(graph)
    least = macs({name: 1 / group.size for name, group in graph.groups.items()})
    with pytest.raises(ValueError, match=f"{least * 1.0006:.4g}, the smallest"):
        channels.round_to_limits(graph, {}, Limit(macs, least / 2))
    with pytest.raises(ValueError, match="must be between"):
        channels.uniform_ratio(graph, Limit(macs, 1.5))
    with pytest.raises(ValueError, match="must be the name of a group"):
        channels.round_to_limits(graph, {"x": 0.5}, Limit(macs, 0.5))
    with pytest.raises(ValueError, match="must be finite"):
        channels.round_to_limits(graph, {"params/conv0/kernel:3": float("nan")}, [])


def test_a_uniform_ratio_meets_the_budget():
    _, _, graph, _ = _network()
    macs = costs.macs(graph)
    ratio = channels.uniform_ratio(graph, Limit(macs, 0.5))
    assert macs(dict.fromkeys(graph.groups, ratio)) == pytest.approx(0.5, abs=1e-4)
    assert channels.uniform_ratio(graph, Limit(macs, 1.0)) == 1.0


def test_a_group_of_one_channel_is_not_a_group():
    def apply_fn(params, x):
        return jnp.tanh(x @ params["w1"]) @ params["w2"]

    params = {"w1": jnp.ones((3, 1)), "w2": jnp.ones((1, 2))}
    graph = jaxprune.trace_channels(apply_fn, params, jnp.ones((1, 3)))
    assert not graph.groups


def test_python_numbers_cost_a_python_number_equal_to_the_traced_one():
    _, _, graph, _ = _network()
    ratios = dict(
        zip(graph.groups, np.linspace(0.2, 1, len(graph.groups)).tolist(), strict=True)
    )
    for make in (costs.macs, costs.parameters, costs.bytes_moved):
        cost = make(graph)
        exact = cost(ratios)
        assert isinstance(exact, float)
        traced = jax.jit(cost)({n: jnp.float32(r) for n, r in ratios.items()})
        assert float(traced) == pytest.approx(exact, rel=1e-5)


def test_eight_replicas_draw_the_same_masks():
    _, tree, graph, _ = _network()
    pruner = jaxprune.dsa(graph, sharpness=2.0, init_logit=0.0)
    variables = pruner.init(tree["params"])
    mapped = jax.pmap(
        lambda key: pruner.apply(tree["params"], variables, key=key)[0]["dense"][
            "kernel"
        ]
    )
    keys = jnp.stack([jax.random.key(5)] * jax.device_count())
    seen = np.asarray(mapped(keys))
    assert (seen == seen[:1]).all()
    assert (seen == 0).any()
