"""How many channels stay, and which."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxprune import costs
from jaxprune.channels import (
    channel_counts,
    largest_channels,
    random_channel_masks,
    trace_channels,
)

SIZES = {"a": 40, "b": 6, "c": 300}


def chain(params, x):
    for name in SIZES:
        x = jnp.tanh(x @ params[name])
    return x @ params["out"]


def draw():
    sizes, params, before = SIZES | {"out": 2}, {}, 3
    for i, (name, size) in enumerate(sizes.items()):
        params[name] = jax.random.normal(jax.random.key(i), (before, size))
        before = size
    return params, trace_channels(chain, params, jnp.ones((1, 3)))


def counts(keep_ratio, **options):
    _, graph = draw()
    found = channel_counts(graph, keep_ratio, **options)
    return [found[f"{name}:1"] for name in SIZES]


@pytest.mark.parametrize(
    ("ratio", "multiple_of", "expected"),
    [
        (0.5, 1, [20, 3, 150]),
        (0.5, 8, [16, 6, 144]),  # Six channels are less than one multiple.
        (0.5, 16, [16, 6, 144]),
        (0.5, 128, [40, 6, 128]),
        (0.99, 8, [32, 6, 296]),
        (0.01, 8, [8, 6, 8]),
        (0.001, 1, [1, 1, 1]),
        (1.0, 16, [40, 6, 300]),
    ],
)
def test_counts_are_rounded_down_to_multiples(ratio, multiple_of, expected):
    assert counts(ratio, multiple_of=multiple_of) == expected


def test_groups_without_a_ratio_stay_whole():
    assert counts({"a:1": 0.5, "c:1": np.float32(0.29)}) == [20, 6, 87]


def test_masks_have_these_counts_and_hold_the_budget():
    params, graph = draw()
    ratios = {"a:1": 0.7, "b:1": 1.0, "c:1": 0.33}
    expected = channel_counts(graph, ratios, multiple_of=8)
    cost = costs.macs(graph)
    for masks in (
        largest_channels(graph, params, ratios, multiple_of=8),
        random_channel_masks(jax.random.key(0), graph, ratios, multiple_of=8),
    ):
        assert {name: int(mask.sum()) for name, mask in masks.items()} == expected
        kept = {name: jnp.float32(mask.mean()) for name, mask in masks.items()}
        assert cost(kept) <= cost({n: jnp.float32(r) for n, r in ratios.items()})


def test_the_largest_channels_stay():
    params, graph = draw()
    mask = largest_channels(graph, params, 0.25, multiple_of=8)["a:1"]
    norms = np.square(params["a"]).sum(0)
    assert norms[mask].min() > norms[~mask].max()
    assert mask.sum() == 8


@pytest.mark.parametrize("multiple_of", [0, -8, 1.5, True])
def test_multiples_are_whole_numbers(multiple_of):
    with pytest.raises(ValueError, match=r"multiple_of=.*\)`: must be a whole"):
        counts(0.5, multiple_of=multiple_of)


def test_ratios_of_unknown_groups_are_refused():
    with pytest.raises(ValueError, match=r"'x' must be the name of a group.*'a:1'"):
        counts({"x": 0.5})


@pytest.mark.parametrize("ratio", [0.0, 1.5])
def test_ratios_are_fractions(ratio):
    with pytest.raises(ValueError, match="must be in"):
        counts({"a:1": ratio})


def test_a_ratio_of_whole_channels_gives_them_back():
    params = {"w1": jnp.ones((3, 51)), "w2": jnp.ones((51, 2))}
    mlp = lambda params, x: jnp.tanh(x @ params["w1"]) @ params["w2"]
    graph = trace_channels(mlp, params, jnp.ones((1, 3)))
    for count in range(1, 52):
        found = channel_counts(graph, count / 51)
        assert found == {"w1:1": count}
