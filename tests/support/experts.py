"""Networks with experts behind a router, small, each in the manner of its authors.

Every one takes `closed`, experts whose logits are minus infinity.
"""

import functools
from collections.abc import Callable

import flax.linen as nn
import jax
import jax.numpy as jnp
from flax import nnx

from tests.support.architectures import Architecture, linen, tokens
from tests.support.transformers import attention, drawn, rms_norm

EXPERTS, WIDTH, HIDDEN, WORDS = 6, 8, 6, 11


def shut(logits, closed):
    """Make the logits of closed experts minus infinity."""
    return logits.at[..., list(closed)].set(-jnp.inf) if closed else logits


class Mixtral(nn.Module):
    """Softmax behind `top_k`, gated perceptrons, all experts see all tokens."""

    k: int = 2
    layers: int = 1
    closed: tuple = ()

    @nn.compact
    def __call__(self, x):
        x = nn.Embed(WORDS, WIDTH)(x)
        for number in range(self.layers):
            y = nn.RMSNorm()(x)
            x = x + nn.MultiHeadDotProductAttention(2, qkv_features=8)(y, y)
            x = x + self.sparse(nn.RMSNorm()(x), f"layer{number}")
        return nn.Dense(WORDS, use_bias=False)(nn.RMSNorm()(x))

    def sparse(self, x, name):
        init = nn.initializers.lecun_normal()
        shapes = {"w1": (WIDTH, HIDDEN), "w3": (WIDTH, HIDDEN), "w2": (HIDDEN, WIDTH)}
        w1, w3, w2 = (
            self.param(f"{name}_{n}", init, (EXPERTS, *s)) for n, s in shapes.items()
        )
        logits = nn.Dense(EXPERTS, use_bias=False, name=f"{name}_gate")(x)
        weights, chosen = jax.lax.top_k(shut(logits, self.closed), self.k)
        weights = jax.nn.softmax(weights.astype(jnp.float32)).astype(x.dtype)
        each = jax.nn.one_hot(chosen, EXPERTS, dtype=x.dtype)
        combine = jnp.einsum("btk,btke->bte", weights, each)
        h = nn.silu(jnp.einsum("btd,edf->btef", x, w1))
        h = h * jnp.einsum("btd,edf->btef", x, w3)
        return jnp.einsum("btef,efd,bte->btd", h, w2, combine)


class QwenBlock(nnx.Module):
    """Softmax before `top_k`, weights looked up for every token, a shared expert."""

    def __init__(self, rngs, *, k=2, renormalise=False, closed=()):
        def drawn(*shape):
            values = nnx.initializers.lecun_normal()(rngs.params(), shape, jnp.float32)
            return nnx.Param(values)

        self.gate = nnx.Linear(WIDTH, EXPERTS, use_bias=False, rngs=rngs)
        self.up = drawn(EXPERTS, WIDTH, 2 * HIDDEN)
        self.down = drawn(EXPERTS, HIDDEN, WIDTH)
        self.shared_up = nnx.Linear(WIDTH, 10, rngs=rngs)
        self.shared_down = nnx.Linear(10, WIDTH, rngs=rngs)
        self.shared_gate = nnx.Linear(WIDTH, 1, use_bias=False, rngs=rngs)
        self.k, self.renormalise, self.closed = k, renormalise, closed

    def __call__(self, x):
        flat = x.reshape(-1, x.shape[-1])
        probabilities = jax.nn.softmax(shut(self.gate(flat), self.closed), axis=-1)
        weights, chosen = jax.lax.top_k(probabilities, self.k)
        if self.renormalise:
            weights = weights / weights.sum(axis=-1, keepdims=True)
        up, down = self.up[...][chosen], self.down[...][chosen]
        gate, value = jnp.split(jnp.einsum("td,tkdf->tkf", flat, up), 2, axis=-1)
        out = jnp.einsum("tkf,tkfd->tkd", nnx.silu(gate) * value, down)
        out = (out * weights[..., None]).sum(axis=1)
        shared = self.shared_down(nnx.silu(self.shared_up(flat)))
        out = out + jax.nn.sigmoid(self.shared_gate(flat)) * shared
        return out.reshape(x.shape)


class Qwen(nnx.Module):
    """A residual block of experts between an embedding and a head."""

    def __init__(self, rngs, **options):
        self.embed = nnx.Embed(WORDS, WIDTH, rngs=rngs)
        self.norm = nnx.RMSNorm(WIDTH, rngs=rngs)
        self.block = QwenBlock(rngs, **options)
        self.head = nnx.Linear(WIDTH, WORDS, use_bias=False, rngs=rngs)

    def __call__(self, x):
        x = self.embed(x)
        return self.head(x + self.block(self.norm(x)))


def switch(params, x, closed=(), capacity=5):
    """One expert for each token, with a capacity, dispatched by products."""
    x = params["embed"][x]
    y = rms_norm(x, params["scale"]).reshape(-1, x.shape[-1])
    logits = shut(y @ params["router"] + params["bias"], closed)
    probabilities = jax.nn.softmax(logits)
    chosen = jnp.argmax(probabilities, axis=-1)
    gate = jnp.max(probabilities, axis=-1)
    mask = jax.nn.one_hot(chosen, probabilities.shape[-1], dtype=y.dtype)
    position = jnp.cumsum(mask, axis=0) * mask - 1
    slot = jnp.max(position, axis=-1).astype(jnp.int32)
    dispatch = mask[..., None] * jax.nn.one_hot(slot, capacity)[:, None, :]
    inputs = jnp.einsum("td,tec->ecd", y, dispatch.astype(y.dtype))
    hidden = jax.nn.relu(jnp.einsum("ecd,edf->ecf", inputs, params["wi"]))
    out = jnp.einsum("ecf,efd->ecd", hidden, params["wo"])
    out = jnp.einsum("ecd,tec->td", out, dispatch) * gate[:, None]
    return (x + out.reshape(x.shape)) @ params["embed"].T


