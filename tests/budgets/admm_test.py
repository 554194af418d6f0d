"""ADMM: the projection, known optima, the result."""

import chex
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from scipy import optimize

import jaxprune
from jaxprune import budgets
from jaxprune.budgets import Result
from jaxprune.budgets import _projection as _budget_projection

LIKE = {"a": jnp.float32(1)}
COST = lambda k: k["a"]


def _posynomials(rng, n, m):
    """Random costs with one or two ratios in each term, and their logarithms."""
    exponents = np.zeros((4 * n, n))
    for row in exponents:
        np.add.at(row, rng.choice(n, 2), 1.0)
    amounts = rng.random((m, 4 * n)) ** 3
    amounts /= amounts.sum(1, keepdims=True)
    return exponents, amounts


def _log_costs(exponents, amounts):
    return lambda y: jnp.log(amounts @ jnp.exp(exponents @ y))


@pytest.mark.parametrize(
    ("seed", "n", "m"),
    [
        (0, 2, 1),
        pytest.param(1, 5, 2, marks=pytest.mark.slow),
        pytest.param(2, 30, 1, marks=pytest.mark.slow),
        (3, 12, 3),
    ],
)
def test_the_projection_is_the_nearest_affordable_point(seed, n, m):
    rng = np.random.default_rng(seed)
    exponents, amounts = _posynomials(rng, n, m)
    limits, low = np.log(rng.uniform(0.1, 0.8, m)), np.log(np.full(n, 0.02))
    target = rng.normal(size=n) - 0.3

    def value(y):
        return np.sum((y - target) ** 2) / 2

    found = optimize.minimize(
        value,
        np.clip(target, low, 0),
        jac=lambda y: y - target,
        bounds=list(zip(low, np.zeros(n), strict=True)),
        constraints={
            "type": "ineq",
            "fun": lambda y: limits - np.log(amounts @ np.exp(exponents @ y)),
        },
        method="SLSQP",
        options={"maxiter": 1000, "ftol": 1e-14},
    )
    for x64, close in ((False, 1e-4), (True, 1e-6)):
        with jax.enable_x64(x64):
            dtype = jnp.float64 if x64 else jnp.float32
            ours = jax.jit(_budget_projection.project, static_argnums=0)(
                _log_costs(jnp.array(exponents, dtype), jnp.array(amounts, dtype)),
                jnp.array(limits, dtype),
                jnp.array(target, dtype),
                jnp.array(low, dtype),
            )
        point = np.asarray(ours.point, np.float64)
        np.testing.assert_allclose(point, found.x, atol=close)
        assert value(point) <= found.fun + close
        over = np.log(amounts @ np.exp(exponents @ point)) - limits
        assert over.max() < (1e-5 if not x64 else 1e-12)
        # Complementary: what is not used up has no multiplier.
        assert np.all(np.asarray(ours.multipliers) * -over < close)


def test_projections_of_far_targets_meet_the_conditions_of_optimality():
    """Of 300 problems, of which steps past the boundary spoil one in thirty."""
    rng, n, m = np.random.default_rng(0), 4, 2
    drawn = [_posynomials(rng, n, m) for _ in range(300)]
    exponents, amounts = map(np.stack, zip(*drawn, strict=True))
    low = np.full(n, np.log(1e-4))
    empty = [np.log(a @ np.exp(e @ low)) for e, a in drawn]
    limits = np.stack(empty) * rng.uniform(0.05, 0.95, (300, m))
    targets = 10 * rng.normal(size=(300, n))

    def project(exponents, amounts, limits, target):
        cost = _log_costs(exponents, amounts)
        return _budget_projection.project(cost, limits, target, jnp.asarray(low))

    with jax.enable_x64(True):
        given = map(jnp.asarray, (exponents, amounts, limits, targets))
        found = jax.tree.map(np.asarray, jax.jit(jax.vmap(project))(*given))
    for i, (y, price) in enumerate(zip(*found, strict=True)):
        terms = amounts[i] * np.exp(exponents[i] @ y)
        over = np.log(terms.sum(1)) - limits[i]
        slope = y - targets[i] + price @ (terms @ exponents[i] / terms.sum(1)[:, None])
        assert over.max() < 1e-9
        assert np.all(price >= 0)
        assert np.abs(price * over).max() < 1e-9
        # At a bound the distance may fall beyond it, elsewhere nowhere.
        slope = np.where(y > -1e-6, np.maximum(slope, 0), slope)
        slope = np.where(y < low + 1e-6, np.minimum(slope, 0), slope)
        np.testing.assert_allclose(slope, 0, atol=1e-8)


