"""One value that joins a method, its limits and an optimizer.

    pruning = jaxprune.pruning(jaxprune.ltp(), jaxprune.at_most(jaxprune.density, 0.05))
    tx = pruning.optimizer(optax.adamw(1e-3))
    trainable = pruning.init(params)          # goes where `params` went
    params, penalty = pruning(trainable)      # in the loss
    final = pruning.finalize(trainable)

Everything that changes while training is in one pytree, so the training step keeps its
form. It has three parts:

=============  ====================================  =================================
part           what it holds                         what moves it
=============  ====================================  =================================
`params`       the weights                           the optimizer of the user
`variables`    thresholds, logits of keep ratios     `pruner.optimizer`
`budget`       the state of the budget, as floats    what the forward pass observed
=============  ====================================  =================================

A budget changes its state by a rule, not by a gradient. The rule is written as one: the
penalty has the additional term

    sum_i (b_i - stop_gradient(b_i)) d_i,    d = epsilon (state - new state)

whose value is 0 and whose gradient in the leaves b of `budget` is d. One leaf counts
steps, so its d is known, -epsilon. Its gradient tells by which factor gradients were
multiplied on the way (loss scaling, sums over devices, clipping), and

    b <- b - gradient / (gradient of the counter / -epsilon) / epsilon

is the new state whatever that factor was. epsilon = 2^-20 keeps these gradients out of
global norms, and is exact in floating point.
"""

import dataclasses
import functools
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax

from jaxprune import tree
from jaxprune.base._checks import check_concrete, check_whole
from jaxprune.base._final import Final
from jaxprune.base._protocols import Budget, ChannelPruner, Limit, Params, Pruner
from jaxprune.budgets._admm import admm
from jaxprune.budgets._dual_ascent import dual_ascent
from jaxprune.budgets._limits import check_before_training
from jaxprune.budgets._penalty import unlimited
from jaxprune.budgets._result import Result
from jaxprune.channels._compaction import Compacted
from jaxprune.costs._density import density
from jaxprune.training._finalize import (
    check_trained,
    decide,
    final_limits,
    is_size,
    number_of_weights,
    report_on,
    under_masks,
)
from jaxprune.transforms._arguments import with_extra_args

PARTS = ("params", "variables", "budget")
_EPSILON = 2.0**-20
_NOT_WHOLE = 0.02  # of a step, which rounding does not come near
_ROUNDING = 1e-6  # of a cost in float32

Solver = Callable[[Sequence[Limit]], Budget]


class PruningState(NamedTuple):
    """State of `Pruning.optimizer`.

    Attributes:
      params: the state of the optimizer of the weights.
      variables: the state of the optimizer of the method's variables.
    """

    params: optax.OptState
    variables: optax.OptState


