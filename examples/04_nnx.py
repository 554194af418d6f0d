"""A Flax NNX module, pruned while `nnx.Optimizer` trains it, to a limit.

python examples/04_nnx.py
"""

import jax
import jax.numpy as jnp
import optax
from flax import nnx

import jaxprune


class MLP(nnx.Module):
    """Two layers."""

    def __init__(self, rngs):
        self.hidden = nnx.Linear(16, 32, rngs=rngs)
        self.out = nnx.Linear(32, 1, rngs=rngs)

    def __call__(self, x):
        return self.out(nnx.gelu(self.hidden(x)))


@nnx.jit
def train_step(module, optimizer, x, y):
    """Take one step, in place."""

    def loss(module):
        model, penalty = module.pruned()  # the only new line of the loss
        return jnp.mean((model(x) - y) ** 2) + penalty

    optimizer.update(module, nnx.grad(loss)(module))


def main(steps=300):
    """Return the plain module, pruned, and the report."""
    x = jax.random.normal(jax.random.key(0), (256, 16))
    y = jnp.sin(x[:, :1]) + x[:, 1:2]
    limit = jaxprune.at_most(jaxprune.density, 0.2, ramp=(0, steps * 2 // 3))
    pruning = jaxprune.pruning(jaxprune.ltp(), limit)
    module = jaxprune.nnx_module(pruning, MLP(nnx.Rngs(0)))
    tx = pruning.optimizer(optax.adam(1e-2))
    optimizer = nnx.Optimizer(module, tx, wrt=nnx.Param)
    for _ in range(steps):
        train_step(module, optimizer, x, y)
    model, final = module.finalize()
    print(final.report)
    print(f"loss {jnp.mean((model(x) - y) ** 2):.4f}")
    return model, jaxprune.summarize(final.params, final.masks)


if __name__ == "__main__":
    main()
