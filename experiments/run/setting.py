"""What stays the same from step to step of a run: data, network, method, phases."""

import dataclasses
import functools
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

import jaxprune
from experiments import data, models
from experiments.plans import channels, weight_plans
from experiments.run import latencies, parallel
from experiments.run.steps import Plan, make_count_correct, make_loss


class Phase(NamedTuple):
    """A part of a run: the steps from `begin` to before `end`."""

    name: str
    begin: int
    end: int


@dataclasses.dataclass(frozen=True, kw_only=True)
class Setting:
    """What stays the same from step to step.

    Attributes:
      config: see `experiments/configs/default.py`.
      workdir: the folder of the run.
      parallel: how a step is spread over devices.
      dataset: train and test data.
      streams: endless iterators over training batches: `train`, all of them, or,
        where some are held out, `weights` and `held_out` beside it.
      model: the module that is trained.
      init: `() -> variables`, the initialised network.
      blank: parameters and statistics of the right shapes, all zero.
      evaluator: `model -> evaluate`.
      evaluate: `params, batch_stats -> accuracy` on the test data, a fraction.
      task: what a method is told, but for the length of its phase.
      keep_ratio: the keep ratio to finalize to, or None where a penalty weight decides.
      phases: the phases that are not empty.
    """

    config: weight_plans.Config
    workdir: Path
    parallel: parallel.Parallel
    dataset: data.Dataset
    streams: dict[str, Any]
    model: Any
    init: Callable[[], dict[str, Any]]
    blank: tuple[Any, Any]
    evaluator: Callable[[Any], Callable[[Any, Any], float]]
    evaluate: Callable[[Any, Any], float]
    task: weight_plans.Task
    keep_ratio: float | None
    phases: tuple[Phase, ...]

    def plan(self, phase: Phase, masks: Any = None) -> Plan:
        """How a phase trains.

        Args:
          phase: one of `phases`.
          masks: of the fine-tuning; for shapes alone they are not needed.
        """
        config, params = self.config, self.blank[0]
        steps = phase.end - phase.begin
        task = self.task._replace(first_step=phase.begin, steps=steps)
        if phase.name == "dense":
            return weight_plans.dense(config, task, config.learning_rate)
        if phase.name == "prune":
            return config.plan(config, task)
        if masks is None:  # The state holds the masks.
            masks = _zeros(jax.eval_shape(nonzero_masks, params))
        return weight_plans.finetune(config, task, masks)


