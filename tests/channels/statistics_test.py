"""Running statistics computed anew from batches."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen as nn
from flax import nnx

from jaxprune.channels import random_channel_masks, renew_statistics, trace_channels

X = jax.random.normal(jax.random.key(1), (32, 6)) * 3 + 1


class Net(nn.Module):
    """Two normalisations; the second sees what the first normalised."""

    momentum: float = 0.99

    @nn.compact
    def __call__(self, x, train=True):
        norm = functools.partial(
            nn.BatchNorm, use_running_average=not train, momentum=self.momentum
        )
        x = nn.relu(norm()(nn.Dense(8)(x)))
        return nn.Dense(3)(nn.relu(norm()(nn.Dense(5)(x))))


def train_fn(model, variables, x):
    return model.apply(variables, x, mutable=["batch_stats"])


def statistics_of(variables, x):
    """What the batch alone has: a momentum of zero forgets everything."""
    _, updated = Net(momentum=0.0).apply(variables, x, mutable=["batch_stats"])
    return updated["batch_stats"]


@pytest.mark.parametrize("momentum", [0.0, 0.9, 0.99, 0.999])
def test_one_batch_gives_its_statistics_whatever_the_momentum(momentum):
    model = Net(momentum)
    variables = model.init(jax.random.key(0), X, train=False)
    stale = jax.tree.map(lambda s: s + 7, variables["batch_stats"])
    got = renew_statistics(
        functools.partial(train_fn, model), {**variables, "batch_stats": stale}, [X]
    )
    want = statistics_of(variables, X)
    jax.tree.map(
        functools.partial(np.testing.assert_allclose, rtol=2e-6, atol=1e-6),
        got["batch_stats"],
        want,
    )
    assert got["params"] == variables["params"]


def test_several_batches_give_the_variance_of_all_examples():
    model = Net()
    variables = model.init(jax.random.key(0), X, train=False)
    # Of unequal sizes, and with means far apart.
    parts = [X[:20], X[20:30] + 5, X[30:]]
    got = renew_statistics(functools.partial(train_fn, model), variables, iter(parts))
    layer = variables["params"]["Dense_0"]
    hidden = np.concatenate(parts) @ np.asarray(layer["kernel"], np.float64)
    first = got["batch_stats"]["BatchNorm_0"]
    np.testing.assert_allclose(first["mean"], hidden.mean(0), rtol=1e-5, atol=1e-5)
    np.testing.assert_allclose(first["var"], hidden.var(0), rtol=1e-5)


def test_a_compact_network_gets_its_own_statistics():
    model = Net()
    variables = model.init(jax.random.key(0), X, train=False)
    train = functools.partial(train_fn, model)
    graph = trace_channels(
        {"train": train, "eval": functools.partial(model.apply, train=False)},
        variables,
        X[:1],
    )
    masks = random_channel_masks(jax.random.key(2), graph, 0.5)
    small = graph.compact(masks, variables)
    renewed = renew_statistics(small.functions["train"], small.trees[0], [(X,)])
    _, dense = graph.masked(masks, function="train")(variables, X)
    for layer in ("BatchNorm_0", "BatchNorm_1"):
        (left,) = small.kept[f"batch_stats/{layer}/mean"]
        for name in ("mean", "var"):
            old = variables["batch_stats"][layer][name]
            want = (dense["batch_stats"][layer][name] - 0.99 * old) / 0.01
            np.testing.assert_allclose(
                renewed["batch_stats"][layer][name], want[left], rtol=1e-3, atol=1e-3
            )
    # Evaluation with them is training on that batch.
    logits, _ = small.functions["train"](small.trees[0], X)
    np.testing.assert_allclose(
        small.functions["eval"](renewed, X), logits, rtol=1e-4, atol=1e-4
    )


def test_an_nnx_state_keeps_its_weights_and_its_keys():
    class Model(nnx.Module):
        def __init__(self, rngs):
            self.first = nnx.Linear(6, 8, rngs=rngs)
            self.norm = nnx.BatchNorm(8, rngs=rngs)
            self.drop = nnx.Dropout(0.5, rngs=rngs)

        def __call__(self, x):
            return self.drop(self.norm(self.first(x)))

    definition, state = nnx.split(Model(nnx.Rngs(0)))

    def train(state, x):
        model = nnx.merge(definition, state, copy=True)
        model.train()
        return model(x), nnx.state(model)

    got = renew_statistics(train, state, [X, X])
    hidden = X @ state["first"]["kernel"].get_value()
    np.testing.assert_allclose(got["norm"]["var"].get_value(), hidden.var(0), rtol=1e-5)
    for name in ("first", "drop"):
        same = jax.tree.map(lambda a, b: bool((a == b).all()), got[name], state[name])
        assert all(jax.tree.leaves(same))


def test_averages_with_a_corrected_bias_as_haiku_has_them():
    def train(p, x):
        count = p["counter"] + 1
        hidden = 0.9 * p["mean"]["hidden"] + 0.1 * x.mean(0)
        average = hidden / (1 - 0.9**count)
        mean = {"hidden": hidden, "average": average}
        return x - average[None], {"mean": mean, "counter": count}

    p = {
        "mean": {"hidden": jnp.ones(6), "average": jnp.ones(6)},
        "counter": jnp.int32(9),
    }
    got = renew_statistics(train, p, [X])
    for name in ("hidden", "average"):
        np.testing.assert_allclose(got["mean"][name], X.mean(0), rtol=1e-5)
    assert got["counter"] == 9


def test_what_cannot_be_renewed_is_refused():
    largest = lambda p, x: (x, {"s": jnp.maximum(p["s"], 2 * p["s"] + x.max(0))})
    with pytest.raises(ValueError, match=r"'s' must be updated as a moving average"):
        renew_statistics(largest, {"s": jnp.ones(6)}, [X])
    frozen = lambda p, x: (x @ p["w"], {"w": p["w"]})
    with pytest.raises(ValueError, match="must return an updated floating leaf"):
        renew_statistics(frozen, {"w": jnp.ones((6, 2))}, [X])
    with pytest.raises(ValueError, match="at least one batch"):
        renew_statistics(frozen, {"w": jnp.ones((6, 2))}, [])
