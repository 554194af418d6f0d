"""What the methods share that know the inputs of the weights."""

from collections.abc import Callable, Mapping
from fractions import Fraction
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxprune.base._protocols import Pruner
from jaxprune.calibration._statistics import Statistics, require
from jaxprune.calibration._views import Use
from jaxprune.masks._apply import fill
from jaxprune.masks._counts import number_of
from jaxprune.methods._weights import Network, network


def check_pattern_fits(call: str, uses: tuple[Use, ...], m: int) -> None:
    """Refuse a leaf whose inputs are not whole groups of m.

    Raises:
      ValueError: the innermost axis of its inputs is no multiple of m, or it is
        multiplied in two layouts.
    """
    for use in uses:
        if use.innermost % m:
            raise ValueError(
                f"`{call}(pattern=...)`: groups of {m} must divide the inputs of leaf "
                f"{use.view.leaf!r}, of which there are {use.innermost} along the "
                f"innermost axis of the shape {use.shape}. Leave it out of `where`."
            )
    check_disjoint(call, uses)


def check_disjoint(call: str, uses: tuple[Use, ...]) -> None:
    """Refuse a leaf whose entries are multiplied in two layouts.

    Raises:
      ValueError: some entries are in more than one use.
    """
    if len(uses) < 2:
        return
    with jax.ensure_compile_time_eval():
        seen: Any = sum(use.leaf(use.covered().astype(jnp.float32)) for use in uses)
        twice = bool(np.any(np.asarray(seen) > 1))
    if twice:
        raise ValueError(
            f"`{call}(...)`: every weight must have one row of inputs, but leaf "
            f"{uses[0].view.leaf!r} is multiplied in {len(uses)} layouts, such as a "
            "table and its transpose. Leave it out of `where`, or use `wanda` without "
            "a pattern, which adds both."
        )


def pattern_pruner(
    pruner: Pruner,
    call: str,
    statistics: Statistics,
    pattern: tuple[int, int],
    where: Any,
    choose: Callable[[Network], Mapping[str, jax.Array]],
) -> Pruner:
    """Return a pruner whose masks have an N:M pattern.

    Args:
      pruner: the pruner without a pattern.
      call: the public factory.
      statistics: from `calibrate`.
      pattern: n and m.
      where: which leaves are pruned.
      choose: the masks of the selected leaves, by name.
    """
    n, m = pattern

    def hard_masks(params, variables, /, *, keep_ratio=None):
        del variables
        wanted = None if keep_ratio is None else number_of(keep_ratio)
        if keep_ratio is not None and (
            wanted is None or Fraction(str(wanted)) != Fraction(n, m)
        ):
            raise ValueError(
                f"`{call}(pattern={pattern}).masks(keep_ratio={keep_ratio})`: the "
                f"pattern keeps {n} of {m}, and no other number. Leave `keep_ratio` "
                "out."
            )
        net = network(call, params, where)
        require(call, statistics, net.leaves)
        for name in net.leaves:
            check_pattern_fits(call, statistics.uses[name], m)
        alive = net.alive
        found = {
            name: mask & alive[name] if name in alive else mask
            for name, mask in choose(net).items()
        }
        return fill(net.params, found, where)

    return pruner._replace(masks=hard_masks, has_own_size=True, states_size=True)
