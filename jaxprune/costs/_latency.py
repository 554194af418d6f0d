"""Measured latency as a cost: what the compact network takes on this machine.

Compact networks of several widths are compiled and timed; a model of three numbers is
fitted to the seconds: a constant, seconds per operation and seconds per byte:

    latency(k) = c + a macs(k) + b bytes(k),    a, b, c >= 0

with k the keep ratios, and `costs.macs` and `costs.bytes_moved` in their units. It is
differentiable, and monotone in the ratio of every group. The three numbers minimise the
mean squared relative error. Random widths of all groups at once are measured, because
groups multiply: the seconds that two neighbours save do not add up.

    measured = measure(graph, params, images, keep_ratios=ratios)
    budget = dual_ascent(fit(graph, measured), 0.5)

Seconds depend on the machine, its load and the number of examples: measure where the
network will run, with the inputs it will see.
"""

import dataclasses
import itertools
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jaxprune.base._checks import check_positive_int, is_one_number
from jaxprune.channels._counts import channel_counts, largest_channels
from jaxprune.channels._graph import ChannelGraph, check_graph
from jaxprune.costs import _channels as costs
from jaxprune.costs._polynomial import PolynomialCost

Timer = Callable[[Sequence[Callable[[], Any]]], Sequence[float]]
"""Seconds of each of several functions without arguments."""


class Measurement(NamedTuple):
    """The time of one compact network.

    Attributes:
      keep_ratios: the fraction kept of every group, as compacted.
      seconds: what one call takes.
    """

    keep_ratios: dict[str, float]
    seconds: float


@dataclasses.dataclass(frozen=True, kw_only=True, eq=False)
class LatencyCost:
    """The fitted latency: called with keep ratios by group name, a scalar.

    Attributes:
      constant: c, seconds.
      per_mac: a, seconds for a multiply-accumulate operation.
      per_byte: b, seconds for a byte read or written.
      macs: the MACs.
      bytes_moved: the bytes.
      r2: the coefficient of determination of the fit, 1 if it is exact.
      name: what limits on the cost are called.
    """

    constant: float
    per_mac: float
    per_byte: float
    macs: PolynomialCost
    bytes_moved: PolynomialCost
    r2: float = 1.0
    name: str = "latency"

    @property
    def dense(self) -> float:
        """The seconds when everything is kept."""
        work = self.per_mac * self.macs.dense + self.per_byte * self.bytes_moved.dense
        return self.constant + work

    def __call__(self, keep_ratios: Mapping[str, Any]) -> Any:
        """Return the latency as a fraction of `dense`.

        Of Python numbers it is a Python number, in double precision.

        Raises:
          ValueError: if `keep_ratios` names something that is no group.
        """
        return self._sum(self.macs(keep_ratios), self.bytes_moved(keep_ratios))

    def of_vector(self, sizes: Mapping[str, int]) -> Callable[[jax.Array], jax.Array]:
        """Return the latency as a function of one vector of keep ratios.

        Args:
          sizes: name to the number of keep ratios, in the order of the vector.

        Returns:
          A function from shape (n,) to a scalar.

        Raises:
          ValueError: if `sizes` names something that is no group.
        """
        macs, moved = self.macs.of_vector(sizes), self.bytes_moved.of_vector(sizes)
        return lambda vector: self._sum(macs(vector), moved(vector))

    def _sum(self, macs: Any, bytes_moved: Any) -> Any:
        """Return the latency for fractions of the dense MACs and bytes."""
        per_mac = self.per_mac * self.macs.dense / self.dense
        per_byte = self.per_byte * self.bytes_moved.dense / self.dense
        return self.constant / self.dense + per_mac * macs + per_byte * bytes_moved


def random_keep_ratios(
    key: jax.Array, graph: ChannelGraph, number: int, *, min_keep_ratio: float = 0.1
) -> list[dict[str, float]]:
    """Draws widths to measure: everything kept, then each group at a random ratio.

    Args:
      key: a typed PRNG key.
      graph: the channel graph.
      number: how many, with the dense network, at least 1; more give a better fit.
      min_keep_ratio: ratios are uniform between this and 1; in (0, 1].

    Returns:
      Keep ratios by group name.

    Raises:
      ValueError: if `number` or `min_keep_ratio` is out of range.
    """
    check_graph("random_keep_ratios", graph)
    check_positive_int("random_keep_ratios", "number", number)
    if not is_one_number(min_keep_ratio) or not 0 < min_keep_ratio <= 1:
        raise ValueError(
            f"`random_keep_ratios(min_keep_ratio={min_keep_ratio!r})`: must be a "
            "number in (0, 1]. Pass e.g. 0.1."
        )
    shape = number - 1, len(graph.groups)
    drawn = np.asarray(jax.random.uniform(key, shape, minval=min_keep_ratio)).tolist()
    whole = dict.fromkeys(graph.groups, 1.0)
    return [whole, *(dict(zip(graph.groups, row, strict=True)) for row in drawn)]