def deepseek(params, x, closed=(), k=3):
    """Sigmoid scores, a bias that only the choice sees, weights looked up again."""
    x = params["embed"][x]
    y = rms_norm(x, params["scale"])
    scores = jax.nn.sigmoid(y @ params["router"])
    _, chosen = jax.lax.top_k(shut(scores + params["bias"], closed), k)
    weights = jnp.take_along_axis(scores, chosen, axis=-1)
    weights = 2.5 * weights / (weights.sum(-1, keepdims=True) + 1e-20)

    def one(y, chosen, weights):
        wi, wo = (jnp.take(params[name], chosen, axis=0) for name in ("wi", "wo"))
        hidden = jax.nn.silu(jnp.einsum("d,kdf->kf", y, wi))
        return jnp.einsum("kf,kfd,k->d", hidden, wo, weights)

    out = jax.vmap(jax.vmap(one))(y, chosen, weights)
    out += jax.nn.silu(y @ params["shared_up"]) @ params["shared_down"]
    return (x + out) @ params["embed"].T


def scanned(params, x, closed=(), k=2):
    """Layers under a scan: grouped attention, then experts under a remat."""
    x = params["embed"][x]

    def layer(x, p):
        x = x + attention(p["a"], rms_norm(x, p["a"]["scale"]), 4, 2)
        y = rms_norm(x, p["scale"])
        weights, chosen = jax.lax.top_k(
            jax.nn.softmax(shut(y @ p["router"], closed)), k
        )
        count = p["router"].shape[-1]
        each = (chosen[..., None] == jnp.arange(count)).astype(y.dtype)
        combine = (each * weights[..., None]).sum(-2)
        outs = jax.vmap(lambda up, down: jax.nn.gelu(y @ up) @ down, out_axes=2)(
            p["wi"], p["wo"]
        )
        return x + (combine[..., None] * outs).sum(2), None

    x, _ = jax.lax.scan(jax.checkpoint(layer), x, params["layers"])
    return x @ params["embed"].T


class Perceptron(nn.Module):
    """One expert."""

    @nn.compact
    def __call__(self, x):
        return nn.Dense(WIDTH)(nn.gelu(nn.Dense(HIDDEN)(x)))


class Mapped(nn.Module):
    """Experts made by `nn.vmap`, of tokens that a product sends to them."""

    k: int = 2
    closed: tuple = ()

    @nn.compact
    def __call__(self, x):
        x = nn.Embed(WORDS, WIDTH)(x)
        logits = shut(nn.Dense(EXPERTS)(x), self.closed)
        weights, chosen = jax.lax.top_k(nn.softmax(logits), self.k)
        mask = jax.nn.one_hot(chosen, EXPERTS).sum(-2)
        weights = jax.nn.one_hot(chosen, EXPERTS) * weights[..., None]
        experts = nn.vmap(
            Perceptron,
            variable_axes={"params": 0},
            split_rngs={"params": True},
            axis_size=EXPERTS,
        )()
        outs = experts(jnp.einsum("btd,bte->ebtd", x, mask))
        return nn.Dense(3)(x + jnp.einsum("ebtd,btke->btd", outs, weights))


def _plain(function, shapes, **options) -> Callable[..., Architecture]:
    def make(closed=()):
        apply_fn = functools.partial(function, closed=closed, **options)
        return Architecture(apply_fn, drawn(shapes), (tokens(),))

    return make


def _linen(module, **options) -> Callable[..., Architecture]:
    return lambda closed=(): linen(module(closed=closed, **options), tokens())


def _qwen(**options) -> Callable[..., Architecture]:
    def make(closed=()):
        model = Qwen(nnx.Rngs(0), closed=closed, **options)
        definition, state = nnx.split(model)
        return Architecture(
            lambda state, x: nnx.merge(definition, state)(x), state, (tokens(),)
        )

    return make


_TIED = {"embed": (WORDS, WIDTH), "scale": (WIDTH,)}
_STACKED = {"router": (WIDTH, EXPERTS), "wi": (EXPERTS, WIDTH, HIDDEN)}
_STACKED |= {"wo": (EXPERTS, HIDDEN, WIDTH)}
_SHARED = {"shared_up": (WIDTH, 5), "shared_down": (5, WIDTH)}
_ATTENTION = {"scale": (2, WIDTH), "q": (2, WIDTH, 16), "k": (2, WIDTH, 8)}
_ATTENTION |= {"v": (2, WIDTH, 8), "o": (2, 16, WIDTH)}
_LAYERS = {name: (2, *shape) for name, shape in _STACKED.items()}
_LAYERS |= {"scale": (2, WIDTH), "a": _ATTENTION}


def networks() -> dict[str, Callable[..., Architecture]]:
    """Return functions that make networks, and how many experts each chooses."""
    bias = {"bias": (EXPERTS,)}
    return {
        "mixtral": _linen(Mixtral),
        "qwen": _qwen(),
        "qwen_renormalised": _qwen(renormalise=True, k=3),
        "switch": _plain(switch, {**_TIED, **_STACKED, **bias}),
        "deepseek": _plain(deepseek, {**_TIED, **_STACKED, **bias, **_SHARED}),
        "scanned": _plain(scanned, {"embed": (WORDS, WIDTH), "layers": _LAYERS}),
        "mapped": _linen(Mapped),
    }
