"""Names of leaves, and selections of leaves by name.

A leaf is called by the keys on its way joined with a slash, as in `conv1/kernel`. This
is the only module that looks at key paths; a trailing `.value`, by which Flax NNX wraps
its variables, is dropped, so that a Linen and an NNX network of the same layers have
the same names.

A *selection* (`where` throughout the library) says which leaves a method prunes: a
function of the parameters or a tree prefix, of booleans, as in `optax.masked`.
"""

import difflib
import fnmatch
from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxprune.base._protocols import Params

Where = Callable[[Params], Any] | Any

_NEVER_KERNELS = frozenset({"bias", "scale", "mean", "var"})


def name_of(path: tuple) -> str:
    """Returns the name of the leaf at a key path, as `named_leaves` gives it."""
    if len(path) > 1 and path[-1] == jax.tree_util.GetAttrKey("value"):
        path = path[:-1]
    return jax.tree_util.keystr(path, simple=True, separator="/")


def names(tree: Any) -> Any:
    """Returns the tree with every leaf replaced by its name.

    >>> names({"conv": {"kernel": 1.0}, "out": (2.0, 3.0)})
    {'conv': {'kernel': 'conv/kernel'}, 'out': ('out/0', 'out/1')}
    """
    return jax.tree_util.tree_map_with_path(lambda path, _: name_of(path), tree)


def named_leaves(tree: Any) -> dict[str, Any]:
    """Returns the leaves by name, in the order of `jax.tree.leaves`.

    Raises:
      ValueError: if two leaves have the same name, as in `{"a/b": x, "a": {"b": y}}`.
    """
    leaves: dict[str, Any] = {}
    for path, leaf in jax.tree_util.tree_leaves_with_path(tree):
        name = name_of(path)
        if name in leaves:
            raise ValueError(
                f"`named_leaves`: leaf names must be unique, got {name!r} twice. "
                "Rename a key that contains a slash."
            )
        leaves[name] = leaf
    return leaves


def replace(tree: Any, new_leaves: Mapping[str, Any]) -> Any:
    """Returns the tree with the leaves that are named in `new_leaves` replaced.

    >>> replace({"a": 1, "b": 2}, {"b": 3})
    {'a': 1, 'b': 3}
    """
    return jax.tree_util.tree_map_with_path(
        lambda path, leaf: new_leaves.get(name_of(path), leaf), tree
    )


def kernels(params: Params) -> Any:
    """Selects the kernels: floating leaves of two or more axes.

    Leaves whose last name is `bias`, `scale`, `mean` or `var` are left out whatever
    their rank, since layers stacked for a scan give them a leading axis.

    Args:
      params: a pytree of arrays or of anything with `ndim` and `dtype`.

    Returns:
      A tree of the same structure, of Python bools.
    """

    def is_kernel(path, leaf):
        return (
            jnp.issubdtype(leaf.dtype, jnp.floating)
            and leaf.ndim >= 2
            and name_of(path).rsplit("/", 1)[-1] not in _NEVER_KERNELS
        )

    return jax.tree_util.tree_map_with_path(is_kernel, params)


def by_name(*patterns: str) -> Callable[[Params], Any]:
    """Selects leaves by name, with shell patterns.

    Args:
      *patterns: `fnmatch` patterns such as `"conv*/kernel"`; `*` also matches slashes.

    Returns:
      A function from parameters to a tree of Python bools.

    Raises:
      ValueError: when applied, if a pattern matches no leaf; near matches are listed.

    >>> import jax.numpy as jnp
    >>> params = {"conv": {"kernel": jnp.ones((3, 3)), "bias": jnp.ones(3)}}
    >>> by_name("conv/k*")(params)
    {'conv': {'bias': False, 'kernel': True}}
    """
    if not patterns:
        raise ValueError("`by_name()`: at least one pattern is needed, got none.")

    def where(params):
        known = list(named_leaves(params))
        for pattern in patterns:
            if not fnmatch.filter(known, pattern):
                near = difflib.get_close_matches(pattern, known, n=3, cutoff=0.3)
                raise ValueError(
                    f"`by_name({pattern!r})`: the pattern must match a leaf, it "
                    f"matches none. Near matches: {near}. All leaves: {known}."
                )
        return jax.tree.map(
            lambda name: any(fnmatch.fnmatchcase(name, p) for p in patterns),
            names(params),
        )

    return where


def resolve(params: Params, where: Where) -> Any:
    """Returns a selection as a tree of bools of the structure of `params`.

    Raises:
      ValueError: if `where` is neither a function nor a tree prefix of `params`.

    >>> resolve({"a": {"b": 1, "c": 2}, "d": 3}, {"a": True, "d": False})
    {'a': {'b': True, 'c': True}, 'd': False}
    """
    prefix = where(params) if callable(where) else where
    try:
        return jax.tree.broadcast(prefix, params)
    except ValueError as error:
        raise ValueError(
            "`where` must be a tree prefix of the parameters, or a function that "
            f"returns one. {error}"
        ) from error


def select(params: Params, where: Where) -> dict[str, Any]:
    """Returns the selected leaves by name, having checked that they can be pruned.

    Args:
      params: a pytree of arrays, possibly abstract.
      where: a function of `params`, or a tree prefix of it, of booleans.

    Raises:
      ValueError: if `params` has no leaf, nothing is selected, or a selected leaf is
        empty; or from `resolve`.
      TypeError: if a selected leaf is not a floating array.
    """
    leaves = named_leaves(params)
    if not leaves:
        raise ValueError(
            "`select(params, where)`: `params` must have at least one array, got an "
            f"empty tree {params!r}. Pass the initialised parameters."
        )
    chosen = jax.tree.leaves(resolve(params, where))
    selected = {
        name: leaf
        for (name, leaf), keep in zip(leaves.items(), chosen, strict=True)
        if keep
    }
    if not selected:
        raise ValueError(
            "`select(params, where)`: `where` must select at least one leaf, it "
            f"selects none of {list(leaves)}. `kernels` selects floating leaves of "
            "two or more axes; `by_name('pattern')` selects by name."
        )
    for name, leaf in selected.items():
        if not jnp.issubdtype(leaf.dtype, jnp.floating):
            raise TypeError(
                f"`select(params, where)`: only floating arrays can be pruned, leaf "
                f"{name!r} has dtype {leaf.dtype}. Leave it out of `where`."
            )
        if leaf.size == 0:
            raise ValueError(
                f"`select(params, where)`: only non-empty arrays can be pruned, leaf "
                f"{name!r} has shape {leaf.shape}. Leave it out of `where`."
            )
    return selected


def sizes(params: Params, where: Where = kernels) -> dict[str, int]:
    """Returns the number of entries of every selected leaf, as Python ints.

    >>> import jax.numpy as jnp
    >>> sizes({"kernel": jnp.ones((3, 4)), "bias": jnp.ones(4)})
    {'kernel': 12}
    """
    return {
        name: int(np.prod(leaf.shape, dtype=np.int64))
        for name, leaf in select(params, where).items()
    }
