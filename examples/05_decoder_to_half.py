"""A Flax decoder to half of its parameters: heads, hidden units and the width itself.

The module is as anyone writes it; `norms="dense-count"` frees what RMS norms read.

    python examples/05_decoder_to_half.py
"""

import flax.linen as nn
import jax
import jax.numpy as jnp

import jaxprune
from jaxprune import calibration, channels, costs


class Decoder(nn.Module):
    """A decoder of two layers, pre-norm."""

    words: int = 50
    width: int = 32

    @nn.compact
    def __call__(self, tokens):
        x = nn.Embed(self.words, self.width)(tokens)
        causal = nn.make_causal_mask(tokens)
        for _ in range(2):
            attention = nn.MultiHeadDotProductAttention(num_heads=4)
            x = x + attention(nn.RMSNorm()(x), mask=causal)
            hidden = nn.gelu(nn.Dense(4 * self.width)(nn.RMSNorm()(x)))
            x = x + nn.Dense(self.width)(hidden)
        return nn.Dense(self.words)(nn.RMSNorm()(x))


def main():
    """Return the fraction of parameters left and the error against the masked one."""
    model = Decoder()
    tokens = jax.random.randint(jax.random.key(0), (4, 12), 0, model.words)
    params = jax.jit(model.init)(jax.random.key(1), tokens)

    graph = jaxprune.trace_channels(model.apply, params, tokens, norms="dense-count")
    limit = jaxprune.at_most(costs.parameters(graph), 0.5)
    counts = channels.round_to_limits(graph, {}, limit)
    # What channels do on data decides; queries and keys meet each other alone.
    norms = channels.filter_norms(graph)
    statistics = jaxprune.calibrate(model.apply, params, [tokens, tokens[::-1]])
    scores = calibration.activation_norms(graph, statistics, otherwise=norms)(params)
    masks = channels.important_channels(graph, scores, counts)
    small = graph.compact(masks, params)

    sizes = [sum(map(jnp.size, jax.tree.leaves(t))) for t in (small.trees[0], params)]
    left = sizes[0] / sizes[1]
    masked = jax.jit(graph.masked(masks))(params, tokens)
    error = jnp.abs(jax.jit(small.apply_fn)(small.trees[0], tokens) - masked).max()
    print(small.widths, f"{left:.3f} of the parameters")
    return left, float(error)


if __name__ == "__main__":
    main()
