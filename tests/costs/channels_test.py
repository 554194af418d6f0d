"""Costs of channels against published counts, hard counts and XLA."""

import functools

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxprune import costs
from jaxprune.channels import random_channel_masks, trace_channels
from tests.support import architectures, networks
from tests.support.architectures import ConvNorm, identity
from tests.support.channel_checks import size
from tests.support.rows import rows


def trace_model(model, image):
    variables, x = networks.abstract(model, (image, image, 3))
    return trace_channels(model.apply, variables, x)


class ResNet50(nn.Module):
    @nn.compact
    def __call__(self, x):
        x = nn.max_pool(ConvNorm(64, 7, 2)(x), (3, 3), (2, 2), "SAME")
        for stage, (width, depth) in enumerate(
            zip((64, 128, 256, 512), (3, 4, 6, 3), strict=True)
        ):
            for block in range(depth):
                stride = 2 if stage and not block else 1
                y = ConvNorm(width, 3, stride)(ConvNorm(width, 1)(x))
                y = ConvNorm(4 * width, 1, act=identity)(y)
                if x.shape != y.shape:
                    x = ConvNorm(4 * width, 1, stride, act=identity)(x)
                x = nn.relu(x + y)
        return nn.Dense(1000, name="classifier")(x.mean((1, 2)))


class MobileNetV1(nn.Module):
    @nn.compact
    def __call__(self, x):
        x = ConvNorm(32, stride=2)(x)
        plan = [(64, 1), (128, 2), (128, 1), (256, 2), (256, 1), (512, 2)]
        plan += [(512, 1)] * 5 + [(1024, 2), (1024, 1)]
        for width, stride in plan:
            x = ConvNorm(x.shape[-1], 3, stride, x.shape[-1])(x)
            x = ConvNorm(width, 1)(x)
        return nn.Dense(1000, name="classifier")(x.mean((1, 2)))


class VGG16(nn.Module):
    @nn.compact
    def __call__(self, x):
        for width, depth in zip((64, 128, 256, 512, 512), (2, 2, 3, 3, 3), strict=True):
            for _ in range(depth):
                x = ConvNorm(width)(x)
            x = nn.max_pool(x, (2, 2), (2, 2))
        return nn.Dense(10, name="classifier")(x.reshape((x.shape[0], -1)))


@functools.cache
def resnet(blocks_per_stage=3):
    model = networks.ResNet(blocks_per_stage=blocks_per_stage)
    variables, x = networks.abstract(model, train=False)
    apply_fn = lambda variables, x: model.apply(variables, x, train=False)
    return trace_channels(apply_fn, variables, x)


@pytest.mark.parametrize(
    ("blocks", "low", "high"), [(3, 40.6, 40.85), (9, 125.0, 127.0)]
)
def test_published_counts_on_small_images(blocks, low, high):
    """ResNet-20 and ResNet-56."""
    assert low * 1e6 < costs.macs(resnet(blocks)).dense < high * 1e6


@pytest.mark.parametrize(
    ("model", "image", "low", "high", "groups"),
    [
        (ResNet50(), 224, 4.08e9, 4.12e9, 37),
        (MobileNetV1(), 224, 568e6, 570e6, 14),
        (VGG16(), 32, 312.5e6, 314e6, 13),
    ],
)
def test_published_counts(model, image, low, high, groups):
    graph = trace_model(model, image)
    assert low < costs.macs(graph).dense < high
    assert len(graph.groups) == groups


def test_the_classifier_can_be_left_out():
    graph = trace_model(MobileNetV1(), 224)
    kernel = "params/classifier/kernel"
    whole, part = costs.macs(graph), costs.macs(graph, without=[kernel])
    assert whole.dense - part.dense == 1024 * 1000


