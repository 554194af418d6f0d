"""Learned Threshold Pruning (LTP): a threshold for every layer, learned by gradient.

Each selected layer l has one threshold. Weights whose square is below it are softly
pruned while training; the task loss pulls thresholds down, the price that a `Budget`
puts on what is kept pushes them up, and the balance is struck layer by layer.

| symbol | here | source |
|---|---|---|
| w_kl | `params` | |
| tau_l | threshold, squared weight | [LTP] Eq. (1) |
| v_kl = w sigm((w^2 - tau)/T) | `apply(...).params` | [LTP] Eq. (2), (14) |
| L0_l = sum_k sigm(...) | size times `apply(...).keep_ratios` | [LTP] Eq. (6) |
| T_l = T_0 Var(abs(w_l)) | `temperature` is T_0 | [LTP] Eq. (15) |
| lambda | `budgets.weighted`, or found by `dual_ascent` | [LTP] Sec. 3 |

`ltp` learns thresholds in units of the spread of their layer and needs no tuning;
`ltp_as_published` learns tau itself, whose learning rate must be chosen per network.

References:
  [LTP] Azarian, Bhalgat, Lee, Blankevoort, Learned Threshold Pruning, 2020,
    arXiv:2003.00075.
"""

import math
from collections.abc import Callable

import jax
import jax.numpy as jnp

from jaxprune import tree
from jaxprune.base._protocols import Pruned, Pruner
from jaxprune.masks import _select as masks
from jaxprune.methods import _gates as gates

# Below this spread a layer counts as constant (all zeros, say): keeps divisions finite.
_LEAST_VARIANCE = 1e-20


def nothing_stacked(params):
    """Selects no leaf: no layers are stacked along a leading axis."""
    return jax.tree.map(lambda _: False, params)


def ltp(
    *,
    temperature: float = 0.1,
    init_threshold: float = 0.05,
    min_keep_ratio: float = 1e-3,
    where: tree.Where = tree.kernels,
    stacked: tree.Where = nothing_stacked,
) -> Pruner:
    """Learned threshold pruning with scale-free thresholds.

    The variable r_l of a layer is its threshold in units of the spread of its weights:

        tau_l = r_l |r_l| s_l,   s_l = Var(|w_l|),   T_l = T_0 s_l
        v = w sigm((w^2 - tau_l) / T_l) = w sigm((w^2 / s_l - r_l |r_l|) / T_0)

    with s_l recomputed at every step and taken as a constant by the derivative. The
    gate does not change when the weights of a layer are scaled, which is what
    BatchNorm leaves free, and r_l moves in the same range in every layer, so that one
    learning rate serves all: train the variables with `optax.adam(0.05)`.

    Args:
      temperature: T_0 > 0, without unit. The paper has 1e-3; in these units results
        hardly depend on it, and a wider band lets thresholds move more smoothly.
      init_threshold: r_l at the start, not negative, in standard deviations.
      min_keep_ratio: what every layer keeps at the least when masks are made, in
        [0, 1], rounded up to whole weights; the price stops pressing there. 0 allows
        layers to be emptied.
      where: which leaves are pruned; the kernels by default.
      stacked: which of them hold several layers along their first axis (as `nn.scan`
        makes them); these get a vector of thresholds, one for each layer.

    Returns:
      A pruner whose variables are r_l: `{leaf name: float32 () or (layers,)}`.

    Raises:
      ValueError: if an argument is out of range.

    >>> import jax.numpy as jnp
    >>> pruner = ltp(init_threshold=1.0)
    >>> params = {"kernel": jnp.array([[0.1, 3.0], [-2.0, 0.2]])}
    >>> pruner.masks(params, pruner.init(params))["kernel"].tolist()
    [[False, True], [True, False]]
    """

    def to_threshold(variable, variance):
        return variable * jnp.abs(variable) * variance

    return _ltp(
        to_threshold, temperature, init_threshold, min_keep_ratio, where, stacked
    )


