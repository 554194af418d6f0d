"""The two protocols of the library.

A pruning run answers three questions. *What does the network see?* is answered by a
`Pruner`, *how do the weights move?* by an `optax.GradientTransformation`, and *what
may the network cost?* by a `Budget`. A pruner and a budget know nothing of each other:
what passes between them is a flat dictionary of **keep ratios**, for every site (a leaf
of the parameters, say) the differentiable fraction that is kept.

All three are NamedTuples of pure functions, so one training step serves every method:

    def objective(params, variables):
        pruned = pruner.apply(params, variables, key=key, step=step)
        price = budget.penalty(pruned.keep_ratios, budget_state)
        return task_loss(pruned.params) + price, pruned.keep_ratios
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
    """What a pruner shows to the network.

    Attributes:
      params: what the network sees, of the structure, shapes and dtypes of the
        parameters.
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


class _Finalize(Protocol):
    def __call__(
        self, params: Params, variables: Variables, masks: Masks, /
    ) -> Params: ...


def keep(params: Params, masks: Masks) -> Params:
    """Sets to zero what is not kept; `masks.apply_masks` checks the masks first."""
    return jax.tree.map(lambda p, m: jnp.where(m, p, jnp.zeros_like(p)), params, masks)


def keep_weights(params: Params, variables: Variables, masks: Masks, /) -> Params:
    """The usual `Pruner.finalize`: the weights themselves, where they are kept."""
    del variables
    return keep(params, masks)


class Pruner(NamedTuple):
    """What the network sees: three pure functions, and a fourth that is seldom given.

    Attributes:
      init: `params -> variables`. Accepts abstract parameters.
      apply: `params, variables, *, key, step -> Pruned`. Every pruner accepts `key`
        (a typed PRNG key) and `step` (the number of updates so far), and may ignore
        them.
      masks: `params, variables, *, keep_ratio -> masks`, the hard decision. With
        `keep_ratio=None` the method decides by its own rule; with a number exactly
        `floor(keep_ratio * n)` of the n selected weights are kept, in the method's
        own order, ties settled by position.
      finalize: `params, variables, masks -> params`, the network that is left when the
        masks become final. The weights where they are kept, if nothing else is said;
        a method whose network sees something else than its kept weights (soft
        thresholds shrink them) gives what it saw.
      optimizer: what the variables are trained with if nothing else is given.
    """

    init: _Init
    apply: _Apply
    masks: _Masks
    finalize: _Finalize = keep_weights
    optimizer: optax.GradientTransformation = optax.identity()


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
    """A method that removes channels: what the network computes with, and what stays.

    Attributes:
      init: `params -> variables`. Accepts abstract parameters.
      apply: `params, variables, *, key, step -> Pruned`, as for a `Pruner`; the sites
        of the keep ratios are the groups of the graph.
      masks: `params, variables, *, counts -> channel masks`, bool arrays of shape
        (channels,) by group name, for `graph.compact`. With `counts=None` the method
        decides how many channels each group keeps; with counts, group name to a number
        of channels, it keeps exactly so many, in its own order.
      graph: the `ChannelGraph` of the network.
      optimizer: what the variables are trained with if nothing else is given.
      fixed: keep ratios that are given and not learned, by group name, for
        `round_to_limits`; None if there are none.
    """

    init: _Init
    apply: _Apply
    masks: _ChannelMasks
    graph: Any
    optimizer: optax.GradientTransformation = optax.identity()
    fixed: Mapping[str, float] | None = None


class _BudgetInit(Protocol):
    def __call__(self, keep_ratios: KeepRatios, /) -> Any: ...


class _Penalty(Protocol):
    def __call__(self, keep_ratios: KeepRatios, state: Any, /) -> jax.Array: ...


class _BudgetUpdate(Protocol):
    def __call__(self, keep_ratios: KeepRatios, state: Any, /) -> Any: ...


class Budget(NamedTuple):
    """What the network may cost: three pure functions.

    Attributes:
      init: `keep_ratios -> state`; of the keep ratios, possibly abstract, only names
        and shapes count.
      penalty: `keep_ratios, state -> float32 scalar`, added to the loss.
      update: `keep_ratios, state -> state`, once after every optimizer step, with
        the keep ratios that this step's forward pass saw.
    """

    init: _BudgetInit
    penalty: _Penalty
    update: _BudgetUpdate
