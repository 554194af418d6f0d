"""Inverted residuals, of which MobileNetV2, EfficientNet and MixNet are made."""

import functools
from collections.abc import Callable, Sequence

import flax.linen as nn
import jax
import jax.numpy as jnp

from experiments.models.layers import convolution, norm


class Mixed(nn.Module):
    """Convolutions of several kernel sizes, each of its share of the channels.

    Attributes:
        filters: Output channels.
        sizes: A kernel size for each share; equal ones make a convolution in groups.
        stride: Stride of all.
        depthwise: Whether every channel is convolved by itself.
    """

    filters: int
    sizes: Sequence[int]
    stride: int = 1
    depthwise: bool = False

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """Maps (B, H, W, C) to (B, H / stride, W / stride, filters), float32."""
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
    """

    hidden: int
    activation: Callable[[jax.Array], jax.Array]

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """Maps (B, H, W, C) to the same shape, float32."""
        y = jnp.mean(x, axis=(1, 2))
        y = self.activation(nn.Dense(self.hidden, dtype=jnp.float32, name="reduce")(y))
        y = nn.Dense(x.shape[-1], dtype=jnp.float32, name="expand")(y)
        return x * nn.sigmoid(y)[:, None, None]


class InvertedResidual(nn.Module):
    """1x1 to more channels, a convolution of each by itself, 1x1 to few channels.

    The input is added where shape and stride allow it.

    Attributes:
        filters: Output channels.
        axis_name: Mapped axis over which batch statistics are averaged.
        stride: Stride of the middle convolution.
        expansion: How many times the input is widened; 1 leaves that convolution out.
        sizes: Kernel sizes of the middle convolution, each of a share of the channels.
        squeeze: Channels of the squeeze, as a fraction of the input's; 0 for none.
        expand_shares: Into how many shares the first convolution is split.
        project_shares: Into how many shares the last convolution is split.
        activation: Behind the first two convolutions.
    """

    filters: int
    axis_name: str | None
    stride: int = 1
    expansion: int = 6
    sizes: Sequence[int] = (3,)
    squeeze: float = 0.0
    expand_shares: int = 1
    project_shares: int = 1
    activation: Callable[[jax.Array], jax.Array] = nn.relu6

    @nn.compact
    def __call__(self, x: jax.Array, *, train: bool) -> jax.Array:
        """Maps (B, H, W, C) to (B, H / stride, W / stride, filters), float32."""
        bn = functools.partial(norm, train=train, axis_name=self.axis_name)
        wide, y = self.expansion * x.shape[-1], x
        if self.expansion > 1:
            y = Mixed(wide, (1,) * self.expand_shares, name="expand")(y)
            y = self.activation(bn(name="expand_bn")(y))
        y = Mixed(wide, self.sizes, self.stride, depthwise=True, name="depthwise")(y)
        y = self.activation(bn(name="depthwise_bn")(y))
        if self.squeeze:
            hidden = round(self.squeeze * x.shape[-1])
            y = SqueezeExcite(hidden, self.activation, name="squeeze")(y)
        y = Mixed(self.filters, (1,) * self.project_shares, name="project")(y)
        y = bn(name="project_bn")(y)
        return x + y if y.shape == x.shape else y
