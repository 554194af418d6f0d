"""Names and selections."""

import flax
import jax.numpy as jnp
import pytest
from flax import nnx

from jaxprune import tree

PARAMS = {
    "conv": {"kernel": jnp.ones((3, 3, 1, 4)), "bias": jnp.ones(4)},
    "norm": {"scale": jnp.ones((2, 4))},
    "dense": {"kernel": jnp.ones((4, 2), jnp.bfloat16)},
    "steps": jnp.ones((2, 2), jnp.int32),
}


def test_linen_frozen_and_nnx_trees_have_the_same_names():
    class Net(nnx.Module):
        def __init__(self):
            self.conv = nnx.Conv(1, 4, (3, 3), rngs=nnx.Rngs(0))

    state = nnx.state(Net(), nnx.Param)
    plain = {"conv": PARAMS["conv"]}
    names = ["conv/bias", "conv/kernel"]
    for params in (plain, flax.core.freeze(plain), state):
        assert list(tree.named_leaves(params)) == names
    assert tree.sizes(state) == tree.sizes(plain) == {"conv/kernel": 36}


def test_a_leaf_called_value_keeps_its_name():
    assert list(tree.named_leaves({"layer": {"value": 1}})) == ["layer/value"]


def test_kernels_are_floating_leaves_of_two_or_more_axes_but_no_stacked_scales():
    assert list(tree.select(PARAMS, tree.kernels)) == ["conv/kernel", "dense/kernel"]


def test_patterns_select_by_name():
    assert list(tree.select(PARAMS, tree.by_name("conv/*", "dense/kernel"))) == [
        "conv/bias",
        "conv/kernel",
        "dense/kernel",
    ]


def test_a_pattern_that_matches_nothing_lists_near_matches():
    with pytest.raises(ValueError, match=r"Near matches: .*'conv/kernel'"):
        tree.select(PARAMS, tree.by_name("conv/kernels"))


def test_no_pattern_is_refused():
    with pytest.raises(ValueError, match="at least one pattern"):
        tree.by_name()


def test_a_prefix_selects_whole_subtrees():
    prefix = {"conv": True, "norm": False, "dense": False, "steps": False}
    assert list(tree.select(PARAMS, prefix)) == ["conv/bias", "conv/kernel"]


@pytest.mark.parametrize("where", [{"conv": True}, {"nothing": True}])
def test_what_is_no_prefix_is_refused(where):
    with pytest.raises(ValueError, match="tree prefix of the parameters"):
        tree.select(PARAMS, where)


@pytest.mark.parametrize("where", [False, lambda params: False])
def test_an_empty_selection_is_refused(where):
    with pytest.raises(ValueError, match="must select at least one leaf"):
        tree.select(PARAMS, where)


@pytest.mark.parametrize("params", [{}, (), {"a": {}}])
def test_parameters_without_arrays_are_refused(params):
    with pytest.raises(ValueError, match="at least one array"):
        tree.select(params, tree.kernels)


def test_integer_leaves_are_refused():
    with pytest.raises(TypeError, match="'steps' has dtype int32"):
        tree.select(PARAMS, tree.by_name("steps"))


def test_empty_leaves_are_refused():
    with pytest.raises(ValueError, match=r"'w' has shape \(0, 3\)"):
        tree.select({"w": jnp.ones((0, 3))}, "w")
    some = {"w": jnp.ones((0, 3)), "v": jnp.ones((2, 3))}
    assert list(tree.select(some)) == ["v"]


def test_equal_names_are_refused():
    with pytest.raises(ValueError, match="'a/b' twice"):
        tree.named_leaves({"a/b": 1, "a": {"b": 2}})
