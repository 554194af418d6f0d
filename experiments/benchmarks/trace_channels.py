"""Seconds that tracing and grouping take, JAX's own tracing apart.

    python -m experiments bench trace-channels [--rounds=5] [--only=resnet56]

Chains of three lengths show how the cost grows with the number of equations.
"""

import argparse
import functools
from collections.abc import Callable, Iterator
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from experiments import models
from experiments.analyses.timing import in_turns
from jaxprune.channels import ChannelGraph, trace_channels

Example = tuple[Callable[..., Any], Any, Any]
"""A function, its parameters and its input, both abstract."""


def model(name: str, side: int) -> Example:
    """A model of the experiments, for one image."""
    module = models.create(name, 1000 if side > 32 else 10)
    x = jax.ShapeDtypeStruct((1, side, side, 3), jnp.float32)
    init = functools.partial(module.init, train=False)
    variables = jax.eval_shape(init, jax.random.key(0), x)
    return functools.partial(module.apply, train=False), variables, x


def chain(depth: int) -> Example:
    """A chain of dense layers, four equations each."""

    def apply_fn(params, x):
        for i in range(depth):
            x = jnp.tanh(x @ params[f"w{i}"]) * 2 + 1
        return x

    square = jax.ShapeDtypeStruct((64, 64), jnp.float32)
    params = {f"w{i}": square for i in range(depth)}
    return apply_fn, params, jax.ShapeDtypeStruct((1, 64), jnp.float32)


def scanned_transformer(depth: int, width: int = 128) -> Example:
    """Transformer layers, stacked and run by one scan."""

    class Layer(nn.Module):
        @nn.compact
        def __call__(self, x):
            x += nn.MultiHeadDotProductAttention(4)(nn.LayerNorm()(x))
            y = nn.gelu(nn.Dense(4 * width)(nn.LayerNorm()(x)))
            return x + nn.Dense(width)(y)

    x = jax.ShapeDtypeStruct((1, 16, width), jnp.float32)
    one = jax.eval_shape(Layer().init, jax.random.key(0), x)
    stacked = jax.tree.map(
        lambda s: jax.ShapeDtypeStruct((depth, *s.shape), s.dtype), one
    )

    def apply_fn(params, x):
        def step(x, layer):
            return Layer().apply(layer, x), None

        return jax.lax.scan(step, x, params)[0]

    return apply_fn, stacked, x


EXAMPLES: dict[str, Callable[[], Example]] = {
    "resnet20": lambda: model("resnet20", 32),
    "resnet56": lambda: model("resnet56", 32),
    "vgg16": lambda: model("vgg16", 32),
    "resnet50": lambda: model("resnet50", 224),
    "mobilenetv1": lambda: model("mobilenetv1", 224),
    "100 scanned transformer layers": lambda: scanned_transformer(100),
    "chain of 50": lambda: chain(50),
    "chain of 200": lambda: chain(200),
    "chain of 800": lambda: chain(800),
}


def equations(jaxpr: Any) -> int:
    """Counts equations, those of called programs included."""
    inner = [getattr(p, "jaxpr", p) for e in jaxpr.eqns for p in e.params.values()]
    return len(jaxpr.eqns) + sum(equations(j) for j in inner if hasattr(j, "eqns"))


def measure(options: argparse.Namespace) -> Iterator[dict[str, Any]]:
    """Yields a row for each network."""
    for name, make in EXAMPLES.items():
        if options.only not in name:
            continue
        apply_fn, params, x = make()

        # A new function each time, lest JAX answer with the trace that it remembers.
        def jaxpr(apply_fn=apply_fn, params=params, x=x) -> Any:
            return jax.make_jaxpr(lambda *args: apply_fn(*args))(params, x)

        def graph(apply_fn=apply_fn, params=params, x=x) -> ChannelGraph:
            return trace_channels(lambda *args: apply_fn(*args), params, x)

        alone, whole = in_turns([jaxpr, graph], options.rounds)
        yield {
            "network": name,
            "equations": equations(jaxpr().jaxpr),
            "groups": len(graph().groups),
            "JAX": alone,
            "all": whole,
        }


def add_options(parser: argparse.ArgumentParser) -> None:
    """Adds what this benchmark can be asked."""
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--only", default="", help="part of the names to run")