@pytest.mark.parametrize(("limit", "target"), [(-9.0, 0.0), (-1.0, 5000.0)])
def test_the_projection_stays_between_its_bounds_whatever_is_asked(limit, target):
    """Limits below every cost, and targets too far away to be approached."""
    rng = np.random.default_rng(0)
    exponents, amounts = _posynomials(rng, 12, 3)
    low = jnp.full(12, np.log(0.02), jnp.float32)
    project = jax.jit(_budget_projection.project, static_argnums=0)
    cost = _log_costs(*(jnp.asarray(x, jnp.float32) for x in (exponents, amounts)))
    for _ in range(9):
        wanted = jnp.asarray(rng.normal(size=12) * (1 + target), jnp.float32)
        point = project(cost, jnp.full(3, limit), wanted, low).point
        assert bool(jnp.all((point >= low) & (point <= 0)))


def _limit(cost, bound, **kwargs):
    return jaxprune.at_most(cost, bound, **kwargs)


def _solve(budget, loss, start, *, optimizer, steps):
    """Minimises loss(k) over y = log k against a budget."""

    @jax.jit
    def run():
        def step(carry, _):
            y, opt_state, state = carry

            def objective(y):
                ratios = {name: jnp.exp(v) for name, v in y.items()}
                return loss(ratios) + budget.penalty(ratios, state)

            updates, opt_state = optimizer.update(jax.grad(objective)(y), opt_state, y)
            y = optax.apply_updates(y, updates)
            state = budget.update({n: jnp.exp(v) for n, v in y.items()}, state)
            return (y, opt_state, state), state.result

        carry = start, optimizer.init(start), budget.init(start)
        return jax.lax.scan(step, carry, length=steps)[0]

    y, _, state = run()
    return {name: float(jnp.exp(v)) for name, v in y.items()}, state


def _convex():
    """A convex problem in y = log k and its solution, in float64.

    minimise sum_i w_i (y_i - a_i)^2 / 2  subject to  log(sum_i c_i exp y_i) <= log B
    """
    w, a, c = np.array([1.0, 4.0, 0.5]), np.array([-0.1, -0.2, -0.3]), [0.2, 0.3, 0.5]
    limit = 0.4

    def at(price):
        """Stationary y for a multiplier of the cost, by fixed point of each part."""
        y = a.copy()
        for _ in range(200):
            slope = c * np.exp(y) / np.sum(c * np.exp(y))
            hessian = np.diag(w) + price * (np.diag(slope) - np.outer(slope, slope))
            y = y - np.linalg.solve(hessian, w * (y - a) + price * slope)
        return y

    excess = lambda price: np.log(np.sum(c * np.exp(at(price)))) - np.log(limit)
    solution = at(optimize.brentq(excess, 0, 100, xtol=1e-14))
    names = ["a", "b", "c"]
    loss = lambda k: sum(
        w[i] * (jnp.log(k[n]) - a[i]) ** 2 / 2 for i, n in enumerate(names)
    )
    cost = lambda k: sum(c[i] * k[n] for i, n in enumerate(names))
    start = {n: jnp.float32(0.0) for n in names}
    return loss, cost, limit, start, dict(zip(names, np.exp(solution), strict=True))


def test_a_convex_problem_is_solved_to_its_known_solution():
    loss, cost, limit, start, solution = _convex()
    with jax.enable_x64(True):
        start = jax.tree.map(lambda x: jnp.asarray(x, jnp.float64), start)
        budget = jaxprune.admm(_limit(cost, limit), dual_rate=1.0, min_keep_ratio=0.01)
        found, state = _solve(budget, loss, start, optimizer=optax.sgd(0.1), steps=3000)
    for name, value in solution.items():
        assert found[name] == pytest.approx(value, abs=1e-6)
    assert float(state.primal_residual) < 1e-6
    assert float(state.dual_residual) < 1e-6
    assert abs(float(state.cost[0]) - limit) < 1e-6


