"""Evaluation: what counts as correct."""

import jax.numpy as jnp
import numpy as np
import pytest

from experiments.run.steps import make_count_correct


class _Given:
    """A model whose logits are its images."""

    def apply(self, variables, image, *, train):
        del variables, train
        return image


def _counted(logits, label, valid):
    batch = {"image": jnp.asarray(logits), "label": jnp.asarray(label)}
    batch["valid"] = jnp.asarray(valid)
    return make_count_correct(_Given())({}, {}, batch).tolist()  # pyright: ignore


def test_the_correct_are_those_of_a_sort():
    rng = np.random.default_rng(0)
    logits = rng.normal(size=(64, 12)).astype(np.float32)
    label = rng.integers(0, 12, 64)
    valid = (rng.random(64) < 0.7).astype(np.float32)
    order = np.argsort(-logits, axis=1)
    top1 = (order[:, 0] == label) & (valid > 0)
    top5 = (order[:, :5] == label[:, None]).any(axis=1) & (valid > 0)
    assert 0 < top1.sum() < top5.sum() < valid.sum()
    assert _counted(logits, label, valid) == [top1.sum(), top5.sum()]


@pytest.mark.parametrize(
    ("logits", "want"),
    [
        # The label has index 5; the same logits share the first places.
        ([0, 0, 0, 0, 0, 0, 0], [0, 1]),
        ([1, 1, 1, 1, 0, 0, 0], [0, 1]),
        ([1, 1, 1, 1, 1, 0, 0], [0, 0]),
        # Nothing is right where logits are not numbers.
        ([np.nan] * 7, [0, 0]),
        ([0, 0, 0, 0, 0, np.nan, 0], [0, 0]),
    ],
)
def test_ties_and_logits_that_are_no_numbers(logits, want):
    assert _counted([np.float32(logits)], [5], [1.0]) == want
