"""Draws a calibration: rank correlation by fraction of the steps, and share of the gain by cost."""

from __future__ import annotations

import math
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from ...atomic_write import atomic_write
from .figures import CalibrationFigures

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_INK, _GREY, _BLUE, _BAND, _ORANGE = "#1e1e1e", "#787878", "#2666a6", "#cedef0", "#d65e1e"
_MOST_CURVES = 4


def draw(figures: CalibrationFigures, path: Path) -> None:
    """Writes both panels, side by side, as a PNG; the file appears whole or not at all."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(11, 5), layout="constrained", dpi=130)
    left, right = figure.subplots(1, 2)
    setting = figures.setting
    title = f"{setting.pipeline}, {setting.scheduler}, {setting.steps} steps: best of {setting.n} by {setting.scorer}"
    figure.suptitle(title, color=_INK, parse_math=False)
    _draw_correlation(left, figures)
    _draw_gain(right, figures)
    with atomic_write(path, is_shared=True) as temporary:
        figure.savefig(temporary, format="png")


def _draw_correlation(axes: Axes, figures: CalibrationFigures) -> None:
    rows = [row for row in figures.table if not math.isnan(row.rank_correlation)]
    banded = [(row.fraction, *row.rank_correlation_interval) for row in rows if row.rank_correlation_interval]
    if len(banded) > 1:
        fractions, low, high = zip(*banded, strict=True)
        axes.fill_between(fractions, low, high, color=_BAND, linewidth=0, label="95 % interval over prompts")
        axes.legend(fontsize="small", frameon=False, loc="lower right")
    values = [row.rank_correlation for row in rows]
    axes.plot([row.fraction for row in rows], values, "o-", color=_BLUE)
    axes.set_title("rank correlation of preview and final score")
    axes.set_xlabel("share of the steps done before the preview")
    _frame(axes, [*values, *(end for _, *ends in banded for end in ends)])


def _draw_gain(axes: Axes, figures: CalibrationFigures) -> None:
    axes.set_title(f"share of the gain of best of {figures.setting.n}")
    axes.set_xlabel("network evaluations, relative to finishing all")
    shares = [share for row in figures.table for share in row.share_of_gain.values() if not math.isnan(share)]
    _frame(axes, shares)
    if not shares:
        return
    shown = np.unique(np.linspace(0, len(figures.table) - 1, _MOST_CURVES).round().astype(int))
    for index, alpha in zip(shown, np.linspace(0.4, 1, len(shown)), strict=True):
        row = figures.table[index]
        costs, kept = [row.cost[keep] for keep in row.cost], [row.share_of_gain[keep] for keep in row.cost]
        axes.plot(costs, kept, "o-", color=_BLUE, alpha=alpha, markersize=4, label=f"pruned at {row.fraction:.0%}")
    target, best = figures.setting.target_share, figures.recommended
    axes.axhline(target, color=_ORANGE, linestyle="--", linewidth=1, label=f"wanted: {target:.0%}")
    if best.prune_at:
        stages = ", ".join(f"{fraction:g}: {keep}" for fraction, keep in best.prune_at.items())
        label = f"recommended: prune_at={{{stages}}}"
        axes.plot(best.cost, best.share_of_gain, "*", color=_ORANGE, markersize=14, linestyle="none", label=label)
    axes.legend(fontsize="small", frameon=False, loc="lower right")


def _frame(axes: Axes, values: list[float]) -> None:
    """Both axes are shares; correlations and gains below 0 are shown, too."""
    from matplotlib.ticker import PercentFormatter

    axes.set_xlim(0, 1.02)
    axes.set_ylim(min([0.0, *(math.floor(value * 5) / 5 for value in values)]), 1.02)
    axes.xaxis.set_major_formatter(PercentFormatter(1))
    axes.grid(color="#e1e1e1")
    axes.set_axisbelow(True)
    axes.spines[["top", "right"]].set_visible(False)
    axes.tick_params(colors=_GREY)
