"""AlexNet, as torchvision has it: five convolutions, three dense layers, no norms.

Convolutions have 64, 192, 384, 256 and 256 filters and biases; a 3x3 max pooling with
stride 2 follows the first, the second and the last. The dense layers have 4096, 4096
and `num_classes` outputs, and half of what the first two read is dropped in training.

It has 61 100 840 parameters and takes 714 million multiplications an image of 224x224
pixels.

References:
    Krizhevsky, One weird trick for parallelizing convolutional neural networks, 2014,
    arXiv:1404.5997, Sec. 5 (one column, 64 filters at first, no response norms).
"""

from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from experiments.models.layers import FAN_IN, flattened

# Filters, size of the kernel, stride, padding, and whether a pooling follows.
_CONVOLUTIONS = (
    (64, 11, 4, 2, True),
    (192, 5, 1, 2, True),
    (384, 3, 1, 1, False),
    (256, 3, 1, 1, False),
    (256, 3, 1, 1, True),
)
_WIDTH = 4096
_DROPPED = 0.5


class AlexNet(nn.Module):
    """A network without normalisation.

    Attributes:
        num_classes: Number of logits.
        axis_name: Not used: no statistics are averaged.
        dtype: Type of the computation; parameters and statistics are float32.
    """

    num_classes: int
    axis_name: str | None = None
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, x: jax.Array, *, train: bool) -> jax.Array:
        """Computes logits.

        Args:
            x: Images, shape (B, H, W, C) of at least 63x63 pixels; weights trained
                elsewhere are for 224x224.
            train: Whether to drop, which needs a key of the name `dropout`.

        Returns:
            Logits, shape (B, num_classes), float32.

        Raises:
            ValueError: If the images are smaller.
        """
        for index, layer in enumerate(_CONVOLUTIONS, start=1):
            filters, size, stride, padding, pools = layer
            x = nn.Conv(
                filters,
                (size, size),
                strides=stride,
                padding=padding,
                kernel_init=FAN_IN,
                dtype=self.dtype,
                name=f"conv{index}",
            )(x)
            x = nn.relu(x)
            if pools:
                x = nn.max_pool(x, (3, 3), (2, 2))
        x = flattened(x, "63x63 pixels")
        for index in (1, 2):
            x = nn.Dropout(_DROPPED, deterministic=not train)(x)
            x = nn.Dense(
                _WIDTH, kernel_init=FAN_IN, dtype=self.dtype, name=f"dense{index}"
            )(x)
            x = nn.relu(x)
        return nn.Dense(self.num_classes, dtype=jnp.float32, name="dense3")(x)