@pytest.mark.parametrize("scale", [1e-3, 1.0, 1e3])
def test_the_scale_of_the_loss_does_not_matter(scale):
    loss, cost, limit, start, solution = _convex()
    budget = jaxprune.admm(_limit(cost, limit), min_keep_ratio=0.01)
    found, state = _solve(
        budget,
        lambda k: scale * loss(k),
        start,
        optimizer=optax.adam(optax.cosine_decay_schedule(0.02, 3000), b2=0.99),
        steps=3000,
    )
    assert float(state.cost[0]) == pytest.approx(limit, rel=0.02)
    for name, value in solution.items():
        assert found[name] == pytest.approx(value, rel=0.03)


_COSTS, _GAINS = np.array([0.1, 0.2, 0.3, 0.4]), np.array([0.9, 0.05, 0.4, 0.2])


def _cheapest(limit):
    """The ratios of least sum_i g_i / k_i with sum_i c_i k_i <= limit and k_i <= 1."""
    at = lambda weight: np.minimum(np.sqrt(_GAINS / (weight * _COSTS)), 1)
    excess = lambda weight: np.sum(_COSTS * at(weight)) - limit
    return at(optimize.brentq(excess, 1e-6, 1e9, xtol=1e-12))


# Limits, and the rates of SGD for a loss of scale 1 that suit the curvature there.
_SIZES = {"adam": {0.01: 0.0, 0.5: 0.0, 0.99: 0.0}, "sgd": {0.01: 0.01, 0.1: 0.03}}


@pytest.mark.parametrize("start", [-4.0, 3.0])
@pytest.mark.parametrize("name", _SIZES)
def test_limits_of_every_size_are_spent_whatever_the_scale_of_the_loss(name, start):
    names = ["a", "b", "c", "d"]
    ratios = lambda logits: dict(zip(names, jax.nn.sigmoid(logits), strict=True))
    weighted = lambda w, k: sum(x * k[n] for x, n in zip(w, names, strict=True))

    def solve(scale, limit, rate):
        budget = jaxprune.admm(_limit(lambda k: weighted(_COSTS, k), limit))
        adam = optax.adam(0.1, b2=0.99)
        optimizer = adam if name == "adam" else optax.sgd(rate / scale)

        def step(carry, _):
            logits, opt_state, state = carry

            def objective(logits):
                k = ratios(logits)
                inverse = {name: 1 / value for name, value in k.items()}
                return scale * weighted(_GAINS, inverse) + budget.penalty(k, state)

            updates, opt_state = optimizer.update(
                jax.grad(objective)(logits), opt_state
            )
            logits = optax.apply_updates(logits, updates)
            return (logits, opt_state, budget.update(ratios(logits), state)), None

        logits = jnp.full(4, start)
        begin = logits, optimizer.init(logits), budget.init(ratios(jnp.zeros(4)))
        return jax.nn.sigmoid(jax.lax.scan(step, begin, length=2000)[0][0])

    cases = [
        (s, *size) for s in (1e-4, 1e-2, 1.0, 1e4) for size in _SIZES[name].items()
    ]
    found = jax.jit(jax.vmap(solve))(*map(jnp.float32, zip(*cases, strict=True)))
    for (_, limit, _), k in zip(cases, np.asarray(found, float), strict=True):
        assert np.sum(_COSTS * k) == pytest.approx(limit, rel=0.01)
        best = np.sum(_GAINS / _cheapest(np.sum(_COSTS * k)))  # for what is spent
        assert np.sum(_GAINS / k) == pytest.approx(best, rel=0.01)


