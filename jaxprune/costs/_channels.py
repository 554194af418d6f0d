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

With `blocks=True` the residual blocks of the graph are sites too: with k_b the fraction
kept of the layers of block b, 0 or 1 where it has one, all that only b needs counts
times k_b.

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

from jaxprune.channels._blocks import Block
from jaxprune.channels._flow.atoms import Axis, Fixed
from jaxprune.channels._graph import ChannelGraph, check_graph
from jaxprune.costs._polynomial import Fraction, PolynomialCost, polynomial


def parameters(graph: ChannelGraph, *, blocks: bool = False) -> PolynomialCost:
    """Return the number of parameters, of all leaves of the graph.

        cost(k) = sum over leaves of size * prod_a f_a(k) / sum over leaves of size

    with f_a(k) the fraction kept of axis a.

    Args:
      graph: the channel graph.
      blocks: whether the blocks of the graph are sites of the cost.

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
    owners: dict[str, tuple[str, ...]] = {}
    for block_name, block in _blocks(graph, blocks):
        for leaf in block.leaves:
            owners[leaf] = (*owners.get(leaf, ()), block_name)
    pieces = (
        (
            math.prod(leaf.shape),
            tuple(zip(value.axes, leaf.shape, strict=True)),
            owners.get(name, ()),
        )
        for name, leaf, value in zip(
            traced.names, traced.leaves, traced.program.args, strict=False
        )
    )
    return _cost(graph, pieces, "parameters", blocks)


def macs(
    graph: ChannelGraph, *, without: Sequence[str] = (), blocks: bool = False
) -> PolynomialCost:
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
      blocks: whether the blocks of the graph are sites of the cost.

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
    owners = _owners(graph, blocks)
    pieces = ((work.macs, work.axes, owners(work.path)) for work in works)
    return _cost(graph, pieces, "macs", blocks)


def bytes_moved(graph: ChannelGraph, *, blocks: bool = False) -> PolynomialCost:
    """Return the bytes that convolutions and matrix products read and write.

        cost(k) = sum over products, over both operands and the result, of
                  bytes * prod_a f_a(k), divided by its value for the dense network

    Every product reads both operands (weights and activations) and writes its result
    once; what lies between products is taken to be fused with them.

    Args:
      graph: the channel graph.
      blocks: whether the blocks of the graph are sites of the cost.

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
    owners = _owners(graph, blocks)
    pieces = (
        (
            work.trips * width * math.prod(sizes),
            tuple(zip(axes, sizes, strict=True)),
            owners(work.path),
        )
        for work in graph._traced.program.flow.work
        for axes, sizes, width in work.arrays
    )
    return _cost(graph, pieces, "bytes_moved", blocks)


Piece = tuple[int, tuple[tuple[Axis, int], ...], tuple[str, ...]]
"""An amount, the axes with their lengths whose fractions it is multiplied with, and the
names of the blocks that it belongs to.
"""


def _blocks(graph: ChannelGraph, wanted: bool) -> Iterable[tuple[str, Block]]:
    return graph.blocks.items() if wanted else ()


def _owners(
    graph: ChannelGraph, wanted: bool
) -> Callable[[tuple[int, ...]], tuple[str, ...]]:
    """Return the function from places in the program to the blocks around them."""
    places: dict[tuple[int, ...], tuple[str, ...]] = {}
    for name, block in _blocks(graph, wanted):
        for place in block.places:
            places[place] = (*places.get(place, ()), name)

    def owners(path: tuple[int, ...]) -> tuple[str, ...]:
        heads = (path[:end] for end in range(1, len(path) + 1))
        return tuple(dict.fromkeys(n for head in heads for n in places.get(head, ())))

    return owners


def _cost(
    graph: ChannelGraph, pieces: Iterable[Piece], name: str, blocks: bool
) -> PolynomialCost:
    """Add up pieces with equal fractions."""
    fraction_of = _fractions(graph)
    sites = (*graph.groups, *(name for name, _ in _blocks(graph, blocks)))
    whole: dict[str, Fraction] = {n: ((1, (i,)),) for i, n in enumerate(sites)}
    amounts: dict[tuple[Fraction, ...], int] = {}
    for amount, axes, owners in pieces:
        shares = [fraction_of(axis) for axis, _ in axes] + [whole[n] for n in owners]
        fractions = tuple(sorted(filter(None, shares)))
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
        sites=sites,
        polynomial=polynomial(amounts, len(sites)),
        roles=graph.roles,
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
