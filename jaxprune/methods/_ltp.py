"""Learned Threshold Pruning (LTP): a threshold for every layer, learned by gradient.

Each selected layer l has one threshold. Weights whose square is below it are softly
pruned while training; the task loss lowers thresholds, the penalty that a `Budget`
puts on what is kept raises them, and the balance is found layer by layer.

| symbol | here | source |
|---|---|---|
| w_kl | `params` | |
| tau_l | threshold, squared weight | [LTP] Eq. (1) |
| v_kl = w sigm((w^2 - tau)/T) | `apply(...).params` | [LTP] Eq. (2), (14) |
| L0_l = sum_k sigm(...) | size times `apply(...).keep_ratios` | [LTP] Eq. (6) |
| T_l = T_0 Var(abs(w_l)) | `temperature` is T_0 | [LTP] Eq. (15) |
| lambda | penalty weight of `weighted`, or found by `dual_ascent` | [LTP] Sec. 3 |

`ltp` learns thresholds in units of the spread of their layer and needs no tuning;
`ltp_as_published` learns tau itself, whose learning rate must be chosen per network.

References:
  [LTP] Azarian, Bhalgat, Lee, Blankevoort, Learned Threshold Pruning, 2020,
    arXiv:2003.00075.
"""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import optax

from jaxprune import tree
from jaxprune.base._checks import check_non_negative, check_positive
from jaxprune.base._protocols import Pruned, Pruner
from jaxprune.masks._apply import apply_masks
from jaxprune.methods import _gates as gates
from jaxprune.methods._weights import (
    Weights,
    check_min_keep_ratio,
    minimum_of,
    network,
    per_layer,
    spread,
    variables_like,
)


def ltp(
    *,
    temperature: Any = 0.1,
    init_threshold: Any = 0.05,
    min_keep_ratio: Any = 1e-3,
    where: tree.Where = tree.kernels,
) -> Pruner:
    """Prune by thresholds learned in units of the spread of their layer.

    The variable r_l of a layer is its threshold in units of the spread of its weights:

        tau_l = r_l |r_l| s_l,   s_l = Var(|w_l|),   T_l = T_0 s_l
        v = w sigm((w^2 - tau_l) / T_l) = w sigm((w^2 / s_l - r_l |r_l|) / T_0)

    with s_l recomputed at every step and taken as a constant by the derivative. The
    gate does not change when the weights of a layer are scaled, which is what
    BatchNorm leaves free, and r_l moves in the same range in every layer, so that one
    learning rate serves all: `optax.adam(0.05)`, the pruner's `optimizer`.

    When the masks become final, weights above the threshold have their own values w. A
    weight that is kept below it (because of `min_keep_ratio`, or of a target that the
    training has not reached) keeps the value v that the network was trained with.

    Args:
      temperature: T_0 > 0, without unit. The paper has 1e-3; in these units results
        hardly depend on it, and a wider band lets thresholds move more smoothly.
      init_threshold: r_l at the start, positive, in standard deviations; at 0 the
        threshold has no derivative.
      min_keep_ratio: the minimum that every layer keeps, in [0, 1], rounded up to whole
        weights, or shell pattern to such a number. There the keep ratio has no
        derivative. 0 allows layers to be emptied.
      where: which leaves are pruned; the kernels by default. Stacked layers and masks
        that already hold are declared by `jaxprune.selection`.

    Returns:
      A pruner whose variables are r_l: `{leaf name: float32 () or (layers,)}`.

    Raises:
      ValueError: an argument is out of range.
      TypeError: `init_threshold` is not a number.

    Examples:
      >>> import jax.numpy as jnp
      >>> pruner = ltp(init_threshold=1.0)
      >>> params = {"kernel": jnp.array([[0.1, 3.0], [-2.0, 0.2]])}
      >>> pruner.masks(params, pruner.init(params))["kernel"].tolist()
      [[False, True], [True, False]]

    References:
      [LTP] Eq. (1), (2), (6), (14), (15); thresholds in units of the spread are ours.
    """
    check_positive("ltp", "init_threshold", init_threshold)  # r |r| is flat at 0

    def to_threshold(variable, scale):
        del scale
        return variable * jnp.abs(variable)

    return _ltp(
        "ltp",
        to_threshold,
        temperature,
        init_threshold,
        min_keep_ratio,
        where,
        optax.adam(0.05),
    )


