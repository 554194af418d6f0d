"""Which float types compute, and which can hold a pruned weight."""

from typing import Any

import jax.numpy as jnp
import numpy as np


def widest(*dtypes: Any) -> np.dtype:
    """Return the type to which all promote, 8-bit floats and smaller as float32.

    JAX promotes these to nothing on its own.

    Args:
      *dtypes: at least one.
    """
    return jnp.result_type(*(jnp.float32 if _is_small(d) else d for d in dtypes))


def _is_small(dtype: Any) -> bool:
    return jnp.issubdtype(dtype, jnp.floating) and jnp.dtype(dtype).itemsize == 1


def at_least_float32(*dtypes: Any) -> np.dtype:
    """Return the type to which all and float32 promote."""
    return widest(jnp.float32, *dtypes)


def has_zero(dtype: Any) -> bool:
    """Return whether a float type has a zero; that of scales of blocks has none."""
    return jnp.dtype(dtype) != jnp.dtype(jnp.float8_e8m0fnu)
