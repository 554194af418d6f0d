"""Networks for the tests of the library: a CNN, its twin in NNX, a residual network.

All name their layers, so that a test can name a leaf. `architectures` holds the many
small networks that only have to be different from each other.
"""

import functools

import flax.linen as nn
import jax
import jax.numpy as jnp
from flax import nnx

_norm = functools.partial(nn.BatchNorm, momentum=0.9, epsilon=1e-5)
_conv = functools.partial(nn.Conv, use_bias=False)
_FAN_OUT = nn.initializers.variance_scaling(2.0, "fan_out", "truncated_normal")


class CNN(nn.Module):
    """Two convolutions with batch normalisation, one pooling, two dense layers.

    `axis_name` is the mapped axis over which batch statistics are averaged.
    """

    num_classes: int = 10
    axis_name: str | None = None

    @nn.compact
    def __call__(self, x, *, train):
        norm = functools.partial(
            _norm, use_running_average=not train, axis_name=self.axis_name
        )
        x = nn.relu(norm(name="bn1")(_conv(12, (3, 3), name="conv1")(x)))
        x = nn.relu(norm(name="bn2")(_conv(20, (3, 3), name="conv2")(x)))
        x = nn.max_pool(x, (2, 2), strides=(2, 2))
        x = nn.relu(nn.Dense(28, name="dense1")(x.reshape((x.shape[0], -1))))
        return nn.Dense(self.num_classes, name="dense2")(x)


class NnxCNN(nnx.Module):
    """The same network in NNX: equal names, and equal outputs for equal arrays."""

    def __init__(self, image_shape, num_classes=10, *, rngs):
        height, width, channels = image_shape
        conv = functools.partial(
            nnx.Conv, kernel_size=(3, 3), use_bias=False, rngs=rngs
        )
        norm = functools.partial(nnx.BatchNorm, momentum=0.9, epsilon=1e-5, rngs=rngs)
        self.conv1, self.bn1 = conv(channels, 12), norm(12)
        self.conv2, self.bn2 = conv(12, 20), norm(20)
        flat = (height // 2) * (width // 2) * 20
        self.dense1 = nnx.Linear(flat, 28, rngs=rngs)
        self.dense2 = nnx.Linear(28, num_classes, rngs=rngs)

    def __call__(self, x, *, train):
        x = nnx.relu(self.bn1(self.conv1(x), use_running_average=not train))
        x = nnx.relu(self.bn2(self.conv2(x), use_running_average=not train))
        x = nnx.max_pool(x, (2, 2), strides=(2, 2))
        return self.dense2(nnx.relu(self.dense1(x.reshape((x.shape[0], -1)))))


class Block(nn.Module):
    """Two convolutions, and a shortcut that is projected where the shape changes."""

    filters: int
    stride: int

    @nn.compact
    def __call__(self, x, *, train):
        norm = functools.partial(_norm, use_running_average=not train)

        def conv(size, stride, name):
            window, strides = (size, size), (stride, stride)
            return _conv(self.filters, window, strides, kernel_init=_FAN_OUT, name=name)

        shortcut = x
        if x.shape[-1] != self.filters or self.stride != 1:
            shortcut = conv(1, self.stride, "shortcut_conv")(x)
            shortcut = norm(name="shortcut_bn")(shortcut)
        x = nn.relu(norm(name="bn1")(conv(3, self.stride, "conv1")(x)))
        return nn.relu(norm(name="bn2")(conv(3, 1, "conv2")(x)) + shortcut)


class ResNet(nn.Module):
    """A residual network for small images of `6 * blocks_per_stage + 2` layers."""

    num_classes: int = 10
    blocks_per_stage: int = 1

    @nn.compact
    def __call__(self, x, *, train):
        x = _conv(16, (3, 3), kernel_init=_FAN_OUT, name="conv0")(x)
        x = nn.relu(_norm(use_running_average=not train, name="bn0")(x))
        for stage, filters in enumerate((16, 32, 64), start=1):
            for block in range(1, self.blocks_per_stage + 1):
                stride = 2 if stage > 1 and block == 1 else 1
                name = f"stage{stage}_block{block}"
                x = Block(filters, stride, name=name)(x, train=train)
        return nn.Dense(self.num_classes, name="dense")(jnp.mean(x, axis=(1, 2)))


def twins(image_shape, key):
    """The CNN in Linen and in NNX, with equal arrays in both.

    Returns:
        The module and its variables; NNX's graph, parameters and statistics.
    """
    linen = CNN()
    x = jnp.zeros((1, *image_shape))
    variables = jax.jit(functools.partial(linen.init, train=False))(key, x)
    graph, params, stats = nnx.split(
        NnxCNN(image_shape, rngs=nnx.Rngs(0)), nnx.Param, nnx.BatchStat
    )
    nnx.replace_by_pure_dict(params, variables["params"])
    nnx.replace_by_pure_dict(stats, variables["batch_stats"])
    return (linen, variables), (graph, params, stats)


def abstract(model, image_shape=(32, 32, 3), **options):
    """Variables and a batch of one image, as shapes."""
    x = jax.ShapeDtypeStruct((1, *image_shape), jnp.float32)
    init = functools.partial(model.init, **options)
    return jax.eval_shape(init, jax.random.key(0), x), x
