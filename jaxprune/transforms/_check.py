"""Checks on the host: are transformations in their places, and is their size met."""

import warnings
from collections.abc import Iterator
from typing import Any

import jax
import numpy as np
import optax

from jaxprune import tree
from jaxprune.base._checks import check_concrete
from jaxprune.base._final import Final, FinalReport, PruningWarning
from jaxprune.base._protocols import Params
from jaxprune.masks import _apply as jmasks
from jaxprune.masks import _counts as counts
from jaxprune.transforms._accelerated import AcceleratedProximalState
from jaxprune.transforms._freeze import FreezePrunedState
from jaxprune.transforms._latent import LatentProximalState
from jaxprune.transforms._preconditioned import PreconditionedProximalState
from jaxprune.transforms._proximal import ProximalState
from jaxprune.transforms._thresholds import ThresholdState
from jaxprune.transforms._watch import number_of, selected_names

_LAST = (
    "Nothing may come behind it: put it last in the outermost `optax.chain`, not inside"
    " `optax.lookahead` or `optax.contrib.schedule_free`"
)
_NEW = "after parameters are replaced make a new state with `init`"
_CALLS = {
    ProximalState: ("`proximal` (`ista`, `gradual_magnitude`)", f"{_LAST}; {_NEW}."),
    PreconditionedProximalState: (
        "`preconditioned_proximal` (`adam_ista`)",
        f"{_LAST}; {_NEW}.",
    ),
    AcceleratedProximalState: (
        "`accelerated_proximal` (`fista`)",
        f"{_LAST}; do not edit the parameters, and {_NEW}.",
    ),
    LatentProximalState: (
        "`latent_proximal` (`lats`)",
        f"{_LAST}; do not edit the parameters, which its latent weights overwrite, and"
        f" {_NEW}.",
    ),
    FreezePrunedState: (
        "`freeze_pruned`",
        f"{_LAST}; {_NEW}, and for other masks as well.",
    ),
    ThresholdState: (
        "`reach_keep_ratio` (`follow_threshold`)",
        f"{_LAST}; use it with `jaxprune.soft_thresholding`, whose thresholds get no"
        " gradient, and without a penalty, which it would not follow.",
    ),
}


def check(opt_state: optax.OptState) -> None:
    """Raise if a transformation of this library is not in its place.

    Every transformation compares the parameters that come back with those to which its
    last update leads. They differ where something behind it in a chain changed
    its updates, or where parameters were edited or replaced, or are shards inside of
    `jax.shard_map(..., check_vma=False)`; with `check_vma=True` their update raises at
    once. From the next update on its state says so, and this function raises.

    Also raises for a transformation that follows `optax.MultiSteps(optimizer)` in a
    chain, or wraps it: it would prune at every micro step. Wrap the whole of it:
    `optax.MultiSteps(optax.chain(optimizer, ista(...)), every_k_schedule=4)`.

    Runs on the host; call it after two steps, or wherever metrics are read.

    Args:
      opt_state: the state of any optimizer, of arrays of any shape (a batch of states
        too); chains, `optax.partition`, `optax.MultiSteps` and so on are searched.

    Raises:
      ValueError: with the name of the transformation and the remedy.
      TypeError: the state is traced.

    Examples:
      >>> import jax.numpy as jnp, optax
      >>> from jaxprune.transforms import lats
      >>> wrong = optax.chain(lats(optax.sgd(0.1), threshold=0.5), optax.scale(0.5))
      >>> params = {"kernel": jnp.array([[1.0, 0.1]])}
      >>> state = wrong.init(params)
      >>> for _ in range(2):
      ...     updates, state = wrong.update(params, state, params)
      ...     params = optax.apply_updates(params, updates)
      >>> check(state)  # doctest: +ELLIPSIS
      Traceback (most recent call last):
        ...
      ValueError: `check(opt_state)`: the parameters that came back to ...
    """
    check_concrete("check(opt_state)", opt_state)
    for state, behind_micro_steps in _ours(opt_state):
        call, remedy = _CALLS[type(state)]
        if behind_micro_steps and not isinstance(state, FreezePrunedState):
            raise ValueError(
                f"`check(opt_state)`: {call} acts at every micro step of the"
                " `optax.MultiSteps` or `optax.apply_every` in front of it. Put"
                " `optax.MultiSteps` around the whole chain."
            )
        if any(np.any(jax.device_get(x)) for x in jax.tree.leaves(state.watch[1])):
            raise ValueError(
                f"`check(opt_state)`: the parameters that came back to {call} are not"
                f" those to which its last update leads. {remedy} Inside of"
                " `jax.shard_map` it must get whole parameters, and no shards: call it"
                " outside, within the same `jax.jit`."
            )


