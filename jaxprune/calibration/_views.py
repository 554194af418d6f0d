"""Where the entries of a leaf lie in the operand of a product, and the way back.

A leaf may be transposed, reshaped, cut, joined with others and stacked along a scan
before it is multiplied. A `View` replays these steps, which only move entries; its
transpose moves entries of the operand back to their places in the leaf. A `Use` adds
the product: it lays the operand out as matrices, inputs by outputs.
"""

import dataclasses
import math
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from jaxprune.base._checks import varying_zeros


@dataclasses.dataclass(frozen=True, eq=False)
class Step:
    """One step from a leaf to an operand.

    Attributes:
      apply: moves the entries of an array of one layer.
      key: says the same of two steps that do the same.
      scan: the scan that runs over the first axis from here on, None of other steps.
    """

    apply: Callable[[jax.Array], jax.Array]
    key: str
    scan: Any = None


@dataclasses.dataclass(frozen=True, eq=False)
class View:
    """A leaf as an operand sees it.

    Attributes:
      leaf: the name of the leaf.
      shape: its shape.
      steps: from the leaf to the operand.
      exact: whether the operand has the entries of the leaf as they are, up to casts;
        False if they were multiplied by a mask, for instance.
    """

    leaf: str
    shape: tuple[int, ...]
    steps: tuple[Step, ...] = ()
    exact: bool = True

    @property
    def key(self) -> str:
        """What is equal of views that are equal."""
        return " | ".join((self.leaf, str(self.exact), *(s.key for s in self.steps)))

    @property
    def scans(self) -> tuple[Any, ...]:
        """The scans that run over the leaf, the outermost first."""
        return tuple(step.scan for step in self.steps if step.scan is not None)

    def then(self, apply: Callable[[jax.Array], jax.Array], key: str) -> "View":
        """Return the view behind one step more."""
        return dataclasses.replace(self, steps=(*self.steps, Step(apply, key)))

    def scanned(self, scan: Any) -> "View":
        """Return the view of one layer, inside of a scan over the first axis."""
        return dataclasses.replace(
            self, steps=(*self.steps, Step(lambda x: x, "scan", scan))
        )

    def apply(self, array: jax.Array) -> jax.Array:
        """Return the operand, with the axes of scans in front."""
        leading = 0
        for step in self.steps:
            if step.scan is not None:
                leading += 1
                continue
            move = step.apply
            for _ in range(leading):
                move = jax.vmap(move)
            array = move(array)
        return array


class Axes(NamedTuple):
    """What the axes of an operand are in a product.

    Attributes:
      batch: axes that both operands have.
      contracted: axes that are summed over; the last varies fastest.
      free: axes of the outputs.
      groups: into how many groups of a convolution the outputs are divided.
    """

    batch: tuple[int, ...]
    contracted: tuple[int, ...]
    free: tuple[int, ...]
    groups: int = 1


@dataclasses.dataclass(frozen=True, eq=False)
class Use:
    """A leaf in a product: an operand that is a stack of matrices (inputs, outputs).

    Two uses are equal if the same entries are multiplied in the same layout.

    Attributes:
      view: where the entries of the leaf are in the operand.
      axes: the axes of the operand.
      shape: the shape of the operand, without the axes of scans.
      primitive: the name of the product.
    """

    view: View
    axes: Axes
    shape: tuple[int, ...]
    primitive: str

    @property
    def key(self) -> str:
        """What is equal of uses that are equal."""
        return f"{self.view.key} -> {self.axes} of {self.shape}"

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Use) and self.key == other.key

    def __hash__(self) -> int:
        return hash(self.key)

    @property
    def innermost(self) -> int:
        """The size of the input axis that varies fastest."""
        return self.shape[self.axes.contracted[-1]] if self.axes.contracted else 1

    def matrices(self, array: jax.Array) -> jax.Array:
        """Return a leaf as matrices, shape (matrices, inputs, outputs).

        The matrices are those of the scans, the outermost first, then those of batch
        axes and of the groups of a convolution. What the product does not see of the
        leaf is missing; what it sees of other leaves is zero.

        Args:
          array: of the shape of the leaf.
        """
        operand = self.view.apply(array)
        lead = operand.ndim - len(self.shape)
        axes, sizes = self.axes, [math.prod(operand.shape[:lead])]
        order = (*axes.batch, *axes.contracted, *axes.free)
        for part in (axes.batch, axes.contracted, axes.free):
            sizes.append(math.prod(self.shape[d] for d in part))
        moved = jnp.transpose(operand, (*range(lead), *(lead + d for d in order)))
        number, batch, inputs, outputs = sizes
        split = (number * batch, inputs, axes.groups, outputs // axes.groups)
        moved = jnp.swapaxes(moved.reshape(split), 1, 2)
        return moved.reshape(-1, inputs, outputs // axes.groups)

    def leaf(self, matrices: jax.Array) -> jax.Array:
        """Return the entries of matrices at their places in the leaf, zero elsewhere.

        Args:
          matrices: float, of the shape that `matrices` returns.
        """
        zeros = varying_zeros(matrices, self.view.shape)
        (array,) = jax.linear_transpose(self.matrices, zeros)(matrices)
        return array

    def covered(self) -> jax.Array:
        """Return where matrices hold entries of the leaf, bool."""
        return self.matrices(jnp.ones(self.view.shape, jnp.float32)) > 0
