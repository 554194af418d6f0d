"""The default selection: which leaves are weights of products, by their names.

Where only names are known, these rules decide; `operands` decides exactly, from the
function that uses the parameters.
"""

import re
from typing import Any

import jax
import jax.numpy as jnp

from jaxprune.base._dtypes import has_zero
from jaxprune.base._protocols import Params
from jaxprune.tree._names import name_of, named_leaves

# Words in the last name of a leaf that say that it is added, or multiplies entry by
# entry, or is looked up: by the words of Flax, Haiku, Equinox, PyTorch and papers.
_NOT_WEIGHTS = re.compile(
    r"""
    bias | biases | scales? | offsets? | shift | gain | gamma | beta | slope | decay
    | means? | var | variance | std | sigma | log | ln | bn | gn | .*norm.*
    | embeddings? | embeds? | emb | wte | wpe
    | pos | positions? | positional | posemb | cls | class | tokens? | registers?
    """,
    re.VERBOSE,
)
_TABLES = ("weight", "weights", "w", "table")
_INDEX = re.compile(r"\d+")
_WORD = re.compile(r"[A-Z]?[a-z]+|[A-Z]+(?![a-z])")


def _words(name: str) -> list[str]:
    """Return the words of a key: `LayerNorm_0` is layer and norm."""
    return [word.lower() for word in _WORD.findall(name)]


def _keys(name: str) -> list[str]:
    """Return the keys of a name without the positions in lists and tuples."""
    return [key for key in name.split("/") if not _INDEX.fullmatch(key)]


def _is_norm(key: str) -> bool:
    words = _words(key)
    return any("norm" in word for word in words) or bool({"ln", "bn", "gn"} & {*words})


def _is_embedding(key: str) -> bool:
    words = _words(key)
    return any(word.startswith("emb") for word in words) and "patch" not in words


def _why_not_by_name(name: str, siblings: set[str]) -> str | None:
    """Return why a name is not that of a weight of a product, or None."""
    keys = _keys(name)
    parent, last = ["", "", *keys][-2:]
    words = _words(last)
    if "kernel" in words:
        return None
    found = [word for word in words if _NOT_WEIGHTS.fullmatch(word)]
    if found:
        return f"its name says {found[0]}"
    # A `b` beside a `w` is a bias; beside an `a` it is a matrix of its own.
    if words[-1:] == ["b"] or (words[:1] == ["b"] and all(len(w) < 3 for w in words)):
        beside = {word for sibling in siblings for word in _words(sibling)}
        if "a" not in beside:
            return "its name says bias"
    if _is_norm(parent):
        return f"{parent!r} normalises"
    if _is_embedding(parent) and (not words or words[-1] in _TABLES):
        return f"{parent!r} is looked up"
    return None


def _why_not(name: str, leaf: Any, siblings: set[str]) -> str | None:
    dtype = getattr(leaf, "dtype", None)
    if dtype is None or not jnp.issubdtype(dtype, jnp.floating):
        return f"not floating: {dtype or type(leaf).__name__}"
    if not has_zero(dtype):
        return f"{dtype} has no zero"
    if leaf.ndim < 2:
        return "fewer than two axes"
    if 0 in leaf.shape:
        return "empty"
    return _why_not_by_name(name, siblings)


def excluded_by_default(params: Params) -> dict[str, str | None]:
    """Return for every leaf name why `kernels` leaves it out, or None if it does not.

    Args:
      params: a pytree of arrays or of anything with `ndim`, `shape` and `dtype`.
    """
    leaves = named_leaves(params)
    siblings: dict[str, set[str]] = {}
    for name in leaves:
        folder, _, last = name.rpartition("/")
        siblings.setdefault(folder, set()).add(last)
    return {
        name: _why_not(name, leaf, siblings[name.rpartition("/")[0]])
        for name, leaf in leaves.items()
    }


def kernels(params: Params) -> Any:
    """Select the weights of products and convolutions, by their names.

    Selected are floating leaves of two or more axes, except those whose last name says
    that they are something else: biases (also recurrent ones, and those of stacked
    layers), scales and offsets of norms, statistics, positions, class tokens and
    embeddings. A leaf called `kernel` is always selected. What was taken, and why the
    rest was not, is printed by `jaxprune.selected(params)`; `jaxprune.operands` finds
    the same leaves from the traced function, whatever their names.

    Args:
      params: a pytree of arrays or of anything with `ndim`, `shape` and `dtype`.

    Returns:
      A tree of the same structure, of Python bools.

    Examples:
      >>> import jax.numpy as jnp
      >>> kernels({"dense": {"w": jnp.ones((3, 2)), "b": jnp.ones((1, 2))}})
      {'dense': {'b': False, 'w': True}}
    """
    reasons = excluded_by_default(params)
    return jax.tree_util.tree_map_with_path(
        lambda path, _: reasons[name_of(path)] is None, params
    )
