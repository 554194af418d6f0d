"""The protocols of the library, and the types that its folders share.

A pruning run has three parts, all of them NamedTuples of pure functions. A `Pruner`
computes the weights that the network uses, an `optax.GradientTransformation` moves the
dense weights, and a `Budget` adds a penalty on what is kept. A pruner and a budget are
independent: what passes between them is a flat dictionary of **keep ratios**, for every
site (a leaf of the parameters, or a group of channels) the differentiable fraction that
is kept. So one training step serves every method:

    def objective(params, variables):
        pruned = pruner.apply(params, variables, key=key, step=step)
        penalty = budget.penalty(pruned.keep_ratios, budget_state)
        return task_loss(pruned.params) + penalty, pruned.keep_ratios

`jaxprune.pruning` joins the three parts for a training loop.
"""

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple, Protocol

import jax
import jax.numpy as jnp
import optax

Params = Any
"""A pytree of arrays: a Linen dict, a FrozenDict, an `nnx.State`, a tuple."""

Masks = Any
"""A pytree of the structure of the parameters, of bool arrays. True is kept.

Every mask has either the shape of its parameter or the shape `()`: the scalar True
stands for a leaf that is never pruned.
"""

Variables = dict[str, jax.Array]
"""What a method learns beside the weights: site name to float32 scalar or vector."""

KeepRatios = dict[str, jax.Array]
"""Site name to the fraction kept, float32 in [0, 1], scalar or vector."""


Cost = Callable[[Mapping[str, Any]], Any]
"""Keep ratios by name to the fraction of the dense cost, a float32 scalar."""


class Limit(NamedTuple):
    """An upper bound on one cost.

        cost(keep_ratios) <= at_most(step)

    Attributes:
      cost: `keep_ratios -> float32 scalar`, a fraction of the dense cost.
      at_most: the bound, in (0, 1]; a number, or a schedule of the step.
      name: what messages and metrics call it.
    """

    cost: Cost
    at_most: optax.ScalarOrSchedule
    name: str = "cost"


class Pruned(NamedTuple):
    """The result of `Pruner.apply`.

    Attributes:
      params: the weights that the network computes with, of the structure, shapes and
        dtypes of the parameters.
      keep_ratios: for every site the differentiable fraction kept.
    """

    params: Params
    keep_ratios: KeepRatios


class _Init(Protocol):
    def __call__(self, params: Params, /) -> Variables: ...


class _Apply(Protocol):
    def __call__(
        self,
        params: Params,
        variables: Variables,
        /,
        *,
        key: jax.Array | None = None,
        step: jax.Array | int | None = None,
    ) -> Pruned: ...


class _Masks(Protocol):
    def __call__(
        self,
        params: Params,
        variables: Variables,
        /,
        *,
        keep_ratio: float | None = None,
    ) -> Masks: ...


class _FinalWeights(Protocol):
    def __call__(
        self, params: Params, variables: Variables, masks: Masks, /
    ) -> Params: ...


def keep(params: Params, masks: Masks) -> Params:
    """Set to zero what is not kept; `masks.apply_masks` checks the masks first."""
    return jax.tree.map(lambda p, m: jnp.where(m, p, jnp.zeros_like(p)), params, masks)


def keep_weights(params: Params, variables: Variables, masks: Masks, /) -> Params:
    """Return the weights where they are kept: `Pruner.final_weights` by default."""
    del variables
    return keep(params, masks)


def same_weights(params: Params, variables: Variables, masks: Masks, /) -> Params:
    """Return the weights as they are: `ChannelPruner.final_weights` by default."""
    del variables, masks
    return params


def no_minimum(params: Params, /) -> dict[str, Any]:
    """Return no smallest keep ratios: the default of `Pruner.minimum`."""
    del params
    return {}


