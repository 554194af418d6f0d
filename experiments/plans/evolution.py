"""Numbers of channels by trial and error, in the manner of AMC."""

import functools
from typing import Any

import jax
import numpy as np

from experiments.plans.allocation import (
    channels_of,
    limits_of,
    rounded,
    trained_already,
)
from experiments.plans.channels import Masks
from experiments.plans.fields import NOT_NEGATIVE, Field
from experiments.plans.method import CHANNELS, Config, Method, Plan, Task
from jaxprune import channels


def evolution(config: Config, task: Task) -> Plan:
    """Trial and error: changed keep ratios stay if the pruned network is no worse.

    The task of AMC with a (1 + 1) evolution strategy in place of its agent: each trial
    multiplies the ratios of a third of the groups by random factors, is rounded to the
    budget, and judged on held-out data without training.

    References:
      He et al., "AMC: AutoML for Model Compression and Acceleration on Mobile Devices",
      ECCV 2018, arXiv:1802.03494.
    """
    known = channels_of(config, task)
    plan = channels.plan_gates(known.graph)
    gated = jax.jit(functools.partial(channels.apply_gates, plan))
    norms_of = jax.jit(channels.filter_norms(known.graph))

    def allocate(state: Any) -> Masks:
        rng = np.random.default_rng(config.seed)
        scores = norms_of(state.params)
        limits = limits_of(config, task)
        names = list(known.graph.groups)

        def judged(ratios):
            counts = rounded(config, task, ratios)
            masks = channels.important_channels(known.graph, scores, counts)
            gates = {n: mask.astype(np.float32) for n, mask in masks.items()}
            return task.judge(gated(state.params, gates), state.batch_stats), masks

        best = dict.fromkeys(names, channels.uniform_ratio(known.graph, limits))
        accuracy, masks = judged(best)
        for _ in range(config.method.trials):
            chosen = rng.random(len(names)) < 1 / 3
            factors = np.where(chosen, np.exp(0.4 * rng.normal(size=len(names))), 1)
            ratios = {
                n: min(best[n] * factor, 1.0)
                for n, factor in zip(names, factors.tolist(), strict=True)
            }
            found, tried = judged(ratios)
            if found >= accuracy:
                best, accuracy, masks = ratios, found, tried
        return masks

    return trained_already(allocate)


EVOLUTION = Method(
    title="Evolution, as AMC",
    full_title="Channel pruning by evolution",
    plan=evolution,
    fields={"trials": Field(200, "Changes that are judged.", NOT_NEGATIVE)},
    budget=CHANNELS,
)
