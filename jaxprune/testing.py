"""The promises of the protocols, as assertions for those who write their own parts.

Each function tries one pruner, budget, transformation or network, and raises an
`AssertionError` that names the promise which is broken. This module alone needs chex:
`pip install 'jaxprune[testing]'`, and `import jaxprune.testing`.
"""

import contextlib
from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import optax

from jaxprune import channels, transforms, tree
from jaxprune.base._protocols import Budget, KeepRatios, Params, Pruner
from jaxprune.masks._apply import validate
from jaxprune.masks._counts import keep_count

try:
    import chex
except ImportError as error:
    raise ImportError(
        "`import jaxprune.testing`: chex must be installed. Install it by "
        "`pip install 'jaxprune[testing]'`."
    ) from error


def assert_pruner_contract(
    pruner: Pruner, params: Params, *, step: int = 3, keep_ratio: float = 0.4
) -> None:
    """Assert that a pruner keeps the promises of `jaxprune.Pruner`.

    Tried are `init` with abstract parameters; `apply` eager, under `jit` with a step
    that is traced, and its derivatives, with a key; `masks` by the rule of
    the method and for a keep ratio, under `jit` too; and `final_weights`:

        structure, shapes and dtypes of the parameters are kept
        variables and keep ratios are float32, of known leaves; 0 <= k <= 1
        masks are bool, of the shape of the leaf or the scalar True
        a keep ratio k keeps floor(k n) of the n weights, or is refused by name
        final weights are 0 where they are pruned

    Args:
      pruner: what is tried.
      params: a pytree of arrays that the pruner accepts; small ones do.
      step: the number of updates that `apply` is told.
      keep_ratio: what `masks` is asked for, in (0, 1].

    Raises:
      AssertionError: a promise is broken; the message says which.

    Examples:
      >>> import jaxprune
      >>> params = {"dense": {"kernel": jnp.ones((4, 3)), "bias": jnp.ones(3)}}
      >>> assert_pruner_contract(jaxprune.magnitude(sparsity=0.5), params)
    """
    call = "assert_pruner_contract(pruner, params)"
    variables = _checked_variables(call, pruner, params)
    _check_apply(call, pruner, params, variables, jnp.int32(step))
    _check_derivatives(call, pruner, params, variables, jnp.int32(step))
    masks = []
    if pruner.has_own_size:
        masks.append(_checked_masks(call, pruner, params, variables, None))
    asked = _asked_masks(call, pruner, params, variables, keep_ratio)
    masks += [] if asked is None else [asked]
    for each in masks:
        _check_final_weights(call, pruner, params, variables, each)


def assert_budget_contract(budget: Budget, keep_ratios: KeepRatios) -> None:
    """Assert that a budget keeps the promises of `jaxprune.Budget`.

        penalty(k, state) is a float32 scalar, finite and at least 0, eager = jitted
        its derivative in k is finite
        update(k, state) has the structure, shapes and dtypes of the state
        init of abstract keep ratios gives the same state

    Args:
      budget: what is tried.
      keep_ratios: site name to keep ratio, float32 of shape () or (layers,), of the
        sites that the costs of the budget know.

    Raises:
      AssertionError: a promise is broken; the message says which.

    Examples:
      >>> import jaxprune
      >>> cost = jaxprune.density({"kernel": jnp.ones((4, 3))})
      >>> budget = jaxprune.dual_ascent(jaxprune.at_most(cost, 0.5))
      >>> assert_budget_contract(budget, {"kernel": jnp.float32(0.9)})
    """
    call = "assert_budget_contract(budget, keep_ratios)"
    state = budget.init(keep_ratios)
    abstract = jax.eval_shape(lambda: keep_ratios)
    with _promise(call, "`init` takes abstract keep ratios"):
        chex.assert_trees_all_equal(budget.init(abstract), state)

    def both(k, s):
        return budget.penalty(k, s), budget.update(k, s)

    jitted = jax.jit(both)
    for _ in range(3):
        want = both(keep_ratios, state)
        penalty, new = want
        _require(
            call,
            "`penalty` is a float32 scalar",
            (jnp.shape(penalty), jnp.result_type(penalty)) == ((), jnp.float32),
        )
        _require(
            call,
            "`penalty` is finite and at least 0",
            bool(jnp.isfinite(penalty) & (penalty >= 0)),
        )
        with _promise(call, "the state is the carry of a scan: `update` keeps it"):
            chex.assert_trees_all_equal_shapes_and_dtypes(new, state)
        got = jitted(keep_ratios, state)
        _same(call, "under `jit` it computes the same", got, want)
        with _promise(call, "the derivative of `penalty` is finite"):
            chex.assert_tree_all_finite(jax.grad(budget.penalty)(keep_ratios, state))
        state = new