def _one_site(state, k, rate, dual_rate, tolerance):
    """z, u and rho by the formulas, of one site whose cost is k, and what happened."""
    bounds = np.array([0.9, 0.6])  # of which the smaller counts
    unit = tolerance * np.clip(-np.log(bounds.min()), 0.02, 1)
    y, u, rho, happened = np.log(k), state["u"], state["rho"], set()
    wanted = y + u / rho
    z = min(wanted, np.log(bounds.min()))
    binds, distance = wanted > z, abs(y - z) / unit
    dual, new = u + dual_rate * rho * (y - z), rho
    if binds:
        new = rho * np.exp(rate * np.clip(np.log(distance), -0.25, 3))
        happened.add("grows" if distance > 1 else "falls")
        if distance > 1 and abs(y - z) < 0.998 * abs(state["y"] - state["z"]):
            dual, new, happened = u, rho, {"approaches"}
        if distance > 1 and (y - state["z"]) * (state["y"] - state["z"]) < 0:
            new, happened = 0.6 * rho, happened | {"passed"}
    return {"y": y, "z": z, "u": dual, "rho": max(new, abs(dual))}, happened


def test_every_update_is_that_of_the_formulas():
    rate, dual_rate, tolerance = 0.2, 0.15, 0.05
    limits = [_limit(COST, 0.9, name="loose"), _limit(COST, 0.6, name="tight")]
    budget = jaxprune.admm(
        limits, rate=rate, dual_rate=dual_rate, tolerance=tolerance, init_rho=1e-3
    )
    want, seen = {"y": 0.0, "z": 0.0, "u": 0.0, "rho": 1e-3}, []
    with jax.enable_x64(True):
        state, update = budget.init({"a": jnp.float64(1)}), jax.jit(budget.update)
        # From above the limit to it, past it, near it, and to where none binds.
        for k in (0.95, 0.97, 0.98, 0.9, 0.8, 0.57, 0.615, 0.61, 0.605, 0.9, 0.55, 0.3):
            state = update({"a": jnp.float64(k)}, state)
            want, happened = _one_site(want, k, rate, dual_rate, tolerance)
            seen.append(happened)
            assert float(state.z[0]) == pytest.approx(want["z"], abs=1e-8)
            assert float(state.dual[0]) == pytest.approx(want["u"], rel=1e-6)
            assert float(state.rho) == pytest.approx(want["rho"], rel=1e-6)
    kinds = {"grows", "falls", "approaches", "passed"}
    assert set().union(*seen) == kinds
    assert set() in seen


def test_several_limits_are_met_at_once():
    budget = jaxprune.admm(
        [
            _limit(lambda k: k["a"], 0.3, name="first"),
            _limit(lambda k: (k["a"] + k["b"]) / 2, 0.5, name="second"),
        ]
    )
    found, state = _solve(
        budget,
        lambda k: -jnp.log(k["a"]) - jnp.log(k["b"]),
        {"a": jnp.float32(0), "b": jnp.float32(0)},
        optimizer=optax.adam(optax.cosine_decay_schedule(0.02, 2000), b2=0.99),
        steps=2000,
    )
    assert found["a"] == pytest.approx(0.3, rel=0.06)
    assert found["b"] == pytest.approx(0.7, rel=0.06)
    assert state.multipliers.shape == (2,)


def test_a_slack_limit_has_no_multiplier():
    loss, cost, _, start, _ = _convex()
    budget = jaxprune.admm(_limit(cost, 0.95))
    found, state = _solve(budget, loss, start, optimizer=optax.sgd(0.1), steps=500)
    assert found["a"] == pytest.approx(np.exp(-0.1), abs=1e-4)
    assert Result(int(state.result)) is Result.MET
    chex.assert_trees_all_close(state.dual, jnp.zeros(3), atol=1e-5)


