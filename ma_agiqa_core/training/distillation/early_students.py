"""Students of previews: linear in what a preview shows, taught to rank the candidates of a prompt.

Ridge regression of the final score within each prompt, with weights that change linearly with the fraction. How far the
weights are shrunk is chosen by what the student is for, the rank correlation within prompts left out, and not by the
squared error: a few candidates with far lower scores than the rest make nearly all of the squared error, and weights
that predict those disorder the others. The weight of what the judge says is not shrunk.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from ...generation.early.early_scorer import EarlyScorer
from ...scorers.lite.student import PARTS

PARTS_LEFT_OUT = 5
PENALTIES = np.append(np.logspace(-3, 4, 15), np.inf)  # the last leaves what the judge says
SURE = 1.0  # standard errors over prompts, by which the student is to be better
LEAST_LEAD = 0.01  # of the rank correlation; for less it is not worth computing


@dataclass(frozen=True, eq=False)
class Lessons:
    """What is known of the previews of some prompts.

    Attributes:
        features: (P, F, n, D) of the previews.
        judged: (P, F, n) the judge's scores of them.
        finals: (P, n) the judge's scores of the finished pictures.
        fractions: (F,) of the steps.
    """

    features: np.ndarray
    judged: np.ndarray
    finals: np.ndarray
    fractions: np.ndarray

    def of(self, prompts: np.ndarray) -> Lessons:
        """Of these prompts only, by number or mask."""
        return Lessons(self.features[prompts], self.judged[prompts], self.finals[prompts], self.fractions)


@dataclass(frozen=True, eq=False)
class Student:
    """What a student says of prompts that it did not see.

    Attributes:
        is_beside: The judge's own score of a preview is one of its columns.
        said: (P, F, n) of each preview.
        correlations: (P,) of that with the final scores.
        lead: By how much the mean correlation is larger than the judge's.
        needed: By how much it has to be.
    """

    is_beside: bool
    said: np.ndarray
    correlations: np.ndarray
    lead: float
    needed: float

    @classmethod
    def of(cls, lessons: Lessons, is_beside: bool) -> Student:
        said = _left_out(lessons, is_beside)
        correlations, judge = (rank_correlations(some, lessons.finals).mean(1) for some in (said, lessons.judged))
        return cls(is_beside, said, correlations, float((correlations - judge).mean()), _needed(correlations - judge))

    @property
    def mean(self) -> float:
        return float(self.correlations.mean())

    @property
    def is_worth_it(self) -> bool:
        """Whether it ranks better than the judge itself."""
        return self.lead > self.needed

    def is_better_than(self, other: Student) -> bool:
        lead = self.correlations - other.correlations
        return bool(lead.mean() > _needed(lead))


def students(lessons: Lessons) -> tuple[Student, Student]:
    """One that sees the preview alone, and one to which the judge's own score of it is a further column."""
    return Student.of(lessons, is_beside=False), Student.of(lessons, is_beside=True)


def better_of(alone: Student, beside: Student) -> Student:
    """The one that spares the judge, where it will do."""
    return alone if alone.is_worth_it and not beside.is_better_than(alone) else beside


def rank_correlations(scores: np.ndarray, finals: np.ndarray) -> np.ndarray:
    """(P, F): Spearman's, within each prompt; 0 where either does not vary.

    Args:
        scores: (P, F, n) of previews.
        finals: (P, n) of the finished pictures.
    """
    from scipy.stats import rankdata

    a, b = rankdata(scores, axis=2), rankdata(finals, axis=1)[:, None]
    a, b = a - a.mean(2, keepdims=True), b - b.mean(2, keepdims=True)
    together, apart = (a * b).sum(2), np.sqrt((a**2).sum(2) * (b**2).sum(2))
    return np.divide(together, apart, out=np.zeros_like(together), where=apart > 0)


