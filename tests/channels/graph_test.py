"""Channel groups, by hand and by count."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxprune.channels import (
    consumer_masks,
    fold_constants,
    largest_channels,
    live_channels,
    trace_channels,
)
from jaxprune.channels._flow.atoms import Atoms
from jaxprune.channels._flow.flow import Flow
from tests.support import architectures, networks

ALL = architectures.architectures()


def groups_of(name):
    function, variables, inputs = ALL[name]()
    return trace_channels(function, variables, *inputs)


def trace_plain(function, x=(2, 3), **shapes):
    """Traces a function of arrays of the given shapes."""
    params = {
        name: jax.ShapeDtypeStruct(shape, jnp.float32) for name, shape in shapes.items()
    }
    return trace_channels(function, params, jax.ShapeDtypeStruct(x, jnp.float32))


def members(graph, name):
    return {(m.leaf, m.axis): m.role for m in graph.groups[name].members}


def reason(graph, leaf, axis):
    (pin,) = [p for p in graph.pinned if (p.leaf, p.axis) == (leaf, axis)]
    return pin.reason


@pytest.mark.parametrize(("blocks", "count"), [(3, 12), (9, 30)])
@pytest.mark.parametrize("train", [False, True])
def test_residual_networks_have_the_groups_of_the_literature(blocks, count, train):
    """ResNet-20 and ResNet-56."""
    model = networks.ResNet(blocks_per_stage=blocks)
    variables, x = networks.abstract(model, train=False)

    def apply_fn(variables, x):
        mutable = ["batch_stats"] if train else False
        return model.apply(variables, x, train=train, mutable=mutable)

    graph = trace_channels(apply_fn, variables, x)
    assert len(graph.groups) == count
    assert sorted({group.size for group in graph.groups.values()}) == [16, 32, 64]
    assert not graph.unknown
    (stem,) = [g for g in graph.groups.values() if "params/conv0/kernel" in g.producers]
    assert len(stem.producers) == blocks + 1
    assert ("batch_stats/bn0/mean", 0) in {(m.leaf, m.axis) for m in stem.members}


def test_members_and_roles_of_a_dense_network():
    def mlp(p, x):
        return jnp.tanh(x @ p["w1"] + p["b"][None]) @ p["w2"]

    graph = trace_plain(mlp, w1=(3, 8), b=(8,), w2=(8, 2))
    assert list(graph.groups) == ["w1:1"]
    assert members(graph, "w1:1") == {
        ("w1", 1): "producer",
        ("b", 0): "member",
        ("w2", 0): "consumer",
    }
    pins = {(p.leaf, p.axis): (p.touches_input, p.touches_output) for p in graph.pinned}
    assert pins == {("w1", 0): (True, False), ("w2", 1): (False, True)}


def test_flattened_images_repeat_their_channels():
    def net(p, x):
        y = jnp.tanh(x @ p["w1"])
        return y.reshape((y.shape[0], -1)) @ p["w2"]

    graph = trace_plain(net, x=(2, 3, 3, 2), w1=(2, 5), w2=(45, 2))
    (group,) = graph.groups.values()
    rows = next(m.channels for m in group.members if m.leaf == "w2")
    np.testing.assert_array_equal(rows, np.tile(np.arange(5), 9))


def test_concatenation_keeps_producers_apart():
    def net(p, x):
        return jnp.concatenate([x @ p["a"], x @ p["b"]], -1) @ p["c"]

    graph = trace_plain(net, a=(3, 4), b=(3, 5), c=(9, 2))
    assert [(g.name, g.size) for g in graph.groups.values()] == [("a:1", 4), ("b:1", 5)]
    rows = graph.groups["b:1"].members[-1].channels
    assert rows.tolist() == [-1] * 4 + list(range(5))


def test_grouped_convolutions_lose_groups_or_inputs():
    def net(p, x):
        def conv(x, w, groups=1):
            return jax.lax.conv_general_dilated(
                x,
                w,
                (1, 1),
                "SAME",
                feature_group_count=groups,
                dimension_numbers=("NHWC", "HWIO", "NHWC"),
            )

        return conv(conv(conv(x, p["a"]), p["b"], 3), p["c"])

    shapes = {"a": (3, 3, 2, 12), "b": (3, 3, 4, 15), "c": (1, 1, 15, 2)}
    graph = trace_plain(net, x=(1, 4, 4, 2), **shapes)
    sizes = {name: group.size for name, group in graph.groups.items()}
    assert sizes == {"a:3": 4, "a:3#2": 3, "b:3": 5}
    assert members(graph, "a:3")["b", 2] == "consumer"
    assert members(graph, "a:3#2")["b", 3] == "producer"


def test_depthwise_convolutions_couple_in_and_out():
    graph = groups_of("mobilenet_v1")
    for group in graph.groups.values():
        depthwise = [m for m in group.members if m.role == "member" and m.axis == 3]
        assert len(depthwise) <= 1
    assert [group.size for group in graph.groups.values()] == [6, 8, 10, 10]


@pytest.mark.parametrize("name", ["vit", "scanned_transformer"])
def test_attention_loses_heads_and_features(name):
    graph = groups_of(name)
    sizes = [group.size for group in graph.groups.values()]
    blocks = 2 if name == "vit" else 1
    assert sorted(sizes) == sorted([3, 4, 4, 14] * blocks)


def test_grouped_queries_lose_key_heads_and_query_heads():
    graph = groups_of("gpt")
    first = [g for g in graph.groups.values() if "params/Dense_0/kernel" in g.producers]
    kinds = {(g.size, "params/Dense_2/kernel" in g.producers) for g in first}
    # Three pairs of rotated features; two key heads; two queries for each key head.
    assert kinds == {(3, False), (2, True), (2, False)}


def test_layers_of_a_scan_are_pruned_alike():
    graph = groups_of("scanned_transformer")
    stacked = [p for p in graph.pinned if p.axis == 0 and "Block_0" in p.leaf]
    assert stacked
    assert all("runs over it, step by step" in p.reason for p in stacked)


def test_group_norm_couples_the_channels_of_its_groups():
    graph = groups_of("groupnorm_resnet")
    assert {group.size for group in graph.groups.values()} == {4}


def test_layer_norm_pins_and_says_where():
    def net(p, x):
        y = x @ p["a"]
        with jax.named_scope("norm"):
            y = y - y.mean(-1, keepdims=True)
        return y @ p["b"]

    graph = trace_plain(net, a=(3, 4), b=(4, 2))
    assert not graph.groups
    assert reason(graph, "a", 1) == "`reduce_sum` in norm reads all of it"


def test_tied_weights_are_one_group():
    graph = groups_of("tied_autoencoder")
    assert [group.size for group in graph.groups.values()] == [9, 5]
    roles = members(graph, "w1:1")
    assert roles["w1", 1] == "both"
    assert roles["b2", 0] == "member"


def test_stacked_branches_are_coupled():
    graph = groups_of("stacked_branches")
    assert not graph.unknown
    assert [group.size for group in graph.groups.values()] == [9, 7]
    roles = members(graph, "a:1")
    assert (roles["b", 1], roles["right", 1]) == ("producer", "consumer")
    rows = next(m.channels for m in graph.groups["a:1"].members if m.leaf == "read")
    np.testing.assert_array_equal(rows, np.repeat(np.arange(9), 2))


def test_zero_padded_shortcuts_couple_what_they_add():
    graph = groups_of("padded_shortcut_resnet")
    sizes = [g.size for g in graph.groups.values()]
    # Inside blocks 4, 8 and 12 channels; the stream grows by 4 at a time.
    assert sorted(sizes) == [4, 4, 4, 4, 8, 12]


def test_unknown_primitives_pin_and_are_listed():
    def net(p, x):
        y = x @ p["a"]
        return jax.pure_callback(lambda y: y, y, y) @ p["b"]

    graph = trace_plain(net, a=(3, 4), b=(4, 2))
    assert [*graph.unknown] == ["pure_callback"]
    assert "has no rule" in reason(graph, "a", 1)


def test_updated_statistics_follow_their_leaves():
    graph = groups_of("resnet18_training")
    plain = groups_of("resnet18")
    assert list(graph.groups) == list(plain.groups)


def test_graphs_print_as_tables():
    text = str(groups_of("mlp"))
    assert text.splitlines()[0].split() == [
        *("role", "group", "size", "layers"),
        *("producers", "consumers", "other", "members"),
    ]
    assert "params/Dense_0/kernel:1" in text
    assert "an output of the function" in text


def test_graphs_do_not_depend_on_the_number_of_examples():
    function, variables, (x,) = ALL["fused_glu"]()
    one = trace_channels(function, variables, x[:1])
    many = trace_channels(function, variables, jnp.concatenate([x, x, x]))
    assert str(one) == str(many)


@pytest.mark.parametrize("residual", [False, True])
def test_cost_of_tracing_is_linear_in_equations(residual, monkeypatch):
    looked_up, equations = [], []
    find, step = Atoms._find, Flow._step

    def counting_find(self, atoms):
        looked_up.append(np.size(atoms))
        return find(self, atoms)

    def counting_step(self, site):
        equations.append(site)
        return step(self, site)

    monkeypatch.setattr(Atoms, "_find", counting_find)
    monkeypatch.setattr(Flow, "_step", counting_step)

    def work_of(depth):
        looked_up.clear()
        equations.clear()
        shapes = {f"w{i}": (8, 8) for i in range(depth)}

        def net(p, x):
            x = x @ p["w0"]
            for i in range(1, depth):
                y = jnp.tanh(x @ p[f"w{i}"]) * 2 + 1
                x = x + y if residual else y
            return x @ p["w0"].T

        graph = trace_plain(net, x=(2, 8), **shapes)
        atoms = graph._traced.program.flow.atoms.count
        return np.array([len(equations), atoms, len(looked_up), sum(looked_up)])

    small, middle, large = work_of(50), work_of(100), work_of(200)
    # Each layer adds the same: twice as many more layers add twice as much.
    np.testing.assert_allclose(large - middle, 2 * (middle - small), rtol=0.01)
    assert (middle > small).all()


# Bad input.


def test_integers_as_inputs_are_refused():
    with pytest.raises(TypeError, match=r"inputs\[0\] must be an array.*int 3"):
        trace_channels(lambda p, n: p["w"] * n, {"w": jnp.ones(3)}, 3)


def test_empty_parameters_are_refused():
    with pytest.raises(ValueError, match="at least one array"):
        trace_channels(lambda p, x: x, {}, jnp.ones(3))


def test_symbolic_sizes_are_refused():
    (size,) = jax.export.symbolic_shape("n")
    x = jax.ShapeDtypeStruct((size, 3), jnp.float32)
    with pytest.raises(ValueError, match=r"inputs\[0\], axis 0, has the symbolic"):
        trace_channels(lambda p, x: x @ p["w"], {"w": jnp.ones((3, 2))}, x)


def test_symbolic_sizes_of_parameters_are_refused():
    (size,) = jax.export.symbolic_shape("n")
    w = jax.ShapeDtypeStruct((3, size), jnp.float32)
    with pytest.raises(ValueError, match=r"params\['w'\], axis 1, has the symbolic"):
        trace_channels(lambda p, x: x @ p["w"], {"w": w}, jnp.ones((2, 3)))


@pytest.mark.parametrize(
    "call",
    [
        fold_constants,
        live_channels,
        lambda graph, params: largest_channels(graph, params, 0.5),
        lambda graph, params: consumer_masks(graph, params, {}),
    ],
)
def test_a_graph_traced_on_other_shapes_is_refused(call):
    graph = trace_plain(lambda p, x: x @ p["w1"] @ p["w2"], w1=(3, 8), w2=(8, 2))
    wider = {"w1": jnp.ones((3, 9)), "w2": jnp.ones((9, 2))}
    message = r"'w1', axis 1, has size 9, but 8 when the graph was traced"
    with pytest.raises(ValueError, match=message):
        call(graph, wider)
    with pytest.raises(ValueError, match=r"leaves that were traced, \['w1', 'w2'\]"):
        call(graph, {"w1": jnp.ones((3, 8))})
