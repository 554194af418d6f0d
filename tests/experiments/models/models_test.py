"""Models of the experiments: sizes, names, the NNX twin, statistics over an axis."""

import functools
import math

import flax
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen as nn
from flax import nnx

import jaxprune
from experiments import models
from experiments.models import cnn_nnx, layers
from tests.support.rows import rows

# Dense: in * out + out. Convolution: height * width * in * out, no bias. Batch
# normalisation: 2 * channels (and as many running statistics, not counted).
_SIZES = {
    # 784 * 300 + 300 + 300 * 100 + 100 + 100 * 10 + 10
    ("mlp", (28, 28, 1)): 266_610,
    # conv1 9 * 1 * 32 = 288, bn1 64, conv2 9 * 32 * 64 = 18432, bn2 128,
    # dense1 4 * 4 * 64 * 128 + 128 = 131200, dense2 128 * 10 + 10 = 1290
    ("cnn", (8, 8, 1)): 151_402,
    # With n blocks per stage, 3 input channels and 10 classes:
    #   conv0 and bn0        9 * 3 * 16 + 2 * 16                       = 464
    #   stage 1, each block  2 * (9 * 16 * 16 + 2 * 16)                = 4672
    #   stage 2, first       9 * 16 * 32 + 9 * 32 * 32 + 2 * 2 * 32
    #                        + shortcut 16 * 32 + 2 * 32               = 14528
    #            others      2 * (9 * 32 * 32 + 2 * 32)                = 18560
    #   stage 3, first       9 * 32 * 64 + 9 * 64 * 64 + 2 * 2 * 64
    #                        + shortcut 32 * 64 + 2 * 64               = 57728
    #            others      2 * (9 * 64 * 64 + 2 * 64)                = 73984
    #   dense                64 * 10 + 10                              = 650
    ("resnet20", (32, 32, 3)): 272_474,
    ("resnet32", (32, 32, 3)): 466_906,
    ("resnet56", (32, 32, 3)): 855_770,
    # Kernels 5 * 1 * 25 + 2 * 3 * 25 * 25 + 5 * 25 * 10 = 5125, biases 3 * 25 + 10
    ("cnn1d", (40, 1)): 5_210,
    # the same kernels, norms 3 * 2 * 25, a bias of 10
    ("cnn1d_norm", (40, 1)): 5_285,
    # Kernels 40 * 256 + 256 * 256 + 256 * 10 = 78336, biases 2 * 256 + 10
    ("mlp1d", (40, 1)): 78_858,
}

# Parameters, and the multiplications of convolutions and dense layers, which tell
# strides apart: for images of (32, 32, 3) and 10 classes ...
_PUBLISHED = {
    # Parameters: 9 * c * f + 2 * f for each convolution, dense 512 * 10 + 10.
    #   stage 1  1856 + 36992, stage 2  73984 + 147712, stage 3  295424 + 2 * 590336,
    #   stage 4  1180672 + 2 * 2360320, stage 5  3 * 2360320
    # Multiplications: 9 * c * f * height * width
    #   stage 1  1769472 + 37748736, stage 2  18874368 + 37748736,
    #   stage 3  18874368 + 2 * 37748736, stage 4 as stage 3,
    #   stage 5  3 * 9437184, dense 5120
    ("vgg16", 32, 10): (14_724_042, 313_201_664),
    # conv0 and bn0 9 * 3 * 64 + 128 = 1856 instead of 9536, dense 5130.
    ("resnet18_cifar", 32, 10): (11_173_962, 555_422_720),
}

