"""Groups of channels of several sizes as one matrix, which compiles to one program."""

from collections.abc import Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np


class Rows(NamedTuple):
    """Groups of several sizes as the rows of one matrix, padded at the end.

    Attributes:
      call: the public function that was called, for messages.
      names: of the groups.
      sizes: their numbers of channels.
    """

    call: str
    names: tuple[str, ...]
    sizes: tuple[int, ...]

    @property
    def valid(self) -> np.ndarray:
        """Bool, shape (groups, largest size): False for padding."""
        return np.arange(max(self.sizes))[None] < np.array(self.sizes)[:, None]

    def pad(self, scores: Mapping[str, Any]) -> jax.Array:
        """Return scores by group as float32, shape (groups, largest size)."""
        rows = []
        for name, size in zip(self.names, self.sizes, strict=True):
            shape = jnp.shape(scores[name])
            if shape != (size,):
                raise ValueError(
                    f"`{self.call}(importance=...)`: what it returns for group "
                    f"{name!r} must have shape ({size},), one number for each "
                    f"channel, got {shape}. `channels.filter_norms(graph)` returns "
                    "such scores."
                )
            rows.append(jnp.pad(scores[name], (0, max(self.sizes) - size)))
        return jnp.stack(rows).astype(jnp.float32)

    def unpad(self, rows: jax.Array) -> dict[str, jax.Array]:
        """Return the rows of a matrix by group, without padding."""
        pairs = zip(self.names, self.sizes, strict=True)
        return {name: rows[i, :size] for i, (name, size) in enumerate(pairs)}
