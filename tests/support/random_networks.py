"""Small random networks, in plain JAX, for the property test of compaction.

A network is grown by random steps. Each takes arrays made so far, in NHWC, and makes
another, so that additions, concatenations, splits, reshapes and reductions meet in
combinations that nobody would write down.
"""

import jax
import jax.numpy as jnp
import numpy as np

from tests.support.architectures import Architecture, draw

_NUMBERS = ("NHWC", "HWIO", "NHWC")


class _Net:
    """Runs the drawn steps, either to declare parameters or to use them."""

    def __init__(self, seed, params=None):
        self.rng = np.random.default_rng(seed)
        self.params = params
        self.shapes = {}

    def weight(self, *shape):
        name = f"w{len(self.shapes)}"
        self.shapes[name] = jax.ShapeDtypeStruct(shape, jnp.float32)
        if self.params is None:
            return jnp.zeros(shape)
        return self.params[name]

    def conv(self, x, width, groups=1):
        window = int(self.rng.choice([1, 3]))
        kernel = self.weight(window, window, x.shape[-1] // groups, width)
        return jax.lax.conv_general_dilated(
            x,
            kernel,
            (1, 1),
            "SAME",
            rhs_dilation=(int(self.rng.choice([1, 2])),) * 2,
            feature_group_count=groups,
            dimension_numbers=_NUMBERS,
        )

    def per_channel(self, x):
        return self.weight(x.shape[-1])[None, None, None]


def _conv(net, x, others):
    return net.conv(x, int(net.rng.integers(3, 9)))


def _grouped(net, x, others):
    sizes = [g for g in (2, 3, 4, 6) if x.shape[-1] % g == 0]
    groups = int(net.rng.choice(sizes or [1]))
    return net.conv(x, groups * int(net.rng.integers(1, 4)), groups)


def _depthwise(net, x, others):
    return net.conv(x, x.shape[-1] * int(net.rng.choice([1, 2])), x.shape[-1])


def _norm(net, x, others):
    mean = x.mean((0, 1, 2), keepdims=True)
    spread = jnp.sqrt(jnp.square(x - mean).mean((0, 1, 2), keepdims=True) + 1e-3)
    return (x - mean) / spread * net.per_channel(x) + net.per_channel(x)


def _layer_norm(net, x, others):
    x = x - x.mean(-1, keepdims=True)
    return x / jnp.sqrt(jnp.square(x).mean(-1, keepdims=True) + 1e-3)


def _group_norm(net, x, others):
    sizes = [g for g in (2, 3, 4) if x.shape[-1] % g == 0]
    groups = int(net.rng.choice(sizes or [1]))
    y = x.reshape((*x.shape[:-1], groups, -1))
    y = y / jnp.sqrt(jnp.square(y).mean((1, 2, 4), keepdims=True) + 1e-3)
    return y.reshape(x.shape) * net.per_channel(x)


def _activation(net, x, others):
    functions = [jax.nn.relu, jnp.tanh, jax.nn.gelu, jax.nn.silu, jnp.abs, jnp.exp]
    return functions[net.rng.integers(len(functions))](jnp.clip(x, -3, 3) + 0.1)


def _residual(net, x, others):
    same = [y for y in others if y.shape == x.shape]
    return x + same[net.rng.integers(len(same))]


def _product(net, x, others):
    same = [y for y in others if y.shape == x.shape]
    return x * jax.nn.sigmoid(same[net.rng.integers(len(same))])


def _concat(net, x, others):
    y = others[net.rng.integers(len(others))]
    return jnp.concatenate([x, y], -1) if x.shape[-1] + y.shape[-1] < 25 else x


def _halves(net, x, others):
    if x.shape[-1] % 2:
        return x[..., 1:]
    a, b = jnp.split(x, 2, axis=-1)
    return a * jax.nn.sigmoid(b) if net.rng.integers(2) else a - b


def _slice(net, x, others):
    start = int(net.rng.integers(0, 2))
    return x[..., start :: int(net.rng.integers(1, 3))]


def _reverse(net, x, others):
    return x[..., ::-1]


def _roll(net, x, others):
    return jnp.roll(x, 1, axis=-1)


def _pad(net, x, others):
    low, high = net.rng.integers(0, 3, 2)
    return jnp.pad(x, ((0, 0), (0, 0), (0, 0), (int(low), int(high))))


def _shuffle(net, x, others):
    if x.shape[-1] % 2:
        return x
    y = x.reshape((*x.shape[:-1], 2, -1))
    return jnp.swapaxes(y, -1, -2).reshape(x.shape)


def _repeat(net, x, others):
    return jnp.repeat(x, 2, axis=-1) if x.shape[-1] < 9 else x


def _excite(net, x, others):
    y = jax.nn.relu(x.mean((1, 2)) @ net.weight(x.shape[-1], 3))
    return x * jax.nn.sigmoid(y @ net.weight(3, x.shape[-1]))[:, None, None]


def _gram(net, x, others):
    y = x.reshape((x.shape[0], -1, x.shape[-1]))
    scores = jnp.tanh(y @ jnp.swapaxes(y, 1, 2) / y.shape[-1])
    return (scores @ y / y.shape[1]).reshape(x.shape)


def _heads(net, x, others):
    batch, height, width, channels = x.shape
    y = x.reshape((batch, height * width, channels))
    q, k, v = (y @ net.weight(channels, 6) for _ in range(3))
    q, k, v = (z.reshape((batch, -1, 2, 3)) for z in (q, k, v))
    scores = jax.nn.softmax(jnp.einsum("bqhd,bkhd->bhqk", q, k))
    out = jnp.einsum("bhqk,bkhd->bqhd", scores, v).reshape((batch, height, width, 6))
    return out @ net.weight(6, channels)


def _recurrence(net, x, others):
    weight = net.weight(x.shape[-1], x.shape[-1])

    def step(carry, row):
        carry = jnp.tanh(row + carry @ weight)
        return carry, carry

    start = jnp.zeros((x.shape[0], x.shape[2], x.shape[3]), x.dtype)
    _, rows = jax.lax.scan(step, start, jnp.swapaxes(x, 0, 1))
    return jnp.swapaxes(rows, 0, 1)


def _layers(net, x, others):
    stack = net.weight(2, x.shape[-1], 5)
    back = net.weight(2, 5, x.shape[-1])

    def layer(carry, weights):
        up, down = weights
        return carry + jax.nn.relu(carry @ up) @ down, None

    return jax.lax.scan(jax.checkpoint(layer), x, (stack, back))[0]


def _branch(net, x, others):
    weight = net.weight(x.shape[-1], x.shape[-1])
    return jax.lax.cond(x[0, 0, 0, 0] > 0, lambda x: x @ weight, lambda x: 2 * x, x)


def _constant(net, x, others):
    scale = np.linspace(0.5, 1.5, x.shape[-1])
    return x * jnp.asarray(scale, x.dtype)[None, None, None]


def _maximum(net, x, others):
    return x - 0.5 * x.max(-1, keepdims=True)


def _cumulative(net, x, others):
    return jnp.cumsum(x, axis=int(net.rng.choice([1, 3]))) / 4


def _pool(net, x, others):
    return jax.lax.reduce_window(
        x, -jnp.inf, jax.lax.max, (1, 2, 2, 1), (1, 1, 1, 1), "SAME"
    )


_COMMON = [_conv, _conv, _norm, _activation, _residual, _residual, _concat, _halves]
_STEPS = [
    *_COMMON,
    _grouped,
    _depthwise,
    _layer_norm,
    _group_norm,
    _product,
    _slice,
    _reverse,
    _roll,
    _pad,
    _shuffle,
    _repeat,
    _excite,
    _gram,
    _heads,
    _recurrence,
    _layers,
    _branch,
    _constant,
    _maximum,
    _cumulative,
    _pool,
]


def _run(net, x):
    arrays = [net.conv(x, int(net.rng.choice([4, 6, 8])))]
    for _ in range(int(net.rng.integers(4, 10))):
        step = _STEPS[net.rng.integers(len(_STEPS))]
        x = arrays[-1 if net.rng.random() < 0.8 else net.rng.integers(len(arrays))]
        arrays.append(jnp.clip(step(net, x, arrays), -4, 4))
    x = arrays[-1]
    if net.rng.integers(2):
        x = x.reshape((x.shape[0], -1))
        return x @ net.weight(x.shape[-1], 3)
    return net.conv(x, 2)


def draw_network(seed: int) -> Architecture:
    """Draws a network; equal seeds give equal networks."""
    x = np.random.default_rng(seed + 1).standard_normal((2, 4, 4, 3))
    x = jnp.asarray(x, jnp.float32)
    net = _Net(seed)
    jax.eval_shape(lambda x: _run(net, x), x)

    def apply_fn(params, x):
        return _run(_Net(seed, params), x)

    return Architecture(apply_fn, draw(dict(net.shapes), seed), (x,))