# ... and as above for images of (224, 224, 3) and 1000 classes.
_IMAGENET = {
    # conv0 and bn0       49 * 3 * 64 + 2 * 64                             = 9536
    # first block of f filters on c channels (each later stage has stride 2):
    #   9 * c * f + 2 * f + 9 * f * f + 2 * f (+ c * f + 2 * f where c != f)
    # stage 1  73984 + 73984                                               = 147968
    # stage 2  230144 + 295424, stage 3  919040 + 1180672                  = 2625280
    # stage 4  3673088 + 4720640                                           = 8393728
    # dense    512 * 1000 + 1000                                           = 513000
    "resnet18": (11_689_512, 1_814_073_344),
    # the same blocks, 3, 4, 6 and 3 of them:
    #   221952 + 1116416 + 6822400 + 13114368
    "resnet34": (21_797_672, 3_663_761_408),
    # A bottleneck of f filters on c channels, e = 4 * f:
    #   c * f + 2 * f + 9 * f * f + 2 * f + f * e + 2 * e, and c * e + 2 * e more
    #   for the shortcut of the first one
    # conv0 and bn0                                                        = 9536
    # stage 1  75008 + 2 * 70400                                           = 215808
    # stage 2  379392 + 3 * 280064                                         = 1219584
    # stage 3  1512448 + 5 * 1117184                                       = 7098368
    # stage 4  6039552 + 2 * 4462592                                       = 14964736
    # dense    2048 * 1000 + 1000                                          = 2049000
    "resnet50": (25_557_032, 4_089_184_256),
    # the parameters of ResNet-18; but for conv0 and dense, four times as often:
    #   118013952 + 512000 + 4 * 1695547392
    "sew_resnet18": (11_689_512, 6_900_715_520),
    # convolutions k * k * c * f + f: 23296 + 307392 + 663936 + 884992 + 590080
    # dense 9216 * 4096 + 4096, 4096 * 4096 + 4096, 4096 * 1000 + 1000
    "alexnet": (61_100_840, 714_188_480),
    # A convolution has a bias: 9 * c * f + 3 * f
    #   stage 1  1920 + 37056, stage 2  74112 + 147840, stage 3  295680 + 2 * 590592,
    #   stage 4  1181184 + 2 * 2360832, stage 5  3 * 2360832
    # dense    (7 * 7 * 512 + 1) * 4096 + 4097 * 4096 + 4097 * 1000        = 123642856
    # Multiplications: 15346630656, and 123633664 of the dense layers
    "vgg16_bn": (138_365_992, 15_470_264_320),
    # conv0 and bn0       27 * 32 + 2 * 32                                 = 928
    # a block from c to f channels: 9 * c + 2 * c + c * f + 2 * f
    #   32 -> 64, 64 -> 128, 128 -> 128, 128 -> 256, 256 -> 256, 256 -> 512:
    #   2528 + 9152 + 18048 + 34688 + 68864 + 134912                       = 268192
    #   5 times 512 -> 512                             5 * 268800          = 1344000
    #   512 -> 1024, 1024 -> 1024                      531968 + 1061888    = 1593856
    # dense               1024 * 1000 + 1000                               = 1025000
    "mobilenetv1": (4_231_976, 568_740_352),
    # conv0 and bn0       27 * 32 + 2 * 32                                 = 928
    # a block from c to f channels with t * c = w in between:
    #   c * w + 2 * w (not where t = 1) + 9 * w + 2 * w + w * f + 2 * f
    # stages   896 + 13968 + 39696 + 183872 + 303168 + 795264 + 473920     = 1810784
    # conv1 and bn1       320 * 1280 + 2 * 1280                            = 412160
    # dense               1280 * 1000 + 1000                               = 1281000
    "mobilenetv2": (3_504_872, 300_774_272),
    # as above, and a squeeze of w channels to h = c / 4: 2 * w * h + h + w
    #   928 + 1448 + 16714 + 46640 + 242930 + 543148 + 2026348 + 717232
    #   + 412160 + 1281000
    "efficientnet_b0": (5_288_548, 385_814_752),
    # 1x1 convolutions in two shares have half of the weights; kernels of k x k for a
    # share of s channels k * k * s; squeezes to c / 2 or c / 4
    #   464 + 464 + 3216 + 2712 + 17468 + 73740 + 32010 + 175080 + 102360 + 206520
    #   + 361900 + 1311400 + conv1 and bn1 310272 + dense 1537000
    "mixnet_s": (4_134_606, 239_173_360),
    # For width w and t = 197 tokens:
    #   patches 768 * w + w, class token w, positions t * w
    #   a layer 2 * 2 * w + 4 * (w * w + w) + 8 * w * w + 5 * w
    #   norm 2 * w, dense w * 1000 + 1000
    # Multiplications: patches 196 * 768 * w, a layer 12 * t * w * w, its attention
    # 2 * t * t * w, dense w * 1000
    "vit_s16": (22_050_664, 4_598_882_304),
    "vit_b16": (86_567_656, 17_563_828_224),
}
_PUBLISHED |= {(name, 224, 1000): count for name, count in _IMAGENET.items()}


