"""Times the solver of keep probabilities against a root finder on the host.

Command:
    python -m experiments bench keep-ratio-solver

All groups of ResNet-56 (30 groups, 16 to 64 channels) are solved at once, jitted, and
one by one by `scipy.optimize.root_scalar` on log beta_1, bracketed, to the tolerance of
the authors' code, 0.02. Rounds alternate, each of some calls in succession; medians
are printed. With `--calls=1` the jitted solver is found asleep every time.
"""

import argparse
from collections.abc import Callable, Iterator
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from scipy import optimize

from experiments.analyses.timing import Quartiles, in_turns
from jaxprune.methods import keep_probabilities

_SIZES = (16,) * 10 + (32,) * 10 + (64,) * 10
_SHARPNESS = 5.0


def _on_host(ratios, importances):
    found = []
    for alpha, importance in zip(ratios, importances, strict=True):
        logarithms = np.log(importance + 1e-8)

        def excess(t, logarithms=logarithms, alpha=alpha):
            x = np.clip(_SHARPNESS * (logarithms - t), -20, 20)
            return np.mean(np.minimum(1 / (1 + np.exp(-x)) + 0.01, 1)) - alpha

        found.append(optimize.root_scalar(excess, bracket=(-500, 500), xtol=0.02).root)
    return found


def measure(options: argparse.Namespace) -> Iterator[dict[str, Any]]:
    """Yields seconds of both ways, and the largest difference of log beta_1."""
    rng = np.random.default_rng(0)
    importances = [rng.gamma(2.0, size=size) for size in _SIZES]
    ratios = rng.uniform(0.2, 0.95, len(_SIZES))
    widest = max(_SIZES)
    padded = np.stack([np.pad(b, (0, widest - len(b))) for b in importances])
    valid = np.arange(widest)[None] < np.array(_SIZES)[:, None]
    solve = jax.jit(
        lambda a, b: keep_probabilities(a, b, _SHARPNESS, valid=jnp.asarray(valid))
    )
    arguments = jnp.asarray(ratios, jnp.float32), jnp.asarray(padded, jnp.float32)

    def repeated(function: Callable[[], Any]) -> Callable[[], Any]:
        return lambda: [
            jax.block_until_ready(function()) for _ in range(options.calls)
        ][-1]

    jitted = repeated(lambda: solve(*arguments))
    host = repeated(lambda: _on_host(ratios, importances))
    taken = np.array(in_turns([jitted, host], options.rounds)) / options.calls
    ours, theirs = (Quartiles(*seconds) for seconds in taken.tolist())
    yield {
        "groups": len(_SIZES),
        "jitted": ours,
        "host": theirs,
        "ratio": theirs.median / ours.median,
        "difference": f"{np.max(np.abs(np.asarray(jitted()[1]) - host())):.1e}",
    }


def add_options(parser: argparse.ArgumentParser) -> None:
    """Adds what this benchmark can be asked."""
    parser.add_argument("--rounds", type=int, default=50)
    parser.add_argument("--calls", type=int, default=10)
