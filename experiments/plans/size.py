"""How methods that learn thresholds are held to a size, and its ramp."""

import optax

import jaxprune
from experiments.plans.fields import (
    NOT_NEGATIVE,
    POSITIVE,
    SHARE,
    Field,
    Fields,
    one_of,
)
from experiments.plans.method import Config, Task

RAMP: Fields = {
    "ramp_begin": Field(0.0, "Where the ramp of the size begins, in the phase.", SHARE),
    "ramp_end": Field(0.7, "Where it ends, as a fraction of the phase.", SHARE),
}


def size_fields(*solvers: str) -> Fields:
    """Return the fields of a learned size; the first solver is the default."""
    return {
        "penalty_weight": Field(
            None,
            "Weight of the keep ratio in the loss; decides the size, not `sparsity`.",
            NOT_NEGATIVE,
        ),
        "solver": Field(solvers[0], "How `sparsity` is found.", one_of(*solvers)),
        "multiplier_rate": Field(0.1, "Rate of the Lagrange multiplier.", NOT_NEGATIVE),
        "lowest_rung": LOWEST_RUNG,
    }


LOWEST_RUNG = Field(
    1 / 1024, "Last keep ratio of the trail without a target.", POSITIVE
)


def keep_ratio_ramp(config: Config, steps: int) -> optax.Schedule:
    """The target keep ratio over the pruning phase: a cubic ramp down from 1."""
    return jaxprune.schedules.cubic_ramp(
        1.0,
        jaxprune.masks.keep_ratio_of(config.budget.sparsity),
        begin_step=round(config.method.ramp_begin * steps),
        end_step=max(round(config.method.ramp_end * steps), 1),
    )


def size_budget(config: Config, task: Task) -> jaxprune.Budget:
    """A `penalty_weight`, or the limit on the weights along its ramp, by a solver."""
    fields = config.method
    cost = jaxprune.density(task.params)
    if fields.penalty_weight is not None:
        return jaxprune.weighted(cost, fields.penalty_weight)
    limit = jaxprune.at_most(cost, keep_ratio_ramp(config, task.steps))
    if fields.solver == "dual_ascent":
        return jaxprune.dual_ascent(limit, rate=fields.multiplier_rate)
    return jaxprune.admm(limit, min_keep_ratio=max(fields.min_keep_ratio, 1e-6))
