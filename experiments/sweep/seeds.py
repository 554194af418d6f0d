"""One config with many seeds in one program, for networks that train in seconds.

The phases, plans and the training step are those of `train`; so are the initial weights
and the batches of a seed, whatever the method. What differs: seeds are a mapped axis of
one compiled loop over all steps of a phase, the data are arrays on the device, and
nothing is saved on the way. What is decided once (masks, numbers of channels) is
decided seed by seed, on the host. Compact networks, whose shapes differ between seeds,
are fine-tuned one after the other.
"""

import dataclasses
import functools
import io
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import grain
import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn

import jaxprune
from experiments import data
from experiments.logging.files import write_atomically
from experiments.plans import channels, optimizers
from experiments.plans.method import Config, Plan
from experiments.run import advance, config_check, phases, trail
from experiments.run.hooks import NonFiniteLossError
from experiments.run.network import Network, compact, nonzero_masks
from experiments.run.phases import Phase
from experiments.run.setting import Setting, hold_out, prepare
from experiments.run.steps import (
    Step,
    TrainState,
    init_state,
    make_count_correct,
    make_search_step,
    make_train_step,
)

_EVALUATED_AT_ONCE = 1_000


class Result(NamedTuple):
    """What the seeds of a config ended in."""

    # For every seed, its numbers as JSON values; see `run_seeds`.
    rows: list[dict[str, Any]]
    # For every seed, its final parameters and batch statistics.
    networks: list[tuple[Any, Any]]
    seconds: float  # how long all took together, compilation included


class _Data(NamedTuple):
    """The data, as arrays."""

    images: jax.Array  # of the training set, normalised, (N, ...)
    labels: jax.Array  # int32, (N,)
    splits: dict[str, data.Batch]  # batches for evaluation, stacked, by split
    sizes: dict[str, int]  # the number of examples of these splits


class _Part(NamedTuple):
    """Seeds whose networks have the same shapes, so that they train together."""

    settings: tuple[Setting, ...]  # of every seed
    phases: tuple[dict[str, Phase], ...]  # of every seed, by name
    # The positions of training examples that each stream gives, int32, with axes of
    # seeds, batches and the batch.
    orders: dict[str, np.ndarray]
    network: Network
    weights: tuple[Any, Any]  # parameters and batch statistics, with an axis of seeds
    masks: Any  # of the fine-tuning, with the same axis; None before
    rows: list[dict[str, Any]]  # of every seed

    def one(self, seed: int) -> "_Part":
        """The part of one seed, by its position."""
        here = slice(seed, seed + 1)
        arrays = self.orders, self.weights, self.masks
        orders, weights, masks = jax.tree.map(lambda x: x[here], arrays)
        return self._replace(
            settings=self.settings[here],
            phases=self.phases[here],
            orders=orders,
            weights=weights,
            masks=masks,
            rows=self.rows[here],
        )

    def plan(self, name: str, seed: int = 0) -> Plan:
        """How a seed, by its position, trains in a phase, by its name."""
        return self.phases[seed][name].plan(self.network)


def run_seeds(
    config: Config,
    seeds: Sequence[int],
    dataset: data.Dataset,
    *,
    test: bool = False,
) -> Result:
    """Train and prune with several seeds at once.

    Args:
      config: see `experiments/configs/default.py`; its own seed is not used.
      seeds: distinct whole numbers.
      dataset: what `data.load` returned; examples in memory, with a validation split.
      test: whether the final networks are evaluated on the test split too. Every
        choice is made on the validation split.

    Returns:
      A row for every seed: `seed`; `validation`, and `test` if it is read, the accuracy
      of the final network, a fraction; `dense`, `soft` and `hard`, its validation
      accuracy before pruning, before and after the final decision, where there is one;
      `own_keep_ratio`, what the method itself kept before it; `kept_weights` and
      `total_weights`; `layers`, counts by leaf or by group; `costs` of a compact
      network; `result` of the budget.

    Raises:
      ValueError: the config or the data set does not fit.
      NonFiniteLossError: the loss of a seed is not finite.
    """
    _check(config, seeds, dataset)
    begin = time.monotonic()
    given = _arrays(dataset, test)
    first = _first_part(config, seeds, dataset, given)
    parts = [first]
    for name in first.phases[0]:
        parts = [p for part in parts for p in _run_phase(given, part, name, first)]
    rows, networks = [], []
    for part in parts:
        rows += _final_rows(given, part)
        networks += [
            jax.tree.map(lambda x, i=i: np.asarray(x[i]), part.weights)
            for i in range(len(part.rows))
        ]
    return Result(rows, networks, time.monotonic() - begin)


