"""What a user passes by mistake is refused by the function that was called.

The message begins with the call. Each row is a kind of mistake: a number instead of a
graph, a mask of another size, variables of another pruner. All messages in the sources
are read too: each has the call, the requirement and a remedy.
"""

import ast
import fractions
import functools
import pathlib
import re

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import nnx

import jaxprune
from jaxprune import channels, costs, io, masks, transforms
from jaxprune.base import Final

PARAMS = {
    "a": {"bias": np.ones((1, 8), np.float32), "kernel": np.ones((4, 8), np.float32)},
    "b": {"kernel": np.ones((8, 2), np.float32)},
}
X = np.ones((2, 4), np.float32)
HALF = np.arange(8) < 4
SGD = optax.sgd(0.1)
KEY = jax.random.key(0)


def apply_fn(params, x):
    hidden = jax.nn.relu(x @ params["a"]["kernel"] + params["a"]["bias"])
    return hidden @ params["b"]["kernel"]


@functools.cache
def _graph():
    return jaxprune.trace_channels(apply_fn, PARAMS, X)


@pytest.fixture(scope="module")
def graph():
    return _graph()


def _group(mask):
    return {"a/kernel:1": mask}


def _pruning():
    limit = jaxprune.at_most(jaxprune.density, 0.5)
    return jaxprune.pruning(jaxprune.ltp(), limit)


def _begin(optimizer):
    return optimizer.init(_pruning().init(PARAMS))


def _half_the_macs():
    return jaxprune.at_most(costs.macs(_graph()), 0.5)


def _module():
    return jaxprune.nnx_module(_pruning(), nnx.Linear(2, 2, rngs=nnx.Rngs(0)))


# What the message begins with, and a call that takes a graph.
GRAPHS = {
    "graph.compact(masks)": [
        lambda g: g.compact({"c": HALF}, PARAMS),
        lambda g: g.compact(_group(np.ones(7, bool)), PARAMS),
        lambda g: g.compact(_group(np.arange(8)), PARAMS),
        lambda g: g.compact(_group(np.zeros(8, bool)), PARAMS),
        lambda g: jax.jit(lambda m: g.compact(_group(m), PARAMS).trees[0])(HALF),
    ],
    "graph.masked(masks)": [lambda g: g.masked({"c": HALF})],
    "channel_masks(masks)": [lambda g: channels.channel_masks(g, {"c": HALF})],
    "consumer_masks(masks)": [
        lambda g: channels.consumer_masks(g, PARAMS, {"c": HALF})
    ],
    "apply_fn(params, ...)": [
        lambda g: g.compact(_group(HALF), PARAMS).apply_fn(PARAMS, X)
    ],
    "graph.compact(masks)`: must be masks, got a `Final`": [
        lambda g: g.compact(Final(PARAMS, _group(HALF), None), PARAMS)
    ],
    "random_channel_masks(key=3)": [lambda g: channels.random_channel_masks(3, g, 0.5)],
    "random_channel_masks(key=None)": [
        lambda g: channels.random_channel_masks(None, g, 0.5)
    ],
    "uniform_ratio(limits)": [lambda g: channels.uniform_ratio(g, 3)],
    "filter_norms(graph)(params)": [
        lambda g: channels.filter_norms(g)({"a": np.ones(1)}),
        lambda g: channels.filter_norms(g)(jax.tree.map(lambda x: x[:2], PARAMS)),
    ],
}

