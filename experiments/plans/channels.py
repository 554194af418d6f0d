"""Channel pruning of a model of the experiments: its graph, its costs, its small form.

The tree that is traced is `{"params": ..., "batch_stats": ...}`, so that running
statistics shrink with their channels.
"""

import dataclasses
import functools
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax
import numpy as np
from flax import linen as nn

import jaxprune
from jaxprune.base import Cost, Limit
from jaxprune.channels import Function
from jaxprune.costs import PolynomialCost

Masks = dict[str, np.ndarray]

NORMS = "dense-count"
"""What becomes of channels that a norm sums over: the width of transformers can go."""

COSTS: dict[str, Callable[..., PolynomialCost]] = {
    "macs": jaxprune.costs.macs,
    "parameters": jaxprune.costs.parameters,
    "bytes": jaxprune.costs.bytes_moved,
}


@dataclasses.dataclass(frozen=True, kw_only=True)
class Channels:
    """The channels of a model.

    Attributes:
      model: the dense module.
      graph: its channel graph, of both modes, traced with one example.
      costs: every cost that is known, by name.
      blank: parameters and statistics of the dense network, abstract.
      example: one example, abstract.
    """

    model: nn.Module
    graph: jaxprune.ChannelGraph
    costs: Mapping[str, Cost]
    blank: tuple[Any, Any]
    example: Any

    def limits(self, budget: Mapping[str, float]) -> list[Limit]:
        """The limits of a budget by name.

        Raises:
          ValueError: if no cost has one of the names.
        """
        for name in budget:
            if name not in self.costs:
                raise ValueError(
                    f"`config.budget`: no cost is called {name!r}; the costs are "
                    f"{', '.join(self.costs)}."
                )
        return [Limit(self.costs[name], most, name) for name, most in budget.items()]

    def ratios(self, masks: Masks) -> dict[str, float]:
        """The fraction of every group that is kept."""
        return {name: float(np.mean(mask)) for name, mask in masks.items()}

    def reached(self, masks: Masks) -> dict[str, float]:
        """Every cost of the masked network, as a fraction of the dense cost."""
        ratios = self.ratios(masks)
        known = self.with_blocks() if self.graph.blocks.keys() & masks else self
        return {name: float(cost(ratios)) for name, cost in known.costs.items()}

    def with_blocks(self) -> "Channels":
        """The same with costs that count what is left of residual blocks, too."""
        costs = {name: make(self.graph, blocks=True) for name, make in COSTS.items()}
        return dataclasses.replace(self, costs=costs)

    def compact(
        self, masks: Masks, *trees: Any
    ) -> tuple["CompactModel", tuple[Any, ...]]:
        """The small network, called as a model is, and trees cut to it."""
        dense = {"params": self.blank[0], "batch_stats": self.blank[1]}
        blank = jax.tree.map(lambda x: np.zeros(x.shape, x.dtype), dense)
        small = self.graph.compact(masks, blank, *trees)
        model = CompactModel(
            small.functions["train"],
            small.functions["eval"],
            small.trees[0],
            small.widths,
        )
        return model, small.trees[1:]


class CompactModel(NamedTuple):
    """A small network, with the interface of a module.

    Attributes:
      train_fn: `{"params", "batch_stats"}, image, key -> logits, updated`; the key is
        what is dropped by.
      eval_fn: `{"params", "batch_stats"}, image -> logits`.
      blank: its parameters and statistics, all zero.
      widths: the number of channels of every group.
    """

    train_fn: Callable[..., Any]
    eval_fn: Callable[..., Any]
    blank: dict[str, Any]
    widths: dict[str, int]

    def apply(
        self,
        variables,
        image,
        *,
        train: bool,
        mutable: Any = False,
        rngs: Mapping[str, jax.Array] | None = None,
    ):
        """As `nn.Module.apply`, for the two ways in which a network is called."""
        del mutable
        if not train:
            return self.eval_fn(variables, image)
        assert rngs is not None, "a network is trained with the key `dropout`"
        return self.train_fn(variables, image, rngs["dropout"])


def trace(
    model: nn.Module,
    blank: tuple[Any, Any],
    image: Any,
    *,
    trained: nn.Module | None = None,
    axis_sizes: Mapping[str, int] | None = None,
) -> Channels:
    """Traces the channels of a model.

    Args:
      model: a module without a mapped axis.
      blank: its parameters and statistics, possibly abstract.
      image: one example, in a batch of one, possibly abstract.
      trained: the module as it is trained, with a mapped axis; `model` if not given.
      axis_sizes: the size of the mapped axis, by name.
    """
    *abstract, example = jax.tree.map(
        lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype), (*blank, image)
    )
    tree = {"params": abstract[0], "batch_stats": abstract[1]}
    graph = trace_both(model, tree, example, trained=trained, axis_sizes=axis_sizes)
    return Channels(
        model=model,
        graph=graph,
        costs={name: make(graph) for name, make in COSTS.items()},
        blank=(abstract[0], abstract[1]),
        example=example,
    )


def trace_both(
    model: nn.Module,
    tree: Any,
    images: Any,
    *,
    trained: nn.Module | None = None,
    axis_sizes: Mapping[str, int] | None = None,
) -> jaxprune.ChannelGraph:
    """Traces a model in evaluation mode and in training mode together.

    Args:
      model: a module without a mapped axis.
      tree: its parameters and statistics.
      images: examples.
      trained: see `trace`.
      axis_sizes: see `trace`.
    """
    key = jax.eval_shape(lambda: jax.random.key(0))
    functions = {
        "eval": _evaluated(model),
        "train": Function(_trained(trained or model), (images, key)),
    }
    return jaxprune.trace_channels(
        functions, tree, images, axis_sizes=axis_sizes, norms=NORMS
    )


# One function for each module: what is traced and compiled is kept by function.
@functools.cache
def _evaluated(model: nn.Module) -> Callable[..., Any]:
    """The model as a pure function of one tree, as it is evaluated."""
    return lambda tree, image: model.apply(tree, image, train=False)


@functools.cache
def _trained(model: nn.Module) -> Callable[..., Any]:
    """The model as a pure function of one tree, as it is trained."""

    def apply_fn(tree, image, key):
        return model.apply(
            tree, image, train=True, mutable=["batch_stats"], rngs={"dropout": key}
        )

    return apply_fn


def as_json(masks: Masks) -> dict[str, list[int]]:
    """Channel masks as the indices of the kept channels."""
    return {name: np.flatnonzero(mask).tolist() for name, mask in masks.items()}


def from_json(graph: jaxprune.ChannelGraph, kept: Mapping[str, list[int]]) -> Masks:
    """Channel masks from the indices of the kept channels, or layers of blocks."""
    sizes = {name: group.size for name, group in graph.groups.items()}
    sizes |= {name: block.layers for name, block in graph.blocks.items()}
    masks = {}
    for name, indices in kept.items():
        masks[name] = np.zeros(sizes[name], bool)
        masks[name][indices] = True
    return masks
