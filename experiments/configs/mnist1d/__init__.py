"""Configs of MNIST-1D: 2,000 steps of 100 examples in all, fine-tuning included.

Each takes the network as an argument, `mnist1d/ltp:mlp1d`; by default it is `cnn1d`,
and `cnn1d_norm` where channels are pruned.
"""

from experiments.configs import default
from experiments.plans.method import Config, Method


def protocol(method: Method, model: str) -> Config:
    """Returns the protocol of a network: 7.5 dense epochs, 27.5 prune, 15 fine-tune.

    The optimizer is, of four, the one with the most accurate dense network.

    Args:
      method: what prunes.
      model: `cnn1d`, `cnn1d_norm` or `mlp1d`.
    """
    config = default.get_config(method)
    config.model = model
    config.data.name = "mnist1d"
    config.data.eval_split = "validation"
    config.data.batch_size = 100
    config.data.eval_batch_size = 1000
    config.phases.dense = 7.5
    config.phases.prune = 27.5
    config.phases.finetune = 15.0
    config.optimizer.label_smoothing = 0.0
    config.optimizer.learning_rate = 0.1
    if model == "mlp1d":
        config.optimizer.name = "adam"
        config.optimizer.learning_rate = 0.01
        config.optimizer.weight_decay = 0.0
    config.optimizer.finetune_learning_rate = config.optimizer.learning_rate * 2 / 3
    return config


def masked_first(method: Method, model: str, epochs: float) -> Config:
    """Returns the protocol of a method that prunes early and then trains.

    Args:
      method: what prunes.
      model: the network.
      epochs: the length of the phase that finds the mask.
    """
    config = protocol(method, model)
    config.phases.dense = 0.0
    config.phases.prune = epochs
    config.phases.finetune = 50.0 - epochs
    config.optimizer.finetune_learning_rate = config.optimizer.learning_rate
    return config


def channels(method: Method, model: str, epochs: float = 20.0) -> Config:
    """Returns the protocol of channels: half of the steps train the compact network.

    Args:
      method: what prunes.
      model: the network.
      epochs: of the other half, how long the pruning takes.
    """
    config = protocol(method, model)
    config.budget.macs = 0.5
    config.data.held_out = 0.1
    config.phases.dense = 25.0 - epochs
    config.phases.prune = epochs
    config.phases.finetune = 25.0
    return config
