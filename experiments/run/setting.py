"""What stays the same from step to step of a run: data, network, method."""

import dataclasses
import functools
import math
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.experimental import multihost_utils

import jaxprune
from experiments import data, models
from experiments.plans import channels
from experiments.plans.method import (
    Config,
    Task,
    channel_limits,
    check_feasible,
    target_keep_ratio,
)
from experiments.run import latencies, parallel, spikes
from experiments.run.network import Evaluator, Network, Score
from experiments.run.steps import make_count_correct, make_loss, make_total_nats

# Up to so many classes the five best guesses say nothing.
_FEW_CLASSES = 100
_BIT = math.log(2)  # in nats


@dataclasses.dataclass(frozen=True, kw_only=True)
class Setting:
    """What stays the same from step to step."""

    config: Config  # see `experiments/configs/default.py`
    workdir: Path  # the folder of the run
    parallel: parallel.Parallel  # how a step is spread over devices
    dataset: data.Dataset  # train and test data
    # Endless iterators over training batches: `train`, all of them, or, where some are
    # held out, `weights` and `held_out` beside it.
    streams: dict[str, Any]
    network: Network  # the dense network
    init: Callable[[], dict[str, Any]]  # `() -> variables`, the initialised network
    evaluator: Evaluator  # `model -> evaluate`
    # Of a network that sends spikes, what counts them; else None.
    spikes: spikes.Counter | None
    task: Task  # what a method knows, but for the length of its phase
    # On the costs of channels, by name; empty if weights are pruned.
    limits: dict[str, float]
    # The keep ratio to finalize to, or None where a penalty weight decides.
    keep_ratio: float | None


def prepare(
    config: Config, workdir: Path, dataset: data.Dataset | None = None
) -> Setting:
    """Builds everything that a run needs, and checks the config; writes nothing."""
    ways = parallel.create(config.run.parallel)
    _check_batches(config)
    dataset = dataset or data.load(config.data.name, data_dir=config.data.dir)
    dataset = _evaluated_on(config.data.eval_split, dataset)
    test = _test_batches(config, dataset)
    model = functools.partial(
        models.create, config.model, dataset.spec.num_classes, dtype=config.dtype
    )
    # Initialisation and evaluation take global arrays, whatever the step takes.
    unmapped = model()
    image = next(iter(test))["image"][:1]
    init, blank = _initialisation(config, unmapped, image)
    limits, keep_ratio = channel_limits(config), target_keep_ratio(config)
    check_feasible(config, keep_ratio, blank[0])
    training, held_out = _held_out(config, dataset)
    streams = {"train": _batches(config, dataset)}
    if held_out is not None:
        streams["weights"] = _batches(config, training)
        streams["held_out"] = _batches(config, held_out)
    judged = dataclasses.replace(dataset, test=(held_out or training).train)
    evaluator = functools.partial(_evaluator, test, dataset)
    judge = _evaluator(_test_batches(config, judged), judged, unmapped)
    sign, sample = dataset.spec.measure.sign, _sample(config, training)
    return Setting(
        config=config,
        workdir=workdir,
        parallel=ways,
        dataset=dataset,
        streams=streams,
        network=Network(
            model(axis_name=ways.axis_name), *blank, evaluate=evaluator(unmapped)
        ),
        init=init,
        evaluator=evaluator,
        spikes=spikes.counter(unmapped, test, parallel.create("jit").shard),
        task=Task(
            params=blank[0],
            first_step=0,
            steps=0,
            steps_per_epoch=len(dataset.train) // config.data.batch_size,
            loss=make_loss(unmapped, blank[1], sample),
            channels=_traced(
                config, limits, workdir, model, ways.axis_name, blank, image
            ),
            judge=lambda *network: sign * judge(*network).value,
            sample=sample,
        ),
        limits=limits,
        keep_ratio=keep_ratio,
    )


def _initialisation(config: Config, model: Any, image: np.ndarray):
    """`() -> variables`, and parameters and statistics of their shapes, all zero."""
    init = jax.jit(
        lambda: model.init(
            jax.random.key(config.seed), jnp.zeros_like(image), train=False
        )
    )
    shapes = jax.eval_shape(init)
    # Zeros on the host need no program for each shape.
    zeros = jax.tree.map(lambda x: np.zeros(x.shape, x.dtype), shapes)
    return init, (zeros["params"], zeros.get("batch_stats", {}))


def _check_batches(config: Config) -> None:
    for field in ("batch_size", "eval_batch_size"):
        size = config.data[field]
        if size % jax.device_count():
            raise ValueError(
                f"`config.data.{field}={size}` must be a multiple of the number of "
                f"devices, {jax.device_count()}."
            )
    size, parts = config.data.batch_size, config.data.batch_parts
    if size % (jax.device_count() * parts):
        raise ValueError(
            f"`config.data.batch_parts={parts}` must divide `config.data.batch_size="
            f"{size}` into parts that are multiples of the number of devices, "
            f"{jax.device_count()}. Change either."
        )


