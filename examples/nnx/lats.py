"""Soft-threshold pruning (LATS): 95 % of the weights are gone at the end of training.

The script `dense.py` with one line changed, the import not counted. Soft thresholds
shrink what they keep, so the script then trains on under the final masks, at two thirds
of the learning rate.

    python examples/nnx/lats.py
"""

import argparse

import jax.numpy as jnp
import numpy as np
import optax
from flax import nnx
from sklearn.datasets import load_digits

from jaxprune import finalize, freeze_pruned, lats, schedules


class CNN(nnx.Module):
    """Two convolutions, a dense layer, and a classifier."""

    def __init__(self, rngs):
        self.conv1 = nnx.Conv(1, 32, (3, 3), use_bias=False, rngs=rngs)
        self.norm1 = nnx.BatchNorm(32, rngs=rngs)
        self.conv2 = nnx.Conv(32, 64, (3, 3), use_bias=False, rngs=rngs)
        self.norm2 = nnx.BatchNorm(64, rngs=rngs)
        self.dense1 = nnx.Linear(4 * 4 * 64, 128, rngs=rngs)
        self.dense2 = nnx.Linear(128, 10, rngs=rngs)

    def __call__(self, x):
        x = nnx.relu(self.norm1(self.conv1(x)))
        x = nnx.max_pool(x, (2, 2), (2, 2))
        x = nnx.relu(self.norm2(self.conv2(x)))
        x = nnx.relu(self.dense1(x.reshape((x.shape[0], -1))))
        return self.dense2(x)


@nnx.jit
def train_step(model, optimizer, images, labels):
    """Take one step, in place."""

    def loss_fn(model):
        logits = model(images)
        loss = optax.softmax_cross_entropy_with_integer_labels(logits, labels).mean()
        return loss

    grads = nnx.grad(loss_fn)(model)
    optimizer.update(model, grads)


def train(args, model, optimizer, images, labels, seed=0):
    """Train for `args.steps` steps on random batches."""
    rng = np.random.default_rng(seed)
    for _ in range(args.steps):
        chosen = rng.integers(len(images), size=args.batch_size)
        train_step(model, optimizer, images[chosen], labels[chosen])


def accuracy(model, images, labels):
    """Return the fraction of the images that are classified correctly."""
    model.eval()
    logits = nnx.jit(lambda model, x: model(x))(model, images)
    model.train()
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
    parser.add_argument("--steps", type=int, default=600)
    parser.add_argument("--batch-size", type=int, default=64)
    parser.add_argument("--learning-rate", type=float, default=3e-3)
    parser.add_argument("--seed", type=int, default=0)
    return parser.parse_args(argv)


def main(args):
    """Train, and return the model and its accuracy on the test split."""
    train_data, test_data = load_data()
    model = CNN(nnx.Rngs(args.seed))
    schedule = optax.cosine_decay_schedule(args.learning_rate, args.steps)
    tx = lats(optax.adamw(schedule), sparsity=0.95, steps=args.steps * 2 // 3)
    optimizer = nnx.Optimizer(model, tx, wrt=nnx.Param)
    train(args, model, optimizer, *train_data)
    masks = finalize(nnx.state(model, nnx.Param), optimizer.opt_state).masks
    schedule = schedules.fine_tuning(args.learning_rate, args.steps)
    tx = optax.chain(optax.adamw(schedule), freeze_pruned(masks))
    optimizer = nnx.Optimizer(model, tx, wrt=nnx.Param)
    train(args, model, optimizer, *train_data)
    result = accuracy(model, *test_data)
    print(f"accuracy {result:.4f}")
    return model, result


if __name__ == "__main__":
    main(parse_args())
