"""Names and selections."""

import flax
import jax
import jax.numpy as jnp
import pytest
from flax import nnx

import jaxprune
from jaxprune import tree
from jaxprune.tree._names import by_pattern
from jaxprune.tree._selection import weights

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


def _names(params, where=tree.kernels):
    return list(tree.select(params, where))


def test_positions_norms_and_biases_are_no_weights_by_default():
    wide = jnp.ones((4, 8))
    params = {
        "ln": {"gamma": wide, "beta": wide, "b": wide + 1, "weight": wide + 2},
        "cls": jnp.ones((1, 1, 8)),
        "pos_embedding": jnp.ones((1, 9, 8)),
        "embed": {"embedding": wide + 3, "weight": wide + 4},
        "lstm": {"w_i": wide + 5, "w_h": wide + 6, "b": wide + 7, "b_ih": wide + 8},
        "attention": {"kernel": jnp.ones((8, 2, 4)), "bias": jnp.ones((2, 4))},
        "norm": {"kernel": wide + 9},
        "body": [{"w1": wide + 10, "b1": wide + 11}],
        "lora": {"a": wide + 12, "b": wide + 13},
        "blocks": {"LayerNorm_0": {"scale": wide + 14}, "bias": wide + 15},
    }
    assert sorted(_names(params)) == [
        "attention/kernel",
        "body/0/w1",
        "lora/a",
        "lora/b",
        "lstm/w_h",
        "lstm/w_i",
        "norm/kernel",
    ]


def test_strings_are_patterns_and_exclusions_apply_to_any_selection():
    assert _names(PARAMS, "dense/*") == ["dense/kernel"]
    assert _names(PARAMS, ("conv/k*", "dense/k*")) == ["conv/kernel", "dense/kernel"]
    assert _names(PARAMS, tree.selection(exclude="dense/*")) == ["conv/kernel"]
    twice = tree.selection(tree.selection(exclude="dense/*"), exclude="conv/b*")
    assert _names(PARAMS, twice) == ["conv/kernel"]
    prefix = {"conv": True, "norm": False, "dense": True, "steps": False}
    where = tree.selection(prefix, exclude=("*/bias",))
    assert _names(PARAMS, where) == ["conv/kernel", "dense/kernel"]
    assert tree.resolve(PARAMS, where) == where(PARAMS)
    with pytest.raises(ValueError, match=r"selection\(exclude='densed/\*'\).*Near"):
        _names(PARAMS, tree.selection(exclude="densed/*"))


def test_what_is_selected_is_printed_with_the_reason():
    table = str(tree.selected(PARAMS, tree.selection(exclude="dense/*")))
    rows = {line.split()[0]: line for line in table.splitlines()}
    assert "fewer than two axes" in rows["conv/bias"]
    assert "excluded by 'dense/*'" in rows["dense/kernel"]
    assert "its name says scale" in rows["norm/scale"]
    assert "not floating: int32" in rows["steps"]
    assert rows["selected"].split() == ["selected", "36", "of", "60"]
    found = tree.selected(PARAMS, lambda p: jax.tree.map(lambda x: x.ndim > 3, p))
    assert found.names == ("conv/kernel",)


def test_the_table_has_equal_columns():
    params = {"a": {"bias": jnp.zeros(2), "kernel": jnp.ones((3, 20, 20))}}
    table = str(tree.selected(params, tree.selection(stacked="a/kernel")))
    assert table.splitlines() == [
        "leaf      shape     size  layers  selected  reason",
        "a/bias    2            2          no        fewer than two axes",
        "a/kernel  3x20x20  1,200       3  yes       a weight by its name",
        "selected           1,200                    of 1,202",
    ]


def test_stacked_leaves_have_layers_and_two_axes_or_more():
    params = {"a": jnp.ones((3, 4)), "b": jnp.ones((2, 5)), "c": jnp.ones(6)}
    held = {"a": jnp.ones((3, 4), bool), "b": jnp.array(False), "c": jnp.array(True)}
    where = tree.selection("*", stacked=("a",), masks=held)
    found = weights(params, where, call="f")
    layers = {name: leaf.layers for name, leaf in found.items()}
    assert layers == {"a": 3, "b": None, "c": None}
    assert found["a"].mask.all()
    assert (found["b"].mask.shape, bool(found["b"].mask.any())) == ((2, 5), False)
    assert found["c"].mask is None
    with pytest.raises(ValueError, match=r"`f`: a leaf of stacked.*'c' has shape"):
        weights(params, tree.selection("*", stacked=("a", "c")), call="f")


def test_tied_leaves_are_refused_by_name_and_none_passes():
    w = jnp.ones((3, 3))
    with pytest.raises(ValueError, match="'in' and 'out' are the same array"):
        _names({"in": w, "out": w})
    assert _names({"in": w, "out": w}, "in") == ["in"]
    assert _names({"in": w, "out": None}) == ["in"]


@pytest.mark.parametrize("dtype", [jnp.int8, jnp.complex64, bool])
def test_what_is_no_float_is_never_a_default_and_refused_by_name(dtype):
    params = {"w": jnp.ones((2, 2)), "v": jnp.ones((2, 2), dtype)}
    assert _names(params) == ["w"]
    with pytest.raises(TypeError, match="leaf 'v' has dtype"):
        _names(params, "*")


def test_masks_are_no_selection():
    with pytest.raises(TypeError, match=r"selection\(masks=...\)"):
        _names(
            PARAMS, {"conv": jnp.ones((), bool), "norm": False, "dense": 1, "steps": 0}
        )


def test_masks_that_hold_are_checked():
    params = {"w": jnp.ones((2, 2))}
    with pytest.raises(ValueError, match=r"selection\(masks=...\).*'w'"):
        weights(params, tree.selection(masks={"w": jnp.ones(3, bool)}), call="f")
    with pytest.raises(TypeError, match="known when a function is traced"):
        jax.jit(lambda m: weights(params, tree.selection(masks={"w": m}), call="f"))(
            jnp.ones((2, 2), bool)
        )


def test_a_pattern_gives_each_leaf_the_value_of_the_first_that_matches():
    known = ["a/conv1/kernel", "b/kernel"]
    found = by_pattern("f", "sparsity", {"*/conv1/*": 0.5, "*": 0.9}, known)
    assert [value for _, value in found.values()] == [0.5, 0.9]
    with pytest.raises(
        ValueError, match=r"f\(sparsity=.*'b/kernel' is matched by none"
    ):
        by_pattern("f", "sparsity", {"*/conv1/*": 0.5}, known)
    with pytest.raises(ValueError, match=r"f\(sparsity=.*Near matches: \['b/kernel'"):
        by_pattern("f", "sparsity", {"b/kernels": 0.5, "*": 0.9}, known)
    with pytest.raises(ValueError, match=r"'b/\*' is the first for none"):
        by_pattern("f", "sparsity", {"*": 0.5, "b/*": 0.9}, known)


@pytest.mark.parametrize("leaf", [jnp.tanh, "text", object()])
def test_a_leaf_that_is_no_array_is_refused_by_name(leaf):
    params = {"kernel": jnp.ones((2, 2)), "act": leaf}
    for call in (jaxprune.ltp().init, jaxprune.summarize):
        with pytest.raises(TypeError, match=r"`.*`: leaves must be arrays .*'act'"):
            call(params)