def _check(config: Config, seeds: Sequence[int], dataset: data.Dataset) -> None:
    """Refuse what is not valid, or what arrays on the device cannot stand for."""
    config_check.check(config)
    if not seeds or len({*seeds}) < len(seeds):
        raise ValueError(
            f"`run_seeds(seeds={list(seeds)})`: must be distinct, and at least one."
        )
    spec = dataset.spec
    augmented = config.data.augment and spec.train_view is not None
    if augmented or not spec.in_memory or config.data.image_size or spec.is_text:
        raise ValueError(
            f"`run_seeds(config, ...)`: {spec.name!r} is augmented, resized, a text or "
            "too large to be one array. Use `train`, seed by seed."
        )
    if dataset.validation is None:
        raise ValueError(
            f"`run_seeds(dataset={spec.name!r})`: there is no validation split, on "
            "which choices are made. Use `mnist1d`, or `train`, seed by seed."
        )
    unread = {
        "phases.pretrained": config.phases.pretrained,
        "budget.latency": config.budget.get("latency"),
    }
    for name, value in unread.items():
        if value:
            raise ValueError(
                f"`config.{name}={value!r}`: `run_seeds` does not read it. Leave it "
                "out, or use `train`, seed by seed."
            )


def _arrays(dataset: data.Dataset, test: bool) -> _Data:
    """Put the data on the device; the test split only if it is read."""

    def stacked(source, at_once) -> Any:
        batches = data.test_batches(
            dataclasses.replace(dataset, test=source),
            batch_size=min(at_once, len(source)),
        )
        return jax.tree.map(lambda *x: np.stack(x), *batches)

    train = stacked(dataset.train, len(dataset.train))
    sources: dict[str, Any] = {"validation": dataset.validation}
    if test:
        sources["test"] = dataset.test
    return _Data(
        images=jnp.asarray(train["image"][0]),
        labels=jnp.asarray(train["label"][0]),
        splits={n: stacked(s, _EVALUATED_AT_ONCE) for n, s in sources.items()},
        sizes={n: len(s) for n, s in sources.items()},
    )


def _first_part(config, seeds, dataset: data.Dataset, given: _Data) -> _Part:
    """Every seed with its initial network."""
    settings = []
    for seed in seeds:
        own = config.copy_and_resolve_references()
        own.seed = seed
        settings.append(prepare(own, Path(), dataset))
    parts = [{p.name: p for p in phases.make(setting)} for setting in settings]
    orders = [_orders(*pair) for pair in zip(settings, parts, strict=True)]
    network = settings[0].network
    return _Part(
        settings=tuple(settings),
        phases=tuple(parts),
        orders=jax.tree.map(lambda *x: np.stack(x), *orders),
        network=network,
        weights=_initial(network.model, tuple(seeds), given.images.shape[1:]),
        masks=None,
        rows=[{"seed": seed} for seed in seeds],
    )


@functools.lru_cache(maxsize=4)
def _initial(model: nn.Module, seeds: tuple[int, ...], shape: tuple[int, ...]) -> Any:
    """The initial networks, the same for every method."""

    def initial(seed):
        blank = jnp.zeros((1, *shape))
        network = model.init(jax.random.key(seed), blank, train=False)
        return network["params"], network.get("batch_stats", {})

    return jax.jit(jax.vmap(initial))(jnp.asarray(seeds))


def _orders(setting: Setting, parts: dict[str, Phase]) -> dict[str, np.ndarray]:
    """The positions of the training examples that each stream gives, in batches."""
    config, size = setting.config, len(setting.dataset.train)
    taken: dict[str, int] = dict.fromkeys(("train", "weights", "held_out"), 0)
    for name, phase in parts.items():
        search = phase.plan(setting.network).search
        if search:
            turns = phase.end // search.every - phase.begin // search.every
            taken["held_out"] += turns
        own = config.data.held_out and name != "finetune"
        taken["weights" if own else "train"] += phase.end - phase.begin
    sources = {"train": np.arange(size, dtype=np.int32)}
    if config.data.held_out:
        sources["weights"], sources["held_out"] = hold_out(config, size)
    folder = Path(config.data.dir) / "orders"
    orders = {}
    for name, source in sources.items():
        count = taken[name] * config.data.batch_size
        order = _positions(folder, len(source), config.seed, count)
        orders[name] = source[order].reshape(-1, config.data.batch_size)
    return orders


