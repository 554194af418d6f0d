"""MNIST-1D: signals of 40 numbers in 10 classes, made by a formula.

The package `mnist1d` makes them in seconds: no download. A network of a few thousand
weights does not fit them without effort, so methods of pruning lie far apart here.

- `train`: the 4,000 training examples of the standard set, seed 42;
- `test`: the first 10,000 examples of a further generation, seed 43, in place of the
  1,000 test examples of the standard set: the standard error is a third of theirs;
- `validation`: the other 10,000. Every choice is made on them.

References:
    Greydanus and Kobak, Scaling Down Deep Learning with MNIST-1D, ICML 2024,
    arXiv:2011.14439.
"""

import contextlib
import random
from collections.abc import Iterator
from typing import Any

import numpy as np

_TRAIN = {"num_samples": 5_000, "seed": 42, "train_split": 0.8}
_FURTHER = {"num_samples": 20_000, "seed": 43, "train_split": 1.0}
_TEST_SIZE = 10_000


def generate(
    *, num_samples: int, seed: int, train_split: float
) -> tuple[np.ndarray, np.ndarray]:
    """Makes training examples with the defaults of the package `mnist1d`.

    The global random states that the package seeds are restored.

    Returns:
        Signals, float32, shape (N, 40, 1), of mean 0 and standard deviation 1 over all
        that are made; and labels, int64, shape (N,).
    """
    from mnist1d import data  # slow to import, needed once

    arguments: Any = data.get_dataset_args()
    arguments.num_samples = num_samples
    arguments.seed = seed
    arguments.train_split = train_split
    with _global_random_states():
        made = data.make_dataset(arguments)
    return made["x"].astype(np.float32)[:, :, None], made["y"]


@contextlib.contextmanager
def _global_random_states() -> Iterator[None]:
    """Restores the states of `random` and `numpy.random` at the end."""
    states = random.getstate(), np.random.get_state()
    try:
        yield
    finally:
        random.setstate(states[0])
        np.random.set_state(states[1])


def splits() -> dict[str, tuple[np.ndarray, np.ndarray, np.ndarray]]:
    """Returns numbers, signals and labels of the examples of each split."""
    signals, labels = generate(**_FURTHER)
    parts = {
        "train": generate(**_TRAIN),
        "test": (signals[:_TEST_SIZE], labels[:_TEST_SIZE]),
        "validation": (signals[_TEST_SIZE:], labels[_TEST_SIZE:]),
    }
    return {name: (np.arange(len(y)), x, y) for name, (x, y) in parts.items()}
