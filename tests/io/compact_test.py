"""A compact network is saved in one process and trained on in another."""

import subprocess
import sys
import textwrap
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from jaxprune import io
from jaxprune.channels import random_channel_masks, trace_channels

ROOT = Path(__file__).resolve().parents[2]

NETWORK = textwrap.dedent(
    """
    import jax, jax.numpy as jnp, optax

    def apply_fn(params, x):
        return jnp.tanh(x @ params["w1"] + params["b1"][None]) @ params["w2"]

    def init():
        keys = jax.random.split(jax.random.key(0))
        return {
            "w1": jax.random.normal(keys[0], (3, 16)),
            "b1": jnp.zeros(16),
            "w2": jax.random.normal(keys[1], (16, 2)),
        }

    optimizer = optax.adam(1e-2)
    x = jnp.linspace(-1, 1, 12).reshape(4, 3)

    def train(apply_fn, params, opt_state):
        loss = lambda params: jnp.mean(apply_fn(params, x) ** 2)
        grads = jax.grad(loss)(params)
        updates, opt_state = optimizer.update(grads, opt_state, params)
        return optax.apply_updates(params, updates), opt_state
    """
)
OTHER_PROCESS = NETWORK + textwrap.dedent(
    """
    import sys
    from jaxprune import io
    from jaxprune.channels import trace_channels

    blank = jax.eval_shape(init)
    graph = trace_channels(apply_fn, blank, x)
    small = io.load_compact(
        io.latest(sys.argv[1]), graph, blank, jax.eval_shape(optimizer.init, blank)
    )
    params, opt_state = train(small.apply_fn, *small.trees)
    io.save(sys.argv[1], 2, (params, opt_state))
    """
)


def small_network():
    scope = {}
    exec(NETWORK, scope)
    params = scope["init"]()
    graph = trace_channels(scope["apply_fn"], params, scope["x"])
    masks = random_channel_masks(jax.random.key(1), graph, 0.3)
    small = graph.compact(masks, params, scope["optimizer"].init(params))
    return scope["train"], graph, small, params


@pytest.mark.slow
def test_another_process_goes_on_where_this_one_stopped(tmp_path):
    train, _, small, _ = small_network()
    state = train(small.apply_fn, *small.trees)
    io.save_compact(tmp_path, 1, small.masks, *state, metadata={"accuracy": 0.5})
    entry = io.latest(tmp_path)
    assert entry is not None
    assert entry.metadata["accuracy"] == 0.5
    subprocess.run(
        [sys.executable, "-c", OTHER_PROCESS, str(tmp_path)],
        check=True,
        cwd=ROOT,
        timeout=300,
    )
    want = train(small.apply_fn, *state)
    got = io.load(io.latest(tmp_path), want)
    assert jax.tree.structure(got) == jax.tree.structure(want)
    for mine, theirs in zip(jax.tree.leaves(got), jax.tree.leaves(want), strict=True):
        np.testing.assert_array_equal(mine, theirs)


def test_masks_and_functions_come_back(tmp_path):
    _, graph, small, params = small_network()
    path = io.save_compact(tmp_path, 3, small.masks, small.trees[0])
    again = io.load_compact(path, graph, params)
    assert again.widths == small.widths == {"w1:1": 4}
    np.testing.assert_array_equal(again.masks["w1:1"], small.masks["w1:1"])
    x = jnp.ones((5, 3))
    np.testing.assert_array_equal(
        again.apply_fn(again.trees[0], x), small.apply_fn(small.trees[0], x)
    )


def test_what_is_no_compact_network_of_this_graph_is_refused(tmp_path):
    _, graph, small, params = small_network()
    io.save(tmp_path, 1, params)
    with pytest.raises(ValueError, match=r"`load_compact\(.*says nothing of channels"):
        io.load_compact(io.latest(tmp_path), graph, params)
    with pytest.raises(FileNotFoundError, match=r"`load_compact\(None\)`"):
        io.load_compact(None, graph, params)
    path = io.save_compact(tmp_path, 2, small.masks, small.trees[0])
    mlp = lambda p, x: jnp.tanh(x @ p["w1"] + p["b1"][None]) @ p["w2"]
    wider = {"w1": jnp.ones((3, 20)), "b1": jnp.ones(20), "w2": jnp.ones((20, 2))}
    other = trace_channels(mlp, wider, jnp.ones((1, 3)))
    with pytest.raises(ValueError, match=r"'w1:1' has 16 channels in the .*, 20"):
        io.load_compact(path, other, wider)
    with pytest.raises(ValueError, match="does not fit"):
        io.load_compact(path, graph, params, optax.adam(1.0).init(params))
    with pytest.raises(TypeError, match=r"'w1:1'.*must be boolean.*Compacted.masks"):
        io.save_compact(tmp_path, 3, {"w1:1": np.ones(16)}, params)
    with pytest.raises(ValueError, match="the key must be another"):
        io.save_compact(tmp_path, 3, {}, params, metadata={"channels": 1})
