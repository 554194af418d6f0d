"""Bytes that the update of a method moves, from 1e5 to 1e10 parameters.

    python -m experiments bench growth [--methods lats ltp ...] [--largest=1e10]

The update is compiled without the network: gradients of the pruned weights are given,
and the method turns them into new parameters and a new state. Nothing is run and no
array is made, so every size fits. `copies` are bytes accessed by that program, as the
compiler counts them (the body of a loop once, and all branches of a condition), in
copies of the parameters; `of_least` is that number over the least of any size: growth
is linear where it stays near 1. SGD with momentum, which is `dense`, reads parameters,
gradients and momentum, and writes parameters and momentum: at least five copies.
"""

import argparse
from collections.abc import Callable, Iterator
from typing import Any

import jax
import jax.numpy as jnp
import optax

import jaxprune

_SGD = optax.sgd(0.1, momentum=0.9)
_LEAVES = 10
_TENTH = jaxprune.at_most(jaxprune.density, 0.1)
_SIZED = {"sparsity": 0.9, "steps": 1000}

METHODS: dict[str, Callable[[], Any]] = {
    "dense": lambda: _SGD,
    "ista": lambda: optax.chain(_SGD, jaxprune.transforms.ista(1e-4, 0.1)),
    "lats": lambda: jaxprune.lats(_SGD, **_SIZED),
    "gradual_magnitude": lambda: jaxprune.gradual_magnitude(_SGD, **_SIZED),
    "ltp": lambda: jaxprune.pruning(jaxprune.ltp(), _TENTH),
    "garrote": lambda: jaxprune.pruning(jaxprune.garrote(**_SIZED)),
}


def update_of(method: Any) -> tuple[Callable[..., Any], Callable[..., Any]]:
    """Returns `params -> (trained, state)`, and the update by gradients of weights."""
    weights = isinstance(method, optax.GradientTransformation)
    tx = method if weights else method.optimizer(_SGD)
    compute = (lambda trained: (trained, 0.0)) if weights else method

    def begin(params):
        trained = params if weights else method.init(params)
        return trained, tx.init(trained)

    def update(trained, state, gradients):
        _, pull = jax.vjp(lambda t: compute(t), trained)
        (grads,) = pull((gradients, jnp.float32(1.0)))
        updates, state = tx.update(grads, state, trained)
        return optax.apply_updates(trained, updates), state

    return begin, update


def measure(options: argparse.Namespace) -> Iterator[dict[str, Any]]:
    """Yields a row for each method and size."""
    sizes = [10.0**k for k in range(5, 11) if 10**k <= options.largest]
    for name in options.methods:
        copies = {size: copies_moved(METHODS[name](), size) for size in sizes}
        least = min(found for found in copies.values() if found)
        for size, found in copies.items():
            yield {
                "method": name,
                "parameters": f"{size:.0e}",
                "copies": found or "refused",
                "of_least": found / least if found else "",
            }


def copies_moved(method: Any, size: float) -> float | None:
    """Returns the bytes that an update moves, in copies; None where it is refused.

    More than 2^31 weights cannot be ranked together.
    """
    side = round((size / _LEAVES) ** 0.5)
    shape = jax.ShapeDtypeStruct((side, side), jnp.float32)
    params = {f"layer{i}": {"kernel": shape} for i in range(_LEAVES)}
    begin, update = update_of(method)
    trained, state = jax.eval_shape(begin, params)
    step = jax.jit(update, donate_argnums=(0, 1))
    try:
        compiled = step.lower(trained, state, params).compile()
    except ValueError:
        return None
    costs: Any = compiled.cost_analysis()
    return costs["bytes accessed"] / (4 * _LEAVES * side**2)


def add_options(parser: argparse.ArgumentParser) -> None:
    """Adds what this benchmark can be asked."""
    parser.add_argument("--methods", nargs="+", default=[*METHODS], choices=METHODS)
    parser.add_argument("--largest", type=float, default=1e10, help="parameters")
