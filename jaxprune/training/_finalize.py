"""From a trained pytree to the pruned network, with a report of what was done."""

import functools
import math
import warnings
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jaxprune import tree
from jaxprune.base._final import FinalReport, PruningWarning
from jaxprune.base._protocols import ChannelPruner, Cost, KeepRatios, Limit, Params
from jaxprune.budgets._result import Result
from jaxprune.channels._allocation import final_bound, round_to_limits, within
from jaxprune.channels._gates import apply_gates, plan_gates

_NOTHING = 1e-6  # of the sum of the magnitudes of a layer
_FAR = 1.5  # a cut by a larger factor changes the network that was trained


class _Decision(NamedTuple):
    """A final network before it is judged.

    Attributes:
      params: its weights.
      masks: its masks.
      sizes: of every site, the number of weights or channels.
      keep_ratios: of every site, the fraction kept, of shape () or (layers,).
      own_keep_ratio: overall, by the method's own rule, or None.
      emptied: the sites of which nothing is left.
    """

    params: Params
    masks: Any
    sizes: dict[str, int]
    keep_ratios: dict[str, Any]
    own_keep_ratio: float | None
    emptied: tuple[str, ...]


class FinalLimit(NamedTuple):
    """A limit after the end of its schedule.

    Attributes:
      name: as in `Limit`.
      cost: as in `Limit`.
      at_most: the bound, a number.
    """

    name: str
    cost: Cost
    at_most: float


def final_limits(limits: Sequence[Limit]) -> list[FinalLimit]:
    """Return the limits with the bounds at which their schedules end."""
    return [FinalLimit(x.name, x.cost, final_bound(x)) for x in limits]


def decide(
    pruner: Any,
    params: Params,
    variables: dict[str, jax.Array],
    keep_ratios: KeepRatios,
    limits: Sequence[FinalLimit],
    keep_ratio: float | None,
    multiple_of: int,
) -> _Decision:
    """Decide what is kept: as much as the limits allow, in the order of the method.

    Of a method whose size was stated, no more than that.

    Args:
      pruner: a `Pruner` or a `ChannelPruner`.
      params: the trained weights.
      variables: the trained variables.
      keep_ratios: those of the network that was trained.
      limits: with costs that are bound to the parameters.
      keep_ratio: see `Pruning.finalize`.
      multiple_of: see `Pruning.finalize`.
    """
    if not isinstance(pruner, ChannelPruner):
        if multiple_of != 1:
            raise ValueError(
                f"`finalize(multiple_of={multiple_of})`: it counts channels, and this "
                "method prunes single weights. Leave it out."
            )
        masks, own = _weight_masks(
            pruner, params, variables, keep_ratios, limits, keep_ratio
        )
        return _decision(pruner, params, variables, keep_ratios, masks, own)
    if keep_ratio is not None:
        raise ValueError(
            f"`finalize(keep_ratio={keep_ratio})`: it counts single weights, and this "
            "method removes channels. Give `pruning` a limit on a cost."
        )
    return _decide_channels(pruner, params, variables, keep_ratios, limits, multiple_of)


def _decide_channels(
    pruner, params, variables, keep_ratios, limits, multiple_of
) -> _Decision:
    sizes = {name: group.size for name, group in pruner.graph.groups.items()}
    wanted = {name: float(ratio) for name, ratio in keep_ratios.items()}
    counts = None
    if limits:
        counts = round_to_limits(
            pruner.graph,
            wanted,
            [Limit(x.cost, x.at_most, x.name) for x in limits],
            multiple_of=multiple_of,
            fixed=pruner.fixed,
        )
    masks = pruner.masks(params, variables, counts=counts)
    params = pruner.final_weights(params, variables, masks)
    kept = {name: float(np.mean(np.asarray(mask))) for name, mask in masks.items()}
    own = sum(wanted.get(n, 1.0) * sizes[n] for n in sizes) / sum(sizes.values())
    emptied = tuple(name for name, ratio in kept.items() if ratio == 0)
    return _Decision(params, masks, sizes, kept, own, emptied)


def _weight_masks(pruner, params, variables, keep_ratios, limits, keep_ratio):
    """Return the final masks, and those of the method's own rule or None."""

    def masks_at(ratio: float) -> Any:
        return pruner.masks(params, variables, keep_ratio=ratio)

    def within_limits(masks: Any) -> bool:
        ratios = _hard_ratios(masks, keep_ratios)
        return within(ratios, [(x.cost, x.at_most) for x in limits])

    def fits(ratio: float) -> bool:
        return within_limits(masks_at(ratio))

    own = pruner.masks(params, variables) if pruner.has_own_size else None
    if keep_ratio is not None:
        return masks_at(keep_ratio), own
    if not limits:
        if own is None:
            raise ValueError(
                "`finalize(keep_ratio=None)`: the method has no rule of its own and "
                "`pruning` has no limit. Give `keep_ratio`."
            )
        return own, own
    if pruner.states_size and within_limits(own):
        return own, own
    leaves = tree.named_leaves(params)
    total = sum(math.prod(leaves[name].shape) for name in keep_ratios)
    first = min(x.at_most for x in limits)
    return masks_at(_largest(fits, first, 1 / max(total, 1))), own