@dataclasses.dataclass(frozen=True, kw_only=True, eq=False)
class Pruning:
    """A method, its limits and how they are held, for a training loop.

    Made by `jaxprune.pruning`.

    Attributes:
      pruner: the method.
      limits: what the network may cost.
      solver: `limits -> Budget`.
      seed: of the keys with which a method draws its masks.
    """

    pruner: Pruner | ChannelPruner
    limits: tuple[Limit, ...]
    solver: Solver
    seed: int = 0

    def init(self, params: Params) -> dict[str, Any]:
        """Return everything that trains, of which `params` is one part.

        Args:
          params: the dense weights, possibly abstract.

        Returns:
          `{"params": ..., "variables": ..., "budget": ...}`; give it to the optimizer
          and to the training step in the place of `params`. All leaves but those of
          `params` are float32.

        Raises:
          ValueError: if the method finds nothing to prune, a limit cannot be met or is
            of other sites than the method's, or `params` is what `init` returns.
        """
        if isinstance(params, Mapping) and set(params) == set(PARTS):
            raise ValueError(
                "`pruning.init(params)`: must be the dense weights, got what `init` "
                "returns. Pass its part `params`, or go on with it as it is."
            )
        if isinstance(params, Mapping) and "params" in params and len(params) > 1:
            raise ValueError(
                "`pruning.init(params)`: must be the weights alone, got the "
                f"collections {list(params)}. Pass `variables['params']`: an optimizer "
                "would move statistics too."
            )
        variables = self.pruner.init(params)
        keep_ratios = self._keep_ratios(params, variables)
        self._check_sites(keep_ratios)
        state = self._budget(params, keep_ratios).init(keep_ratios)
        # Copies, so that a step may donate every leaf.
        self._check_limits(params, keep_ratios)
        floats = [jnp.array(leaf, copy=True) for leaf in _floats(state)]
        zero = jnp.zeros([], jnp.float32)
        counts = {"step": zero, "twice": jnp.copy(zero), "one": jnp.ones_like(zero)}
        counts["size"] = jnp.float32(number_of_weights(params))
        budget = {**counts, "state": floats}
        return {"params": params, "variables": variables, "budget": budget}

    def __call__(
        self, trainable: Any, *, key: jax.Array | None = None
    ) -> tuple[Params, jax.Array]:
        """Return the weights that the network computes with, and the penalty.

            loss = task_loss(params) + penalty

        Args:
          trainable: as `init` returns it.
          key: a typed PRNG key for methods that draw their masks (`dsa`); if not
            given, `fold_in(key(seed), step)`, the same on all devices and after a
            restart.

        Returns:
          The pruned weights, a tree like `trainable["params"]`, and a float32 scalar.
          The gradient of the loss in `trainable` moves all three parts under
          `optimizer`.

        Raises:
          ValueError: a weight is a shard inside of `jax.shard_map`, of which each
            device would count its own. Where JAX does not tell (`check_vma=False`),
            `finalize` raises. Call it outside, and put the loss alone inside.
        """
        params, variables, budget = self._read("pruning(trainable)", trainable)
        check_whole("pruning(trainable)", params, budget)
        step = _step(budget)
        key = self._key(step) if key is None else key
        pruned = self.pruner.apply(params, variables, key=key, step=step)
        held = self._budget(params, pruned.keep_ratios)
        floats = jax.lax.stop_gradient(budget["state"])
        like = jax.eval_shape(held.init, pruned.keep_ratios)
        state = _unfloats(floats, like)
        penalty = held.penalty(pruned.keep_ratios, state)
        new = held.update(jax.lax.stop_gradient(pruned.keep_ratios), state)
        change = {
            "step": jnp.float32(-1),
            # By these it is found out if something else moved the budget.
            "twice": jnp.float32(-2),
            "one": jnp.float32(abs(budget["step"] - step) > _NOT_WHOLE),
            # 0 from now on where the weights are a shard of those of `init`.
            "size": jnp.where(is_size(budget["size"], params), 0, budget["size"]),
            "state": jax.tree.map(_finite_difference, floats, _floats(new)),
        }
        return pruned.params, penalty + _observe(budget, change)

    def optimizer(
        self,
        weights: optax.GradientTransformation,
        *,
        variables: optax.GradientTransformation | None = None,
    ) -> optax.GradientTransformationExtraArgs:
        """Return the transformation of all of `trainable`.

        Args:
          weights: what moves the weights: any optax transformation. It receives
            `trainable["params"]` alone, so masks of weight decay, `freeze_pruned` and
            clipping inside of it see what they see without pruning.
          variables: what moves the variables of the method; `pruner.optimizer` if not
            given.

        Returns:
          A transformation with state `PruningState`. Gradient accumulation, clipping
          and loss scaling may be placed around it; what averages or decays parameters
          (`optax.contrib.schedule_free`, `optax.lookahead`, `add_decayed_weights`) goes
          inside of it, or it would move the budget. `finalize` raises where it did.

        Raises:
          TypeError: `weights` or `variables` is no transformation.
          ValueError: of the transformation's `init`, if `weights` or `variables` is
            itself made by this function, or holds such an optimizer.

        Examples:
          >>> import jax, jax.numpy as jnp, optax, jaxprune
          >>> pruning = jaxprune.pruning(
          ...     jaxprune.ltp(), jaxprune.at_most(jaxprune.density, 0.5)
          ... )
          >>> tx = pruning.optimizer(optax.sgd(0.1))
          >>> trainable = pruning.init({"kernel": jnp.ones((2, 2))})
          >>> state = tx.init(trainable)
          >>> grads = jax.grad(lambda t: pruning(t)[1])(trainable)
          >>> updates, state = tx.update(grads, state, trainable)
          >>> trainable = optax.apply_updates(trainable, updates)
          >>> int(pruning.step(trainable))
          1
        """
        moved = self.pruner.optimizer if variables is None else variables
        inner = {
            "params": with_extra_args("pruning.optimizer", weights, name="weights"),
            "variables": with_extra_args("pruning.optimizer", moved, name="variables"),
        }

        def init(params):
            if not jax.tree.leaves(params):  # by which optax finds parameters
                parts: dict[str, Any] = dict.fromkeys(PARTS, params)
            else:
                found = _parts("pruning.optimizer(...).init(params)", params)
                parts = dict(zip(PARTS, found, strict=True))
            return PruningState(**{n: _begun(n, t, parts[n]) for n, t in inner.items()})

        def update(updates, state, params=None, **extra_args):
            grads: dict[str, Any] = dict(
                zip(
                    PARTS,
                    _parts("update(updates, state, params)", updates),
                    strict=True,
                )
            )
            given = (None,) * len(PARTS)
            if params is not None:
                given = _parts("update(updates, state, params)", params)
            values: dict[str, Any] = dict(zip(PARTS, given, strict=True))
            moves, states = {"budget": _recovered(grads["budget"])}, {}
            for name, transformation in inner.items():
                moves[name], states[name] = transformation.update(
                    grads[name], getattr(state, name), values[name], **extra_args
                )
            return _like(updates, moves), PruningState(**states)

        return optax.GradientTransformationExtraArgs(init, update)

    def split(self, trainable: Any) -> tuple[Any, Any]:
        """Return two views of `trainable`, to train weights and variables apart.

        Differentiable sparsity allocation trains the weights on one batch and the keep
        ratios on a held-out one. The sum of the two losses has both gradients:

            weights, ratios = pruning.split(trainable)
            params, _ = pruning(weights)
            held_out_params, penalty = pruning(ratios)
            loss = f(params, batch) + f(held_out_params, held_out) + penalty

        Args:
          trainable: as `init` returns it.

        Returns:
          `trainable` in which only the weights have gradients, and `trainable` in which
          only the variables and the budget have.

        References:
          [DSA] Sec. 3.4, Algorithm 1: first-order bilevel optimisation.
        """
        params, variables, budget = _parts("split", trainable)
        still = jax.lax.stop_gradient
        weights = {"params": params, "variables": still(variables)}
        ratios = {"params": still(params), "variables": variables}
        return {**weights, "budget": still(budget)}, {**ratios, "budget": budget}

    def step(self, trainable: Any) -> jax.Array:
        """Return how many optimizer steps the budget has seen, int32 of shape ()."""
        return _step(self._read("step(trainable)", trainable)[2])

    def budget_state(self, trainable: Any) -> Any:
        """Return the state of the budget, such as a `DualAscentState`.

        Its fields are the cost, the limit, the multiplier and the result at the last
        step; log them while training.

        Args:
          trainable: as `init` returns it.
        """
        params, variables, budget = self._read("budget_state(trainable)", trainable)
        keep_ratios = self._keep_ratios(params, variables)
        like = jax.eval_shape(self._budget(params, keep_ratios).init, keep_ratios)
        return _unfloats(budget["state"], like)

    def finalize(
        self,
        trainable: Any,
        *,
        keep_ratio: float | None = None,
        multiple_of: int = 1,
        evaluate: Callable[[Params], Any] | None = None,
    ) -> Final:
        """Return the pruned network: the only hard decision, made after training.

        As many weights (or channels) are kept as the limits allow, exactly, in the
        order of the method; of one whose sparsity was stated (`Pruner.states_size`) no
        more than that. Where that is not the network that was trained, this function
        says so.

        Args:
          trainable: as it was trained, with concrete arrays.
          keep_ratio: of the prunable weights, in (0, 1], in the place of the limits.
          multiple_of: of a method that removes channels, what the numbers of channels
            are multiples of; 8 is what processors are fast with.
          evaluate: `params -> number`, a loss or an accuracy on held-out data; the
            report has it before and after the decision.

        Returns:
          A `Final`: weights, masks and a report. Of a method that removes channels
          the weights have their shapes still, and compute without what is removed.

        Raises:
          ValueError: if a weight is not finite, the penalty was not part of the loss,
            the budget was moved by another optimizer, a step was computed with shards
            of the weights, or the limits cannot be met.

        Warns:
          PruningWarning: if the method's own rule keeps more than 1.5 times as much as
            the final network, or less than 1 / 1.5 of it; if the multiplier of the
            budget is at its bound; if a leaf is emptied.
        """
        return self._final(
            "finalize(trainable)", trainable, keep_ratio, multiple_of, evaluate
        )

    def _final(self, call, trainable, keep_ratio, multiple_of, evaluate) -> Final:
        """As `finalize`, with messages that begin with the function called."""
        check_concrete(call, trainable)
        params, variables, budget = self._read(call, trainable)
        step = _step(budget)
        counts = {n: float(budget[n]) for n in ("step", "twice", "one", "size")}
        check_trained(call, params, variables, **counts)
        pruned = self.pruner.apply(params, variables, key=self._key(step), step=step)
        held = self.pruner.limits if isinstance(self.pruner, ChannelPruner) else ()
        limits = final_limits((*self._bound(params, pruned.keep_ratios), *held))
        decision = decide(
            self.pruner,
            params,
            variables,
            pruned.keep_ratios,
            limits,
            keep_ratio,
            multiple_of,
        )
        state = self.budget_state(trainable)
        result = Result(int(state.result)) if hasattr(state, "result") else None
        scores, final = (None, None), under_masks(self.pruner, decision)
        if evaluate is not None:
            scores = float(evaluate(pruned.params)), float(evaluate(final))
        report = report_on(decision, limits, result, scores)
        return Final(final, decision.masks, report)

    def compact(
        self, trainable: Any, *, multiple_of: int = 1, **collections: Any
    ) -> tuple[Compacted, Final]:
        """Return the small network of a method that removes channels.

        `finalize`, then `pruner.graph.compact` of the final masks.

        Args:
          trainable: as it was trained, with concrete arrays.
          multiple_of: see `finalize`.
          **collections: what was traced beside `params`, such as `batch_stats=...`: the
            graph is that of `{"params": params, **collections}`, or of the parameters
            alone.

        Returns:
          The compact functions and trees, of which `trees[0]` is what was traced,
          `{"params": ..., **collections}` for instance, and the `Final` with its
          report.

        Raises:
          TypeError: if the method prunes single weights.
          ValueError: as `finalize` and `ChannelGraph.compact`; or if a collection that
            was traced is missing, or one was not traced.
        """
        if not isinstance(self.pruner, ChannelPruner):
            raise TypeError(
                "`compact(trainable)`: the method prunes single weights, which leaves "
                "shapes as they are. Use `finalize`; `jaxprune.live_channels` finds "
                "the channels that its zeros leave without a reader."
            )
        call, graph = "compact(trainable)", self.pruner.graph
        folders = _folders_beside(graph, _parts(call, trainable)[0])
        _check_collections(folders, collections)
        final = self._final(call, trainable, None, multiple_of, None)
        whole: Any = final.params
        if folders:
            whole = {"params": whole, **collections}
        return graph.compact(final.masks, whole), final

    def _key(self, step: jax.Array) -> jax.Array:
        return jax.random.fold_in(jax.random.key(self.seed), step)

    def _bound(self, params: Params, keep_ratios: Any) -> tuple[Limit, ...]:
        """Return the limits, with `density` bound to the weights that are pruned."""
        return tuple(
            limit._replace(cost=density(params, _named(keep_ratios)))
            if limit.cost is density
            else limit
            for limit in self.limits
        )

    def _read(self, call: str, trainable: Any) -> tuple[Params, Any, dict[str, Any]]:
        """Return the parts; variables and budget in plain containers."""
        params, variables, budget = _parts(call, trainable)
        return params, tree.named_leaves(variables), _plain(budget)

    def _check_sites(self, keep_ratios) -> None:
        """Refuse limits on what the method does not prune."""
        if self.limits and not keep_ratios:
            raise ValueError(
                "`pruning.init(params)`: the method prunes once, and has no keep "
                "ratios that a limit could hold while training. Leave the limits out "
                "and call `finalize(trainable, keep_ratio=...)`, or without `pruning` "
                "`pruner.masks(params, {}, keep_ratio=...)`."
            )
        for limit in self.limits:
            sites = getattr(limit.cost, "sites", ())
            if sites and not set(sites) & set(keep_ratios):
                raise ValueError(
                    f"`pruning.init(params)`: the limit on {limit.name!r} is of "
                    f"{list(sites)}, but the method prunes {list(keep_ratios)}. Limit "
                    "`density` for single weights, a cost of the graph for channels."
                )

    def _check_limits(self, params, keep_ratios) -> None:
        """Refuse limits that no network of this method meets."""
        minimum = _minimum(self.pruner, params)
        limits = self._bound(params, keep_ratios)
        check_before_training("pruning", limits, minimum, margin=-_ROUNDING)

    def _budget(self, params, keep_ratios) -> Budget:
        return self.solver(self._bound(params, keep_ratios))

    def _keep_ratios(self, params, variables):
        """Keep ratios of the right names and shapes, abstract."""
        return jax.eval_shape(
            lambda p, v: (
                self.pruner.apply(
                    p, v, key=jax.random.key(0), step=jnp.int32(0)
                ).keep_ratios
            ),
            params,
            variables,
        )


