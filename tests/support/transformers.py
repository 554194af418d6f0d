"""Transformers and state-space networks with every form of norm, small."""

import functools
from collections.abc import Callable

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from tests.support.architectures import Architecture, draw, linen, rotate, tokens

WIDTH, WORDS = 8, 11


def rms_norm(x, scale, eps=1e-6):
    """Divides by the root of the mean of squares."""
    mean = jnp.mean(jnp.square(x), axis=-1, keepdims=True)
    return x * jax.lax.rsqrt(mean + eps) * scale


def one_pass(x, scale, eps=1e-6):
    """Layer norm with the variance as E[x^2] - E[x]^2."""
    mean = x.mean(-1, keepdims=True)
    var = jnp.square(x).mean(-1, keepdims=True) - jnp.square(mean)
    return (x - mean) / jnp.sqrt(var + eps) * scale


def two_passes(x, scale, eps=1e-6):
    """Layer norm with the variance as E[(x - E[x])^2], by `jnp.var`."""
    mean, var = x.mean(-1, keepdims=True), x.var(-1, keepdims=True)
    return (x - mean) / jnp.sqrt(var + eps) * scale


def l2_norm(x, scale, eps=1e-6):
    """Divides by the root of the sum of squares, without any count."""
    return x / (jnp.linalg.norm(x, axis=-1, keepdims=True) + eps) * scale


NORMS = {
    "rms": rms_norm,
    "one_pass": one_pass,
    "two_passes": two_passes,
    "l2": l2_norm,
}


