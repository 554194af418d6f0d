"""Parameters sharded inside of `jax.shard_map`: refused, and a way that works.

The network is a tensor-parallel one: each device has some of the hidden units.
"""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from jax.sharding import AxisType
from jax.sharding import PartitionSpec as P

import jaxprune
from jaxprune import costs, transforms

STEPS = 10
MESH = jax.make_mesh((4,), ("model",), axis_types=(AxisType.Auto,))
SGD = optax.sgd(0.1, momentum=0.9)
FIFTH = jaxprune.at_most(jaxprune.density, 0.2)
_RNG = np.random.default_rng(0)


def _draw(*shape):
    return jnp.asarray(_RNG.normal(size=shape) / np.sqrt(shape[0]), jnp.float32)


PARAMS = {"a": {"kernel": _draw(32, 64)}, "b": {"kernel": _draw(64, 8)}}
SPECS = {"a": {"kernel": P(None, "model")}, "b": {"kernel": P("model", None)}}
X = 40 * _draw(64, 32)
LABELS = jnp.argmax(X @ _draw(32, 8), -1)


def _hidden(params, x):
    return jax.nn.relu(x @ params["a"]["kernel"]) @ params["b"]["kernel"]


def _entropy(logits):
    return optax.softmax_cross_entropy_with_integer_labels(logits, LABELS).mean()


def _loss(params, x):
    return _entropy(_hidden(params, x))


def _loss_of_shards(params, x):
    return _entropy(jax.lax.psum(_hidden(params, x), "model"))


def _channels(make):
    graph = jaxprune.trace_channels(_hidden, PARAMS, X)
    return make(graph, jaxprune.at_most(costs.macs(graph), 0.5))


PRUNERS = {
    "ltp": jaxprune.ltp,
    # Steeper masks multiply differences of rounding.
    "ltp_as_published": lambda: jaxprune.ltp_as_published(
        temperature=1e-1, init_threshold=1e-2
    ),
    "soft_threshold_reparameterization": jaxprune.soft_threshold_reparameterization,
    "soft_thresholding": jaxprune.soft_thresholding,
}
METHODS = {
    **{n: lambda n=n: jaxprune.pruning(PRUNERS[n](), FIFTH) for n in PRUNERS},
    "magnitude": lambda: jaxprune.pruning(jaxprune.magnitude(sparsity=0.8)),
    "garrote": lambda: jaxprune.pruning(jaxprune.garrote(sparsity=0.8, steps=STEPS)),
    "dsa": lambda: _channels(lambda g, half: jaxprune.pruning(jaxprune.dsa(g), half)),
    "channel_garrote": lambda: _channels(
        lambda g, half: jaxprune.pruning(jaxprune.channel_garrote(g, half, steps=STEPS))
    ),
    "lats": lambda: jaxprune.lats(SGD, sparsity=0.8, steps=STEPS),
    "ista": lambda: optax.chain(SGD, transforms.ista(1e-3, 0.1)),
    "gradual_magnitude": lambda: jaxprune.gradual_magnitude(
        SGD, sparsity=0.8, steps=STEPS
    ),
}


def _rows(names, quick):
    """Some rows are enough for every run; `make test-slow` has all."""
    slow = pytest.mark.slow
    return [pytest.param(n, marks=() if n in quick else slow) for n in names]


def _parts(method):
    """Returns an optimizer, what it trains, the weights computed with, and the end."""
    if isinstance(method, optax.GradientTransformation):
        return method, lambda p: p, lambda t: (t, 0.0), jaxprune.finalize
    return (
        method.optimizer(SGD),
        method.init,
        method,
        lambda trained, _: method.finalize(trained),
    )


def _step(tx, compute, loss):
    def step(trained, state, x):
        def objective(trained):
            params, penalty = compute(trained)
            return loss(params, x) + penalty

        updates, state = tx.update(jax.grad(objective)(trained), state, trained)
        return optax.apply_updates(trained, updates), state

    return step


def _specs(tree):
    """Returns the shards of everything that is of the shape of a kernel's shard."""

    def spec(path, x):
        names = jax.tree_util.keystr(path, simple=True, separator="/").split("/")
        kernel = getattr(x, "ndim", 0) == 2
        return SPECS["a" if "a" in names else "b"]["kernel"] if kernel else P()

    return jax.tree_util.tree_map_with_path(spec, tree)


