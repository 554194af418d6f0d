"""Small versions of many architectures, for the tests of channels.

An `Architecture` is a pure function `apply_fn(variables, *inputs)`, its variables and
its inputs. Widths are small and odd, so that no two axes agree by chance. Variables are
drawn at random in NumPy, statistics of normalisation too, so that nothing is zero or
one by convention.
"""

import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np


class Architecture(NamedTuple):
    """A network: `apply_fn(variables, *inputs)`, and its variables and inputs."""

    apply_fn: Callable[..., Any]
    variables: Any
    inputs: tuple[Any, ...]


def draw(shapes: Any, seed: int = 0) -> Any:
    """Draws float32 variables of the given shapes, of about unit gain."""
    rng = np.random.default_rng(seed)

    def one(path, leaf):
        if not jnp.issubdtype(leaf.dtype, jnp.floating):
            return jnp.zeros(leaf.shape, leaf.dtype)
        name = jax.tree_util.keystr(path)
        if "var" in name:
            value = rng.uniform(0.5, 1.5, leaf.shape)
        elif "scale" in name:
            value = 1 + 0.2 * rng.standard_normal(leaf.shape)
        elif len(leaf.shape) < 2:
            value = 0.2 * rng.standard_normal(leaf.shape)
        else:
            fan_in = np.prod(leaf.shape[:-1])
            value = rng.standard_normal(leaf.shape) * np.sqrt(1.5 / fan_in)
        return jax.device_put(np.asarray(value, np.float32))

    return jax.tree_util.tree_map_with_path(one, shapes)


def images(size=16, channels=3, batch=2):
    """Draws images."""
    rng = np.random.default_rng(1)
    return jnp.asarray(rng.standard_normal((batch, size, size, channels)), jnp.float32)


def tokens(length=6, vocabulary=11, batch=2):
    """Draws token numbers."""
    return jnp.asarray(
        np.random.default_rng(2).integers(0, vocabulary, (batch, length)), jnp.int32
    )


def linen(model: nn.Module, x, *, train: bool | None = None) -> Architecture:
    """Makes the architecture of a Linen module; `train` is passed if not None."""
    options = {} if train is None else {"train": train}
    shapes = jax.eval_shape(
        lambda: model.init(jax.random.key(0), x, **(options and {"train": False}))
    )

    def apply_fn(variables, x):
        mutable = ["batch_stats"] if train else False
        return model.apply(variables, x, mutable=mutable, **options)

    return Architecture(apply_fn, draw(shapes), (x,))


# Convolutional networks.


class ConvNorm(nn.Module):
    """Convolution, batch norm, activation."""

    width: int
    kernel: int = 3
    stride: int = 1
    groups: int = 1
    act: Callable = nn.relu
    norm: str = "batch"

    @nn.compact
    def __call__(self, x, train=False):
        window = (self.kernel, self.kernel)
        x = nn.Conv(
            self.width,
            window,
            self.stride,
            feature_group_count=self.groups,
            use_bias=False,
        )(x)
        if self.norm == "group":
            x = nn.GroupNorm(num_groups=4)(x)
        else:
            x = nn.BatchNorm(use_running_average=not train)(x)
        return self.act(x)


def identity(x):
    """Returns its argument."""
    return x


class MLP(nn.Module):
    @nn.compact
    def __call__(self, x):
        x = x.reshape((x.shape[0], -1))
        x = nn.relu(nn.Dense(13)(x))
        x = nn.gelu(nn.Dense(9)(x))
        return nn.Dense(5)(x)


class VGG16(nn.Module):
    @nn.compact
    def __call__(self, x, train=False):
        for stage, depth in enumerate((2, 2, 3, 3, 3)):
            for _ in range(depth):
                x = ConvNorm(4 + 2 * stage)(x, train)
            if stage < 3:
                x = nn.max_pool(x, (2, 2), (2, 2))
        x = x.reshape((x.shape[0], -1))
        return nn.Dense(5)(nn.relu(nn.Dense(11)(x)))


