"""The assertions for others: what breaks a promise is found, and named."""

import subprocess
import sys

import jax
import jax.numpy as jnp
import optax
import pytest

import jaxprune
from jaxprune import testing

PARAMS = {"dense": {"kernel": jnp.arange(1.0, 13.0).reshape(4, 3), "bias": jnp.ones(3)}}
RATIOS = {"dense/kernel": jnp.float32(0.9)}
MAGNITUDE = jaxprune.magnitude(sparsity=0.5)
BUDGET = jaxprune.dual_ascent(jaxprune.at_most(jaxprune.density(PARAMS), 0.5))


def _all_numbers(params, variables, /, *, keep_ratio=None):
    return jax.tree.map(jnp.ones_like, params)


def _one_too_many(params, variables, /, *, keep_ratio=None):
    ratio = None if keep_ratio is None else min(keep_ratio + 0.1, 1.0)
    return MAGNITUDE.masks(params, variables, keep_ratio=ratio)


def _narrow(params, variables, /, *, key=None, step=None):
    seen, ratios = MAGNITUDE.apply(params, variables, key=key, step=step)
    return jaxprune.Pruned(jax.tree.map(lambda w: w.astype(jnp.bfloat16), seen), ratios)


def _more_than_one(params, variables, /, *, key=None, step=None):
    seen, ratios = MAGNITUDE.apply(params, variables, key=key, step=step)
    return jaxprune.Pruned(seen, jax.tree.map(lambda r: 3 * r, ratios))


BROKEN_PRUNERS = {
    "masks are bool": {"masks": _all_numbers},
    "a keep ratio of 0.4 keeps 4 of 12": {"masks": _one_too_many},
    "`apply` keeps structure": {"apply": _narrow},
    "keep ratios are between 0 and 1": {"apply": _more_than_one},
    "variables have the names of leaves": {"init": lambda p, /: {"no": jnp.ones(())}},
    "final weights are 0": {"final_weights": lambda p, v, m, /: p},
}


@pytest.mark.parametrize("promise", BROKEN_PRUNERS)
def test_a_pruner_that_breaks_a_promise_is_found(promise):
    pruner = MAGNITUDE._replace(**BROKEN_PRUNERS[promise])
    with pytest.raises(AssertionError, match=promise):
        testing.assert_pruner_contract(pruner, PARAMS)


def test_trees_may_hold_other_leaves():
    params = {
        **PARAMS,
        "steps": jnp.arange(3),
        "temperature": jnp.float32(1),
        "none": None,
        "layers": [jnp.ones((2, 3), jnp.bfloat16)],
    }
    testing.assert_pruner_contract(MAGNITUDE, params)


BROKEN_BUDGETS = {
    "`penalty` is a float32 scalar": {"penalty": lambda k, s, /: jnp.ones(2)},
    "`penalty` is finite and at least 0": {"penalty": lambda k, s, /: jnp.float32(-1)},
    "the state is the carry of a scan": {"update": lambda k, s, /: jnp.ones(3)},
}


@pytest.mark.parametrize("promise", BROKEN_BUDGETS)
def test_a_budget_that_breaks_a_promise_is_found(promise):
    budget = BUDGET._replace(**BROKEN_BUDGETS[promise])
    with pytest.raises(AssertionError, match=promise):
        testing.assert_budget_contract(budget, RATIOS)


def test_a_transformation_that_breaks_a_promise_is_found():
    good = jaxprune.lats(optax.sgd(0.1), sparsity=0.5, steps=2)
    testing.assert_transformation_contract(good, PARAMS, steps=2)
    behind = optax.chain(good, optax.scale(0.5))
    with pytest.raises(ValueError, match="Nothing may come behind it"):
        testing.assert_transformation_contract(behind, PARAMS)
    growing = optax.GradientTransformation(
        lambda params: jnp.ones(1), lambda u, s, p=None: (u, jnp.concatenate([s, s]))
    )
    with pytest.raises(AssertionError, match="an update keeps structure"):
        testing.assert_transformation_contract(growing, PARAMS)


def test_a_network_without_channels_is_none_to_compare():
    with pytest.raises(AssertionError, match="has a group of channels"):
        testing.assert_masked_equals_compact(
            lambda params, x: x @ params["w"], {"w": jnp.ones((2, 3))}, jnp.ones((1, 2))
        )


def test_without_chex_the_message_says_what_to_install():
    code = "import sys; sys.modules['chex'] = None; import jaxprune.testing"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode
    assert "pip install 'jaxprune[testing]'" in done.stderr
