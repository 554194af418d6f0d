"""Configs of byte-level language models of Python's standard library.

Each takes the network as an argument, `stdlib/dense:decoder_small`; by default it is
`decoder_tiny`, which two CPU cores train. Bits per byte are comparable within one
version of Python only: another one has other files.
"""

from experiments.configs import default
from experiments.plans.method import Config, Method


def protocol(method: Method, model: str, *, prune: float = 0.0) -> Config:
    """Returns the protocol: one epoch in all, by Adam, of which half is dense.

    Args:
      method: what prunes.
      model: `decoder_tiny`, `decoder_small` or `decoder_base`.
      prune: epochs of the method, of the half that is not dense; the rest fine-tunes.
    """
    config = default.get_config(method)
    config.model = model
    config.data.name = "stdlib_bytes"
    config.data.eval_split = "validation"
    config.data.batch_size = 32
    config.data.eval_batch_size = 128
    config.phases.dense = 0.5
    config.phases.prune = prune
    config.phases.finetune = 0.5 - prune
    config.optimizer.name = "adam"
    config.optimizer.learning_rate = 3e-3
    config.optimizer.finetune_learning_rate = 2e-3
    config.optimizer.weight_decay = 0.0
    config.optimizer.label_smoothing = 0.0
    config.run.eval_every = 1000
    config.run.checkpoint_every = 1000
    return config


def channels(method: Method, model: str, prune: float) -> Config:
    """Returns the protocol of channels, to half of the MACs.

    Args:
      method: what prunes.
      model: see `protocol`.
      prune: epochs of the method; half an epoch is dense before it, and what is left of
        the other half fine-tunes.
    """
    config = protocol(method, model, prune=prune)
    config.budget.macs = 0.5
    config.data.held_out = 0.1
    return config