def ltp_as_published(
    *,
    temperature: Any = 1e-3,
    init_threshold: Any = 0.0,
    min_keep_ratio: Any = 0.0,
    where: tree.Where = tree.kernels,
) -> Pruner:
    """Prune by learned thresholds, with the paper's own variables.

    The variable is tau_l itself. With `optax.sgd(eta_tau)` on the variables and
    `weighted(density(params), lambda * n)` the threshold moves by [LTP]
    Eq. (10)

        tau_l -= eta_tau * (sum_k dL/dv_kl (-sigma_T(w_kl) / 2)
                            - lambda * sum_k sigma_T(w_kl) / (2 w_kl))

    with `sigma_T(w) = (2 w / T) s (1 - s)`. Since dL/dtau sums over a layer and grows
    with 1/T_l, eta_tau must be chosen for each network, very small: a rate that suits
    one layer can empty another in one step. The pruner's `optimizer` is
    `optax.sgd(1e-5)`, a first guess.

    Args:
      temperature: T_0 > 0, without unit: T_l = T_0 Var(|w_l|).
      init_threshold: tau_l at the start; unit: squared weight.
      min_keep_ratio: see `ltp`.
      where: see `ltp`.

    Returns:
      A pruner whose variables are tau_l: `{leaf name: float32 () or (layers,)}`.

    Raises:
      ValueError: an argument is out of range.
      TypeError: `init_threshold` is not a number.

    Examples:
      >>> import jax.numpy as jnp
      >>> pruner = ltp_as_published(init_threshold=1.0)
      >>> params = {"kernel": jnp.array([[0.1, 3.0], [-2.0, 0.2]])}
      >>> pruner.masks(params, pruner.init(params))["kernel"].tolist()
      [[False, True], [True, False]]

    References:
      [LTP] Eq. (1), (2), (6), (10), (14), (15).
    """

    def to_threshold(variable, scale):
        return variable / scale / scale

    return _ltp(
        "ltp_as_published",
        to_threshold,
        temperature,
        init_threshold,
        min_keep_ratio,
        where,
        optax.sgd(1e-5),
    )


def _ltp(
    call: str,
    to_threshold: Callable[[jax.Array, jax.Array], jax.Array],
    temperature: Any,
    init_threshold: Any,
    min_keep_ratio: Any,
    where: tree.Where,
    optimizer: optax.GradientTransformation,
) -> Pruner:
    check_positive(call, "temperature", temperature)
    check_non_negative(call, "init_threshold", init_threshold)
    check_min_keep_ratio(call, min_keep_ratio)

    def scaled(leaf, variable):
        """Return the threshold of `(w / s)**2` and s, of shapes that broadcast."""
        scale = spread(leaf)
        return to_threshold(per_layer(variable, leaf), scale), scale

    def apply(params, variables, /, *, key=None, step=None):
        del key, step
        net = network(call, params, where, variables)
        floors, pruned, keep_ratios = net.floors(min_keep_ratio), {}, {}
        for name, leaf in net.leaves.items():
            threshold, scale = scaled(leaf, variables[name])
            pruned[name], count = gates.soft_prune(
                leaf.array, threshold, temperature, scale
            )
            if leaf.mask is not None:
                count -= _count_of_pruned(leaf, threshold, temperature)
            # Floats: a layer may have more than 2**31 weights.
            ratio = jnp.maximum(count, float(floors[name])) / float(leaf.layer_size)
            keep_ratios[name] = ratio.reshape(variables[name].shape)
        return Pruned(tree.replace(net.params, pruned), keep_ratios)

    def hard_masks(params, variables, /, *, keep_ratio=None):
        net = network(call, params, where, variables)
        kept, scores = {}, {}
        for name, leaf in net.leaves.items():
            threshold, scale = scaled(leaf, variables[name])
            size = jnp.abs(leaf.array.astype(jnp.float32)) / scale
            kept[name] = ~(jnp.square(size) <= threshold)  # NaN stays, to be noticed
            # How far a weight is above the threshold, in standard deviations: the
            # same unit in every layer.
            scores[name] = size - jnp.sqrt(jnp.maximum(threshold, 0))
        if keep_ratio is None:
            return net.above_threshold(kept, scores, min_keep_ratio)
        return net.scored(scores, keep_ratio, min_keep_ratio)

    def final_weights(params, variables, kept, /):
        net, final = network(call, params, where, variables), {}
        for name, leaf in net.leaves.items():
            final[name] = _final(
                leaf.array, *scaled(leaf, variables[name]), temperature
            )
        return apply_masks(tree.replace(net.params, final), kept)

    init = variables_like(call, where, init_threshold)
    return Pruner(
        init,
        apply,
        hard_masks,
        final_weights,
        optimizer=optimizer,
        minimum=minimum_of(call, where, min_keep_ratio),
    )


def _count_of_pruned(leaf: Weights, threshold: jax.Array, temperature: Any):
    """Return the soft count of weights that are already pruned, and must not count."""
    axes = tuple(range(threshold.ndim and 1, leaf.array.ndim))
    gone = jnp.sum(~leaf.mask, axis=axes, keepdims=threshold.ndim > 0)
    return gone * jax.nn.sigmoid(-threshold / temperature)


def _final(
    weights: jax.Array, threshold: jax.Array, scale: jax.Array, temperature: Any
) -> jax.Array:
    """Return weights above the threshold as they are, others as in the training.

    Weights may be kept below the threshold because of a minimum or of a target. An open
    gate would give outputs to a layer whose outputs were trained to zero, and a
    normalisation behind it would divide them by a variance near zero.
    """
    soft, _ = gates.soft_prune(weights, threshold, temperature, scale)
    above = jnp.square(weights.astype(jnp.float32) / scale) > threshold
    return jnp.where(above, weights, soft)
