"""Pruning layer by layer: each layer sees what the pruned layers before it compute."""

import dataclasses
from collections.abc import Callable, Iterable, Mapping
from fractions import Fraction
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxprune import tree
from jaxprune.base._checks import check_callable
from jaxprune.base._final import Final, FinalReport
from jaxprune.base._protocols import Params, Pruner
from jaxprune.calibration._statistics import Statistics, calibrator, require
from jaxprune.masks._apply import fill
from jaxprune.masks._distributions import Distribution, layer_counts, uniform
from jaxprune.methods._weights import network
from jaxprune.tree._selection import Selection


def layer_by_layer(
    method: Callable[..., Pruner],
    apply_fn: Callable[..., Any],
    params: Params,
    batches: Iterable[Any],
    *,
    keep_ratio: float | None = None,
    distribution: Distribution = uniform,
    gram: bool = False,
    where: tree.Where = tree.kernels,
) -> Final:
    """Prune one leaf after the other, with statistics of what is pruned so far.

        for each leaf l in the order of the program:
            statistics_l = calibrate(apply_fn, params, batches)
            params_l = prune(params_l, statistics_l)

    So SparseGPT makes up for errors of the layers before as well. Statistics are taken
    of one leaf at a time, which bounds the memory of Gram matrices by the widest layer.
    Leaves over whose layers a scan runs are pruned layer by layer. The batches are run
    once for each leaf, or layer of a scan.

    Args:
      method: `(statistics, where=...) -> Pruner`, such as `jaxprune.wanda` or
        `functools.partial(jaxprune.sparse_gpt, block_size=64)`.
      apply_fn: `(params, *inputs) -> outputs`.
      params: a pytree of arrays.
      batches: inputs, as for `jaxprune.calibrate`; they are held in a list.
      keep_ratio: the fraction of all selected weights to keep, in (0, 1]; None for a
        method with a size of its own, such as a pattern.
      distribution: how what is kept is divided among leaves.
      gram: whether the method needs Gram matrices.
      where: which leaves are pruned; the kernels by default.

    Returns:
      A `Final`: parameters, masks and a report.

    Raises:
      TypeError: `method` or `apply_fn` is no function.
      ValueError: there is no batch, or nothing is known of the inputs of a leaf; see
        also the method.

    Examples:
      >>> from jaxprune.methods import wanda
      >>> mlp = lambda params, x: jnp.tanh(x @ params["w1"]) @ params["w2"]
      >>> params = {"w1": jnp.array([[1.0, -3.0]]), "w2": jnp.array([[2.0], [1.0]])}
      >>> x = jnp.array([[1.0], [2.0]])
      >>> final = layer_by_layer(wanda, mlp, params, [x], keep_ratio=0.5)
      >>> final.params["w1"].tolist(), final.report.keep_ratio
      ([[1.0, 0.0]], 0.5)

    References:
      [SparseGPT] Frantar and Alistarh, arXiv:2301.00774, Sec. 4, "Setup".
    """
    call = "layer_by_layer"
    check_callable(call, "method", method, "`jaxprune.wanda`")
    check_callable(
        call, "apply_fn", apply_fn, "`lambda params, x: model.apply(params, x)`"
    )
    given = _listed(call, batches)
    net = network(call, params, where)
    params, arrays = net.params, net.arrays
    known = calibrator(apply_fn).init(params, *given[0])
    require(call, known, arrays)
    ratios = _ratios(arrays, keep_ratio, distribution)
    masks = {name: jnp.ones(leaf.shape, bool) for name, leaf in arrays.items()}

    def prune(params, name, layer, statistics):
        """Return the parameters with one leaf pruned, or one layer of it."""
        pruner = method(statistics, where=_only(where, params, name))
        kept = pruner.masks(params, {}, keep_ratio=ratios[name])
        weights = tree.named_leaves(pruner.final_weights(params, {}, kept))[name]
        mask, before = (tree.named_leaves(x)[name] for x in (kept, params))
        if layer is not None:
            mask = masks[name].at[layer].set(mask[layer])
            weights = before.at[layer].set(weights[layer])
        masks[name] = mask
        return tree.replace(params, {name: weights})

    for stage in _stages(known, arrays):
        collect = {
            name: _collector(apply_fn, params, name, gram) for name in stage.leaves
        }
        for layer in range(stage.layers) if stage.layers else [None]:
            for name in stage.leaves:
                params = prune(params, name, layer, collect[name](params, given))
    return Final(params, fill(params, masks, where), _report(masks))


