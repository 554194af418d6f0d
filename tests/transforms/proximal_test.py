"""The proximal transformations reach the minimiser and keep optax's promises."""

import functools
import warnings

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from sklearn.linear_model import Lasso

from jaxprune import prox, transforms
from jaxprune.transforms import lats
from tests.support import soft_reference as reference

RATE = optax.cosine_decay_schedule(0.1, 20)
soft = prox.soft_threshold
channels = functools.partial(prox.group_soft_threshold, group_axes=-1)

# Complete optimizers, each a function of nothing: optax factories hold no state.
OPTIMIZERS = {
    "proximal": optax.chain(
        optax.sgd(0.1), transforms.proximal(soft, 0.01, where=True)
    ),
    "channels": optax.chain(
        optax.sgd(0.1), transforms.proximal(channels, 0.01, where=True)
    ),
    "ista": optax.chain(
        optax.sgd(RATE, 0.9), transforms.ista(0.01, RATE, momentum=0.9, where=True)
    ),
    "fista": optax.chain(optax.sgd(RATE), transforms.fista(0.1, RATE, where=True)),
    "latent_proximal": transforms.latent_proximal(
        optax.adamw(0.1), channels, 0.01, where=True
    ),
    "adam_ista": transforms.adam_ista(0.01, RATE, where=True),
    "lats": lats(
        optax.sgd(RATE, 0.9), threshold=optax.linear_schedule(0.0, 0.1, 20), where=True
    ),
}
each_optimizer = pytest.mark.parametrize("name", OPTIMIZERS)


def sample_params(dtype=jnp.float32):
    rng = np.random.default_rng(0)
    return {
        "kernel": jnp.asarray(rng.standard_normal((3, 4)), dtype),
        "scale": jnp.asarray(rng.standard_normal(4), dtype),
    }


def sample_grads(params, seed=1):
    """Return a gradient of NumPy's, which compiles nothing."""
    rng = np.random.default_rng(seed)
    return jax.tree.map(
        lambda x: jnp.asarray(rng.standard_normal(x.shape), x.dtype), params
    )


def run(optimizer, params, steps=4, jit=jax.jit, leaf=None):
    """Return parameters and state after steps with fixed gradients (of one leaf)."""

    @jit
    def step(params, state, grads):
        updates, state = optimizer.update(grads, state, params)
        return optax.apply_updates(params, updates), state

    grads = [sample_grads(params, seed) for seed in range(steps)]
    if leaf is not None:
        params, grads = {leaf: params[leaf]}, [{leaf: g[leaf]} for g in grads]
    state = optimizer.init(params)
    for g in grads:
        params, state = step(params, state, g)
    return params, state


# --- the lasso -------------------------------------------------------------------


class LassoProblem:
    """min_w |X w - y|^2 / (2 n) + strength |w|_1, with scikit-learn's minimum."""

    strength = 0.1

    def __init__(self):
        rng = np.random.default_rng(0)
        n, d = 60, 30
        self.x = rng.standard_normal((n, d)) * np.geomspace(0.5, 2, d)
        true = np.where(rng.random(d) < 0.3, rng.standard_normal(d), 0)
        self.y = self.x @ true + 0.3 * rng.standard_normal(n)
        lasso = Lasso(self.strength, fit_intercept=False, tol=1e-14, max_iter=10**6)
        self.solution = lasso.fit(self.x, self.y).coef_
        self.rate = 1 / np.linalg.eigvalsh(self.x.T @ self.x / n)[-1]
        self.start = 0.1 * rng.standard_normal(d)

    def gradient(self, w):
        return self.x.T @ (self.x @ w - self.y) / len(self.y)

    def excess(self, w):
        """Return the objective at w above the minimum, relative to the minimum."""

        def objective(w):
            loss = 0.5 * np.mean((self.x @ w - self.y) ** 2)
            return loss + self.strength * np.sum(np.abs(w))

        best = objective(self.solution)
        return (objective(np.asarray(w, float)) - best) / best

    def path(self, optimizer, steps, dtype=float, field=None):
        """Return the weights (or a field of the state) after every step."""
        x, y = jnp.asarray(self.x, dtype), jnp.asarray(self.y, dtype)

        def step(carry, _):
            w, state = carry
            grads = x.T @ (x @ w - y) / len(y)
            updates, state = optimizer.update(grads, state, w)
            w = optax.apply_updates(w, updates)
            seen = w if field is None else optax.tree.get(state, field)
            return (w, state), seen

        w = jnp.asarray(self.start, dtype)
        scan = jax.jit(lambda carry: jax.lax.scan(step, carry, length=steps)[1])
        return np.asarray(scan((w, optimizer.init(w))))


