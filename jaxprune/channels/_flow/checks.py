"""Checks of what users pass: parameters and inputs."""

import itertools
from typing import Any

import jax
import numpy as np

from jaxprune import tree


def check_arrays(params: Any, inputs: Any) -> None:
    """Refuses what cannot be traced, as `trace_channels` says."""
    if not jax.tree.leaves(params):
        raise ValueError(
            "`trace_channels(apply_fn, params, ...)`: `params` must have at least one "
            f"array, got an empty tree {params!r}. Pass the initialised parameters."
        )
    for what, arrays in (("params", params), ("inputs", inputs)):
        for path, leaf in jax.tree_util.tree_leaves_with_path(arrays):
            where = f"{what}{jax.tree_util.keystr(path)}"
            if not hasattr(leaf, "shape") or not hasattr(leaf, "dtype"):
                raise TypeError(
                    f"`trace_channels`: {where} must be an array, it is the "
                    f"{type(leaf).__name__} {leaf!r}, which has no axes and may decide "
                    "what is computed. Close over it: `partial(apply_fn, ...)`."
                )
            for axis, size in enumerate(leaf.shape):
                if not isinstance(size, (int, np.integer)):
                    raise ValueError(
                        f"`trace_channels`: {where}, axis {axis}, has the symbolic "
                        f"size {size}; channels are counted, so it must be known. "
                        "Trace with an example; the compact function takes others."
                    )


def leaves_of(graph: Any, params: Any, call: str) -> dict[str, Any]:
    """Return the leaves of parameters by name, those that were traced.

    Args:
      graph: the channel graph.
      params: arrays or abstract arrays.
      call: the function that was called, for the message.

    Raises:
      ValueError: if names or shapes are not those of the graph.
    """
    named = tree.named_leaves(params)
    if list(named) != list(graph.leaves):
        raise ValueError(
            f"`{call}`: `params` must have the leaves that were traced, "
            f"{list(graph.leaves)}, got {list(named)}. Pass the same tree as to "
            "`trace_channels`."
        )
    for name, leaf in graph.leaves.items():
        for axis, (given, size) in enumerate(
            itertools.zip_longest(np.shape(named[name]), leaf.shape)
        ):
            if given != size:
                raise ValueError(
                    f"`{call}`: leaf {name!r}, axis {axis}, has size {given}, but "
                    f"{size} when the graph was traced. Trace the function with these "
                    "parameters."
                )
    return named
