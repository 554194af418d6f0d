"""Multilayer perceptrons, such as the 300-100 one on which pruning papers begin.

The layers are named, so that masks, thresholds and reports read `dense1/kernel`.

References:
    LeCun et al., Gradient-based learning applied to document recognition, 1998
    (the 300-100 network, there with other units).
"""

from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp


class MLP(nn.Module):
    """Dense layers with ReLU between them, then dense `num_classes`.

    There is no normalisation layer, so training and evaluation are one function and
    nothing is kept outside of `params`.

    Attributes:
        num_classes: Number of logits.
        axis_name: Not used: no statistics are averaged.
        widths: Units of the hidden layers.
        dtype: Type of the computation; parameters and statistics are float32.
    """

    num_classes: int
    axis_name: str | None = None
    widths: tuple[int, ...] = (300, 100)
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, x: jax.Array, *, train: bool) -> jax.Array:
        """Computes logits.

        Args:
            x: Inputs, shape (B, ...), flattened to (B, features).
            train: Has no effect here; every model takes it.

        Returns:
            Logits, shape (B, num_classes), float32.
        """
        del train
        x = x.reshape((x.shape[0], -1))
        for index, width in enumerate(self.widths, start=1):
            x = nn.Dense(
                width,
                dtype=self.dtype,
                name=f"dense{index}",
            )(x)
            x = nn.relu(x)
        return nn.Dense(
            self.num_classes, dtype=jnp.float32, name=f"dense{len(self.widths) + 1}"
        )(x)