class Pruner(NamedTuple):
    """A method that prunes single weights: pure functions of the parameters.

    Attributes:
      init: `params -> variables`. Accepts abstract parameters.
      apply: `params, variables, *, key, step -> Pruned`. Every pruner accepts `key`
        (a typed PRNG key) and `step` (the number of updates so far), and may ignore
        them.
      masks: `params, variables, *, keep_ratio -> masks`, the hard decision. With
        `keep_ratio=None` the method decides by its own rule; with a number exactly
        `floor(keep_ratio * n)` of the n selected weights are kept, in the method's
        own order, ties settled by position.
      final_weights: `params, variables, masks -> params`, the weights of the network
        when the masks become final. By default the weights where they are kept. A
        method whose network computes with other weights than these (soft thresholds
        shrink them) returns the weights that it computes with.
      optimizer: trains the variables if the user gives no other transformation.
      has_own_size: whether `masks` decides by itself how many weights are kept. If
        False, `masks` needs a `keep_ratio`.
      states_size: whether the user has stated that number, in the method's arguments.
        Limits then only lower it; otherwise as much is kept as they allow.
      minimum: `params -> keep ratios`, the smallest with which the masks can end, by
        site. Accepts abstract parameters. Limits below their cost are refused before
        training; {} if the method does not say.
    """

    init: _Init
    apply: _Apply
    masks: _Masks
    final_weights: _FinalWeights = keep_weights
    optimizer: optax.GradientTransformation = optax.set_to_zero()
    has_own_size: bool = True
    states_size: bool = False
    minimum: Callable[[Params], Mapping[str, Any]] = no_minimum


class _ChannelMasks(Protocol):
    def __call__(
        self,
        params: Params,
        variables: Variables,
        /,
        *,
        counts: Mapping[str, int] | None = None,
    ) -> dict[str, Any]: ...


class ChannelPruner(NamedTuple):
    """A method that removes channels: pure functions of the parameters.

    Attributes:
      init: `params -> variables`. Accepts abstract parameters.
      apply: `params, variables, *, key, step -> Pruned`, as for a `Pruner`; the sites
        of the keep ratios are the groups of the graph.
      masks: `params, variables, *, counts -> channel masks`, bool arrays of shape
        (channels,) by group name, for `graph.compact`. With `counts=None` the method
        decides how many channels each group keeps; with counts, group name to a number
        of channels, it keeps exactly so many, in its own order.
      graph: the `ChannelGraph` of the network.
      optimizer: trains the variables if the user gives no other transformation.
      fixed: keep ratios that are given and not learned, by group name, for
        `round_to_limits`; None if there are none.
      final_weights: `params, variables, channel masks -> params`, the weights of the
        network when the masks become final, of the shapes they had; by default as they
        are. What the masks remove need not be zero.
      limits: limits that the method itself holds; `pruning` takes no others beside.
    """

    init: _Init
    apply: _Apply
    masks: _ChannelMasks
    graph: Any
    optimizer: optax.GradientTransformation = optax.set_to_zero()
    fixed: Mapping[str, float] | None = None
    final_weights: _FinalWeights = same_weights
    limits: tuple[Limit, ...] = ()


class _BudgetInit(Protocol):
    def __call__(self, keep_ratios: KeepRatios, /) -> Any: ...


class _Penalty(Protocol):
    def __call__(self, keep_ratios: KeepRatios, state: Any, /) -> jax.Array: ...


class _BudgetUpdate(Protocol):
    def __call__(self, keep_ratios: KeepRatios, state: Any, /) -> Any: ...


class Budget(NamedTuple):
    """What holds the costs of a network to limits: pure functions of keep ratios.

    Attributes:
      init: `keep_ratios -> state`; of the keep ratios, possibly abstract, only names
        and shapes count.
      penalty: `keep_ratios, state -> float32 scalar`, added to the loss.
      update: `keep_ratios, state -> state`, once for every optimizer step, with the
        keep ratios of the forward pass of this step.
    """

    init: _BudgetInit
    penalty: _Penalty
    update: _BudgetUpdate