def prepare(config: weight_plans.Config, workdir: Path) -> Setting:
    """Builds everything that a run needs, and checks the config; writes nothing."""
    ways = parallel.create(config.parallel)
    for field in ("batch_size", "eval_batch_size"):
        if config[field] <= 0 or config[field] % jax.device_count():
            raise ValueError(
                f"`config.{field}={config[field]}` must be a positive multiple of the "
                f"number of devices, {jax.device_count()}."
            )
    process = {
        "process_index": jax.process_index(),
        "process_count": jax.process_count(),
    }
    dataset = data.load(config.dataset, data_dir=config.data_dir)
    test = data.test_batches(
        dataset,
        batch_size=config.eval_batch_size // jax.process_count(),
        image_size=config.image_size or None,
        **process,
    )
    model = functools.partial(models.create, config.model, dataset.spec.num_classes)
    # Initialisation and evaluation see global arrays, whatever the step sees.
    unmapped = model()
    image_shape = next(iter(test))["image"].shape[1:]
    init = jax.jit(
        lambda: unmapped.init(
            jax.random.key(config.seed), jnp.zeros((1, *image_shape)), train=False
        )
    )
    shard = parallel.create("jit").shard

    def evaluator(model, batches=test, size=dataset.test_size):
        count_correct = jax.jit(make_count_correct(model))

        def evaluate(params, batch_stats):
            counts = [count_correct(params, batch_stats, shard(b)) for b in batches]
            return int(np.sum(jax.device_get(counts))) / size

        return evaluate

    zeros = _zeros(jax.eval_shape(init))
    blank = (zeros["params"], zeros.get("batch_stats", {}))
    weight_plans.check_feasible(config, blank[0])
    training, held_out = _held_out(config, dataset)
    batches_of = functools.partial(
        data.train_batches,
        batch_size=config.batch_size // jax.process_count(),
        seed=config.seed,
        image_size=config.image_size or None,
        augment=config.augment,
        **process,
    )

    @functools.cache
    def sample():
        batches = batches_of(training)
        several = [next(batches) for _ in range(config.score_batches)]
        return shard(jax.tree.map(lambda *x: np.concatenate(x), *several))

    streams = {"train": batches_of(dataset)}
    judged = training
    if held_out is not None:
        streams |= {"weights": batches_of(training), "held_out": batches_of(held_out)}
        judged = held_out
    judging = data.test_batches(
        dataclasses.replace(dataset, test=judged.train),
        batch_size=config.eval_batch_size // jax.process_count(),
        image_size=config.image_size or None,
        **process,
    )
    setting = Setting(
        config=config,
        workdir=workdir,
        parallel=ways,
        dataset=dataset,
        streams=streams,
        model=model(axis_name=ways.axis_name),
        init=init,
        blank=blank,
        evaluator=evaluator,
        evaluate=evaluator(unmapped),
        task=weight_plans.Task(
            params=blank[0],
            first_step=0,
            steps=0,
            steps_per_epoch=len(dataset.train) // config.batch_size,
            loss=make_loss(unmapped, blank[1], sample),
            channels=_traced(config, workdir, unmapped, blank, image_shape),
            judge=evaluator(unmapped, judging, judged.train_size),
        ),
        keep_ratio=weight_plans.target_keep_ratio(config),
        phases=_phases(config, len(dataset.train) // config.batch_size),
    )
    _check_budget(config, setting)
    return setting


def _check_budget(config: weight_plans.Config, setting: Setting) -> None:
    """Refuse limits that no phase would hold, which `config_check` cannot know.

    It does not know plans that are defined elsewhere, nor the steps of an epoch.
    """
    pruning = [setting.plan(p) for p in setting.phases if p.name == "prune"]
    limits = weight_plans.channel_budget(config)
    if not limits or any(plan.allocate is not None for plan in pruning):
        return
    name = next(iter(limits))
    reason = (
        f"`config.plan={config.plan.__name__}` prunes single weights, and a budget "
        "limits channels. Set `config.sparsity`, or choose a plan that prunes "
        "channels, such as that of `digits/dsa`."
        if pruning
        else f"`config.prune_epochs={config.prune_epochs}` leaves the pruning out. "
        "Lengthen it, or leave the limit out."
    )
    raise ValueError(f"`config.budget.{name}={limits[name]}`: {reason}")


def _zeros(shapes: Any) -> Any:
    """Zeros on the host, which need no program for each shape."""
    return jax.tree.map(lambda x: np.zeros(x.shape, x.dtype), shapes)


@jax.jit
def nonzero_masks(params: Any) -> Any:
    """What is left of the prunable leaves; a bias that is zero is not pruned."""
    return jaxprune.nonzero_masks(params)


def _traced(config, workdir: Path, model, blank, image_shape):
    """The channels of the network with what they cost; None if weights are pruned."""
    budget = weight_plans.channel_budget(config)
    if not budget:
        return None
    if config.parallel == "pmap":
        raise ValueError(
            "`config.parallel='pmap'`: the compact network is traced without a mapped "
            "axis. Use `jit`, which is as parallel."
        )
    traced = channels.trace(model, blank, image_shape)
    if "latency" in budget:
        traced = latencies.with_latency(traced, config, workdir)
    # Refuses now what could not be met after all the training.
    jaxprune.channels.round_to_limits(
        traced.graph,
        {},
        traced.limits(budget),
        multiple_of=config.channel_multiple,
    )
    return traced


def _held_out(
    config: weight_plans.Config, dataset: data.Dataset
) -> tuple[data.Dataset, data.Dataset | None]:
    """The data that weights are trained on, and the rest, None if nothing is."""
    if not 0 <= config.held_out < 1:
        raise ValueError(
            f"`config.held_out={config.held_out}` must be in [0, 1), the fraction of "
            "the training data that is held out."
        )
    if not config.held_out:
        return dataset, None
    size = round(config.held_out * dataset.train_size)
    if size < config.batch_size:
        raise ValueError(
            f"`config.held_out={config.held_out}` leaves {size} examples, fewer than "
            f"one batch of `config.batch_size={config.batch_size}`. Hold out more, or "
            "use smaller batches."
        )
    order = np.random.default_rng(config.seed).permutation(dataset.train_size)

    def part(indices):
        chosen = data.Subset(dataset.train, np.sort(indices))
        return dataclasses.replace(dataset, train=chosen)

    return part(order[size:]), part(order[:size])


def _phases(config: weight_plans.Config, steps_per_epoch: int) -> tuple[Phase, ...]:
    phases, begin = [], 0
    for name in ("dense", "prune", "finetune"):
        epochs = config[f"{name}_epochs"]
        if epochs < 0:
            raise ValueError(
                f"`config.{name}_epochs={epochs}` must not be negative; 0 leaves the "
                "phase out."
            )
        end = begin + round(epochs * steps_per_epoch)
        if end > begin:
            phases.append(Phase(name, begin, end))
        begin = end
    if not phases:
        raise ValueError(
            "`config.dense_epochs`, `prune_epochs` and `finetune_epochs`: at least one "
            "must be long enough for a step, none is."
        )
    return tuple(phases)