@pytest.mark.parametrize(
    ("pruner", "optimizer"),
    [
        (jaxprune.ltp(), optax.adam(0.05)),
        # The rate is that of the weights: the penalty weight is an L1 coefficient.
        (jaxprune.soft_thresholding(), optax.sgd(0.05)),
    ],
    ids=["ltp", "lats"],
)
def test_thresholds_of_weights_are_held_by_the_same_solver(pruner, optimizer):
    rng = np.random.default_rng(0)
    params = {
        "a": {"kernel": jnp.asarray(rng.normal(size=(30, 20)), jnp.float32)},
        "b": {"kernel": jnp.asarray(rng.normal(size=(20, 10)), jnp.float32)},
    }
    variables = pruner.init(params)
    like = jax.eval_shape(pruner.apply, params, variables).keep_ratios
    budget = jaxprune.admm(_limit(jaxprune.density(params), 0.2, ramp=(0, 200)))

    @jax.jit
    def run():
        def step(carry, _):
            variables, opt_state, state = carry

            def objective(variables):
                pruned = pruner.apply(params, variables)
                kept = jax.tree.map(
                    lambda p, q: jnp.sum((p - q) ** 2), params, pruned[0]
                )
                loss = sum(jax.tree.leaves(kept)) / 800
                return loss + budget.penalty(pruned.keep_ratios, state), pruned[1]

            grads, ratios = jax.grad(objective, has_aux=True)(variables)
            updates, opt_state = optimizer.update(grads, opt_state, variables)
            variables = optax.apply_updates(variables, updates)
            return (variables, opt_state, budget.update(ratios, state)), None

        start = variables, optimizer.init(variables), budget.init(like)
        return jax.lax.scan(step, start, length=400)[0]

    state = run()[2]
    assert float(state.cost[0]) == pytest.approx(0.2, rel=0.06)


def test_the_published_alternation_is_that_of_the_paper():
    """An own loop over one site of cost k: rho 0.01, 50 steps of 1e-3, unit 100."""
    budget = jaxprune.admm_as_published(_limit(lambda k: k["a"], 0.5))
    ratios = {"a": jnp.float32(0.9)}
    state = budget.init(ratios)
    theta = np.log(0.9 / 0.1)
    z, u1, u2 = theta, 0.0, 0.0
    for _ in range(3):
        penalty = u2 * (theta - z) + 0.005 * (theta - z) ** 2
        assert float(budget.penalty(ratios, state)) * 1e5 == pytest.approx(
            penalty, rel=1e-3, abs=1e-6
        )
        state = budget.update(ratios, state)
        for _ in range(50):
            k = 1 / (1 + np.exp(-z))
            excess = 100 * max(k - 0.5, 0)
            slope = (u1 + 0.01 * excess) * 100 * k * (1 - k) * (excess > 0)
            z -= 1e-3 * (slope - u2 - 0.01 * (theta - z))
            u1 += 0.01 * 100 * max(1 / (1 + np.exp(-z)) - 0.5, 0)
        u2 += 0.01 * (theta - z)
        found = state.z[0], state.multipliers[0], state.dual[0]
        np.testing.assert_allclose(found, (z, u1, u2), rtol=1e-4, atol=1e-6)


def test_the_published_alternation_adds_up_over_sites_and_limits():
    """Two sites, two limits: F_1 = (k_a + 3 k_b) / 4 and F_2 = k_a."""
    weights, bounds = np.array([[0.25, 0.75], [1.0, 0.0]]), np.array([0.5, 0.7])
    limits = [
        _limit(lambda k: (k["a"] + 3 * k["b"]) / 4, 0.5, name="first"),
        _limit(lambda k: k["a"], 0.7, name="second"),
    ]
    budget = jaxprune.admm_as_published(
        limits,
        unit=10.0,
        rho1=0.1,
        rho2=0.05,
        loss_scale=1.0,
        inner_steps=3,
        inner_rate=0.02,
    )
    sigmoid = lambda z: 1 / (1 + np.exp(-z))
    state, z = budget.init({"a": jnp.float32(1), "b": jnp.float32(1)}), None
    u1, u2, update = np.zeros(2), np.zeros(2), jax.jit(budget.update)
    for k in ([0.9, 0.8], [0.8, 0.7], [0.95, 0.6]):
        ratios = dict(zip("ab", map(jnp.float32, k), strict=True))
        theta = np.log(k) - np.log1p(-np.array(k))
        z = theta if z is None else z
        want = u2 @ (theta - z) + 0.025 * np.sum((theta - z) ** 2)
        assert float(budget.penalty(ratios, state)) == pytest.approx(
            want, rel=1e-4, abs=1e-6
        )
        state = update(ratios, state)
        for _ in range(3):
            excess = 10 * np.maximum(weights @ sigmoid(z) - bounds, 0)
            slopes = 10 * weights * sigmoid(z) * (1 - sigmoid(z))
            slope = (u1 + 0.1 * excess) @ slopes - u2 - 0.05 * (theta - z)
            z = z - 0.02 * slope
            u1 = u1 + 0.1 * 10 * np.maximum(weights @ sigmoid(z) - bounds, 0)
        u2 = u2 + 0.05 * (theta - z)
        np.testing.assert_allclose(state.z, z, rtol=1e-5)
        np.testing.assert_allclose(state.multipliers, u1, rtol=1e-4)
        np.testing.assert_allclose(state.dual, u2, rtol=1e-3, atol=1e-6)


