"""Calibration: what every weight of a network sees on a sample of data.

    calibration = calibrator(apply_fn)
    statistics = calibration.init(params, batch)
    for batch in batches:
        statistics = calibration.update(statistics, params, batch)

or `calibrate(apply_fn, params, batches)`, which compiles the step. The network is any
function; its weights are found where they multiply, as `jaxprune.operands` finds them.
"""

import dataclasses
import functools
from collections.abc import Callable, Hashable, Iterable
from typing import Any, NamedTuple, Protocol

import jax
import jax.numpy as jnp

from jaxprune import tree
from jaxprune.base._checks import check_callable
from jaxprune.base._protocols import Params
from jaxprune.calibration._inputs import Inputs
from jaxprune.calibration._views import Use
from jaxprune.calibration._walk import walked
from jaxprune.tree._names import near
from jaxprune.tree._selection import aligned


@functools.partial(
    jax.tree_util.register_dataclass,
    data_fields=("inputs",),
    meta_fields=("_uses", "_missing"),
)
@dataclasses.dataclass(frozen=True, kw_only=True, eq=False)
class Statistics:
    """Sums over the rows that weights multiply; a pytree.

    Attributes:
      inputs: leaf name to the sums of each of its uses. A leaf that is used twice in
        the same layout has one use, with the rows of both.
    """

    inputs: dict[str, tuple[Inputs, ...]]
    _uses: tuple[tuple[str, tuple[Use, ...]], ...]
    _missing: tuple[tuple[str, str], ...]

    @property
    def uses(self) -> dict[str, tuple[Use, ...]]:
        """Leaf name to its uses, in the order of the program."""
        return dict(self._uses)

    @property
    def missing(self) -> dict[str, str]:
        """Leaf name to the reason why nothing is known of it."""
        return dict(self._missing)

    def __str__(self) -> str:
        rows = [("leaf", "shape", "product", "matrices", "inputs", "layout")]
        for name, uses in self._uses:
            for use, sums in zip(uses, self.inputs[name], strict=True):
                shape = "x".join(map(str, use.view.shape))
                number, size = sums.count.size, str(sums.square_sum.shape[-1])
                moves = "as it is" if not use.view.steps else "moved"
                layout = moves if use.view.exact else "changed"
                cells = (name, shape, use.primitive, str(number), size, layout)
                rows.append(cells)
        lines = [aligned(rows, right=(3, 4))]
        lines += [f"nothing of {name!r}: {why}" for name, why in self._missing]
        return "\n".join(lines)


class _Init(Protocol):
    def __call__(self, params: Params, /, *inputs: Any) -> Statistics: ...


class _Update(Protocol):
    def __call__(
        self, statistics: Statistics, params: Params, /, *inputs: Any
    ) -> Statistics: ...


class Calibrator(NamedTuple):
    """A pair of pure functions that collect statistics.

    Attributes:
      init: `params, *inputs -> statistics`, zeros; everything may be abstract.
      update: `statistics, params, *inputs -> statistics`, one batch more. It may be
        compiled, and the statistics donated.
    """

    init: _Init
    update: _Update


