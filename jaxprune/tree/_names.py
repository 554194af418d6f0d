"""Names of leaves, and look-up by pattern.

A leaf is called by the keys on its path joined with a slash, as in `conv1/kernel`. A
trailing `.value`, by which Flax NNX wraps its variables, is dropped, so that a Linen
and an NNX network of the same layers have the same names.
"""

import difflib
import fnmatch
from collections.abc import Callable, Iterable, Mapping
from typing import Any, TypeVar

import jax

T = TypeVar("T")


def name_of(path: tuple) -> str:
    """Return the name of the leaf at a key path, as `named_leaves` gives it.

    Args:
      path: a key path of `jax.tree_util.tree_leaves_with_path`.

    Returns:
      The keys joined with slashes.

    Examples:
      >>> import jax
      >>> [(path, _)] = jax.tree_util.tree_leaves_with_path({"conv": {"kernel": 1.0}})
      >>> name_of(path)
      'conv/kernel'
    """
    if len(path) > 1 and path[-1] == jax.tree_util.GetAttrKey("value"):
        path = path[:-1]
    return jax.tree_util.keystr(path, simple=True, separator="/")


def names(tree: Any) -> Any:
    """Return the tree with every leaf replaced by its name.

    Args:
      tree: a pytree.

    Returns:
      A tree of the same structure, of strings.

    Examples:
      >>> names({"conv": {"kernel": 1.0}, "out": (2.0, 3.0)})
      {'conv': {'kernel': 'conv/kernel'}, 'out': ('out/0', 'out/1')}
    """
    return jax.tree_util.tree_map_with_path(lambda path, _: name_of(path), tree)


def named_leaves(tree: Any) -> dict[str, Any]:
    """Return the leaves by name, in the order of `jax.tree.leaves`.

    Args:
      tree: a pytree. `None` is an empty tree, as everywhere in JAX.

    Returns:
      Leaf name to leaf.

    Raises:
      ValueError: two leaves have the same name, as in `{"a/b": x, "a": {"b": y}}`.

    Examples:
      >>> named_leaves({"conv": {"kernel": 1.0, "bias": None}})
      {'conv/kernel': 1.0}
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
    """Return the tree with the leaves that are named in `new_leaves` replaced.

    Args:
      tree: a pytree.
      new_leaves: leaf name to its new value.

    Returns:
      A tree of the same structure.

    Examples:
      >>> replace({"a": 1, "b": 2}, {"b": 3})
      {'a': 1, 'b': 3}
    """
    return jax.tree_util.tree_map_with_path(
        lambda path, leaf: new_leaves.get(name_of(path), leaf), tree
    )


def near(wanted: str, known: Iterable[str]) -> str:
    """Return a sentence that lists the known names nearest to a wanted one."""
    known = list(known)
    close = difflib.get_close_matches(wanted, known, n=3, cutoff=0.3)
    return f"Near matches: {close}. All names: {known}."


def matched(pattern: str, known: Iterable[str]) -> list[str]:
    """Return the names that a shell pattern matches; `*` also matches slashes."""
    return [name for name in known if fnmatch.fnmatchcase(name, pattern)]


def require_match(
    call: Callable[[str], str], patterns: Iterable[str], known: Iterable[str]
) -> None:
    """Refuse a pattern that matches no name.

    Args:
      call: pattern to the call that the message begins with.
      patterns: shell patterns.
      known: all names.

    Raises:
      ValueError: a pattern matches nothing; near matches are listed.
    """
    known = list(known)
    for pattern in patterns:
        if not matched(pattern, known):
            raise ValueError(
                f"`{call(pattern)}`: the pattern must match a leaf. "
                + near(pattern, known)
            )


def by_pattern(
    call: str, argument: str, values: Mapping[str, T], known: Iterable[str]
) -> dict[str, tuple[str, T]]:
    """Return for every name the first pattern that matches it, and its value.

    Args:
      call: the public function that was called, for messages.
      argument: the name of the argument that holds the patterns.
      values: shell pattern to value; of several that match the first counts.
      known: the names, each of which must be matched.

    Returns:
      Name to (pattern, value), in the order of `known`.

    Raises:
      ValueError: a name is matched by no pattern, or a pattern is the first match of
        no name.
    """
    known = list(known)
    require_match(
        lambda pattern: f"{call}({argument}={{{pattern!r}: ...}})", values, known
    )
    found = {}
    for name in known:
        first = next((p for p in values if fnmatch.fnmatchcase(name, p)), None)
        if first is None:
            raise ValueError(
                f"`{call}({argument}={{...}})`: every selected leaf must be matched by "
                f"a pattern, {name!r} is matched by none of {list(values)}. Add "
                '`"*": ...` as the last pattern.'
            )
        found[name] = (first, values[first])
    unused = [p for p in values if p not in {first for first, _ in found.values()}]
    if unused:
        raise ValueError(
            f"`{call}({argument}={{...}})`: the first pattern that matches a leaf "
            f"counts, and {unused[0]!r} is the first for none. Move it before "
            f"{[p for p in values if p not in unused]}."
        )
    return found
