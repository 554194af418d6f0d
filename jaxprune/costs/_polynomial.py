"""Costs as polynomials in keep ratios, held in arrays.

All costs of this library are of this kind; they differ in where the numbers come from.
The program that such a cost is traced to has the same size for every network.
"""

import dataclasses
import itertools
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jaxprune.tree._names import near

Fraction = tuple[tuple[float, tuple[int, ...]], ...]
"""A fraction kept: counts, each with the sites whose keep ratios it is multiplied with.

Sites are numbers; the counts add up to what there is.
"""


class Polynomial(NamedTuple):
    """Hold a cost as arrays: sums of products of sums of products of keep ratios.

    With k the S keep ratios and a 1 behind them, and f the F fractions and a 1 behind
    them,

        f_a  = (sum over pieces i of fraction a of counts_i prod_p k[sites_ip]) / n_a
        cost = sum_t amounts_t prod_q f[fractions_tq] / sum_t amounts_t

    Attributes:
      sites: int32, shape (pieces, P), the sites of a piece; S where there are fewer.
      counts: float64, shape (pieces,), not negative.
      owners: int32, shape (pieces,), ascending, the fraction that a piece belongs to.
      totals: float64, shape (F,), n_a, the sum of the counts of a fraction.
      fractions: int32, shape (terms, Q), the fractions of a term; F for none.
      amounts: float64, shape (terms,), the dense costs of the terms, not negative.
    """

    sites: np.ndarray
    counts: np.ndarray
    owners: np.ndarray
    totals: np.ndarray
    fractions: np.ndarray
    amounts: np.ndarray

    def at(self, ratios: np.ndarray) -> float:
        """Return the cost at keep ratios of shape (S,), in double precision."""
        pieces = self.counts * np.prod(np.append(ratios, 1.0)[self.sites], axis=1)
        sums = np.bincount(self.owners, pieces, len(self.totals))
        terms = np.prod(np.append(sums / self.totals, 1.0)[self.fractions], axis=1)
        return float(self.amounts @ terms / self.amounts.sum())

    def traced_at(self, ratios: jax.Array) -> jax.Array:
        """Return the cost at keep ratios of shape (S,), which may be traced."""
        dtype = ratios.dtype
        shares = (self.counts / self.totals[self.owners]).astype(dtype)
        pieces = shares * _products(ratios, self.sites)
        sums = jnp.zeros(len(self.totals), dtype)
        sums = sums.at[self.owners].add(pieces, indices_are_sorted=True)
        weights = (self.amounts / self.amounts.sum()).astype(dtype)
        return jnp.sum(weights * _products(sums, self.fractions))


def _products(values: jax.Array, indices: np.ndarray) -> jax.Array:
    """Return `values_and_one[indices].prod(1)`, by columns, for its derivative."""
    values = jnp.append(values, jnp.ones(1, values.dtype))
    found = jnp.ones(len(indices), values.dtype)
    for column in indices.T:
        found *= values[column]
    return found


def polynomial(terms: Mapping[tuple[Fraction, ...], float], sites: int) -> Polynomial:
    """Return terms as arrays.

    Args:
      terms: the fractions whose product a term has, and its dense cost.
      sites: the number of sites.
    """
    number = {f: i for i, f in enumerate(dict.fromkeys(itertools.chain(*terms)))}
    pieces = [(piece, i) for fraction, i in number.items() for piece in fraction]
    return Polynomial(
        sites=_padded([found for (_, found), _ in pieces], sites),
        counts=np.array([count for (count, _), _ in pieces], np.float64),
        owners=np.array([i for _, i in pieces], np.int32),
        totals=np.array([sum(n for n, _ in f) for f in number], np.float64),
        fractions=_padded([[number[f] for f in fs] for fs in terms], len(number)),
        amounts=np.array(list(terms.values()), np.float64),
    )