def _run(step, trained, state):
    step = jax.jit(step)
    for _ in range(STEPS):
        trained, state = step(trained, state, X)
    return trained, state


def _on_shards(step, trained, state, *, check_vma):
    specs = _specs(trained), _specs(state)
    return jax.shard_map(
        step, mesh=MESH, in_specs=(*specs, P()), out_specs=specs, check_vma=check_vma
    )


@pytest.mark.parametrize("name", METHODS)
def test_shards_are_refused_at_once(name):
    tx, init, compute, _ = _parts(METHODS[name]())
    trained = init(PARAMS)
    state = tx.init(trained)
    step = _on_shards(
        _step(tx, compute, _loss_of_shards), trained, state, check_vma=True
    )
    message = (
        r"must get whole parameters, .* leaf 'a/kernel' differs over the mesh axes "
        r"\['model'\]: a shard of shape \(32, 16\).* Call it outside"
    )
    with pytest.raises(ValueError, match=message):
        jax.jit(step)(trained, state, X)


@pytest.mark.filterwarnings("ignore::jaxprune.base.PruningWarning")
@pytest.mark.parametrize("inside", [False, True], ids=["init outside", "init inside"])
@pytest.mark.parametrize(
    "name",
    _rows([n for n in METHODS if n not in ("dsa", "channel_garrote")], ("ltp", "lats")),
)
def test_shards_that_jax_does_not_tell_are_refused_at_the_end(name, inside):
    tx, init, compute, finalize = _parts(METHODS[name]())

    def begin(params):
        trained = init(params)
        return trained, tx.init(trained)

    whole = begin(PARAMS)
    if inside:
        specs = tuple(map(_specs, whole))
        whole = jax.jit(
            jax.shard_map(
                begin,
                mesh=MESH,
                in_specs=(SPECS,),
                out_specs=specs,
                check_vma=False,
            )
        )(PARAMS)
    step = _step(tx, compute, _loss_of_shards)
    trained, state = _run(_on_shards(step, *whole, check_vma=False), *whole)
    with pytest.raises(ValueError, match=r"outside of\s+`jax.shard_map`|whole"):
        finalize(trained, state)


@pytest.mark.filterwarnings("ignore::jaxprune.base.PruningWarning")
@pytest.mark.parametrize("name", _rows(METHODS, ("lats",)))
def test_the_loss_alone_on_shards_equals_one_device(name):
    tx, init, compute, finalize = _parts(METHODS[name]())
    trained = init(PARAMS)
    state = tx.init(trained)
    loss = jax.shard_map(
        _loss_of_shards, mesh=MESH, in_specs=(SPECS, P()), out_specs=P()
    )
    expected = _run(_step(tx, compute, _loss), trained, state)
    found = _run(_step(tx, compute, loss), trained, state)
    for x, y in zip(*map(jax.tree.leaves, (expected, found)), strict=True):
        x, y = map(np.asarray, (x, y))
        if x.dtype.kind == "f":
            np.testing.assert_allclose(y, x, rtol=1e-5, atol=1e-5)
    final = [finalize(*trained).masks for trained in (expected, found)]
    jax.tree.map(np.testing.assert_array_equal, *final)


def test_frozen_masks_hold_on_shards_as_on_the_whole():
    masks = jax.tree.map(lambda w: abs(w) > 0.1, PARAMS)
    tx = optax.chain(SGD, jaxprune.freeze_pruned(masks))
    start = jaxprune.apply_masks(PARAMS, masks), tx.init(PARAMS)
    step = _step(tx, lambda p: (p, 0.0), _loss_of_shards)
    expected, _ = _run(_step(tx, lambda p: (p, 0.0), _loss), *start)
    found, state = _run(_on_shards(step, *start, check_vma=True), *start)
    jaxprune.check(state)
    for name in PARAMS:
        np.testing.assert_allclose(
            found[name]["kernel"], expected[name]["kernel"], rtol=1e-5, atol=1e-6
        )
        np.testing.assert_array_equal(found[name]["kernel"] != 0, masks[name]["kernel"])
    # One that came back on one device is known on all.
    back = jax.tree.map(lambda w, m: jnp.where(m, w, 1e-3), found, masks)
    one = _on_shards(step, *start, check_vma=True)
    _, state = jax.jit(one)(back, state, X)
    with pytest.raises(ValueError, match=r"`freeze_pruned`"):
        jaxprune.check(state)
