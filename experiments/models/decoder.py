"""Decoders for language models: RMS norms, rotary positions, grouped queries, SwiGLU.

The layers are stacked under `nn.scan`, so that the program has one layer, and a leaf
holds its weights of all layers, on the first axis. There are no biases, and the
embedding is not the last layer. With V tokens, L layers of width w, h heads that share
g heads of keys and values, f features a head and m hidden units:

    2 V w + L (2 w h f + 2 w g f + 3 w m + 2 w) + w parameters

References:
    Vaswani et al., Attention Is All You Need, 2017, arXiv:1706.03762.
    Zhang and Sennrich, Root Mean Square Layer Normalization, 2019, arXiv:1910.07467.
    Su et al., RoFormer: Enhanced Transformer with Rotary Position Embedding, 2021,
    arXiv:2104.09864, Sec. 3.4.2.
    Ainslie et al., GQA: Training Generalized Multi-Query Transformer Models, 2023,
    arXiv:2305.13245.
    Shazeer, GLU Variants Improve Transformer, 2020, arXiv:2002.05202, Eq. (6).
"""

import functools
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

_BASE = 10_000.0


def rotate(x: jax.Array) -> jax.Array:
    """Turns pairs of features by angles that grow with the position.

    Args:
        x: Queries or keys, shape (B, T, ..., f), f even; features i and i + f / 2 are a
            pair, at position t turned by t / 10000^(2 i / f).

    Returns:
        An array of the same shape and dtype.
    """
    half = x.shape[-1] // 2
    rates = _BASE ** (-jnp.arange(half) / half)
    angles = jnp.arange(x.shape[1])[:, None] * rates[None]
    angles = angles.reshape(1, -1, *[1] * (x.ndim - 3), half)
    cos, sin = jnp.cos(angles).astype(x.dtype), jnp.sin(angles).astype(x.dtype)
    first, second = x[..., :half], x[..., half:]
    turned = first * cos - second * sin, second * cos + first * sin
    return jnp.concatenate(turned, axis=-1)


class Attention(nn.Module):
    """Causal attention; several heads share keys and values.

    Attributes:
        heads: Heads of queries, a multiple of `kv_heads`.
        kv_heads: Heads of keys and values.
        features: Features of a head.
        dtype: Type of the computation; parameters are float32.
    """

    heads: int
    kv_heads: int
    features: int
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """Maps tokens (B, T, width) to tokens of the same shape."""
        dense = functools.partial(nn.DenseGeneral, use_bias=False, dtype=self.dtype)
        shared = self.kv_heads, self.features
        q = dense((shared[0], self.heads // shared[0], shared[1]), name="query")(x)
        k, v = dense(shared, name="key")(x), dense(shared, name="value")(x)
        scores = jnp.einsum("btgnf,bsgf->bgnts", rotate(q), rotate(k))
        # The softmax in float32, whatever the layers compute in.
        scores = scores.astype(jnp.float32) * self.features**-0.5
        seen = jnp.tril(jnp.ones(scores.shape[-2:], bool))
        scores = jnp.where(seen[None, None, None], scores, -1e30)
        shares = jax.nn.softmax(scores).astype(self.dtype)
        y = jnp.einsum("bgnts,bsgf->btgnf", shares, v)
        return dense(x.shape[-1], axis=(-3, -2, -1), name="out")(y)


class Layer(nn.Module):
    """Attention and a gated perceptron, each behind a norm.

    Attributes:
        hidden: Units of the perceptron.
        heads: See `Attention`, like those below.
        kv_heads: Heads of keys and values.
        features: Features of a head.
        dtype: Type of the computation; parameters and statistics are float32.
    """

    hidden: int
    heads: int
    kv_heads: int
    features: int
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, x: jax.Array) -> tuple[jax.Array, None]:
        """Maps tokens (B, T, width) to tokens of the same shape; `nn.scan`'s carry."""
        norm = functools.partial(nn.RMSNorm, dtype=self.dtype)
        dense = functools.partial(nn.Dense, use_bias=False, dtype=self.dtype)
        attention = Attention(
            self.heads, self.kv_heads, self.features, self.dtype, name="attention"
        )
        x = x + attention(norm(name="norm1")(x))
        y = norm(name="norm2")(x)
        gate = nn.silu(dense(self.hidden, name="gate")(y))
        y = gate * dense(self.hidden, name="up")(y)
        return x + dense(x.shape[-1], name="down")(y), None


class Decoder(nn.Module):
    """A language model.

    Attributes:
        num_classes: Number of tokens that there are, V.
        axis_name: Not used: no statistics are averaged.
        width: Numbers in a token's vector.
        layers: Number of layers.
        hidden: See `Layer`, like those below.
        heads: Heads of queries.
        kv_heads: Heads of keys and values.
        features: Features of a head.
        dtype: Type of the computation; parameters and statistics are float32.
    """

    num_classes: int
    axis_name: str | None = None
    width: int = 768
    layers: int = 12
    hidden: int = 3072
    heads: int = 12
    kv_heads: int = 4
    features: int = 64
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, x: jax.Array, *, train: bool) -> jax.Array:
        """Computes logits of the token after each.

        Args:
            x: Tokens, whole numbers, shape (B, T).
            train: Not used: training and evaluation are the same.

        Returns:
            Logits, shape (B, T, num_classes), float32.
        """
        del train
        x = nn.Embed(self.num_classes, self.width, dtype=self.dtype, name="embed")(x)
        stack = nn.scan(
            Layer,
            variable_axes={"params": 0},
            split_rngs={"params": True},
            length=self.layers,
        )
        x, _ = stack(
            self.hidden,
            self.heads,
            self.kv_heads,
            self.features,
            self.dtype,
            name="layers",
        )(x)
        x = nn.RMSNorm(dtype=self.dtype, name="norm")(x)
        head = nn.Dense(
            self.num_classes, use_bias=False, dtype=jnp.float32, name="dense"
        )
        return head(x)