def sizes(params):
    return sum(leaf.size for leaf in jax.tree.leaves(params))


def names(tree):
    return set(flax.traverse_util.flatten_dict(tree, sep="/"))


@pytest.mark.parametrize(("name", "image_shape"), _SIZES)
def test_parameter_count(name, image_shape):
    model = models.create(name, 10)
    variables = jax.eval_shape(
        lambda: model.init(jax.random.key(0), jnp.zeros((1, *image_shape)), train=False)
    )
    assert sizes(variables["params"]) == _SIZES[name, image_shape]


def test_a_convolution_of_signals_is_that_of_flax_with_its_first_weights():
    x = jax.random.normal(jax.random.key(1), (3, 40, 1))
    ours, theirs = models.create("cnn1d", 10), _FlaxCNN1D()
    params = ours.init(jax.random.key(0), x, train=True)
    jax.tree.map(
        np.testing.assert_array_equal, params, theirs.init(jax.random.key(0), x)
    )
    np.testing.assert_allclose(
        ours.apply(params, x, train=True), theirs.apply(params, x), rtol=0, atol=2e-6
    )


class _FlaxCNN1D(nn.Module):
    @nn.compact
    def __call__(self, x):
        for index, size in enumerate((5, 3, 3), start=1):
            conv = nn.Conv(25, (size,), strides=2, padding=1, name=f"conv{index}")
            x = nn.relu(conv(x))
        return nn.Dense(10, name="dense")(x.reshape((x.shape[0], -1)))


def test_channels_of_signals_are_removed_from_all_taps_of_a_kernel():
    model = models.create("cnn1d_norm", 10)
    x = jax.random.normal(jax.random.key(1), (3, 40, 1))
    variables = model.init(jax.random.key(0), x, train=False)
    graph = jaxprune.trace_channels(
        functools.partial(model.apply, train=False), variables, x
    )
    assert {name: group.size for name, group in graph.groups.items()} == {
        f"params/conv{index}/kernel:2": 25 for index in (1, 2, 3)
    }
    masks = {name: np.arange(25) % 5 != 0 for name in graph.groups}
    small = graph.compact(masks, variables)
    shapes = jax.tree.map(jnp.shape, small.trees[0]["params"])
    assert shapes["conv2"]["kernel"] == (3, 20, 20)
    assert shapes["dense"]["kernel"] == (100, 10)
    np.testing.assert_allclose(
        small.apply_fn(small.trees[0], x),
        graph.masked(masks)(variables, x),
        rtol=0,
        atol=2e-6,
    )


def multiplications(jaxpr):
    """Of all convolutions and matrix products of one traced image."""
    total = 0
    for equation in jaxpr.eqns:
        if equation.primitive.name == "conv_general_dilated":
            # The kernel's (height, width, in / groups, out) without its last axis.
            kernel = equation.invars[1].aval.shape
            total += equation.outvars[0].aval.size * math.prod(kernel[:-1])
        elif equation.primitive.name == "dot_general":
            contracted = equation.params["dimension_numbers"][0][0]
            rows = (equation.invars[0].aval.shape[axis] for axis in contracted)
            total += equation.outvars[0].aval.size * math.prod(rows)
        total += sum(multiplications(inner) for inner in jaxprs_in(equation))
    return total


def jaxprs_in(equation):
    inner = (equation.params.get(name) for name in ("jaxpr", "call_jaxpr"))
    return [closed.jaxpr for closed in inner if closed is not None]


