"""Wanda: keep the weights whose products are large on data, in one shot.

References:
  [Wanda] Sun, Liu, Bair, Kolter, A Simple and Effective Pruning Approach for Large
  Language Models, ICLR 2024, arXiv:2306.11695.
"""

from typing import Any

import jax
import jax.numpy as jnp

from jaxprune import tree
from jaxprune.base._protocols import Params, Pruner
from jaxprune.calibration._statistics import Statistics, require, summed
from jaxprune.calibration._views import Use
from jaxprune.masks._distributions import Distribution, uniform
from jaxprune.masks._n_m import check_pattern, n_m_masks
from jaxprune.methods._observed import pattern_pruner
from jaxprune.methods._one_shot import prune_once
from jaxprune.methods._weights import Network


def wanda_scores(
    statistics: Statistics, params: Params, *, where: tree.Where = tree.kernels
) -> dict[str, jax.Array]:
    """Return the size of every selected weight times that of its input.

        s_io = |w_io| |x_i|_2,   |x_i|_2 = sqrt(sum_r x_ri^2)

    over all rows r that the weight sees, of all products in which it is used.

    Args:
      statistics: from `jaxprune.calibrate`.
      params: w, a pytree of arrays.
      where: which leaves are scored; the kernels by default.

    Returns:
      Leaf name to scores, float32, of the shape of the leaf.

    Raises:
      ValueError, TypeError: nothing is known of the inputs of a leaf; see also
        `jaxprune.tree.select`.

    Examples:
      >>> from jaxprune.calibration import calibrate
      >>> params = {"w": jnp.array([[3.0, 1.0], [2.0, 2.0]])}
      >>> x = jnp.array([[0.0, 3.0], [1.0, 4.0]])
      >>> statistics = calibrate(lambda p, x: x @ p["w"], params, [x])
      >>> wanda_scores(statistics, params)["w"].tolist()
      [[3.0, 1.0], [10.0, 10.0]]

    References:
      [Wanda] Eq. (1).
    """
    chosen = tree.select(params, where, call="wanda_scores")
    require("wanda_scores", statistics, chosen)
    return _scores(statistics, chosen)


def _scores(statistics: Statistics, chosen) -> dict[str, jax.Array]:
    found = {}
    for name, leaf in chosen.items():
        squares = summed(statistics.uses[name], statistics.inputs[name], "square_sum")
        size = jnp.abs(leaf.astype(jnp.float32))
        found[name] = size * jnp.sqrt(squares.astype(jnp.float32))
    return found


def wanda(
    statistics: Statistics,
    *,
    pattern: tuple[int, int] | None = None,
    per_output: bool = True,
    distribution: Distribution = uniform,
    min_keep_ratio: Any = 1e-3,
    where: tree.Where = tree.kernels,
) -> Pruner:
    """Prune once, by weights times inputs, compared within each output.

        m_io = 1 for the highest |w_io| |x_i|_2 of the weights of output o

    Every output keeps the same fraction, to within one weight; counts are exact over
    all outputs. The weights that are kept stay as they are.

    Args:
      statistics: from `jaxprune.calibrate`.
      pattern: n and m: of every m consecutive inputs of an output the n highest are
        kept, and nothing else is asked. With None `masks` needs a `keep_ratio`.
      per_output: whether weights are compared within an output; otherwise within a
        layer, or wherever the distribution ranks them together.
      distribution: how what is kept is divided among layers; see `jaxprune.magnitude`.
        The paper's is uniform.
      min_keep_ratio: the minimum that every layer keeps, in [0, 1], rounded up, or
        shell pattern to such a number.
      where: which leaves are pruned; the kernels by default. Stacked layers and masks
        that already hold are declared by `jaxprune.selection`.

    Returns:
      A pruner without variables.

    Raises:
      ValueError: `min_keep_ratio` is outside [0, 1], or the pattern is none; of
        `masks`, if nothing is known of the inputs of a leaf, or m does not divide them.
      TypeError: `statistics` are none.

    Examples:
      >>> from jaxprune.calibration import calibrate
      >>> params = {"w": jnp.array([[3.0, 9.0], [2.0, 2.0]])}
      >>> x = jnp.array([[0.0, 3.0], [1.0, 4.0]])
      >>> statistics = calibrate(lambda p, x: x @ p["w"], params, [x])
      >>> wanda(statistics).masks(params, {}, keep_ratio=0.5)["w"].tolist()
      [[False, False], [True, True]]
      >>> wanda(statistics, pattern=(1, 2)).masks(params, {})["w"].tolist()
      [[False, False], [True, True]]

    References:
      [Wanda] Sec. 3, Algorithm 1.
    """
    require("wanda", statistics, ())

    def scores(net: Network):
        require("wanda", statistics, net.leaves)
        found = _scores(statistics, net.arrays)
        if per_output:
            uses = statistics.uses
            found = {name: _in_outputs(uses[name], s) for name, s in found.items()}
        return found

    pruner = prune_once(
        "wanda",
        scores,
        distribution=distribution,
        min_keep_ratio=min_keep_ratio,
        where=where,
    )
    if pattern is None:
        return pruner
    n, m = check_pattern("wanda", pattern)

    def choose(net: Network):
        found = _scores(statistics, net.arrays)
        uses = statistics.uses
        return {name: _in_groups(uses[name], s, n, m) for name, s in found.items()}

    return pattern_pruner(pruner, "wanda", statistics, (n, m), where, choose)


def _in_outputs(uses: tuple[Use, ...], scores: jax.Array) -> jax.Array:
    """Return ranks within outputs, the best nearest to 1; NaN stays.

    A weight that is used in several layouts is ranked in the first; one that is not
    used has 0.
    """
    ranks = jnp.zeros_like(scores)
    for use in uses:
        covered = use.covered()
        values = jnp.where(covered, use.matrices(scores), -jnp.inf)
        order = jnp.argsort(-values, axis=1, stable=True)
        place = jnp.argsort(order, axis=1, stable=True).astype(scores.dtype)
        number = jnp.sum(covered, axis=1, keepdims=True)
        share = 1 - (place + 0.5) / jnp.maximum(number, 1)
        here = use.leaf(jnp.where(covered, share, jnp.zeros_like(share)))
        ranks = jnp.where(ranks == 0, here, ranks)
    return jnp.where(jnp.isnan(scores), scores, ranks)


def _in_groups(uses: tuple[Use, ...], scores: jax.Array, n: int, m: int) -> jax.Array:
    """Return the masks of the n best of every m inputs of an output."""
    gone = jnp.zeros(scores.shape, bool)
    for use in uses:
        covered = use.covered()
        values = jnp.where(covered, use.matrices(scores), -jnp.inf)
        lost = covered & ~n_m_masks(values, n, m, axis=1)
        gone |= use.leaf(lost.astype(jnp.float32)) > 0
    return ~gone
