"""Soft-threshold pruning (LATS): 95 % of the weights are gone at the end of training.

The script `dense.py` with one line changed, the import not counted. Soft thresholds
shrink what they keep, so the script then trains on under the final masks, at two thirds
of the learning rate: five more lines.

    python examples/train_state/lats.py
"""

import argparse
import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import jax_utils
from flax import linen as nn
from flax.training import train_state
from sklearn.datasets import load_digits

from jaxprune import finalize, freeze_pruned, lats, schedules


class CNN(nn.Module):
    """Two convolutions, a dense layer, and a classifier."""

    axis_name: str | None = None

    @nn.compact
    def __call__(self, x, train):
        norm = functools.partial(
            nn.BatchNorm, use_running_average=not train, axis_name=self.axis_name
        )
        x = nn.relu(norm()(nn.Conv(32, (3, 3), use_bias=False)(x)))
        x = nn.max_pool(x, (2, 2), (2, 2))
        x = nn.relu(norm()(nn.Conv(64, (3, 3), use_bias=False)(x)))
        x = nn.relu(nn.Dense(128)(x.reshape((x.shape[0], -1))))
        return nn.Dense(10)(x)


class TrainState(train_state.TrainState):
    """A train state with batch statistics."""

    batch_stats: Any


def create_train_state(args):
    """Initialise the network and its optimizer."""
    model = CNN(axis_name="batch" if args.parallel == "pmap" else None)
    variables = model.init(jax.random.key(args.seed), jnp.ones((1, 8, 8, 1)), False)
    schedule = optax.cosine_decay_schedule(args.learning_rate, args.steps)
    tx = lats(optax.adamw(schedule), sparsity=0.95, steps=args.steps * 2 // 3)
    return TrainState.create(
        apply_fn=model.apply,
        params=variables["params"],
        batch_stats=variables["batch_stats"],
        tx=tx,
    )


def train_step(state, images, labels, axis_name=None):
    """Take one step; the gradient is averaged over the axis, if there is one."""

    def loss_fn(params):
        logits, updates = state.apply_fn(
            {"params": params, "batch_stats": state.batch_stats},
            images,
            True,
            mutable=["batch_stats"],
        )
        loss = optax.softmax_cross_entropy_with_integer_labels(logits, labels).mean()
        return loss, updates["batch_stats"]

    grads, batch_stats = jax.grad(loss_fn, has_aux=True)(state.params)
    if axis_name is not None:
        grads = jax.lax.pmean(grads, axis_name)
    return state.apply_gradients(grads=grads, batch_stats=batch_stats)


def train(args, state, images, labels, seed=0):
    """Train for `args.steps` steps on random batches."""
    rng = np.random.default_rng(seed)
    devices = jax.local_device_count()
    if args.parallel == "pmap":
        state = jax_utils.replicate(state)
        step = jax.pmap(functools.partial(train_step, axis_name="batch"), "batch")
    else:
        step = jax.jit(train_step)
    for _ in range(args.steps):
        chosen = rng.integers(len(images), size=args.batch_size)
        batch = images[chosen], labels[chosen]
        if args.parallel == "pmap":
            batch = tuple(x.reshape(devices, -1, *x.shape[1:]) for x in batch)
        state = step(state, *batch)
    return jax_utils.unreplicate(state) if args.parallel == "pmap" else state


def accuracy(state, images, labels):
    """Return the fraction of the images that are classified correctly."""
    variables = {"params": state.params, "batch_stats": state.batch_stats}
    logits = jax.jit(state.apply_fn, static_argnums=2)(variables, images, False)
    return float(jnp.mean(jnp.argmax(logits, -1) == labels))


def load_data():
    """Return images and labels of the training and of the test split."""
    images, labels = load_digits(return_X_y=True)
    images = (images / 16).astype(np.float32).reshape(-1, 8, 8, 1)
    test = np.arange(len(images)) % 5 == 0
    return (images[~test], labels[~test]), (images[test], labels[test])


def parse_args(argv=None):
    """Return the command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--parallel", choices=["jit", "pmap"], default="jit")
    parser.add_argument("--steps", type=int, default=600)
    parser.add_argument("--batch-size", type=int, default=64)
    parser.add_argument("--learning-rate", type=float, default=3e-3)
    parser.add_argument("--seed", type=int, default=0)
    return parser.parse_args(argv)


def main(args):
    """Train, and return the state and its accuracy on the test split."""
    train_data, test_data = load_data()
    state = create_train_state(args)
    state = train(args, state, *train_data)
    masks = finalize(state.params, state.opt_state).masks
    schedule = schedules.fine_tuning(args.learning_rate, args.steps)
    tx = optax.chain(optax.adamw(schedule), freeze_pruned(masks))
    state = state.replace(tx=tx, opt_state=tx.init(state.params))
    state = train(args, state, *train_data)
    result = accuracy(state, *test_data)
    print(f"accuracy {result:.4f}")
    return state, result


if __name__ == "__main__":
    main(parse_args())
