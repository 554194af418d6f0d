"""The page of one run, put together from its summary and its pictures."""

import json
import math
import shlex
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pandas as pd
from matplotlib.figure import Figure

from experiments.configs import leaves
from experiments.logging.files import read_json
from experiments.logging.formatting import (
    cost_name,
    count,
    duration,
    fraction,
    is_number,
    percent,
    score,
    times,
)
from experiments.logging.measure import ACCURACY, measure_of
from experiments.logging.summary import SUMMARY_FILE, channel_limits
from experiments.report import compact_report, pages, sensitivity_report, trail_table
from experiments.report.plots.rendering import inline_svg

# What accuracy may fall by, or bits per byte rise by, before the page warns.
_MUCH = 0.02


def render(
    summary: Mapping[str, Any],
    figures: Mapping[str, Figure],
    workdir: Path,
    measured: Mapping[str, Any] | None,
) -> str:
    """Put the page of a run together; it loads and runs nothing.

    Args:
      summary: The content of `summary.json`.
      figures: The pictures, by name, in the order to show them.
      workdir: The folder of the run.
      measured: The content of `sensitivity.json`, if there is one.
    """
    names = [summary.get(key) for key in ("model", "dataset")]
    status = str(summary.get("status", "finished"))
    facts = [
        f"seed {summary['seed']}" if "seed" in summary else "",
        duration(summary.get("seconds")),
        *_facts(summary),
    ]
    compact = workdir / "compact" / SUMMARY_FILE
    found = read_json(compact) if compact.exists() else None
    report = ["python", "-m", "experiments", "report", f"--workdir={workdir}"]
    sections = pages.fill(
        "run.html",
        figures=figures,
        inline_svg=inline_svg,
        finished=status == "finished",
        worse=_worse(summary),
        measure=measure_of(summary).name,
        solved=summary.get("result") != "NOT_MET",
        trail=trail_table.lay_out(summary),
        layers_title="Groups of channels" if channel_limits(summary) else "Layers",
        layers=_layers(summary),
        spikes=_spikes(summary),
        sensitivity=sensitivity_report.note(measured) if measured else "",
        compact=compact_report.lay_out(found) if found else None,
        compact_note=found and compact_report.note(found),
        command=_command(summary),
        report=shlex.join(report),
        workdir=repr(str(workdir)),
        details={
            "Configuration": _leaves(summary.get("config")),
            "Versions": _leaves(summary.get("versions")),
        },
    )
    return pages.render(
        str(summary.get("full_title", summary.get("method", "run"))),
        subject=" on ".join(str(name) for name in names if name),
        facts=" · ".join(filter(None, facts)),
        badge=(status, "good" if status == "finished" else "warn"),
        cards=_cards(summary),
        sections=[sections],
        footer=(
            "Made by jaxprune from <code>summary.json</code> and\n"
            "<code>metrics.jsonl</code>; the pictures are in <code>plots/</code> too."
        ),
    )


def _worse(summary: Mapping[str, Any]) -> str:
    """Say how much worse than the dense network the final one is, if it is much."""
    measure = measure_of(summary)
    value = (summary.get("final") or {}).get(measure.key)
    dense = summary.get(f"dense_{measure.key}")
    if not (is_number(value) and is_number(dense)):
        return ""
    if measure.sign * (dense - value) <= _MUCH:
        return ""
    return f"{measure.change(dense, value)[1:]} {'above' if value > dense else 'below'}"


def _cards(summary: Mapping[str, Any]) -> list[pages.Card]:
    """Show the numbers that a reader looks for first."""
    final = summary.get("final") or {}
    limits, costs = channel_limits(summary), summary.get("costs") or {}
    measure = measure_of(summary)
    value, dense = final.get(measure.key), summary.get(f"dense_{measure.key}")
    against = "not measured before pruning"
    if is_number(dense):
        against = f"before pruning {measure.show(dense)}"
        if is_number(value):
            against += f", {measure.change(dense, value)} since"
    total = count(final.get("total_weights"))
    last: list[pages.Card] = [
        (measure.name.capitalize(), measure.show(value), against, ""),
        ("Weights kept", count(final.get("kept_weights")), f"of {total}", ""),
    ]
    if limits:
        groups = (final.get("layers") or {}).values()
        channels = [sum(group[key] for group in groups) for key in ("kept", "size")]
        kept, size = map(count, channels if groups else (None, None))
        # Channels are rounded down to the limit: there is nothing to allow for.
        first = [_limit_card(n, costs.get(n), x, room=1.0) for n, x in limits.items()]
        cards = [*first, last[0], ("Channels kept", kept, f"of {size}", ""), last[1]]
        return cards[:4]  # A row of them; with several limits the last are left out.
    target = (summary.get("budget") or {}).get("weights")
    reached = costs.get("weights")
    kept = reached if is_number(reached) else final.get("keep_ratio")
    # Methods with thresholds of their own come close; 2 % more is no longer close.
    _, _, note, kind = _limit_card("weights", kept, target, room=1.02)
    return [
        ("Keep ratio", fraction(kept), note, kind),
        ("Compression", times(final.get("compression")), "all / kept weights", ""),
        *last,
    ]