def assert_transformation_contract(
    transformation: optax.GradientTransformation, params: Params, *, steps: int = 3
) -> None:
    """Assert that a transformation of this library's kind keeps its promises.

        structure, shapes and dtypes of updates and state are kept at every step
        eager steps = jitted steps, traced once
        `jaxprune.check(state)` has nothing to say
        what `jaxprune.finalize` calls pruned is 0 in the parameters

    The last two are asked of transformations that hold a state of this library.

    Args:
      transformation: what is tried, complete with its optimizer.
      params: a pytree of arrays, small ones do; gradients are the parameters.
      steps: how many updates are made, at least 1.

    Raises:
      AssertionError: a promise is broken; the message says which.
      ValueError: of `jaxprune.check`, something stands behind the transformation.

    Examples:
      >>> import jaxprune
      >>> tx = jaxprune.lats(optax.sgd(0.1), sparsity=0.5, steps=3)
      >>> assert_transformation_contract(tx, {"kernel": jnp.eye(4) + 1.0})
    """
    call = "assert_transformation_contract(transformation, params)"
    traces = 0

    def step(params, state):
        nonlocal traces
        traces += 1
        updates, state = transformation.update(params, state, params)
        return optax.apply_updates(params, updates), state

    jitted = jax.jit(step)
    eager = compiled = params, transformation.init(params)
    for _ in range(steps):
        eager, before = step(*eager), eager
        with _promise(call, "an update keeps structure, shapes and dtypes"):
            chex.assert_trees_all_equal_shapes_and_dtypes(eager, before)
        compiled = jitted(*compiled)
    _same(call, "under `jit` it computes the same", compiled, eager)
    _require(call, "it is traced once", traces == steps + 1)
    _check_pruned(call, *eager)


def assert_masked_equals_compact(
    apply_fn: Callable[..., Any],
    params: Params,
    *inputs: Any,
    masks: Mapping[str, Any] | None = None,
    norms: str = "pinned",
    rtol: float = 1e-4,
    atol: float = 1e-5,
) -> None:
    """Assert that the compact network computes what the masked one computes.

        graph.compact(masks, params).apply_fn(small, x) = graph.masked(masks)(params, x)

    Args:
      apply_fn: `(params, *inputs) -> outputs`.
      params: a pytree of arrays.
      *inputs: further arguments, arrays of any shape.
      masks: channel masks, bool of shape (channels,) by group name; at random half of
        the channels of every group where not given.
      norms: see `jaxprune.trace_channels`.
      rtol: relative tolerance.
      atol: absolute tolerance.

    Raises:
      AssertionError: outputs differ, or the network has no group of channels.
      ValueError: of `graph.compact`, the masks do not fit.

    Examples:
      >>> mlp = lambda params, x: jnp.tanh(x @ params["a"]) @ params["b"]
      >>> params = {"a": jnp.ones((3, 8)), "b": jnp.ones((8, 2))}
      >>> assert_masked_equals_compact(mlp, params, jnp.ones((4, 3)))
    """
    call = "assert_masked_equals_compact(apply_fn, params, ...)"
    graph = channels.trace_channels(apply_fn, params, *inputs, norms=norms)
    _require(call, "the network has a group of channels", bool(graph.groups))
    if masks is None:
        masks = channels.random_channel_masks(jax.random.key(0), graph, 0.5)
    small = graph.compact(masks, params)
    want = jax.jit(graph.masked(masks))(params, *inputs)
    got = jax.jit(small.apply_fn)(small.trees[0], *inputs)
    with _promise(call, "the compact network computes what the masked one computes"):
        chex.assert_trees_all_close(got, want, rtol=rtol, atol=atol)


@contextlib.contextmanager
def _promise(call: str, text: str):
    """Begin the message of what is asserted inside with a promise."""
    try:
        yield
    except AssertionError as error:
        raise AssertionError(_message(call, text, error)) from error


def _require(call: str, text: str, holds: bool, got: Any = "something else"):
    if not holds:
        raise AssertionError(_message(call, text, got))


def _message(call: str, promise: str, got: Any) -> str:
    return f"`{call}`: a promise is broken, {promise}; got {got}"


def _checked_variables(call, pruner, params):
    variables = pruner.init(params)
    with _promise(call, "`init` takes abstract parameters"):
        abstract = jax.eval_shape(lambda: params)
        chex.assert_trees_all_equal(pruner.init(abstract), variables)
    known = tree.named_leaves(params)
    for name, value in variables.items():
        _require(call, "variables have the names of leaves", name in known, name)
        right = value.dtype == jnp.float32 and value.ndim <= 1
        _require(call, "variables are float32, scalars or vectors", right, value)
    return variables