def pruning(
    pruner: Pruner | ChannelPruner,
    *limits: Limit,
    solver: Solver | None = None,
    seed: int = 0,
) -> Pruning:
    """Join a method and limits into one value for a training loop.

    Args:
      pruner: a method, such as `ltp()` or `dsa(graph)`.
      *limits: what the network may cost, such as `at_most(density, 0.05)`; none for
        methods that follow a schedule of their own. A cost that is the function
        `density` itself is bound to the weights that the method prunes.
      solver: `limits -> Budget`: `dual_ascent` for weights and `admm` for channels if
        not given; `functools.partial` binds its configuration. For the fixed penalty
        weight of a paper: `lambda limits: weighted(cost, weight)`.
      seed: of the keys with which a method draws its masks.

    Returns:
      A `Pruning`.

    Raises:
      TypeError: if `pruner` is not a pruner or a limit is not a `Limit`.

    Examples:
      >>> import jaxprune
      >>> target = jaxprune.at_most(jaxprune.density, 0.05, ramp=(0, 5_000))
      >>> pruning = jaxprune.pruning(jaxprune.ltp(), target)
    """
    channels = isinstance(pruner, ChannelPruner)
    if not channels and not isinstance(pruner, Pruner):
        factory = getattr(pruner, "__name__", "ltp")
        raise TypeError(
            f"`pruning(pruner={pruner!r})`: must be a `Pruner` or a `ChannelPruner`. "
            f"Call the factory: `{factory}(...)`. Optimizer forms such as "
            "`jaxprune.lats(optimizer, ...)` are complete without `pruning`."
        )
    for limit in limits:
        if not isinstance(limit, Limit):
            raise TypeError(
                f"`pruning(pruner, {limit!r})`: limits must be `Limit` values. Call "
                "`jaxprune.at_most(cost, limit)`."
            )
        if channels and limit.cost is density:
            raise ValueError(
                f"`pruning(pruner, {limit!r})`: `density` counts single weights, and "
                "the method removes channels. Limit a cost of the graph, such as "
                "`costs.parameters(graph)`."
            )
    if limits and channels and pruner.limits:
        raise ValueError(
            f"`pruning(pruner, {limits[0]!r})`: the method holds its limits itself. "
            "Give them to its factory alone."
        )
    if solver is None:
        solver = _default_solver(pruner, channels) if limits else _no_limits
    return Pruning(pruner=pruner, limits=limits, solver=solver, seed=seed)


