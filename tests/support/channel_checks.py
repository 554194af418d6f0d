"""The one property that every test of compaction comes down to."""

import jax
import jax.numpy as jnp
import numpy as np

from jaxprune import tree
from jaxprune.channels import consumer_masks
from jaxprune.masks import apply_masks

_QUICK = {
    "xla_llvm_disable_expensive_passes": True,
    "xla_backend_optimization_level": 0,
}


def quick_jit(function):
    """Compiles fast, to code that may be slow."""
    return jax.jit(function, compiler_options=_QUICK)


def as_dtype(arrays, dtype):
    """Casts the floating leaves, on the host: no shape is compiled for."""

    def cast(x):
        if not hasattr(x, "dtype") or not jnp.issubdtype(x.dtype, jnp.floating):
            return x
        return np.asarray(x).astype(dtype)

    return jax.tree.map(cast, arrays)


def relative_difference(mine, theirs) -> float:
    """Returns the largest difference of two trees, each leaf by its largest entry."""
    assert jax.tree.structure(mine) == jax.tree.structure(theirs)
    pairs = zip(jax.tree.leaves(mine), jax.tree.leaves(theirs), strict=True)
    worst = 0.0
    for a, b in pairs:
        a, b = np.asarray(a, np.float64), np.asarray(b, np.float64)
        assert a.shape == b.shape
        assert np.isfinite(a).all()
        assert np.abs(b).max() > 0
        worst = max(worst, np.abs(a - b).max() / np.abs(b).max())
    return worst


def cut(arrays, kept):
    """Cuts the leaves that are named in `kept`, on the host; the others stay."""
    return jax.tree_util.tree_map_with_path(
        lambda path, x: x[np.ix_(*kept[tree.name_of(path)])] if path[-1:] else x,
        jax.device_get(arrays),
    )


def size(arrays) -> int:
    """Returns the number of entries."""
    return sum(x.size for x in jax.tree.leaves(arrays))


def check(architecture, graph, masks, dtype, tolerance):
    """Asserts small == masked program == program with masked consumers.

    The third where it exists: where no mask of parameters is exact, that is refused.
    Returns the smaller variables.
    """
    function, variables, inputs = architecture
    variables, inputs = as_dtype(variables, dtype), as_dtype(inputs, dtype)
    small, run = graph.compact(masks), graph.masked(masks)

    # One program: an operation on its own is compiled for every shape of a leaf.
    def everything(variables):
        smaller = graph.compact(masks, variables).trees[0]
        others = [run(variables, *inputs)]
        try:
            unread = apply_masks(variables, consumer_masks(graph, variables, masks))
            others.append(function(unread, *inputs))
        except ValueError as error:
            if "no mask of parameters is exact" not in str(error):
                raise
        return smaller, small.apply_fn(smaller, *inputs), others

    smaller, mine, others = quick_jit(everything)(variables)
    for theirs in others:
        if isinstance(mine, tuple):  # Outputs, and updated batch statistics.
            theirs = theirs[0], cut(theirs[1], small.kept)
        assert relative_difference(mine, theirs) <= tolerance
    return smaller
