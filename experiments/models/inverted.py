"""Inverted residuals, and the networks that consist of them."""

import dataclasses
import functools
from collections.abc import Callable, Sequence
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from experiments.models.layers import convolution, layers_of

Activation = Callable[[jax.Array], jax.Array]


class Mixed(nn.Module):
    """Convolutions of several kernel sizes, each of its share of the channels.

    Attributes:
        filters: Output channels.
        sizes: A kernel size for each share; equal ones make a convolution in groups.
        stride: Stride of all.
        depthwise: Whether every channel is convolved by itself.
        dtype: Type of the computation; parameters and statistics are float32.
    """

    filters: int
    sizes: Sequence[int]
    stride: int = 1
    depthwise: bool = False
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """Maps (B, H, W, C) to (B, H / stride, W / stride, filters)."""
        into, out = shares(x.shape[-1], self.sizes), shares(self.filters, self.sizes)
        done, start = [], 0
        for i, (size, channels, filters) in enumerate(
            zip(self.sizes, into, out, strict=True), start=1
        ):
            conv = convolution(
                filters,
                size,
                stride=self.stride,
                groups=channels if self.depthwise else 1,
                dtype=self.dtype,
                name=f"conv{i}" if len(self.sizes) > 1 else "conv",
            )
            done.append(conv(x[..., start : start + channels]))
            start += channels
        return jnp.concatenate(done, axis=-1) if len(done) > 1 else done[0]


def shares(channels: int, sizes: Sequence[int]) -> list[int]:
    """Returns equal shares of channels; the first takes what is over."""
    each = channels // len(sizes)
    return [channels - each * (len(sizes) - 1), *[each] * (len(sizes) - 1)]


class SqueezeExcite(nn.Module):
    """Scales each channel by a sigmoid of two dense layers of the channels' means.

    Attributes:
        hidden: Channels between the two.
        activation: Behind the first.
        dtype: Type of the computation; parameters and statistics are float32.
    """

    hidden: int
    activation: Activation
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """Maps (B, H, W, C) to the same shape."""
        y = jnp.mean(x, axis=(1, 2))
        y = self.activation(nn.Dense(self.hidden, dtype=self.dtype, name="reduce")(y))
        y = nn.Dense(x.shape[-1], dtype=self.dtype, name="expand")(y)
        return x * nn.sigmoid(y)[:, None, None]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Stage:
    """Blocks that are alike, but for the stride of the first.

    Attributes:
        filters: Output channels.
        blocks: Number of blocks.
        stride: Stride of the first block; the others have 1.
        expansion: How many times the input is widened; 1 leaves that convolution out.
        sizes: Kernel sizes of the middle convolution, each of a share of the channels.
        squeeze: Channels of the squeeze, as a fraction of the input's; 0 for none.
        expand_shares: Into how many shares the first convolution is split.
        project_shares: Into how many shares the last convolution is split.
        activation: Behind the first two convolutions.
    """

    filters: int
    blocks: int = 1
    stride: int = 1
    expansion: int = 6
    sizes: tuple[int, ...] = (3,)
    squeeze: float = 0.0
    expand_shares: int = 1
    project_shares: int = 1
    activation: Activation


class InvertedResidual(nn.Module):
    """1x1 to more channels, a convolution of each by itself, 1x1 to few channels.

    The input is added where shape and stride allow it.

    Attributes:
        stage: What the block is.
        stride: Stride of the middle convolution.
        axis_name: Mapped axis over which batch statistics are averaged.
        dtype: Type of the computation; parameters and statistics are float32.
    """

    stage: Stage
    stride: int
    axis_name: str | None
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, x: jax.Array, *, train: bool) -> jax.Array:
        """Maps (B, H, W, C) to (B, H / stride, W / stride, filters)."""
        _, bn = layers_of(self, train=train)
        mixed = functools.partial(Mixed, dtype=self.dtype)
        stage = self.stage
        wide, y = stage.expansion * x.shape[-1], x
        if stage.expansion > 1:
            y = mixed(wide, (1,) * stage.expand_shares, name="expand")(y)
            y = stage.activation(bn(name="expand_bn")(y))
        y = mixed(wide, stage.sizes, self.stride, depthwise=True, name="depthwise")(y)
        y = stage.activation(bn(name="depthwise_bn")(y))
        if stage.squeeze:
            hidden = round(stage.squeeze * x.shape[-1])
            squeeze = SqueezeExcite(
                hidden, stage.activation, self.dtype, name="squeeze"
            )
            y = squeeze(y)
        y = mixed(stage.filters, (1,) * stage.project_shares, name="project")(y)
        y = bn(name="project_bn")(y)
        return x + y if y.shape == x.shape else y


class InvertedResiduals(nn.Module):
    """A 3x3 convolution of stride 2, stages of blocks, a 1x1 one, a dense layer.

    Attributes:
        num_classes: Number of logits.
        axis_name: Mapped axis over which batch statistics are averaged.
        stem: Filters of the first convolution.
        stages: The stages, in order.
        head: Filters of the last convolution.
        activation: Behind the first and the last convolution.
        dtype: Type of the computation; parameters and statistics are float32.
    """

    num_classes: int
    axis_name: str | None = None
    stem: int = 32
    stages: Sequence[Stage] = ()
    head: int = 1280
    activation: Activation = nn.relu
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, x: jax.Array, *, train: bool) -> jax.Array:
        """Computes logits.

        Args:
            x: Images, shape (B, H, W, C), H and W at least 32.
            train: Whether to normalise with the statistics of this batch and to update
                the collection `batch_stats`, which must then be mutable.

        Returns:
            Logits, shape (B, num_classes), float32.
        """
        conv, bn = layers_of(self, train=train)
        x = conv(self.stem, 3, stride=2, name="conv0")(x)
        x = self.activation(bn(name="bn0")(x))
        blocks = [(s, i) for s in self.stages for i in range(s.blocks)]
        for index, (stage, place) in enumerate(blocks, start=1):
            stride = stage.stride if place == 0 else 1
            block = InvertedResidual(
                stage, stride, self.axis_name, self.dtype, name=f"block{index}"
            )
            x = block(x, train=train)
        x = self.activation(bn(name="bn1")(conv(self.head, 1, name="conv1")(x)))
        x = jnp.mean(x, axis=(1, 2))
        return nn.Dense(self.num_classes, dtype=jnp.float32, name="dense")(x)
