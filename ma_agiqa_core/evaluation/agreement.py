"""How well predictions follow human scores: SRCC, KRCC, PLCC and RMSE, each with a bootstrap 95 % interval."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from .. import metrics
from ..metrics import Logistic, Scores, percentile_interval
from . import bootstrap

RESAMPLES = 1000
SEED = 20
FIGURES = ("srcc", "plcc", "krcc", "rmse")


@dataclass(frozen=True)
class Figure:
    """A figure and its 95 % interval (bootstrap, percentile method); None where it is undefined."""

    value: float | None = None
    low: float | None = None
    high: float | None = None

    @classmethod
    def of(cls, value: float, resampled: np.ndarray) -> Figure:
        """A figure with the interval of its resamples; undefined where it is not finite."""
        if not np.isfinite(value):
            return cls()
        return cls(float(value), *(percentile_interval(resampled) or ()))


@dataclass(frozen=True)
class Agreement:
    """The four figures of one group of pictures.

    Attributes:
        n: How many pictures.
        srcc: Spearman's rank correlation of the raw predictions, -1..1, higher is better.
        plcc: Pearson's correlation after the 4-parameter fit; below 0 where the curve falls, see `metrics.fitted`.
        krcc: Kendall's tau-b of the raw predictions.
        rmse: Root mean square error after the fit, on the labels' scale, lower is better.
        fit: The fitted curve; None where there is none.
        undefined: Why a figure is undefined, or "".
        note: What a reader of the figures must know, or "".
    """

    n: int
    srcc: Figure = field(default_factory=Figure)
    plcc: Figure = field(default_factory=Figure)
    krcc: Figure = field(default_factory=Figure)
    rmse: Figure = field(default_factory=Figure)
    fit: Logistic | None = None
    undefined: str = ""
    note: str = ""

    def to_dict(self) -> dict[str, Any]:
        """For JSON: the names of `metrics.json` with their values, null where undefined, and the intervals beside."""
        figures: Mapping[str, Figure] = {name: getattr(self, name) for name in FIGURES}
        facts: dict[str, Any] = {name: figure.value for name, figure in figures.items()}
        facts["n"] = self.n
        facts["intervals"] = {
            name: None if figure.low is None else [figure.low, figure.high] for name, figure in figures.items()
        }
        said = {"undefined": self.undefined, "note": self.note}
        return facts | {name: text for name, text in said.items() if text}


def agreement(predictions: Scores, labels: Scores, *, resamples: int = RESAMPLES, seed: int = SEED) -> Agreement:
    """Measures how well predictions follow labels.

    Correlations of ranks are those of the raw predictions; PLCC and RMSE come after the 4-parameter logistic fit, which
    every resample repeats. Pictures are resampled, not prompts: where many share a prompt, the true interval is
    somewhat wider.

    Args:
        predictions: (N,), finite; N may be small, or 0.
        labels: (N,), finite.
        resamples: Bootstrap resamples; 0 for no intervals.
        seed: Seed of the bootstrap.

    Returns:
        Figures are undefined (None), and `undefined` says why, where all labels or all predictions are equal, and
        PLCC and RMSE where there are fewer than 4 pictures.

    Raises:
        ValueError: Sequences of different lengths, or numbers that are not finite.
    """
    x, y = np.asarray(predictions, dtype=np.float64), np.asarray(labels, dtype=np.float64)
    n = len(y)
    if n < 2 and x.shape == y.shape == (n,):
        return Agreement(n, undefined=f"{n} picture{'' if n == 1 else 's'}: correlation needs two or more")
    raw = metrics.srcc(x, y)  # also refuses what is no pair of sequences
    for name, values in (("labels", y), ("predictions", x)):
        if np.ptp(values) == 0:
            return Agreement(n, undefined=f"all {n} {name} are {values[0]:g}: correlation is undefined")
    counts = bootstrap.draw_counts(n, resamples, seed)
    srcc = Figure.of(raw, bootstrap.srcc_of_resamples(counts, x, y))
    krcc = Figure.of(metrics.krcc(x, y), bootstrap.krcc_of_resamples(counts, x, y))
    if n < bootstrap.PARAMETERS:
        reason = f"{n} pictures: the fit behind PLCC and RMSE needs {bootstrap.PARAMETERS}"
        return Agreement(n, srcc=srcc, krcc=krcc, undefined=reason, note=_note(n, None))
    fitted = metrics.fitted(x, y)
    plcc_of_resamples, rmse_of_resamples = bootstrap.fits_of_resamples(counts, x, y, fitted.curve)
    plcc, rmse = Figure.of(fitted.plcc, plcc_of_resamples), Figure.of(fitted.rmse, rmse_of_resamples)
    flat = "the fitted curve is flat, the predictions say nothing of the labels: PLCC is undefined"
    undefined = flat if plcc.value is None else ""
    return Agreement(n, srcc, plcc, krcc, rmse, fitted.curve, undefined, _note(n, plcc.value))


def _note(n: int, plcc: float | None) -> str:
    """What the figures of few pictures, or of scores in the wrong direction, do not show by themselves."""
    notes = []
    if n < bootstrap.FEWEST_RESAMPLED:
        notes.append(f"{n} pictures have no intervals, their figures are mostly chance")
    if plcc is not None and n < metrics.FEWEST_FOR_THE_CURVE:
        notes.append(
            f"{n} pictures are too few for the 4-parameter fit ({metrics.FEWEST_FOR_THE_CURVE}): PLCC is of the raw "
            "predictions, RMSE after a straight line"
        )
    if plcc is not None and plcc < 0:
        notes.append("higher predictions go with lower labels: RMSE is that of the labels' mean")
    return "; ".join(notes)