def test_a_scan_without_steps_costs_nothing_and_what_follows_is_counted():
    def apply_fn(params, x):
        h = x @ params["a"]
        h, _ = jax.lax.scan(lambda h, k: (jnp.tanh(h @ k), None), h, params["none"])
        return jnp.tanh(h @ params["b"])

    shapes = {"a": (5, 8), "none": (0, 8, 8), "b": (8, 3)}
    params = {name: jnp.ones(shape) for name, shape in shapes.items()}
    graph = trace_channels(apply_fn, params, jnp.ones((1, 5)))
    assert costs.macs(graph).dense == 5 * 8 + 8 * 3


def test_leaves_that_do_not_exist_cannot_be_left_out():
    with pytest.raises(ValueError, match="'nowhere'"):
        costs.macs(resnet(), without=["nowhere"])


def test_nothing_removed_costs_one():
    graph = resnet()
    ones = {name: jnp.float32(1) for name in graph.groups}
    for cost in (costs.parameters, costs.macs, costs.bytes_moved):
        np.testing.assert_allclose(cost(graph)({}), 1, rtol=1e-6)
        np.testing.assert_allclose(cost(graph)(ones), 1, rtol=1e-6)


@pytest.mark.parametrize(
    "name",
    rows(
        [
            *("resnet18", "densenet", "resnext", "mixnet", "groupnorm_resnet", "gpt"),
            *("padded_shortcut_resnet", "fused_glu", "scanned_transformer", "vgg16"),
        ],
        ("resnet18", "gpt", "fused_glu", "scanned_transformer"),
    ),
)
def test_costs_at_hard_ratios_are_the_counts_of_the_compact_network(name):
    function, variables, inputs = architectures.architectures()[name]()
    graph = trace_channels(function, variables, *inputs)
    masks = random_channel_masks(jax.random.key(0), graph, 0.5)
    small = graph.compact(masks, variables)
    after = trace_channels(small.apply_fn, small.trees[0], *inputs)
    ratios = {
        name: jnp.float32(small.widths[name] / group.size)
        for name, group in graph.groups.items()
    }
    assert costs.parameters(graph).dense == size(variables)
    for cost in (costs.parameters, costs.macs, costs.bytes_moved):
        want = cost(after).dense / cost(graph).dense
        np.testing.assert_allclose(jax.jit(cost(graph))(ratios), want, rtol=1e-5)


def test_costs_are_polynomials_with_the_gradient_of_their_differences():
    graph = resnet()
    cost = costs.macs(graph)
    ratios = {name: jnp.float32(0.6) for name in graph.groups}
    grads = jax.grad(cost)(ratios)
    for name in list(graph.groups)[::4]:
        up, down = ({**ratios, name: jnp.float32(k)} for k in (0.7, 0.5))
        # A residual stream feeds itself nowhere, so the form is linear in each ratio.
        slope = (cost(up) - cost(down)) / 0.2
        np.testing.assert_allclose(grads[name], slope, rtol=1e-3)
        assert grads[name] > 0


def test_unknown_groups_are_refused():
    message = r"`macs`: 'x' must be a site of this cost"
    with pytest.raises(ValueError, match=message):
        costs.macs(resnet())({"x": jnp.float32(1)})


@pytest.mark.usefixtures("compiles_as_users_do")
def test_products_are_counted_as_the_compiler_counts_them():
    """Without padding, XLA's count is 2 MACs and little else."""
    shapes = {"a": (3, 3, 4, 16), "b": (12 * 12 * 16, 32), "c": (32, 10)}
    params = {k: jax.ShapeDtypeStruct(s, jnp.float32) for k, s in shapes.items()}
    x = jax.ShapeDtypeStruct((1, 14, 14, 4), jnp.float32)

    def net(p, x):
        x = jax.lax.conv_general_dilated(
            x, p["a"], (1, 1), "VALID", dimension_numbers=("NHWC", "HWIO", "NHWC")
        )
        return x.reshape((x.shape[0], -1)) @ p["b"] @ p["c"]

    cost = costs.macs(trace_channels(net, params, x))
    analysis = jax.jit(net).lower(params, x).compile().cost_analysis()
    np.testing.assert_allclose(2 * cost.dense, analysis["flops"], rtol=0.01)