@functools.cache
def _positions(folder: Path, size: int, seed: int, count: int) -> np.ndarray:
    """The order of `data.train_positions`, which takes seconds: kept on disk."""
    file = folder / f"{size}_{seed}_grain_{grain.__version__}.npy"
    known = np.load(file) if file.exists() else np.empty(0, np.int32)
    if len(known) < count:
        known = data.train_positions(size, seed=seed, count=count)
        folder.mkdir(parents=True, exist_ok=True)
        buffer = io.BytesIO()
        np.save(buffer, known)
        write_atomically(file, buffer.getvalue())
    return known[:count]


def _run_phase(given: _Data, part: _Part, name: str, first: _Part) -> list[_Part]:
    """Train through a phase, and decide at its end what it decides."""
    if name == "finetune" and part.masks is None:
        part = part._replace(masks=jax.vmap(nonzero_masks)(part.weights[0]))
    state, keep_ratios = _train(given, part, name)
    state = state.with_average()
    part = part._replace(weights=(state.params, state.batch_stats))
    if name == "dense":
        _note(part, "dense", _accuracies(given, part, part.weights))
    if name != "prune":
        return [part]
    plan = part.plan(name)
    soft = jax.vmap(phases.make_pruned(plan, part.phases[0][name]))(state)
    _note(part, "soft", _accuracies(given, part, (soft, state.batch_stats)))
    _note(part, "own_keep_ratio", keep_ratios[:, -1])
    for i, row in enumerate(part.rows):
        row["result"] = phases.result_of(_one(state, i))
    seeds = range(len(part.rows))
    if plan.allocate is None:
        decided = [_cut_weights(part, state, first)]
    else:
        decided = [
            _cut_channels(part.one(i), _one(state, i), first.one(i)) for i in seeds
        ]
    for one in decided:
        if not one.settings[0].config.phases.rewind:
            _note(one, "hard", _accuracies(given, one, one.weights))
    return decided


def _train(given: _Data, part: _Part, name: str) -> tuple[TrainState, np.ndarray]:
    """Train all seeds through a phase: the states, and keep ratios at every step."""
    phase = part.phases[0][name]
    steps = np.arange(phase.begin, phase.end)
    orders, held_out = _phase_orders(part, phase)
    variables = _variables(part, name)

    def train(arrays, seed, weights, variables, masks, orders, held_out):
        plan = _plan(part, phase, masks)
        params, batch_stats = weights
        state = init_state(plan, params, batch_stats, phase.begin)
        state = state._replace(variables=variables)
        body = _make_body(part, phase, plan, seed, *arrays)
        return jax.lax.scan(body, state, (steps, orders, held_out))

    seeds = jnp.asarray([one.config.seed for one in part.settings])
    arrays = given.images, given.labels
    state, keep_ratios = jax.jit(jax.vmap(train, in_axes=(None, *[0] * 6)))(
        arrays, seeds, part.weights, variables, part.masks, orders, held_out
    )
    for one, step in zip(part.settings, np.asarray(state.bad_step), strict=True):
        if step >= 0:
            raise NonFiniteLossError(
                f"`run_seeds`: the loss of seed {one.config.seed} is not finite at "
                f"step {step + 1}. Lower `config.optimizer.learning_rate`."
            )
    return state, np.asarray(keep_ratios)


def _plan(part: _Part, phase: Phase, masks: Any) -> Plan:
    """How a phase trains, once it is traced with its masks."""
    if masks is None:
        return phase.plan(part.network)
    setting = part.settings[0]
    steps = phase.end - phase.begin
    task = setting.task._replace(first_step=phase.begin, steps=steps)
    return optimizers.finetune(setting.config, task, masks)


def _variables(part: _Part, name: str) -> Any:
    """What the pruner learns at the first step: its own for every seed."""
    found = [
        part.plan(name, i).pruner.init(_one(part.weights[0], i))
        for i in range(len(part.rows))
    ]
    return jax.tree.map(lambda *x: jnp.stack(x), *found)


def _make_body(part: _Part, phase: Phase, plan: Plan, seed, images, labels):
    """Return the body of the loop: a step, and one of the search where it is due."""
    setting = part.settings[0]
    step = Step(
        parts=setting.config.data.batch_parts,
        model=part.network.model,
        plan=plan,
        size_cost=advance.size_cost(setting, part.network, plan),
        first_step=phase.begin,
        seed=seed,
        label_smoothing=setting.config.optimizer.label_smoothing,
    )
    train_step = make_train_step(step)
    search_step: Any = plan.search and make_search_step(step)

    def batch(positions):
        return {"image": images[positions], "label": labels[positions]}

    def body(state, inputs):
        number, positions, held_out = inputs
        state, metrics = train_step(state, batch(positions))
        if plan.search:
            state = jax.lax.cond(
                (number + 1) % plan.search.every == 0,
                lambda s: search_step(s, batch(held_out))[0],
                lambda s: s,
                state,
            )
        return state, metrics["keep_ratio"]

    return body


