"""What channels are for, keep ratios by role, and the table of a graph."""

import functools

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from jaxprune import costs, methods
from jaxprune.base import Limit
from jaxprune.channels import (
    channel_counts,
    largest_channels,
    round_to_limits,
    trace_channels,
    uniform_ratio,
)
from tests.support import architectures, architectures_nnx, transformers
from tests.support.architectures import linen, tokens

NETWORKS = {**architectures.architectures(), **architectures_nnx.architectures()}
NETWORKS |= transformers.networks()


@pytest.fixture(autouse=True)
def _ranks():
    """Networks of others promote ranks: scales of norms are vectors."""
    with jax.numpy_rank_promotion("allow"):
        yield


@functools.cache
def graph_of(name, norms="dense-count"):
    function, variables, inputs = NETWORKS[name]()
    return trace_channels(function, variables, *inputs, norms=norms)


def sizes_of(graph):
    """Return the sizes of the groups by role."""
    return {
        role: sorted({graph.groups[name].size for name in names})
        for role, names in graph.roles.items()
    }


GROUPED = {"width": [8], "head_features": [2, 4], "kv_heads": [2], "heads": [2]}
GROUPED |= {"mlp": [12]}
VIT = {"width", "heads", "head_features", "mlp"}


@pytest.mark.parametrize("name", ["pre_rms", "post_two_passes", "pre_l2"])
def test_roles_of_decoders_with_grouped_queries(name):
    assert sizes_of(graph_of(name)) == GROUPED


@pytest.mark.parametrize(
    "name", ["vit", "bert", "nnx_vit", "scanned_transformer", "linen_layer"]
)
def test_roles_of_transformers(name):
    assert graph_of(name).roles.keys() == VIT


def test_a_cache_of_keys_and_values_changes_no_role():
    assert graph_of("cached").roles.keys() == GROUPED.keys()


def test_pinned_norms_leave_no_width():
    assert graph_of("vit", norms="pinned").roles.keys() == VIT - {"width"}


@pytest.mark.parametrize("name", ["mobilenet_v1", "groupnorm_resnet", "recurrent"])
def test_convolutions_and_recurrences_are_channels(name):
    assert graph_of(name).roles.keys() == {"channels"}


def test_images_behind_layer_norms_have_a_width():
    assert graph_of("convnext").roles.keys() == {"width", "mlp"}


def test_the_state_of_a_state_space_is_no_hidden_width():
    assert graph_of("mamba").roles.keys() == {"width", "channels"}


class FusedAttention(nn.Module):
    """Queries, keys and values of one kernel, several of which share their keys."""

    heads: int = 6
    groups: int = 2
    features: int = 4

    @nn.compact
    def __call__(self, x):
        size = self.features
        fused = nn.Dense((self.heads + 2 * self.groups) * size, use_bias=False)(x)
        parts = [self.heads * size, (self.heads + self.groups) * size]
        q, k, v = jnp.split(fused, parts, axis=-1)
        q = q.reshape(*x.shape[:2], self.groups, -1, size)
        k, v = (a.reshape(*x.shape[:2], self.groups, size) for a in (k, v))
        scores = jnp.exp(jnp.einsum("btgrd,bsgd->bgrts", q, k))
        weights = scores / scores.sum(-1, keepdims=True)
        y = jnp.einsum("bgrts,bsgd->btgrd", weights, v)
        return nn.Dense(x.shape[-1])(y.reshape(*x.shape[:2], -1))


class Fused(nn.Module):
    """Fused attention beside a gated perceptron of one kernel."""

    groups: int = 2

    @nn.compact
    def __call__(self, x):
        x = nn.Embed(11, 16)(x)
        y = nn.RMSNorm()(x)
        gate, value = jnp.split(nn.Dense(20)(y), 2, axis=-1)
        hidden = nn.Dense(16)(nn.silu(gate) * value)
        x = x + FusedAttention(groups=self.groups)(y) + hidden
        return nn.Dense(5)(nn.RMSNorm()(x))


def fused(**options):
    function, variables, inputs = linen(Fused(**options), tokens())
    return trace_channels(function, variables, *inputs, norms="dense-count")


def test_roles_of_fused_projections():
    want = {"width": [16], "mlp": [10], "kv_heads": [2], "heads": [3]}
    assert sizes_of(fused()) == {**want, "head_features": [4]}


def test_queries_of_one_key_are_heads():
    want = {"width": [16], "mlp": [10], "heads": [6], "head_features": [4]}
    assert sizes_of(fused(groups=1)) == want


class Latents(nnx.Module):
    """Learned queries attend to the input: positions of a leaf are no heads."""

    def __init__(self, rngs):
        self.latents = nnx.Param(jax.random.normal(rngs.params(), (1, 3, 8)))
        self.attention = nnx.MultiHeadAttention(
            2, 8, qkv_features=8, decode=False, rngs=rngs
        )
        self.out = nnx.Linear(8, 4, rngs=rngs)

    def __call__(self, x):
        return self.out(self.attention(self.latents[...], x).mean(1))