def _no_limits(limits: Sequence[Limit]) -> Budget:
    del limits
    return unlimited()


def _minimum(pruner: Any, params: Params) -> dict[str, Any]:
    """Return the smallest keep ratios with which the method can end."""
    if not isinstance(pruner, ChannelPruner):
        return pruner.minimum(params)
    fixed = pruner.fixed or {}
    groups = pruner.graph.groups.items()
    return {n: np.float32(fixed.get(n, 1 / g.size)) for n, g in groups}


def _default_solver(pruner: Any, channels: bool) -> Solver:
    """Dual ascent for weights; ADMM that keeps a channel of every group."""
    if not channels:
        return dual_ascent
    learned = {
        name: group.size
        for name, group in pruner.graph.groups.items()
        if (pruner.fixed or {}).get(name) != 1
    }
    minimum = {name: 1 / size for name, size in learned.items()}
    return functools.partial(admm, min_keep_ratio=minimum)


def _observe(budget: Any, change: Any) -> jax.Array:
    """Return 0, with the gradient `epsilon * change` in the leaves of `budget`."""
    terms = jax.tree.map(
        lambda b, d: jnp.sum((b - jax.lax.stop_gradient(b)) * (_EPSILON * d)),
        budget,
        change,
    )
    return jnp.sum(jnp.stack(jax.tree.leaves(terms)))


