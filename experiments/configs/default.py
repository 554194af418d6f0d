"""Every field of a config that all methods share, with its default and what it means.

A config file of a run starts from `get_config(METHOD)` here and changes what differs.
`config.method` holds the fields of the method, which stand in its module in
`experiments/plans`, and `config.budget` the size that it is held to.
"""

import copy
from typing import Any

from ml_collections import ConfigDict, config_dict

from experiments.plans.fields import (
    COUNT,
    FRACTION,
    NOT_NEGATIVE,
    SHARE,
    Field,
    Fields,
    one_of,
)
from experiments.plans.ltp import LTP
from experiments.plans.method import Config, Method

FIELDS: Fields = {
    "model": Field("cnn", "The network, a name of `models.create`."),
    "dtype": Field(
        "float32",
        "In which layers compute; weights and statistics are float32.",
        one_of("float32", "bfloat16"),
    ),
    "seed": Field(0, "What all that is random comes from.", NOT_NEGATIVE),
    "title": Field("", "Name in tables, if not the method's."),
    "data": {
        "name": Field("digits", "The data set."),
        "dir": Field("data", "Where TFDS keeps its data; digits are prepared there."),
        "eval_split": Field(
            "test",
            "What networks are evaluated on; choices are made on validation.",
            one_of("test", "validation"),
        ),
        "image_size": Field(0, "Side to resize to; 0 leaves images.", NOT_NEGATIVE),
        "augment": Field(True, "What the data set's papers use; nothing for digits."),
        "held_out": Field(0.0, "Share of training data for a search.", FRACTION),
        "batch_size": Field(32, "Examples of a step, over all devices.", COUNT),
        "batch_parts": Field(
            1, "Parts of a batch, one after the other; gradients are averaged.", COUNT
        ),
        "eval_batch_size": Field(360, "Examples of an evaluation.", COUNT),
    },
    "phases": {
        "dense": Field(6.0, "Epochs of the dense network; 0: none.", NOT_NEGATIVE),
        "prune": Field(22.0, "Epochs of the method; 0: none.", NOT_NEGATIVE),
        "finetune": Field(12.0, "Epochs of what is left; 0: none.", NOT_NEGATIVE),
        "rewind": Field(False, "Whether these start from the first weights."),
        "pretrained": Field(
            "", "To start from: a run's workdir, a file *.safetensors, or timm:NAME."
        ),
        "new_head": Field(
            False, "Whether the last layer is not loaded but starts at random."
        ),
    },
    "optimizer": {
        "name": Field("sgd", "Adam reads no momentum.", one_of("sgd", "adam")),
        "learning_rate": Field(0.03, "Cosine schedules.", NOT_NEGATIVE),
        "end_learning_rate_factor": Field(0.1, "Of it, at the end of pruning.", SHARE),
        "learning_rate_drops": Field((), "Epochs from which a tenth; no cosine."),
        "finetune_learning_rate": Field(0.02, "Of the fine-tuning.", NOT_NEGATIVE),
        "momentum": Field(0.9, "Of SGD.", FRACTION),
        "nesterov": Field(True, "Whether momentum is Nesterov's."),
        "weight_decay": Field(5e-4, "On kernels.", NOT_NEGATIVE),
        "decay_everything": Field(False, "Whether on all parameters."),
        "average": Field(
            0.0, "Decay of the average weights of dense and fine-tuning.", FRACTION
        ),
        "label_smoothing": Field(0.1, "Of the loss.", FRACTION),
    },
    "run": {
        "parallel": Field(
            "jit", "How devices share a step.", one_of("jit", "fsdp", "pmap")
        ),
        "log_every": Field(10, "Steps.", COUNT),
        "eval_every": Field(100, "Steps.", COUNT),
        "checkpoint_every": Field(200, "Steps.", COUNT),
        "checkpoints_kept": Field(2, "The newest.", COUNT),
        "progress": Field(True, "Whether progress is printed."),
    },
}


def get_config(method: Method = LTP) -> Config:
    """Return the default config: on digits, to a twentieth of the weights by LTP.

    Args:
      method: what prunes.
    """
    config = _container({**FIELDS, "budget": method.budget, "method": method.fields})
    config.plan = method
    return config


def with_method(config: Config, method: Method) -> Config:
    """Return a config with another method.

    Fields of the method and of the budget stay where both methods have them; the others
    are at their defaults.

    Args:
      config: the config; it is not changed.
      method: what prunes.
    """
    changed = get_config(method)
    for name in FIELDS:
        changed[name] = copy.deepcopy(config[name])
    for section in ("budget", "method"):
        for name in changed[section]:
            if name in config[section]:
                changed[section][name] = config[section][name]
    return changed


def pruned_from_the_start(config: Config) -> Config:
    """Return a config that prunes from the first step, of the same length.

    Seven tenths of the epochs prune; the rate falls to a fifth meanwhile. The rest
    fine-tunes, and begins at the full rate again.

    Args:
      config: the config; it is not changed.
    """
    changed = copy.deepcopy(config)
    phases, optimizer = changed.phases, changed.optimizer
    epochs = phases.dense + phases.prune + phases.finetune
    phases.dense, phases.prune, phases.finetune = 0.0, 0.7 * epochs, 0.3 * epochs
    optimizer.end_learning_rate_factor = 0.2
    optimizer.finetune_learning_rate = optimizer.learning_rate
    return changed


def fields_of(config: Config) -> Fields:
    """Return the fields that a config may have, those of its method among them."""
    return {**FIELDS, "budget": config.plan.budget, "method": config.plan.fields}


def _container(fields: Fields) -> Any:
    config = ConfigDict()
    for name, field in fields.items():
        if not isinstance(field, Field):
            config[name] = _container(field)
        elif field.default is None:
            config[name] = config_dict.placeholder(float)
        else:
            config[name] = field.default
    return config