def test_the_published_alternation_lowers_the_cost():
    like = {"a": jnp.float32(0.9933), "b": jnp.float32(0.9933)}
    cost = lambda k: (k["a"] * k["b"] + k["b"]) / 2
    budget = jaxprune.admm_as_published(_limit(cost, 0.5), loss_scale=1.0)

    @jax.jit
    def run():
        def step(carry, _):
            theta, state = carry
            ratios = lambda t: {n: jax.nn.sigmoid(v) for n, v in t.items()}
            slope = jax.grad(lambda t: budget.penalty(ratios(t), state))(theta)
            theta = {n: v - 0.5 * jnp.maximum(slope[n], 0) for n, v in theta.items()}
            return (theta, budget.update(ratios(theta), state)), None

        start = {n: jnp.float32(5.0) for n in like}, budget.init(like)
        return jax.lax.scan(step, start, length=2000)[0]

    theta, state = run()
    assert float(state.cost[0]) < 0.6 < 0.97
    assert all(float(v) < 5 for v in theta.values())


@pytest.mark.parametrize(("ratio", "sign"), [(0.0, -1), (1.0, 1)])
def test_the_published_alternation_takes_empty_and_whole_sites(ratio, sign):
    """They count as a millionth from the end, of which the logit is finite."""
    budget = jaxprune.admm_as_published(_limit(COST, 0.5))
    ratios = {"a": jnp.float32(ratio)}
    state = budget.update(ratios, budget.init(ratios))
    # Single precision has a hundredth of a millionth left below one.
    assert float(state.y[0]) == pytest.approx(sign * np.log(1e6 - 1), rel=2e-3)
    value, slopes = jax.value_and_grad(budget.penalty)(ratios, state)
    chex.assert_tree_all_finite((state, value, slopes))


def test_an_emptied_site_is_pulled_back_and_winds_nothing_up():
    like = {"a": jnp.float32(1), "b": jnp.float32(1)}
    cost = lambda k: (k["a"] + k["b"]) / 2
    budget = jaxprune.admm(_limit(cost, 0.6))
    state = budget.init(like)
    ratios = {"a": jnp.float32(0), "b": jnp.float32(1)}
    update = jax.jit(budget.update)
    for _ in range(50):
        state = update(ratios, state)
    slope = jax.grad(lambda k: budget.penalty(k, state))(ratios)
    assert float(slope["a"]) < 0  # more of it lowers the penalty
    assert float(slope["a"]) > -100 * 1e3 * float(state.rho)
    back = budget.penalty({**ratios, "a": jnp.float32(0.01)}, state)
    assert float(back) < float(budget.penalty(ratios, state))


def test_a_limit_just_above_the_least_cost_is_met_or_refused():
    like = {"a": jnp.float32(0)}
    with pytest.raises(ValueError, match=r"smallest reachable cost is 0\.1002"):
        jaxprune.admm(_limit(COST, 0.10005), min_keep_ratio=0.1).init(like)
    budget = jaxprune.admm(_limit(COST, 0.1005), min_keep_ratio=0.1)
    found, state = _solve(
        budget,
        lambda k: -0.01 * jnp.log(k["a"]),
        like,
        optimizer=optax.adam(optax.cosine_decay_schedule(0.02, 2000), b2=0.99),
        steps=2000,
    )
    assert found["a"] == pytest.approx(0.1005, rel=0.06)
    assert float(state.cost[0]) == pytest.approx(0.1005, rel=0.06)


