"""The page of one run, put together from its summary and its pictures."""

import json
import math
import shlex
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from matplotlib.figure import Figure

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
from experiments.logging.summary import channel_limits
from experiments.report import compact_report, pages, sensitivity_report, trail_table
from experiments.report.plots.rendering import inline_svg

_FOOTER = (
    "Made by jaxprune from <code>summary.json</code> and\n"
    "<code>metrics.jsonl</code>; the pictures are in <code>plots/</code> too."
)

# A loss of accuracy, a fraction, that asks for an explanation.
_DISAPPOINTING = 0.02

_CAPTIONS = {
    "accuracy": (
        "Networks of the trail. Hard masks set a pruned weight to zero; soft ones, used"
        " while pruning, let those near the threshold count in part. To finalize is to"
        " replace the soft masks by hard ones that keep exactly the target."
    ),
    "learning": (
        "Moving averages, with the single values behind. The accuracies of the first"
        " steps are off the scale."
    ),
    "keep_ratio": "Fraction of the weights kept, on a logarithmic scale.",
    "budget": (
        "What the learned keep ratios cost, the limit that they are held to, and the"
        " multiplier. The point is the cost of the channels that are kept."
    ),
    "group_ratios": (
        "The learned keep ratio of each group of channels that are removed together;"
        " colours run from the first group to the last."
    ),
    "groups": "Channels that each group keeps in the final network.",
    "layers": "Fraction of each layer's weights kept, on a logarithmic scale.",
    "thresholds": (
        "Each layer's threshold, of STR its logit, of the garrote its log relative to"
        " other layers; colours run from the first layer to the last. A threshold"
        " below zero, which learning may lead to, keeps all weights of its layer; a"
        " logit or log below zero is the rule."
    ),
    "regrowth": (
        "Weights that single steps turn into exact zeros of the network, and zeros that"
        " they bring back. Moving averages, with the steps that were logged behind."
    ),
}


def render(
    summary: Mapping[str, Any],
    figures: Mapping[str, Figure],
    workdir: Path,
    measured: Mapping[str, Any] | None,
) -> str:
    """Put the page of a run together.

    Args:
      summary: The content of `summary.json`.
      figures: The pictures, by name, in the order to show them.
      workdir: The folder of the run.
      measured: The content of `sensitivity.json`, if there is one.

    Returns:
      The page; it loads and runs nothing.
    """
    names = [summary.get(key) for key in ("model", "dataset")]
    title = str(summary.get("full_title", summary.get("method", "run")))
    subject = " on ".join(str(name) for name in names if name)
    facts = [
        f"seed {summary['seed']}" if "seed" in summary else "",
        duration(summary.get("seconds")),
        *_facts(summary),
    ]
    status = str(summary.get("status", "finished"))
    sections = [
        *(pages.banner(*warning) for warning in _warnings(summary)),
        pages.section("The trail", trail_table.as_markup(summary), "trail"),
        pages.section("Pictures", _pictures(figures), "pictures") if figures else "",
        _layers(summary),
        sensitivity_report.section(measured) if measured else "",
        compact_report.section(workdir),
        pages.section("Run it again", _command(summary, workdir), "again"),
        pages.section("Load the network", _loading(workdir), "load"),
        _details("Configuration", summary.get("config")),
        _details("Versions", summary.get("versions")),
    ]
    return pages.render(
        title,
        subject=subject,
        facts=" · ".join(filter(None, facts)),
        badge=(status, "good" if status == "finished" else "warn"),
        cards=_cards(summary),
        sections=sections,
        footer=_FOOTER,
    )