def calibrator(
    apply_fn: Callable[..., Any],
    *,
    gram: bool = False,
    where: tree.Where = True,
    axis_name: Hashable | None = None,
) -> Calibrator:
    """Return functions that collect what the weights of a network see.

    For a weight w of a product y_ro = sum_i x_ri w_io, over all rows r of all batches,

        sum_r |x_ri|,   sum_r x_ri^2,   and, with `gram`,  H = sum_r x_r x_r^T

    Products are `dot_general`, `conv_general_dilated`, whose rows are patches, and
    ragged products. Weights are followed as `jaxprune.operands` does: through casts,
    transposes, reshapes, slices, concatenations with others, masks; into calls, scans
    over stacked layers, loops and branches.

    Args:
      apply_fn: `(params, *inputs) -> outputs`; what it returns is not read.
      gram: whether to keep Gram matrices, for SparseGPT: for each matrix as many
        numbers as the square of its inputs. A `where` of some leaves at a time
        bounds the memory.
      where: the leaves of which statistics are taken; by default all that are operands
        of products.
      axis_name: inside of `jax.shard_map` or `jax.pmap`, the mapped axis, or axes, over
        which the batch is divided: sums are added over them. Under `jax.jit` sharded
        batches need nothing.

    Returns:
      A `Calibrator`.

    Raises:
      TypeError: `apply_fn` is no function.
      ValueError: of `update`, if the statistics are those of another function or other
        parameters.

    Examples:
      >>> import jax.numpy as jnp
      >>> mlp = lambda params, x: jnp.tanh(x @ params["w1"]) @ params["w2"]
      >>> params = {"w1": jnp.ones((2, 3)), "w2": jnp.ones((3, 1))}
      >>> calibration = calibrator(mlp)
      >>> x = jnp.array([[3.0, 1.0], [4.0, 1.0]])
      >>> statistics = calibration.init(params, x)
      >>> statistics = calibration.update(statistics, params, x)
      >>> statistics.inputs["w1"][0].square_sum.tolist()
      [[25.0, 2.0]]
    """
    example = "`lambda params, x: model.apply(params, x)`"
    check_callable("calibrator", "apply_fn", apply_fn, example)

    def taken(params, inputs):
        return _taken(apply_fn, where, gram, params, inputs)

    def init(params, /, *inputs):
        shapes = jax.eval_shape(taken, params, inputs)
        return jax.tree.map(lambda x: jnp.zeros(x.shape, x.dtype), shapes)

    def update(statistics, params, /, *inputs):
        more = taken(params, inputs)
        if jax.tree.structure(more) != jax.tree.structure(statistics):
            raise ValueError(
                "`calibrator(...).update(statistics, params, ...)`: the statistics must"
                f" be those of this function and its arguments, with {list(more.uses)};"
                f" got those of {list(statistics.uses)}. Pass what `init` of the same "
                "calibrator returned."
            )
        if axis_name is not None:
            more = jax.lax.psum(more, axis_name)
        return jax.tree.map(jnp.add, statistics, more)

    return Calibrator(init, update)


def _taken(apply_fn, where: tree.Where, gram: bool, params, inputs) -> Statistics:
    """Return the statistics of one batch."""
    flags = tree.named_leaves(
        tree.resolve(params, where, call="calibrator(..., where=...)")
    )
    wanted = {name for name, flag in flags.items() if flag}
    walk, found = walked(apply_fn, params, inputs, wanted, gram)
    sums: dict[str, tuple[Inputs, ...]] = {}
    uses: dict[str, tuple[Use, ...]] = {}
    for key, use in walk.uses.items():
        name = use.view.leaf
        sums[name] = (*sums.get(name, ()), found[key])
        uses[name] = (*uses.get(name, ()), use)
    missing = {
        name: walk.lost.get(name, "operand of no product")
        for name in flags
        if name in wanted - uses.keys()
    }
    return Statistics(
        inputs=sums, _uses=tuple(uses.items()), _missing=tuple(missing.items())
    )


def calibrate(
    apply_fn: Callable[..., Any],
    params: Params,
    batches: Iterable[Any],
    *,
    gram: bool = False,
    where: tree.Where = True,
) -> Statistics:
    """Return what the weights of a network see over batches of data.

    Runs the `update` of `calibrator`, compiled once for each shape of a batch.

    Args:
      apply_fn: `(params, *inputs) -> outputs`.
      params: a pytree of arrays.
      batches: an iterable of inputs; a tuple holds several inputs. They may be sharded.
      gram: see `calibrator`.
      where: see `calibrator`.

    Returns:
      The statistics.

    Raises:
      TypeError: `apply_fn` is no function.
      ValueError: there is no batch.

    Examples:
      >>> import jax.numpy as jnp
      >>> params = {"w": jnp.ones((2, 1))}
      >>> batches = [jnp.array([[3.0, 1.0]]), jnp.array([[4.0, 1.0]])]
      >>> statistics = calibrate(lambda p, x: x @ p["w"], params, batches)
      >>> print(statistics)
      leaf  shape  product      matrices  inputs  layout
      w     2x1    dot_general         1       2  as it is
    """
    check_callable(
        "calibrate", "apply_fn", apply_fn, "`lambda params, x: model.apply(params, x)`"
    )
    calibration = calibrator(apply_fn, gram=gram, where=where)
    update = jax.jit(calibration.update, donate_argnums=0)
    statistics = None
    for batch in batches:
        given = batch if isinstance(batch, tuple) else (batch,)
        if statistics is None:
            statistics = calibration.init(params, *given)
        statistics = update(statistics, params, *given)
    if statistics is None:
        raise ValueError(
            "`calibrate(batches)`: must hold at least one batch, got none. Pass a list "
            "of inputs; a generator can be read only once."
        )
    return statistics


