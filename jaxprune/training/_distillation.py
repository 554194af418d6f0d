"""Distillation: a pruned network learns from the outputs of the dense one.

References:
  [KD] Hinton, Vinyals, Dean, Distilling the Knowledge in a Neural Network, 2015,
  arXiv:1503.02531.
  [FitNets] Romero et al., FitNets: Hints for Thin Deep Nets, ICLR 2015,
  arXiv:1412.6550.
"""

from collections.abc import Callable
from typing import Any, Protocol

import jax
import jax.numpy as jnp

from jaxprune.base._checks import (
    check_callable,
    check_fraction,
    check_non_negative,
    check_positive,
)
from jaxprune.base._dtypes import at_least_float32


class DistilledLoss(Protocol):
    """A loss of outputs that also follows a teacher."""

    def __call__(
        self, outputs: Any, teacher_params: Any, inputs: Any, *targets: Any
    ) -> jax.Array:
        """Return the loss, a scalar.

        Args:
          outputs: what the student returned: logits, or a pair of logits and hidden
            states.
          teacher_params: the parameters of the teacher.
          inputs: the inputs of the teacher, a tuple if there are several.
          *targets: what the loss of the task takes beside the logits.
        """
        ...


def distill(
    loss: Callable[..., jax.Array],
    teacher_fn: Callable[..., Any],
    *,
    temperature: float = 1.0,
    alpha: float = 0.5,
    hidden: float = 0.0,
) -> DistilledLoss:
    """Return a loss that follows the targets and a teacher, for any training loop.

        L = (1 - alpha) loss(z, *targets)
            + alpha T^2 mean KL(softmax(z' / T) || softmax(z / T))  [KD] Eq. (1), Sec. 2
            + hidden mean (h - h')^2                           [FitNets] Eq. (3), means

    with the logits z and hidden states h of the student, z' and h' of the teacher. The
    factor T^2 keeps the gradients of both terms in proportion when T changes: that of
    the second is alpha T (softmax(z / T) - softmax(z' / T)) for each example. The
    teacher gets no gradient, and its parameters are an argument: closed over they would
    be constants of the compiled program.

    Args:
      loss: `(logits, *targets) -> scalar`, the loss of the task.
      teacher_fn: `(teacher_params, *inputs) -> outputs`, in evaluation mode.
      temperature: T, positive.
      alpha: the weight of the teacher, in [0, 1].
      hidden: the weight of hidden states; if it is not 0, student and teacher return a
        pair of logits and a pytree of hidden states, of the same shapes. Where a layer
        has become narrower, let the student map its states to the teacher's width.

    Returns:
      A pure function `(outputs, teacher_params, inputs, *targets) -> scalar`.

    Raises:
      TypeError: `loss` or `teacher_fn` is no function.
      ValueError: a number is out of range; when called: student and teacher return
        logits or hidden states of other shapes.

    Examples:
      >>> squares = lambda logits, y: jnp.mean((logits - y) ** 2)
      >>> distilled = distill(squares, lambda p, x: p * x, temperature=2.0, alpha=1.0)
      >>> x = jnp.array([[1.0, 2.0]])
      >>> float(distilled(3 * x, 3.0, x, jnp.zeros((1, 2))))
      0.0

    References:
      [KD], [FitNets].
    """
    check_callable("distill", "loss", loss, "`lambda logits, labels: ...`")
    example = "`lambda params, x: model.apply(params, x)`"
    check_callable("distill", "teacher_fn", teacher_fn, example)
    check_positive("distill", "temperature", temperature)
    check_fraction("distill", "alpha", alpha, closed=True)
    check_non_negative("distill", "hidden", hidden)
    with_states = not (isinstance(hidden, int | float) and hidden == 0)

    def distilled(outputs, teacher_params, inputs, *targets):
        given = inputs if isinstance(inputs, tuple) else (inputs,)
        taught = jax.lax.stop_gradient(teacher_fn(teacher_params, *given))
        if not with_states:
            states = 0.0
        else:
            outputs, mine = _pair(outputs, "the student")
            taught, theirs = _pair(taught, "the teacher")
            states = hidden * hidden_error(mine, theirs)
        soft = divergence(outputs, taught, temperature=temperature)
        hard = loss(outputs, *targets)
        return (1 - alpha) * hard + alpha * temperature**2 * soft + states

    return distilled