@pytest.fixture(scope="module")
def problem():
    return LassoProblem()


def minimisers(problem):
    s, rate = problem.strength, problem.rate
    cosine = optax.cosine_decay_schedule(0.05, 3000)
    small = 0.1 * rate
    return {
        "ista": (
            optax.chain(optax.sgd(rate), transforms.ista(s, rate, where=True)),
            1500,
            None,
        ),
        "ista with momentum": (
            optax.chain(
                optax.sgd(small, 0.9),
                transforms.ista(s, small, momentum=0.9, where=True),
            ),
            1500,
            None,
        ),
        "fista": (
            optax.chain(optax.sgd(rate), transforms.fista(s, rate, where=True)),
            200,
            "iterate",
        ),
        "adam_ista": (transforms.adam_ista(s, cosine, where=True), 3000, None),
    }


@pytest.mark.parametrize("dtype", ["float64", "float32"])
@pytest.mark.parametrize("name", minimisers(LassoProblem()))
def test_fixed_point_is_the_lasso_of_scikit_learn(problem, name, dtype):
    with jax.enable_x64(True):
        optimizer, steps, field = minimisers(problem)[name]
        w = problem.path(optimizer, steps, dtype, field)[-1]
    assert abs(problem.excess(w)) < 1e-9  # asked: 1e-6
    np.testing.assert_array_equal(w != 0, problem.solution != 0)


def test_adam_before_a_plain_soft_threshold_misses_the_minimum(problem):
    cosine = optax.cosine_decay_schedule(0.05, 3000)
    naive = optax.chain(
        optax.adam(cosine), transforms.ista(problem.strength, cosine, where=True)
    )
    with jax.enable_x64(True):
        w = problem.path(naive, 3000)[-1]
    assert problem.excess(w) > 0.3  # 31 % above, and not one weight is zero
    assert np.count_nonzero(w) == w.size


def test_momentum_without_its_factor_weakens_the_penalty_ten_times(problem):
    small = 0.1 * problem.rate
    plain = optax.chain(
        optax.sgd(small, 0.9), transforms.ista(problem.strength, small, where=True)
    )
    with jax.enable_x64(True):
        w = problem.path(plain, 2000)[-1]
        weak = Lasso(0.1 * problem.strength, fit_intercept=False, tol=1e-12)
        weak.fit(problem.x, problem.y)
    assert problem.excess(w) > 0.2
    np.testing.assert_allclose(w, weak.coef_, atol=1e-4)


def test_fista_needs_a_tenth_of_the_steps_of_ista(problem):
    with jax.enable_x64(True):
        slow = problem.path(*minimisers(problem)["ista"][:2])
        fast = problem.path(minimisers(problem)["fista"][0], 200, field="iterate")
    first = [
        next(i for i, w in enumerate(p) if problem.excess(w) < 1e-8)
        for p in (slow, fast)
    ]
    assert first[1] * 4 < first[0]


def test_trajectories_equal_the_loops_of_the_reference(problem):
    s, rate, w0 = problem.strength, problem.rate, problem.start
    small, steps = 0.1 * rate, 100
    momentum = optax.chain(
        optax.sgd(small, 0.9), transforms.ista(s, small, momentum=0.9, where=True)
    )
    theirs = reference.ista(problem.gradient, w0, s, [small] * steps, 0.9)
    fista, restarts = reference.fista(problem.gradient, w0, s, rate, steps)
    adam = reference.adam_ista(problem.gradient, w0, s, 0.05, steps)
    with jax.enable_x64(True):
        np.testing.assert_allclose(problem.path(momentum, steps), theirs, atol=1e-12)
        ours = problem.path(minimisers(problem)["fista"][0], steps, field="iterate")
        np.testing.assert_allclose(ours, fista, atol=1e-7)  # t is float32
        ours = problem.path(transforms.adam_ista(s, 0.05, where=True), steps)
        np.testing.assert_allclose(ours, adam, atol=1e-12)
    assert restarts > 0


