"""What the methods on single weights share: selected leaves, layers, spreads, masks."""

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jaxprune import tree
from jaxprune.base._checks import check_callable
from jaxprune.base._protocols import Masks, Params
from jaxprune.masks._apply import fill
from jaxprune.masks._counts import check_floor, layer_floor
from jaxprune.masks._distributions import Distribution, global_
from jaxprune.masks._from_scores import (
    floor_masks,
    floors_of,
    layers_of,
    refuse_nan,
    scored_masks,
)
from jaxprune.tree._selection import Weights, held_masks, weights

# A layer whose weights are all equal has no spread; this fraction of its largest
# weight stands for it, and keeps divisions finite.
_MIN_RELATIVE_SPREAD = 1e-5
_TINY = 1e-30


class Network(NamedTuple):
    """The parameters, and the weights of them that a method prunes.

    Attributes:
      call: the public function that made the method, for messages.
      params: all parameters, held masks applied.
      where: the selection.
      leaves: the selected leaves by name.
    """

    call: str
    params: Params
    where: tree.Where
    leaves: dict[str, Weights]

    @property
    def arrays(self) -> dict[str, Any]:
        """The selected leaves."""
        return {name: leaf.array for name, leaf in self.leaves.items()}

    @property
    def layers(self) -> dict[str, int | None]:
        """The number of stacked layers of each selected leaf."""
        return {name: leaf.layers for name, leaf in self.leaves.items()}

    @property
    def alive(self) -> dict[str, Any]:
        """The masks that hold, of the leaves that have one."""
        return {
            name: leaf.mask
            for name, leaf in self.leaves.items()
            if leaf.mask is not None
        }

    def floors(self, min_keep_ratio: Any) -> dict[str, int]:
        """Return the minimum count of each layer, by leaf."""
        ratios = floors_of(self.call, min_keep_ratio, self.leaves)
        return {
            name: layer_floor(leaf.layer_size, ratios[name])
            for name, leaf in self.leaves.items()
        }

    def scored(
        self,
        scores: Mapping[str, jax.Array],
        keep_ratio: Any,
        min_keep_ratio: Any,
        distribution: Distribution = global_,
    ) -> Masks:
        """Return the masks of the highest scores; see `scored_masks`."""
        kept = scored_masks(
            scores,
            keep_ratio=keep_ratio,
            distribution=distribution,
            min_keep_ratio=min_keep_ratio,
            layers=self.layers,
            alive=self.alive,
            call=self.call,
        )
        return fill(self.params, kept, self.where)

    def least(
        self, scores: Mapping[str, jax.Array], min_keep_ratio: Any
    ) -> dict[str, jax.Array]:
        """Return, by leaf, the masks of what each layer keeps at minimum."""
        return floor_masks(
            scores,
            min_keep_ratio=min_keep_ratio,
            layers=self.layers,
            alive=self.alive,
            call=self.call,
        )

    def above_threshold(
        self,
        kept: Mapping[str, jax.Array],
        scores: Mapping[str, jax.Array],
        min_keep_ratio: Any,
    ) -> Masks:
        """Return the masks of what a method keeps by its own thresholds.

        Args:
          kept: leaf name to a bool array.
          scores: the order in which the minimum of each layer is kept.
          min_keep_ratio: see `scored_masks`.
        """
        refuse_nan(self.call, scores)
        floors = self.least(scores, min_keep_ratio)
        alive = self.alive
        found = {name: mask | floors[name] for name, mask in kept.items()}
        found = {
            name: mask & alive[name] if name in alive else mask
            for name, mask in found.items()
        }
        return fill(self.params, found, self.where)


def network(
    call: str,
    params: Params,
    where: tree.Where,
    variables: Mapping[str, jax.Array] | None = None,
) -> Network:
    """Return the network with what its selection says.

    Args:
      call: the public function that made the method.
      params: a pytree of arrays, possibly abstract.
      where: see `jaxprune.tree`.
      variables: of a method that has one for each layer, to be checked.

    Raises:
      ValueError: the variables are not those of these weights. See also
        `jaxprune.tree.select` and `jaxprune.selection`, as for TypeError.
    """
    leaves = weights(params, where, call=f"{call}(where=...)")
    if variables is not None:
        _check_variables(call, leaves, variables)
    held = held_masks(params, where)
    if held:
        known = tree.named_leaves(params)
        pruned = {
            name: jnp.where(mask, known[name], jnp.zeros_like(known[name]))
            for name, mask in held.items()
        }
        params = tree.replace(params, pruned)
        leaves = {
            name: leaf._replace(array=pruned.get(name, leaf.array))
            for name, leaf in leaves.items()
        }
    return Network(call, params, where, leaves)


def _check_variables(call: str, leaves, variables) -> None:
    for name, leaf in leaves.items():
        shape = () if leaf.layers is None else (leaf.layers,)
        got = jnp.shape(variables[name]) if name in variables else "none"
        if got != shape:
            raise ValueError(
                f"`{call}(...)`: the variables must have one of shape {shape} for leaf "
                f"{name!r}, got {got}. Pass what `init(params)` of this pruner "
                "returned, trained."
            )


