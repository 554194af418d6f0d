"""A small convolutional network with batch normalisation, in Linen.

`experiments.models.cnn_nnx.CNN` is the same network in NNX, with the same leaf names.
"""

import functools
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from experiments.models.layers import flattened


class CNN(nn.Module):
    """Two 3x3 convolutions with batch normalisation, one pooling, two dense layers.

    A convolution has no bias, because the batch normalisation behind it has one.

    Attributes:
        num_classes: Number of logits.
        axis_name: Mapped axis over which batch statistics are averaged.
        dtype: Type of the computation; parameters and statistics are float32.
    """

    num_classes: int
    axis_name: str | None = None
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, x: jax.Array, *, train: bool) -> jax.Array:
        """Computes logits.

        Args:
            x: Images, shape (B, H, W, C), H and W at least 2.
            train: Whether to normalise with the statistics of this batch and to update
                the collection `batch_stats`, which must then be mutable.

        Returns:
            Logits, shape (B, num_classes), float32.

        Raises:
            ValueError: If the images are smaller.
        """
        conv = functools.partial(
            nn.Conv,
            kernel_size=(3, 3),
            use_bias=False,
            dtype=self.dtype,
        )
        norm = functools.partial(
            nn.BatchNorm,
            use_running_average=not train,
            momentum=0.9,
            epsilon=1e-5,
            axis_name=self.axis_name,
            dtype=self.dtype,
        )
        x = nn.relu(norm(name="bn1")(conv(32, name="conv1")(x)))
        x = nn.relu(norm(name="bn2")(conv(64, name="conv2")(x)))
        x = nn.max_pool(x, (2, 2), strides=(2, 2))
        x = flattened(x, "2x2 pixels")
        x = nn.Dense(128, dtype=self.dtype, name="dense1")(x)
        x = nn.relu(x)
        return nn.Dense(self.num_classes, dtype=jnp.float32, name="dense2")(x)