def input_norms(statistics: Statistics, *, order: int = 2) -> dict[str, jax.Array]:
    """Return, for every weight, the size of the input that it multiplies.

        sqrt(sum_r x_ri^2)   or, of order 1,   mean_r |x_ri|

    over all rows of all uses of the leaf. A weight that no product sees gets 0.

    Args:
      statistics: from `calibrate`.
      order: 2 or 1.

    Returns:
      Leaf name to an array of the shape of the leaf, float32.

    Raises:
      ValueError: `order` is neither.

    Examples:
      >>> import jax.numpy as jnp
      >>> params, x = {"w": jnp.ones((2, 1))}, jnp.array([[3.0, 1.0], [-4.0, 1.0]])
      >>> statistics = calibrate(lambda p, x: x @ p["w"], params, [x])
      >>> input_norms(statistics, order=1)["w"].tolist()
      [[3.5], [1.0]]
    """
    if order not in (1, 2):
        raise ValueError(
            f"`input_norms(order={order!r})`: must be 1 or 2. Pass 2 for Euclidean "
            "norms, 1 for means of magnitudes."
        )
    found = {}
    for name, uses in statistics.uses.items():
        if order == 2:
            found[name] = jnp.sqrt(summed(uses, statistics.inputs[name], "square_sum"))
        else:
            total = summed(uses, statistics.inputs[name], "abs_sum")
            rows = summed(uses, statistics.inputs[name], "count")
            found[name] = total / jnp.maximum(rows, 1)
    return found


def summed(uses: tuple[Use, ...], inputs: tuple[Inputs, ...], field: str) -> jax.Array:
    """Return sums of the uses of a leaf, at the places of its weights.

    Args:
      uses: the uses of the leaf.
      inputs: their sums.
      field: which of them.
    """
    total: Any = 0
    for use, sums in zip(uses, inputs, strict=True):
        values = getattr(sums, field)
        values = values[..., None] if field == "count" else values
        covered = use.covered()
        rows = values.reshape(covered.shape[0], -1, 1)
        total += use.leaf(jnp.where(covered, rows, jnp.zeros_like(rows)))
    return total


def require(call: str, statistics: Any, names: Iterable[str]) -> None:
    """Refuse leaves of which no statistics were taken.

    Args:
      call: the public function that was called.
      statistics: from `calibrate`.
      names: the names of the leaves.

    Raises:
      TypeError: `statistics` are none.
      ValueError: a leaf has none, with the reason.
    """
    if not isinstance(statistics, Statistics):
        raise TypeError(
            f"`{call}(statistics={statistics!r})`: must be `Statistics`, got a "
            f"{type(statistics).__name__}. `calibrate(apply_fn, params, batches)` "
            "returns them."
        )
    for name in names:
        if name not in statistics.inputs:
            why = statistics.missing.get(name)
            known = f"It has none: {why}." if why else near(name, statistics.inputs)
            raise ValueError(
                f"`{call}(statistics)`: must know the inputs of leaf {name!r}. {known} "
                "Leave it out of `where`; `jaxprune.operands` selects what is "
                "multiplied with data."
            )
