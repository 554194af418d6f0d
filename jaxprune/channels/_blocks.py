"""Residual branches as units that can go: the depth of a network.

A block is a branch f of an addition x + f(x): attention, a perceptron, convolutions.
Without it x takes the place of the sum, and what only f needed goes with it. Layers
that are stacked under a scan are one block with several layers, of which any can go.
"""

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any

import jax
import numpy as np

from jaxprune import tree as jtree
from jaxprune.channels._flow import blocks as flow_blocks
from jaxprune.channels._flow.blocks import RawBlock
from jaxprune.channels._trace import Traced, abstract, edits_of, live_program


@dataclasses.dataclass(frozen=True, kw_only=True, eq=False)
class Block:
    """A residual branch, of one layer or of several that are stacked.

    Attributes:
      name: the folder of its largest leaves, as in `layer1/attention:block`; where that
        is the folder of several blocks, the first of these leaves.
      layers: the number of layers that can go, each by itself: 1 outside of scans.
      leaves: the names of the leaves that only the branch reads.
    """

    name: str
    layers: int
    leaves: tuple[str, ...]
    _raw: RawBlock = dataclasses.field(repr=False)

    @property
    def places(self) -> frozenset[tuple[int, ...]]:
        """Where in the program is what only the branch needs, as numbers of equations.

        All that is computed below one of these places belongs to the branch.
        """
        return self._raw.dead


def blocks_of(traced: Traced) -> dict[str, Block]:
    """Return the blocks of the main program by name, in its order."""
    jaxpr, names = traced.program.frame.jaxpr, traced.names
    found = flow_blocks.find(jaxpr, len(names))
    return {
        name: Block(
            name=name,
            layers=raw.layers,
            leaves=tuple(names[i] for i in raw.leaves),
            _raw=raw,
        )
        for name, raw in flow_blocks.named(found, jaxpr, names).items()
    }


def gated(graph: Any, function: str | None) -> Callable[..., Any]:
    """Return a function whose blocks are multiplied; see `ChannelGraph.gated`."""
    name = graph.main if function is None else function
    if name not in graph.functions:
        raise ValueError(
            f"`graph.gated(function={function!r})`: must be the name of a function "
            f"that was traced. Pass one of {list(graph.functions)}."
        )
    apply_fn = graph.functions[name].apply_fn

    def run(params, gates: Mapping[str, Any], *inputs):
        _check_gates(graph, gates)
        arrays = {name: jax.numpy.asarray(gate) for name, gate in gates.items()}
        avals = jax.tree.map(abstract, (params, *inputs))
        closed, out = jax.make_jaxpr(apply_fn, return_shape=True)(*avals)
        program = live_program(closed)
        edits = edits_of(program, list(jtree.named_leaves(params)), arrays)
        outs = flow_blocks.run(program, jax.tree.leaves((params, *inputs)), edits)
        return jax.tree.unflatten(jax.tree.structure(out), outs)

    return run


def _check_gates(graph: Any, gates: Mapping[str, Any]) -> None:
    for name, gate in gates.items():
        if name not in graph.blocks:
            raise ValueError(
                f"`graph.gated()(params, gates)`: {name!r} must be the name of a "
                f"block. Pass some of {list(graph.blocks)}."
            )
        shape = (graph.blocks[name].layers,)
        if np.shape(gate) != shape:
            raise ValueError(
                f"`graph.gated()(params, gates)`: the gates of block {name!r} must "
                f"have shape {shape}, got {np.shape(gate)}. Pass one number for each "
                "layer."
            )
