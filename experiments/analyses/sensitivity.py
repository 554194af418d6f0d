"""Measures how much each group of channels matters, beside what a run kept of it.

```
python -m experiments sensitivity --workdir=DIR
```

takes the dense network of a finished run that prunes channels, as its dense phase left
it, prunes every group alone to half, the largest filters kept, and measures by how much
the loss on evaluation data rises. Nothing is trained. A table is printed with the rank
correlation of the rise and the keep ratio that the run found; `DIR/sensitivity.json`
holds the numbers and `report.html` gets a section. The two need not agree in full: a
run also weighs what a channel costs, and networks recover from some losses by training.
"""

import argparse
import json
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pandas as pd
from flax import linen as nn
from scipy import stats

import jaxprune
from experiments import data
from experiments.analyses.compact import read_model
from experiments.logging.files import read_json, write_atomically
from experiments.logging.formatting import group_names, percent, text_table
from experiments.logging.summary import SUMMARY_FILE
from experiments.plans import channels
from experiments.report import report, sensitivity_report
from experiments.run import trail
from jaxprune import io
from jaxprune.channels import ChannelGraph


def measure(workdir: Path) -> dict[str, Any]:
    """Measure the sensitivity of every group of channels of a run.

    Returns:
      What `sensitivity.json` holds: `step`, `loss` and `accuracy` of the dense network;
      `groups`, by name, with `size`, `kept` (of the half), `loss_rise`,
      `accuracy_lost` and the `keep_ratio` of the run; and `correlation`, that of the
      ranks of `loss_rise` and `keep_ratio`, or None if it is not defined.

    Raises:
      FileNotFoundError: If the folder holds no finished run.
      ValueError: If the run prunes no channels, or has no dense phase.
    """
    summary, entry = _read(workdir)
    model, like, images = read_model(summary)
    blank = like["params"], like["batch_stats"]
    graph = channels.trace(model, blank, images).graph
    network = io.load(entry, like)
    judge = _make_judge(model, graph, network, _test_batches(summary))
    loss, accuracy = judge({})
    halves = jaxprune.channels.important_channels(
        graph,
        jaxprune.channels.filter_norms(graph)(network["params"]),
        {name: max(group.size // 2, 1) for name, group in graph.groups.items()},
    )
    groups = {}
    for name, gate in halves.items():
        found, correct = judge({name: gate.astype(np.float32)})
        groups[name] = {
            "size": len(gate),
            "kept": int(gate.sum()),
            "loss_rise": found - loss,
            "accuracy_lost": accuracy - correct,
            "keep_ratio": summary["keep_ratios"][name],
        }
    return {
        "step": entry.step,
        "loss": loss,
        "accuracy": accuracy,
        "correlation": rank_correlation(
            [group["loss_rise"] for group in groups.values()],
            [group["keep_ratio"] for group in groups.values()],
        ),
        "groups": groups,
    }


def _make_judge(
    model: nn.Module,
    graph: ChannelGraph,
    network: Mapping[str, Any],
    batches: Sequence[data.Batch],
) -> Callable[[Mapping[str, Any]], tuple[float, float]]:
    """Make `gates -> loss, accuracy`; groups without a gate are open.

    It is compiled once, whichever groups are gated.
    """
    plan = jaxprune.channels.plan_gates(graph)
    open_gates = {n: np.ones(size, np.float32) for n, size in plan.sizes.items()}

    @jax.jit
    def totals(gates, network, batch):
        params = jaxprune.channels.apply_gates(plan, network["params"], gates)
        logits: Any = model.apply(
            {**network, "params": params}, batch["image"], train=False
        )
        losses = optax.softmax_cross_entropy_with_integer_labels(logits, batch["label"])
        correct = jnp.argmax(logits, -1) == batch["label"]
        # Of a text, the mean of its bytes.
        each = [jnp.mean(x, axis=range(1, x.ndim)) for x in (losses, correct)]
        valid = batch["valid"]
        return jnp.stack([jnp.sum(x * valid) for x in (*each, valid)])

    def judge(gates):
        found = [totals({**open_gates, **gates}, network, batch) for batch in batches]
        loss, correct, count = np.sum(jax.device_get(found), axis=0, dtype=float)
        return float(loss / count), float(correct / count)

    return judge


def rank_correlation(a: Sequence[float], b: Sequence[float]) -> float | None:
    """Spearman's rank correlation; None if all of `a` or all of `b` are equal.

    >>> round(rank_correlation([1, 2, 9], [0.1, 0.3, 0.2]), 6)
    0.5
    """
    if len({*a}) < 2 or len({*b}) < 2:
        return None
    found: Any = stats.spearmanr(a, b)
    return float(found.statistic)


def table(found: Mapping[str, Any]) -> str:
    """Lay out what `measure` returns as a text table, most sensitive group first."""
    groups = pd.DataFrame(found["groups"].values(), group_names(found["groups"]))
    groups = groups.sort_values("loss_rise", ascending=False, kind="stable")
    rows = {
        "group": groups.index,
        "sensitivity": groups["loss_rise"].map("{:+.4f}".format),
        "accuracy points lost": (100 * groups["accuracy_lost"]).map("{:.2f}".format),
        "kept by the run": groups["keep_ratio"].map(percent),
    }
    return text_table(pd.DataFrame(rows), left=["group"])


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure a run from the command line, and return the exit status."""
    parser = argparse.ArgumentParser(
        prog="python -m experiments sensitivity",
        description="Measure how much each group of channels matters.",
        allow_abbrev=False,
    )
    parser.add_argument("--workdir", required=True, help="the folder of the run")
    workdir = Path(parser.parse_args(arguments).workdir)
    try:
        found = measure(workdir)
        text = json.dumps(found, indent=2) + "\n"
        write_atomically(workdir / sensitivity_report.SENSITIVITY_FILE, text)
        path = report.write_report(workdir)
    except (OSError, ValueError) as error:
        print(f"{type(error).__name__}: {error}", file=sys.stderr)
        return 1
    print(f"{table(found)}\n{sensitivity_report.note(found)}\n\n{path}")
    return 0


def _read(workdir: Path) -> tuple[dict[str, Any], io.Entry]:
    """Read the summary of a run and find the network at the end of its dense phase."""
    path = workdir / SUMMARY_FILE
    summary = read_json(path) if path.exists() else {}
    if summary.get("status") != "finished":
        raise FileNotFoundError(
            f"`--workdir={workdir}` must be the folder of a finished run. Run "
            "`python -m experiments train --config=... --workdir=...` first."
        )
    if not summary["channels"]:
        raise ValueError(f"the run in `--workdir={workdir}` prunes no channels.")
    first = min(point["step"] for point in summary["points"])
    dense = [e for e in io.entries(workdir / trail.FOLDER) if e.step < first]
    if not dense:
        raise ValueError(
            f"the run in `--workdir={workdir}` has saved no network before step "
            f"{first}, at which it is pruned; `config.phases.dense` must not be 0."
        )
    return summary, dense[-1]


def _test_batches(summary: Mapping[str, Any]) -> list[data.Batch]:
    config = summary["config"]["data"]
    return list(
        data.test_batches(
            data.load(summary["dataset"], data_dir=config["dir"]),
            batch_size=config["eval_batch_size"],
            image_size=config["image_size"] or None,
        )
    )
