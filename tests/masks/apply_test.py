"""Masks as trees: filled up, applied, read from zeros, counted."""

import jax.numpy as jnp
import numpy as np
import pytest

import jaxprune
from jaxprune import masks, tree

PARAMS = {
    "a": {"bias": jnp.zeros(2), "kernel": jnp.array([[0.0, -0.0], [1e-30, 2.0]])},
    "b": {"kernel": jnp.array([[jnp.nan, 0.0, 3.0]])},
}
HELD = {
    "a": {"bias": jnp.array(True), "kernel": jnp.array([[True, True], [True, False]])},
    "b": {"kernel": jnp.array(True)},
}


def _lists(tree_of_masks):
    named = tree.named_leaves(tree_of_masks)
    return {name: np.asarray(mask).tolist() for name, mask in named.items()}


def test_leaves_without_a_mask_are_kept():
    mask = jnp.array([[True, False, True]])
    filled = masks.fill(PARAMS, {"b/kernel": mask})
    assert _lists(filled) == {
        "a/bias": True,
        "a/kernel": True,
        "b/kernel": [[True, False, True]],
    }


def test_a_name_that_is_no_leaf_is_refused_with_those_that_are():
    with pytest.raises(ValueError, match=r"\['c/kernel'\] are not names.*'b/kernel'"):
        masks.fill(PARAMS, {"c/kernel": jnp.ones((2, 2), bool)})


def test_what_is_not_zero_is_kept_of_the_kernels():
    assert _lists(jaxprune.nonzero_masks(PARAMS)) == {
        "a/bias": True,
        "a/kernel": [[False, False], [True, True]],
        "b/kernel": [[True, False, True]],
    }


def test_a_mask_that_holds_already_prunes_what_is_not_zero():
    where = tree.selection(masks=HELD)
    assert _lists(jaxprune.nonzero_masks(PARAMS, where)) == {
        "a/bias": True,
        "a/kernel": [[False, False], [True, False]],
        "b/kernel": [[True, False, True]],
    }
    # Of another leaf it is taken over.
    other = tree.selection("b/*", masks=HELD)
    got = _lists(jaxprune.nonzero_masks(PARAMS, other))
    assert got["a/kernel"] == [[True, True], [True, False]]


def test_pruned_values_become_zero_whatever_they_were():
    pruned = {"a": HELD["a"], "b": {"kernel": jnp.array([[False, True, False]])}}
    got = jaxprune.apply_masks(PARAMS, pruned)
    assert got["a"]["kernel"].tolist() == [[0.0, 0.0], [jnp.float32(1e-30), 0.0]]
    assert got["b"]["kernel"].tolist() == [[0.0, 0.0, 0.0]]


def test_counts_are_of_whole_leaves_where_a_mask_is_one_value():
    assert masks.kept_counts(PARAMS, HELD) == {
        "a/bias": 2,
        "a/kernel": 3,
        "b/kernel": 3,
    }
    none = {**HELD, "b": {"kernel": jnp.array(False)}}
    assert masks.kept_counts(PARAMS, none)["b/kernel"] == 0