# The same without a graph.
OTHERS = {
    "trace_channels(apply_fn=3)": [lambda: jaxprune.trace_channels(3, PARAMS, X)],
    "trace_channels(updated=": [
        lambda: jaxprune.trace_channels(apply_fn, PARAMS, X, updated=("1",))
    ],
    "random_channel_masks(graph)": [
        lambda: channels.random_channel_masks(KEY, PARAMS, 0.5)
    ],
    "macs(graph)": [lambda: costs.macs(PARAMS)],
    "parameters(graph)": [lambda: costs.parameters(PARAMS)],
    "bytes_moved(graph)": [lambda: costs.bytes_moved(PARAMS)],
    "filter_norms(graph)": [lambda: channels.filter_norms(PARAMS)],
    "plan_gates(graph)": [lambda: channels.plan_gates(PARAMS)],
    "live_channels(graph)": [lambda: channels.live_channels(PARAMS, PARAMS)],
    "fold_constants(graph)": [lambda: channels.fold_constants(PARAMS, PARAMS)],
    "dsa(graph)": [lambda: jaxprune.dsa(PARAMS)],
    "ltp(": [
        lambda: jaxprune.ltp().apply(PARAMS, {}),
        lambda: jaxprune.ltp().masks(PARAMS, {"a/kernel": jnp.ones(3)}),
    ],
    "soft_thresholding(": [lambda: jaxprune.soft_thresholding().apply(PARAMS, {})],
    "snip(loss_fn=3)": [lambda: jaxprune.snip(3)],
    "grasp(loss_fn=3)": [lambda: jaxprune.grasp(3)],
    "random_erk(key=3)": [lambda: jaxprune.random_erk(3)],
    "top_k_masks(keep=": [
        lambda: jaxprune.top_k_masks(PARAMS, 10**9),
        lambda: jaxprune.top_k_masks(PARAMS, 2.5),
        lambda: jaxprune.top_k_masks(PARAMS, True),
    ],
    "keep_count(size=-1)": [lambda: masks.keep_count(0.5, -1)],
    "by_name(3)": [lambda: jaxprune.by_name(3)],
    "pruning.optimizer(weights=3)": [lambda: _pruning().optimizer(3)],
    "pruning.optimizer(...).init(params)": [
        lambda: _pruning().optimizer(SGD).init(PARAMS)
    ],
    "pruning.optimizer(weights=...)`: must be an optimizer of the weights alone": [
        lambda: _begin(_pruning().optimizer(_pruning().optimizer(SGD))),
        lambda: _begin(
            _pruning().optimizer(
                optax.chain(
                    optax.clip(1.0),
                    optax.MultiSteps(_pruning().optimizer(SGD), 2),
                )
            )
        ),
        lambda: _begin(optax.chain(_pruning().optimizer(_pruning().optimizer(SGD)))),
    ],
    "pruning.optimizer(variables=...)`: must be an optimizer of the variables": [
        lambda: _begin(_pruning().optimizer(SGD, variables=_pruning().optimizer(SGD)))
    ],
    "lats(..., where=...)`: `where` must select at least one leaf, it selects none of "
    "one bare array of shape (56,) (put `optax.flatten` inside": [
        lambda: optax.flatten(jaxprune.lats(SGD, sparsity=0.5, steps=3)).init(PARAMS)
    ],
    "pruning.init(params)": [
        lambda: _pruning().init(_pruning().init(PARAMS)),
        lambda: jaxprune.pruning(jaxprune.ltp(), _half_the_macs()).init(PARAMS),
    ],
    "pruning(pruner=<function dsa": [lambda: jaxprune.pruning(jaxprune.dsa)],
    "pruning(pruner, Limit(": [
        lambda: jaxprune.pruning(
            jaxprune.dsa(_graph()), jaxprune.at_most(jaxprune.density, 0.5)
        )
    ],
    "nnx_module(pruning, model)": [
        lambda: jaxprune.nnx_module(nnx.Linear(2, 2, rngs=nnx.Rngs(0)), _pruning()),
        lambda: jaxprune.nnx_module(_pruning(), _module()),
    ],
    "follow_threshold(": [
        lambda: transforms.follow_threshold(
            SGD, jaxprune.magnitude(sparsity=0.5), threshold=1.0
        ).init({"params": PARAMS, "variables": {}})
    ],
    "export_program(apply_fn=3)": [lambda: io.export_program(3, PARAMS, X)],
}


# The older forms, "must be given": what the message begins with, and a call.
TREE = {"kernel": np.ones((2, 3), np.float32)}


def _updated(transformation):
    return transformation.update(TREE, transformation.init(TREE), None)