@pytest.mark.parametrize(("name", "side", "classes"), _PUBLISHED)
def test_models_have_the_published_sizes(name, side, classes):
    model = models.create(name, classes)
    x = jax.ShapeDtypeStruct((1, side, side, 3), jnp.float32)
    variables = jax.eval_shape(
        functools.partial(model.init, train=False), jax.random.key(0), x
    )
    params = flax.traverse_util.flatten_dict(variables["params"], sep="/")
    parameters, products = _PUBLISHED[name, side, classes]
    assert sizes(params) == parameters
    # No convolution in front of a batch normalisation has a bias, but where torchvision
    # has one.
    if "batch_stats" in variables and name != "vgg16_bn":
        assert not [leaf for leaf in params if "conv" in leaf and leaf.endswith("bias")]
    traced = jax.make_jaxpr(functools.partial(model.apply, train=False))(variables, x)
    assert multiplications(traced.jaxpr) == products
    assert [(out.shape, out.dtype) for out in traced.out_avals] == [
        ((1, classes), "f4")
    ]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("model", "sizes"),
    [
        (
            lambda: models.create("mobilenetv2", 10),
            # Outputs that are added are one group of each stage, and a widened input is
            # one with its depthwise kernel.
            [
                *(16, 24, 32, 32, 64, 96, 96, 144, 144, 160, *[192] * 3, 320),
                *(*[384] * 4, *[576] * 3, *[960] * 3, 1280),
            ],
        ),
        (
            lambda: models.create("efficientnet_b0", 10),
            # In each block the squeeze has a group of its own, and scales the widened
            # channels, which it joins.
            [
                *(4, 6, 6, 8, 10, 10, 16, *[20] * 3, 24, *[28] * 3, 32, 40, *[48] * 4),
                *(80, 96, 112, 144, 144, 192, 240, 240, 320, *[480] * 3, *[672] * 3),
                *(*[1152] * 4, 1280),
            ],
        ),
        (
            lambda: models.create("mixnet_s", 10),
            # Shares of channels that are convolved apart are groups of their own.
            [
                *(8, 8, 10, *[12] * 3, *[20] * 7, 36, 36, *[40] * 5, *[48] * 5),
                *(*[60] * 5, *[80] * 4, *[90] * 8, *[100] * 4, *[120] * 6, *[144] * 5),
                *(160, 160, *[240] * 4, *[300] * 8, 1536),
            ],
        ),
        (
            lambda: models.ViT(10, width=16, layers=2, heads=4),
            # Of each layer heads, numbers of queries and keys, of values, and hidden
            # ones.
            [4, 4, 4, 4, 4, 4, 64, 64],
        ),
        (
            # Rows and columns of a map that is averaged to 7x7 are no channels.
            lambda: models.VGG16BN(10, stages=((8, 1), (12, 2)), width=16),
            [8, 12, 12, 16, 16],
        ),
    ],
    ids=["mobilenetv2", "efficientnet_b0", "mixnet_s", "vit", "vgg16_bn"],
)
def test_channels_are_those_one_expects_and_go_exactly(model, sizes):
    network = model()
    x = jax.random.normal(jax.random.key(0), (2, 32, 32, 3))
    init = jax.jit(functools.partial(network.init, train=False))
    variables = init(jax.random.key(1), x)
    graph = jaxprune.trace_channels(
        functools.partial(network.apply, train=False), variables, x
    )
    assert sorted(group.size for group in graph.groups.values()) == sizes
    masks = {n: np.arange(g.size) % 3 != 1 for n, g in graph.groups.items()}
    small = graph.compact(masks, variables)
    want = jax.jit(graph.masked(masks))(variables, x)
    got = jax.jit(small.apply_fn)(small.trees[0], x)
    np.testing.assert_allclose(got, want, rtol=1e-5, atol=1e-5 * abs(want).max())


@pytest.mark.slow
def test_channels_go_exactly_while_units_are_dropped():
    network = models.create("alexnet", 10)
    x = jax.random.normal(jax.random.key(0), (2, 64, 64, 3))
    init = jax.jit(functools.partial(network.init, train=False))
    variables, key = init(jax.random.key(1), x), jax.random.key(2)

    def trained(variables, x, key):
        return network.apply(variables, x, train=True, rngs={"dropout": key})

    graph = jaxprune.trace_channels(trained, variables, x, key)
    sizes = {name: group.size for name, group in graph.groups.items()}
    assert sorted(sizes.values()) == [64, 192, 256, 256, 384, 4096, 4096]
    masks = {name: np.arange(size) % 3 != 1 for name, size in sizes.items()}
    small = graph.compact(masks, variables)
    want = jax.jit(graph.masked(masks))(variables, x, key)
    got = jax.jit(small.apply_fn)(small.trees[0], x, key)
    np.testing.assert_allclose(got, want, rtol=1e-5, atol=1e-5 * abs(want).max())
    other = jax.jit(small.apply_fn)(small.trees[0], x, jax.random.key(3))
    assert not np.allclose(got, other)