def check_min_keep_ratio(call: str, min_keep_ratio: Any) -> None:
    """Refuse minimum keep ratios outside [0, 1], one or by pattern.

    Raises:
      ValueError: one is outside, or no number.
    """
    if isinstance(min_keep_ratio, Mapping):
        for value in min_keep_ratio.values():
            check_floor(call, value)
    else:
        check_floor(call, min_keep_ratio)


def check_distribution(call: str, distribution: Any) -> None:
    """Refuse a layer distribution that is no function, such as its name.

    Raises:
      TypeError: it is none.
    """
    example = "`jaxprune.masks.erk`, or another function of the shape of a layer"
    check_callable(call, "distribution", distribution, example)


def variables_like(
    call: str, where: tree.Where, value: Any
) -> Callable[[Params], dict[str, jax.Array]]:
    """Return an `init` of one variable for each layer.

    Args:
      call: the public function that made the method.
      where: see `jaxprune.tree`.
      value: where all variables start.
    """

    def init(params, /):
        found = {}
        for name, leaf in weights(params, where, call=f"{call}(where=...)").items():
            shape = () if leaf.layers is None else (leaf.layers,)
            found[name] = jnp.full(shape, value, jnp.float32)
        return found

    return init


def minimum_of(
    call: str, where: tree.Where, min_keep_ratio: Any
) -> Callable[[Params], dict[str, np.ndarray]]:
    """Return the `minimum` of a method: the floor of each layer over its size.

    Args:
      call: the public function that made the method.
      where: see `jaxprune.tree`.
      min_keep_ratio: see `scored_masks`.
    """

    def minimum(params, /):
        leaves = weights(params, where, call=f"{call}(where=...)")
        layers = {name: leaf.layers for name, leaf in leaves.items()}
        table = layers_of(
            call,
            {name: leaf.array for name, leaf in leaves.items()},
            layers,
            {name: leaf.mask for name, leaf in leaves.items()},
            min_keep_ratio,
        )
        found: dict[str, list[float]] = {name: [] for name in leaves}
        for layer in table:
            found[layer.leaf].append(layer.floor / layer.size)
        shapes = {
            n: () if number is None else (number,) for n, number in layers.items()
        }
        return {
            n: np.asarray(x, np.float32).reshape(shapes[n]) for n, x in found.items()
        }

    return minimum


def per_layer(values: jax.Array, leaf: Weights) -> jax.Array:
    """Return one value for each layer, of a shape that broadcasts to the leaf."""
    if leaf.layers is None:
        return values.reshape(())
    return values.reshape(leaf.layers, *(1,) * (leaf.array.ndim - 1))


def layer_axes(leaf: Weights) -> tuple[int, ...]:
    """Return the axes over which one layer extends."""
    return tuple(range(0 if leaf.layers is None else 1, leaf.array.ndim))


def layer_mean(values: jax.Array, leaf: Weights) -> jax.Array:
    """Return the mean over each layer, float32, shape () or (layers,).

    What is already pruned counts as zero.
    """
    if leaf.mask is not None:
        values = jnp.where(leaf.mask, values, jnp.zeros_like(values))
    return jnp.mean(values, axis=layer_axes(leaf), dtype=jnp.float32)


def spread(leaf: Weights, *, signed: bool = False) -> jax.Array:
    """Return the standard deviation of the weights of each layer.

        s_l = sqrt(Var(|w_l|)), or sqrt(Var(w_l))

    a constant for derivatives, over the weights that are not yet pruned. Weights are
    divided by the largest of their layer first, so that no square overflows.

    Args:
      leaf: a selected leaf.
      signed: whether the weights themselves count, not their magnitudes.

    Returns:
      float32, positive, of a shape that broadcasts to the leaf.
    """
    values = jax.lax.stop_gradient(leaf.array).astype(jnp.float32)
    values = values if signed else jnp.abs(values)
    axes, keep = layer_axes(leaf), leaf.layers is not None
    top = jnp.max(jnp.abs(values), axis=axes, keepdims=keep)
    top = jnp.where(top < _TINY, jnp.ones_like(top), top)
    relative = values / top
    if leaf.mask is None:
        deviation = jnp.std(relative, axis=axes, keepdims=keep)
    else:
        number = jnp.sum(leaf.mask, axis=axes, keepdims=keep, dtype=jnp.float32)
        number = jnp.maximum(number, 1)
        mean = jnp.sum(relative, axis=axes, keepdims=keep) / number
        away = jnp.where(leaf.mask, relative - mean, 0)
        deviation = jnp.sqrt(
            jnp.sum(jnp.square(away), axis=axes, keepdims=keep) / number
        )
    return top * jnp.maximum(deviation, _MIN_RELATIVE_SPREAD)