def _listed(call: str, batches: Iterable[Any]) -> list[tuple[Any, ...]]:
    """Return the inputs of every batch."""
    given = [batch if isinstance(batch, tuple) else (batch,) for batch in batches]
    if not given:
        raise ValueError(
            f"`{call}(batches)`: must hold at least one batch, got none. Pass a list of"
            " inputs."
        )
    return given


def _ratios(
    arrays: Mapping[str, Any], keep_ratio: float | None, distribution: Distribution
) -> dict[str, Any]:
    """Return what each leaf keeps, exactly; None where the method has its own size."""
    if keep_ratio is None:
        return dict.fromkeys(arrays)
    shapes = {name: tuple(leaf.shape) for name, leaf in arrays.items()}
    counts = layer_counts(shapes, keep_ratio=keep_ratio, distribution=distribution)
    return {name: Fraction(counts[name], arrays[name].size) for name in counts}


@dataclasses.dataclass(frozen=True)
class _Stage:
    """Leaves that are pruned in turns.

    Attributes:
      leaves: their names.
      layers: the number of layers of the scan that runs over all of them, 0 if none.
    """

    leaves: tuple[str, ...]
    layers: int


def _stages(statistics: Statistics, wanted: Iterable[str]) -> list[_Stage]:
    """Return leaves in the order of the program, those of one scan together."""
    wanted = set(wanted)
    found: list[tuple[Any, _Stage]] = []
    for name, uses in statistics.uses.items():
        if name not in wanted:
            continue
        firsts = {use.view.steps[0].scan if use.view.steps else None for use in uses}
        scan = firsts.pop() if len(firsts) == 1 else None
        if scan is not None and found and found[-1][0] is scan:
            before = found[-1][1]
            stage = dataclasses.replace(before, leaves=(*before.leaves, name))
            found[-1] = (scan, stage)
        else:
            layers = 0 if scan is None else uses[0].view.shape[0]
            found.append((scan, _Stage((name,), layers)))
    return [stage for _, stage in found]


def _collector(apply_fn, params, name: str, gram: bool) -> Callable[..., Statistics]:
    """Return a function that takes the statistics of one leaf; compiled once."""
    calibration = calibrator(apply_fn, gram=gram, where=_flags(params, name))
    update = jax.jit(calibration.update, donate_argnums=0)

    def collect(params, batches):
        statistics = calibration.init(params, *batches[0])
        for batch in batches:
            statistics = update(statistics, params, *batch)
        return statistics

    return collect


def _flags(params, name: str) -> Any:
    return jax.tree.map(lambda known: known == name, tree.names(params))


def _only(where: tree.Where, params, name: str) -> tree.Where:
    """Return the selection of one leaf, with what `where` says of it beside."""
    flags = _flags(params, name)
    if not isinstance(where, Selection):
        return flags
    return dataclasses.replace(where, where=flags, exclude=())


def _report(masks) -> FinalReport:
    kept = {name: int(np.count_nonzero(mask)) for name, mask in masks.items()}
    total = sum(mask.size for mask in masks.values())
    return FinalReport(
        keep_ratio=sum(kept.values()) / max(total, 1),
        own_keep_ratio=None,
        costs={},
        limits={},
        emptied=tuple(name for name, number in kept.items() if not number),
    )
