"""Magnitude pruning: keep the largest weights. The smallest complete method.

| symbol | here | source |
|---|---|---|
| s_t, sparsity over time | `sparsity` | [GMP] Eq. (1), `schedules.cubic_ramp` |

Pruned weights get no gradient from the task, but they are not erased: when others
shrink below them they come back.

References:
  [GMP] Zhu and Gupta, To prune, or not to prune, 2017, arXiv:1710.01878.
"""

from collections.abc import Mapping
from typing import Any

import jax
import jax.core
import jax.numpy as jnp
import optax

from jaxprune import tree
from jaxprune.base._protocols import Pruned, Pruner
from jaxprune.masks._apply import apply_masks
from jaxprune.masks._counts import Scheduled, exact_keep_ratio
from jaxprune.masks._distributions import Distribution, erk, global_
from jaxprune.methods._weights import (
    check_distribution,
    check_min_keep_ratio,
    layer_mean,
    minimum_of,
    network,
)
from jaxprune.tree._names import by_pattern


def magnitude(
    *,
    sparsity: optax.ScalarOrSchedule | Mapping[str, optax.ScalarOrSchedule],
    distribution: Distribution = erk,
    min_keep_ratio: Any = 1e-3,
    where: tree.Where = tree.kernels,
) -> Pruner:
    """Keep the largest weights of every layer, as many as a distribution says.

        v_i = w_i if |w_i| is among the k_l largest of its layer, else 0
        sum_l k_l = floor((1 - s_t) n)

    Args:
      sparsity: s_t, the fraction of zeros, in [0, 1): a number, a schedule of the step,
        or shell pattern to one of these, such as `{"*/conv1/*": 0.5, "*": 0.9}`. The
        first pattern that matches a leaf counts, every selected leaf must be matched,
        and the fraction is that of the leaves of a pattern together.
      distribution: how what is kept is divided among layers: `masks.erk`,
        `masks.uniform`, `masks.global_`, or another function of a layer's shape.
      min_keep_ratio: the minimum that every layer keeps, in [0, 1], rounded up, or
        shell pattern to such a number.
      where: which leaves are pruned; the kernels by default. Stacked layers and masks
        that already hold are declared by `jaxprune.selection`.

    Returns:
      A pruner without variables. A scheduled `sparsity` needs `step` in `apply`, and
      `keep_ratio` in `masks`.

    Raises:
      ValueError: a number given for `sparsity` is outside [0, 1), or `min_keep_ratio`
        outside [0, 1].

    Examples:
      >>> import jax.numpy as jnp
      >>> params = {"kernel": jnp.array([[0.1, 3.0], [-2.0, 0.2]])}
      >>> magnitude(sparsity=0.5).apply(params, {}).params["kernel"].tolist()
      [[0.0, 3.0], [-2.0, 0.0]]

    References:
      [GMP]; the default distribution is that of Evci et al., see `masks.erk`.
    """
    return _magnitude("magnitude", sparsity, distribution, min_keep_ratio, where)


def global_magnitude(
    *,
    sparsity: optax.ScalarOrSchedule | Mapping[str, optax.ScalarOrSchedule],
    min_keep_ratio: Any = 1e-3,
    where: tree.Where = tree.kernels,
) -> Pruner:
    """Keep the largest weights of all selected leaves together.

        v_i = w_i if |w_i| is among the floor((1 - s_t) n) largest, else 0

    `magnitude` with the distribution `masks.global_`.

    Args:
      sparsity: see `magnitude`.
      min_keep_ratio: see `magnitude`.
      where: see `magnitude`.

    Returns:
      A pruner without variables; see `magnitude`.

    Raises:
      ValueError: see `magnitude`.

    Examples:
      >>> import jax.numpy as jnp
      >>> params = {"in": jnp.array([[0.1, 3.0]]), "out": jnp.array([[-2.0, 5.0]])}
      >>> masks = global_magnitude(sparsity=0.5).masks(params, {})
      >>> masks["in"].tolist(), masks["out"].tolist()
      ([[False, True]], [[False, True]])

    References:
      [GMP].
    """
    return _magnitude("global_magnitude", sparsity, global_, min_keep_ratio, where)


def _magnitude(call, sparsity, distribution, min_keep_ratio, where) -> Pruner:
    check_min_keep_ratio(call, min_keep_ratio)
    check_distribution(call, distribution)
    patterns = sparsity if isinstance(sparsity, Mapping) else {"*": sparsity}
    fixed = {
        pattern: exact_keep_ratio(call, value)
        for pattern, value in patterns.items()
        if not callable(value) and not isinstance(value, jax.core.Tracer)
    }
    scheduled = any(map(callable, patterns.values()))

    def keep_ratios(net, step):
        by_pattern(call, "sparsity", patterns, net.leaves)
        return {
            name: fixed[name] if name in fixed else _keep_ratio_at(call, value, step)
            for name, value in patterns.items()
        }

    def apply(params, variables, /, *, key=None, step=None):
        del variables, key
        net = network(call, params, where)
        masks = net.scored(
            _magnitudes(net), keep_ratios(net, step), min_keep_ratio, distribution
        )
        kept = tree.named_leaves(masks)
        ratios = {n: layer_mean(kept[n], leaf) for n, leaf in net.leaves.items()}
        return Pruned(apply_masks(net.params, masks), ratios)

    def hard_masks(params, variables, /, *, keep_ratio=None):
        del variables
        if keep_ratio is None and scheduled:
            raise ValueError(
                f"`{call}(sparsity=schedule).masks(params, variables)`: with a "
                "schedule the fraction to keep must be given, got keep_ratio=None. "
                "Call `masks(..., keep_ratio=...)`."
            )
        net = network(call, params, where)
        ratio = keep_ratios(net, None) if keep_ratio is None else keep_ratio
        return net.scored(_magnitudes(net), ratio, min_keep_ratio, distribution)

    return Pruner(
        lambda params, /: {},
        apply,
        hard_masks,
        has_own_size=not scheduled,
        states_size=not scheduled,
        minimum=minimum_of(call, where, min_keep_ratio),
    )


def _magnitudes(net) -> dict[str, jax.Array]:
    return {n: jnp.abs(jax.lax.stop_gradient(x)) for n, x in net.arrays.items()}


def _keep_ratio_at(call: str, sparsity: Any, step: Any) -> Scheduled:
    """Return the keep ratio of a traced sparsity, or of a schedule at a step."""
    if callable(sparsity):
        if step is None:
            raise ValueError(
                f"`{call}(sparsity=schedule).apply(params, variables)`: a schedule "
                "needs the step. Call `apply(..., step=step)`."
            )
        sparsity = sparsity(step)
    return Scheduled(1 - jnp.asarray(sparsity, jnp.float32))
