"""NNX versions of architectures of `tests.architectures`."""

import functools
from collections.abc import Callable

import jax
import jax.numpy as jnp
from flax import nnx

from tests.support.architectures import Architecture, draw, images, shuffle, tokens


class ConvNorm(nnx.Module):
    def __init__(self, ins, outs, kernel=3, stride=1, groups=1, norm="batch", *, rngs):
        window = (kernel, kernel)
        self.conv = nnx.Conv(
            ins,
            outs,
            window,
            stride,
            feature_group_count=groups,
            use_bias=False,
            rngs=rngs,
        )
        if norm == "group":
            self.norm = nnx.GroupNorm(outs, num_groups=4, rngs=rngs)
        else:
            self.norm = nnx.BatchNorm(outs, use_running_average=True, rngs=rngs)

    def __call__(self, x):
        return nnx.relu(self.norm(self.conv(x)))


class Stack(nnx.Module):
    """Layers one after the other, global pooling, a classifier."""

    def __init__(self, layers, width, *, rngs):
        self.layers = nnx.List(layers)
        self.head = nnx.Linear(width, 5, rngs=rngs)

    def __call__(self, x):
        for layer in self.layers:
            x = layer(x)
        return self.head(x.mean(tuple(range(1, x.ndim - 1))))


class Residual(nnx.Module):
    def __init__(self, *layers, shortcut=None):
        self.layers = nnx.List(layers)
        self.shortcut = shortcut

    def __call__(self, x):
        y = x if self.shortcut is None else self.shortcut(x)
        for layer in self.layers:
            x = layer(x)
        return x + y


class Dense(nnx.Module):
    """A layer whose result is put beside its operand."""

    def __init__(self, layer):
        self.layer = layer

    def __call__(self, x):
        return jnp.concatenate([x, self.layer(x)], -1)


class Gate(nnx.Module):
    def __init__(self, width, *, rngs):
        self.down = nnx.Linear(width, 3, rngs=rngs)
        self.up = nnx.Linear(3, width, rngs=rngs)

    def __call__(self, x):
        y = x.mean((1, 2), keepdims=True)
        return x * nnx.sigmoid(self.up(nnx.relu(self.down(y))))


class Shuffle(nnx.Module):
    def __call__(self, x):
        return shuffle(x, 2)


class Flatten(nnx.Module):
    def __call__(self, x):
        return x.reshape((x.shape[0], -1))


class Attend(nnx.Module):
    def __init__(self, width, *, rngs):
        self.norm = nnx.LayerNorm(width, rngs=rngs)
        self.attention = nnx.MultiHeadAttention(
            3, width, 12, decode=False, rngs=rngs, deterministic=True
        )
        self.up = nnx.Linear(width, 2 * 7, rngs=rngs)
        self.down = nnx.Linear(7, width, rngs=rngs)

    def __call__(self, x):
        x = x + self.attention(self.norm(x))
        return x + self.down(nnx.glu(self.up(x)))


class Patches(nnx.Module):
    def __init__(self, width, *, rngs):
        self.conv = nnx.Conv(3, width, (4, 4), 4, rngs=rngs)

    def __call__(self, x):
        x = self.conv(x)
        return x.reshape((x.shape[0], -1, x.shape[-1]))


class Recurrent(nnx.Module):
    """A GRU, unrolled."""

    def __init__(self, *, rngs):
        self.embed = nnx.Embed(11, 6, rngs=rngs)
        self.cell = nnx.GRUCell(6, 7, rngs=rngs)
        self.head = nnx.Linear(7, 5, rngs=rngs)

    def __call__(self, x):
        x = self.embed(x)
        carry = jnp.zeros((x.shape[0], 7), x.dtype)
        for step in range(x.shape[1]):
            carry, _ = self.cell(carry, x[:, step])
        return self.head(carry)


class UNet(nnx.Module):
    def __init__(self, *, rngs):
        self.down = ConvNorm(3, 4, rngs=rngs)
        self.low = ConvNorm(4, 6, stride=2, rngs=rngs)
        self.up = nnx.ConvTranspose(6, 5, (2, 2), (2, 2), rngs=rngs)
        self.out = ConvNorm(9, 4, rngs=rngs)
        self.head = nnx.Conv(4, 2, (1, 1), rngs=rngs)

    def __call__(self, x):
        x = self.down(x)
        y = self.up(self.low(x))
        return self.head(self.out(jnp.concatenate([x, y], -1)))


def _mlp(rngs):
    layers = [Flatten(), nnx.Linear(768, 13, rngs=rngs), nnx.gelu]
    return nnx.Sequential(*layers, nnx.Linear(13, 5, rngs=rngs))


def _models() -> dict[str, Callable]:
    def stack(layers, width):
        return lambda rngs: Stack(
            [layer(rngs=rngs) for layer in layers], width, rngs=rngs
        )

    def residual(*layers, shortcut=None):
        return lambda rngs: Residual(
            *(layer(rngs=rngs) for layer in layers),
            shortcut=None if shortcut is None else shortcut(rngs=rngs),
        )

    conv = functools.partial
    dense = lambda *args: lambda rngs: Dense(ConvNorm(*args, rngs=rngs))
    shuffled = lambda rngs: Shuffle()
    return {
        "mlp": _mlp,
        "vgg": stack([conv(ConvNorm, 3, 6), conv(ConvNorm, 6, 8, 3, 2)], 8),
        "resnet": stack(
            [
                conv(ConvNorm, 3, 6),
                residual(conv(ConvNorm, 6, 9), conv(ConvNorm, 9, 6)),
                residual(conv(ConvNorm, 6, 8), shortcut=conv(ConvNorm, 6, 8, 1)),
            ],
            8,
        ),
        "groupnorm_resnet": stack(
            [
                conv(ConvNorm, 3, 8, norm="group"),
                residual(conv(ConvNorm, 8, 8, norm="group")),
            ],
            8,
        ),
        "densenet": stack([conv(ConvNorm, 3, 6), dense(6, 4), dense(10, 5)], 15),
        "mobilenet": stack(
            [
                conv(ConvNorm, 3, 6),
                conv(ConvNorm, 6, 12, 3, 2, 6),
                conv(Gate, 12),
                conv(ConvNorm, 12, 8, 1),
            ],
            8,
        ),
        "shufflenet": stack(
            [
                conv(ConvNorm, 3, 16),
                conv(ConvNorm, 16, 16, 1, groups=2),
                shuffled,
                conv(ConvNorm, 16, 16, 3, groups=16),
            ],
            16,
        ),
        "unet": lambda rngs: UNet(rngs=rngs),
        "vit": stack([conv(Patches, 10), conv(Attend, 10)], 10),
        "recurrent": lambda rngs: Recurrent(rngs=rngs),
    }


def architectures() -> dict[str, Callable[[], Architecture]]:
    """Returns the table: name to a function that makes the architecture."""

    def make(build, x):
        def shaped():
            return nnx.split(build(nnx.Rngs(0)), (nnx.Param, nnx.BatchStat), ...)

        graphdef, state, rest = nnx.eval_shape(shaped)
        rest = jax.tree.map(lambda leaf: jnp.zeros((), jnp.uint32), rest)
        apply_fn = lambda state, x: nnx.merge(graphdef, state, rest)(x)
        return Architecture(apply_fn, draw(state), (x,))

    inputs = {"recurrent": tokens()}
    return {
        f"nnx_{name}": functools.partial(make, build, inputs.get(name, images()))
        for name, build in _models().items()
    }
