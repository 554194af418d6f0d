"""What a run leaves at its end: `summary.json` and the report."""

import importlib.metadata
import json
import platform
from collections.abc import Sequence
from typing import Any

import jax

import jaxprune
from experiments.logging.files import write_atomically
from experiments.logging.summary import SUMMARY_FILE
from experiments.report import report
from experiments.run import trail
from experiments.run.setting import Setting
from experiments.run.workdir import config_as_json

_PACKAGES = ("jax", "flax", "optax", "orbax-checkpoint", "grain", "numpy")


def summarize(
    setting: Setting,
    record: trail.Record,
    final: dict[str, Any] | None,
    command: Sequence[str],
) -> dict[str, Any]:
    """Writes `summary.json` and the report."""
    config, workdir = setting.config, setting.workdir
    key = setting.dataset.spec.measure.key
    if final is not None:
        final = {
            **{k: final[k] for k in final if not k.startswith(("accuracy", key))},
            key: final[f"{key}_hard"],
            "accuracy_top5": final.get("accuracy_top5"),
        }
    layers = final["layers"] if final else {}
    summary = {
        "status": "finished" if final else "stopped",
        "method": config.plan.name,
        "title": config.title or config.plan.title,
        "full_title": config.title or config.plan.full_title,
        "dataset": config.data.name,
        "model": config.model,
        "seed": config.seed,
        "config": config_as_json(config),
        "versions": {
            "python": platform.python_version(),
            "jaxprune": jaxprune.__version__,
            **{name: importlib.metadata.version(name) for name in _PACKAGES},
        },
        "devices": [device.device_kind for device in jax.devices()],
        "command": list(command),
        "seconds": record.seconds,
        "phase_seconds": _phase_seconds(record),
        "test_examples": setting.dataset.test_size,
        "eval_split": config.data.eval_split,
        "measure": key,
        f"dense_{key}": record.dense_accuracy,
        "budget": _targets(setting),
        "costs": final and {"weights": final["keep_ratio"], **final.get("costs", {})},
        "keep_ratios": {name: layer["keep_ratio"] for name, layer in layers.items()},
        "result": record.result,
        "channels": record.channels,
        "points": record.points,
        "final": final,
    }
    if jax.process_index() == 0:
        write_atomically(workdir / SUMMARY_FILE, json.dumps(summary, indent=2) + "\n")
        report.write_report(workdir)
    return summary


def _phase_seconds(record: trail.Record) -> dict[str, float]:
    """How long each phase took that is finished, its evaluations included."""
    begins = [0.0, *record.phase_ends.values()]
    return {
        name: end - begin
        for (name, end), begin in zip(record.phase_ends.items(), begins, strict=False)
    }


def _targets(setting: Setting) -> dict[str, float] | None:
    """The limits, as fractions of the dense network; None without any."""
    targets = setting.limits
    if not targets and setting.keep_ratio is not None:
        targets = {"weights": setting.keep_ratio}
    return targets or None
