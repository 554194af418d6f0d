"""Configs for handwritten digits, 8x8, which come with scikit-learn."""

from experiments.configs import default
from experiments.plans.method import Config, Method


def masked_first(method: Method, *, prune: float, finetune: float) -> Config:
    """Return the config of a method that finds a mask and then trains under it.

    Args:
      method: what finds the mask.
      prune: epochs that this takes.
      finetune: epochs under the mask.
    """
    config = default.get_config(method)
    config.phases.dense = 0.0
    config.phases.prune = prune
    config.phases.finetune = finetune
    config.optimizer.finetune_learning_rate = 0.05
    return config
