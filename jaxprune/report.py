"""What is left of a network: counts by leaf, as data and as a table."""

import dataclasses
import math

from jaxprune import tree
from jaxprune.base._protocols import Masks, Params
from jaxprune.masks import _apply as jmasks


@dataclasses.dataclass(frozen=True, kw_only=True)
class Leaf:
    """One prunable leaf.

    Attributes:
      name: its name.
      shape: its shape.
      kept: how many of its entries are kept.
    """

    name: str
    shape: tuple[int, ...]
    kept: int

    @property
    def size(self) -> int:
        """The number of entries."""
        return math.prod(self.shape)

    @property
    def keep_ratio(self) -> float:
        """The fraction kept."""
        return self.kept / self.size


@dataclasses.dataclass(frozen=True, kw_only=True)
class Report:
    """Counts of a masked network; prints as a table.

    Attributes:
      leaves: the leaves that can be pruned.
      other_size: the number of entries of all other leaves, which are kept whole.
    """

    leaves: tuple[Leaf, ...]
    other_size: int

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
        """The fraction of the prunable weights that is zero."""
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
        rows.append(("other", "", f"{self.other_size:,}", f"{self.other_size:,}", ""))
        widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
        lines = [
            "  ".join(
                cell.ljust(width) if i < 2 else cell.rjust(width)
                for i, (cell, width) in enumerate(zip(row, widths, strict=True))
            ).rstrip()
            for row in rows
        ]
        return "\n".join(lines)


def summarize(
    params: Params, masks: Masks, *, where: tree.Where = tree.kernels
) -> Report:
    """Counts what masks keep, exactly, on the host.

    Args:
      params: a pytree of arrays; only shapes are used.
      masks: see `base.Masks`.
      where: the leaves that count as prunable; the selection given to the pruner.

    Raises:
      ValueError, TypeError: if the masks do not fit (see `masks.validate`).

    >>> import jax.numpy as jnp
    >>> params = {"kernel": jnp.ones((2, 2)), "bias": jnp.ones(2)}
    >>> masks = {"kernel": jnp.eye(2) > 0, "bias": jnp.asarray(True)}
    >>> print(summarize(params, masks))
    leaf      shape  size  kept  keep ratio
    kernel    2x2       4     2      0.5000
    prunable            4     2      0.5000
    other               2     2
    """
    counts = jmasks.kept_counts(params, masks)
    selected = tree.select(params, where)
    sizes = {n: math.prod(x.shape) for n, x in tree.named_leaves(params).items()}
    return Report(
        leaves=tuple(
            Leaf(name=name, shape=tuple(leaf.shape), kept=counts[name])
            for name, leaf in selected.items()
        ),
        other_size=sum(size for name, size in sizes.items() if name not in selected),
    )