def finalize(params: Params, opt_state: optax.OptState) -> Final:
    """Return the network and the masks at the end of training with a transformation.

        w = x of FISTA, the parameters otherwise;   mask = (w != 0)

    For `lats`, the family of `proximal`, and `gradual_magnitude`, whose parameters are
    pruned already. Train on with `freeze_pruned(masks)`; after `lats`, which shrinks
    the weights that it keeps, with a new optimizer and `schedules.fine_tuning`.

    Args:
      params: the parameters after the last step, concrete arrays of any shape.
      opt_state: the optimizer's state after the last step.

    Returns:
      The parameters, exactly zero where they are pruned; masks for `freeze_pruned`,
      `jaxprune.apply_masks` and `jaxprune.summarize`, the scalar True for leaves that
      the transformation does not prune; and a report, whose limit is the density that
      a `sparsity` asks for.

    Raises:
      ValueError: a transformation is not in its place (see `check`), the state holds
        none that prunes or belongs to other parameters, no update was made, or a
        selected leaf is not finite.
      TypeError: the arrays are traced.

    Warns:
      PruningWarning: the number of weights that are left is not the one that was given
        as a `sparsity`: training ended before `steps` updates.

    Examples:
      >>> import jax.numpy as jnp, optax
      >>> from jaxprune import schedules
      >>> from jaxprune.transforms import freeze_pruned, lats
      >>> def train(params, tx, steps):
      ...     state = tx.init(params)
      ...     for _ in range(steps):
      ...         grads = {"kernel": params["kernel"] - target}
      ...         updates, state = tx.update(grads, state, params)
      ...         params = optax.apply_updates(params, updates)
      ...     return params, state
      >>> target = jnp.array([[1.0, -3.0, 0.5, 2.0]])
      >>> params = {"kernel": jnp.zeros((1, 4))}
      >>> params, state = train(params, lats(optax.sgd(1.0), sparsity=0.5, steps=9), 9)
      >>> params, masks, report = finalize(params, state)
      >>> masks["kernel"].tolist()
      [[False, True, False, True]]
      >>> rate = schedules.fine_tuning(peak=1.0, steps=9)
      >>> tx = optax.chain(optax.sgd(rate), freeze_pruned(masks))
      >>> params, _ = train(params, tx, 9)
      >>> params["kernel"].round(1).tolist()
      [[0.0, -3.0, 0.0, 2.0]]

    References:
      Chen et al., A Unified Framework for Soft Threshold Pruning, arXiv:2302.13019,
      2023, for `lats`; the second phase with a restarted rate is ours.
    """
    check_concrete("finalize(params, opt_state)", params, opt_state)
    check(opt_state)
    states = [s for s, _ in _ours(opt_state)]
    states = [s for s in states if not isinstance(s, FreezePrunedState)]
    if not states or any(isinstance(s, ThresholdState) for s in states):
        raise ValueError(
            "`finalize(params, opt_state)`: the state must be that of a transformation"
            " that prunes the parameters. Where a `Pruner` prunes, make the masks with"
            " `pruner.masks`."
        )
    if not all(np.all(jax.device_get(state.count)) for state in states):
        raise ValueError(
            "`finalize(params, opt_state)`: at least one update must have been made,"
            " the state is that of `init`. Pass the state after the last step; to prune"
            " once, without training, use `jaxprune.magnitude(...).masks`."
        )
    for state in states:
        _check_size(params, state)
        if isinstance(state, AcceleratedProximalState):
            params = _with_iterate(params, state.iterate)
    named = tree.named_leaves(params)
    masks = {}
    for name in dict.fromkeys(n for s in states for n in selected_names(s.watch)):
        if name not in named:
            raise ValueError(
                f"`finalize(params, opt_state)`: the state prunes a leaf {name!r},"
                " which the parameters do not have. Pass those that were trained."
            )
        leaf = named[name]
        if not bool(np.all(jax.device_get(jax.numpy.isfinite(leaf)))):
            raise ValueError(
                f"`finalize(params, opt_state)`: leaf {name!r} must be finite, it holds"
                " NaN or infinity. Lower the learning rate, or start from an earlier"
                " checkpoint."
            )
        masks[name] = leaf != 0
    report = _report(states, masks)
    return Final(params, jmasks.fill(params, masks), report)