def test_the_width_of_a_vision_transformer_goes_exactly():
    network = models.ViT(10, width=16, layers=2, heads=4)
    function = functools.partial(network.apply, train=False)
    x = jax.random.normal(jax.random.key(0), (2, 32, 32, 3))
    init = jax.jit(functools.partial(network.init, train=False))
    variables = init(jax.random.key(1), x)
    graph = jaxprune.trace_channels(function, variables, x, norms="dense-count")
    (width,) = (n for n, g in graph.groups.items() if g.size == 16)
    masks = {n: np.arange(g.size) % 3 != 1 for n, g in graph.groups.items()}
    small = graph.compact(masks, variables)
    assert small.trees[0]["params"]["class_token"].shape == (1, 1, small.widths[width])
    want = jax.jit(graph.masked(masks))(variables, x)
    got = jax.jit(small.apply_fn)(small.trees[0], x)
    np.testing.assert_allclose(got, want, rtol=1e-5, atol=1e-5 * abs(want).max())


def test_nearly_all_operations_of_a_vision_transformer_can_go():
    network = models.ViT(10, width=192, layers=2, heads=3)
    function = functools.partial(network.apply, train=False)
    x = jax.ShapeDtypeStruct((1, 224, 224, 3), jnp.float32)
    init = functools.partial(network.init, train=False)
    shapes = jax.eval_shape(init, jax.random.key(0), x)
    graph = jaxprune.trace_channels(function, shapes, x, norms="dense-count")
    least = {name: 1 / group.size for name, group in graph.groups.items()}
    assert jaxprune.costs.macs(graph)(least) < 0.05


@pytest.mark.parametrize("blocks", [3, 5, 9])
def test_resnet_counts_follow_the_arithmetic(blocks):
    name = f"resnet{6 * blocks + 2}"
    counted = 464 + 4672 + 14528 + 57728 + 650 + (blocks - 1) * (4672 + 18560 + 73984)
    assert _SIZES[name, (32, 32, 3)] == counted
    model = models.create(name, 10)
    variables = jax.eval_shape(
        lambda: model.init(jax.random.key(0), jnp.zeros((1, 8, 8, 3)), train=False)
    )
    kernels = [
        leaf
        for leaf in names(variables["params"])
        if leaf.endswith("kernel") and "shortcut" not in leaf
    ]
    assert len(kernels) == 6 * blocks + 2


