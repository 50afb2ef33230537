"""What a training run writes beside the model: metrics.json, predictions.csv, and the checkpoint's metadata."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from .. import metrics
from ..atomic_write import atomic_write
from ..checkpoint import CheckpointFacts, TargetScale
from ..evaluation.agreement import agreement
from ..labels.labelled_set import LabelledSet
from ..labels.splits import Split
from ..model_files.hub import commit_of
from ..records.csv_cells import csv_row
from ..scorers.percentiles import quantiles_of
from ..semantic.extractor import SemanticExtractor
from ..semantic.questions import questions_for

DIGITS = 8  # of the figures in metrics.json
ENOUGH_HELD_OUT = 50  # pictures for percentiles among predictions


def validation_figures(predictions: np.ndarray, labels: np.ndarray, targets: Sequence[str]) -> dict[str, Any]:
    """By target: SRCC and raw PLCC of validation, by whose sum the best epoch is chosen; None where undefined.

    Args:
        predictions: (V, T).
        labels: (V, T), NaN for none.
        targets: Their names.
    """
    figures = {}
    for column, target in enumerate(targets):
        x, y = _labelled(predictions, labels, column)
        values = [metrics.srcc(x, y), metrics.plcc(x, y)] if len(y) > 1 else [np.nan, np.nan]
        figures[target] = dict(zip(("srcc", "plcc"), map(_finite, values), strict=True))
    return figures


def selection_value(figures: Mapping[str, Mapping[str, float | None]]) -> float | None:
    """SRCC + PLCC, the mean over the targets; None if one is undefined."""
    sums = [None if None in entry.values() else entry["srcc"] + entry["plcc"] for entry in figures.values()]  # type: ignore[operator]
    values = [value for value in sums if value is not None]
    return round(sum(values) / len(values), DIGITS) if sums and len(values) == len(sums) else None


def is_better(value: float | None, best: float | None) -> bool:
    """Whether an epoch with this value takes the place of the best one; of epochs without one the last does."""
    return best is None if value is None else best is None or value > best


def final_figures(
    predictions: np.ndarray, labels: np.ndarray, split: Split, targets: Sequence[str]
) -> dict[str, dict[str, Any]]:
    """{"quality": {"val": {"srcc", "plcc", "krcc", "rmse", "n", maybe "undefined"}, "test": ...}, ...}

    Args:
        predictions: (N, T), NaN in rows that were not predicted.
        labels: (N, T), NaN for none.
        split: Which rows are which.
        targets: Their names.
    """
    figures: dict[str, dict[str, Any]] = {target: {} for target in targets}
    for part in ("val", "test"):
        rows = list(getattr(split, part))
        for column, target in enumerate(targets):
            measured = agreement(*_labelled(predictions[rows], labels[rows], column), resamples=0).to_dict()
            del measured["intervals"]  # those are the business of `evaluate`
            figures[target][part] = measured
    return figures


def write_metrics(
    path: Path, figures: Mapping[str, Mapping[str, Any]], facts: Mapping[str, Any], history: Sequence[Mapping[str, Any]]
) -> None:
    """metrics.json: the first target's `val` and `test` on top, then all targets, facts and history."""
    first = next(iter(figures.values()))
    write_json(path, _rounded({**first, "targets": figures, **facts, "history": list(history)}))


def _rounded(values: Any) -> Any:
    """Floats with the digits that are the same each time: sums in BLAS depend on where in memory an array lies."""
    if isinstance(values, float):
        return float(f"{values:.{DIGITS}g}")
    if isinstance(values, Mapping):
        return {key: _rounded(value) for key, value in values.items()}
    return [_rounded(value) for value in values] if isinstance(values, list) else values


def write_json(path: Path, values: Mapping[str, Any]) -> None:
    """Whole or not at all; refuses NaN, which is no JSON."""
    with atomic_write(path) as temporary:
        temporary.write_text(json.dumps(values, indent=1, allow_nan=False) + "\n", encoding="utf-8")


def write_predictions(
    path: Path, labelled: LabelledSet, split: Split, targets: Sequence[str], predictions: Any
) -> None:
    """predictions.csv: validation and test pictures, each target's label and prediction; both empty without a label."""
    with atomic_write(path) as temporary, temporary.open("wb") as file:
        columns = [column for target in targets for column in (f"{target}_label", f"{target}_prediction")]
        file.write(csv_row(["name", "split", *columns]))
        for part in ("val", "test"):
            for row in getattr(split, part):
                picture = labelled.pictures[row]
                cells: list[Any] = []
                for column, target in enumerate(targets):
                    is_known = target in picture.scores
                    cells += [picture.scores[target], float(predictions[row, column])] if is_known else ["", ""]
                file.write(csv_row([picture.name, part, *cells]))


def checkpoint_facts(
    labelled: LabelledSet,
    targets: Sequence[str],
    held_out: np.ndarray,
    training_labels: np.ndarray,
    extractor: SemanticExtractor | None,
) -> tuple[CheckpointFacts, str]:
    """What the checkpoint says of itself, and what its percentiles are of.

    Percentiles are among the predictions for pictures that were not trained on, since a scorer's predictions spread
    less than labels do; where these are few, among the training labels. A picture without a score for a target is in
    neither: without its prompt, or of another kind, what is predicted for it says nothing.

    Args:
        labelled: The set.
        targets: Of the model.
        held_out: (H, T) predictions, NaN where the picture has no score for the target.
        training_labels: (n, T), NaN for none.
        extractor: Of the semantic vectors, if there are any.
    """
    scales, of = [], []
    for column, target in enumerate(targets):
        scores, what = _percentile_scores(held_out[:, column], training_labels[:, column])
        scales.append(TargetScale(*labelled.range_of(target), quantiles=quantiles_of(scores)))
        of.append(what if len(targets) == 1 else f"{target}: {what}")
    facts = CheckpointFacts(
        name=f"ma-agiqa-{labelled.name}",
        trained_on=labelled.name,
        low=scales[0].low,
        high=scales[0].high,
        quantiles=scales[0].quantiles,
        further=dict(zip(targets[1:], scales[1:], strict=True)),
        semantic_model=None if extractor is None else extractor.name,
        semantic_revision=None if extractor is None else commit_of(extractor.folder),
        questions={} if extractor is None else {**questions_for(targets), **extractor.questions},
    )
    return facts, "; ".join(of)


def _percentile_scores(held_out: np.ndarray, training_labels: np.ndarray) -> tuple[np.ndarray, str]:
    """The scores among which one target's percentiles are, and what they are."""
    predicted, learned = (scores[np.isfinite(scores)] for scores in (held_out, training_labels))
    if len(predicted) >= ENOUGH_HELD_OUT:
        return predicted, f"predictions for {len(predicted)} pictures that were not trained on"
    return learned, f"labels of {len(learned)} training pictures"


def _labelled(predictions: np.ndarray, labels: np.ndarray, column: int) -> tuple[np.ndarray, np.ndarray]:
    has = np.isfinite(labels[:, column])
    return predictions[has, column].astype(np.float64), labels[has, column].astype(np.float64)


def _finite(value: float) -> float | None:
    return float(value) if np.isfinite(value) else None
