"""Evaluation of a scorer on labelled pictures: overall, per generator, within prompt, on one set or across several."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from ..errors import MaAgiqaError
from ..metrics import Scores
from .agreement import RESAMPLES, SEED, Agreement, agreement
from .within_prompt import WithinPrompt, within_prompt


@dataclass(frozen=True)
class Evaluation:
    """What was measured on one labelled set.

    Attributes:
        name: Name of the set.
        predictions: (N,) float64, of the pictures that could be scored.
        labels: (N,) float64.
        generators: N of them; None where the table names none.
        overall: All N pictures.
        by_generator: Each generator's pictures alone, by name; empty where the table names fewer than two.
        within_prompt: Choosing among the pictures of a prompt; None where no two pictures share one.
        failed: Pictures that could not be scored; they are in no figure.
    """

    name: str
    predictions: np.ndarray
    labels: np.ndarray
    generators: tuple[str | None, ...]
    overall: Agreement
    by_generator: Mapping[str, Agreement] = field(default_factory=dict)
    within_prompt: WithinPrompt | None = None
    failed: int = 0

    def to_dict(self) -> dict[str, Any]:
        """The figures, for JSON."""
        return {
            "data": self.name,
            "overall": self.overall.to_dict(),
            "generators": {name: figures.to_dict() for name, figures in self.by_generator.items()},
            "within_prompt": None if self.within_prompt is None else self.within_prompt.to_dict(),
            "failed": self.failed,
        }


def evaluate(
    predictions: Scores,
    labels: Scores,
    *,
    name: str = "",
    generators: Sequence[str | None] | None = None,
    prompts: Sequence[str | None] | None = None,
    resamples: int = RESAMPLES,
    seed: int = SEED,
) -> Evaluation:
    """Measures predictions against labels.

    Args:
        predictions: (N,) of any scale, higher is better; NaN for a picture that could not be scored.
        labels: (N,), finite.
        name: Name of the set.
        generators: The model that generated each picture; None where it is not known.
        prompts: The prompt each picture was generated from.
        resamples: Bootstrap resamples behind the 95 % intervals; 0 for none.
        seed: Seed of the bootstrap.

    Raises:
        ValueError: Sequences of different lengths, infinite predictions, or labels that are not finite.

    Example:
        >>> from ma_agiqa_core.evaluation.evaluate import evaluate
        >>> labels = [1.0, 2.0, 2.5, 3.0, 4.5]
        >>> evaluation = evaluate([10, 30, 20, 40, 50], labels, resamples=0)
        >>> round(evaluation.overall.srcc.value, 2), evaluation.overall.n
        (0.9, 5)
    """
    x, y = np.asarray(predictions, dtype=np.float64), np.asarray(labels, dtype=np.float64)
    made_by, made_from = (list(names) if names is not None else [None] * len(y) for names in (generators, prompts))
    if not x.shape == y.shape == (len(made_by),) == (len(made_from),):
        raise MaAgiqaError(
            f"Expected a prediction, label, generator and prompt for each picture, got {x.shape}, {y.shape}, "
            f"{len(made_by)} and {len(made_from)}."
        )
    rows = np.flatnonzero(~np.isnan(x))
    x, y, failed = x[rows], y[rows], len(x) - len(rows)
    made_by, made_from = [made_by[row] for row in rows], [made_from[row] for row in rows]
    chosen = None
    if len(set(filter(None, made_from))) < sum(map(bool, made_from)):
        chosen = within_prompt(x, y, made_from, resamples=resamples, seed=seed)
    return Evaluation(
        name=name,
        predictions=x,
        labels=y,
        generators=tuple(made_by),
        overall=agreement(x, y, resamples=resamples, seed=seed),
        by_generator=_by_generator(x, y, made_by, resamples, seed),
        within_prompt=chosen,
        failed=failed,
    )


def _by_generator(
    x: np.ndarray, y: np.ndarray, generators: Sequence[str | None], resamples: int, seed: int
) -> dict[str, Agreement]:
    names = sorted({name for name in generators if name})
    if len(names) < 2:
        return {}
    rows = {name: [row for row, other in enumerate(generators) if other == name] for name in names}
    return {name: agreement(x[own], y[own], resamples=resamples, seed=seed) for name, own in rows.items()}
