"""A decoder of 124 million parameters, as GPT-2's smallest: what large steps cost.

12 layers of width 768 with 12 heads, 50 257 tokens, at most 1024 in a row; the
embedding is the last layer as well:  50257 * 768 + 1024 * 768 + 12 * 7087872 + 1536
"""

import flax.linen as nn
import jax
import jax.numpy as jnp

from experiments.models.vit import Layer


class Decoder(nn.Module):
    """A language model.

    Attributes:
        vocabulary: Number of tokens.
        width: Numbers in a token's vector.
        layers: Number of layers.
        heads: Heads of each.
        context: The longest text, in tokens.
    """

    vocabulary: int = 50_257
    width: int = 768
    layers: int = 12
    heads: int = 12
    context: int = 1024

    @nn.compact
    def __call__(self, x: jax.Array, *, train: bool) -> jax.Array:
        """Maps tokens (B, T), whole numbers, to logits (B, T, vocabulary), float32."""
        del train
        embed = nn.Embed(self.vocabulary, self.width, name="embedding")
        normal = nn.initializers.normal(0.02)
        places = self.param("positions", normal, (self.context, self.width))
        x = embed(x) + places[None, : x.shape[1]]
        for index in range(1, self.layers + 1):
            x = Layer(self.heads, causal=True, name=f"layer{index}")(x)
        x = nn.LayerNorm(epsilon=1e-5, dtype=jnp.float32, name="norm")(x)
        return embed.attend(x)
