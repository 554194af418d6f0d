"""Draws the L1 coefficient that each threshold schedule stands for.

Command:
    python -m experiments l1-coefficients --workdir=runs/l1_coefficients

Soft-thresholding at a threshold that rises while an optimizer trains is ISTA with the
L1 coefficient λ_t = (D_{t+1} - D_t) / η_t, whatever the threshold was meant to be. The
picture shows this for the published schedules under the learning rate that was
published with them: five epochs of warm-up, then a cosine, both constant inside an
epoch. All thresholds end at the same D, and λ is drawn in units of the constant
coefficient that ends there too, so neither D nor the height of the learning rate
matters, and momentum scales all alike.

The closed forms assume a bare cosine, so their coefficient is five times too large in
the first epoch. The lines called exact are `from_learning_rate` and
`pgh_from_learning_rate`, which take the learning rate itself.

References:
    Chen et al., A Unified Framework for Soft Threshold Pruning, 2023,
    arXiv:2302.13019, with the authors' code.
"""

import argparse
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pandas as pd
from matplotlib.figure import Figure
from matplotlib.ticker import NullLocator

import jaxprune
from experiments.logging.files import write_atomically
from experiments.report import pages
from experiments.report.plots import drawing
from experiments.report.plots.rendering import inline_svg, png

NAME = "l1_coefficients"
_TITLE = "Every threshold schedule is an L1 coefficient"

# The published recipe. The number of steps does not change the curves.
EPOCHS, WARM_UP, PEAK = 100, 5, 0.256
_STEPS_PER_EPOCH = 40
_BETA = 0.1  # the authors publish none

_DRAWN = (
    "Learning rate, thresholds in units of the final one, and L1 coefficients in units"
    " of the constant one that ends at the same threshold, as means over an epoch."
    " Exact: made from the learning rate itself; the others in closed form."
)


def published_learning_rate(steps_per_epoch: int) -> optax.Schedule:
    """Return the learning rate of the published recipe, constant inside an epoch.

    Args:
      steps_per_epoch: at least 1.

    Returns:
      A schedule over `EPOCHS * steps_per_epoch` steps.
    """

    def schedule(step):
        epoch = jnp.asarray(step) // steps_per_epoch
        x = (epoch - WARM_UP) / (EPOCHS - WARM_UP)
        warm = PEAK * (epoch + 1) / WARM_UP
        return jnp.where(
            epoch < WARM_UP, warm, PEAK * (1 + jnp.cos(jnp.pi * jnp.clip(x, 0, 1))) / 2
        )

    return schedule


def schedules(steps_per_epoch: int) -> dict[str, optax.Schedule]:
    """Return the threshold schedules by name, each with the final threshold 1."""
    steps = EPOCHS * steps_per_epoch
    rate = published_learning_rate(steps_per_epoch)
    return {
        "constant, exact": jaxprune.schedules.from_learning_rate(rate, 1.0, steps),
        "LATS": jaxprune.schedules.lats(1.0, EPOCHS, steps_per_epoch),
        "S-LATS": jaxprune.schedules.s_lats(1.0, steps),
        "geometric, exact": jaxprune.schedules.pgh_from_learning_rate(
            rate, 1.0, steps, beta=_BETA
        ),
        "PGH": jaxprune.schedules.pgh(1.0, steps, beta=_BETA),
        "STDS sine": jaxprune.schedules.sine(1.0, steps),
        "STDS linear": jaxprune.schedules.linear(1.0, steps),
    }


def coefficients(steps_per_epoch: int) -> dict[str, np.ndarray]:
    """Return λ of every schedule and epoch, relative to the constant one.

    Args:
      steps_per_epoch: at least 1.

    Returns:
      By name, shape (EPOCHS,), float64: the mean of λ_t over the steps of an epoch.
    """
    steps = EPOCHS * steps_per_epoch
    rate = published_learning_rate(steps_per_epoch)
    unit = 1 / jaxprune.schedules.final_threshold(1.0, rate, steps)
    found = {}
    for name, schedule in schedules(steps_per_epoch).items():
        values = jaxprune.schedules.l1_coefficient(schedule, rate, steps) / unit
        found[name] = values.reshape(EPOCHS, steps_per_epoch).mean(axis=1)
    return found


