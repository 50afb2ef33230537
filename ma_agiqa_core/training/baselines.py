"""What a training has to beat, on its validation part: the labels' mean, lite, and ridge on lite's features.

A model that loses to one of them, or whose correlation may be chance, is no model to rank pictures with. Ridge
regression sees the training part alone, like the model.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from .. import metrics
from ..evaluation import bootstrap
from ..labels.splits import Split
from ..scorers.picture_features.lite_features import LITE, LiteFeatures
from .descriptions import Descriptions, describe_files
from .ridge_fit import fit_ridge_on

RIDGE, MEAN = "ridge on lite's features", "label mean"
RESAMPLES, SEED = 1000, 20
_SHARES = (0.025, 0.975)


@dataclass(frozen=True)
class Measured:
    """A correlation on the validation part.

    Attributes:
        srcc: None where it is undefined.
        low: Lower end of its 95 % interval.
        high: Upper end.
    """

    srcc: float | None = None
    low: float | None = None
    high: float | None = None

    def to_dict(self) -> dict[str, float | None]:
        """For JSON."""
        return {"srcc": self.srcc, "low": self.low, "high": self.high}


@dataclass(frozen=True)
class Comparison:
    """How a model fares on the validation part, by one target.

    Attributes:
        n: Pictures with a label.
        model: Of the model that was trained.
        others: By name lite and ridge regression.
        leads: By name how far the model is ahead, with the interval of the difference.
        rmse: Of the model's raw predictions.
        mean_rmse: Of the training labels' mean as the prediction for every picture.
    """

    n: int
    model: Measured
    others: Mapping[str, Measured]
    leads: Mapping[str, Measured]
    rmse: float | None
    mean_rmse: float | None

    @property
    def faults(self) -> list[str]:
        """Where it does not win, in sentences."""
        if self.model.srcc is None:
            return [f"{self.n} validation pictures do not say what it has learned."]
        found = []
        if self.model.low is None or self.model.low <= 0:
            found.append("Its own correlation may be chance: the interval holds zero.")
        if self.rmse is not None and self.mean_rmse is not None and self.rmse >= self.mean_rmse:
            found.append(f"It predicts no better than the {MEAN} does.")
        for name, lead in self.leads.items():
            if lead.srcc is not None and lead.srcc <= 0:
                is_sure = lead.high is not None and lead.high < 0
                found.append(f"It does not beat {name}{'' if is_sure else ', but the difference may be chance'}.")
        return found

    @property
    def doubts(self) -> list[str]:
        """What it wins, but perhaps by chance."""
        narrow = [name for name, lead in self.leads.items() if (lead.srcc or 0) > 0 and (lead.low or 0) <= 0]
        return [f"That it beats {name} may be chance: the interval of the difference holds zero." for name in narrow]

    @property
    def is_unfit(self) -> bool:
        """Whether nobody should rank with it: it may know nothing, or something simpler surely knows more."""
        if self.model.srcc is None or self.model.low is None or self.model.low <= 0:
            return True
        is_flat = self.rmse is not None and self.mean_rmse is not None and self.rmse >= self.mean_rmse
        return is_flat or any(lead.high is not None and lead.high < 0 for lead in self.leads.values())

    def to_dict(self) -> dict[str, Any]:
        """For JSON."""
        return {
            "n": self.n,
            "model": self.model.to_dict(),
            "rmse": self.rmse,
            "label_mean_rmse": self.mean_rmse,
            **{name: measured.to_dict() for name, measured in self.others.items()},
            "leads": {name: lead.to_dict() for name, lead in self.leads.items()},
            "faults": self.faults,
            "doubts": self.doubts,
            "is_unfit": self.is_unfit,
        }


def compare(
    paths: Sequence[Path],
    split: Split,
    targets: Sequence[str],
    labels: np.ndarray,
    predictions: np.ndarray,
    pixels: object,
    device: torch.device,
) -> dict[str, Comparison]:
    """Compares a model's predictions with what knows less.

    Args:
        paths: Of the pictures, by row.
        split: Its training and validation parts are used.
        targets: Names of the columns.
        labels: (N, T), NaN for none.
        predictions: (N, T), those of the validation part.
        pixels: What the training read: descriptions by lite are not made once more.
        device: Where lite computes.

    Raises:
        PictureError: A picture cannot be described.
    """
    rows = [*split.train, *split.val]
    features, described = _described(paths, rows, pixels, device)
    x = described.double().numpy()
    train, val = slice(0, len(split.train)), slice(len(split.train), len(rows))
    lite = features.quality(described).double().numpy() if len(rows) else np.zeros(0)
    found = {}
    for column, target in enumerate(targets):
        y = labels[rows, column].astype(float)
        known = np.isfinite(y)
        train_rows, val_rows = np.flatnonzero(known[train]), np.flatnonzero(known[val]) + len(split.train)
        ridge = fit_ridge_on(x[train_rows], y[train_rows], features.parts)
        model = predictions[[rows[row] for row in val_rows], column].astype(float)
        others = {LITE: lite[val_rows], RIDGE: ridge.predict(x[val_rows])}
        found[target] = _comparison(model, others, y[val_rows], float(y[train_rows].mean()))
    return found


def _described(
    paths: Sequence[Path],
    rows: Sequence[int],
    pixels: object,
    device: torch.device,
) -> tuple[LiteFeatures, Tensor]:
    if isinstance(pixels, Descriptions) and isinstance(pixels.features, LiteFeatures):
        return pixels.features, pixels.table[list(rows)]
    features = LiteFeatures(device)
    return features, describe_files([paths[row] for row in rows], features)


def _comparison(model: np.ndarray, others: Mapping[str, np.ndarray], y: np.ndarray, mean: float) -> Comparison:
    if len(y) < 2 or np.ptp(y) == 0:
        return Comparison(len(y), Measured(), {name: Measured() for name in others}, {}, None, None)
    counts = bootstrap.draw_counts(len(y), RESAMPLES, SEED)
    resampled = {name: bootstrap.srcc_of_resamples(counts, x, y) for name, x in {"": model, **others}.items()}
    measured = {name: _measured(metrics.srcc(x, y), resampled[name]) for name, x in {"": model, **others}.items()}
    own = measured.pop("")
    leads = {}
    for name, other in measured.items():
        if own.srcc is not None and other.srcc is not None:
            leads[name] = _measured(own.srcc - other.srcc, resampled[""] - resampled[name])
    rmse, of_mean = (float(np.sqrt(np.mean((guess - y) ** 2))) for guess in (model, mean))
    return Comparison(len(y), own, measured, leads, rmse, of_mean)


def _measured(value: float, resampled: np.ndarray) -> Measured:
    if not np.isfinite(value):
        return Measured()
    finite = resampled[np.isfinite(resampled)]
    if not len(finite):
        return Measured(float(value))
    low, high = np.quantile(finite, _SHARES)
    return Measured(float(value), float(low), float(high))


def comparison_lines(comparisons: Mapping[str, Comparison]) -> list[str]:
    """For the terminal: the figures of each target, and plainly what is wrong with the model."""
    lines = []
    for target, comparison in comparisons.items():
        figures = [f"this model {_shown(comparison.model)}"]
        figures += [f"{name} {_shown(measured)}" for name, measured in comparison.others.items()]
        if comparison.rmse is not None and comparison.mean_rmse is not None:
            figures.append(f"RMSE {comparison.rmse:.3g}, of the {MEAN} {comparison.mean_rmse:.3g}")
        lines.append(f"{target}, SRCC on {comparison.n} validation pictures: {'; '.join(figures)}")
        lines += [f"  {said}" for said in comparison.faults + comparison.doubts] or ["  It beats all of them."]
    return lines


def _shown(measured: Measured) -> str:
    if measured.srcc is None:
        return "-"
    within = "" if measured.low is None or measured.high is None else f" [{measured.low:.3f}, {measured.high:.3f}]"
    return f"{measured.srcc:.3f}{within}"