def _pair(outputs: Any, who: str) -> tuple[Any, Any]:
    if not (isinstance(outputs, tuple | list) and len(outputs) == 2):
        raise ValueError(
            f"`distill(hidden=...)`: {who} must return a pair of logits and hidden "
            f"states, got a {type(outputs).__name__}. Return both, or leave `hidden` "
            "out."
        )
    return outputs[0], outputs[1]


def divergence(
    logits: jax.Array, teacher_logits: jax.Array, *, temperature: Any = 1.0
) -> jax.Array:
    """Return how far softened probabilities are from those of a teacher.

        mean KL(p || q),   p = softmax(z' / T),  q = softmax(z / T)

    over all axes but the last. In the derivatives by z it is the cross-entropy of [KD]
    Sec. 2, from which the entropy of the teacher is taken: it is 0 where both agree.

    Args:
      logits: z, shape (..., classes).
      teacher_logits: z', of the same shape; a constant for derivatives.
      temperature: T.

    Returns:
      A scalar, float32 or wider; unit: nats.

    Raises:
      ValueError: the shapes differ.

    Examples:
      >>> z = jnp.array([[1.0, 2.0]])
      >>> float(divergence(z + 5, z))
      0.0

    References:
      [KD] Eq. (1).
    """
    if jnp.shape(logits) != jnp.shape(teacher_logits):
        raise ValueError(
            "`divergence(logits, teacher_logits)`: both must have one shape, got "
            f"{jnp.shape(logits)} and {jnp.shape(teacher_logits)}. The last axis is "
            "that of the classes; pass the same batch to both networks."
        )
    dtype = at_least_float32(logits.dtype, teacher_logits.dtype)
    teacher = jax.lax.stop_gradient(teacher_logits).astype(dtype)
    q = jax.nn.log_softmax(logits.astype(dtype) / temperature)
    p = jax.nn.log_softmax(teacher / temperature)
    # A class that the teacher excludes with a logit of -inf adds nothing.
    weights = jnp.exp(p)
    terms = weights * jnp.where(weights > 0, p - q, jnp.zeros_like(q))
    return jnp.mean(jnp.sum(terms, axis=-1))


def hidden_error(states: Any, teacher_states: Any) -> jax.Array:
    """Return the mean squared difference of hidden states, summed over their leaves.

        sum_l mean (h_l - h'_l)^2                               [FitNets] Eq. (3), means

    Args:
      states: h, a pytree of arrays.
      teacher_states: h', of the same structure and shapes; a constant for derivatives.

    Returns:
      A scalar, float32 or wider.

    Raises:
      ValueError: the structures or the shapes differ.

    Examples:
      >>> float(hidden_error([jnp.ones(3)], [jnp.zeros(3)]))
      1.0

    References:
      [FitNets].
    """
    shapes = [jax.tree.map(jnp.shape, tree) for tree in (states, teacher_states)]
    if shapes[0] != shapes[1]:
        raise ValueError(
            "`hidden_error(states, teacher_states)`: both must have one structure and "
            f"the same shapes, got {shapes[0]} and {shapes[1]}. Map the states of a "
            "narrower student to the width of the teacher."
        )

    def error(mine, theirs):
        dtype = at_least_float32(mine.dtype, theirs.dtype)
        theirs = jax.lax.stop_gradient(theirs).astype(dtype)
        return jnp.mean(jnp.square(mine.astype(dtype) - theirs))

    errors = jax.tree.map(error, states, teacher_states)
    return sum(jax.tree.leaves(errors), jnp.zeros((), jnp.float32))
