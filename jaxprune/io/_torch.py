"""Arrays of PyTorch in the layout of Flax, and back.

    layer          in PyTorch                         in Flax
    linear         weight (out, in)                   kernel (in, out)
    convolution    weight (out, in / groups, *size)   kernel (*size, in / groups, out)
    normalisation  weight, bias                       scale, bias
                   running_mean, running_var          mean, var

`from_torch` turns tensors by name into a tree, `to_torch` a tree into tensors by name,
both by one mapping of names. Nothing is guessed: it is known of every leaf and of every
tensor where it goes, or there is an error. PyTorch is not imported.
"""

import difflib
import fnmatch
import itertools
import math
from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Any, NamedTuple

import jax
import jax.core
import jax.numpy as jnp
import numpy as np

from jaxprune import tree as jtree
from jaxprune.io import _leaves

_COUNTERS = ("*num_batches_tracked",)
_SHOWN = 8  # mistakes of a kind in a message


class TorchLayout(NamedTuple):
    """How an array is turned from PyTorch's layout to Flax's, and back.

    The two are inverse to each other and call methods of arrays (`transpose`,
    `reshape`), so that they serve NumPy's arrays, JAX's and abstract ones.

    Attributes:
      to_flax: `PyTorch's array, shape of the leaf -> leaf`.
      to_torch: `leaf -> PyTorch's array`.
    """

    to_flax: Callable[[Any, tuple[int, ...]], Any]
    to_torch: Callable[[Any], Any]


class TorchTensor(NamedTuple):
    """Where a leaf comes from, if the name of a tensor does not say enough.

    Attributes:
      name: of the tensor.
      layout: None for that of a linear layer or a convolution where the name of the
        leaf ends with `kernel`, and for the array as it is elsewhere.
      part: the position of the leaf among those that the tensor joins along its first
        axis: 0, 1 and 2 for queries, keys and values in one matrix.
    """

    name: str
    layout: TorchLayout | None = None
    part: int = 0


Names = Mapping[str, str | TorchTensor]
# The leaves that a tensor joins along its first axis, in order.
_Parts = Mapping[str, TorchLayout]


def after_flatten(channels: int, *size: int) -> TorchLayout:
    """Return the layout of the kernel of a dense layer behind a flattened map.

    PyTorch flattens (channels, *size) and Flax (*size, channels), so the rows of the
    kernel come in another order:

        kernel[(s, c), o] = weight[o, (c, s)]

    Args:
      channels: of the map.
      *size: the lengths of its other axes.

    Returns:
      The layout, of weights (out, channels * size) and kernels (size * channels, out).

    Examples:
      >>> names = {"kernel": TorchTensor("classifier.0.weight", after_flatten(2, 3))}
      >>> tensors = {"classifier.0.weight": np.arange(6.0)[None]}
      >>> from_torch(tensors, names, {"kernel": np.zeros((6, 1))})["kernel"][:, 0]
      array([0., 3., 1., 4., 2., 5.])
    """

    def to_flax(array, shape):
        array = array.reshape(-1, channels, *size)
        return _KERNEL.to_flax(array, shape).reshape(shape)

    def to_torch(leaf):
        leaf = leaf.reshape(*size, channels, leaf.shape[-1])
        return _KERNEL.to_torch(leaf).reshape(leaf.shape[-1], -1)

    return TorchLayout(to_flax, to_torch)


def dense_general(inputs: int) -> TorchLayout:
    """Return the layout of a dense layer over several axes, as those of attention.

    Args:
      inputs: how many axes of the kernel are summed over: 1 for those of queries, keys
        and values, (width, heads, size); 2 for that of the output, (heads, size,
        width); 0 for a bias.

    Returns:
      The layout, of weights (out, in), or biases (out,), and of leaves whose first
      `inputs` axes hold `in` entries and whose others hold `out`.

    Examples:
      >>> leaf = np.arange(12.0).reshape(3, 2, 2)  # width 3, 2 heads of size 2
      >>> to_torch({"query": leaf}, {"query": TorchTensor("q", dense_general(1))})
      {'q': array([[ 0.,  4.,  8.],
             [ 1.,  5.,  9.],
             [ 2.,  6., 10.],
             [ 3.,  7., 11.]])}
    """

    def to_torch(leaf):
        into = (math.prod(leaf.shape[:inputs]),) if inputs else ()
        return leaf.reshape(*into, math.prod(leaf.shape[inputs:])).transpose()

    return TorchLayout(lambda array, shape: array.transpose().reshape(shape), to_torch)