def test_learned_queries_are_no_heads():
    definition, state = nnx.split(Latents(nnx.Rngs(0)))
    graph = trace_channels(
        lambda state, x: nnx.merge(definition, state)(x),
        state,
        jnp.ones((1, 5, 8)),
        norms="dense-count",
    )
    assert sizes_of(graph)["heads"] == [2]
    assert all("latents:1" not in n for n in graph.roles["heads"])


# Keep ratios by role.


def test_roles_stand_for_their_groups():
    graph = graph_of("pre_rms")
    counts = channel_counts(graph, {"mlp": 0.5, "heads": 0.5})
    for name, group in graph.groups.items():
        half = group.role in ("mlp", "heads")
        assert counts[name] == (group.size // 2 if half else group.size)


def test_names_count_before_roles_in_any_order():
    graph = graph_of("pre_rms")
    first, second = graph.roles["mlp"]
    for ratios in ({"mlp": 0.5, first: 1.0}, {first: 1.0, "mlp": 0.5}):
        counts = channel_counts(graph, ratios)
        assert (counts[first], counts[second]) == (12, 6)
        cost = costs.macs(graph)
        assert cost(ratios) == pytest.approx(cost({first: 1.0, second: 0.5}))


def test_roles_are_patterns_of_what_is_fixed():
    graph = graph_of("pre_rms")
    limit = Limit(costs.macs(graph), 0.5)
    fixed = {"heads": 1.0, "kv_heads": 1.0, "width": 1.0}
    counts = round_to_limits(graph, {"mlp": 0.3}, limit, fixed=fixed)
    assert all(
        counts[n] == graph.groups[n].size for role in fixed for n in graph.roles[role]
    )
    masks = largest_channels(graph, NETWORKS["pre_rms"]()[1], 0.5, fixed=fixed)
    assert all(masks[name].all() for name in graph.roles["width"])


def test_methods_take_roles():
    graph = graph_of("pre_rms")
    method = methods.dsa(graph, fixed={"width": 1.0, "heads": 1.0, "kv_heads": 1.0})
    assert method.fixed.keys() == {
        name for role in ("width", "heads", "kv_heads") for name in graph.roles[role]
    }


@pytest.mark.parametrize(
    "call",
    [
        lambda graph: channel_counts(graph, {"head": 0.5}),
        lambda graph: channel_counts(graph, 0.5, fixed={"head": 0.5}),
        lambda graph: round_to_limits(
            graph, {"head": 1}, Limit(costs.macs(graph), 0.5)
        ),
        lambda graph: costs.macs(graph)({"head": 0.5}),
    ],
)
def test_unknown_roles_are_refused_with_near_matches(call):
    with pytest.raises(ValueError, match=r"'head'.*Near matches: \['heads'"):
        call(graph_of("pre_rms"))


# Limits.


@pytest.mark.parametrize("name", ["pre_rms", "vit", "gpt", "nnx_vit"])
@pytest.mark.parametrize("most", [0.75, 0.5])
def test_limits_are_used_up_where_heads_and_features_multiply(name, most):
    graph = graph_of(name)
    limit = Limit(costs.macs(graph), most)
    ratio = uniform_ratio(graph, limit)
    counts = round_to_limits(graph, dict.fromkeys(graph.roles, ratio), limit)
    ratios = {n: count / graph.groups[n].size for n, count in counts.items()}
    # Of the widths above, 8 to 16, one channel is a share of the network.
    assert 0.93 * most < limit.cost(ratios) <= most * (1 + 1e-9)


# The table.


def test_the_table_names_roles_and_bundles_layers():
    lines = str(graph_of("pre_rms")).splitlines()
    rows = [line.split() for line in lines]
    assert ["mlp", "layers/*/m/g:1", "12", "2"] in [row[:4] for row in rows]
    assert ["kv_heads", "layers/*/a/q:1#2", "2", "2"] in [row[:4] for row in rows]
    assert ["layers/*/a:block", "1", "2"] in [row[:3] for row in rows]


def test_names_in_the_table_are_names_or_patterns():
    for name in ("vit", "mobilenet_v1", "pre_rms"):
        graph = graph_of(name)
        text = str(graph).split("\n\n")[0].splitlines()[1:]
        seen = []
        for line in text:
            pattern, _, layers = line.split()[1:4]
            counts = channel_counts(graph, 1.0, fixed={pattern: 0.01})
            seen += [n for n, c in counts.items() if c < graph.groups[n].size]
            assert int(layers) == np.sum([c == 1 for c in counts.values()])
        assert sorted(seen) == sorted(graph.groups)