class BasicNet(nn.Module):
    """ResNet-18: two basic blocks a stage."""

    norm: str = "batch"
    widths: tuple = (8, 12, 16)

    @nn.compact
    def __call__(self, x, train=False):
        layer = functools.partial(ConvNorm, norm=self.norm)
        x = layer(self.widths[0])(x, train)
        for stage, width in enumerate(self.widths):
            for block in range(2):
                stride = 2 if stage and not block else 1
                y = layer(width, stride=stride)(x, train)
                y = layer(width, act=identity)(y, train)
                if x.shape != y.shape:
                    x = layer(width, 1, stride, act=identity)(x, train)
                x = nn.relu(x + y)
        return nn.Dense(5)(x.mean((1, 2)))


class Bottlenecks(nn.Module):
    """ResNet-50 and ResNeXt: bottlenecks, grouped or not."""

    groups: int = 1

    @nn.compact
    def __call__(self, x, train=False):
        x = ConvNorm(8, 5, 2)(x, train)
        x = nn.max_pool(x, (3, 3), (2, 2), "SAME")
        for stage, width in enumerate((4, 6)):
            for block in range(2):
                stride = 2 if stage and not block else 1
                y = ConvNorm(width, 1)(x, train)
                y = ConvNorm(width, 3, stride, groups=self.groups)(y, train)
                y = ConvNorm(4 * width, 1, act=identity)(y, train)
                if x.shape != y.shape:
                    x = ConvNorm(4 * width, 1, stride, act=identity)(x, train)
                x = nn.relu(x + y)
        return nn.Dense(5)(x.mean((1, 2)))


class PreActivation(nn.Module):
    @nn.compact
    def __call__(self, x, train=False):
        def norm(x):
            return nn.relu(nn.BatchNorm(use_running_average=not train)(x))

        x = nn.Conv(6, (3, 3))(x)
        for width in (6, 6, 10):
            y = norm(x)
            shortcut = nn.Conv(width, (1, 1))(y) if x.shape[-1] != width else x
            y = nn.Conv(width, (3, 3))(norm(nn.Conv(width, (3, 3))(y)))
            x = shortcut + y
        return nn.Dense(5)(norm(x).mean((1, 2)))


class PaddedShortcuts(nn.Module):
    """ResNet with option A: shortcuts are subsampled and padded with zeros."""

    @nn.compact
    def __call__(self, x, train=False):
        x = ConvNorm(4)(x, train)
        for width, stride in ((4, 1), (8, 2), (12, 2)):
            y = ConvNorm(width, stride=stride)(x, train)
            y = ConvNorm(width, act=identity)(y, train)
            x = x[:, ::stride, ::stride]
            half = (width - x.shape[-1]) // 2
            x = nn.relu(y + jnp.pad(x, ((0, 0), (0, 0), (0, 0), (half, half))))
        return nn.Dense(5)(x.mean((1, 2)))


class DenseNet(nn.Module):
    @nn.compact
    def __call__(self, x, train=False):
        def layer(x, width, kernel):
            x = nn.relu(nn.BatchNorm(use_running_average=not train)(x))
            return nn.Conv(width, (kernel, kernel), use_bias=False)(x)

        x = nn.Conv(6, (3, 3))(x)
        for block in range(2):
            for _ in range(3):
                x = jnp.concatenate([x, layer(layer(x, 8, 1), 5, 3)], -1)
            if not block:
                x = nn.avg_pool(layer(x, 9, 1), (2, 2), (2, 2))
        return nn.Dense(5)(x.mean((1, 2)))


