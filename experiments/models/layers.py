"""Layers that several models share: convolution without bias, norm, pooling."""

import functools
from collections.abc import Callable
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

FAN_IN = nn.initializers.kaiming_normal()


def convolution(
    filters: int,
    size: int,
    *,
    stride: int = 1,
    groups: int = 1,
    init: Callable[..., Any] = FAN_IN,
    padding: str | int | None = None,
    dtype: Any = jnp.float32,
    name: str,
) -> nn.Conv:
    """Makes a square convolution without bias: a normalisation behind it has one.

    Args:
        filters: Output channels.
        size: Height and width of the kernel.
        stride: Stride in both directions.
        groups: Groups of channels that are convolved by themselves.
        init: Initialiser of the kernel; by default normal, variance 2 / fan-in.
        padding: As `nn.Conv` has it; by default symmetric, `size // 2` on each side,
            so that weights trained elsewhere fit where the stride is 2.
        dtype: Type of the computation; the kernel is float32.
        name: Name of the layer.

    Returns:
        The layer.
    """
    return nn.Conv(
        filters,
        (size, size),
        strides=(stride, stride),
        padding=size // 2 if padding is None else padding,
        feature_group_count=groups,
        use_bias=False,
        kernel_init=init,
        dtype=dtype,
        name=name,
    )


def flattened(x: jax.Array, least: str) -> jax.Array:
    """Flattens feature maps: (B, ...) to (B, N).

    Args:
        x: Feature maps of shape (B, ...).
        least: The smallest input of the model, such as "63x63 pixels", for the message.

    Returns:
        The features of each example, shape (B, N) with N at least 1.

    Raises:
        ValueError: If poolings and strides left nothing of the input.
    """
    if not all(x.shape[1:]):
        raise ValueError(
            f"`model(x)` requires inputs `x` of at least {least}; the last feature "
            f"map has the shape {x.shape}. Give larger inputs, by "
            "`--config.data.image_size` in a run."
        )
    return x.reshape(x.shape[0], -1)


def halving_pool(x: jax.Array) -> jax.Array:
    """Takes the largest of 3x3 with stride 2, padded by 1: (B, H, W, C) to halves."""
    # Flax declares a string, and documents pairs too.
    around = ((1, 1), (1, 1))
    return nn.max_pool(x, (3, 3), (2, 2), around)  # pyright: ignore[reportArgumentType]


def norm(
    *, train: bool, axis_name: str | None, dtype: Any = jnp.float32, name: str
) -> nn.BatchNorm:
    """Makes a batch normalisation; running statistics move by a tenth each step.

    Args:
        train: Whether to normalise with the statistics of the batch.
        axis_name: Mapped axis over which they are averaged.
        dtype: Type of the result; statistics and parameters are float32.
        name: Name of the layer.

    Returns:
        The layer.
    """
    return nn.BatchNorm(
        use_running_average=not train,
        momentum=0.9,
        epsilon=1e-5,
        axis_name=axis_name,
        dtype=dtype,
        name=name,
    )


def layers_of(module: Any, *, train: bool, **fields: Any) -> tuple[Any, Any]:
    """Returns `convolution` and `norm` with `dtype` and `axis_name` of a module.

    Args:
        module: The module that the layers are for.
        train: As `norm` has it.
        fields: Further arguments of `convolution`, the same for all.
    """
    dtype, axis_name = module.dtype, module.axis_name
    return (
        functools.partial(convolution, dtype=dtype, **fields),
        functools.partial(norm, train=train, axis_name=axis_name, dtype=dtype),
    )


def average_to(x: jax.Array, size: int) -> jax.Array:
    """Averages maps to `size` rows and columns, whatever they have.

        row i = mean of the rows from floor(i H / size) to before ceil((i + 1) H / size)

    Networks with dense layers behind a map so take images of other sizes, as those of
    torchvision do.

    Args:
        x: Maps, shape (B, H, W, C).
        size: H and W of the result.

    Returns:
        Maps, shape (B, size, size, C); `x` itself where it has this size.
    """
    for axis in (1, 2):
        length = x.shape[axis]
        if length != size:
            windows = [
                jax.lax.slice_in_dim(
                    x, i * length // size, -((i + 1) * length // -size), axis=axis
                )
                for i in range(size)
            ]
            x = jnp.stack([jnp.mean(window, axis) for window in windows], axis)
    return x