@drawing.style
def draw(by_epoch: Mapping[str, np.ndarray]) -> Figure:
    """Draw learning rate, thresholds and L1 coefficients, one above the other.

    Args:
      by_epoch: What `coefficients` found. A coefficient that is not positive is left
        out; the axis ends at a tenth and at ten.
    """
    figure, (top, middle, bottom) = drawing.stacked(
        _TITLE, 8.6, (0.7, 1.5, 2.4), width=drawing.WIDE
    )
    epochs = np.arange(EPOCHS + 1)
    begins = epochs * _STEPS_PER_EPOCH
    rate = jax.vmap(published_learning_rate(_STEPS_PER_EPOCH))(begins[:-1])
    top.stairs(np.asarray(rate), epochs, color=drawing.MUTED, linewidth=1.6)
    top.set_ylabel("learning rate")
    for number, (name, schedule) in enumerate(schedules(_STEPS_PER_EPOCH).items()):
        # Every second line is broken and lies on top, so that none hides another.
        look = {
            "color": drawing.QUALITATIVE[number],
            "linestyle": "solid",
            "zorder": 2.0,
        }
        if number % 2:
            look |= {"linestyle": (0, (3.5, 1.8)), "zorder": 3.0}
        middle.plot(epochs, jax.vmap(schedule)(begins), **look)
        values = by_epoch[name]
        bottom.plot(epochs[:-1] + 0.5, np.where(values > 0, values, np.nan), **look)
    middle.set_ylabel("threshold / final threshold")
    bottom.set_yscale("log")
    bottom.set_ylim(1 / 12, 12)
    ticks = [0.1, 0.2, 0.5, 1, 2, 5, 10]
    bottom.set_yticks(ticks, [f"{tick:g}×" for tick in ticks])
    bottom.yaxis.set_minor_locator(NullLocator())
    bottom.set_ylabel("L1 coefficient / the constant one")
    bottom.set_xlabel("epoch")
    bottom.margins(x=0.01)
    drawing.name_lines(figure, bottom.get_lines(), list(by_epoch))
    return figure


def write(workdir: str | Path) -> list[Path]:
    """Write the picture and a page with it.

    Args:
      workdir: the folder; made if needed.

    Returns:
      The files written: a PNG and an HTML page that stands alone.

    Raises:
      OSError: if one cannot be written.
    """
    workdir = Path(workdir)
    workdir.mkdir(parents=True, exist_ok=True)
    by_epoch = coefficients(_STEPS_PER_EPOCH)
    drawn = draw(by_epoch)
    picture = pages.figure(inline_svg(drawn, NAME, label=_DRAWN), _DRAWN)
    rows: Any = pd.DataFrame({"schedule": [*by_epoch]})
    for epoch in (1, 2, 5, 10, 25, 50, 75, EPOCHS):
        rows[f"epoch {epoch}"] = [f"{x[epoch - 1]:.2f}" for x in by_epoch.values()]
    table = pages.table(rows, left=["schedule"])
    text = pages.render(
        _TITLE,
        subject="Soft-threshold pruning",
        facts=(
            f"{EPOCHS} epochs, {WARM_UP} of them warm-up, then a cosine, as published;"
            f" β = {_BETA}; λ = ΔD / η in units of the constant coefficient"
        ),
        badge=("float64", "good"),
        cards=[
            (f"{name}, first epoch", f"{by_epoch[name][0]:.2f}×", "the constant λ", "")
            for name in ("constant, exact", "S-LATS", "PGH", "STDS sine")
        ],
        sections=[
            pages.section("Picture", picture, "picture"),
            pages.section("Coefficients by epoch", table, "table"),
        ],
        footer=(
            "Made by <code>python -m experiments l1-coefficients</code> with"
            " <code>jaxprune.schedules.l1_coefficient</code>."
        ),
    )
    files = [workdir / f"{NAME}.png", workdir / f"{NAME}.html"]
    for file, data in zip(files, (png(drawn), text), strict=True):
        write_atomically(file, data)
    return files


def main(arguments: Sequence[str] | None = None) -> int:
    """Draw from the command line, and return the exit status."""
    parser = argparse.ArgumentParser(
        prog="python -m experiments l1-coefficients",
        description="Draw the L1 coefficient of every threshold schedule.",
    )
    parser.add_argument("--workdir", required=True, help="where the picture goes")
    try:
        files = write(parser.parse_args(arguments).workdir)
    except OSError as error:
        print(f"{type(error).__name__}: {error}", file=sys.stderr)
        return 1
    print("\n".join(map(str, files)))
    return 0