def test_fista_restarts_for_all_leaves_together():
    """A leaf of 100 weights that turn a little outweighs one weight that goes on."""
    tx = optax.chain(
        optax.sgd(1.0), transforms.accelerated_proximal(soft, 0.0, where=True)
    )
    params = {"one": jnp.zeros(1), "many": jnp.zeros(100)}
    state = tx.init(params)
    for one, many in ((0.0, 0.0), (0.0, -1.0), (-1.0, 0.1)):
        grads = {"one": jnp.full(1, one), "many": jnp.full(100, many)}
        updates, state = tx.update(grads, state, params)
        params = optax.apply_updates(params, updates)
    restarted = (1 + 5**0.5) / 2
    assert float(optax.tree.get(state, "momentum")) == pytest.approx(restarted)


# --- what the weights hold ---------------------------------------------------------


@pytest.mark.parametrize("dtype", [jnp.float32, jnp.bfloat16, jnp.float16])
@pytest.mark.parametrize("name", [n for n in OPTIMIZERS if n != "fista"])
def test_pruned_weights_are_exact_zeros_after_every_step(name, dtype):
    strong = {
        "proximal": optax.chain(
            optax.sgd(0.1), transforms.proximal(soft, 0.3, where=True)
        ),
        "channels": optax.chain(
            optax.sgd(0.1), transforms.proximal(channels, 0.2, where=True)
        ),
        "ista": optax.chain(optax.sgd(0.1), transforms.ista(3.0, 0.1, where=True)),
        "latent_proximal": transforms.latent_proximal(
            optax.adamw(0.1), channels, 1.2, where=True
        ),
        "adam_ista": transforms.adam_ista(3.0, 0.1, where=True),
        "lats": lats(
            optax.sgd(0.1), threshold=optax.linear_schedule(0.0, 1.0, 4), where=True
        ),
    }[name]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)
        params, state = run(strong, sample_params(dtype))
    zeros = sum(int(jnp.sum(x == 0)) for x in jax.tree.leaves(params))
    assert 0 < zeros < 16
    assert all(x.dtype == dtype for x in jax.tree.leaves(params))
    if name in ("proximal", "channels", "ista", "adam_ista"):
        assert int(optax.tree.get(state, "expected")) == zeros


SGD = optax.sgd(0.1, 0.9, nesterov=True)
LEVEL = optax.linear_schedule(0.3, 1.5, 30)


@pytest.mark.parametrize(
    ("optimizer", "scaling", "latent"),
    [
        (
            optax.chain(SGD, transforms.proximal(soft, 0.1, where=True)),
            lambda t: 0.1,
            False,
        ),
        (
            optax.chain(SGD, transforms.ista(0.1, 0.1, momentum=0.9, where=True)),
            lambda t: 0.1,
            False,
        ),
        (
            optax.chain(SGD, transforms.fista(1.0, 0.1, where=True)),
            lambda t: 0.1,
            False,
        ),
        (
            transforms.latent_proximal(SGD, soft, LEVEL, where=True),
            lambda t: LEVEL(t + 1),
            True,
        ),
        (lats(SGD, threshold=LEVEL, where=True), lambda t: LEVEL(t + 1), True),
    ],
    ids=["proximal", "ista", "fista", "latent_proximal", "lats"],
)
def test_with_momentum_zeros_are_those_of_the_prox_after_every_step(
    optimizer, scaling, latent
):
    """And weights come back: the zeros are not those of the step before."""
    params = {"w": sample_params()["kernel"]}
    state, moving = optimizer.init(params), SGD.init(params)
    dense = state.latent if latent else params
    update, move = jax.jit(optimizer.update), jax.jit(SGD.update)
    patterns = []
    for step in range(20):
        grads = {"w": sample_grads(params, step)["w"] + 0.3 * params["w"]}
        moves, moving = move(grads, moving, dense)
        dense = optax.apply_updates(dense, moves)
        pruned = np.abs(dense["w"]) <= float(scaling(step))
        updates, state = update(grads, state, params)
        params = optax.apply_updates(params, updates)
        # FISTA's parameters are the points where gradients are wanted.
        fista = isinstance(state[-1], transforms.AcceleratedProximalState)
        seen = optax.tree.get(state, "iterate") if fista else params
        np.testing.assert_array_equal(np.asarray(seen["w"]) == 0, pruned)
        assert seen["w"].dtype == jnp.float32
        dense = dense if latent else params
        patterns.append(pruned)
    pruned = np.array(patterns)
    assert pruned.any(axis=(1, 2)).sum() > 10
    assert (pruned[:-1] & ~pruned[1:]).any()