def attention(p, x, heads, groups):
    """Grouped-query attention with rotary positions, causal."""
    batch, length, _ = x.shape
    q = rotate((x @ p["q"]).reshape(batch, length, heads, -1))
    k, v = ((x @ p[n]).reshape(batch, length, groups, -1) for n in "kv")
    k, v = (jnp.repeat(a, heads // groups, axis=2) for a in (rotate(k), v))
    scores = jnp.einsum("bthd,bshd->bhts", q, k)
    causal = jnp.tril(jnp.ones((length, length), bool))
    scores = jnp.where(causal[None, None], scores, jnp.finfo(x.dtype).min)
    y = jnp.einsum("bhts,bshd->bthd", jax.nn.softmax(scores), v)
    return y.reshape(batch, length, -1) @ p["o"]


def decoder_of(norm, *, post=False, heads=4, groups=2) -> Callable:
    """Return a decoder of grouped queries, tied, with norms in front or behind."""

    def decoder(params, x):
        x = params["embed"][x]
        for layer in params["layers"]:
            for name, f in (
                ("a", functools.partial(attention, heads=heads, groups=groups)),
                ("m", lambda p, y: (jax.nn.silu(y @ p["g"]) * (y @ p["u"])) @ p["d"]),
            ):
                p = layer[name]
                if post:
                    x = norm(x + f(p, x), p["scale"])
                else:
                    x = x + f(p, norm(x, p["scale"]))
        return norm(x, params["scale"]) @ params["embed"].T

    return decoder


def decoder_shapes(width=WIDTH, words=WORDS, hidden=12, heads=4, groups=2, features=4):
    """Return the shapes of a decoder of two layers."""
    d, many = width, heads * features
    few = groups * features
    a = {"scale": (d,), "q": (d, many), "k": (d, few), "v": (d, few), "o": (many, d)}
    m = {"scale": (d,), "g": (d, hidden), "u": (d, hidden), "d": (hidden, d)}
    return {"embed": (words, d), "layers": [{"a": a, "m": m}] * 2, "scale": (d,)}


def drawn(shapes):
    """Draws variables of shapes that are tuples."""
    shapes = jax.tree.map(
        lambda s: jax.ShapeDtypeStruct(s, jnp.float32),
        shapes,
        is_leaf=lambda s: isinstance(s, tuple),
    )
    return draw(shapes)


def decoder(norm, **options) -> Architecture:
    """Return a decoder in plain JAX."""
    return Architecture(
        decoder_of(NORMS[norm], **options), drawn(decoder_shapes()), (tokens(),)
    )


def mamba(params, x, heads=3, state=4):
    """State-space layers with a gated RMS norm over the inner width, as of Mamba-2."""
    x = params["embed"][x]
    for p in params["layers"]:
        y = rms_norm(x, p["scale"]) @ p["in"]
        inner = p["out"].shape[0]
        z, xbc, dt = jnp.split(y, [inner, 2 * inner + 2 * state], axis=-1)
        padded = jnp.pad(xbc, ((0, 0), (3, 0), (0, 0)))
        xbc = jax.nn.silu(
            sum(padded[:, i : i + x.shape[1]] * p["conv"][i] for i in range(4))
            + p["conv_bias"]
        )
        u, b, c = jnp.split(xbc, [inner, inner + state], axis=-1)
        u = u.reshape(*u.shape[:2], heads, -1)
        dt = jax.nn.softplus(dt + p["dt_bias"])
        decay = jnp.exp(-dt * jnp.exp(p["log_a"]))

        def step(h, now):
            u, b, c, dt, decay = now
            new = jnp.einsum("bh,bhp,bn->bhpn", dt, u, b)
            h = h * decay[..., None, None] + new
            return h, jnp.einsum("bhpn,bn->bhp", h, c)

        times = [jnp.moveaxis(a, 1, 0) for a in (u, b, c, dt, decay)]
        start = jnp.zeros((*u[:, 0].shape, state), u.dtype)
        y = jnp.moveaxis(jax.lax.scan(step, start, tuple(times))[1], 0, 1)
        y = (y + u * p["skip"][:, None]).reshape(*u.shape[:2], -1)
        x = x + rms_norm(y * jax.nn.silu(z), p["gate_scale"]) @ p["out"]
    return rms_norm(x, params["scale"]) @ params["embed"].T


def mamba_shapes(width=WIDTH, inner=12, heads=3, state=4, words=WORDS):
    """Return the shapes of two state-space layers."""
    layer = {
        "scale": (width,),
        "in": (width, 2 * inner + 2 * state + heads),
        "conv": (4, inner + 2 * state),
        "conv_bias": (inner + 2 * state,),
        "dt_bias": (heads,),
        "log_a": (heads,),
        "skip": (heads,),
        "gate_scale": (inner,),
        "out": (inner, width),
    }
    return {"embed": (words, width), "layers": [layer] * 2, "scale": (width,)}


def cached(params, cache, x, at):
    """One step of a decoder that keeps keys and values of the steps before."""
    norm, new = rms_norm, []
    x = params["embed"][x]
    for layer, (keys, values) in zip(params["layers"], cache, strict=True):
        p = layer["a"]
        y = norm(x, p["scale"])
        q, k, v = (y @ p[name] for name in "qkv")
        q = q.reshape(q.shape[0], 2, -1, k.shape[-1] // 2)
        k, v = (a.reshape(a.shape[0], 2, -1) for a in (k, v))
        keys = jax.lax.dynamic_update_slice_in_dim(keys, k[:, None], at, 1)
        values = jax.lax.dynamic_update_slice_in_dim(values, v[:, None], at, 1)
        new.append((keys, values))
        scores = jnp.einsum("bghd,btgd->bght", q, keys)
        seen = jnp.arange(keys.shape[1]) <= at
        scores = jnp.where(seen, scores, jnp.finfo(x.dtype).min)
        y = jnp.einsum("bght,btgd->bghd", jax.nn.softmax(scores), values)
        x = x + y.reshape(x.shape[0], -1) @ p["o"]
        p = layer["m"]
        y = norm(x, p["scale"])
        x = x + (jax.nn.silu(y @ p["g"]) * (y @ p["u"])) @ p["d"]
    return norm(x, params["scale"]) @ params["embed"].T, new


class Decoder(nn.Module):
    """A pre-norm decoder of Flax's own layers."""

    norm: Callable = nn.LayerNorm
    width: int = WIDTH
    hidden: int = 12

    @nn.compact
    def __call__(self, x):
        embed = nn.Embed(WORDS, self.width)
        mask = nn.make_causal_mask(x)
        x = embed(x)
        for _ in range(2):
            y = self.norm()(x)
            x = x + nn.MultiHeadDotProductAttention(2, qkv_features=8)(y, y, mask=mask)
            y = nn.Dense(self.hidden)(self.norm()(x))
            x = x + nn.Dense(self.width)(nn.gelu(y))
        return nn.Dense(5)(self.norm()(x))


class Encoder(nnx.Module):
    """A pre-norm encoder of NNX's own layers."""

    def __init__(self, norm, width=WIDTH, hidden=12):
        rngs = nnx.Rngs(0)
        self.embed = nnx.Embed(WORDS, width, rngs=rngs)
        self.norms = nnx.List([norm(width, rngs=rngs) for _ in range(3)])
        self.attention = nnx.MultiHeadAttention(
            2, width, 8, decode=False, deterministic=True, rngs=rngs
        )
        self.up = nnx.Linear(width, hidden, rngs=rngs)
        self.down = nnx.Linear(hidden, width, rngs=rngs)
        self.out = nnx.Linear(width, 5, rngs=rngs)

    def __call__(self, x):
        x = self.embed(x)
        x = x + self.attention(self.norms[0](x))
        x = x + self.down(nnx.gelu(self.up(self.norms[1](x))))
        return self.out(self.norms[2](x))


def encoder(norm, **sizes) -> Architecture:
    """Return the encoder as a function of its parameters."""
    graph, state = nnx.split(Encoder(norm, **sizes), nnx.Param)
    apply_fn = lambda params, x: nnx.merge(graph, params)(x)
    shapes = jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype), state)
    return Architecture(apply_fn, draw(shapes), (tokens(),))


def networks() -> dict[str, Callable[[], Architecture]]:
    """Return the table: name to a function that makes the architecture."""
    table: dict[str, Callable[[], Architecture]] = {}
    for norm in NORMS:
        table[f"pre_{norm}"] = functools.partial(decoder, norm)
        table[f"post_{norm}"] = functools.partial(decoder, norm, post=True)
    slow = functools.partial(nn.LayerNorm, use_fast_variance=False)
    for name, norm in {
        "linen_layer": nn.LayerNorm,
        "linen_layer_two_passes": slow,
        "linen_rms": nn.RMSNorm,
    }.items():
        table[name] = functools.partial(
            lambda norm: linen(Decoder(norm), tokens()), norm
        )
    for name, norm in {
        "nnx_layer": nnx.LayerNorm,
        "nnx_layer_two_passes": functools.partial(
            nnx.LayerNorm, use_fast_variance=False
        ),
        "nnx_rms": nnx.RMSNorm,
    }.items():
        table[name] = functools.partial(encoder, norm)
    table["mamba"] = lambda: Architecture(mamba, drawn(mamba_shapes()), (tokens(),))
    table["cached"] = cached_decoder
    return table


def cached_decoder() -> Architecture:
    """Return a step with keys and values that are parameters, and updated leaves."""
    params = drawn(decoder_shapes())
    cache = draw(jax.ShapeDtypeStruct((2, 5, 2, 4), jnp.float32))
    state = {"params": params, "cache": [(cache, cache)] * 2}

    def apply_fn(state, x, at):
        logits, new = cached(state["params"], state["cache"], x, at)
        return logits, {"cache": new}

    return Architecture(apply_fn, state, (np.array([1, 3]), jnp.int32(2)))
