"""The network of a phase: dense, or the small one after channels are removed."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax

import jaxprune
from experiments.plans.channels import Channels, Masks


class Score(NamedTuple):
    """How good a network is on the test data, by the measure of the data set."""

    # The fraction whose label has the largest logit; of texts, bits per byte.
    value: float
    # The fraction whose label is among the five largest; None where there are few
    # classes, and of texts.
    top5: float | None = None


Evaluator = Callable[[Any], Callable[[Any, Any], Score]]
"""`model -> evaluate`, which is compiled for the model."""


class Network(NamedTuple):
    """What is trained."""

    model: Any  # called as `model.apply(variables, image, train=...)`
    params: Any  # of the right shapes, all zero
    batch_stats: Any  # of the right shapes, all zero
    # `params, batch_stats -> score` on the test data.
    evaluate: Callable[[Any, Any], Score]


def compact(
    known: Channels, evaluator: Evaluator, masks: Masks, *networks: tuple[Any, Any]
) -> tuple[Network, list[tuple[Any, Any]]]:
    """Return the small network, and dense parameters and statistics cut to it."""
    trees = [{"params": p, "batch_stats": s} for p, s in networks]
    model, small = known.compact(masks, *trees)
    blank = model.blank
    network = Network(
        model=model,
        params=blank["params"],
        batch_stats=blank["batch_stats"],
        evaluate=evaluator(model),
    )
    return network, [(tree["params"], tree["batch_stats"]) for tree in small]


@jax.jit
def nonzero_masks(params: Any) -> Any:
    """What is left of the prunable leaves; a bias that is zero is not pruned."""
    return jaxprune.nonzero_masks(params)
