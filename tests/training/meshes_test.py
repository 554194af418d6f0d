"""Training on meshes: every method, every layout, the same network as on one device."""

import collections
import math
import re
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from jax.sharding import AxisType, NamedSharding
from jax.sharding import PartitionSpec as P

import jaxprune
from jaxprune import costs

STEPS = 20
_RNG = np.random.default_rng(0)


def _draw(*shape):
    return jnp.asarray(_RNG.normal(size=shape) / np.sqrt(shape[0]), jnp.float32)


PARAMS = {
    "a": {"kernel": _draw(32, 64), "bias": jnp.zeros(64)},
    "b": {"kernel": _draw(64, 64), "bias": jnp.zeros(64)},
    "c": {"kernel": _draw(64, 8)},
}
X = 5 * _draw(64, 32) * 8
LABELS = jnp.argmax(X @ _draw(32, 8), -1)

LAYOUTS: dict[str, tuple[AxisType, Callable[[Any], P]]] = {
    "data parallel": (AxisType.Auto, lambda x: P()),
    "fully sharded": (AxisType.Auto, lambda x: P("data") if x.ndim == 2 else P()),
    "tensor parallel": (AxisType.Auto, lambda x: P(*[None] * (x.ndim - 1), "model")),
    "both": (AxisType.Auto, lambda x: P("data", "model") if x.ndim == 2 else P()),
    "data parallel, explicit": (AxisType.Explicit, lambda x: P()),
    "fully sharded, explicit": (
        AxisType.Explicit,
        lambda x: P("data") if x.ndim == 2 else P(),
    ),
}


def _network(params, x):
    for name in "ab":
        x = jax.nn.relu(x @ params[name]["kernel"] + params[name]["bias"][None])
    return x @ params["c"]["kernel"]


def _loss(params, x):
    logits = _network(params, x)
    return optax.softmax_cross_entropy_with_integer_labels(logits, LABELS).mean()


def _graph():
    return jaxprune.trace_channels(_network, PARAMS, X)


def _half(graph):
    return jaxprune.at_most(costs.macs(graph), 0.5)


def _channels(make):
    graph = _graph()
    return make(graph, _half(graph))


SGD = optax.sgd(0.1, momentum=0.9)
FIFTH = jaxprune.at_most(jaxprune.density, 0.2)
METHODS: dict[str, Callable[[], Any]] = {
    "ltp": lambda: jaxprune.pruning(jaxprune.ltp(), FIFTH),
    # A steeper mask multiplies differences of rounding by hundreds within 20 steps.
    "ltp_as_published": lambda: jaxprune.pruning(
        jaxprune.ltp_as_published(temperature=1e-1, init_threshold=1e-2), FIFTH
    ),
    "soft_threshold_reparameterization": lambda: jaxprune.pruning(
        jaxprune.soft_threshold_reparameterization(), FIFTH
    ),
    "soft_thresholding": lambda: jaxprune.pruning(jaxprune.soft_thresholding(), FIFTH),
    "magnitude": lambda: jaxprune.pruning(jaxprune.magnitude(sparsity=0.8)),
    "global_magnitude": lambda: jaxprune.pruning(
        jaxprune.global_magnitude(sparsity=0.8)
    ),
    "garrote": lambda: jaxprune.pruning(jaxprune.garrote(sparsity=0.8, steps=STEPS)),
    "dsa": lambda: _channels(lambda g, half: jaxprune.pruning(jaxprune.dsa(g), half)),
    "channel_garrote": lambda: _channels(
        lambda g, half: jaxprune.pruning(jaxprune.channel_garrote(g, half, steps=STEPS))
    ),
    "lats": lambda: jaxprune.lats(SGD, sparsity=0.8, steps=STEPS),
    "gradual_magnitude": lambda: jaxprune.gradual_magnitude(
        SGD, sparsity=0.8, steps=STEPS
    ),
}


def _train(method, params, x):
    """Returns what was trained, the final network, and what a step gathers."""
    if isinstance(method, optax.GradientTransformation):
        tx, trained = method, params
        objective = lambda params: _loss(params, x)
        finalize = jaxprune.finalize
    else:
        tx, trained = method.optimizer(SGD), method.init(params)

        def objective(trainable):
            pruned, penalty = method(trainable)
            return _loss(pruned, x) + penalty

        finalize = lambda trained, _: method.finalize(trained)
    state = tx.init(trained)

    def step(trained, state):
        updates, state = tx.update(jax.grad(objective)(trained), state, trained)
        return optax.apply_updates(trained, updates), state

    step = jax.jit(step)
    for _ in range(STEPS):
        trained, state = step(trained, state)
    gathered = _gathered(step.lower(trained, state).compile().as_text())
    return trained, finalize(trained, state), gathered


def _gathered(program: str) -> collections.Counter[str]:
    """The shapes of at least 256 entries that a program gathers."""
    found = re.findall(r"= \(?\w+\[([\d,]*)\]\S* all-gather(?:-start)?\(", program)
    sizes = {shape: math.prod(map(int, shape.split(","))) for shape in found}
    return collections.Counter(shape for shape in found if sizes[shape] >= 256)


def _dense(params, x):
    """What a step without pruning gathers."""
    state = SGD.init(params)

    def step(params, state):
        updates, state = SGD.update(jax.grad(_loss)(params, x), state, params)
        return optax.apply_updates(params, updates), state

    return _gathered(jax.jit(step).lower(params, state).compile().as_text())


def _cases():
    """All methods in all layouts; two cases are quick enough for every run."""
    for name in METHODS:
        for layout in LAYOUTS:
            quick = layout == "both" and name in ("dsa", "lats")
            marks = () if quick else pytest.mark.slow
            yield pytest.param(name, layout, id=f"{name}, {layout}", marks=marks)


@pytest.mark.filterwarnings("ignore::jaxprune.base.PruningWarning")  # 20 steps are few
@pytest.mark.parametrize(("name", "layout"), [*_cases()])
def test_a_mesh_trains_and_prunes_as_one_device_does(name, layout):
    expected, final, _ = _train(METHODS[name](), PARAMS, X)
    kind, spec = LAYOUTS[layout]
    mesh = jax.make_mesh((2, 4), ("data", "model"), axis_types=(kind, kind))

    def place(leaf):
        return jax.device_put(leaf, NamedSharding(mesh, spec(leaf)))

    with jax.set_mesh(mesh):
        params = jax.tree.map(place, PARAMS)
        rows = P("data") if kind == AxisType.Auto else P()
        x = jax.device_put(X, NamedSharding(mesh, rows))
        trained, on_mesh, gathered = _train(METHODS[name](), params, x)
        by_network = _dense(params, x)
    compare = lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-5)
    jax.tree.map(compare, jax.device_get(expected), jax.device_get(trained))
    jax.tree.map(np.testing.assert_array_equal, final.masks, on_mesh.masks)
    assert gathered <= by_network
    kernels = [leaf for leaf in jax.tree.leaves(params) if leaf.ndim == 2]
    for leaf in kernels:  # where XLA puts a bias is up to itself
        # What is as large as a parameter lies as the parameter does.
        same = [
            x
            for x in jax.tree.leaves((trained, on_mesh.params))
            if x.shape == leaf.shape
        ]
        assert same
        for found in same:
            assert found.sharding.is_equivalent_to(leaf.sharding, leaf.ndim)
