"""What a network costs, as a differentiable function of its keep ratios.

A cost is a function `cost(keep_ratios) -> float32 scalar`, the cost of the pruned
network as a fraction of the cost of the dense one: 1 when everything is kept. Being a
ratio, it needs no unit and no scale when a budget is set on it.

`density` counts single weights. The other costs count channels: their sites are
the groups of a `ChannelGraph`. With k_g the keep ratio of group g, an axis a on which
n_g of n indices belong to g, the others being pinned, keeps the fraction

    f_a(k) = (sum_g n_g k_g + n_pinned) / n,

(an index that belongs to a head and to a feature counts with the product of their
ratios). An array keeps the product of the fractions of its axes, and a convolution or
matrix product the product over the axes that it runs over:

    parameters:  sum over leaves    of size * prod_a f_a
    macs:        sum over products  of macs * prod_a f_a
    bytes:       sum over products  of bytes of both operands and of the result

For a plain network that is the bilinear form k' F k + f' k of DSA. At the ratios of
hard channel masks the costs are exact counts, since every channel of a group has
equally many indices on every axis. (Except where shuffles tie several groups to parts
of one axis, as between grouped convolutions: there they are approximate.)

References:
  [DSA] Ning et al., "DSA: More Efficient Budgeted Pruning via Differentiable Sparsity
  Allocation", ECCV 2020, arXiv:2004.02164.
"""

import math
from collections.abc import Callable, Iterable, Sequence

import numpy as np

from jaxprune.channels._flow.atoms import Axis, Fixed
from jaxprune.channels._graph import ChannelGraph, check_graph
from jaxprune.costs._polynomial import Fraction, PolynomialCost, polynomial


def parameters(graph: ChannelGraph) -> PolynomialCost:
    """Return the number of parameters, of all leaves of the graph.

        cost(k) = sum over leaves of size * prod_a f_a(k) / sum over leaves of size

    with f_a(k) the fraction kept of axis a.

    Args:
      graph: the channel graph.

    Returns:
      A cost whose `dense` is the number of parameters of the dense network.

    Raises:
      ValueError: if the graph has no parameters.

    Examples:
      >>> import jax.numpy as jnp
      >>> from jaxprune.channels import trace_channels
      >>> params = {"w1": jnp.ones((3, 8)), "w2": jnp.ones((8, 2))}
      >>> mlp = lambda params, x: jnp.tanh(x @ params["w1"]) @ params["w2"]
      >>> graph = trace_channels(mlp, params, jnp.ones((1, 3)))
      >>> cost = parameters(graph)
      >>> cost.dense, float(cost({"w1:1": jnp.float32(0.5)}))
      (40, 0.5)
    """
    check_graph("parameters", graph)
    traced = graph._traced
    pieces = (
        (math.prod(leaf.shape), tuple(zip(value.axes, leaf.shape, strict=True)))
        for leaf, value in zip(traced.leaves, traced.program.args, strict=False)
    )
    return _cost(graph, pieces, "parameters")


def macs(graph: ChannelGraph, *, without: Sequence[str] = ()) -> PolynomialCost:
    """Multiply-accumulate operations of convolutions and matrix products.

    One operation is a multiplication and an addition; floating-point operations are
    twice as many. Positions at which a convolution reads padding count, positions that
    a transposed convolution fills with zeros do not. Of a `cond` the largest branch
    counts, of a `while` one trip, of a `scan` all. For all inputs of the trace: traced
    with a batch of one, this is the cost of one example.

    Args:
      graph: the channel graph.
      without: names of leaves whose products are left out; DSA leaves the classifier
        out.

    Raises:
      ValueError: if `without` names no leaf.
    """
    check_graph("macs", graph)
    traced = graph._traced
    unknown = set(without) - set(traced.names)
    if unknown:
        raise ValueError(
            f"`macs(graph, without={list(without)})`: {sorted(unknown)} are no leaves; "
            f"the leaves are {list(traced.names)}."
        )
    left_out = {i for i, name in enumerate(traced.names) if name in without}
    works = [w for w in traced.program.flow.work if not w.leaves & left_out]
    return _cost(graph, ((work.macs, work.axes) for work in works), "macs")


def bytes_moved(graph: ChannelGraph) -> PolynomialCost:
    """Return the bytes that convolutions and matrix products read and write.

        cost(k) = sum over products, over both operands and the result, of
                  bytes * prod_a f_a(k), divided by its value for the dense network

    Every product reads both operands (weights and activations) and writes its result
    once; what lies between products is taken to be fused with them.

    Args:
      graph: the channel graph.

    Returns:
      A cost whose `dense` is in bytes.

    Raises:
      ValueError: if the graph has no product.

    Examples:
      >>> import jax.numpy as jnp
      >>> from jaxprune.channels import trace_channels
      >>> params = {"w1": jnp.ones((3, 8)), "w2": jnp.ones((8, 2))}
      >>> mlp = lambda params, x: jnp.tanh(x @ params["w1"]) @ params["w2"]
      >>> bytes_moved(trace_channels(mlp, params, jnp.ones((1, 3)))).dense
      244
    """
    check_graph("bytes_moved", graph)
    pieces = (
        (
            work.trips * width * math.prod(sizes),
            tuple(zip(axes, sizes, strict=True)),
        )
        for work in graph._traced.program.flow.work
        for axes, sizes, width in work.arrays
    )
    return _cost(graph, pieces, "bytes_moved")


Piece = tuple[int, tuple[tuple[Axis, int], ...]]
"""An amount, and the axes with their lengths whose fractions it is multiplied with."""


def _cost(graph: ChannelGraph, pieces: Iterable[Piece], name: str) -> PolynomialCost:
    """Add up pieces with equal fractions."""
    fraction_of = _fractions(graph)
    amounts: dict[tuple[Fraction, ...], int] = {}
    for amount, axes in pieces:
        fractions = tuple(sorted(filter(None, (fraction_of(axis) for axis, _ in axes))))
        amounts[fractions] = amounts.get(fractions, 0) + amount
    dense = sum(amounts.values())
    if not dense:
        raise ValueError(
            f"`{name}(graph)`: the dense cost is 0, and costs are fractions of it. The "
            "traced function has no parameters, or no matrix product or convolution "
            "that counts; look at `print(graph)`."
        )
    return PolynomialCost(
        name=name,
        dense=dense,
        sites=tuple(graph.groups),
        polynomial=polynomial(amounts, len(graph.groups)),
    )


def _fractions(graph: ChannelGraph) -> Callable[[Axis], Fraction]:
    """Return the function from axes to fractions, () for axes kept whole."""
    atoms = graph._traced.program.flow.atoms
    number = np.full(atoms.count, -1)
    for i, group in enumerate(graph.groups.values()):
        number[group._atoms] = i
    known: dict[int, tuple[Axis, Fraction]] = {}

    def fraction_of(axis: Axis) -> Fraction:
        if isinstance(axis, Fixed):
            return ()
        if id(axis) not in known:
            rows = np.sort(number[atoms.resolve(axis)], axis=1)
            kinds, counts = np.unique(rows, axis=0, return_counts=True)
            fraction = tuple(
                (count, tuple(i for i in kind if i >= 0))
                for kind, count in zip(kinds.tolist(), counts.tolist(), strict=True)
            )
            whole = all(not kind for _, kind in fraction)
            known[id(axis)] = axis, () if whole else fraction
        return known[id(axis)][1]

    return fraction_of