def _padded(rows: Sequence[Sequence[int]], filler: int) -> np.ndarray:
    """Return rows of different lengths as one array, int32."""
    found = np.full((len(rows), max(map(len, rows), default=0)), filler, np.int32)
    for i, row in enumerate(rows):
        found[i, : len(row)] = row
    return found


@dataclasses.dataclass(frozen=True, kw_only=True, eq=False)
class PolynomialCost:
    """A cost with positive coefficients, called with keep ratios by name.

    Attributes:
      name: what limits on the cost are called.
      dense: the cost when everything is kept, in the unit of the cost.
      sites: the names of the keep ratios that the cost knows.
      polynomial: the cost as arrays, over `sites`.
      roles: names of sites by what they are for; a role stands for all of them where
        the cost is called.
    """

    name: str
    dense: float
    sites: tuple[str, ...]
    polynomial: Polynomial
    roles: Mapping[str, tuple[str, ...]] = dataclasses.field(default_factory=dict)

    def __call__(self, keep_ratios: Mapping[str, Any]) -> Any:
        """Return the cost as a fraction of `dense`.

        Args:
          keep_ratios: name or role to the fraction kept, in [0, 1]; names count before
            roles. Sites without a keep ratio count as kept whole; of an array the mean
            counts.

        Returns:
          A scalar, float32 (or wider if the keep ratios are). If all keep ratios are
          numbers or arrays of NumPy, a Python number in double precision.

        Raises:
          ValueError: if `keep_ratios` names something that is no site of the cost.
        """
        keep_ratios = self._by_name(keep_ratios)
        if not any(isinstance(ratio, jax.Array) for ratio in keep_ratios.values()):
            ratios = [np.mean(keep_ratios.get(name, 1.0)) for name in self.sites]
            return self.polynomial.at(np.array(ratios, np.float64))
        dtype = jnp.result_type(jnp.float32, *keep_ratios.values())
        ratios = [jnp.asarray(r, dtype).reshape(-1) for r in keep_ratios.values()]
        sizes = dict(zip(keep_ratios, map(len, ratios), strict=True))
        return self.of_vector(sizes)(jnp.concatenate(ratios))

    def of_vector(self, sizes: Mapping[str, int]) -> Callable[[jax.Array], jax.Array]:
        """Return the cost as a function of one vector of keep ratios.

        Args:
          sizes: name to the number of keep ratios, in the order of the vector.

        Returns:
          A function from shape (n,) to a scalar.

        Raises:
          ValueError: if `sizes` names something that is no site of the cost.
        """
        self._check_names(sizes)
        number = {name: i for i, name in enumerate(self.sites)}
        counts = np.array(list(sizes.values()), np.int64)
        owners = np.repeat(np.array([number[n] for n in sizes], np.int32), counts)
        missing = np.array([name not in sizes for name in self.sites])

        def cost(vector):
            shares = np.repeat(1 / counts, counts).astype(vector.dtype)
            means = jnp.asarray(missing, vector.dtype).at[owners].add(shares * vector)
            return self.polynomial.traced_at(means)

        return cost

    def _by_name(self, keep_ratios: Mapping[str, Any]) -> dict[str, Any]:
        """Return keep ratios by the names of sites; a name counts before a role."""
        roles = self.roles.keys() & keep_ratios.keys()
        named = {n: ratio for n, ratio in keep_ratios.items() if n not in roles}
        self._check_names(named)
        for role in roles:
            named = {**dict.fromkeys(self.roles[role], keep_ratios[role]), **named}
        return named

    def _check_names(self, names: Mapping[str, Any]) -> None:
        for name in sorted(names.keys() - set(self.sites)):
            kinds = "a site of this cost, or a role" if self.roles else "a site of it"
            raise ValueError(
                f"`{self.name}`: {name!r} must be {kinds}. "
                f"{near(name, [*self.roles, *sorted(self.sites)])} Make the cost and "
                "the keep ratios from the same graph, or with the same `where`."
            )