def _recovered(gradients: Any) -> Any:
    """Return the updates of the budget's leaves from their scaled gradients."""
    count = gradients["step"]
    (count,) = jax.tree.leaves(count)
    # Without the penalty in the loss the count has no gradient, and nothing moves.
    factor = jnp.where(count == 0, 1.0, -1.0 / jnp.where(count == 0, 1.0, count))
    return jax.tree.map(lambda g: -g * factor, gradients)


def _step(budget: dict[str, Any]) -> jax.Array:
    return jax.lax.stop_gradient(jnp.round(budget["step"])).astype(jnp.int32)


def _finite_difference(old: jax.Array, new: jax.Array) -> jax.Array:
    """Return the step back from new to old; none where a cost is not finite."""
    return jnp.where(jnp.isfinite(new), old - new, 0)


def _floats(state: Any) -> list[jax.Array]:
    """Return the leaves of a budget's state, all of them floating."""
    return [
        leaf if jnp.issubdtype(leaf.dtype, jnp.floating) else leaf.astype(jnp.float32)
        for leaf in map(jnp.asarray, jax.tree.leaves(state))
    ]


def _unfloats(floats: list[jax.Array], like: Any) -> Any:
    """Return the budget's state of which `floats` are the leaves."""
    leaves, treedef = jax.tree.flatten(like)
    return jax.tree.unflatten(
        treedef,
        [
            x if x.dtype == leaf.dtype else jnp.round(x).astype(leaf.dtype)
            for x, leaf in zip(floats, leaves, strict=True)
        ],
    )


