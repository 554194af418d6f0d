"""Distillation: the value and the gradient by hand, and a teacher without gradient."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import jaxprune
from jaxprune.training import divergence, hidden_error

RNG = np.random.default_rng(0)
X, Y = RNG.normal(size=(6, 4)), RNG.integers(0, 3, size=6)
STUDENT, TEACHER = RNG.normal(size=(2, 4, 3))


def _cross_entropy(logits, labels):
    return optax.softmax_cross_entropy_with_integer_labels(logits, labels).mean()


def _apply(params, x):
    return x @ params


def _softmax(z):
    e = np.exp(z - z.max(axis=-1, keepdims=True))
    return e / e.sum(axis=-1, keepdims=True)


def _f32(x):
    return jnp.asarray(x, jnp.float32)


@pytest.mark.parametrize("temperature", [1.0, 4.0])
@pytest.mark.parametrize("alpha", [0.0, 0.3, 1.0])
def test_value_and_gradient_are_those_of_the_paper(temperature, alpha):
    z, taught = X @ STUDENT, X @ TEACHER
    q, p = _softmax(z / temperature), _softmax(taught / temperature)
    hard = -np.mean(np.log(_softmax(z))[np.arange(6), Y])
    soft = np.mean(np.sum(p * np.log(p / q), axis=-1))
    want = (1 - alpha) * hard + alpha * temperature**2 * soft
    slope = (1 - alpha) * (_softmax(z) - np.eye(3)[Y])
    slope = (slope + alpha * temperature * (q - p)) / 6
    distilled = jaxprune.distill(
        _cross_entropy, _apply, temperature=temperature, alpha=alpha
    )
    loss = lambda z: distilled(z, _f32(TEACHER), _f32(X), Y)
    value, gradient = jax.jit(jax.value_and_grad(loss))(_f32(z))
    np.testing.assert_allclose(value, want, rtol=1e-5)
    np.testing.assert_allclose(gradient, slope, atol=1e-6)


def test_the_teacher_gets_no_gradient():
    distilled = jaxprune.distill(_cross_entropy, _apply, temperature=2.0)

    def loss(student, teacher, x):
        return distilled(_apply(student, x), teacher, x, Y)

    args = (_f32(STUDENT), _f32(TEACHER), _f32(X))
    gradients = jax.grad(loss, argnums=(0, 1, 2))(*args)
    assert np.any(gradients[0])
    assert not np.any(gradients[1])
    # Through the student alone, not through what the teacher reads.
    frozen = lambda x: distilled(_apply(args[0], x), args[1], args[2], Y)
    np.testing.assert_allclose(gradients[2], jax.grad(frozen)(args[2]), atol=1e-6)


def test_hidden_states_are_followed():
    def apply_fn(params, x):
        hidden = jnp.tanh(x @ params["a"])
        return hidden @ params["b"], {"hidden": hidden}

    draw = lambda: {
        "a": _f32(RNG.normal(size=(4, 5))),
        "b": _f32(RNG.normal(size=(5, 3))),
    }
    student, teacher = draw(), draw()
    plain = jaxprune.distill(_cross_entropy, lambda p, x: apply_fn(p, x)[0])
    both = jaxprune.distill(_cross_entropy, apply_fn, hidden=3.0)
    outputs = apply_fn(student, _f32(X))
    got = both(outputs, teacher, _f32(X), Y) - plain(outputs[0], teacher, _f32(X), Y)
    size = np.tanh(X @ np.asarray(student["a"])) - np.tanh(X @ np.asarray(teacher["a"]))
    np.testing.assert_allclose(got, 3 * np.mean(size**2), rtol=1e-4)
    slopes = jax.grad(lambda t: both(outputs, t, _f32(X), Y))(teacher)
    assert not any(np.any(leaf) for leaf in jax.tree.leaves(slopes))


def test_a_pruned_network_recovers_in_any_loop():
    """With its zeros held, it comes nearer to the teacher at each step of the loop."""
    teacher, x = _f32(TEACHER), _f32(X)
    masks = jaxprune.magnitude(sparsity=0.5).masks({"w": teacher}, {})
    params = jaxprune.apply_masks({"w": teacher}, masks)
    tx = optax.chain(optax.sgd(0.5), jaxprune.freeze_pruned(masks))
    distilled = jaxprune.distill(_cross_entropy, _apply, alpha=1.0)

    @jax.jit
    def step(params, state):
        loss = lambda p: distilled(x @ p["w"], teacher, (x,), Y)
        value, gradients = jax.value_and_grad(loss)(params)
        updates, state = tx.update(gradients, state, params)
        return optax.apply_updates(params, updates), state, value

    state, values = tx.init(params), []
    for _ in range(20):
        params, state, value = step(params, state)
        values.append(float(value))
    assert values == sorted(values, reverse=True)
    assert int(jnp.sum(params["w"] != 0)) == 6


def test_excluded_classes_low_precision_and_the_same_network():
    z = jnp.array([[0.0, 1.0, -jnp.inf]])
    value, slope = jax.value_and_grad(divergence)(jnp.array([[0.0, 1.0, 2.0]]), z)
    assert np.isfinite(value)
    assert np.all(np.isfinite(slope))
    half = jnp.array([[3.0, 1.0]], jnp.bfloat16)
    assert divergence(half, half).dtype == jnp.float32
    assert divergence(half, half) == 0
    assert hidden_error({}, {}) == 0


def test_misuse_is_refused():
    for options in ({"temperature": 0.0}, {"alpha": 1.5}, {"hidden": -1.0}):
        with pytest.raises(ValueError, match=rf"`distill\({next(iter(options))}="):
            jaxprune.distill(_cross_entropy, _apply, **options)
    with pytest.raises(TypeError, match="must be a function"):
        jaxprune.distill(_cross_entropy, 3)
    with pytest.raises(ValueError, match="must have one shape"):
        divergence(jnp.ones((2, 3)), jnp.ones((1, 3)))
    with pytest.raises(ValueError, match="one structure"):
        hidden_error([jnp.ones(2)], [jnp.ones(3)])
    both = jaxprune.distill(_cross_entropy, _apply, hidden=1.0)
    with pytest.raises(ValueError, match="the student must return a pair"):
        both(_f32(X @ STUDENT), _f32(TEACHER), _f32(X), Y)
