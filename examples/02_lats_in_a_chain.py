"""LATS in an optax chain with clipping, weight decay and a schedule of the rate.

The transformation that prunes wraps the rest, since nothing may come behind it.

    python examples/02_lats_in_a_chain.py
"""

import jax
import jax.numpy as jnp
import optax

import jaxprune


def main(steps=200):
    """Return the loss and the report of the network at the end."""
    keys = jax.random.split(jax.random.key(0), 3)
    x = jax.random.normal(keys[0], (256, 32))
    y = x[:, :4] @ jax.random.normal(keys[1], (4, 2))  # 28 of the 32 inputs are noise
    params = {"dense": {"kernel": 0.1 * jax.random.normal(keys[2], (32, 2))}}

    def loss(params):
        return jnp.mean((x @ params["dense"]["kernel"] - y) ** 2)

    def train(params, tx):
        @jax.jit
        def step(params, state):
            updates, state = tx.update(jax.grad(loss)(params), state, params)
            return optax.apply_updates(params, updates), state

        state = tx.init(params)
        for _ in range(steps):
            params, state = step(params, state)
        return params, state

    rate = optax.warmup_cosine_decay_schedule(0.0, 0.05, steps // 10, steps)
    optimizer = optax.chain(optax.clip_by_global_norm(1.0), optax.adamw(rate))
    tx = jaxprune.lats(optimizer, sparsity=0.875, steps=steps, learning_rate=rate)
    params, state = train(params, tx)
    jaxprune.check(state)  # raises if something came behind it
    final = jaxprune.finalize(params, state)

    # Soft thresholds shrink what they keep: train on under the final masks.
    rate = jaxprune.schedules.fine_tuning(0.05, steps)
    tx = optax.chain(optax.adam(rate), jaxprune.freeze_pruned(final.masks))
    params, _ = train(final.params, tx)
    report = jaxprune.summarize(params, final.masks)
    print(report, f"loss {loss(final.params):.4f} before and {loss(params):.4f} after")
    return float(loss(params)), report


if __name__ == "__main__":
    main()