def _plain(budget: Any) -> dict[str, Any]:
    """Return the part `budget` in plain containers, whatever holds its arrays."""
    leaves = {name: jax.tree.leaves(budget[name]) for name in budget}
    state = leaves.pop("state", [])  # `nnx.State` drops what holds no arrays.
    return {**{name: leaf for name, (leaf,) in leaves.items()}, "state": state}


def _named(keep_ratios) -> Callable[[Params], Any]:
    names = set(keep_ratios)
    return lambda params: jax.tree.map(lambda name: name in names, tree.names(params))


class _NoPartsError(ValueError):
    """What should be a tree of a pruning is none."""


def _begun(name: str, inner: optax.GradientTransformation, part: Any) -> Any:
    """Return the state of an optimizer of one part; it must be no optimizer of all."""
    try:
        return inner.init(part)
    except _NoPartsError as error:
        argument = "weights" if name == "params" else name
        raise ValueError(
            f"`pruning.optimizer({argument}=...)`: must be an optimizer of the "
            f"{argument} alone, and is or holds another `pruning.optimizer(...)`, that "
            "of all parts. Write `pruning.optimizer(optax.adam(1e-3))`, once."
        ) from error


def _parts(call: str, trainable: Any) -> tuple[Any, Any, Any]:
    try:
        params, budget = trainable["params"], trainable["budget"]
        # `nnx.State` drops what holds no arrays.
        return params, trainable.get("variables", {}), budget
    except (KeyError, TypeError, IndexError, AttributeError) as error:
        raise _NoPartsError(
            f"`{call}`: the argument must hold the parts {', '.join(PARTS)}, got "
            f"{_kind(trainable)}. Pass what `pruning.init(params)` returned, of a "
            "`TrainState` its `params`, of an NNX module `nnx.state(module, "
            "nnx.Param)`; put `optax.flatten` inside of `pruning.optimizer`. After "
            "`finalize` use the final weights as they are."
        ) from error


