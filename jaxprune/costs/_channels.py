"""What a network costs, as a differentiable function of its keep ratios.

A cost is a function `cost(keep_ratios) -> float32 scalar`, the cost of the pruned
network as a fraction of the cost of the dense one: 1 when everything is kept. Being a
ratio, it needs no unit and no scale when a budget is set on it.

`density` prices single weights. The other costs price channels: their sites are
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

import dataclasses
import itertools
import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jaxprune.channels._flow.atoms import Axis, Fixed
from jaxprune.channels._graph import ChannelGraph

Fraction = tuple[tuple[int, tuple[int, ...]], ...]
"""The fraction kept of an axis: counts of indices, each with the groups it belongs to.

The numbers of groups are positions in `graph.groups`; the counts add up to the length
of the axis.
"""


class Polynomial(NamedTuple):
    """Hold a cost as arrays: sums of products of sums of products of keep ratios.

    With k the G keep ratios and a 1 behind them, and f the fractions and a 1 behind
    them,

        f_a  = (sum over pieces i of fraction a of counts_i prod_p k[groups_ip]) / n_a
        cost = sum_t amounts_t prod_q f[fractions_tq] / sum_t amounts_t

    Attributes:
      groups: int32, shape (pieces, P), the groups of a piece; G where there are fewer.
      counts: float64, shape (pieces,), the indices of the axis that are in the piece.
      owners: int32, shape (pieces,), ascending, the fraction that a piece belongs to.
      lengths: float64, shape (F,), the length n_a of the axis.
      fractions: int32, shape (terms, Q), the fractions of a term; F for none.
      amounts: float64, shape (terms,), the dense costs of the terms.
    """

    groups: np.ndarray
    counts: np.ndarray
    owners: np.ndarray
    lengths: np.ndarray
    fractions: np.ndarray
    amounts: np.ndarray

    def at(self, ratios: np.ndarray) -> float:
        """Return the cost at keep ratios of shape (G,), in double precision."""
        pieces = self.counts * np.prod(np.append(ratios, 1.0)[self.groups], axis=1)
        sums = np.bincount(self.owners, pieces, len(self.lengths))
        terms = np.prod(np.append(sums / self.lengths, 1.0)[self.fractions], axis=1)
        return float(self.amounts @ terms / self.amounts.sum())

    def traced_at(self, ratios: jax.Array) -> jax.Array:
        """Return the cost at keep ratios of shape (G,), which may be traced."""
        dtype = ratios.dtype
        one = jnp.ones(1, dtype)
        shares = (self.counts / self.lengths[self.owners]).astype(dtype)
        pieces = shares * _product(jnp.append(ratios, one), self.groups)
        sums = jnp.zeros(len(self.lengths), dtype)
        sums = sums.at[self.owners].add(pieces, indices_are_sorted=True)
        weights = (self.amounts / self.amounts.sum()).astype(dtype)
        return jnp.sum(weights * _product(jnp.append(sums, one), self.fractions))


def _product(values: jax.Array, indices: np.ndarray) -> jax.Array:
    """Return the products of entries: `values[indices].prod(1)`, easy to derive."""
    found = jnp.ones(len(indices), values.dtype)
    for column in indices.T:
        found *= values[column]
    return found


@dataclasses.dataclass(frozen=True, kw_only=True, eq=False)
class ChannelCost:
    """A cost of channels: called with keep ratios by group name, a float32 scalar.

    Attributes:
      dense: the cost when everything is kept, in the unit of the cost.
      groups: the names of the groups.
      polynomial: the cost as arrays; the program that it is traced to has the same size
        for every network.
      name: what limits on the cost are called.
    """

    dense: int
    groups: tuple[str, ...]
    polynomial: Polynomial
    name: str

    def __call__(self, keep_ratios: Mapping[str, Any]) -> Any:
        """Return the cost as a fraction of `dense`.

        Args:
          keep_ratios: group name to the fraction kept, in [0, 1]. Groups without a
            keep ratio count as kept whole; of a vector the mean counts.

        Returns:
          A scalar, float32 (or wider if the keep ratios are). If all keep ratios are
          numbers of Python or NumPy, a Python number in double precision.

        Raises:
          ValueError: if `keep_ratios` names something that is no group.
        """
        unknown = keep_ratios.keys() - set(self.groups)
        if unknown:
            raise ValueError(
                f"`{self.name}(graph)(keep_ratios)`: no group is called "
                f"{sorted(unknown)}; the groups are {sorted(self.groups)}. Make the "
                "cost and the keep ratios from one graph."
            )
        if not any(isinstance(ratio, jax.Array) for ratio in keep_ratios.values()):
            ratios = [np.mean(keep_ratios.get(name, 1.0)) for name in self.groups]
            return self.polynomial.at(np.array(ratios, np.float64))
        dtype = jnp.result_type(jnp.float32, *keep_ratios.values())
        ratios = (jnp.asarray(keep_ratios.get(n, 1.0), dtype) for n in self.groups)
        means = [jnp.mean(ratio) if ratio.ndim else ratio for ratio in ratios]
        return self.polynomial.traced_at(jnp.stack(means))


def parameters(graph: ChannelGraph) -> ChannelCost:
    """The number of parameters, of all leaves of the graph.

    >>> import jax.numpy as jnp
    >>> from jaxprune.channels import trace_channels
    >>> params = {"w1": jnp.ones((3, 8)), "w2": jnp.ones((8, 2))}
    >>> mlp = lambda params, x: jnp.tanh(x @ params["w1"]) @ params["w2"]
    >>> graph = trace_channels(mlp, params, jnp.ones((1, 3)))
    >>> cost = parameters(graph)
    >>> cost.dense, float(cost({"w1:1": jnp.float32(0.5)}))
    (40, 0.5)
    """
    traced = graph._traced
    pieces = (
        (math.prod(leaf.shape), tuple(zip(value.axes, leaf.shape, strict=True)))
        for leaf, value in zip(traced.leaves, traced.program.args, strict=False)
    )
    return _cost(graph, pieces, "parameters")


def macs(graph: ChannelGraph, *, without: Sequence[str] = ()) -> ChannelCost:
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


def bytes_moved(graph: ChannelGraph) -> ChannelCost:
    """Bytes that convolutions and matrix products read and write: weights, activations.

    Every product reads both operands and writes its result once; what lies between
    products is taken to be fused with them.
    """
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


def _cost(graph: ChannelGraph, pieces: Iterable[Piece], name: str) -> ChannelCost:
    """Add up pieces with equal fractions."""
    fraction_of = _fractions(graph)
    amounts: dict[tuple[Fraction, ...], int] = {}
    for amount, axes in pieces:
        fractions = tuple(sorted(filter(None, (fraction_of(axis) for axis, _ in axes))))
        amounts[fractions] = amounts.get(fractions, 0) + amount
    dense = sum(amounts.values())
    if not dense:
        raise ValueError(
            f"`{name}(graph)`: the dense cost is 0, and a cost is a fraction of it. The "
            "traced function has no parameters, or no matrix product or convolution "
            "that counts; look at `print(graph)`."
        )
    return ChannelCost(
        dense=dense,
        groups=tuple(graph.groups),
        polynomial=_polynomial(amounts, len(graph.groups)),
        name=name,
    )


def _polynomial(
    amounts: Mapping[tuple[Fraction, ...], int], group_count: int
) -> Polynomial:
    """Return amounts by fractions as arrays."""
    number = {f: i for i, f in enumerate(dict.fromkeys(itertools.chain(*amounts)))}
    pieces = [(piece, i) for fraction, i in number.items() for piece in fraction]
    return Polynomial(
        groups=_padded([groups for (_, groups), _ in pieces], group_count),
        counts=np.array([count for (count, _), _ in pieces], np.float64),
        owners=np.array([i for _, i in pieces], np.int32),
        lengths=np.array([sum(n for n, _ in f) for f in number], np.float64),
        fractions=_padded([[number[f] for f in fs] for fs in amounts], len(number)),
        amounts=np.array(list(amounts.values()), np.float64),
    )


def _padded(rows: Sequence[Sequence[int]], filler: int) -> np.ndarray:
    """Return rows of different lengths as one array, int32."""
    found = np.full((len(rows), max(map(len, rows), default=0)), filler, np.int32)
    for i, row in enumerate(rows):
        found[i, : len(row)] = row
    return found


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