def test_latent_weights_of_a_bfloat16_network_lose_no_small_steps():
    params = {"w": jnp.ones(3, jnp.bfloat16)}
    sgd = optax.sgd(1e-4)
    with pytest.warns(UserWarning, match="21 % off"):
        transforms.proximal(soft, 0.0, where=True).init(params)
    latent = transforms.latent_proximal(sgd, soft, 0.0, where=True)

    def thousand(optimizer):
        def step(carry, _):
            params, state = carry
            updates, state = optimizer.update(
                {"w": jnp.ones(3, jnp.bfloat16)}, state, params
            )
            return (optax.apply_updates(params, updates), state), None

        return jax.lax.scan(step, (params, optimizer.init(params)), length=1000)[0]

    assert float(thousand(sgd)[0]["w"][0]) == 1.0  # each step is rounded away
    moved, state = thousand(latent)
    assert state.latent["w"].dtype == jnp.float32
    np.testing.assert_allclose(np.asarray(moved["w"], float), 0.9, rtol=2**-8)


def test_a_pruned_latent_weight_learns_and_returns():
    optimizer = transforms.latent_proximal(optax.sgd(1.0), soft, 0.5, where=True)
    params = jnp.array([0.4, 2.0])
    state = optimizer.init(params)
    seen = []
    for _ in range(3):
        updates, state = optimizer.update(jnp.array([-0.25, 0.0]), state, params)
        params = optax.apply_updates(params, updates)
        seen.append(params.tolist())
    np.testing.assert_allclose(seen, [[0.15, 1.5], [0.4, 1.5], [0.65, 1.5]], rtol=1e-6)
    updates, state = optimizer.update(jnp.array([1.0, 0.0]), state, params)
    assert optax.apply_updates(params, updates)[0] == 0.0


def test_a_schedule_may_drive_the_keep_ratio_of_top_k():
    pruned = transforms.proximal(
        lambda params, keep: prox.top_k(params, keep_ratio=keep),
        optax.linear_schedule(1.0, 0.25, 3),
        where=True,
    )
    params, state = jnp.arange(1.0, 9.0), None
    state, counts = pruned.init(params), []
    update = jax.jit(pruned.update)
    for _ in range(4):
        updates, state = update(jnp.zeros(8), state, params)
        params = optax.apply_updates(params, updates)
        counts.append(int(jnp.sum(params != 0)))
    assert counts == [8, 6, 4, 2]


def test_a_proximal_step_before_the_optimizer_is_noticed():
    right = optax.chain(optax.sgd(0.1), transforms.ista(3.0, 0.1, where=True))
    wrong = optax.chain(transforms.ista(3.0, 0.1, where=True), optax.sgd(0.1))
    wrapped = optax.MultiSteps(right, 2)
    assert not optax.tree.get(run(right, sample_params())[1], "misplaced")
    assert not optax.tree.get(run(wrapped, sample_params())[1], "misplaced")
    assert optax.tree.get(run(wrong, sample_params())[1], "misplaced")


# --- optax's contract --------------------------------------------------------------


@pytest.mark.parametrize("name", ["latent_proximal", "preconditioned_proximal", "lats"])
def test_extra_arguments_reach_the_wrapped_optimizer(name):
    seen = []

    def update(updates, state, params=None, *, value, **extra):
        seen.append(value)
        return updates, state

    spy = optax.GradientTransformationExtraArgs(
        lambda params: optax.EmptyState(), update
    )
    ones = lambda state: {"w": jnp.ones(2)}
    optimizer = {
        "latent_proximal": transforms.latent_proximal(spy, soft, 0.1, where=True),
        "preconditioned_proximal": transforms.preconditioned_proximal(
            spy, soft, 0.1, preconditioner=ones, where=True
        ),
        "lats": lats(spy, threshold=0.1, where=True),
    }[name]
    params = {"w": jnp.ones(2)}
    optimizer.update(params, optimizer.init(params), params, value="loss", other=1)
    assert seen == ["loss"]