def _phase_orders(part: _Part, phase: Phase) -> tuple[np.ndarray, np.ndarray]:
    """The batches of each step, of the weights and of the search, as positions."""
    orders, plan = part.orders, phase.plan(part.network)
    name = "train"
    begin = phase.begin
    if "weights" in orders:
        name = "train" if phase.is_decided else "weights"
        begin = 0 if phase.is_decided else begin
    mine = orders[name][:, begin : begin + phase.end - phase.begin]
    if not plan.search:
        return mine, mine
    numbers = np.arange(phase.begin, phase.end)
    # The batch of a step without a search is not used.
    turns = (numbers + 1) // plan.search.every - phase.begin // plan.search.every - 1
    return mine, orders["held_out"][:, np.maximum(turns, 0)]


def _cut_weights(part: _Part, state: TrainState, first: _Part) -> _Part:
    """Decide which weights are kept, as the end of the pruning phase does."""
    keep_ratio = part.settings[0].keep_ratio

    def masks_of(i: int) -> Any:
        one, pruner = _one(state, i), part.plan("prune", i).pruner
        assert isinstance(pruner, jaxprune.Pruner)
        return pruner.masks(one.params, one.variables, keep_ratio=keep_ratio)

    found = [masks_of(i) for i in range(len(part.rows))]
    masks = jax.tree.map(lambda *x: jnp.stack(x), *found)
    if part.settings[0].config.phases.rewind:
        params, batch_stats = first.weights
        params = jax.vmap(jaxprune.apply_masks)(params, masks)
    else:
        pruner: Any = part.plan("prune").pruner
        final_weights = jax.jit(jax.vmap(pruner.final_weights))
        params = final_weights(state.params, state.variables, masks)
        batch_stats = state.batch_stats
    return part._replace(weights=(params, batch_stats), masks=masks)


def _cut_channels(part: _Part, state: TrainState, first: _Part) -> _Part:
    """Decide how many channels one seed keeps, and make its compact network."""
    (setting,) = part.settings
    known, plan = setting.task.channels, part.plan("prune")
    assert plan.allocate is not None
    assert known is not None
    masks = plan.allocate(state)
    if setting.config.phases.rewind:
        dense = _one(first.weights, 0)
    else:
        dense = phases.final_weights(plan, state, masks), state.batch_stats
    small, (cut,) = compact(known, setting.evaluator, masks, dense)
    part.rows[0]["costs"] = known.reached(masks)
    part.rows[0]["layers"] = {
        name: {"size": len(mask), "kept": int(mask.sum())}
        for name, mask in masks.items()
    }
    weights = jax.tree.map(lambda x: jnp.asarray(x)[None], cut)
    return part._replace(network=small, weights=weights)


def _final_rows(given: _Data, part: _Part) -> list[dict[str, Any]]:
    """Evaluate and count the final networks of a part."""
    for split in given.splits:
        _note(part, split, _accuracies(given, part, part.weights, split))
    dense = part.settings[0].network.params
    for i, row in enumerate(part.rows):
        params = _one(part.weights[0], i)
        layers = trail.layers_of(params, nonzero_masks(params))
        row["kept_weights"] = sum(layer["kept"] for layer in layers.values())
        row["total_weights"] = sum(jaxprune.tree.sizes(dense).values())
        row.setdefault("layers", layers)
    return part.rows


def _accuracies(
    given: _Data, part: _Part, weights: Any, split: str = "validation"
) -> np.ndarray:
    """The accuracy of every network of a part, a fraction."""
    model = part.network.model
    # A compact model differs from one seed to the next; others are compiled once.
    of_model = _correct if isinstance(model, channels.CompactModel) else _correct_again
    correct = of_model(model)(weights, given.splits[split])
    return np.asarray(correct) / given.sizes[split]


def _correct(model: Any):
    """Returns `weights, batches -> counts`, compiled."""
    count_correct = make_count_correct(model)

    def correct(weights, batches):
        params, batch_stats = weights
        counts = jax.lax.map(lambda b: count_correct(params, batch_stats, b), batches)
        return jnp.sum(counts[:, 0])

    return jax.jit(jax.vmap(correct, in_axes=(0, None)))


_correct_again = functools.lru_cache(maxsize=4)(_correct)


def _note(part: _Part, name: str, values: np.ndarray) -> None:
    for row, value in zip(part.rows, values, strict=True):
        row[name] = float(value)


def _one(tree: Any, seed: int) -> Any:
    """What belongs to one seed, without the axis of seeds."""
    return jax.tree.map(lambda x: x[seed], tree)
