"""Vision transformers: patches of 16x16 pixels, a class token, norms in front.

ViT-S/16 has 22 050 664 parameters and takes 4.60 billion multiplications an image of
224x224 pixels, ViT-B/16 has 86 567 656 and takes 17.56 billion, products of attention
included. Parameters and arithmetic are those of timm's `vit_small_patch16_224` and
`vit_base_patch16_224`: an exact GELU, norms with an epsilon of 1e-6, biases everywhere.

References:
    Dosovitskiy et al., An Image is Worth 16x16 Words, 2021, arXiv:2010.11929, Sec. 3.1.
    Touvron et al., Training data-efficient image transformers, 2021, arXiv:2012.12877,
    Table 1 (the small one).
"""

import functools
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

_PATCH = 16


class Layer(nn.Module):
    """Attention and a perceptron of four times the width, each behind a norm.

    Attributes:
        heads: Heads of the attention.
        causal: Whether a token attends to those before it alone.
        dtype: Type of the computation; parameters and statistics are float32.
    """

    heads: int
    causal: bool = False
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """Maps tokens (B, T, width) to tokens of the same shape."""
        norm = functools.partial(nn.LayerNorm, epsilon=1e-6, dtype=self.dtype)
        attention = nn.MultiHeadDotProductAttention(
            self.heads,
            dtype=self.dtype,
            name="attention",
        )
        mask = nn.make_causal_mask(x[..., 0]) if self.causal else None
        x = x + attention(norm(name="norm1")(x), mask=mask)
        width = x.shape[-1]
        y = nn.Dense(4 * width, dtype=self.dtype, name="dense1")(norm(name="norm2")(x))
        y = nn.gelu(y, approximate=False)
        return x + nn.Dense(width, dtype=self.dtype, name="dense2")(y)


class ViT(nn.Module):
    """A vision transformer.

    Attributes:
        num_classes: Number of logits.
        axis_name: Not used: no statistics are averaged.
        width: Numbers in a token.
        layers: Number of layers.
        heads: Heads of each.
        dtype: Type of the computation; parameters and statistics are float32.
    """

    num_classes: int
    axis_name: str | None = None
    width: int = 384
    layers: int = 12
    heads: int = 6
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, x: jax.Array, *, train: bool) -> jax.Array:
        """Computes logits.

        Args:
            x: Images, shape (B, H, W, C), H and W multiples of 16.
            train: Not used: training and evaluation are the same.

        Returns:
            Logits, shape (B, num_classes), float32.
        """
        del train
        embed = nn.Conv(
            self.width,
            (_PATCH, _PATCH),
            strides=_PATCH,
            padding="VALID",
            dtype=self.dtype,
            name="patches",
        )
        x = embed(x)
        x = x.reshape(x.shape[0], -1, self.width)
        token = self.param("class_token", nn.initializers.zeros, (1, 1, self.width))
        x = jnp.concatenate([jnp.tile(token, (x.shape[0], 1, 1)), x], axis=1)
        shape = (1, x.shape[1], self.width)
        x = x + self.param("positions", nn.initializers.normal(0.02), shape)
        for index in range(1, self.layers + 1):
            x = Layer(self.heads, dtype=self.dtype, name=f"layer{index}")(x)
        x = nn.LayerNorm(epsilon=1e-6, dtype=self.dtype, name="norm")(x[:, 0])
        return nn.Dense(self.num_classes, dtype=jnp.float32, name="dense")(x)