_KERNEL = TorchLayout(
    lambda array, shape: array.transpose(*range(2, array.ndim), 1, 0),
    lambda leaf: leaf.transpose(leaf.ndim - 1, leaf.ndim - 2, *range(leaf.ndim - 2)),
)
_AS_IT_IS = TorchLayout(lambda array, shape: array, lambda leaf: leaf)


def from_torch(
    tensors: Mapping[str, Any],
    names: Names,
    like: Any,
    *,
    ignore: Sequence[str] = _COUNTERS,
) -> Any:
    """Return tensors of PyTorch as a tree in the layout of Flax.

    A leaf whose name ends with `kernel` is that of a linear layer or of a convolution,
    with any number of axes and groups; the kernel of a transposed convolution is that
    of `flax.linen.ConvTranspose(transpose_kernel=True)`. Every other leaf is the tensor
    as it is. A `TorchTensor` says what differs, `after_flatten` for instance.

    Args:
      tensors: name to tensor, as `load_weights` and `state_dict` give them: arrays of
        NumPy or JAX, also traced, or tensors of PyTorch in the memory of the host that
        need no gradient.
      names: leaf name, as in `tree.named_leaves(like)`, to the name of its tensor or a
        `TorchTensor`, for every leaf.
      like: a tree of arrays or `jax.ShapeDtypeStruct`s. Floating-point numbers are
        rounded to its dtypes; other numbers must have them.
      ignore: shell patterns of tensors that need not be read; by default the counters
        of batch normalisation, which Flax does not have.

    Returns:
      A tree of the structure, shapes, dtypes and shardings of `like`, with NumPy's
      arrays where it has them and JAX's elsewhere.

    Raises:
      ValueError: leaves without a name, names of no leaf, tensors that are missing,
        left over, or of another shape or kind of numbers: all of them in one message,
        with near matches; or a tensor is no array.
      TypeError: `ignore` is a text, or a value of `names` is neither a text nor a
        `TorchTensor`.

    Examples:
      >>> tensors = {"fc.weight": np.ones((2, 3)), "fc.bias": np.zeros(2)}
      >>> names = {"dense/kernel": "fc.weight", "dense/bias": "fc.bias"}
      >>> like = {"dense": {"bias": jnp.zeros(2), "kernel": jnp.zeros((3, 2))}}
      >>> jax.tree.map(jnp.shape, from_torch(tensors, names, like))
      {'dense': {'bias': (2,), 'kernel': (3, 2)}}
    """
    call = "from_torch(tensors, names, like)"
    if isinstance(ignore, str):
        raise TypeError(
            f"`from_torch(ignore={ignore!r})`: must be a sequence of patterns, it is a "
            f"text. Pass `[{ignore!r}]`."
        )
    leaves = {name: _known(leaf) for name, leaf in jtree.named_leaves(like).items()}
    sources = _sources(call, names)
    wholes, mistakes = _wholes(sources, leaves)
    unread = set(tensors) - {source.name for source in sources.values()}
    unread = [name for name in tensors if name in unread and not _any(ignore, name)]
    found: dict[str, Any] = {}
    missing, misfits = [], []
    for name, parts in wholes.items():
        if name not in tensors:
            near = _near(name, unread)
            missing.append(f"{name!r} for leaf {next(iter(parts))!r}{near}")
            continue
        made = _laid_out(_array(name, tensors[name]), parts, leaves)
        if isinstance(made, str):
            misfits.append(f"{name!r}: {made}")
        else:
            found |= made
    mistakes["Tensors that are missing"] = missing
    mistakes["Tensors that are left over"] = list(map(repr, unread))
    mistakes["Tensors that do not fit"] = misfits
    _refuse(call, mistakes)
    return jtree.replace(like, found)