def taught(lessons: Lessons, is_beside: bool, judge: str, pipeline: str, measured: dict) -> EarlyScorer:
    """An early scorer from all of these prompts; names and figures are only written into it."""
    P, F, n, D = lessons.features.shape
    columns = lessons.features.reshape(-1, D)
    widths = np.sqrt(np.repeat(list(PARTS.values()), list(PARTS.values())))  # each part counts alike
    spread = np.maximum(columns.std(0), 1e-6)
    middle = float(lessons.fractions.mean())
    blank = EarlyScorer(judge, pipeline, columns.mean(0), spread, np.zeros(D), np.zeros(D), middle, measured)
    away = max(float(lessons.fractions.std()), 1e-6)
    late = (lessons.fractions - middle) / away
    shown = _within(blank.normalised(columns).reshape(P, F, n, D) / widths, late)
    judged_spread = max(float((lessons.judged - lessons.judged.mean(2, keepdims=True)).std()), 1e-12)
    judged = _within(lessons.judged[..., None] / judged_spread, late)[..., : 2 if is_beside else 0]
    weights, of_judged = _ridge(shown, judged, lessons.finals)
    weight, slope = np.split(weights, 2)
    return EarlyScorer(
        judge,
        pipeline,
        blank.mean,
        spread,
        weight / widths,
        slope / away / widths,
        middle,
        measured,
        beside=(float(of_judged[0]) / judged_spread, float(of_judged[1]) / away / judged_spread) if is_beside else None,
    )


def _within(columns: np.ndarray, late: np.ndarray) -> np.ndarray:
    """(P, F, n, 2 D): columns (P, F, n, D) less the mean of each group of n, and the same times how late each is."""
    columns = columns - columns.mean(2, keepdims=True)
    return np.concatenate([columns, columns * late[:, None, None]], axis=3)


def predicted(early: EarlyScorer, lessons: Lessons) -> np.ndarray:
    """(P, F, n): what an early scorer says of these previews."""
    said = [
        early.predict(features.reshape(-1, features.shape[2]), fraction, judged.reshape(-1)).reshape(judged.shape)
        for features, judged, fraction in zip(
            lessons.features.swapaxes(0, 1), lessons.judged.swapaxes(0, 1), lessons.fractions, strict=True
        )
    ]
    return np.stack(said, 1)


def _left_out(lessons: Lessons, is_beside: bool) -> np.ndarray:
    """(P, F, n): what a student says of each prompt that did not see it."""
    said = np.zeros(lessons.judged.shape)
    for out in _parts(len(said), seed=0):
        said[out] = predicted(taught(lessons.of(~out), is_beside, "", "", {}), lessons.of(out))
    return said


def _parts(prompts: int, seed: int) -> list[np.ndarray]:
    """Masks (P,) of the prompts of each part."""
    part = np.random.default_rng(seed).permutation(prompts) % min(PARTS_LEFT_OUT, prompts)
    return [part == number for number in range(part.max() + 1)]


def _needed(leads: np.ndarray) -> float:
    return max(LEAST_LEAD, SURE * float(leads.std(ddof=1)) / math.sqrt(len(leads)))


def _ridge(shown: np.ndarray, judged: np.ndarray, finals: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Weights of both kinds of columns, with the penalty that ranks prompts left out best.

    Args:
        shown: (P, F, n, D) columns, mean 0 within a group of n; their weights are shrunk.
        judged: (P, F, n, 0 or 2) likewise; their weights are not.
        finals: (P, n) scores.
    """
    y = np.broadcast_to((finals - finals.mean(1, keepdims=True))[:, None], shown.shape[:3])
    found = np.zeros(len(PENALTIES))
    for out in _parts(len(shown), seed=1):
        solve = _solver(shown[~out], judged[~out], y[~out])
        for at, penalty in enumerate(PENALTIES):
            weights, of_judged = solve(penalty)
            found[at] += rank_correlations(shown[out] @ weights + judged[out] @ of_judged, finals[out]).sum()
    return _solver(shown, judged, y)(float(PENALTIES[found.argmax()]))


def _solver(shown: np.ndarray, judged: np.ndarray, y: np.ndarray) -> Callable[[float], tuple[np.ndarray, np.ndarray]]:
    """Ridge weights by penalty, which is of the mean eigenvalue; all from one decomposition of the smaller product."""
    y = y.reshape(-1)
    shown, judged = (columns.reshape(len(y), columns.shape[-1]) for columns in (shown, judged))
    of_judged = np.linalg.pinv(judged)
    x, left = shown - judged @ (of_judged @ shown), y - judged @ (of_judged @ y)  # what the judge does not say
    rows, columns = x.shape
    values, vectors = np.linalg.eigh(x @ x.T if rows < columns else x.T @ x)
    values = values.clip(0)
    projected = vectors.T @ (left if rows < columns else x.T @ left)

    def solve(penalty: float) -> tuple[np.ndarray, np.ndarray]:
        solved = vectors @ (projected / (values + penalty * max(values.mean(), 1e-12) + 1e-12))
        weights = x.T @ solved if rows < columns else solved
        return weights, of_judged @ (y - shown @ weights)

    return solve
