"""What the command `compact` found, as a table and a note."""

from collections.abc import Mapping
from typing import Any

import pandas as pd

from experiments.logging.formatting import count, text_table


def table(found: Mapping[str, Any]) -> str:
    """Lay out the content of `compact/summary.json` in plain ASCII."""
    return f"{text_table(lay_out(found), left=[''])}\n{note(found)}"


def lay_out(found: Mapping[str, Any]) -> pd.DataFrame:
    """Return the table as a data frame of texts."""
    rows = []
    for row in found["rows"]:
        before, after = row["dense"], row["compact"]
        if row["unit"] == "seconds":
            cells = [
                f"{1e3 * median:.3f} ms ({1e3 * low:.3f}–{1e3 * high:.3f})"
                for low, median, high in (before, after)
            ]
            before, after = before[1], after[1]
        else:
            cells = [count(before), count(after)]
        unit = f", {row['unit']}" if row["unit"] == "bytes" else ""
        rows.append([f"{row['name']}{unit}", *cells, f"{after / before:.4f}"])
    columns: Any = ["", "network of the run", "compact", "ratio"]
    return pd.DataFrame(rows, columns=columns)


def note(found: Mapping[str, Any]) -> str:
    """Say how much went, how equal the networks are and how they were timed."""
    sizes = found["channels"].values()
    before, after = sum(n for n, _ in sizes), sum(n for _, n in sizes)
    return (
        f"{after:,} of {before:,} channels stay ({found['how']}); largest relative "
        f"difference of the logits {found['difference']:.1e}. Times are medians and "
        f"quartiles of {found['rounds']} calls in turns, on "
        f"{', '.join(found['devices'])}.{_slower(found)}"
    )


def _slower(found: Mapping[str, Any]) -> str:
    """Say that the compact network takes longer, if it does, and what may help."""
    timed = [row for row in found["rows"] if row["unit"] == "seconds"]
    slow = [
        f"{row['name']} takes {row['compact'][1] / row['dense'][1]:.2f} times as long"
        for row in timed
        if row["compact"][1] > row["dense"][1]
    ]
    if not slow:
        return ""
    return (
        f" The compact network is slower here: {', '.join(slow)}. Numbers of channels "
        "that are multiples of 8 may help, `--config.budget.channel_multiple=8`, and "
        "so may a limit on the latency, `--config.budget.latency`."
    )