def interleaved(
    functions: Sequence[Callable[[], Any]], *, repeats: int = 20
) -> list[float]:
    """Time functions in turn, and return the minimum seconds of each.

    What else runs on a machine only adds time, so the minimum is nearest to what the
    function takes; in turn, so that all see the same machine.

    Args:
      functions: what to time; each is called once to warm up.
      repeats: how often each is timed.
    """
    jax.block_until_ready([function() for function in functions])
    seconds = np.full((repeats, len(functions)), np.inf)
    for row, i in itertools.product(range(repeats), range(len(functions))):
        start = time.perf_counter()
        jax.block_until_ready(functions[i]())
        seconds[row, i] = time.perf_counter() - start
    return seconds.min(axis=0).tolist()


def measure(
    graph: ChannelGraph,
    params: Any,
    *inputs: Any,
    keep_ratios: Sequence[Mapping[str, float]],
    multiple_of: int = 1,
    timer: Timer = interleaved,
) -> list[Measurement]:
    """Time compact networks of several widths.

    Each takes a compilation, which is most of the time this takes, and all are held in
    memory at once.

    Args:
      graph: the channel graph, whose `main` function is timed.
      params: its parameters.
      *inputs: concrete inputs of the shapes to measure with.
      keep_ratios: the widths, `random_keep_ratios(key, graph, 40)` for instance.
      multiple_of: as for `channel_counts`; measure what will be made.
      timer: takes functions without arguments and returns the seconds of each.

    Returns:
      What was measured, with the keep ratios after rounding.
    """
    check_graph("measure", graph)
    functions, rounded = [], []
    for ratios in keep_ratios:
        masks = largest_channels(graph, params, ratios, multiple_of=multiple_of)
        small = graph.compact(masks, params)
        call = jax.jit(small.apply_fn).lower(small.trees[0], *inputs).compile()
        functions.append(lambda call=call, tree=small.trees[0]: call(tree, *inputs))
        counts = channel_counts(graph, ratios, multiple_of=multiple_of)
        rounded.append({n: c / graph.groups[n].size for n, c in counts.items()})
    return [
        Measurement(ratios, float(seconds))
        for ratios, seconds in zip(rounded, timer(functions), strict=True)
    ]


def fit(graph: ChannelGraph, measured: Sequence[Measurement]) -> LatencyCost:
    """Fits the latency model to measurements, with numbers that are not negative.

    Args:
      graph: the channel graph, traced with inputs of the shapes that were timed: the
        weights are moved once, however many the examples.
      measured: at least three measurements.

    Returns:
      The cost, for any budget.

    Raises:
      ValueError: if there are fewer than three, a time is not positive, or the seconds
        do not fall with the work.

    >>> from jaxprune.channels import trace_channels
    >>> params = {"w1": jnp.ones((3, 8)), "w2": jnp.ones((8, 2))}
    >>> mlp = lambda params, x: jnp.tanh(x @ params["w1"]) @ params["w2"]
    >>> graph = trace_channels(mlp, params, jnp.ones((1, 3)))
    >>> seconds = {1.0: 6e-6, 0.5: 4e-6, 0.25: 3e-6}
    >>> cost = fit(graph, [Measurement({"w1:1": k}, s) for k, s in seconds.items()])
    >>> round(cost.dense, 9), round(float(cost({"w1:1": jnp.float32(0.75)})), 4)
    (6e-06, 0.8333)
    """
    check_graph("fit", graph)
    seconds = np.array([m.seconds for m in measured])
    if len(seconds) < 3 or not (np.isfinite(seconds) & (seconds > 0)).all():
        raise ValueError(
            "`fit(graph, measured)`: needs at least three measurements of a positive "
            f"time, got {seconds.tolist()}. Take more with `measure`."
        )
    work = costs.macs(graph), costs.bytes_moved(graph)
    ratios = [{n: jnp.float32(k) for n, k in m.keep_ratios.items()} for m in measured]
    columns = [np.ones(len(seconds))]
    columns += [
        cost.dense * np.array([float(cost(k)) for k in ratios]) for cost in work
    ]
    matrix = np.stack(columns, axis=1) / seconds[:, None]
    # Imported here: SciPy takes longer to import than this library.
    from scipy.optimize import nnls

    scale = np.abs(matrix).max(axis=0)
    found = nnls(matrix / scale, np.ones(len(matrix)))[0] / scale
    constant, per_mac, per_byte = found.tolist()
    r2 = _determination(seconds, np.stack(columns, axis=1) @ found)
    if not (per_mac + per_byte and r2 > 0):
        raise ValueError(
            "`fit(graph, measured)`: the seconds do not fall with the work (R^2 = "
            f"{r2:.2f}), so no width is known to meet a limit. Measure on an idle "
            "machine, with larger inputs or more repeats."
        )
    return LatencyCost(
        constant=constant,
        per_mac=per_mac,
        per_byte=per_byte,
        r2=r2,
        macs=work[0],
        bytes_moved=work[1],
    )


def _determination(seconds: np.ndarray, fitted: np.ndarray) -> float:
    """Return R^2, 1 - residual variance / variance."""
    spread = float(np.square(seconds - seconds.mean()).sum())
    return 1 - float(np.square(seconds - fitted).sum()) / spread if spread else 0.0
