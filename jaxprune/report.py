"""What is left of a network: counts by leaf, as data and as a table."""

import dataclasses
import functools
import math
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxprune import tree
from jaxprune.base._checks import check_concrete
from jaxprune.base._protocols import Masks, Params
from jaxprune.tree._kernels import kernels
from jaxprune.tree._selection import aligned, check_masks, select


@dataclasses.dataclass(frozen=True, kw_only=True)
class Leaf:
    """One prunable leaf.

    Attributes:
      name: its name.
      shape: its shape.
      kept: how many of its entries are not zero, or kept by its mask.
      unmasked: how many of them its mask prunes: they should be zero, and are not.
    """

    name: str
    shape: tuple[int, ...]
    kept: int
    unmasked: int = 0

    @property
    def size(self) -> int:
        """The number of entries."""
        return math.prod(self.shape)

    @property
    def keep_ratio(self) -> float:
        """The fraction kept."""
        return self.kept / self.size

    @property
    def sparsity(self) -> float:
        """The fraction pruned."""
        return 1 - self.keep_ratio


@dataclasses.dataclass(frozen=True, kw_only=True)
class Report:
    """Counts of a pruned network; prints as a table.

    Attributes:
      leaves: the leaves that can be pruned.
      other_size: the number of entries of all other leaves.
      other_kept: how many of those no mask prunes; all without masks.
      differing: the names of all leaves in which entries that the masks prune are not
        zero: the network that was counted is not the one that the masks describe.
    """

    leaves: tuple[Leaf, ...]
    other_size: int
    other_kept: int
    differing: tuple[str, ...] = ()

    @property
    def size(self) -> int:
        """The number of prunable weights."""
        return sum(leaf.size for leaf in self.leaves)

    @property
    def kept(self) -> int:
        """How many of them are kept."""
        return sum(leaf.kept for leaf in self.leaves)

    @property
    def keep_ratio(self) -> float:
        """The fraction of the prunable weights that is kept."""
        return self.kept / self.size

    @property
    def sparsity(self) -> float:
        """The fraction of the prunable weights that is pruned."""
        return 1 - self.keep_ratio

    @property
    def compression(self) -> float:
        """Prunable weights before over after; infinite if none is kept."""
        return self.size / self.kept if self.kept else math.inf

    def __str__(self) -> str:
        rows = [("leaf", "shape", "size", "kept", "keep ratio")]
        for leaf in self.leaves:
            shape = "x".join(map(str, leaf.shape))
            ratio = f"{leaf.keep_ratio:.4f}"
            rows.append((leaf.name, shape, f"{leaf.size:,}", f"{leaf.kept:,}", ratio))
        total = f"{self.keep_ratio:.4f}"
        rows.append(("prunable", "", f"{self.size:,}", f"{self.kept:,}", total))
        rows.append(("other", "", f"{self.other_size:,}", f"{self.other_kept:,}", ""))
        table = aligned(rows, right=(2, 3, 4))
        if self.differing:
            table += (
                f"\nnot zero although the masks prune it: {', '.join(self.differing)}; "
                "apply the masks"
            )
        return table


def summarize(
    params: Params, masks: Masks | None = None, *, where: tree.Where = kernels
) -> Report:
    """Count what is left of a network, exactly, on the host.

    A weight is kept if it is not zero, or if a mask keeps it. So the sparsity is true
    of the parameters given: an average of weights without masks is dense,
    whatever the masks say, and the report names the leaves where both differ. Of
    abstract parameters the masks alone are counted.

    Args:
      params: a pytree of arrays, or of `jax.ShapeDtypeStruct` if there are masks.
      masks: see `jaxprune.base.Masks`; without them the values alone count.
      where: the leaves that count as prunable; the selection given to the pruner.

    Returns:
      A `Report`, which prints as a table.

    Raises:
      ValueError: masks do not fit, or the parameters are abstract and there are none.
      TypeError: a mask is not boolean, or arrays are traced.

    Examples:
      >>> import jax.numpy as jnp
      >>> params = {"kernel": jnp.eye(2), "bias": jnp.zeros(2)}
      >>> masks = {"kernel": jnp.eye(2) > 0, "bias": jnp.asarray(True)}
      >>> print(summarize(params, masks))
      leaf      shape  size  kept  keep ratio
      kernel    2x2       4     2      0.5000
      prunable            4     2      0.5000
      other               2     2
    """
    check_concrete("summarize(params, masks)", params, masks)
    leaves = tree.named_leaves(params)
    known: dict[str, Any] = dict.fromkeys(leaves)
    if masks is not None:
        check_masks("summarize(params, masks)", params, masks)
        known = dict(zip(leaves, jax.tree.leaves(masks), strict=True))
    chosen = select(params, where, call="summarize(params, where=...)")
    counts = _counts(leaves, known, chosen)
    found = tuple(
        Leaf(
            name=name,
            shape=tuple(leaf.shape),
            kept=counts[name][0],
            unmasked=counts[name][1],
        )
        for name, leaf in chosen.items()
    )
    others = [name for name in leaves if name not in chosen]
    return Report(
        leaves=found,
        other_size=sum(math.prod(np.shape(leaves[name])) for name in others),
        other_kept=sum(counts[name][0] for name in others),
        differing=tuple(name for name in leaves if counts[name][1]),
    )


def _counts(leaves, masks, chosen) -> dict[str, tuple[int, int]]:
    """Return for every leaf how many entries are kept, and how many wrongly."""
    counts = {}
    for name, leaf in leaves.items():
        mask, abstract = masks[name], isinstance(leaf, jax.ShapeDtypeStruct)
        if abstract and mask is None and name in chosen:
            raise ValueError(
                f"`summarize(params)`: leaf {name!r} is abstract and has no values to "
                "count. Pass masks, or the parameters themselves."
            )
        floating = not abstract and jnp.issubdtype(jnp.result_type(leaf), jnp.floating)
        counted = name in chosen if mask is None else floating
        counts[name] = _pair(leaf if counted else None, mask, np.shape(leaf))
    counts = jax.device_get(counts)
    return {name: (int(kept), int(wrong)) for name, (kept, wrong) in counts.items()}


@functools.partial(jax.jit, static_argnums=2)
def _pair(leaf, mask, shape: tuple[int, ...]) -> tuple[jax.Array, jax.Array]:
    """Return the number kept of a leaf, and of those that its mask prunes, uint32.

    Args:
      leaf: its values, None where they do not count.
      mask: what is kept by the mask, None for all.
      shape: that of the leaf.
    """

    def count(flags):
        return jnp.sum(jnp.broadcast_to(flags, shape), dtype=jnp.uint32)

    none = jnp.uint32(0)
    if leaf is None:
        return count(True if mask is None else mask), none
    kept = leaf != 0
    if mask is None:
        return count(kept), none
    return count(mask | kept), count(~mask & kept)