class Inception(nn.Module):
    @nn.compact
    def __call__(self, x, train=False):
        x = ConvNorm(6)(x, train)
        for _ in range(2):
            a = ConvNorm(4, 1)(x, train)
            b = ConvNorm(5)(ConvNorm(3, 1)(x, train), train)
            c = ConvNorm(3, 5)(ConvNorm(2, 1)(x, train), train)
            d = ConvNorm(4, 1)(nn.max_pool(x, (3, 3), padding="SAME"), train)
            x = jnp.concatenate([a, b, c, d], -1)
        return nn.Dense(5)(x.mean((1, 2)))


def shuffle(x, groups):
    """Shuffles channels between groups."""
    *rest, channels = x.shape
    x = x.reshape((*rest, groups, channels // groups))
    return jnp.swapaxes(x, -1, -2).reshape((*rest, channels))


class ShuffleNet(nn.Module):
    @nn.compact
    def __call__(self, x, train=False):
        x = ConvNorm(16)(x, train)
        for _ in range(2):
            y = ConvNorm(16, 1, groups=2)(x, train)
            y = ConvNorm(16, 3, groups=16, act=identity)(shuffle(y, 2), train)
            y = ConvNorm(16, 1, groups=2, act=identity)(y, train)
            x = nn.relu(x + y)
        return nn.Dense(5)(x.mean((1, 2)))


class ShuffleNetV2(nn.Module):
    @nn.compact
    def __call__(self, x, train=False):
        x = ConvNorm(12)(x, train)
        for _ in range(2):
            a, b = jnp.split(x, 2, axis=-1)
            b = ConvNorm(6, 1)(b, train)
            b = ConvNorm(6, 3, groups=6, act=identity)(b, train)
            b = ConvNorm(6, 1)(b, train)
            x = shuffle(jnp.concatenate([a, b], -1), 2)
        return nn.Dense(5)(x.mean((1, 2)))


class MobileNetV1(nn.Module):
    @nn.compact
    def __call__(self, x, train=False):
        x = ConvNorm(6, stride=2)(x, train)
        for width, stride in ((8, 1), (10, 2), (10, 1)):
            x = ConvNorm(x.shape[-1], 3, stride, groups=x.shape[-1])(x, train)
            x = ConvNorm(width, 1)(x, train)
        return nn.Dense(5)(x.mean((1, 2)))


def squeeze_excite(x, width, gate=nn.sigmoid):
    """Gates channels by their means."""
    y = nn.relu(nn.Conv(width, (1, 1))(x.mean((1, 2), keepdims=True)))
    return x * gate(nn.Conv(x.shape[-1], (1, 1))(y))


class MobileNet(nn.Module):
    """V2 (ReLU6), V3 (hard swish, gates) and EfficientNet (swish, gates)."""

    act: Callable = nn.relu6
    gate: Callable | None = None
    kernels: tuple = (3,)

    @nn.compact
    def __call__(self, x, train=False):
        layer = functools.partial(ConvNorm, act=self.act)
        x = layer(8, stride=2)(x, train)
        for width, stride in ((8, 1), (10, 2), (10, 1)):
            y = layer(12, 1)(x, train)
            parts = jnp.split(y, len(self.kernels), axis=-1)
            parts = [
                layer(p.shape[-1], k, stride, p.shape[-1])(p, train)
                for p, k in zip(parts, self.kernels, strict=True)
            ]
            y = jnp.concatenate(parts, -1)
            if self.gate is not None:
                y = squeeze_excite(y, 3, self.gate)
            y = layer(width, 1, act=identity)(y, train)
            x = x + y if x.shape == y.shape else y
        return nn.Dense(5)(layer(14, 1)(x, train).mean((1, 2)))


class ConvNeXt(nn.Module):
    @nn.compact
    def __call__(self, x):
        x = nn.LayerNorm()(nn.Conv(6, (4, 4), 4)(x))
        for block in range(2):
            y = nn.LayerNorm()(nn.Conv(6, (7, 7), feature_group_count=6)(x))
            y = nn.Dense(6)(nn.gelu(nn.Dense(14)(y)))
            gamma = self.param(f"gamma{block}", nn.initializers.ones, (1, 1, 1, 6))
            x = x + y * gamma
        return nn.Dense(5)(nn.LayerNorm()(x.mean((1, 2))))


class UNet(nn.Module):
    @nn.compact
    def __call__(self, x, train=False):
        a = ConvNorm(4)(x, train)
        b = ConvNorm(6)(nn.max_pool(a, (2, 2), (2, 2)), train)
        c = ConvNorm(8)(nn.max_pool(b, (2, 2), (2, 2)), train)
        up = nn.ConvTranspose(7, (2, 2), (2, 2))(c)
        b = ConvNorm(6)(jnp.concatenate([b, up], -1), train)
        up = nn.ConvTranspose(5, (2, 2), (2, 2))(b)
        a = ConvNorm(4)(jnp.concatenate([a, up], -1), train)
        return nn.Conv(2, (1, 1))(a)


class FPN(nn.Module):
    @nn.compact
    def __call__(self, x, train=False):
        levels = []
        for width in (4, 6, 8):
            x = ConvNorm(width, stride=2)(x, train)
            levels.append(x)
        above, outs = None, []
        for level in reversed(levels):
            y = nn.Conv(7, (1, 1))(level)
            if above is not None:
                batch, height, width, channels = y.shape
                shape = batch, height, width, channels
                y += jax.image.resize(above, shape, "nearest")
            above = y
            outs.append(nn.Conv(3, (3, 3))(nn.relu(nn.Conv(5, (3, 3))(y))))
        return outs


class DilatedGenerator(nn.Module):
    """Dense, unflatten, dilated and transposed convolutions, pixel shuffle."""

    @nn.compact
    def __call__(self, x):
        x = nn.relu(nn.Dense(4 * 4 * 6)(x.mean((1, 2))))
        x = x.reshape((x.shape[0], 4, 4, 6))
        x = nn.leaky_relu(nn.Conv(8, (3, 3), kernel_dilation=2)(x))
        x = nn.tanh(nn.ConvTranspose(12, (3, 3), (2, 2))(x))
        batch, height, width, channels = x.shape
        x = x.reshape((batch, height, width, 2, 2, channels // 4))
        x = x.transpose((0, 1, 3, 2, 4, 5)).reshape((batch, 16, 16, channels // 4))
        return nn.Conv(3, (3, 3))(x)


# Transformers and other sequence models.


class EncoderBlock(nn.Module):
    heads: int = 3
    hidden: int = 14
    pre_norm: bool = True

    @nn.compact
    def __call__(self, x, _=None):
        attention = nn.MultiHeadDotProductAttention
        attend = attention(self.heads, qkv_features=self.heads * 4)
        mlp = nn.Sequential([nn.Dense(self.hidden), nn.gelu, nn.Dense(x.shape[-1])])
        if self.pre_norm:
            x = x + attend(nn.LayerNorm()(x))
            return x + mlp(nn.LayerNorm()(x))
        x = nn.LayerNorm()(x + attend(x))
        return nn.LayerNorm()(x + mlp(x))


class ViT(nn.Module):
    @nn.compact
    def __call__(self, x):
        x = nn.Conv(10, (4, 4), 4)(x)
        x = x.reshape((x.shape[0], -1, x.shape[-1]))
        start = self.param("class", nn.initializers.normal(), (1, 1, 10))
        x = jnp.concatenate([jnp.tile(start, (x.shape[0], 1, 1)), x], 1)
        x = x + self.param("position", nn.initializers.normal(), (1, x.shape[1], 10))
        for _ in range(2):
            x = EncoderBlock()(x)
        return nn.Dense(5)(nn.LayerNorm()(x)[:, 0])


class BERT(nn.Module):
    @nn.compact
    def __call__(self, x):
        embed = nn.Embed(11, 10)
        positions = jnp.arange(x.shape[1])[None]
        x = nn.LayerNorm()(embed(x) + nn.Embed(16, 10)(positions))
        for _ in range(2):
            x = EncoderBlock(pre_norm=False)(x)
        return embed.attend(nn.LayerNorm()(nn.gelu(nn.Dense(10)(x))))


def rotate(x):
    """Rotary position embedding of (B, T, H, D)."""
    half = x.shape[-1] // 2
    angles = jnp.arange(x.shape[1])[:, None] / 10.0 ** jnp.linspace(0, 1, half)[None]
    sin, cos = jnp.sin(angles)[:, None, :], jnp.cos(angles)[:, None, :]
    sin, cos = sin[None].astype(x.dtype), cos[None].astype(x.dtype)
    a, b = jnp.split(x, 2, axis=-1)
    return jnp.concatenate([a * cos - b * sin, a * sin + b * cos], -1)


class GPT(nn.Module):
    """Decoder: grouped-query attention, rotary positions, SwiGLU, RMS norm, tied."""

    heads: int = 4
    groups: int = 2
    size: int = 6

    @nn.compact
    def __call__(self, x):
        embed = nn.Embed(11, 10)
        x = embed(x)
        dense = functools.partial(nn.Dense, use_bias=False)
        for _ in range(2):
            y = nn.RMSNorm()(x)
            batch, length, _ = y.shape
            q = dense(self.heads * self.size)(y).reshape(batch, length, -1, self.size)
            k = dense(self.groups * self.size)(y).reshape(batch, length, -1, self.size)
            v = dense(self.groups * self.size)(y).reshape(batch, length, -1, self.size)
            times = self.heads // self.groups
            q, k = rotate(q), jnp.repeat(rotate(k), times, axis=2)
            v = jnp.repeat(v, times, axis=2)
            scores = jnp.einsum("bthd,bshd->bhts", q, k)
            causal = jnp.tril(jnp.ones((length, length), bool))
            scores = jnp.where(causal[None, None], scores, jnp.finfo(x.dtype).min)
            y = jnp.einsum("bhts,bshd->bthd", nn.softmax(scores), v)
            x = x + dense(10)(y.reshape(batch, length, -1))
            y = nn.RMSNorm()(x)
            x = x + dense(10)(nn.silu(dense(14)(y)) * dense(14)(y))
        return embed.attend(nn.RMSNorm()(x))


class FusedGLU(nn.Module):
    """One projection for queries, keys and values; one for both halves of a GLU."""

    @nn.compact
    def __call__(self, x):
        x = nn.Embed(11, 10)(x)
        batch, length, _ = x.shape
        qkv = nn.Dense(3 * 3 * 4)(nn.LayerNorm()(x))
        q, k, v = jnp.moveaxis(qkv.reshape(batch, length, 3, 3, 4), 2, 0)
        y = nn.dot_product_attention(q, k, v)
        x = x + nn.Dense(10)(y.reshape(batch, length, -1))
        return nn.Dense(5)(nn.glu(nn.Dense(2 * 7)(nn.LayerNorm()(x))))


class Mixer(nn.Module):
    @nn.compact
    def __call__(self, x):
        x = nn.Conv(10, (4, 4), 4)(x)
        x = x.reshape((x.shape[0], -1, x.shape[-1]))
        for _ in range(2):
            y = jnp.swapaxes(nn.LayerNorm()(x), 1, 2)
            y = nn.Dense(x.shape[1])(nn.gelu(nn.Dense(7)(y)))
            x = x + jnp.swapaxes(y, 1, 2)
            x = x + nn.Dense(10)(nn.gelu(nn.Dense(13)(nn.LayerNorm()(x))))
        return nn.Dense(5)(x.mean(1))


class Recurrent(nn.Module):
    """GRU, then LSTM, under scan."""

    @nn.compact
    def __call__(self, x):
        x = nn.Embed(11, 6)(x)
        start = jnp.zeros((x.shape[0], 7), x.dtype)
        x = nn.RNN(nn.GRUCell(7))(x, initial_carry=start)
        start = jnp.zeros((x.shape[0], 9), x.dtype)
        x = nn.RNN(nn.OptimizedLSTMCell(9))(x, initial_carry=(start, start))
        return nn.Dense(5)(x)


class ScannedTransformer(nn.Module):
    """Layers stacked under scan, each recomputed in the backward pass."""

    depth: int = 3

    @nn.compact
    def __call__(self, x):
        class Block(nn.Module):
            @nn.compact
            def __call__(self, x, _):
                return EncoderBlock()(x), None

        x = nn.Embed(11, 10)(x)
        block = nn.scan(
            nn.remat(Block, prevent_cse=False),
            variable_axes={"params": 0},
            split_rngs={"params": True},
            length=self.depth,
        )
        x, _ = block()(x, None)
        return nn.Dense(5)(nn.LayerNorm()(x))


# Plain JAX.


def tied_autoencoder() -> Architecture:
    """Encoder and decoder share their weights."""
    shapes = {
        "w1": jax.ShapeDtypeStruct((12, 9), jnp.float32),
        "b1": jax.ShapeDtypeStruct((9,), jnp.float32),
        "w2": jax.ShapeDtypeStruct((9, 5), jnp.float32),
        "b2": jax.ShapeDtypeStruct((9,), jnp.float32),
    }

    def apply_fn(params, x):
        h = jnp.tanh(x @ params["w1"] + params["b1"][None])
        z = jax.nn.softplus(h @ params["w2"])
        h = jnp.tanh(z @ params["w2"].T + params["b2"][None])
        return h @ params["w1"].T

    x = jnp.asarray(np.random.default_rng(3).standard_normal((2, 12)), jnp.float32)
    return Architecture(apply_fn, draw(shapes), (x,))


def stacked_branches() -> Architecture:
    """Branches stacked along a new axis, mixed, interleaved, and taken apart again."""
    shapes = {
        name: jax.ShapeDtypeStruct(shape, jnp.float32)
        for name, shape in {
            **{"a": (12, 9), "b": (12, 9), "mix": (2, 2), "read": (18, 7)},
            **{"left": (7, 3), "right": (2, 9, 3)},
        }.items()
    }

    def apply_fn(params, x):
        both = jnp.stack([jnp.tanh(x @ params["a"]), x @ params["b"]], axis=-1)
        mixed = both @ params["mix"]
        read = jnp.tanh(mixed.reshape(len(x), -1) @ params["read"]) @ params["left"]
        first, second = jnp.unstack(mixed, axis=2)
        one, other = jnp.unstack(params["right"])
        return read + first @ one + jnp.sin(second) @ other

    x = jnp.asarray(np.random.default_rng(4).standard_normal((2, 12)), jnp.float32)
    return Architecture(apply_fn, draw(shapes), (x,))


@jax.custom_vjp
def spike(v):
    """A step, whose derivative is that of a smooth surrogate."""
    return jnp.where(v > 0, 1.0, 0.0).astype(v.dtype)


spike.defvjp(lambda v: (spike(v), v), lambda v, g: (g / (1 + jnp.abs(v)) ** 2,))


def spiking() -> Architecture:
    """Leaky integrate-and-fire neurons under scan, surrogate derivatives."""
    shapes = {
        "w1": jax.ShapeDtypeStruct((6, 9), jnp.float32),
        "decay": jax.ShapeDtypeStruct((9,), jnp.float32),
        "w2": jax.ShapeDtypeStruct((9, 4), jnp.float32),
    }

    def apply_fn(params, x):
        def step(carry, x):
            potential, fired = carry
            decay = jax.nn.sigmoid(params["decay"])[None]
            potential = decay * potential * (1 - fired) + x @ params["w1"]
            fired = spike(potential - 0.5)
            return (potential, fired), fired

        start = jnp.zeros((x.shape[0], 9), x.dtype)
        _, spikes = jax.lax.scan(step, (start, start), jnp.swapaxes(x, 0, 1))
        return spikes.mean(0) @ params["w2"]

    x = np.random.default_rng(4).standard_normal((2, 5, 6))
    return Architecture(apply_fn, draw(shapes), (jnp.asarray(x, jnp.float32),))


def control_flow() -> Architecture:
    """`cond` and `while` around channels, with a constant vector closed over."""
    shapes = {
        "w1": jax.ShapeDtypeStruct((6, 9), jnp.float32),
        "w2": jax.ShapeDtypeStruct((9, 9), jnp.float32),
        "w3": jax.ShapeDtypeStruct((9, 4), jnp.float32),
    }
    ramp = jnp.linspace(0.5, 1.5, 9)

    def apply_fn(params, x):
        h = jnp.tanh(x @ params["w1"]) * ramp.astype(x.dtype)[None]

        def body(carry):
            n, h = carry
            return n + 1, jnp.sin(h @ params["w2"])

        _, h = jax.lax.while_loop(lambda carry: carry[0] < 3, body, (0, h))
        h = jax.lax.cond(x[0, 0] > 0, lambda h: h * 2, lambda h: -h, h)
        return h @ params["w3"]

    x = jnp.asarray(np.random.default_rng(5).standard_normal((2, 6)), jnp.float32)
    return Architecture(apply_fn, draw(shapes), (x,))


def _image_nets() -> dict[str, Callable[[bool], nn.Module]]:
    return {
        "vgg16": VGG16,
        "resnet18": BasicNet,
        "resnet50": Bottlenecks,
        "resnext": functools.partial(Bottlenecks, groups=2),
        "preactivation_resnet": PreActivation,
        "padded_shortcut_resnet": PaddedShortcuts,
        "densenet": DenseNet,
        "inception": Inception,
        "shufflenet": ShuffleNet,
        "shufflenet_v2": ShuffleNetV2,
        "mobilenet_v1": MobileNetV1,
        "mobilenet_v2": MobileNet,
        "mobilenet_v3": functools.partial(
            MobileNet, act=nn.hard_swish, gate=nn.hard_sigmoid
        ),
        "efficientnet": functools.partial(MobileNet, act=nn.swish, gate=nn.sigmoid),
        "mixnet": functools.partial(MobileNet, kernels=(3, 5, 7)),
        "unet": UNet,
        "fpn": FPN,
        "groupnorm_resnet": functools.partial(BasicNet, "group", (8, 8, 16)),
    }


def architectures() -> dict[str, Callable[[], Architecture]]:
    """Returns the table: name to a function that makes the architecture."""
    table: dict[str, Callable[[], Architecture]] = {}
    for name, model in _image_nets().items():
        table[name] = functools.partial(_image_net, model, False)
    for name in ("resnet18", "densenet", "mobilenet_v3", "unet"):
        table[f"{name}_training"] = functools.partial(
            _image_net, _image_nets()[name], True
        )
    for name, model in {
        "mlp": MLP,
        "convnext": ConvNeXt,
        "generator": DilatedGenerator,
        "vit": ViT,
        "mixer": Mixer,
    }.items():
        table[name] = functools.partial(lambda m: linen(m(), images()), model)
    for name, model in {
        "bert": BERT,
        "gpt": GPT,
        "fused_glu": FusedGLU,
        "recurrent": Recurrent,
        "scanned_transformer": ScannedTransformer,
    }.items():
        table[name] = functools.partial(lambda m: linen(m(), tokens()), model)
    table["tied_autoencoder"] = tied_autoencoder
    table["stacked_branches"] = stacked_branches
    table["spiking"] = spiking
    table["control_flow"] = control_flow
    return table


def _image_net(model, train):
    return linen(model(), images(), train=train)
