"""Measures how near `admm` comes to the optimum under limits of every size.

Command:
    python -m experiments bench admm-limits --groups=30 --limits=2

The problem is to minimise scale * sum_g a_g / k_g, k = sigmoid(theta), under one cost
that is bilinear in the ratios of neighbours, as MACs are, and further linear ones,
whose limits are 30 % looser each. The optimizer is that of `dsa`. The optimum is that
of SciPy's SLSQP in log k. Each row is a case: a factor of the loss, the limit of the
first cost, theta at the start; the highest cost in units of its limit, and the loss in
units of the optimum.
"""

import argparse
import itertools
from collections.abc import Callable, Iterator
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from scipy import optimize

import jaxprune
from jaxprune.budgets import admm

_SCALES = (1e-4, 1e-2, 1.0, 1e2, 1e4)
_LIMITS = (0.01, 0.1, 0.5, 0.9, 0.99)
_STARTS = (-4.0, 3.0)
_LOOSER = 0.3


Cost = Callable[[Any], Any]


def problem(groups: int, limits: int) -> tuple[np.ndarray, list[Cost]]:
    """Returns a, and the costs as functions of the vector of keep ratios."""
    gains = np.random.default_rng(0).uniform(0.05, 1, groups)
    rng = np.random.default_rng(1)

    def drawn(size: int) -> np.ndarray:
        weights = rng.uniform(0.2, 1, size).astype(np.float32)
        return weights / weights.sum()

    ends = drawn(groups + 1)

    def bilinear(k):
        inner = (ends[1:-1] * k[:-1] * k[1:]).sum()
        return ends[0] * k[0] + ends[-1] * k[-1] + inner

    def linear(weights: np.ndarray) -> Cost:
        return lambda k: (weights * k).sum()

    return gains, [bilinear, *(linear(drawn(groups)) for _ in range(limits - 1))]


def bounds_of(limit: float, number: int) -> list[float]:
    """Returns the limits of all costs."""
    return [limit * (1 + _LOOSER * i) for i in range(number)]


def optimum(gains: np.ndarray, costs: list[Cost], bounds: list[float]) -> float:
    """Returns the smallest sum of a / k within the limits."""
    within = [
        {
            "type": "ineq",
            "fun": lambda y, c=cost, b=bound: np.log(b) - np.log(c(np.exp(y))),
        }
        for cost, bound in zip(costs, bounds, strict=True)
    ]
    found = optimize.minimize(
        lambda y: np.sum(gains * np.exp(-y)),
        np.full(len(gains), np.log(min(bounds))),
        jac=lambda y: -gains * np.exp(-y),
        bounds=[(np.log(1e-3), 0)] * len(gains),
        constraints=within,
        method="SLSQP",
        options={"maxiter": 2000, "ftol": 1e-12},
    )
    return float(found.fun)


def solve(
    gains: np.ndarray, costs: list[Cost], scale: Any, limit: Any, start: Any, steps: int
) -> jax.Array:
    """Returns the keep ratios after a number of steps."""
    names = [f"g{i:03}" for i in range(len(gains))]

    def vector(k):
        return jnp.stack([k[name] for name in names])

    def named(theta):
        return dict(zip(names, jax.nn.sigmoid(theta), strict=True))

    budget = admm(
        [
            jaxprune.at_most(lambda k, c=cost: c(vector(k)), bound, name=f"cost {i}")
            for i, (cost, bound) in enumerate(
                zip(costs, bounds_of(limit, len(costs)), strict=True)
            )
        ]
    )
    optimizer = optax.adam(0.1, b2=0.99)

    def step(carry, _):
        theta, opt_state, state = carry

        def objective(theta):
            k = named(theta)
            loss = scale * jnp.sum(jnp.asarray(gains, jnp.float32) / vector(k))
            return loss + budget.penalty(k, state)

        updates, opt_state = optimizer.update(jax.grad(objective)(theta), opt_state)
        theta = theta + updates
        return (theta, opt_state, budget.update(named(theta), state)), None

    theta = jnp.full(len(gains), start, jnp.float32)
    begin = theta, optimizer.init(theta), budget.init(named(theta))
    return jax.nn.sigmoid(jax.lax.scan(step, begin, length=steps)[0][0])


def measure(options: argparse.Namespace) -> Iterator[dict[str, Any]]:
    """Yields how each case of the grid ends; `near` says within 1 % of both."""
    gains, costs = problem(options.groups, options.limits)
    run = jax.jit(lambda s, b, t: solve(gains, costs, s, b, t, options.steps))
    best = {b: optimum(gains, costs, bounds_of(b, options.limits)) for b in _LIMITS}
    for case in itertools.product(_SCALES, _LIMITS, _STARTS):
        k = np.asarray(run(*map(jnp.float32, case)), float)
        scale, limit, start = case
        bounds = bounds_of(limit, options.limits)
        spent = max(float(c(k)) / b for c, b in zip(costs, bounds, strict=True))
        loss = float(np.sum(gains / k)) / best[limit]
        yield {
            "loss x": scale,
            "limit": limit,
            "start": start,
            "of the limit": spent,
            "of the optimum": loss,
            "near": "" if spent > 1.01 or abs(loss - 1) > 0.01 else "yes",
        }


def add_options(parser: argparse.ArgumentParser) -> None:
    """Adds what this benchmark can be asked."""
    parser.add_argument("--groups", type=int, default=30)
    parser.add_argument("--limits", type=int, default=1)
    parser.add_argument("--steps", type=int, default=2000)
