"""Weights and inputs that are made from names, the same with PyTorch and without it.

Every tensor has a generator of its own, seeded by its name, so that the weights of a
network do not depend on their order, and no file of weights is kept.
"""

import zlib

import numpy as np


def draw(name: str, shape: tuple[int, ...], gain: float = 2.0) -> np.ndarray:
    """Return a tensor as a trained network may have it, in the layout of PyTorch.

        running_var            uniform in [0.5, 2]
        running_mean           normal, standard deviation 0.2
        weight of a norm       uniform in [0.5, 1.5]
        other vectors          normal, standard deviation 0.1
        tokens and positions   normal, standard deviation 0.5
        matrices and kernels   normal, variance gain / fan-in
        num_batches_tracked    7, int64

    Args:
      name: of the tensor in the network.
      shape: its shape there.
      gain: so large that logits depend on the input, and so small that they are finite.
    """
    last = name.rpartition(".")[2]
    rng = np.random.default_rng(zlib.crc32(name.encode()))
    if last == "num_batches_tracked":
        return np.full(shape, 7)
    if last == "running_var":
        return rng.uniform(0.5, 2, shape).astype(np.float32)
    if last == "weight" and len(shape) == 1:
        return rng.uniform(0.5, 1.5, shape).astype(np.float32)
    if last == "running_mean":
        scale = 0.2
    elif len(shape) < 2:
        scale = 0.1
    elif len(shape) == 3 and shape[0] == 1:
        scale = 0.5
    else:
        scale = (gain / np.prod(shape[1:])) ** 0.5
    return rng.standard_normal(shape, np.float32) * np.float32(scale)


def inputs(*shape: int) -> np.ndarray:
    """Return standard normal inputs, channels last."""
    return np.random.default_rng(0).standard_normal(shape, np.float32)
