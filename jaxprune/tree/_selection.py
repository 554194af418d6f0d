"""Selections: which leaves a method prunes, resolved here for every method and cost.

`where`, throughout the library, is one of

- a function from parameters to a tree prefix of booleans, such as `kernels`;
- a tree prefix of booleans, as in `optax.masked`;
- a shell pattern of names, or a tuple of them: `"*/kernel"`;
- a `Selection`, made by `selection` or `operands`, that also holds exclusions, stacked
  layers and masks that already hold.
"""

import dataclasses
import math
import numbers
import re
from collections.abc import Sequence
from typing import Any, NamedTuple

import jax
import jax.core
import jax.numpy as jnp
import numpy as np

from jaxprune.base._dtypes import has_zero
from jaxprune.base._protocols import Masks, Params
from jaxprune.tree._kernels import excluded_by_default, kernels
from jaxprune.tree._names import matched, name_of, named_leaves, require_match

Where = Any
"""What a selection may be written as; see the documentation of `jaxprune.tree`."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Decided:
    """Leaf names with a decision each, and its reason; what `operands` finds."""

    choices: dict[str, tuple[bool, str]]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Selection:
    """Which leaves are pruned, and what is known about them.

    A selection is itself a function from parameters to a tree of booleans, so it may
    stand wherever such a function may, `optax.masked` included.

    Attributes:
      where: the leaves to choose from.
      exclude: patterns of the leaves left out.
      stacked: the leaves that hold several layers along their first axis.
      masks: masks that already hold, or None.
    """

    where: Where = kernels
    exclude: tuple[str, ...] = ()
    stacked: Where = ()
    masks: Masks | None = None

    def __call__(self, params: Params, /) -> Any:
        """Return the tree of booleans of the parameters."""
        return resolve(params, self, call="selection(...)(params)")


class Weights(NamedTuple):
    """One selected leaf.

    Attributes:
      array: the leaf, possibly abstract.
      layers: the number of layers stacked along its first axis; None for one layer.
      mask: what is already pruned is False; None if nothing is.
    """

    array: Any
    layers: int | None
    mask: Any

    @property
    def layer_shape(self) -> tuple[int, ...]:
        """The shape of one layer."""
        shape = tuple(self.array.shape)
        return shape if self.layers is None else shape[1:]

    @property
    def layer_size(self) -> int:
        """The number of weights of one layer."""
        return math.prod(self.layer_shape)


def selection(
    where: Where = kernels,
    *,
    exclude: str | Sequence[str] = (),
    stacked: Where = (),
    masks: Masks | None = None,
) -> Selection:
    """Return a selection with exclusions, stacked layers, or masks that already hold.

    Args:
      where: the leaves to choose from: a function of the parameters, a tree prefix of
        booleans, name patterns, or another selection, whose exclusions and stacked
        layers are kept.
      exclude: shell patterns of the leaves left out, such as `"*/head/*"`.
      stacked: the leaves that hold several layers along their first axis, as
        `flax.linen.scan` makes them; given like `where`. Each layer then has a
        threshold, a count and a share of its own, as if it were a leaf.
      masks: a tree of the structure of the parameters; see `jaxprune.base.Masks`. What
        is False stays pruned for good. Keep ratios and sparsities still count all
        weights: after masks that keep 50 %, a keep ratio of 0.25 removes half of the
        rest.

    Returns:
      A `Selection`, for every argument called `where`.

    Raises:
      ValueError: when applied: a pattern matches no leaf, or masks do not fit.
      TypeError: when applied: masks are traced or not boolean.

    Examples:
      >>> import jax.numpy as jnp
      >>> params = {"body": {"kernel": jnp.ones((4, 3, 3))}, "head": jnp.ones((3, 2))}
      >>> where = selection(exclude="head", stacked="body/*")
      >>> where(params)
      {'body': {'kernel': True}, 'head': False}
    """
    exclude = (exclude,) if isinstance(exclude, str) else tuple(exclude)
    return Selection(where=where, exclude=exclude, stacked=stacked, masks=masks)


def by_name(*patterns: str) -> Selection:
    """Select leaves by name, with shell patterns.

    A string or a tuple of strings given as `where` means the same.

    Args:
      *patterns: `fnmatch` patterns such as `"conv*/kernel"`; `*` also matches slashes.

    Returns:
      A selection: applied to parameters, a tree of Python bools.

    Raises:
      ValueError: no pattern is given; when applied, a pattern matches no leaf (near
        matches are listed).

    Examples:
      >>> import jax.numpy as jnp
      >>> params = {"conv": {"kernel": jnp.ones((3, 3)), "bias": jnp.ones(3)}}
      >>> by_name("conv/k*")(params)
      {'conv': {'bias': False, 'kernel': True}}
    """
    if not patterns:
        raise ValueError(
            "`by_name()`: at least one pattern is needed. Pass e.g. `'*/kernel'`."
        )
    for pattern in patterns:
        if not isinstance(pattern, str):
            raise TypeError(
                f"`by_name({pattern!r})`: must be a shell pattern, got a "
                f"{type(pattern).__name__}. Pass e.g. `'*/kernel'`."
            )
    return Selection(where=patterns)


def _is_patterns(where: Where) -> bool:
    return isinstance(where, str) or (
        isinstance(where, tuple | list)
        and bool(where)
        and all(isinstance(pattern, str) for pattern in where)
    )


def _decide(call: str, params: Params, where: Where) -> dict[str, tuple[bool, str]]:
    """Return for every leaf whether it is selected, and why."""
    known = named_leaves(params)
    if isinstance(where, Selection):
        choices = _decide(call, params, where.where)
        require_match(lambda p: f"selection(exclude={p!r})", where.exclude, known)
        for pattern in where.exclude:
            for name in matched(pattern, known):
                choices[name] = (False, f"excluded by {pattern!r}")
        return choices
    if isinstance(where, Decided):
        if where.choices.keys() != known.keys():
            raise ValueError(
                "`operands(...)`: the function was traced with other parameters. Only "
                f"there: {sorted(where.choices.keys() - known.keys())}; only here: "
                f"{sorted(known.keys() - where.choices.keys())}."
            )
        return dict(where.choices)
    if where is kernels:
        reasons = excluded_by_default(params)
        return {n: (r is None, r or "a weight by its name") for n, r in reasons.items()}
    if _is_patterns(where):
        patterns = (where,) if isinstance(where, str) else tuple(where)
        require_match(lambda p: f"by_name({p!r})", patterns, known)
        return {name: _by_patterns(name, patterns) for name in known}
    return _from_booleans(call, params, where, known)


def _by_patterns(name: str, patterns: tuple[str, ...]) -> tuple[bool, str]:
    for pattern in patterns:
        if matched(pattern, [name]):
            return True, f"matches {pattern!r}"
    return False, "matches no pattern"


def _from_booleans(call, params, where, known) -> dict[str, tuple[bool, str]]:
    source = getattr(where, "__name__", "function") if callable(where) else "tree"
    prefix = where(params) if callable(where) else where
    if prefix == ():
        prefix = False
    try:
        flags = jax.tree.leaves(jax.tree.broadcast(prefix, params))
    except ValueError as error:
        raise ValueError(
            f"`{call}`: `where` must be a tree prefix of the parameters, or a function "
            f"that returns one, or patterns of names. {error}"
        ) from error
    for name, flag in zip(known, flags, strict=True):
        if not isinstance(flag, bool | np.bool_):
            raise TypeError(
                f"`{call}`: `where` must hold Python booleans, got "
                f"{type(flag).__name__} for {name!r}. Masks of weights are given as "
                "`selection(masks=...)`."
            )
    return {
        name: (bool(flag), f"chosen by `{source}`" if flag else f"not in `{source}`")
        for name, flag in zip(known, flags, strict=True)
    }


def resolve(
    params: Params, where: Where, *, call: str = "resolve(params, where)"
) -> Any:
    """Return a selection as a tree of booleans of the structure of the parameters.

    Args:
      params: a pytree of arrays, possibly abstract.
      where: see `jaxprune.tree`.
      call: what messages begin with: the function that the user called.

    Returns:
      A tree of the structure of `params`, of Python bools.

    Raises:
      ValueError: `where` is neither a function, nor a tree prefix of `params`, nor
        patterns that match; or a function of it returns no prefix.
      TypeError: `where` holds something else than booleans.

    Examples:
      >>> resolve({"a": {"b": 1, "c": 2}, "d": 3}, {"a": True, "d": False})
      {'a': {'b': True, 'c': True}, 'd': False}
    """
    choices = _decide(call, params, where)
    return jax.tree_util.tree_map_with_path(
        lambda path, _: choices[name_of(path)][0], params
    )


def _is_concrete(leaf: Any) -> bool:
    return isinstance(leaf, jax.Array | np.ndarray) and not isinstance(
        leaf, jax.core.Tracer
    )


def _refuse_other_things(call: str, leaves: dict[str, Any]) -> None:
    for name, leaf in leaves.items():
        if not hasattr(leaf, "dtype") and not isinstance(leaf, numbers.Number):
            raise TypeError(
                f"`{call}`: leaves must be arrays or numbers, {name!r} is of type "
                f"{type(leaf).__name__}. Keep functions and texts out of the "
                "parameters, with `equinox.partition(model, equinox.is_array)` for "
                "instance."
            )


def _refuse_unprunable(call: str, leaves: dict[str, Any]) -> None:
    held: dict[int, str] = {}
    for name, leaf in leaves.items():
        dtype = getattr(leaf, "dtype", None)
        if dtype is None or not jnp.issubdtype(dtype, jnp.floating):
            raise TypeError(
                f"`{call}`: only floating arrays can be pruned, leaf {name!r} has "
                f"dtype {dtype or type(leaf).__name__}. Leave it out of `where`."
            )
        if not has_zero(dtype):
            raise TypeError(
                f"`{call}`: only types with a zero can be pruned, leaf {name!r} has "
                f"dtype {dtype}. Leave it out of `where`."
            )
        if 0 in leaf.shape:
            raise ValueError(
                f"`{call}`: only non-empty arrays can be pruned, leaf {name!r} has "
                f"shape {leaf.shape}. Leave it out of `where`."
            )
        if _is_concrete(leaf):
            if id(leaf) in held:
                raise ValueError(
                    f"`{call}`: leaves {held[id(leaf)]!r} and {name!r} are the same "
                    "array, but would get two masks. If the weights are tied, keep "
                    "them in one leaf; if not, copy one: `jnp.array(leaf)`."
                )
            held[id(leaf)] = name


def _listed(leaves: dict[str, Any]) -> str:
    """Return the names of leaves for a message; a bare array has none."""
    if list(leaves) != [""]:
        return str(list(leaves))
    shape = np.shape(leaves[""])
    return (
        f"one bare array of shape {shape} (put `optax.flatten` inside, if it is used)"
    )


def select(
    params: Params, where: Where = kernels, *, call: str = "select(params, where)"
) -> dict[str, Any]:
    """Return the selected leaves by name, having checked that they can be pruned.

    Args:
      params: a pytree of arrays, possibly abstract.
      where: see `jaxprune.tree`.
      call: what messages begin with: the function that the user called.

    Returns:
      Leaf name to leaf, in the order of `jax.tree.leaves`.

    Raises:
      ValueError: `params` has no leaf, nothing is selected, a selected leaf is empty,
        or two of them are the same array; or from `resolve`.
      TypeError: a selected leaf is not a floating array, or any leaf is neither an
        array nor a number.

    Examples:
      >>> import jax.numpy as jnp
      >>> list(select({"kernel": jnp.ones((3, 4)), "bias": jnp.ones(4)}))
      ['kernel']
    """
    leaves = named_leaves(params)
    if not leaves:
        raise ValueError(
            f"`{call}`: `params` must have at least one array, got an empty tree "
            f"{params!r}. Pass the initialised parameters."
        )
    _refuse_other_things(call, leaves)
    choices = _decide(call, params, where)
    chosen = {name: leaf for name, leaf in leaves.items() if choices[name][0]}
    if not chosen:
        raise ValueError(
            f"`{call}`: `where` must select at least one leaf, it selects none of "
            f"{_listed(leaves)}. `jaxprune.selected(params, where)` prints the "
            "reasons; `where=('pattern', ...)` selects by name."
        )
    _refuse_unprunable(call, chosen)
    return chosen


def _stacked(call: str, params: Params, where: Where) -> set[str]:
    """Return the names of the leaves that hold stacked layers."""
    if not isinstance(where, Selection):
        return set()
    own = _decide(call, params, where.stacked)
    return {name for name, (flag, _) in own.items() if flag} | _stacked(
        call, params, where.where
    )


def check_masks(call: str, params: Params, masks: Masks) -> None:
    """Check that masks fit their parameters.

    Args:
      call: what messages begin with.
      params: a pytree of arrays, possibly abstract.
      masks: see `jaxprune.base.Masks`.

    Raises:
      ValueError: structures differ, or a mask has neither the shape of its parameter
        nor the shape `()`.
      TypeError: a mask is not boolean.
    """
    if jax.tree.structure(params) != jax.tree.structure(masks):
        ours, theirs = set(named_leaves(params)), set(named_leaves(masks))
        # Groups of channels are named by a leaf and an axis: "conv/kernel:3".
        groups = all(re.search(r":\d+$", name) for name in theirs)
        hint = (
            " These are masks of channels: `channels.consumer_masks(graph, params, "
            "masks)` makes masks of the parameters of them."
        )
        raise ValueError(
            f"`{call}`: masks must have the structure of the parameters. Only in the "
            f"parameters: {sorted(ours - theirs)}; only in the masks: "
            f"{sorted(theirs - ours)}. Structures: {jax.tree.structure(params)} and "
            f"{jax.tree.structure(masks)}.{hint if theirs and groups else ''}"
        )
    for (name, leaf), mask in zip(
        named_leaves(params).items(), jax.tree.leaves(masks), strict=True
    ):
        dtype, shape = jnp.result_type(mask), jnp.shape(mask)
        if dtype != jnp.bool_:
            raise TypeError(
                f"`{call}`: the mask of {name!r} must be boolean (True is kept), got "
                f"dtype {dtype}. Compare it: `mask != 0`."
            )
        if shape not in (jnp.shape(leaf), ()):
            raise ValueError(
                f"`{call}`: the mask of {name!r} must have the shape of its parameter, "
                f"{jnp.shape(leaf)}, or (), got {shape}. Broadcast it yourself if that "
                "is what you mean."
            )


def held_masks(params: Params, where: Where) -> dict[str, Any]:
    """Return the masks that already hold, by leaf name; leaves kept dense are left out.

    Args:
      params: a pytree of arrays, possibly abstract.
      where: see `jaxprune.tree`.

    Raises:
      ValueError: masks do not fit.
      TypeError: masks are traced, or not boolean.
    """
    if not isinstance(where, Selection):
        return {}
    if where.masks is None:
        return held_masks(params, where.where)
    check_masks("selection(masks=...)", params, where.masks)
    held = {}
    for name, mask in zip(
        named_leaves(params), jax.tree.leaves(where.masks), strict=True
    ):
        if isinstance(mask, jax.core.Tracer) or not isinstance(
            mask, jax.Array | np.ndarray | np.bool_ | bool
        ):
            raise TypeError(
                f"`selection(masks=...)`: masks must be arrays that are known when a "
                f"function is traced, that of {name!r} is {type(mask).__name__}. Make "
                "the selection outside `jit`."
            )
        if jnp.shape(mask) or not bool(mask):
            held[name] = mask
    return held


def weights(params: Params, where: Where, *, call: str) -> dict[str, Weights]:
    """Return the selected leaves with their stacked layers and the masks that hold.

    Args:
      params: a pytree of arrays, possibly abstract.
      where: see `jaxprune.tree`.
      call: what messages begin with.

    Raises:
      ValueError, TypeError: see `select` and `selection`.
    """
    leaves = select(params, where, call=call)
    stacked, held = _stacked(call, params, where), held_masks(params, where)
    found = {}
    for name, leaf in leaves.items():
        if name in stacked and leaf.ndim < 2:
            raise ValueError(
                f"`{call}`: a leaf of stacked layers must have at least two axes, "
                f"{name!r} has shape {leaf.shape}. Leave it out of `stacked`."
            )
        mask = held.get(name)
        found[name] = Weights(
            array=leaf,
            layers=leaf.shape[0] if name in stacked else None,
            mask=None if mask is None else jnp.broadcast_to(mask, leaf.shape),
        )
    return found


def sizes(params: Params, where: Where = kernels) -> dict[str, int]:
    """Return the number of entries of every selected leaf, as Python ints.

    Args:
      params: a pytree of arrays, possibly abstract.
      where: see `jaxprune.tree`.

    Returns:
      Leaf name to size.

    Raises:
      ValueError, TypeError: see `select`.

    Examples:
      >>> import jax.numpy as jnp
      >>> sizes({"kernel": jnp.ones((3, 4)), "bias": jnp.ones(4)})
      {'kernel': 12}
    """
    leaves = select(params, where, call="sizes(params, where)")
    return {name: math.prod(leaf.shape) for name, leaf in leaves.items()}


@dataclasses.dataclass(frozen=True, kw_only=True)
class Choice:
    """One leaf of a network, and whether it is selected.

    Attributes:
      name: its name.
      shape: its shape.
      size: the number of its entries.
      layers: the number of layers stacked along its first axis; None for one layer.
      selected: whether it is pruned.
      reason: why, or why not.
    """

    name: str
    shape: tuple[int, ...]
    size: int
    layers: int | None
    selected: bool
    reason: str


@dataclasses.dataclass(frozen=True, kw_only=True)
class Selected:
    """What a selection takes of a network; prints as a table.

    Attributes:
      leaves: all leaves, in the order of `jax.tree.leaves`.
    """

    leaves: tuple[Choice, ...]

    @property
    def names(self) -> tuple[str, ...]:
        """The names of the selected leaves."""
        return tuple(leaf.name for leaf in self.leaves if leaf.selected)

    @property
    def size(self) -> int:
        """The number of selected weights."""
        return sum(leaf.size for leaf in self.leaves if leaf.selected)

    def __str__(self) -> str:
        rows = [("leaf", "shape", "size", "layers", "selected", "reason")]
        for leaf in self.leaves:
            shape = "x".join(map(str, leaf.shape))
            layers = "" if leaf.layers is None else str(leaf.layers)
            mark = "yes" if leaf.selected else "no"
            rows.append((leaf.name, shape, f"{leaf.size:,}", layers, mark, leaf.reason))
        total = sum(leaf.size for leaf in self.leaves)
        rows.append(("selected", "", f"{self.size:,}", "", "", f"of {total:,}"))
        return aligned(rows, right=(2, 3))


def aligned(rows: Sequence[Sequence[str]], *, right: Sequence[int]) -> str:
    """Return rows of cells as lines of equal columns.

    Args:
      rows: cells, as many in every row.
      right: the columns that are aligned to the right.
    """
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = [
        "  ".join(
            cell.rjust(width) if i in right else cell.ljust(width)
            for i, (cell, width) in enumerate(zip(row, widths, strict=True))
        ).rstrip()
        for row in rows
    ]
    return "\n".join(lines)


def selected(params: Params, where: Where = kernels) -> Selected:
    """Return what a selection takes of a network, leaf by leaf, with the reasons.

    Args:
      params: a pytree of arrays, possibly abstract.
      where: see `jaxprune.tree`.

    Returns:
      A `Selected`, which prints as a table.

    Raises:
      ValueError, TypeError: see `resolve`.

    Examples:
      >>> import jax.numpy as jnp
      >>> print(selected({"kernel": jnp.ones((3, 4)), "bias": jnp.ones((1, 4))}))
      leaf      shape  size  layers  selected  reason
      bias      1x4       4          no        its name says bias
      kernel    3x4      12          yes       a weight by its name
      selected           12                    of 16
    """
    call = "selected(params, where)"
    choices, stacked = _decide(call, params, where), _stacked(call, params, where)
    rows = []
    for name, leaf in named_leaves(params).items():
        flag, reason = choices[name]
        shape = tuple(np.shape(leaf))
        rows.append(
            Choice(
                name=name,
                shape=shape,
                size=math.prod(shape),
                layers=shape[0] if name in stacked and shape else None,
                selected=flag,
                reason=reason,
            )
        )
    return Selected(leaves=tuple(rows))