@pytest.mark.parametrize(("eps", "eps_root"), [(1e-8, 0.0), (0.1, 0.5)])
def test_the_preconditioned_step_is_the_prox_in_adams_metric(eps, eps_root):
    params, b2 = sample_params(), 0.9
    adam = optax.adam(0.1, b2=b2, eps=eps, eps_root=eps_root)
    metric = transforms.adam_preconditioner(b2, eps, eps_root)
    optimizer = transforms.preconditioned_proximal(
        adam, soft, 0.02, preconditioner=metric, where=True
    )
    grads = sample_grads(params)
    ours, _ = optimizer.update(grads, optimizer.init(params), params)
    step, _ = adam.update(grads, adam.init(params), params)
    for leaf in params:  # after one step nu is the square of the gradient
        root = np.sqrt(np.asarray(grads[leaf], float) ** 2 + eps_root)
        target = reference.soft(params[leaf] + step[leaf], 0.02 / (root + eps))
        np.testing.assert_allclose(
            params[leaf] + ours[leaf], target, rtol=1e-4, atol=1e-6
        )


# --- bad input -----------------------------------------------------------------------

PARAMS = {"k": jnp.ones((2, 3))}
missing = functools.partial(prox.group_soft_threshold, group_axes=5)


@pytest.mark.parametrize(
    ("call", "error", "words"),
    [
        (
            lambda: transforms.ista(-1e-4, 0.1, where=True),
            ValueError,
            "strength=-0.*at least 0",
        ),
        (lambda: transforms.ista(1e-4, -0.1, where=True), ValueError, "learning_rate="),
        (lambda: transforms.ista("1", 0.1, where=True), TypeError, "strength="),
        (
            lambda: transforms.ista(1e-4, 0.1, momentum=1.0, where=True),
            ValueError,
            r"momentum=1.0.*\[0, 1\)",
        ),
        (lambda: transforms.fista(-1.0, 0.1, where=True), ValueError, "`fista"),
        (
            lambda: transforms.adam_ista(float("nan"), 0.1, where=True),
            ValueError,
            "finite",
        ),
        (lambda: transforms.proximal(soft, -1.0, where=True), ValueError, "scaling="),
        (lambda: transforms.proximal(0.1, where=True), TypeError, "functools.partial"),
        (
            lambda: transforms.latent_proximal(0.1, soft, where=True),
            TypeError,
            "optax.sgd",
        ),
        (
            lambda: lats(optax.sgd(0.1), threshold=-1, where=True),
            ValueError,
            "threshold=",
        ),
        (
            lambda: transforms.proximal(missing, where=True).init(PARAMS),
            ValueError,
            r"leaf 'k'.*\(2, 3\)",
        ),
        (
            lambda: transforms.latent_proximal(
                optax.sgd(0.1), missing, where=True
            ).init(PARAMS),
            ValueError,
            "group_axes",
        ),
        (
            lambda: transforms.proximal(lambda p, s: p["k"], where=True).init(PARAMS),
            ValueError,
            "return a tree of the structure",
        ),
        (
            lambda: transforms.proximal(lambda p, s: {"k": p["k"][0]}, where=True).init(
                PARAMS
            ),
            ValueError,
            "keep the shape",
        ),
        (
            lambda: transforms.preconditioned_proximal(
                optax.sgd(0.1), soft, preconditioner=None, where=True
            ),
            TypeError,
            "adam_preconditioner",
        ),
        (
            lambda: transforms.adam_preconditioner()(optax.sgd(0.1).init(PARAMS)),
            ValueError,
            "exactly one.*holds 0",
        ),
    ],
)
def test_bad_input_is_refused_with_its_name_and_value(call, error, words):
    with pytest.raises(error, match=words):
        call()


def test_a_preconditioner_of_another_structure_is_refused():
    masked = optax.masked(optax.adam(0.1), {"kernel": True, "scale": False})
    optimizer = transforms.preconditioned_proximal(
        masked, soft, 0.1, preconditioner=transforms.adam_preconditioner(), where=True
    )
    params = sample_params()
    with pytest.raises(ValueError, match="Select leaves with `where`"):
        optimizer.update(params, optimizer.init(params), params)