OTHERS |= {
    "proximal(prox=3)": [lambda: transforms.proximal(3, 0.1)],
    "proximal(prox=<lambda>)`: must return a tree": [
        lambda: transforms.proximal(lambda p, s: [p], 0.1).init(TREE)
    ],
    "proximal(prox=<lambda>)`: must keep the shape": [
        lambda: transforms.proximal(
            lambda p, s: jax.tree.map(lambda x: x[:1], p), 0.1
        ).init(TREE)
    ],
    "ista(...).update(updates, state, params=None)": [
        lambda: _updated(transforms.ista(0.1, 0.1))
    ],
    "lats(...).update(updates, state, params=None)": [
        lambda: _updated(jaxprune.lats(SGD, sparsity=0.5, steps=3))
    ],
    "freeze_pruned(...).update(updates, state, params=None)": [
        lambda: _updated(jaxprune.freeze_pruned(jax.tree.map(lambda x: x > 0, TREE)))
    ],
    "preconditioned_proximal(preconditioner=3)": [
        lambda: transforms.preconditioned_proximal(
            SGD, jaxprune.prox.soft_threshold, 0.1, preconditioner=3
        )
    ],
    "preconditioned_proximal(preconditioner=...)`: must return": [
        lambda: transforms.preconditioned_proximal(
            SGD, jaxprune.prox.soft_threshold, 0.1, preconditioner=lambda _: 3
        ).update(
            TREE,
            transforms.preconditioned_proximal(
                SGD, jaxprune.prox.soft_threshold, 0.1, preconditioner=lambda _: 3
            ).init(TREE),
            TREE,
        )
    ],
    "adam_preconditioner()(state)`: the state must hold": [
        lambda: transforms.adam_preconditioner()(SGD.init(TREE))
    ],
    "reach_keep_ratio(pruner=3)": [
        lambda: transforms.reach_keep_ratio(SGD, 3, keep_ratio=0.5, shape=lambda t: t)
    ],
    "reach_keep_ratio(shape=3)": [
        lambda: transforms.reach_keep_ratio(
            SGD, jaxprune.soft_thresholding(), keep_ratio=0.5, shape=3
        )
    ],
    "follow_threshold(...)`: the tree must have the entries": [
        lambda: transforms.follow_threshold(
            SGD, jaxprune.soft_thresholding(), threshold=1.0
        ).init(TREE)
    ],
    "soft_threshold(params, scaling)`: scalings must broadcast": [
        lambda: jaxprune.prox.soft_threshold(TREE, np.ones((3, 3), np.float32))
    ],
    "soft_threshold(params, scaling)`: the scaling must be": [
        lambda: jaxprune.prox.soft_threshold(TREE, {"other": 1.0})
    ],
    "soft_threshold(params, ...)`: leaves must be floating": [
        lambda: jaxprune.prox.soft_threshold({"kernel": np.ones(3, np.int32)}, 1.0)
    ],
    "box(lower=1, upper=0)": [lambda: jaxprune.prox.box(TREE, lower=1, upper=0)],
    "group_soft_threshold(group_axes=(5,))": [
        lambda: jaxprune.prox.group_soft_threshold(TREE, group_axes=5)
    ],
    "group_soft_threshold(params, scaling)`: one scaling": [
        lambda: jaxprune.prox.group_soft_threshold(
            TREE, np.ones((2, 3), np.float32), group_axes=-1
        )
    ],
    "resolve(params, where)`: `where` must be a tree prefix": [
        lambda: jaxprune.tree.resolve(TREE, {"a": True})
    ],
    "magnitude(": [
        lambda: jaxprune.magnitude(sparsity=0.5, where={"a": True}).masks(TREE, {})
    ],
    "lats(..., where=...)`: `where` must hold Python booleans": [
        lambda: jaxprune.lats(SGD, sparsity=0.5, steps=3, where={"kernel": 3}).init(
            TREE
        )
    ],
}


@pytest.mark.parametrize("begins", GRAPHS)
def test_messages_of_functions_of_a_graph_begin_with_the_call(begins, graph):
    for call in GRAPHS[begins]:
        with pytest.raises((TypeError, ValueError)) as error:
            call(graph)
        assert str(error.value).startswith(f"`{begins}")


