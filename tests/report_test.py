"""What is left of a network: exact counts, and the table."""

import dataclasses
import math

import flax
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

import jaxprune


def _dense():
    return {
        "conv1": {"bias": jnp.zeros(4), "kernel": jnp.ones((3, 3, 1, 4))},
        "dense": {"bias": jnp.zeros(10), "kernel": jnp.ones((200, 10))},
    }


def _params():
    return jaxprune.apply_masks(_dense(), _masks())


def _masks():
    rng = np.random.default_rng(0)
    order = rng.permutation(2000).reshape(200, 10)
    yes = jnp.asarray(True)
    return {
        "conv1": {"bias": yes, "kernel": jnp.arange(36).reshape(3, 3, 1, 4) < 9},
        "dense": {"bias": yes, "kernel": jnp.asarray(order < 1001)},
    }


def _state(tree):
    return nnx.State(
        {
            layer: {name: nnx.Param(x) for name, x in leaves.items()}
            for layer, leaves in tree.items()
        }
    )


CONTAINERS = [dict, flax.core.freeze, _state]


@pytest.mark.parametrize("wrap", CONTAINERS)
def test_counts_are_exact_in_every_container(wrap):
    counts = jaxprune.summarize(wrap(_params()), wrap(_masks()))
    leaves = [(leaf.name, leaf.shape, leaf.kept, leaf.size) for leaf in counts.leaves]
    assert leaves == [
        ("conv1/kernel", (3, 3, 1, 4), 9, 36),
        ("dense/kernel", (200, 10), 1001, 2000),
    ]
    assert (counts.kept, counts.size, counts.other_size) == (1010, 2036, 14)
    assert counts.keep_ratio == 1010 / 2036
    assert counts.sparsity == 1 - 1010 / 2036
    assert counts.compression == 2036 / 1010
    assert [leaf.keep_ratio for leaf in counts.leaves] == [0.25, 0.5005]


@pytest.mark.parametrize("wrap", CONTAINERS)
def test_the_table_reads(wrap):
    table = str(jaxprune.summarize(wrap(_params()), wrap(_masks())))
    assert table == (
        "leaf          shape     size   kept  keep ratio\n"
        "conv1/kernel  3x3x1x4     36      9      0.2500\n"
        "dense/kernel  200x10   2,000  1,001      0.5005\n"
        "prunable               2,036  1,010      0.4961\n"
        "other                     14     14"
    )


def test_compression_is_infinite_when_nothing_is_kept():
    nothing = jax.tree.map(lambda w: jnp.zeros(w.shape, bool), _params())
    zeros = jax.tree.map(jnp.zeros_like, _params())
    counts = jaxprune.summarize(zeros, nothing)
    assert (counts.kept, counts.sparsity, counts.compression) == (0, 1.0, math.inf)
    assert "0.0000" in str(counts)


def test_a_scalar_mask_stands_for_the_whole_leaf():
    yes = jax.tree.map(lambda _: jnp.asarray(True), _params())
    counts = jaxprune.summarize(_params(), yes)
    assert (counts.kept, counts.compression) == (2036, 1.0)
    no = jax.tree.map(lambda _: jnp.asarray(False), _params())
    zeros = jax.tree.map(jnp.zeros_like, _params())
    assert jaxprune.summarize(zeros, no).kept == 0


def test_what_is_prunable_is_asked_with_where():
    counts = jaxprune.summarize(_params(), _masks(), where=jaxprune.by_name("dense/*"))
    assert [leaf.name for leaf in counts.leaves] == ["dense/bias", "dense/kernel"]
    assert (counts.kept, counts.size, counts.other_size) == (1011, 2010, 40)


def test_values_count_and_where_the_masks_differ_is_named():
    counts = jaxprune.summarize(_dense(), _masks())
    assert (counts.kept, counts.sparsity) == (2036, 0.0)
    assert counts.differing == ("conv1/kernel", "dense/kernel")
    assert [leaf.unmasked for leaf in counts.leaves] == [27, 999]
    assert "not zero although the masks prune it: conv1/kernel" in str(counts)
    assert not jaxprune.summarize(_params(), _masks()).differing
    zeros = jax.tree.map(jnp.zeros_like, _params())  # kept, and zero for now
    assert jaxprune.summarize(zeros, _masks()).kept == 1010
    assert jaxprune.summarize(_params()).kept == 1010
    assert jaxprune.summarize(zeros).kept == 0


def test_masks_that_prune_other_leaves_are_counted():
    masks = _masks()
    masks["conv1"]["bias"] = jnp.array([True, False, False, False])
    counts = jaxprune.summarize(_params(), masks)
    assert (counts.other_size, counts.other_kept) == (14, 11)
    assert str(counts).splitlines()[-1].split() == ["other", "14", "11"]


def test_of_abstract_parameters_the_masks_are_counted():
    with pytest.raises(ValueError, match=r"'conv1/kernel' is abstract"):
        jaxprune.summarize(jax.eval_shape(_params))
    abstract = jax.eval_shape(_params)
    want = jaxprune.summarize(_params(), _masks())
    assert jaxprune.summarize(abstract, _masks()) == want


def test_a_report_is_frozen_data():
    counts = jaxprune.summarize(_params(), _masks())
    assert hash(counts) == hash(jaxprune.summarize(_params(), _masks()))
    with pytest.raises(dataclasses.FrozenInstanceError):
        counts.other_size = 0


def test_masks_that_do_not_fit_are_refused():
    masks = _masks()
    masks["dense"]["kernel"] = masks["dense"]["kernel"][:1]
    with pytest.raises(ValueError, match=r"'dense/kernel'.*\(200, 10\).*\(1, 10\)"):
        jaxprune.summarize(_params(), masks)
    masks["dense"]["kernel"] = jnp.ones((200, 10))
    with pytest.raises(TypeError, match="'dense/kernel' must be boolean"):
        jaxprune.summarize(_params(), masks)