def _evaluated_on(split: str, dataset: data.Dataset) -> data.Dataset:
    """The data with the split of the config in the place of the test split."""
    if split == "test":
        return dataset
    if dataset.validation is None:
        raise ValueError(
            f"`config.data.eval_split={split!r}`: the data set "
            f"{dataset.spec.name!r} has no such split. Use 'test'."
        )
    return dataclasses.replace(dataset, test=dataset.validation)


def _process() -> dict[str, int]:
    return {
        "process_index": jax.process_index(),
        "process_count": jax.process_count(),
    }


def _test_batches(config: Config, dataset: data.Dataset) -> Iterable[data.Batch]:
    return data.test_batches(
        dataset,
        batch_size=config.data.eval_batch_size // jax.process_count(),
        image_size=config.data.image_size or None,
        **_process(),
    )


def _batches(config: Config, dataset: data.Dataset) -> Any:
    """Endless training batches."""
    return data.train_batches(
        dataset,
        batch_size=config.data.batch_size // jax.process_count(),
        seed=config.seed,
        image_size=config.data.image_size or None,
        augment=config.data.augment,
        **_process(),
    )


def _sample(config: Config, dataset: data.Dataset) -> Callable[[], Any]:
    """`() -> batch`, several batches in one for scores of weights; made once."""

    @functools.cache
    def sample():
        batches = _batches(config, dataset)
        several = [next(batches) for _ in range(config.method.score_batches)]
        joined = jax.tree.map(lambda *x: np.concatenate(x), *several)
        if jax.process_count() > 1:
            # A loss may close over no array that spans processes; each holds it whole.
            return multihost_utils.process_allgather(joined, tiled=True)
        return parallel.create("jit").shard(joined)

    if jax.process_count() > 1 and "score_batches" in config.method:
        sample()  # processes meet outside of what is compiled
    return sample


def _evaluator(
    batches: Iterable[data.Batch], dataset: data.Dataset, model: Any
) -> Callable[[Any, Any], Score]:
    """`params, batch_stats -> score` over batches of the test data."""
    spec, size = dataset.spec, dataset.test_size
    shard = parallel.create("jit").shard
    measured = jax.jit((make_total_nats if spec.is_text else make_count_correct)(model))

    def evaluate(params, batch_stats):
        parts = [measured(params, batch_stats, shard(b)) for b in batches]
        found = np.asarray(jax.device_get(parts), np.float64).sum(axis=0)
        if spec.is_text:
            return Score(float(found) / (size * math.prod(spec.label_shape) * _BIT))
        few = spec.num_classes <= _FEW_CLASSES
        top1, top5 = (found / size).tolist()
        return Score(top1, None if few else top5)

    return evaluate


def _traced(config, limits, workdir: Path, model, axis_name, blank, image):
    """The channels of the network with what they cost; None if weights are pruned."""
    if not limits:
        return None
    traced = channels.trace(
        model(),
        blank,
        image,
        trained=model(axis_name=axis_name),
        axis_sizes={axis_name: jax.device_count()} if axis_name else None,
    )
    if "latency" in limits:
        traced = latencies.with_latency(traced, config, workdir)
    # Refuses now what could not be met after all the training.
    jaxprune.channels.round_to_limits(
        traced.graph,
        {},
        traced.limits(limits),
        multiple_of=config.budget.channel_multiple,
    )
    return traced


def _held_out(
    config: Config, dataset: data.Dataset
) -> tuple[data.Dataset, data.Dataset | None]:
    """The data that weights are trained on, and the rest, None if nothing is."""
    if not config.data.held_out:
        return dataset, None
    weights, held_out = hold_out(config, dataset.train_size)

    def part(indices):
        chosen = data.Subset(dataset.train, indices)
        return dataclasses.replace(dataset, train=chosen)

    return part(weights), part(held_out)


def hold_out(config: Config, size: int) -> tuple[np.ndarray, np.ndarray]:
    """The training examples that weights see before the size is found, and the rest.

    Returns:
      Positions in the training set, in order, of both.

    Raises:
      ValueError: the rest is smaller than a batch.
    """
    count = round(config.data.held_out * size)
    if count < config.data.batch_size:
        raise ValueError(
            f"`config.data.held_out={config.data.held_out}` leaves {count} examples, "
            "fewer than one batch of "
            f"`config.data.batch_size={config.data.batch_size}`. Hold out more, or "
            "use smaller batches."
        )
    order = np.random.default_rng(config.seed).permutation(size)
    return np.sort(order[count:]), np.sort(order[:count])