def _limit_card(name: str, reached: Any, limit: Any, *, room: float) -> pages.Card:
    """Show a cost beside its limit, which it may exceed by a factor `room`."""
    note, kind = "no target", ""
    if is_number(limit):
        # Channels are held to limits; the fraction of the weights is a target.
        bound = "target" if name == "weights" else "limit"
        note = f"{bound} {percent(limit)}"
        if is_number(reached):
            held = reached <= room * limit
            note += ", met" if held else ", missed"
            kind = "good" if held else "warn"
    title = cost_name(name)
    return title[0].upper() + title[1:], score(reached), note, kind


def _facts(summary: Mapping[str, Any]) -> list[str]:
    """Say where the run took its time, and what its accuracy is made of."""
    facts = []
    spent = summary.get("phase_seconds") or {}
    if spent:
        facts.append(", ".join(f"{name} {duration(s)}" for name, s in spent.items()))
    facts += sorted({str(device) for device in summary.get("devices") or ()})
    examples = summary.get("test_examples")
    if is_number(examples) and examples > 0:
        split = summary.get("eval_split", "test")
        facts.append(f"{count(examples)} {split} examples")
        if measure_of(summary) is ACCURACY:
            facts[-1] += f", each {100 / examples:.2g} points of accuracy"
    weights = (summary.get("final") or {}).get("kept_weights")
    total = (summary.get("final") or {}).get("total_weights")
    if is_number(weights) and is_number(total):
        # Values of four bytes, and a bit for each weight that says whether it is kept.
        packed = 4 * weights + math.ceil(total / 8)
        facts.append(f"kernels {count(4 * total)} bytes, {count(packed)} as bitmasks")
    return facts


def _layers(summary: Mapping[str, Any]) -> Any:
    """Return what every layer keeps, or every group of channels; None if unknown."""
    layers = (summary.get("final") or {}).get("layers") or {}
    if not layers:
        return None
    found: Any = pd.DataFrame([{"layer": n, **x} for n, x in layers.items()])
    table: Any = found[["layer"]].assign(
        **{key: found[key].map(count) for key in ("size", "kept")},
        **{"keep ratio": found["keep_ratio"].map(fraction)},
    )
    if channel_limits(summary):
        return table.rename(columns={"layer": "group", "size": "channels"})
    table["compression"] = (found["size"] / found["kept"]).map(times)
    return table.rename(columns={"size": "weights"})


def _spikes(summary: Mapping[str, Any]) -> Any:
    """Return what every layer reads of a network that sends spikes; else None."""
    spikes = (summary.get("final") or {}).get("spikes")
    if not spikes:
        return None
    total = {
        "operations": spikes["synaptic_operations"],
        "dense_operations": spikes["dense_synaptic_operations"],
    }
    rows = [{"layer": n, **x} for n, x in spikes["layers"].items()]
    found: Any = pd.DataFrame([*rows, {"layer": "all", **total}])
    return pd.DataFrame(
        {
            "layer": found["layer"],
            "spikes read": found["spikes"].map(lambda x: f"{x:.3f}" if x == x else ""),
            "operations": found["operations"].map(round).map(count),
            "without zeros": found["dense_operations"].map(round).map(count),
            "ratio": (found["operations"] / found["dense_operations"]).map(fraction),
        }
    )


def _command(summary: Mapping[str, Any]) -> Any:
    """Show the command of the run, where recorded."""
    command = summary.get("command")
    if not isinstance(command, Sequence) or isinstance(command, str):
        return command
    # A flag a line: browsers break long lines inside the flags.
    return " ".join(
        ("\\\n  " if str(word).startswith("--") else "") + shlex.quote(str(word))
        for word in command
    )


def _leaves(tree: Any) -> pd.DataFrame:
    """Return the dotted name and the value of every leaf of a nested dictionary."""
    found = leaves(tree or {})
    rows = [(name, x if isinstance(x, str) else json.dumps(x)) for name, x in found]
    columns: Any = ["name", "value"]
    return pd.DataFrame(rows, columns=columns)