def to_torch(tree: Any, names: Names) -> dict[str, Any]:
    """Return the leaves of a tree by their names in PyTorch, in its layout.

    The inverse of `from_torch`: from one to the other and back every bit is as it was,
    but for tensors that were ignored and numbers that were rounded. The result is for
    `save_weights`, or for `load_state_dict` behind `torch.from_numpy`.

    Args:
      tree: a pytree of arrays.
      names: as `from_torch` takes them.

    Returns:
      Tensor name to an array of NumPy with its own memory, to a traced one where the
      leaf is.

    Raises:
      ValueError: leaves without a name, names of no leaf, parts of a tensor that are
        missing or there twice, or leaves that their layout does not fit.
      TypeError: as `from_torch`.

    Examples:
      >>> tree = {"conv": {"kernel": np.ones((3, 3, 4, 8))}}
      >>> to_torch(tree, {"conv/kernel": "conv.weight"})["conv.weight"].shape
      (8, 4, 3, 3)
    """
    call = "to_torch(tree, names)"
    leaves = jtree.named_leaves(tree)
    wholes, mistakes = _wholes(_sources(call, names), leaves)
    shapes = {name: _torch_shapes(parts, leaves) for name, parts in wholes.items()}
    mistakes["Tensors that cannot be made"] = [
        f"{name!r}: {why}" for name, why in shapes.items() if isinstance(why, str)
    ]
    _refuse(call, mistakes)
    return {
        name: _joined(
            [layout.to_torch(_host(leaves[x])) for x, layout in parts.items()]
        )
        for name, parts in wholes.items()
    }


def _sources(call: str, names: Names) -> dict[str, TorchTensor]:
    """Return the tensor of every leaf."""
    found = {}
    for leaf, source in names.items():
        source = TorchTensor(source) if isinstance(source, str) else source
        if not isinstance(source, TorchTensor):
            raise TypeError(
                f"`{call}`: names[{leaf!r}] must be the name of a tensor or a "
                f"`TorchTensor`, it is {source!r}. Pass e.g. 'conv1.weight'."
            )
        found[leaf] = source
    return found


def _wholes(
    sources: Mapping[str, TorchTensor], leaves: Collection[str]
) -> tuple[dict[str, _Parts], dict[str, list[str]]]:
    """Return the leaves of every tensor, and what is wrong with the names."""
    members: dict[str, list[str]] = {}
    for leaf in sorted(sources, key=lambda leaf: sources[leaf].part):
        members.setdefault(sources[leaf].name, []).append(leaf)
    wholes, doubtful = {}, []
    for name, joined in members.items():
        parts = [sources[leaf].part for leaf in joined]
        if parts != list(range(len(parts))):
            doubtful.append(f"{name!r}: by {joined} as its parts {parts}")
        elif all(leaf in leaves for leaf in joined):
            wholes[name] = {leaf: _layout(leaf, sources[leaf]) for leaf in joined}
    unnamed = [leaf for leaf in leaves if leaf not in sources]
    unknown = [leaf for leaf in sources if leaf not in leaves]
    return wholes, {
        "Leaves without a name": list(map(repr, unnamed)),
        "Names of no leaf": [f"{leaf!r}{_near(leaf, unnamed)}" for leaf in unknown],
        "Tensors that are not read once, part by part": doubtful,
    }


def _layout(leaf: str, source: TorchTensor) -> TorchLayout:
    if source.layout is not None:
        return source.layout
    return _KERNEL if leaf.rpartition("/")[2] == "kernel" else _AS_IT_IS


def _torch_shapes(
    parts: _Parts, leaves: Mapping[str, Any]
) -> list[tuple[int, ...]] | str:
    """Return the shapes of the parts of a tensor, or why it has none."""
    found = []
    for leaf, layout in parts.items():
        shape = np.shape(leaves[leaf])
        try:
            blank = jax.ShapeDtypeStruct(shape, np.float32)
            found.append(jax.eval_shape(layout.to_torch, blank).shape)
        except (TypeError, ValueError) as error:
            return f"its layout does not fit leaf {leaf!r} of shape {shape} ({error})"
    if len(found) > 1 and len({shape[1:] for shape in found if shape}) != 1:
        return f"the leaves {list(parts)} are parts of the shapes {found}"
    return found