def _kind(trainable: Any) -> str:
    """Say what was passed, with its first keys if it has some."""
    kind = f"a {type(trainable).__name__}"
    if isinstance(trainable, Mapping):
        kind += f" with the keys {list(map(str, trainable))[:6]}"
    return kind


def _folders_beside(graph: Any, params: Params) -> list[str]:
    """Return the folders that were traced; none where parameters alone were."""
    folders = list(dict.fromkeys(name.partition("/")[0] for name in graph.leaves))
    alone = tree.named_leaves(params).keys() == graph.leaves.keys()
    return [] if alone or "params" not in folders else folders


def _check_collections(folders: list[str], collections: Mapping[str, Any]) -> None:
    """Refuse collections that are not those beside which parameters were traced."""
    missing = [name for name in folders if name not in {"params", *collections}]
    if missing:
        raise ValueError(
            f"`compact(trainable)`: {', '.join(missing)} was traced beside `params`, "
            f"and must be given. Pass `{missing[0]}=...`."
        )
    unknown = [
        name
        for name, collection in collections.items()
        if name not in folders and jax.tree.leaves(collection)
    ]
    if unknown:
        raise ValueError(
            f"`compact(trainable, {unknown[0]}=...)`: must have been traced beside "
            f"`params`; the graph is that of {folders or 'the parameters alone'}."
        )


def _like(example: Any, parts: dict[str, Any]) -> Any:
    """Put the parts into the containers of `example`, of the same order of leaves."""
    rest: dict[str, Iterator] = {n: iter(jax.tree.leaves(p)) for n, p in parts.items()}
    return jax.tree_util.tree_map_with_path(
        lambda path, _: next(rest[tree.name_of(path[:1])]), example
    )
