"""Channels to a budget of MACs, a smaller network, and a program to ship.

python examples/03_channels.py
"""

import importlib.util

import jax
import jax.numpy as jnp
from jax import export

import jaxprune
from jaxprune import channels, costs, io


def network(params, x):
    """Return the logits of two convolutions and a classifier, for NHWC images."""
    for layer in ("conv1", "conv2"):
        x = jax.lax.conv_general_dilated(
            x, params[layer], (1, 1), "SAME", dimension_numbers=("NHWC", "HWIO", "NHWC")
        )
        x = jax.nn.relu(x)
    return x.mean((1, 2)) @ params["head"]


def main():
    """Return the dense and the compact network's fraction of MACs and error."""
    keys = jax.random.split(jax.random.key(0), 4)
    shapes = {"conv1": (3, 3, 3, 16), "conv2": (3, 3, 16, 32), "head": (32, 10)}
    params = {
        name: jax.nn.initializers.he_normal()(key, shape)
        for key, (name, shape) in zip(keys, shapes.items(), strict=False)
    }
    x = jax.random.normal(keys[3], (4, 8, 8, 3))

    graph = jaxprune.trace_channels(network, params, x)
    print(graph)
    limit = jaxprune.at_most(costs.macs(graph), 0.5)
    counts = channels.round_to_limits(graph, {}, limit, multiple_of=4)
    scores = channels.filter_norms(graph)(params)
    masks = channels.important_channels(graph, scores, counts)
    small = graph.compact(masks, params)

    masked = graph.masked(masks)(params, x)
    error = float(jnp.abs(small.apply_fn(small.trees[0], x) - masked).max())
    ratios = {name: counts[name] / graph.groups[name].size for name in counts}
    print(small.widths, f"{costs.macs(graph)(ratios):.3f} of the MACs")
    if importlib.util.find_spec("flatbuffers"):  # the extra `export`
        program = io.export_program(small.apply_fn, small.trees[0], x)
        print(len(program), "bytes;", export.deserialize(program).in_avals)
    return float(costs.macs(graph)(ratios)), error


if __name__ == "__main__":
    main()