def _check_size(params: Params, state: Any) -> None:
    """Refuse a state of shards, each of which counted its own weights."""
    named = tree.named_leaves(params)
    names = selected_names(state.watch)
    leaves = [named[name] for name in names if name in named]
    number = int(number_of(leaves))
    # Of a batch of states each has a size.
    size = int(np.sum(jax.device_get(state.watch.size), dtype=np.uint32))
    if len(leaves) == len(names) and size != number:
        raise ValueError(
            "`finalize(params, opt_state)`: the state must be of these parameters, of"
            f" which {number} entries are selected; it is of {size}, a shard perhaps."
            " Call `init` and `update` outside of `jax.shard_map`, within the same"
            " `jax.jit`, where sharded arrays are whole."
        )


def _with_iterate(params: Params, iterate: Any) -> Params:
    """Return the parameters with the leaves of the iterate in their places."""
    named = tree.named_leaves(params)
    return tree.replace(
        params,
        {n: x.astype(named[n].dtype) for n, x in tree.named_leaves(iterate).items()},
    )


def _report(states: list[Any], masks: dict[str, jax.Array]) -> FinalReport:
    """Return the report; warn where a size was given that is not the present."""
    size = sum(m.size for m in masks.values())
    kept = sum(int(jax.numpy.sum(m)) for m in masks.values())
    ratio = np.float32(np.nan)
    if len(states) == 1:
        ratio = np.asarray(jax.device_get(states[0].watch.keep_ratio))
    sized = not ratio.ndim and not np.isnan(ratio)
    if sized:
        due = int(counts.to_uint32(counts.traced_keep(jax.numpy.float32(ratio), size)))
        if abs(kept - due) > 1 + 1e-6 * size:
            warnings.warn(
                f"`finalize(params, opt_state)`: {kept} of {size} selected weights are"
                f" left, where a sparsity of {1 - float(ratio):.6g} keeps {due}."
                f" {int(states[0].count)} updates were counted: train for all of its"
                " `steps` (under `optax.MultiSteps` several gradients are one update),"
                " and pass the parameters that were trained: an average of them has"
                " other zeros, and takes their masks with `jaxprune.apply_masks`.",
                PruningWarning,
                stacklevel=3,
            )
    emptied = tuple(n for n, m in masks.items() if not bool(jax.numpy.any(m)))
    if emptied:
        warnings.warn(
            f"`finalize(params, opt_state)`: nothing is left of {', '.join(emptied)}."
            " Leave it out of `where` (a pattern takes biases too), or prune less.",
            PruningWarning,
            stacklevel=3,
        )
    return FinalReport(
        keep_ratio=kept / max(size, 1),
        own_keep_ratio=None,
        costs={"density": kept / max(size, 1)} if sized else {},
        limits={"density": float(ratio)} if sized else {},
        emptied=emptied,
    )


def _ours(node: Any, behind: bool = False) -> Iterator[tuple[Any, bool]]:
    """Find our states, and whether each of them sees micro steps.

    Args:
      node: any part of a state.
      behind: whether a `MultiSteps` lies in front of it in a chain.
    """
    if type(node) in _CALLS:
        inner = getattr(node, "inner_state", ())
        yield node, behind or _has_micro_steps(inner)
    for child in _children(node):
        yield from _ours(child, behind)
        # The state of a chain is a plain tuple, in the order of the chain.
        if type(node) is tuple:
            behind = behind or _has_micro_steps(child)


def _has_micro_steps(node: Any) -> bool:
    if isinstance(node, optax.MultiStepsState | optax.ApplyEvery):
        return True
    return any(_has_micro_steps(child) for child in _children(node))


def _children(node: Any) -> list[Any]:
    """Return the nodes directly below one, none for a leaf."""
    children = jax.tree.leaves(node, is_leaf=lambda x: x is not node)
    return [child for child in children if child is not node]
