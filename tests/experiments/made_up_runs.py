"""Folders of runs that never were, for what reads them."""

import json

import numpy as np

from experiments.logging.metrics import MetricsWriter

LAYERS = {
    "Conv_0/kernel": {"size": 800, "kept": 400, "keep_ratio": 0.5},
    "Dense_0/kernel": {"size": 100_000, "kept": 1600, "keep_ratio": 0.016},
    "Dense_1/kernel": {"size": 5_200, "kept": 0, "keep_ratio": 0.0},
}
GROUPS = {
    "params/conv0/kernel:3": {"size": 16, "kept": 12, "keep_ratio": 0.75},
    "params/block1/conv1/kernel:3": {"size": 16, "kept": 2, "keep_ratio": 0.125},
}
EVIL = "</td><script>alert('x')</script>&\"<img src=http://evil.example/a.png>"


def point(step, keep, soft, hard):
    return {
        "step": step,
        "sparsity": 1 - keep,
        "keep_ratio": keep,
        "compression": 1 / keep,
        "accuracy_soft": soft,
        "accuracy_hard": hard,
        "checkpoint": f"checkpoints/{step}",
    }


def summary_of(**changes):
    return {
        "method": "ltp",
        "full_title": "Learned threshold pruning",
        "dataset": "mnist",
        "model": "lenet",
        "seed": 7,
        "config": {"optimizer": {"name": "sgd", "rate": 0.1}, "widths": [6, 16]},
        "versions": {"jax": "0.10.2"},
        "seconds": 83.0,
        "phase_seconds": {"dense": 10.0, "prune": 73.0},
        "devices": ["cpu", "cpu"],
        "test_examples": 500,
        "dense_accuracy": 0.9931,
        "points": [point(1000, 0.25, 0.9925, 0.9917), point(2000, 0.05, 0.991, 0.98)],
        "final": {
            "sparsity": 0.98113,
            "keep_ratio": 0.01887,
            "compression": 53.0,
            "accuracy": 0.9912,
            "kept_weights": 2000,
            "total_weights": 106_000,
            "layers": LAYERS,
        },
        "status": "finished",
        "budget": {"weights": 0.02},
        "costs": {"weights": 0.01887},
        "command": ["python", "-m", "experiments", "train", "--config=a b.py"],
    } | changes


def records_of(layers=tuple(LAYERS), steps=range(50, 3001, 50), cut=2000):
    rng = np.random.default_rng(0)
    for step in steps:
        target = max(0.02 ** (step / cut), 0.02)
        record = {
            "loss": 2.3 * np.exp(-step / 400) + 0.05 + 0.02 * rng.random(),
            "accuracy": 0.99 - 0.5 * np.exp(-step / 300),
            "keep_ratio": 1.03 * target if step < cut else 0.01887,
            "phase": "prune" if step <= cut else "finetune",
        }
        if step <= cut:
            record["target_keep_ratio"] = target
            for number, layer in enumerate(layers):
                record[f"threshold/{layer}"] = 1e-5 * np.exp(step / 400) * (1 + number)
        if step % 500 == 0:
            record["test_accuracy"] = 0.98 - 0.5 * np.exp(-step / 300)
        yield step, record


def channel_summary(**changes):
    costs = {"weights": 0.41, "macs": 0.4997, "parameters": 0.412}
    final = point(880, 0.41, None, None) | {"accuracy": 0.9944, "costs": costs}
    return (
        summary_of(
            method="dsa",
            full_title="Differentiable sparsity allocation",
            points=[point(440, 0.41, None, 0.5) | {"costs": costs}],
            final=final
            | {"kept_weights": 410, "total_weights": 1000, "layers": GROUPS},
            budget={"macs": 0.5},
            costs=costs,
            channels={name: list(range(g["kept"])) for name, g in GROUPS.items()},
        )
        | changes
    )


def channel_records(limits=1, steps=range(10, 441, 10)):
    for step in steps:
        record = {"loss": 1.0, "accuracy": 0.9, "keep_ratio": 0.6, "phase": "prune"}
        for number, name in enumerate(sorted(GROUPS)):
            record[f"keep_ratio/{name}"] = 0.9 - 0.4 * number
            record[f"threshold/{name}"] = 1.0 - number
        for j in range(limits):
            record[f"budget/cost/{j}"] = 0.6 - 0.1 * j
            record[f"budget/limit/{j}"] = max(1 - step / 400, 0.5)
            record[f"budget/multiplier/{j}"] = 0.01 * (1 + j)
        yield step, record


def run_of(workdir, summary=None, records=None):
    with MetricsWriter(workdir, 10**6, progress=False) as metrics:
        for step, record in records_of() if records is None else records:
            metrics.write(step, record)
    (workdir / "summary.json").write_text(json.dumps(summary or summary_of()))
    return workdir