def _check_apply(call, pruner, params, variables, step):
    eager = pruner.apply(params, variables, key=None, step=step)
    with _promise(call, "`apply` keeps structure, shapes and dtypes"):
        chex.assert_trees_all_equal_shapes_and_dtypes(eager.params, params)
    known = tree.named_leaves(params)
    for name, ratio in eager.keep_ratios.items():
        _require(call, "keep ratios have the names of leaves", name in known, name)
        right = ratio.dtype == jnp.float32 and ratio.ndim <= 1
        _require(call, "keep ratios are float32, scalars or vectors", right, ratio)
        right = bool(jnp.all((ratio >= 0) & (ratio <= 1)))
        _require(call, "keep ratios are between 0 and 1", right, ratio)
    for name, value in variables.items():
        right = name in eager.keep_ratios
        right = right and eager.keep_ratios[name].shape == value.shape
        _require(call, "a leaf with a variable has a keep ratio like it", right, name)
    apply = jax.jit(lambda p, v, s: pruner.apply(p, v, key=None, step=s))
    got = apply(params, variables, step)
    _same(call, "`apply` computes the same under `jit`", got, eager)


def _same(call, text, got, want):
    """Equal to the digits of the narrowest float."""
    floats = [x for x in jax.tree.leaves(want) if jnp.issubdtype(x.dtype, jnp.floating)]
    eps = max([float(jnp.finfo(x.dtype).eps) for x in floats], default=0.0)
    tolerance = max(16 * eps, 1e-5)
    with _promise(call, text):
        chex.assert_trees_all_close(got, want, rtol=tolerance, atol=tolerance)


def _check_derivatives(call, pruner, params, variables, step):
    def loss(params, variables):
        pruned = pruner.apply(params, variables, key=jax.random.key(0), step=step)
        return sum(
            jnp.sum(jnp.sin(jnp.asarray(x, jnp.float32)))
            for x in jax.tree.leaves(pruned)
        )

    grads = jax.jit(jax.grad(loss, (0, 1), allow_int=True))(params, variables)
    leaves = zip(
        jax.tree.leaves(grads), jax.tree.leaves((params, variables)), strict=True
    )
    pairs = [(g, x) for g, x in leaves if jnp.issubdtype(x.dtype, jnp.floating)]
    with _promise(call, "derivatives are finite, of the shapes of what they are of"):
        for grad, leaf in pairs:
            chex.assert_trees_all_equal_shapes_and_dtypes(grad, leaf)
            chex.assert_tree_all_finite(grad)


def _checked_masks(call, pruner, params, variables, keep_ratio):
    def decide(p, v):
        return pruner.masks(p, v, keep_ratio=keep_ratio)

    masks = decide(params, variables)
    with _promise(call, "masks have the structure of the parameters"):
        chex.assert_trees_all_equal_structs(masks, params)
    for leaf, mask in zip(jax.tree.leaves(params), jax.tree.leaves(masks), strict=True):
        right = mask.dtype == jnp.bool_ and mask.shape in (jnp.shape(leaf), ())
        right = right and (mask.shape == jnp.shape(leaf) or bool(mask))
        text = "masks are bool, of the shape of their leaf or the scalar True"
        _require(call, text, right, mask)
    validate(params, masks)
    with _promise(call, "`masks` decides the same under `jit`"):
        chex.assert_trees_all_equal(jax.jit(decide)(params, variables), masks)
    return masks


def _asked_masks(call, pruner, params, variables, keep_ratio):
    """Return masks of a keep ratio, or None where the pruner refuses it by name."""
    try:
        masks = _checked_masks(call, pruner, params, variables, keep_ratio)
    except ValueError as error:
        named = "keep_ratio" in str(error)
        _require(call, "a keep ratio is met, or refused by name", named, error)
        return None
    pruned = [mask for mask in jax.tree.leaves(masks) if mask.ndim]
    size = sum(mask.size for mask in pruned)
    want, got = keep_count(keep_ratio, size), sum(int(mask.sum()) for mask in pruned)
    text = f"a keep ratio of {keep_ratio} keeps {want} of {size} weights"
    _require(call, text, got == want, got)
    return masks


def _check_final_weights(call, pruner, params, variables, masks):
    final = pruner.final_weights(params, variables, masks)
    with _promise(call, "`final_weights` keeps structure, shapes and dtypes"):
        chex.assert_trees_all_equal_shapes_and_dtypes(final, params)
    zero = jax.tree.map(lambda w, m: jnp.all(jnp.where(m, 0, w) == 0), final, masks)
    right = all(map(bool, jax.tree.leaves(zero)))
    _require(call, "final weights are 0 where they are pruned", right)


def _check_pruned(call, params, state):
    transforms.check(state)
    try:
        final = transforms.finalize(params, state)
    except ValueError as error:
        # Thresholds, and the optimizers of others, leave no zeros to look at.
        if "must be that of a transformation" in str(error):
            return
        raise
    zero = jax.tree.map(
        lambda w, m: jnp.all(jnp.where(m, 0, w) == 0), final.params, final.masks
    )
    right = all(map(bool, jax.tree.leaves(zero)))
    _require(call, "what is pruned is 0 in the final parameters", right)
