"""A training step with a pruning method against the same dense step.

    python -m experiments bench training-step [--model=resnet20] [--batch_size=128]
        [--methods lats ltp ...] [--rounds=15] [--json=FILE]

Both steps are compiled by `jit` for one device and timed in turns, dense, pruned,
dense, pruned, ...; the figure is the median of the ratios of neighbours, so that a
machine that slows down for a while slows both. What does not depend on the machine's
mood is taken from the compiler: FLOPs and bytes accessed from `cost_analysis` (the body
of a loop counts once), temporary memory from `memory_analysis`.
"""

import statistics
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

import jaxprune
from experiments import models
from experiments.benchmarks.common import make_parser, print_row, write_json
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
from experiments.run.steps import Step, init_state, make_train_step
from jaxprune import transforms

# Any L1 coefficient costs the same.
_STRENGTH = 1e-4

_WIDTHS = (16, 11, 7, 14, 8, 8, 8, 29)


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


_METHODS = {
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
    state = init_state(plan, task.params, batch_stats, 0)
    cost = jaxprune.density(task.params)
    if plan.allocate:
        cost = task.channels.costs["parameters"]
    train_step = make_train_step(Step(model, plan, cost))
    step = jax.jit(train_step, donate_argnums=0)
    compiled = step.lower(state, batch).compile()
    return compiled, jax.tree.map(jnp.copy, state)


def _seconds(compiled, state, batch):
    begin = time.perf_counter()
    state, _ = jax.block_until_ready(compiled(state, batch))
    return time.perf_counter() - begin, state


def measure(
    names: Sequence[str], model_name: str, image_size: int, batch_size: int, rounds: int
) -> Iterator[dict[str, Any]]:
    """Yields one row for each method: the ratios of its step to the dense step."""
    config = default.get_config()
    model = models.create(model_name, 10)
    rng = np.random.default_rng(0)
    images = rng.normal(size=(batch_size, image_size, image_size, 3))
    batch = {
        "image": jnp.asarray(images, jnp.float32),
        "label": jnp.asarray(rng.integers(0, 10, batch_size)),
    }
    network = model.init(jax.random.key(0), batch["image"][:1], train=False)
    network = (network["params"], network.get("batch_stats", {}))
    task = Task(
        params=network[0],
        first_step=0,
        steps=1000,
        steps_per_epoch=100,
        loss=_unused,
        channels=channels.trace(model, network, images.shape[1:]),
        judge=_unused,
    )
    dense_plan = optimizers.dense(config, task, config.optimizer.learning_rate)
    dense, dense_state = _compile(model, dense_plan, task, network[1], batch)
    kernels = jaxprune.tree.select(network[0], jaxprune.kernels)
    copy = sum(leaf.nbytes for leaf in kernels.values())
    for name in names:
        method = _METHODS[name]
        config = default.get_config(method)
        if "macs" in config.budget:
            config.budget.macs = 0.5
        assert method.plan is not None
        plan = method.plan(config, task)
        pruned, state = _compile(model, plan, task, network[1], batch)
        ratios, of_dense = [], []
        for turn in range(rounds + 1):
            dense_seconds, dense_state = _seconds(dense, dense_state, batch)
            pruned_seconds, state = _seconds(pruned, state, batch)
            if turn:  # The first turn warms up.
                ratios.append(pruned_seconds / dense_seconds)
                of_dense.append(dense_seconds)
        memory = [c.memory_analysis().temp_size_in_bytes for c in (dense, pruned)]
        costs, dense_costs = pruned.cost_analysis(), dense.cost_analysis()
        yield {
            "method": name,
            "dense_seconds": statistics.median(of_dense),
            "time_ratio": statistics.median(ratios),
            "time_ratio_quartiles": statistics.quantiles(ratios, n=4)[::2],
            "flops_ratio": costs["flops"] / dense_costs["flops"],
            "bytes_accessed_ratio": costs["bytes accessed"]
            / dense_costs["bytes accessed"],
            "temporary_bytes_dense": memory[0],
            "temporary_bytes": memory[1],
            "temporary_ratio": memory[1] / memory[0],
            "bytes_of_one_copy_of_the_kernels": copy,
            "temporary_ratio_less_one_copy": (memory[1] - copy) / memory[0],
        }


def main(arguments: Sequence[str] | None = None) -> None:
    """Prints a table; writes numbers and context to a file where one is given."""
    parser = make_parser("training-step")
    parser.add_argument("--model", default="resnet20")
    parser.add_argument("--image_size", type=int, default=32)
    parser.add_argument("--batch_size", type=int, default=128)
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--methods", nargs="+", default=[*_METHODS], choices=_METHODS)
    parser.add_argument("--json", type=Path)
    options = parser.parse_args(arguments)
    print(
        f"{options.model}, batch {options.batch_size}, {jax.devices()[0].device_kind}"
    )
    print_row(
        _WIDTHS, "method", "dense", "time", "(quartiles)", "FLOPs", "bytes", "memory",
        "less one copy of the kernels",
    )  # fmt: skip
    rows = []
    for row in measure(
        options.methods,
        options.model,
        options.image_size,
        options.batch_size,
        options.rounds,
    ):
        rows.append(row)
        low, high = row["time_ratio_quartiles"]
        print_row(
            _WIDTHS,
            row["method"],
            f"{1e3 * row['dense_seconds']:.2f} ms",
            f"{row['time_ratio']:.3f}x",
            f"({low:.3f}-{high:.3f})",
            f"{row['flops_ratio']:.4f}x",
            f"{row['bytes_accessed_ratio']:.4f}x",
            f"{row['temporary_ratio']:.4f}x",
            f"{row['temporary_ratio_less_one_copy']:.4f}x",
        )
    write_json(options.json, options, rows)