@pytest.mark.parametrize("begins", OTHERS)
def test_messages_begin_with_the_call(begins):
    for call in OTHERS[begins]:
        with pytest.raises((TypeError, ValueError)) as error:
            call()
        assert str(error.value).startswith(f"`{begins}")


def test_a_sparsity_may_be_an_exact_fraction():
    pruner = jaxprune.magnitude(sparsity=fractions.Fraction(1, 3))
    kept = pruner.masks({"kernel": jnp.arange(12.0).reshape(3, 4)}, {})
    assert int(kept["kernel"].sum()) == 8


def test_masks_of_channels_in_the_place_of_masks_of_parameters_are_recognised():
    for call in (jaxprune.freeze_pruned(_group(HALF)).init, _applied):
        with pytest.raises(ValueError, match="consumer_masks"):
            call(PARAMS)


def _applied(params):
    return jaxprune.apply_masks(params, _group(HALF))


def test_an_attribute_of_the_model_is_found_in_the_message():
    with pytest.raises(AttributeError, match=r"`module\.params\.kernel`"):
        _ = _module().kernel
    with pytest.raises(AttributeError, match="no attribute 'kern'"):
        _ = _module().kern


SOURCES = pathlib.Path(jaxprune.__file__).parent
# What another exception wraps, or what no message is.
INTERNAL = {"a name stands twice", "ft_in", "{key}"}


def _written(node):
    """Return a message as it is written, values as their expressions in braces."""
    if isinstance(node, ast.Constant):
        return str(node.value)
    if isinstance(node, ast.JoinedStr):
        return "".join(map(_written, node.values))
    if isinstance(node, ast.FormattedValue):
        return "{" + ast.unparse(node.value).replace("`", "") + "}"
    if isinstance(node, ast.Call) and ast.unparse(node.func).endswith("Error"):
        return _written(node.args[0])
    if isinstance(node, ast.BinOp):
        return _written(node.left) + _written(node.right)
    return "{" + ast.unparse(node).replace("`", "") + "}"


def _messages():
    """Yield the place and the text of every message that the library raises."""
    for path in sorted(SOURCES.rglob("*.py")):
        module = ast.parse(path.read_text())
        # Values that begin a message, by the name that holds them; functions that
        # return one.
        begins = {
            target.id: _written(node.value)
            for node in ast.walk(module)
            if isinstance(node, ast.Assign) and isinstance(node.value, ast.JoinedStr)
            for target in node.targets
            if isinstance(target, ast.Name)
        }
        made = {
            node.name: _written(inner.value)
            for node in ast.walk(module)
            if isinstance(node, ast.FunctionDef)
            for inner in ast.walk(node)
            if isinstance(inner, ast.Return) and inner.value is not None
        }
        for node in ast.walk(module):
            if not (isinstance(node, ast.Raise) and isinstance(node.exc, ast.Call)):
                continue
            calls = [node.exc.args[0], node.exc]
            helpers = [ast.unparse(getattr(call, "func", call)) for call in calls]
            helped = [made[name] for name in helpers if name in made]
            text = helped[0] if helped else _written(calls[0])
            name = re.match(r"\{(\w+)\}", text)
            if name and name[1] in begins:
                text = begins[name[1]] + text[name.end() :]
            if text not in INTERNAL:
                yield f"{path.relative_to(SOURCES)}:{node.lineno}", text


def test_all_messages_have_the_call_the_requirement_and_a_remedy():
    found = dict(_messages())
    assert len(found) > 100
    form = re.compile(r"`[^`]+`: .*[^.](\. ?[A-Z`{].*|; .*|\.?\{.*\}\.?)", re.DOTALL)
    assert not {place: text for place, text in found.items() if not form.match(text)}


def test_flattened_trees_are_recognised_in_the_message():
    with pytest.raises(ValueError, match=r"put `optax.flatten` inside"):
        _begin(optax.flatten(_pruning().optimizer(SGD)))