def _decision(pruner, params, variables, keep_ratios, masks, own) -> _Decision:
    kept, leaves = _hard_ratios(masks, keep_ratios), tree.named_leaves(params)
    sizes = {name: math.prod(leaves[name].shape) for name in kept}
    own_ratio = None
    if own is not None:
        own_ratio = _overall(sizes, _hard_ratios(own, keep_ratios))
        trained = _overall(sizes, keep_ratios) if keep_ratios else own_ratio
        if own is masks and trained > own_ratio * _FAR:
            own_ratio = trained  # of a method whose size follows a ramp of its own

    # One program: the operations of every leaf are compiled together.
    @jax.jit
    def finish(params, variables, masks):
        final = pruner.final_weights(params, variables, masks)
        values, trained = tree.named_leaves(final), tree.named_leaves(params)
        return final, {n: _is_empty(values[n], trained[n], r) for n, r in kept.items()}

    final, empty = finish(params, variables, masks)
    emptied = tuple(name for name in kept if bool(empty[name]))
    return _Decision(final, masks, sizes, kept, own_ratio, emptied)


def _is_empty(final, trained, keep_ratio) -> jax.Array:
    """Return whether next to nothing is left of a leaf, or of a layer stacked there.

    By the values: a weight that is kept below its threshold, because of a minimum,
    may have been zero all along.
    """
    axes = tuple(range(jnp.ndim(keep_ratio), jnp.ndim(final)))
    left = jnp.sum(jnp.abs(final), axis=axes, dtype=jnp.float32)
    whole = jnp.sum(jnp.abs(trained), axis=axes, dtype=jnp.float32)
    return jnp.any(left <= _NOTHING * whole)


def _hard_ratios(masks: Any, keep_ratios: KeepRatios) -> dict[str, Any]:
    """Return the keep ratios of masks, of the names and shapes of those of training."""
    named = tree.named_leaves(masks)
    # Methods that prune once have no keep ratios while training.
    sites = keep_ratios or {n: m for n, m in named.items() if jnp.ndim(m)}
    first = tuple(jnp.ndim(r) if keep_ratios else 0 for r in sites.values())
    means = _means([named[name] for name in sites], first)
    return dict(zip(sites, means, strict=True))


@functools.partial(jax.jit, static_argnums=1)
def _means(masks: list[jax.Array], first: tuple[int, ...]) -> list[jax.Array]:
    """Return the mean of each mask over all axes behind the first ones."""
    return [
        jnp.mean(mask, axis=tuple(range(n, jnp.ndim(mask))), dtype=jnp.float32)
        for mask, n in zip(masks, first, strict=True)
    ]


def under_masks(pruner: Any, decision: _Decision) -> Params:
    """Return the weights of the final network at full size."""
    if not isinstance(pruner, ChannelPruner):
        return decision.params
    masks = {n: np.asarray(mask) for n, mask in decision.masks.items()}
    gates = {n: m.astype(np.float32) for n, m in masks.items() if not m.all()}
    return apply_gates(plan_gates(pruner.graph, gates), decision.params, gates)


def report_on(
    decision: _Decision,
    limits: Sequence[FinalLimit],
    result: Result | None,
    scores: tuple[float | None, float | None],
) -> FinalReport:
    """Return the report of a decision, having warned of what disagrees."""
    report = FinalReport(
        keep_ratio=_overall(decision.sizes, decision.keep_ratios),
        own_keep_ratio=decision.own_keep_ratio,
        costs={x.name: float(x.cost(decision.keep_ratios)) for x in limits},
        limits={x.name: x.at_most for x in limits},
        result=result,
        emptied=decision.emptied,
        score_trained=scores[0],
        score=scores[1],
    )
    for message in _disagreements(report):
        warnings.warn(message, PruningWarning, stacklevel=3)
    return report


def check_trained(
    call: str,
    params: Params,
    variables: Any,
    *,
    step: float,
    twice: float,
    one: float,
    size: float,
) -> None:
    """Refuse a network that diverged, or that was not trained by its own optimizer.

    Args:
      call: the function called, as the user wrote it: `"finalize(trainable)"`.
      params: the trained weights, concrete.
      variables: the trained variables, concrete.
      step: the number of steps, as the optimizer has moved it; of averaged states, an
        average.
      twice: twice that number.
      one: 1, unless something other than `pruning.optimizer` moved the budget too.
      size: the number of weights of `init`, or 0 if a step was computed with others.
    """
    # Before the weights: a budget that was moved wrongly makes them diverge.
    _check_budget(call, step, twice, one)
    if not is_size(size, params):
        raise ValueError(
            f"`{call}`: all steps must have been computed with whole parameters, and "
            f"not with shards, of which each device counts its own weights; these have "
            f"{number_of_weights(params)} entries, those of `init` or of a step had "
            "others. Call `pruning(trainable)` outside of `jax.shard_map`, within the "
            "same `jax.jit`, and put the loss of the pruned weights alone inside."
        )
    for part, values in (("weights", params), ("variables", variables)):
        for name, finite in _finite(values).items():
            if not finite:
                raise ValueError(
                    f"`{call}`: the {part} must be finite, {name!r} is not. The "
                    "training diverged: lower the learning rate and finalize an "
                    "earlier state."
                )
    if step < 0.5:
        raise ValueError(
            f"`{call}`: no step was counted. Add the penalty to the loss: `params, "
            "penalty = pruning(trainable)` (of an NNX module, `network, penalty = "
            "module.pruned()`), `loss + penalty`, and train with "
            "`pruning.optimizer(...)`. To prune once, without training, use "
            "`pruner.masks`."
        )


