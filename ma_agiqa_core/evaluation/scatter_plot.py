"""Draws evaluations: predictions against labels, and the fitted curve behind PLCC and RMSE."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from ..atomic_write import atomic_write
from ..errors import MaAgiqaError
from .agreement import Agreement
from .evaluate import Evaluation

if TYPE_CHECKING:
    from matplotlib.axes import Axes

PLOT_SUFFIXES = (".png", ".svg", ".pdf")
_INK, _GREY = "#1e1e1e", "#787878"
_SIDE = 5.0  # inches of one panel
_MOST_NAMED = 10  # generators with a colour of their own: as many as there are distinct ones


def draw_scatter(evaluations: Sequence[Evaluation], path: Path, *, model: str = "") -> None:
    """Writes one panel for each evaluation, side by side.

    Args:
        evaluations: At least one.
        path: Ends in .png, .svg or .pdf.
        model: What made the predictions.

    Raises:
        ValueError: Another ending, or no evaluations.
    """
    from matplotlib.figure import Figure

    if path.suffix.lower() not in PLOT_SUFFIXES:
        raise MaAgiqaError(f"Expected a plot ending in {', '.join(PLOT_SUFFIXES)}, got {path}.")
    if not evaluations:
        raise MaAgiqaError("Expected an evaluation to draw, got none.")
    figure = Figure(figsize=(_SIDE * len(evaluations), _SIDE), layout="constrained", dpi=150)
    panels = figure.subplots(1, len(evaluations), squeeze=False)[0]
    for axes, evaluation in zip(panels, evaluations, strict=True):
        _draw(axes, evaluation)
        axes.set_xlabel(f"predicted{f' by {model}' if model else ''}", parse_math=False)
    with atomic_write(path, is_shared=True) as temporary:
        figure.savefig(temporary, format=path.suffix.lower().removeprefix("."))


def _draw(axes: Axes, evaluation: Evaluation) -> None:
    x, y, overall = evaluation.predictions, evaluation.labels, evaluation.overall
    size = float(np.clip(3000 / max(len(x), 1), 4, 30))  # points of many pictures stay apart
    names = list(evaluation.by_generator)
    if not 2 <= len(names) <= _MOST_NAMED:
        names = []
    other = np.array([generator not in names for generator in evaluation.generators], dtype=bool)
    axes.scatter(x[other], y[other], size, "#2666a6" if not names else _GREY, alpha=0.6, linewidths=0)
    for place, name in enumerate(names):
        own = np.array([generator == name for generator in evaluation.generators], dtype=bool)
        axes.scatter(x[own], y[own], size, f"C{place}", alpha=0.6, linewidths=0, label=_plain(name))
    if overall.fit is not None:
        line = np.linspace(x.min(), x.max(), 200)
        axes.plot(line, overall.fit(line), color=_INK, linewidth=1.5, label="4-parameter fit")
    if names or overall.fit is not None:
        axes.legend(fontsize="small", frameon=False, loc="upper left")
    axes.set_ylabel("label")
    figures = [
        f"{name.upper()} {getattr(overall, name).value:.3f}" for name in ("srcc", "plcc") if _known(overall, name)
    ]
    title = ", ".join(filter(None, (evaluation.name, f"n = {overall.n}")))
    axes.set_title(f"{title}\n{', '.join(figures) or overall.undefined}", fontsize="medium", parse_math=False)
    for side in ("top", "right"):
        axes.spines[side].set_visible(False)
    axes.grid(color="#e1e1e1", linewidth=0.6)
    axes.set_axisbelow(True)


def _known(overall: Agreement, name: str) -> bool:
    return getattr(overall, name).value is not None


def _plain(name: str) -> str:
    """A legend's label: shown as it is, and not left out, as those that start with an underscore are."""
    return f"{' ' if name.startswith('_') else ''}{name}".replace("$", r"\$")
