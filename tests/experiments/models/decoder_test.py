"""Decoders: sizes, causality, positions, and what can be removed from them."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from experiments import models
from experiments.models.decoder import rotate
from experiments.plans import channels

# 2 * 256 * w + L * (2 * w * h * f + 2 * w * g * f + 3 * w * m + 2 * w) + w, so
#   tiny   49152 + 3 * (18432 + 9216 + 55296 + 192) + 96
#   small  131072 + 6 * (131072 + 65536 + 589824 + 512) + 256
#   base   393216 + 12 * (1179648 + 393216 + 7077888 + 1536) + 768
_SIZES = {
    "decoder_tiny": 298_656,
    "decoder_small": 4_852_992,
    "decoder_base": 104_221_440,
}
_LAYERS = 3


@pytest.fixture(scope="module")
def network():
    """A small decoder, its variables, and texts."""
    model = models.Decoder(
        13, width=8, layers=_LAYERS, hidden=12, heads=4, kv_heads=2, features=4
    )
    x = jax.random.randint(jax.random.key(1), (2, 9), 0, 13)
    variables = jax.jit(lambda: model.init(jax.random.key(0), x, train=False))()
    return model, {**variables, "batch_stats": {}}, x


@pytest.fixture(scope="module")
def traced(network):
    model, variables, x = network
    return channels.trace(model, (variables["params"], {}), x[:1]).graph


@pytest.mark.parametrize("name", _SIZES)
def test_parameters_are_as_many_as_the_formula_says(name):
    model = models.create(name, 256)
    x = jnp.zeros((1, 128), int)
    shapes = jax.eval_shape(lambda: model.init(jax.random.key(0), x, train=False))
    assert sum(leaf.size for leaf in jax.tree.leaves(shapes)) == _SIZES[name]
    logits = jax.eval_shape(lambda v: model.apply(v, x, train=False), shapes)
    assert (logits.shape, logits.dtype) == ((1, 128, 256), jnp.float32)


def test_a_token_sees_those_before_it_and_itself(network):
    model, variables, x = network
    apply_fn = jax.jit(lambda x: model.apply(variables, x, train=False))
    changed = apply_fn(x.at[:, 5].add(1) % 13)
    moved = np.abs(apply_fn(x) - changed).max(axis=(0, 2)) > 0
    assert moved.tolist() == [False] * 5 + [True] * 4


def test_products_of_rotated_vectors_depend_on_their_distance():
    q, k = np.random.default_rng(0).normal(size=(2, 6))
    angles = np.arange(10)[:, None] / 10_000 ** (2 * np.arange(3) / 6)
    turned = (q[:3] + 1j * q[3:]) * np.exp(1j * angles)
    want = np.concatenate([turned.real, turned.imag], axis=1)
    q, k = (np.broadcast_to(a, (1, 10, 2, 6)) for a in (q, k))
    rotated = np.asarray(rotate(jnp.float32(q)))
    np.testing.assert_allclose(rotated[0, :, 1], want, atol=1e-6)
    products = np.einsum("thf,shf->hts", rotated[0], rotate(jnp.float32(k))[0])
    np.testing.assert_allclose(products[0, 3:, 1:8], products[0, 2:-1, :7], atol=1e-5)


def test_heads_hidden_units_the_width_and_layers_can_go(traced):
    attention = "params/layers/attention"
    assert {name: group.size for name, group in traced.groups.items()} == {
        "params/embed/embedding:1": 8,
        f"{attention}/key/kernel:2": 2,  # heads of keys, with their queries and values
        f"{attention}/query/kernel:3": 2,  # heads of queries, of each of these
        f"{attention}/key/kernel:3": 2,  # pairs of features, of queries and keys
        f"{attention}/value/kernel:3": 4,
        "params/layers/gate/kernel:2": 12,
    }
    blocks = {name: block.layers for name, block in traced.blocks.items()}
    assert blocks == {f"{attention}:block": 3, "params/layers:block": 3}


def test_the_compact_decoder_computes_what_the_masked_one_does(network, traced):
    _, variables, x = network
    masks = {n: np.arange(g.size) % 2 == 0 for n, g in traced.groups.items()}
    masks |= {name: np.array([True, False, True]) for name in traced.blocks}
    small = traced.compact(masks, variables)
    want = jax.jit(traced.masked(masks))(variables, x)
    got = jax.jit(small.apply_fn)(small.trees[0], x)
    np.testing.assert_allclose(got, want, atol=1e-5)
    assert small.trees[0]["params"]["layers"]["down"]["kernel"].shape == (2, 6, 4)