def test_half_precision_ratios_are_projected_in_single():
    like = {"a": jnp.bfloat16(0.9)}
    budget = jaxprune.admm(_limit(COST, 0.5))
    assert budget.update(like, budget.init(like)).z.dtype == jnp.float32


@pytest.mark.parametrize("make", [jaxprune.admm, jaxprune.dual_ascent])
@pytest.mark.parametrize("way", [lambda f: f, jax.jit])
def test_a_schedule_that_ends_below_the_minimum_is_refused_before_training(make, way):
    like = {"a": jnp.float32(1)}
    cost = lambda k: 0.3 + 0.7 * k["a"]
    with pytest.raises(
        ValueError, match=r"cost=0\.2 at step 50.*reachable cost is 0\.30"
    ):
        way(make(_limit(cost, 0.2, ramp=(0, 50))).init)(like)


def test_a_limit_that_is_traced_is_called_infeasible_by_the_result():
    like = {"a": jnp.float32(1)}

    def last(limit):
        budget = jaxprune.admm(_limit(COST, limit), min_keep_ratio=0.1)
        state = budget.init(like)
        for _ in range(3):
            state = budget.update(like, state)
        return state

    states = jax.vmap(last)(jnp.array([0.01, 1.0]))
    assert states.result.tolist() == [Result.INFEASIBLE, Result.MET]
    assert np.isfinite(states.z).all()


def test_a_cost_that_is_not_finite_is_called_diverged_and_harms_nothing():
    like = {"a": jnp.float32(1)}
    budget = jaxprune.admm(_limit(COST, 0.5))
    good = budget.update(like, budget.init(like))
    bad = budget.update({"a": jnp.float32(jnp.nan)}, good)
    assert Result(int(bad.result)) is Result.DIVERGED
    assert "not finite" in Result(int(bad.result)).message
    chex.assert_trees_all_equal(bad.z, good.z)
    chex.assert_tree_all_finite(budget.update(like, bad))


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: jaxprune.admm(_limit(COST, 0.5), rate=0), "rate=0.*must be positive"),
        (
            lambda: jaxprune.admm(_limit(COST, 0.05), min_keep_ratio=0.1).init(LIKE),
            r"smallest reachable cost is 0\.1002 of the dense cost",
        ),
        (
            lambda: jaxprune.admm(_limit(COST, 0.5), min_keep_ratio=0.0).init(LIKE),
            "logarithm of a keep ratio",
        ),
        (
            lambda: jaxprune.admm(_limit(COST, 0.5), min_keep_ratio={"b": 0.1}).init(
                LIKE
            ),
            "must name every site",
        ),
        (lambda: jaxprune.admm(_limit(COST, 0.5)).init({}), "no keep ratios"),
        (
            lambda: jaxprune.admm_as_published(_limit(COST, 0.5), unit=-1),
            "unit=-1.*must be positive",
        ),
    ],
)
def test_bad_arguments_are_named(make, message):
    with pytest.raises(ValueError, match=message):
        make()


def test_every_replica_stays_equal():
    """Under `shard_map` with replicated ratios, the state is that of one device."""
    like = {"a": jnp.float32(0.9), "b": jnp.float32(0.8)}
    budget = jaxprune.admm(_limit(lambda k: k["a"] * k["b"], 0.5))
    mesh = jax.make_mesh((8,), ("data",))
    spec = jax.sharding.PartitionSpec()
    update = lambda r, s: budget.update(r, s)
    mapped = jax.jit(
        jax.shard_map(update, mesh=mesh, in_specs=(spec, spec), out_specs=spec)
    )
    one, many = budget.init(like), budget.init(like)
    for _ in range(3):
        one, many = jax.jit(update)(like, one), mapped(like, many)
    chex.assert_trees_all_close(one, many, rtol=1e-6, atol=1e-7)


def test_it_does_not_depend_on_the_names_order():
    forward = {"a": jnp.float32(0.9), "b": jnp.float32(0.4)}
    backward = {"b": jnp.float32(0.4), "a": jnp.float32(0.9)}
    budget = budgets.admm(_limit(COST, 0.5))
    state = budget.init(forward)
    chex.assert_trees_all_equal(
        budget.update(forward, state), budget.update(backward, state)
    )
