"""What is wrong with a config, found before data are loaded or a folder is made."""

import math
from collections.abc import Callable, Mapping
from typing import Any

from experiments import configs
from experiments.configs import default

_WEIGHTS = ("sparsity", "min_keep_ratio", "trail_every")
_RAMP = ("ramp_begin", "ramp_end")
_BUDGET = ("budget", "channel_multiple", "latency_batch", "latency_widths")
_THRESHOLDS = (
    *("penalty_weight", "solver", "multiplier_rate", "lowest_rung"),
    *_RAMP,
    *("temperature", "threshold_learning_rate"),
)
_SOFT = ("final_threshold", "lowest_rung")
_DSA = (
    *("importance", "sharpness", "sharpness_growth", "keep_floor", "init_logit"),
    *("ratio_every", "ratio_learning_rate"),
)
_PENALTY = ("channel_penalty", "round_to_budget")

# What each plan reads of the fields that not every plan reads.
_READS: Mapping[str, tuple[str, ...]] = {
    "ltp": (*_WEIGHTS, *_THRESHOLDS, "init_threshold"),
    "soft_threshold_reparameterization": (
        *_WEIGHTS,
        *_THRESHOLDS,
        "init_threshold_logit",
    ),
    "magnitude": (*_WEIGHTS, *_RAMP),
    "global_magnitude": (*_WEIGHTS, *_RAMP),
    "lats": (*_WEIGHTS, *_SOFT, *_RAMP, "penalty_weight", "solver", "multiplier_rate"),
    "s_lats": (*_WEIGHTS, *_SOFT),
    "pgh": (*_WEIGHTS, *_SOFT, "homotopy_beta"),
    "snip": (*_WEIGHTS, "score_batches"),
    "grasp": (*_WEIGHTS, "score_batches"),
    "random_erk": _WEIGHTS,
    "dsa": (*_BUDGET, *_DSA, *_RAMP),
    "dsa_as_published": (*_BUDGET, *_DSA),
    "uniform": _BUDGET,
    "filter_norm": _BUDGET,
    "norm_scale": _BUDGET,
    "group_lasso": (*_BUDGET, *_PENALTY),
    "morphnet": (*_BUDGET, *_PENALTY),
    "evolution": (*_BUDGET, "trials"),
    "given": (
        *(*_BUDGET, "allocation", "importance", "gated"),
        *("sharpness", "sharpness_growth", "keep_floor"),
    ),
}

Rule = tuple[str, Callable[[Any], bool]]

_FRACTION: Rule = ("in [0, 1)", lambda x: 0 <= x < 1)
_SHARE: Rule = ("in [0, 1]", lambda x: 0 <= x <= 1)
_LIMIT: Rule = ("in (0, 1], a fraction of the dense cost", lambda x: 0 < x <= 1)
_POSITIVE: Rule = ("above 0", lambda x: 0 < x < math.inf)
_NOT_NEGATIVE: Rule = ("0 or above", lambda x: 0 <= x < math.inf)
_COUNT: Rule = ("at least 1", lambda x: x >= 1)

_RULES: Mapping[str, Rule] = {
    **dict.fromkeys(
        ("sparsity", "min_keep_ratio", "held_out", "momentum", "label_smoothing"),
        _FRACTION,
    ),
    **dict.fromkeys(("ramp_begin", "ramp_end", "end_learning_rate_factor"), _SHARE),
    **dict.fromkeys((f"budget.{name}" for name in default.get_config().budget), _LIMIT),
    **dict.fromkeys(
        (
            *("sharpness", "sharpness_growth", "temperature", "homotopy_beta"),
            *("init_threshold", "lowest_rung"),
        ),
        _POSITIVE,
    ),
    **dict.fromkeys(
        (
            *("dense_epochs", "prune_epochs", "finetune_epochs", "image_size", "seed"),
            *("learning_rate", "finetune_learning_rate", "weight_decay", "trials"),
            *("ratio_learning_rate", "threshold_learning_rate", "multiplier_rate"),
            *("channel_penalty", "penalty_weight", "final_threshold", "keep_floor"),
        ),
        _NOT_NEGATIVE,
    ),
    **dict.fromkeys(
        (
            *("batch_size", "eval_batch_size", "ratio_every", "score_batches"),
            *("log_every", "eval_every", "checkpoint_every", "checkpoints_kept"),
            *("trail_every", "channel_multiple", "latency_batch"),
        ),
        _COUNT,
    ),
}


def check(config: Any) -> None:
    """Refuse a config with fields that do not exist, do not fit, or are not read.

    Args:
      config: see `experiments/configs/default.py`.

    Raises:
      ValueError: if there is such a field; the message names it and the remedy.
    """
    defaults = default.get_config()
    fields, known = (dict(configs.leaves(tree)) for tree in (config, defaults))
    for name, value in fields.items():
        configs.check_name(defaults, name)
        if name in _RULES and value is not None:
            _check_value(name, value, *_RULES[name])
    for name in ("penalty_weight", "final_threshold"):
        if fields[name] is not None and fields["sparsity"] != known["sparsity"]:
            raise ValueError(
                f"`config.sparsity={fields['sparsity']!r}`: `config.{name}` decides "
                f"the size. Leave one out; {known['sparsity']} stands for no sparsity."
            )
    plan = config.plan.__name__
    for name, value in fields.items():
        if value != known[name] and not reads(plan, name):
            raise ValueError(
                f"`config.{name}={value!r}`: `config.plan={plan}` does not read it. "
                f"Leave it out, or choose a plan that reads it: {_readers(name)}."
            )


def reads(plan: str, field: str) -> bool:
    """Return whether a plan reads a field; fields of no method are read by all.

    Args:
      plan: the name of a function of `plans` or `channel_plans`; a plan defined
        elsewhere reads everything.
      field: its name, such as `budget.macs`.
    """
    top = field.partition(".")[0]
    known = any(top in fields for fields in _READS.values())
    return not known or plan not in _READS or top in _READS[plan]


def _readers(field: str) -> str:
    return ", ".join(plan for plan in _READS if reads(plan, field))


def _check_value(name: str, value: Any, text: str, good: Callable[[Any], bool]) -> None:
    if isinstance(value, bool) or not isinstance(value, int | float) or not good(value):
        percent = isinstance(value, int | float) and 1 < value <= 100
        hint = ""
        if percent and text.startswith("in "):
            hint = f" For {value} %, pass {value / 100}."
        raise ValueError(f"`config.{name}={value!r}` must be {text}.{hint}")