def _check_budget(call: str, step: float, twice: float, one: float) -> None:
    """Refuse a budget that something other than its own optimizer moved."""
    if abs(twice - 2 * step) > 1e-3 * abs(step):
        # Other optimizers scale each leaf on its own.
        raise ValueError(
            f"`{call}`: the budget must be moved by `pruning.optimizer`, and counts "
            f"{step:.6g} steps, and {twice:.6g} where twice as many are due. Train "
            "with `pruning.optimizer(optimizer)` in the place of `optimizer`, and put "
            "inside of it what clips or changes single entries, such as `optax.clip`."
        )
    if abs(one - 1) > 1e-3:
        raise ValueError(
            f"`{call}`: the budget must be moved by `pruning.optimizer` alone, and was "
            f"also averaged, decayed, scaled or changed by noise ({one:.6g} where 1 is "
            "due). Put `optax.contrib.schedule_free`, `optax.lookahead`, weight decay, "
            "learning rates, noise and what else changes single updates or parameters "
            "inside of `pruning.optimizer(...)`."
        )


def number_of_weights(params: Params) -> int:
    """Return how many entries all leaves have together."""
    return sum(math.prod(x.shape) for x in jax.tree.leaves(params))


def is_size(size: Any, params: Params) -> Any:
    """Return whether `size` is the number of weights, to 1 % (it may be a bfloat16)."""
    number = float(number_of_weights(params))  # a whole number must fit in 32 bits
    return abs(size - number) <= 0.01 * number


def _finite(values: Any) -> dict[str, bool]:
    """Return for every leaf of floats whether all of it is finite."""
    floating = {}
    for name, leaf in tree.named_leaves(values).items():
        dtype = leaf.dtype if hasattr(leaf, "dtype") else jnp.result_type(leaf)
        if jnp.issubdtype(dtype, jnp.floating):
            floating[name] = leaf
    return jax.device_get(_all_finite(floating))


@jax.jit
def _all_finite(leaves: dict[str, jax.Array]) -> dict[str, jax.Array]:
    return {name: jnp.all(jnp.isfinite(leaf)) for name, leaf in leaves.items()}


def _disagreements(report: FinalReport):
    result = report.result
    if result is Result.MULTIPLIER_AT_BOUND or result is Result.INFEASIBLE:
        yield f"`finalize`: {result.message}"
    own, kept = report.own_keep_ratio, report.keep_ratio
    if result is Result.DIVERGED or (own is None and result is Result.NOT_MET):
        yield f"`finalize`: {result.message}"
    if own is not None and not kept / _FAR <= own <= kept * _FAR:
        yield (
            f"`finalize`: the method keeps {own:.4g} by its own rule, the final "
            f"network {kept:.4g}. The training has not reached the target; train "
            "longer, or end the ramp of the limit earlier."
        )
    if report.emptied:
        yield (
            f"`finalize`: nothing is left of {', '.join(report.emptied)} (or of a "
            "layer that is stacked there): all weights are below the threshold. Give "
            "the method a larger `min_keep_ratio`, or a target that is less sparse."
        )


def _overall(sizes: Mapping[str, int], keep_ratios: Mapping[str, Any]) -> float:
    kept = sum(n * float(np.mean(np.asarray(keep_ratios[x]))) for x, n in sizes.items())
    return kept / max(sum(sizes.values()), 1)


def _largest(fits: Callable[[float], bool], first: float, one: float) -> float:
    """Return the largest keep ratio that fits, by bisection to less than one weight.

    Args:
      fits: whether a keep ratio meets every limit; false from some ratio on.
      first: tried first: the answer where the only limit is one on the density.
      one: the keep ratio of one weight.
    """
    low, high = 0.0, 1.0
    if fits(first):
        low, high = first, min(first + one, 1.0)
        if fits(high):
            low, high = high, 1.0
    else:
        high = first
    if high == 1.0 and fits(1.0):
        return 1.0
    while high - low > one:
        middle = (low + high) / 2
        low, high = (middle, high) if fits(middle) else (low, middle)
    if low == 0.0:
        raise ValueError(
            "`finalize(trainable)`: no keep ratio meets the limits. Raise the limits, "
            "or lower `min_keep_ratio`."
        )
    return low
