"""Statistics of batch normalisation, computed anew.

When channels go, or weights change at once, the running statistics are still those of
the network before. `renew_statistics` computes them from batches:

    params = renew_statistics(small.functions["train"], small.trees[0], batches)
"""

from collections.abc import Callable, Iterable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxprune import tree as jtree
from jaxprune.channels._trace import updated_leaves

_MANY = 2**30  # updates: what corrects the bias of the first ones is then nothing


def renew_statistics(
    train_fn: Callable[..., Any],
    params: Any,
    batches: Iterable[Any],
    *,
    updated: Mapping[str, str] | None = None,
) -> Any:
    """Return parameters whose running statistics are those of given batches.

    A function in training mode returns its statistics updated by those of the batch, s:

        new = m old + (1 - m) s

    From this the momentum m and s are found, and s is averaged over the batches, with
    the number of examples as weight, in float64. A variance that has a mean beside it
    is that of all examples together:

        mean = E[mean_b],    var = E[var_b] + E[(mean_b - mean)^2]

    What the statistics were before, and the momentum, have no influence.

    Args:
      train_fn: `train_fn(params, *inputs)`, which returns updated leaves under the
        names that they have in `params`, as for `trace_channels`. One that names a
        mapped axis is wrapped so that it runs without, by `jax.vmap(..., axis_name=)`
        over an axis of one.
      params: the tree that `train_fn` takes, parameters and statistics.
      batches: inputs, each a tuple `inputs`, or one array for a function of one input.
        Their number of examples is the size of the first axis of the first array.
      updated: which outputs are updated leaves, as for `trace_channels`.

    Returns:
      A tree of the structure of `params`: its statistics are new, of the dtypes they
      had, and all else is as given, counters of updates too.

    Raises:
      ValueError: if there is no batch, `train_fn` updates no leaf, or one in another
        way than by a moving average.

    Examples:
      >>> def train_fn(params, x):
      ...     mean = x.mean(0)
      ...     return x - mean, {"mean": 0.99 * params["mean"] + 0.01 * mean}
      >>> batches = [jnp.full((2, 1), 1.0), jnp.full((2, 1), 4.0)]
      >>> renew_statistics(train_fn, {"mean": jnp.zeros(1)}, batches)["mean"].tolist()
      [2.5]

    References:
      Wu and Johnson, "Rethinking 'Batch' in BatchNorm", 2021, arXiv:2105.07576, Sec. 3,
      "precise BN".
    """
    found: dict[str, list[np.ndarray]] = {}
    weights, measure = [], None
    for batch in batches:
        inputs = batch if isinstance(batch, tuple) else (batch,)
        if measure is None:
            measure = _measurer(train_fn, params, inputs, updated)
        fresh, momentum = jax.device_get(measure(params, *inputs))
        for name, values in _solved(fresh, momentum).items():
            found.setdefault(name, []).append(values)
        weights.append(jax.tree.leaves(inputs)[0].shape[0])
    if measure is None:
        raise ValueError(
            "`renew_statistics(batches=...)`: must hold at least one batch. A used-up "
            "iterator has none left."
        )
    return jtree.replace(params, _averaged(params, found, np.array(weights, float)))


def _measurer(train_fn, params, inputs, declared) -> Callable[..., Any]:
    """Return `params, *inputs -> updated statistics, momenta`, compiled."""
    updated = updated_leaves(train_fn, params, inputs, declared)
    named = jtree.named_leaves(params)
    kinds = {name: named[name].dtype for name in updated}
    moving = [n for n, kind in kinds.items() if jnp.issubdtype(kind, jnp.floating)]
    counters = [
        n for n, kind in kinds.items() if jnp.issubdtype(kind, jnp.signedinteger)
    ]
    if not moving:
        raise ValueError(
            "`renew_statistics(train_fn, ...)`: must return an updated floating leaf "
            f"under its name in `params`, returns {updated}. Pass the function in "
            "training mode, with mutable statistics: "
            "`model.apply(variables, x, mutable=['batch_stats'])`."
        )

    @jax.jit
    def measure(params, *inputs):
        named = jtree.named_leaves(params)
        many = {name: jnp.full_like(named[name], _MANY) for name in counters}

        def run(statistics):
            out = train_fn(jtree.replace(params, {**many, **statistics}), *inputs)
            leaves = jax.tree.leaves(out)
            return {name: leaves[updated[name]] for name in moving}

        # The update is linear in the old values, with the momentum as slope. It is not
        # differentiated: some layers stop the gradient of their statistics.
        far = {name: _far(named[name].dtype) for name in moving}
        new = run({name: jnp.zeros_like(named[name]) for name in moving})
        other = run({name: jnp.full_like(named[name], far[name]) for name in moving})
        return new, {name: (other[name] - new[name]) / far[name] for name in moving}

    return measure


def _solved(fresh: Mapping[str, Any], momenta: Mapping[str, Any]):
    """Return the statistics of the batch alone, float64."""
    found = {}
    for name, new in fresh.items():
        momentum = np.asarray(momenta[name])
        exact = _decimal(float(np.median(momentum.astype(float))))
        uniform = np.allclose(momentum.astype(float), exact, rtol=1e-3, atol=1e-5)
        if not uniform or not 0 <= exact < 1:
            raise ValueError(
                f"`renew_statistics(train_fn, ...)`: leaf {name!r} must be updated as "
                "a moving average, m old + (1 - m) new with one m in [0, 1); the slope "
                f"in its old value is {momentum.reshape(-1)[:3].tolist()}. Renew it by "
                "hand."
            )
        found[name] = np.asarray(new).astype(float) / (1 - exact)
    return found


def _far(dtype: Any) -> float:
    """Return a value of a statistic that is far above what a batch has."""
    return 2.0**40 if float(jnp.finfo(dtype).max) > 2.0**60 else 2.0**14


def _decimal(momentum: float) -> float:
    """Return the short number that a momentum was, before it was rounded: 0.99."""
    short = float(f"{momentum:.5g}")
    return short if abs(momentum - short) < 3e-7 else momentum


def _averaged(params, found: Mapping[str, list[np.ndarray]], weights: np.ndarray):
    """Return the statistics of all batches together, as leaves of the parameters."""
    shares = weights / weights.sum()
    named, leaves = jtree.named_leaves(params), {}
    for name, values in found.items():
        total = np.tensordot(shares, np.stack(values), axes=1)
        means = found.get(_mean_beside(name))
        if means is not None and means[0].shape == values[0].shape:
            centre = np.tensordot(shares, np.stack(means), axes=1)
            spread = np.square(np.stack(means) - centre)
            total = total + np.tensordot(shares, spread, axes=1)
        leaf = named[name]
        new = total.astype(leaf.dtype)
        sharding = getattr(leaf, "sharding", None)
        on_host = isinstance(leaf, np.ndarray)
        leaves[name] = new if on_host else jax.device_put(new, sharding)
    return leaves


def _mean_beside(name: str) -> str:
    """Return what the mean that belongs to a variance is called; "" for no variance."""
    for word in ("variance", "var"):
        head, found, tail = name.rpartition(word)
        if found:
            return f"{head}mean{tail}"
    return ""