def _cards(summary: Mapping[str, Any]) -> list[pages.Card]:
    """Show the numbers that a reader looks for first."""
    final = summary.get("final") or {}
    limits, costs = channel_limits(summary), summary.get("costs") or {}
    accuracy, dense = final.get("accuracy"), summary.get("dense_accuracy")
    against = "not measured before pruning"
    if is_number(dense):
        against = f"before pruning {score(dense)}"
        if is_number(accuracy):
            points = f"{100 * (accuracy - dense):+.2f}".replace("-", "−")
            against += f", {points} points since"
    total = count(final.get("total_weights"))
    last: list[pages.Card] = [
        ("Accuracy", score(accuracy), against, ""),
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
        note = f"{_bound(name)} {percent(limit)}"
        if is_number(reached):
            held = reached <= room * limit
            note += ", met" if held else ", missed"
            kind = "good" if held else "warn"
    title = cost_name(name)
    return title[0].upper() + title[1:], score(reached), note, kind


def _bound(name: str) -> str:
    """Channels are held to limits; the fraction of the weights is a target."""
    return "target" if name == "weights" else "limit"


def _facts(summary: Mapping[str, Any]) -> list[str]:
    """Say where the run took its time, and what its accuracy is made of."""
    facts = []
    spent = summary.get("phase_seconds") or {}
    if spent:
        facts.append(", ".join(f"{name} {duration(s)}" for name, s in spent.items()))
    facts += sorted({str(device) for device in summary.get("devices") or ()})
    examples = summary.get("test_examples")
    if is_number(examples) and examples > 0:
        worth = f"{100 / examples:.2g} points"
        split = summary.get("eval_split", "test")
        facts.append(f"{count(examples)} {split} examples, each {worth} of accuracy")
    weights = (summary.get("final") or {}).get("kept_weights")
    total = (summary.get("final") or {}).get("total_weights")
    if is_number(weights) and is_number(total):
        # Values of four bytes, and a bit for each weight that says whether it is kept.
        packed = 4 * weights + math.ceil(total / 8)
        facts.append(f"kernels {count(4 * total)} bytes, {count(packed)} as bitmasks")
    return facts


def _warnings(summary: Mapping[str, Any]) -> list[tuple[str, str]]:
    """Say in a few words, and then in more, what a reader must not miss."""
    warnings = []
    if str(summary.get("status", "finished")) != "finished":
        text = "The numbers are those of the last point that the run reached."
        warnings.append(("Stopped before its end.", text))
    accuracy = (summary.get("final") or {}).get("accuracy")
    dense = summary.get("dense_accuracy")
    if is_number(accuracy) and is_number(dense) and dense - accuracy > _DISAPPOINTING:
        text = (
            f"The pruned network is {100 * (dense - accuracy):.1f} points below the "
            "dense one. Try longer phases, a learning rate that is not near zero while "
            "the size falls, or a larger network that is left."
        )
        warnings.append(("The accuracy suffers.", text))
    if summary.get("result") == "NOT_MET":
        text = (
            "When the pruning phase ended, the learned size was above its target; the "
            "final decision met it. Such a step costs accuracy: lengthen the phase."
        )
        warnings.append(("The solver did not reach the target by itself.", text))
    return warnings


def _loading(workdir: Path) -> str:
    """Show how to load the final network."""
    lines = (
        "from pathlib import Path",
        "from experiments.analyses.compact import read_network",
        f"network = read_network(Path({str(workdir)!r}))",
        "logits = network.apply_fn(network.variables, images)  # normalised",
    )
    return f"<pre>{pages.text(chr(10).join(lines))}</pre>"


def _pictures(figures: Mapping[str, Figure]) -> str:
    drawn = [
        pages.figure(inline_svg(figure, name, label=_CAPTIONS[name]), _CAPTIONS[name])
        for name, figure in figures.items()
    ]
    return '<div class="pictures">' + "\n".join(drawn) + "</div>"


def _layers(summary: Mapping[str, Any]) -> str:
    """Show what every layer keeps, or every group of channels."""
    layers = (summary.get("final") or {}).get("layers") or {}
    if not layers:
        return ""
    if channel_limits(summary):
        header = ["group", "channels", "kept", "keep ratio"]
        rows = [
            [name, *map(count, (g["size"], g["kept"])), fraction(g["keep_ratio"])]
            for name, g in layers.items()
        ]
        table = pages.table(header, rows, left={0})
        return pages.section("Groups of channels", table, "layers")
    header = ["layer", "weights", "kept", "keep ratio", "compression"]
    rows = [
        [
            name,
            count(layer["size"]),
            count(layer["kept"]),
            fraction(layer["keep_ratio"]),
            times(layer["size"] / layer["kept"] if layer["kept"] else math.inf),
        ]
        for name, layer in layers.items()
    ]
    table = pages.table(header, rows, left={0})
    return pages.section("Layers", table, "layers")


def _command(summary: Mapping[str, Any], workdir: Path) -> str:
    """Show the command of the run, where recorded, and that of its report."""
    command = summary.get("command")
    if isinstance(command, Sequence) and not isinstance(command, str):
        # A flag a line: browsers break long lines inside the flags.
        command = " ".join(
            ("\\\n  " if str(word).startswith("--") else "") + shlex.quote(str(word))
            for word in command
        )
    again = shlex.join(
        ["python", "-m", "experiments", "report", f"--workdir={workdir}"]
    )
    named = {"The run:": command, "This page, from the files of the run:": again}
    return "\n".join(
        f"<p>{name}</p><pre>{pages.text(line)}</pre>"
        for name, line in named.items()
        if line
    )


def _details(title: str, tree: Any) -> str:
    if not tree:
        return ""
    rows = [[key, value] for key, value in _flatten(tree)]
    table = pages.table(["name", "value"], rows, left={0, 1})
    return pages.details(title, table)


def _flatten(tree: Any, prefix: str = "") -> Iterable[tuple[str, str]]:
    """Yield the dotted name and the value of every leaf of a nested dictionary."""
    if not isinstance(tree, Mapping) or (prefix and not tree):
        yield prefix, tree if isinstance(tree, str) else json.dumps(tree)
        return
    for key, value in tree.items():
        yield from _flatten(value, f"{prefix}.{key}" if prefix else str(key))
