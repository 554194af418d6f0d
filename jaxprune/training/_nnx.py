"""Flax NNX: a model and what prunes it as one module, for `nnx.Optimizer`."""

import functools
from typing import Any

import jax
import jax.numpy as jnp

from jaxprune.base._protocols import ChannelPruner
from jaxprune.training._pruning import Pruning


def nnx_module(pruning: Pruning, model: Any) -> Any:
    """Return a module that holds a model and everything that trains beside it.

    `nnx.state(module, nnx.Param)` has the three parts of `pruning.init`, so
    `nnx.Optimizer(module, pruning.optimizer(tx), wrt=nnx.Param)` trains it.

    Args:
      pruning: the method and its limits.
      model: an `nnx.Module`; it is held, not copied, and trains in place.

    Returns:
      An `nnx.Module` with the attributes `params` (the model), `variables` and
      `budget`. Called, it computes what the model computes with pruned weights. It has
      three methods. `pruned(*, key=None) -> (network, penalty)`: `network` is the model
      with pruned weights; its other variables (batch statistics, random streams) are
      those of the model, so a call updates them in the model too.
      `finalize(**options) -> (model, final)` gives the model its final weights, in
      place; `final` and the options are those of `Pruning.finalize`. From then on the
      module and all views of it compute with these weights as they are, and the
      penalty is 0. To train on, train the model under `freeze_pruned(final.masks)`.
      `compact(**options) -> (small, final)` is `Pruning.compact`, for a graph that was
      traced of `{"params": nnx.state(model, nnx.Param)}`, with the other variables of
      the model in `"rest"` if they are to shrink too.

    Raises:
      ImportError: if Flax is not installed.
      TypeError: if `pruning` or `model` is of another kind.
      ValueError: if `model` is a module of a pruning already; or as `Pruning.init`.

    Examples:
      >>> import jax.numpy as jnp, optax, jaxprune
      >>> from flax import nnx
      >>> pruning = jaxprune.pruning(
      ...     jaxprune.ltp(), jaxprune.at_most(jaxprune.density, 0.5)
      ... )
      >>> module = nnx_module(pruning, nnx.Linear(3, 2, rngs=nnx.Rngs(0)))
      >>> tx = pruning.optimizer(optax.sgd(0.1))
      >>> optimizer = nnx.Optimizer(module, tx, wrt=nnx.Param)
      >>> network, penalty = module.pruned()
      >>> network(jnp.ones((1, 3))).shape
      (1, 2)
    """
    from flax import nnx

    if not isinstance(pruning, Pruning) or not isinstance(model, nnx.Module):
        raise TypeError(
            "`nnx_module(pruning, model)`: must be a `Pruning` and an `nnx.Module`, "
            f"got a {type(pruning).__name__} and a {type(model).__name__}. Pass what "
            "`jaxprune.pruning(...)` returned, and the model itself."
        )
    if isinstance(model, _module_class()):
        raise ValueError(
            "`nnx_module(pruning, model)`: the model must be dense, and is the module "
            "of a pruning already. Pass its attribute `params`."
        )
    trainable = pruning.init(nnx.state(model, nnx.Param))
    held = jax.tree.map(
        nnx.Param, {"variables": trainable["variables"], "budget": trainable["budget"]}
    )
    return _module_class()(pruning, model, held)


@functools.cache
def _module_class() -> type:
    """Make the class when Flax is first needed: the library does not import it."""
    from flax import nnx

    class PrunedModule(nnx.Module):
        """A model, the variables of a pruning method, and the state of its budget."""

        def __init__(self, pruning, model, held):
            self.pruning = pruning
            self.params = model
            self.variables = nnx.data(held["variables"])
            self.budget = nnx.data(held["budget"])

        def __call__(self, *args, **kwargs):
            network, _ = self.pruned()
            return network(*args, **kwargs)

        def __getattr__(self, name):
            hint = "."
            if name != "params" and hasattr(getattr(self, "params", None), name):
                hint = f"; the model does: `module.params.{name}`, before pruning."
            raise AttributeError(
                f"`nnx_module(...)`: the module has no attribute {name!r}{hint}"
            )

        def pruned(self, *, key: jax.Array | None = None):
            if self.budget["step"].get_metadata("final", False):
                return self.params, jnp.zeros([], jnp.float32)
            graphdef, _, rest = nnx.split(self.params, nnx.Param, ...)
            params, penalty = self.pruning(nnx.state(self, nnx.Param), key=key)
            return nnx.merge(graphdef, params, rest), penalty

        def finalize(self, **options):
            if isinstance(self.pruning.pruner, ChannelPruner):
                raise TypeError(
                    "`finalize()`: the method removes channels, which changes shapes. "
                    "Use `compact()`, which returns the small functions and trees."
                )
            final = self.pruning.finalize(nnx.state(self, nnx.Param), **options)
            nnx.update(self.params, final.params)
            # Views made by `nnx.view` share the variable, not attributes of the module.
            self.budget["step"].set_metadata("final", True)
            return self.params, final

        def compact(self, **options):
            rest = nnx.state(self.params, nnx.Not(nnx.Param))
            traced = self.pruning.pruner.graph.leaves
            if any(n.startswith("rest/") for n in traced) or not jax.tree.leaves(rest):
                options["rest"] = rest
            return self.pruning.compact(nnx.state(self, nnx.Param), **options)

    return PrunedModule
