"""Operands of products, found in the traced program."""

import jax
import jax.numpy as jnp
import pytest
from flax import linen as nn
from flax import nnx

from jaxprune import tree


def _used(apply_fn, params, *inputs):
    found = tree.selected(params, tree.operands(apply_fn, params, *inputs))
    return {leaf.name: leaf.layers for leaf in found.leaves if leaf.selected}


class _Block(nn.Module):
    @nn.compact
    def __call__(self, x, _):
        x = x + nn.MultiHeadDotProductAttention(num_heads=2)(nn.LayerNorm()(x))
        return x + nn.Dense(8)(nn.gelu(nn.Dense(6)(x))), None


class _Network(nn.Module):
    @nn.compact
    def __call__(self, tokens):
        x = nn.Embed(11, 8, name="embed")(tokens)
        x = x + self.param("pos", nn.initializers.normal(), (1, 5, 8))
        stack = nn.scan(
            _Block, variable_axes={"params": 0}, split_rngs={"params": True}, length=3
        )
        return nn.RNN(nn.GRUCell(4))(stack()(x, None)[0])


def test_a_scanned_transformer_with_an_rnn():
    tokens = jax.ShapeDtypeStruct((2, 5), jnp.int32)
    network = _Network()
    params = jax.eval_shape(network.init, jax.random.key(0), tokens)["params"]
    used = _used(lambda p, t: network.apply({"params": p}, t), params, tokens)
    assert all(name.endswith("kernel") for name in used)
    assert set(used) == set(tree.select(params))
    assert {n for n, layers in used.items() if layers == 3} == {
        name for name in used if name.startswith("Scan")
    }


def test_nnx_modules_by_their_own_names():
    class Net(nnx.Module):
        def __init__(self):
            rngs = nnx.Rngs(0)
            self.conv = nnx.Conv(1, 4, (3, 3), rngs=rngs)
            self.norm = nnx.GroupNorm(4, num_groups=2, rngs=rngs)
            self.odd = nnx.Param(jnp.ones((4, 2)))

        def __call__(self, x):
            return self.norm(self.conv(x)).mean((1, 2)) @ self.odd[...]

    graph, state = nnx.split(Net())
    used = _used(lambda s, x: nnx.merge(graph, s)(x), state, jnp.ones((1, 8, 8, 1)))
    assert set(used) == {"conv/kernel", "odd"}


PARAMS = {"m": jnp.ones((4, 4)), "g": jnp.ones((1, 4)), "s": jnp.ones((3, 4, 4))}

FUNCTIONS = {
    "cast and transpose": (lambda p, x: x @ p["m"].astype(jnp.bfloat16).T, {"m"}),
    "masked": (lambda p, x: x @ jnp.where(jnp.eye(4) > 0, p["m"], 0), {"m"}),
    "normalised": (lambda p, x: x @ (p["m"] / jnp.linalg.norm(p["m"])), {"m"}),
    "a bias": (lambda p, x: x @ p["m"] + p["g"], {"m"}),
    "a scale": (lambda p, x: (x * p["g"]) @ p["m"], {"m"}),
    "a folded scale": (lambda p, x: x @ (p["g"] * p["m"]), {"m"}),
    "one of a stack": (lambda p, x: x @ p["s"][1], {"s"}),
    "fused": (lambda p, x: x @ jnp.concatenate([p["m"], p["s"][0]], 1), {"m", "s"}),
    "looked up": (lambda p, x: p["m"][x.astype(int)[:, 0]], set()),
    "remat": (jax.checkpoint(lambda p, x: x @ p["m"]), {"m"}),
    "cond": (
        lambda p, x: jax.lax.cond(x[0, 0] > 0, lambda m: x @ m, lambda m: x, p["m"]),
        {"m"},
    ),
    "while": (
        lambda p, x: jax.lax.fori_loop(0, 3, lambda _, y: y @ p["m"], x),
        {"m"},
    ),
    "vmap": (lambda p, x: jax.vmap(lambda m: x @ m)(p["s"]), {"s"}),
}


@pytest.mark.parametrize("name", FUNCTIONS)
def test_operands_are_followed(name):
    function, want = FUNCTIONS[name]
    assert set(_used(function, PARAMS, jnp.ones((2, 4)))) == want


def test_other_parameters_are_refused_and_exclusions_apply():
    where = tree.operands(lambda p, x: x @ p["m"] @ p["s"][0], PARAMS, jnp.ones((2, 4)))
    assert list(tree.select(PARAMS, tree.selection(where, exclude="s"))) == ["m"]
    with pytest.raises(ValueError, match=r"operands.*other parameters.*\['s'\]"):
        tree.select({"m": PARAMS["m"], "g": PARAMS["g"]}, where)