@pytest.mark.parametrize(
    ("height", "width", "size"), [(14, 7, 7), (2, 9, 7), (1, 5, 3)]
)
def test_maps_are_averaged_to_any_size(height, width, size):
    x = np.random.default_rng(0).normal(size=(2, height, width, 3)).astype(np.float32)

    def window(i, length):
        return slice(i * length // size, math.ceil((i + 1) * length / size))

    wanted = [
        [x[:, window(i, height), window(j, width)].mean((1, 2)) for j in range(size)]
        for i in range(size)
    ]
    wanted = np.moveaxis(np.array(wanted), 2, 0)
    np.testing.assert_allclose(layers.average_to(x, size), wanted, rtol=0, atol=1e-6)


def test_dropout_is_drawn_in_training_alone():
    model = models.VGG16BN(3, stages=((4, 1),), width=16, dropout=0.5)
    x = jax.random.normal(jax.random.key(0), (2, 14, 14, 3))
    variables = model.init(jax.random.key(1), x, train=False)
    logits = model.apply(variables, x, train=False)
    assert (logits == model.apply(variables, x, train=False)).all()
    train = functools.partial(model.apply, train=True, mutable=["batch_stats"])
    one, _ = train(variables, x, rngs={"dropout": jax.random.key(0)})
    other, _ = train(variables, x, rngs={"dropout": jax.random.key(1)})
    assert (one != other).all()


@pytest.mark.parametrize(
    "name",
    rows(models.MODELS, ("mlp", "cnn", "cnn1d", "resnet20", "vgg16_bn", "vit_s16")),
)
def test_the_last_layer_is_that_of_the_logits(name):
    size = 64 if name == "alexnet" else 32  # AlexNet leaves nothing of 32 x 32.
    x = jnp.zeros((1, 40, 1) if "1d" in name else (1, size, size, 3))
    x = jnp.zeros((1, 8), int) if "decoder" in name else x
    shapes = []
    for classes in (3, 4):
        model = models.create(name, classes)
        init = functools.partial(model.init, train=False)
        params = jax.eval_shape(init, jax.random.key(0), x)["params"]
        shapes.append(
            {layer: jax.tree.map(jnp.shape, params[layer]) for layer in params}
        )
    changed = [layer for layer in shapes[0] if shapes[0][layer] != shapes[1][layer]]
    # A language model reads what it predicts.
    assert {*changed} - {"embed"} == {models.last_layer(shapes[0])}


@pytest.mark.parametrize(("name", "size"), [("alexnet", 62), ("cnn", 1)])
def test_images_of_which_nothing_is_left_are_refused(name, size):
    model = models.create(name, 10)
    init = functools.partial(model.init, train=False)
    jax.eval_shape(init, jax.random.key(0), jnp.zeros((1, size + 1, size + 1, 3)))
    with pytest.raises(ValueError, match=rf"at least {size + 1}x{size + 1} pixels"):
        jax.eval_shape(init, jax.random.key(0), jnp.zeros((1, size, size, 3)))


# ResNet-8 has every kind of layer of its bigger sisters and compiles faster.
_SMALL = {
    "mlp": models.MLP,
    "cnn": models.CNN,
    "resnet8": functools.partial(models.ResNet, blocks_per_stage=1),
    "bottleneck": functools.partial(
        models.ImageNetResNet, block=models.Bottleneck, blocks=(1, 1)
    ),
    "vgg16": models.VGG16,
    "mobilenetv1": models.MobileNetV1,
}


def draw_variables(model, image_shape):
    """Variables of a trained kind: no leaf at its initial zeros or ones."""
    x = jnp.zeros((1, *image_shape))
    shapes = jax.eval_shape(lambda: model.init(jax.random.key(0), x, train=False))
    rng = np.random.default_rng(0)

    def draw(path, leaf):
        if path[-1].key == "kernel":
            fan_in = np.prod(leaf.shape[:-1])
            return jnp.float32(rng.normal(size=leaf.shape) * np.sqrt(2 / fan_in))
        centre = 1.0 if path[-1].key in ("scale", "var") else 0.0
        return jnp.float32(centre + rng.uniform(-0.3, 0.3, leaf.shape))

    return jax.tree.map_with_path(draw, shapes)


@pytest.mark.parametrize("name", rows(_SMALL, ("mlp", "cnn", "resnet8")))
def test_logits_are_float32_and_statistics_move_only_in_training(name):
    model = _SMALL[name](7)
    x = jax.random.normal(jax.random.key(0), (4, 8, 8, 1))
    variables = draw_variables(model, (8, 8, 1))
    old = variables.get("batch_stats", {})
    assert bool(old) == (name != "mlp")
    for train in (False, True):
        logits, updates = jax.jit(
            functools.partial(model.apply, train=train, mutable=["batch_stats"])
        )(variables, x)
        assert logits.shape == (4, 7)
        assert logits.dtype == jnp.float32
        assert bool(jnp.isfinite(logits).all())
        new = updates.get("batch_stats", {})
        moved = jax.tree.map(lambda a, b: bool((a != b).any()), old, new)
        assert set(jax.tree.leaves(moved)) <= {train}


@pytest.mark.parametrize(
    "name", rows(models.MODELS, ("mlp", "cnn", "cnn1d_norm", "resnet20", "sew_resnet8"))
)
def test_layers_compute_in_the_type_asked_for_and_weights_stay(name):
    model = models.create(name, 10, dtype="bfloat16")
    shape = (2, 40, 1) if "1d" in name else (2, 64, 64, 3)
    x = jax.ShapeDtypeStruct(shape, jnp.float32)
    x = jax.ShapeDtypeStruct((2, 8), jnp.int32) if "decoder" in name else x
    init = functools.partial(model.init, train=False)
    variables = jax.eval_shape(init, jax.random.key(0), x)
    assert {leaf.dtype.name for leaf in jax.tree.leaves(variables)} == {"float32"}
    traced = jax.make_jaxpr(functools.partial(model.apply, train=False))(variables, x)
    products = list(products_in(traced.jaxpr))
    # All but the logits.
    assert {dtype.name for dtype in products[:-1]} == {"bfloat16"}
    assert products[-1].name == traced.out_avals[0].dtype.name == "float32"


def products_in(jaxpr):
    """Types of the results of convolutions and matrix products, in order."""
    for equation in jaxpr.eqns:
        if equation.primitive.name in ("conv_general_dilated", "dot_general"):
            yield equation.outvars[0].aval.dtype
        for inner in jaxprs_in(equation):
            yield from products_in(inner)


def test_layers_have_explicit_names():
    x = jnp.zeros((1, 8, 8, 1))
    trees = {}
    for name in ("mlp", "cnn", "resnet20"):
        model = models.create(name, 10)
        trees[name] = jax.eval_shape(
            lambda model=model: model.init(jax.random.key(0), x, train=False)
        )["params"]
    assert set(trees["mlp"]) == {"dense1", "dense2", "dense3"}
    assert set(trees["cnn"]) == {"conv1", "bn1", "conv2", "bn2", "dense1", "dense2"}
    assert set(trees["resnet20"]["stage2_block1"]) == {
        *("conv1", "bn1", "conv2", "bn2", "shortcut_conv", "shortcut_bn")
    }
    assert set(trees["resnet20"]["stage2_block2"]) == {"conv1", "bn1", "conv2", "bn2"}
    assert not [leaf for tree in trees.values() for leaf in names(tree) if "_0" in leaf]


def test_the_nnx_twin_has_the_same_names_outputs_and_statistics():
    x = 1 + 2 * jax.random.normal(jax.random.key(0), (16, 8, 8, 3))
    linen = models.create("cnn", 10)
    variables = draw_variables(linen, (8, 8, 3))
    twin = nnx.eval_shape(lambda: cnn_nnx.CNN((8, 8, 3), 10, rngs=nnx.Rngs(0)))
    params, stats = nnx.state(twin, nnx.Param), nnx.state(twin, nnx.BatchStat)
    assert names(nnx.to_pure_dict(params)) == names(variables["params"])
    assert names(nnx.to_pure_dict(stats)) == names(variables["batch_stats"])
    for state, tree in ((params, "params"), (stats, "batch_stats")):
        nnx.replace_by_pure_dict(state, variables[tree])
        nnx.update(twin, state)

    for train in (False, True):
        expected, updates = jax.jit(
            functools.partial(linen.apply, train=train, mutable=["batch_stats"])
        )(variables, x)
        logits = nnx.jit(lambda twin, x, train=train: twin(x, train=train))(twin, x)
        np.testing.assert_allclose(logits, expected, rtol=1e-5, atol=1e-5)
    moved = nnx.to_pure_dict(nnx.state(twin, nnx.BatchStat))
    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-6),
        moved,
        updates["batch_stats"],
    )
    assert (moved["bn1"]["mean"] != variables["batch_stats"]["bn1"]["mean"]).all()


@pytest.mark.parametrize(
    "name", rows(["cnn", "resnet8", "bottleneck"], ["cnn", "resnet8"])
)
def test_statistics_over_an_axis_are_those_of_the_whole_batch(name):
    x = jax.random.normal(jax.random.key(0), (8, 8, 8, 3))
    whole, parts = _SMALL[name](10), _SMALL[name](10, axis_name="batch")
    variables = draw_variables(whole, (8, 8, 3))

    def run(model, x):
        return model.apply(variables, x, train=True, mutable=["batch_stats"])

    expected, updates = jax.jit(functools.partial(run, whole))(x)
    logits, split_updates = jax.jit(
        jax.vmap(functools.partial(run, parts), axis_name="batch")
    )(x.reshape(2, 4, 8, 8, 3))
    # Float32 sums in another order.
    np.testing.assert_allclose(logits.reshape(8, 10), expected, rtol=1e-4, atol=1e-4)
    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(a[0], b, rtol=1e-4, atol=1e-5),
        split_updates["batch_stats"],
        updates["batch_stats"],
    )


def test_an_unknown_name_lists_the_known_ones():
    with pytest.raises(ValueError, match=r"mlp, .*cnn, .*Did you mean 'resnet20'"):
        models.create("resnet-20", 10)
