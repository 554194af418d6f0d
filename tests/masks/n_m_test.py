"""N of every M consecutive entries."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxprune.masks import n_m_masks


def _reference(scores, n, m, axis):
    moved = np.moveaxis(scores, axis, -1)
    groups = moved.reshape(-1, m)
    masks = np.zeros(groups.shape, bool)
    for row, group in enumerate(groups):
        masks[row, np.argsort(-group, kind="stable")[:n]] = True
    return np.moveaxis(masks.reshape(moved.shape), -1, axis)


@pytest.mark.parametrize(("n", "m", "axis"), [(2, 4, 0), (1, 3, -1), (4, 4, 0)])
def test_the_highest_of_each_group_are_kept_and_of_equal_ones_the_first(n, m, axis):
    scores = np.random.default_rng(0).integers(0, 4, size=(12, 5, 6)).astype(np.float32)
    got = jax.jit(lambda s: n_m_masks(s, n, m, axis=axis))(scores)
    np.testing.assert_array_equal(got, _reference(scores, n, m, axis))


def test_no_patterns_are_refused():
    scores = jnp.ones((6, 2))
    for n, m in ((0, 4), (5, 4), (1.5, 4), (True, 1)):
        with pytest.raises(ValueError, match="two whole numbers"):
            n_m_masks(scores, n, m)
    with pytest.raises(ValueError, match="must divide the size of the axis, 6"):
        n_m_masks(scores, 2, 4)