def ltp_as_published(
    *,
    temperature: float = 1e-3,
    init_threshold: float = 0.0,
    min_keep_ratio: float = 0.0,
    where: tree.Where = tree.kernels,
    stacked: tree.Where = nothing_stacked,
) -> Pruner:
    """Learned threshold pruning with the paper's own variables.

    The variable is tau_l itself. With `optax.sgd(eta_tau)` on the variables and
    `weighted(density(params), lambda * n)` the threshold moves by [LTP]
    Eq. (10)

        tau_l -= eta_tau * (sum_k dL/dv_kl (-sigma_T(w_kl) / 2)
                            - lambda * sum_k sigma_T(w_kl) / (2 w_kl))

    with `sigma_T(w) = (2 w / T) s (1 - s)`. Since dL/dtau sums over a layer and grows
    with 1/T_l, eta_tau must be chosen for each network, very small: a rate that suits
    one layer can empty another in one step.

    Args:
      temperature: T_0 > 0, without unit: T_l = T_0 Var(|w_l|).
      init_threshold: tau_l at the start; unit: squared weight.
      min_keep_ratio: see `ltp`.
      where: see `ltp`.
      stacked: see `ltp`.

    Returns:
      A pruner whose variables are tau_l: `{leaf name: float32 () or (layers,)}`.

    Raises:
      ValueError: if an argument is out of range.
    """

    def to_threshold(variable, variance):
        del variance
        return variable

    return _ltp(
        to_threshold, temperature, init_threshold, min_keep_ratio, where, stacked
    )


def _ltp(
    to_threshold: Callable[[jax.Array, jax.Array], jax.Array],
    temperature: float,
    init_threshold: float,
    min_keep_ratio: float,
    where: tree.Where,
    stacked: tree.Where,
) -> Pruner:
    if not 0 < temperature < math.inf:
        raise ValueError(
            f"`ltp(temperature={temperature})`: T_0 must be positive and finite; 1e-3 "
            "is the paper's."
        )
    if not 0 <= init_threshold < math.inf:
        raise ValueError(
            f"`ltp(init_threshold={init_threshold})`: must be finite and not negative."
        )
    masks.layer_floor(0, min_keep_ratio)  # checks the range

    def layers_of(params):
        """Selected leaves, and for each the number of stacked layers or None."""
        is_stacked = tree.named_leaves(tree.resolve(params, stacked))
        return [
            (name, leaf, leaf.shape[0] if is_stacked[name] else None)
            for name, leaf in tree.select(params, where).items()
        ]

    def init(params, /):
        return {
            name: jnp.full(
                () if layers is None else layers, init_threshold, jnp.float32
            )
            for name, leaf, layers in layers_of(params)
        }

    def threshold_and_variance(leaf, layers, variable):
        """Tau and Var(|w|), of shape (), or of a shape that broadcasts to the leaf."""
        axes = tuple(range(0 if layers is None else 1, leaf.ndim))
        size = jnp.abs(leaf.astype(jnp.float32))
        variance = jnp.var(size, axis=axes, keepdims=layers is not None)
        variance = jax.lax.stop_gradient(jnp.maximum(variance, _LEAST_VARIANCE))
        return to_threshold(variable.reshape(variance.shape), variance), variance

    def apply(params, variables, /, *, key=None, step=None):
        del key, step
        pruned, keep_ratios = {}, {}
        for name, leaf, layers in layers_of(params):
            variable = variables[name]
            threshold, variance = threshold_and_variance(leaf, layers, variable)
            pruned[name], count = gates.soft_prune(
                leaf, threshold, temperature * variance
            )
            size = leaf.size // (layers or 1)
            least = masks.layer_floor(size, min_keep_ratio)
            ratio = jnp.maximum(count, least) / size
            keep_ratios[name] = ratio.reshape(variable.shape)
        return Pruned(tree.replace(params, pruned), keep_ratios)

    def hard_masks(params, variables, /, *, keep_ratio=None):
        kept, scores, stacks = {}, {}, {}
        for name, leaf, layers in layers_of(params):
            threshold, variance = threshold_and_variance(leaf, layers, variables[name])
            size = jnp.abs(leaf.astype(jnp.float32))
            kept[name] = jnp.square(size) > threshold
            # How far a weight is above the threshold, in standard deviations: the
            # same unit in every layer.
            root = jnp.sqrt(jnp.maximum(threshold, 0))
            scores[name] = (size - root) / jnp.sqrt(variance)
            stacks[name] = layers
        if keep_ratio is not None:
            kept = masks.global_masks(
                scores,
                keep_ratio=keep_ratio,
                min_keep_ratio=min_keep_ratio,
                layers=stacks,
            )
        else:
            for name, score in scores.items():
                kept[name] |= masks.floor_masks(
                    score, min_keep_ratio=min_keep_ratio, layers=stacks[name]
                )
        return masks.fill(params, kept)

    return Pruner(init, apply, hard_masks)
