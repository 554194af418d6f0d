"""A training step with a pruning method against the same dense step.

    python -m experiments bench training-step [--model=resnet20] [--batch_size=128]
        [--image_size=32] [--methods lats ltp ...] [--rounds=15] [--json=FILE]

Both steps are compiled by `jit`, the batch spread over all devices, and timed in turns,
dense, pruned, dense, pruned, ...; the figure is the median of the ratios of neighbours,
so that a machine that slows down for a while slows both. What does not depend on the
machine's mood is taken from the compiler: FLOPs and bytes accessed from `cost_analysis`
(the body of a loop counts once), temporary memory from `memory_analysis`, also without
a copy of the kernels. `--rounds=0` compiles and runs nothing.

`--model=decoder` is a language model of 124 million parameters; `--image_size` is the
length of its texts then, in tokens.
"""

import argparse
import time
from collections.abc import Iterator
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

import jaxprune
from experiments import models
from experiments.analyses.timing import Quartiles
from experiments.benchmarks.decoder import Decoder
from experiments.configs import default
from experiments.plans import (
    channel_garrote,
    channels,
    dsa,
    garrote,
    lats,
    ltp,
    magnitude,
    optimizers,
)
from experiments.plans.method import Method, Plan, Task
from experiments.run import parallel
from experiments.run.steps import Step, init_state, make_train_step
from jaxprune import transforms

# Any L1 coefficient costs the same.
_STRENGTH = 1e-4


def ista(config, task) -> Plan:
    """The optimizer alone: behind SGD on the kernels, under a dense network."""
    plan = optimizers.dense(config, task, config.optimizer.learning_rate)
    rate = optax.cosine_decay_schedule(config.optimizer.learning_rate, task.steps)
    thresholds = transforms.ista(_STRENGTH, rate, momentum=config.optimizer.momentum)
    # The optimizer moves variables too, of which there are none.
    kernels = {"params": jaxprune.kernels(task.params), "variables": {}}
    return plan._replace(
        optimizer=optax.chain(plan.optimizer, optax.masked(thresholds, kernels))
    )


METHODS = {
    method.name: method
    for method in (
        Method(title="ISTA", full_title="Proximal steps", plan=ista),
        garrote.GARROTE,
        lats.LATS,
        ltp.LTP,
        magnitude.MAGNITUDE,
        magnitude.GLOBAL_MAGNITUDE,
        channel_garrote.CHANNEL_GARROTE,
        dsa.DSA,
    )
}


def _unused(*args, **kwargs):
    raise AssertionError("these methods score no weights and judge no network")


def _compile(model, plan, task, batch_stats, batch) -> tuple[Any, Any]:
    """Returns the step, and `() -> state`, its first state."""

    def begin():
        return init_state(plan, task.params, batch_stats, 0)

    cost = jaxprune.density(task.params)
    if plan.allocate:
        cost = task.channels.costs["parameters"]
    train_step = make_train_step(Step(model, plan, cost))
    state = parallel.create("jit").replicate(begin())
    compiled = jax.jit(train_step, donate_argnums=0).lower(state, batch).compile()
    return compiled, lambda: jax.tree.map(jnp.copy, state)


def _seconds(compiled, state, batch):
    begin = time.perf_counter()
    state, _ = jax.block_until_ready(compiled(state, batch))
    return time.perf_counter() - begin, state


def _example(name: str, size: int, batch_size: int) -> tuple[Any, Any, Any]:
    """Returns a model, a batch for it, and one image for its channels or None."""
    rng = np.random.default_rng(0)
    if name == "decoder":
        model = Decoder()
        tokens = rng.integers(0, model.vocabulary, (2, batch_size, size))
        image, label = jnp.asarray(tokens, jnp.int32)
        return model, {"image": image, "label": label}, None
    images = rng.normal(size=(batch_size, size, size, 3))
    batch = {
        "image": jnp.asarray(images, jnp.float32),
        "label": jnp.asarray(rng.integers(0, 10, batch_size)),
    }
    return models.create(name, 10), batch, images.shape[1:]


def _ratios(dense, pruned, batch, rounds: int) -> tuple[Quartiles, Quartiles]:
    """Times both steps in turns: seconds of the dense one, and ratios of neighbours."""
    (dense, dense_state), (pruned, state) = (
        (c, begin()) for c, begin in (dense, pruned)
    )
    found = []
    for turn in range(rounds + 1):
        dense_seconds, dense_state = _seconds(dense, dense_state, batch)
        pruned_seconds, state = _seconds(pruned, state, batch)
        if turn:  # The first turn warms up.
            found.append((dense_seconds, pruned_seconds / dense_seconds))
    quartiles = np.quantile(found, [0.25, 0.5, 0.75], axis=0).T
    return Quartiles(*quartiles[0].tolist()), Quartiles(*quartiles[1].tolist())


def measure(options: argparse.Namespace) -> Iterator[dict[str, Any]]:
    """Yields one row for each method: the ratios of its step to the dense step."""
    ways = parallel.create("jit")
    model, batch, image_shape = _example(
        options.model, options.image_size, options.batch_size
    )
    # The state is whole on every device, and the batch is spread over all.
    init = jax.jit(
        lambda: model.init(jax.random.key(0), batch["image"][:1], train=False)
    )
    found = init()
    network = (found["params"], found.get("batch_stats", {}))
    task = Task(
        params=network[0],
        first_step=0,
        steps=1000,
        steps_per_epoch=100,
        loss=_unused,
        channels=image_shape and channels.trace(model, network, batch["image"][:1]),
        judge=_unused,
        sample=_unused,
    )
    batch = ways.shard(batch)
    config = default.get_config()
    dense_plan = optimizers.dense(config, task, config.optimizer.learning_rate)
    dense = _compile(model, dense_plan, task, network[1], batch)
    kernels = jaxprune.tree.select(network[0], jaxprune.kernels)
    copy = sum(leaf.nbytes for leaf in kernels.values())
    for name in options.methods:
        method = METHODS[name]
        config = default.get_config(method)
        if "macs" in config.budget:
            config.budget.macs = 0.5
            if image_shape is None:
                continue  # the benchmark's language model is not traced
        if "importance" in config.method:
            config.method.importance = "filter_norm"  # which every network has
        assert method.plan is not None
        plan = method.plan(config, task)
        pruned = _compile(model, plan, task, network[1], batch)
        costs, dense_costs = (c.cost_analysis() for c in (pruned[0], dense[0]))
        memory, dense_memory = (
            c.memory_analysis().temp_size_in_bytes for c in (pruned[0], dense[0])
        )
        row = {"model": options.model, "batch": options.batch_size, "method": name}
        if options.rounds:
            seconds, ratio = _ratios(dense, pruned, batch, options.rounds)
            spread = f"({ratio.low:.3f}-{ratio.high:.3f})"
            row |= {"dense": seconds, "time": ratio.median, "quartiles": spread}
        yield {
            **row,
            "FLOPs": costs["flops"] / dense_costs["flops"],
            "bytes": costs["bytes accessed"] / dense_costs["bytes accessed"],
            "memory": memory / dense_memory,
            "less a copy": (memory - copy) / dense_memory,
        }


def add_options(parser: argparse.ArgumentParser) -> None:
    """Adds what this benchmark can be asked."""
    parser.add_argument(
        "--model", default="resnet20", choices=(*models.MODELS, "decoder")
    )
    parser.add_argument("--image_size", type=int, default=32)
    parser.add_argument("--batch_size", type=int, default=128)
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--methods", nargs="+", default=[*METHODS], choices=METHODS)
