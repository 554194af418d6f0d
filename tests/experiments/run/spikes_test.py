"""Spikes and synaptic operations against a count in NumPy."""

import jax
import numpy as np

from experiments import models
from experiments.run import spikes
from tests.experiments.models.spiking_test import by_hand, small, variables

variables = variables  # a fixture


def fan_out(x, kernel, stride):
    """Operations of one image: each number read, times the weights that it meets."""
    size, pad = kernel.shape[0], kernel.shape[0] // 2
    total = 0.0
    high, wide = x.shape[-3:-1]
    outs = [(side + 2 * pad - size) // stride + 1 for side in (high, wide)]
    for r, c in np.ndindex(high, wide):
        for i, j in np.ndindex(size, size):
            row, column = (r + pad - i) / stride, (c + pad - j) / stride
            if row in range(outs[0]) and column in range(outs[1]):
                total += np.sum(x[..., r, c, :] @ kernel[i, j])
    return total


def test_operations_are_those_of_a_count_by_hand(variables):
    params = jax.tree.map(lambda x: x * (np.abs(x) > 0.7), variables["params"])
    variables = {**variables, "params": params}
    images = np.random.default_rng(6).normal(size=(3, 6, 6, 2)).astype(np.float32)
    # The last image of the second batch fills it up and does not count.
    batches = [
        {"image": images[:2], "valid": np.ones(2, np.float32)},
        {"image": images[[2, 0]], "valid": np.array([1, 0], np.float32)},
    ]
    count = spikes.counter(small(), batches, lambda batch: batch)
    found = count(params, variables["batch_stats"])
    _, read = by_hand(variables, images)
    assert set(found["layers"]) == set(read) - {"conv0", "dense"}
    for name, layer in found["layers"].items():
        block, conv = name.split("/")
        kernel = np.asarray(params[block][conv]["kernel"])
        stride = 2 if block == "stage2_block1" and conv != "conv2" else 1
        want = fan_out(read[name], (kernel != 0) * 1.0, stride) / 3
        assert want > 0
        np.testing.assert_allclose(layer["operations"], want, rtol=1e-6)
        dense = fan_out(read[name], np.ones(kernel.shape), stride) / 3
        np.testing.assert_allclose(layer["dense_operations"], dense, rtol=1e-6)
        np.testing.assert_allclose(layer["spikes"], read[name].mean(), rtol=1e-6)
    layers = found["layers"].values()
    assert found["synaptic_operations"] == sum(x["operations"] for x in layers)
    # The first layer and the last multiply, once for all steps.
    first = np.asarray(params["conv0"]["kernel"] != 0) * 1.0
    last = int(np.sum(params["dense"]["kernel"] != 0))
    assert found["multiplications"] == fan_out(np.ones((6, 6, 2)), first, 1) + last
    ones = fan_out(np.ones((6, 6, 2)), np.ones(first.shape), 1)
    assert found["dense_multiplications"] == ones + params["dense"]["kernel"].size


def test_other_networks_send_no_spikes():
    assert spikes.counter(models.create("resnet20", 10), [], None) is None
