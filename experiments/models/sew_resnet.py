"""Spiking residual networks: SEW ResNet-18, and a small one for small images.

Every block adds the spikes of its second neurons to those at its input (SEW, "spike
element wise", with ADD), so that a block whose neurons are silent passes on what it is
given. Neurons integrate and fire without a leak. The picture is the input of every one
of the T steps (direct encoding), so that the first convolution is computed once; the
mean over time of what the last block sends goes to the classifier.

SEW ResNet-18 has the 11 689 512 parameters of ResNet-18, and a step of time takes as
many multiplications. With 16, 32 and 64 filters, 10 classes and one channel the small
one has 77 370 parameters.

References:
    Fang et al., Deep Residual Learning in Spiking Neural Networks, NeurIPS 2021,
    arXiv:2102.04159, Eq. 8 and Table 1 (ADD), Fig. 1.
"""

from collections.abc import Sequence
from typing import Any, ClassVar

import flax.linen as nn
import jax
import jax.numpy as jnp

from experiments.models.layers import halving_pool, layers_of
from experiments.models.spiking import at_every_step, neurons


class SpikingBlock(nn.Module):
    """Two 3x3 convolutions with neurons behind each, and a shortcut around them.

    Attributes:
        filters: Output channels.
        stride: Stride of the first convolution and of the shortcut.
        axis_name: Mapped axis over which batch statistics are averaged.
        dtype: Type of the computation; parameters and statistics are float32.
    """

    filters: int
    stride: int
    axis_name: str | None
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, x: jax.Array, *, train: bool) -> jax.Array:
        """Maps (T, B, H, W, C) to (T, B, H / stride, W / stride, filters), float32."""
        conv, bn = layers_of(self, train=train)

        def layer(x, size, stride, names):
            convolve = conv(self.filters, size, stride=stride, name=names[0])
            normalise = bn(name=names[1], dtype=jnp.float32)  # potentials are sums
            return neurons(at_every_step(lambda x: normalise(convolve(x)), x))

        y = layer(x, 3, self.stride, ("conv1", "bn1"))
        y = layer(y, 3, 1, ("conv2", "bn2"))
        if x.shape[-1] != self.filters or self.stride != 1:
            x = layer(x, 1, self.stride, ("shortcut_conv", "shortcut_bn"))
        return y + x


class SEWResNet(nn.Module):
    """A spiking residual network.

    Attributes:
        num_classes: Number of logits.
        blocks: Number of blocks of each stage.
        width: Filters of the first stage; each further stage has twice as many.
        axis_name: Mapped axis over which batch statistics are averaged.
        small_images: Whether to begin with a 3x3 convolution of stride 1 and no
            pooling, for images of 8x8 to 32x32 pixels.
        steps: Steps of time, T.
        reads_numbers: Names of the layers that read numbers; all others read spikes.
        dtype: Type of the computation; parameters and statistics are float32.
    """

    num_classes: int
    blocks: Sequence[int] = (2, 2, 2, 2)
    width: int = 64
    axis_name: str | None = None
    small_images: bool = False
    steps: int = 4
    reads_numbers: ClassVar[frozenset[str]] = frozenset({"conv0", "dense"})
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, x: jax.Array, *, train: bool) -> jax.Array:
        """Computes logits.

        Args:
            x: Images, shape (B, H, W, C).
            train: Whether to normalise with the statistics of this batch and to update
                the collection `batch_stats`, which must then be mutable.

        Returns:
            Logits, shape (B, num_classes), float32.
        """
        conv, bn = layers_of(self, train=train)
        size, stride = (3, 1) if self.small_images else (7, 2)
        x = conv(self.width, size, stride=stride, name="conv0")(x)
        x = bn(name="bn0", dtype=jnp.float32)(x)
        x = neurons(jnp.broadcast_to(x, (self.steps, *x.shape)))
        if not self.small_images:
            x = at_every_step(halving_pool, x)
        for stage, count in enumerate(self.blocks):
            for block in range(1, count + 1):
                x = SpikingBlock(
                    self.width * 2**stage,
                    stride=2 if stage > 0 and block == 1 else 1,
                    axis_name=self.axis_name,
                    dtype=self.dtype,
                    name=f"stage{stage + 1}_block{block}",
                )(x, train=train)
        x = jnp.mean(x, axis=(0, 2, 3))
        return nn.Dense(self.num_classes, dtype=jnp.float32, name="dense")(x)