def _laid_out(
    array: Any, parts: _Parts, leaves: Mapping[str, Any]
) -> dict[str, Any] | str:
    """Return the leaves that a tensor holds, or why it does not."""
    shapes = _torch_shapes(parts, leaves)
    if isinstance(shapes, str):
        return shapes
    whole, pieces = shapes[0], [array]
    if len(parts) > 1:
        ends = list(itertools.accumulate(shape[0] for shape in shapes))
        whole = (ends[-1], *whole[1:])
        pieces = [array[a:b] for a, b in itertools.pairwise([0, *ends])]
    if array.shape != whole:
        ours = ", ".join(f"{leaf!r} of {np.shape(leaves[leaf])}" for leaf in parts)
        return f"shape {array.shape} where {ours} must come from {whole}"
    found = {}
    for (leaf, layout), piece in zip(parts.items(), pieces, strict=True):
        shape, dtype = np.shape(leaves[leaf]), _dtype(leaves[leaf])
        floating = [jnp.issubdtype(d, np.floating) for d in (array.dtype, dtype)]
        if not all(floating) and array.dtype != dtype:
            return f"dtype {array.dtype} where leaf {leaf!r} has {dtype}"
        made = layout.to_flax(piece, shape)
        if made.shape != shape:
            return f"its layout gives {made.shape} where leaf {leaf!r} has {shape}"
        found[leaf] = _as_leaf(made, leaves[leaf])
    return found


def _as_leaf(array: Any, leaf: Any) -> Any:
    if isinstance(array, jax.core.Tracer):
        return array.astype(leaf.dtype)
    array = np.asarray(array)
    return _leaves.restored(array, leaf, {"kind": "array", "dtype": str(array.dtype)})


def _dtype(leaf: Any) -> Any:
    return leaf.dtype if hasattr(leaf, "dtype") else np.asarray(leaf).dtype


def _known(leaf: Any) -> Any:
    """Return a leaf, a traced one as its shape and dtype."""
    if isinstance(leaf, jax.core.Tracer):
        return jax.ShapeDtypeStruct(leaf.shape, leaf.dtype)
    return leaf


def _array(name: str, tensor: Any) -> Any:
    if isinstance(tensor, jax.Array):
        return tensor
    try:
        return np.asarray(tensor)
    except (TypeError, RuntimeError, ValueError) as error:
        raise ValueError(
            f"`from_torch(tensors)`: tensors[{name!r}] must be an array, or a tensor "
            f"that `np.asarray` takes: {error}. Pass "
            "`tensor.detach().cpu().float().numpy()`."
        ) from error


def _host(leaf: Any) -> Any:
    return leaf if isinstance(leaf, jax.core.Tracer) else np.asarray(leaf)


def _joined(pieces: Sequence[Any]) -> Any:
    traced = any(isinstance(piece, jax.core.Tracer) for piece in pieces)
    numpy = jnp if traced else np
    whole = pieces[0] if len(pieces) == 1 else numpy.concatenate(pieces)
    return whole if traced else np.array(whole, order="C")


def _any(patterns: Sequence[str], name: str) -> bool:
    return any(fnmatch.fnmatchcase(name, pattern) for pattern in patterns)


def _near(name: str, known: Sequence[str]) -> str:
    close = difflib.get_close_matches(name, known, n=2)
    return f" (near: {', '.join(map(repr, close))})" if close else ""


def _refuse(call: str, mistakes: Mapping[str, list[str]]) -> None:
    """Raise one error that lists all mistakes, if there are any."""
    lines = []
    for kind, several in mistakes.items():
        if several:
            more = [f"... and {len(several) - _SHOWN} more"] * (len(several) > _SHOWN)
            lines += [f"{kind}, {len(several)}:"]
            lines += [f"  {line}" for line in [*several[:_SHOWN], *more]]
    if lines:
        listed = "\n".join(lines)
        raise ValueError(
            f"`{call}`: every leaf must be one tensor that fits it, and every tensor a "
            f"leaf. Correct `names`, or name in `ignore` what is not needed.\n{listed}"
        )
