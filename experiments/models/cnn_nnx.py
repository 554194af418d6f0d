"""The network of `experiments.models.cnn`, in NNX.

Its parameter leaves carry the names of the Linen network (`conv1/kernel`, ...), and
from equal arrays both compute equal logits and equal batch statistics. It stands for
every NNX model: the library sees a pytree either way.
"""

import functools

import jax
import jax.numpy as jnp
from flax import nnx


class CNN(nnx.Module):
    """Two 3x3 convolutions with batch normalisation, one pooling, two dense layers.

    Args:
        image_shape: Shape (H, W, C) of one image. NNX makes its parameters at
            construction, so the width of `dense1` must be known here.
        num_classes: Number of logits.
        axis_name: Mapped axis over which batch statistics are averaged.
        rngs: Source of the initial parameters.
    """

    def __init__(
        self,
        image_shape: tuple[int, int, int],
        num_classes: int,
        *,
        axis_name: str | None = None,
        rngs: nnx.Rngs,
    ):
        height, width, channels = image_shape
        conv = functools.partial(
            nnx.Conv,
            kernel_size=(3, 3),
            use_bias=False,
            dtype=jnp.float32,
            rngs=rngs,
        )
        norm = functools.partial(
            nnx.BatchNorm,
            momentum=0.9,
            epsilon=1e-5,
            axis_name=axis_name,
            dtype=jnp.float32,
            rngs=rngs,
        )
        self.conv1 = conv(channels, 32)
        self.bn1 = norm(32)
        self.conv2 = conv(32, 64)
        self.bn2 = norm(64)
        self.dense1 = nnx.Linear(
            (height // 2) * (width // 2) * 64,
            128,
            dtype=jnp.float32,
            rngs=rngs,
        )
        self.dense2 = nnx.Linear(128, num_classes, dtype=jnp.float32, rngs=rngs)

    def __call__(self, x: jax.Array, *, train: bool) -> jax.Array:
        """Computes logits.

        Args:
            x: Images, shape (B, H, W, C).
            train: Whether to normalise with the statistics of this batch and to update
                the running statistics in place.

        Returns:
            Logits, shape (B, num_classes), float32.
        """
        x = nnx.relu(self.bn1(self.conv1(x), use_running_average=not train))
        x = nnx.relu(self.bn2(self.conv2(x), use_running_average=not train))
        x = nnx.max_pool(x, (2, 2), strides=(2, 2))
        x = x.reshape((x.shape[0], -1))
        return self.dense2(nnx.relu(self.dense1(x)))
