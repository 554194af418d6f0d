"""Prune a network that you have, once: two lines, and a report.

python examples/01_one_shot.py
"""

import jax
import jax.numpy as jnp

import jaxprune


def predict(params, x):
    """Return the outputs of two layers."""
    hidden = jax.nn.relu(x @ params["in"]["kernel"] + params["in"]["bias"])
    return hidden @ params["out"]["kernel"] + params["out"]["bias"]


def main():
    """Return the pruned parameters and their masks."""
    keys = jax.random.split(jax.random.key(0), 3)
    params = {  # of a checkpoint of yours, say
        "in": {"kernel": jax.random.normal(keys[0], (64, 128)), "bias": jnp.ones(128)},
        "out": {"kernel": jax.random.normal(keys[1], (128, 10)), "bias": jnp.ones(10)},
    }

    masks = jaxprune.global_magnitude(sparsity=0.8).masks(params, {})
    pruned = jaxprune.apply_masks(params, masks)

    print(jaxprune.summarize(pruned, masks))
    x = jax.random.normal(keys[2], (256, 64))
    before, after = predict(params, x), predict(pruned, x)
    error = jnp.linalg.norm(after - before) / jnp.linalg.norm(before)
    print(
        f"relative error of the outputs: {error:.2f}; fine-tuning makes it small again"
    )
    return pruned, masks


if __name__ == "__main__":
    main()
