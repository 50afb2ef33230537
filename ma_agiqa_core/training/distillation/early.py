"""Teaches an `EarlyScorer`: ridge regression of the final score on what a preview shows, within each prompt.

Two students are taught: one sees the preview alone, to the other the judge's own score of it is a further column. A
judge that reads the prompt sees what the first cannot; a judge that is misled, or dear, is better left out. Every
prompt is left out once: what a student then says of its previews is compared, by rank correlation within the prompt,
with what the judge itself says of them. Where neither is better, both are refused.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import PIL.Image

from ...errors import MaAgiqaError
from ...generation.early.early_scorer import EarlyScorer, PreviewFeatures
from ...generation.early.kept_previews import KeptPrompt, read_kept
from ...metrics import srcc
from ...scorers.lite.student import PARTS

LEAST_PROMPTS = 10
PARTS_LEFT_OUT = 5
PENALTIES = np.logspace(-3, 4, 15)
TRUST = 10.0  # spreads of the judge's column: shrinking the others then leaves what the judge says
SURE = 1.0  # standard errors over prompts, by which the student is to be better


def distill_previews(
    folder: Path, out: Path, *, progress: Callable[[Sequence[KeptPrompt]], Iterable[KeptPrompt]] = iter
) -> EarlyScorer:
    """Teaches a small scorer of previews from a folder that calibrate kept, and writes it.

    Args:
        folder: With the previews of at least ten prompts, see `calibrate(save_previews=...)`.
        out: The .safetensors file to write, for `load_early_scorer`.
        progress: Wraps the prompts that are iterated over, to show progress.

    Raises:
        ValueError: Too few prompts, equal scores only, or a student that is no better than the judge itself.

    Example:
        >>> distill_previews(Path("previews"), Path("early.safetensors"))  # doctest: +SKIP
    """
    kept = read_kept(folder)
    if len(kept) < LEAST_PROMPTS:
        raise MaAgiqaError(
            f"Expected kept previews of at least {LEAST_PROMPTS} prompts, got {len(kept)} in {folder}. Calibrate with "
            f"{LEAST_PROMPTS - len(kept)} more."
        )
    if all(np.ptp(prompt.finals) == 0 for prompt in kept):
        raise MaAgiqaError(f"Expected different scores of finished pictures in {folder}, got equal ones.")
    describe = PreviewFeatures()
    features = np.stack([_described(describe, prompt) for prompt in progress(kept)])  # (P, F, n, D)
    finals = np.stack([prompt.finals for prompt in kept])
    judged = np.stack([prompt.previews for prompt in kept])
    fractions = np.array(kept[0].fractions)
    judge = _correlations(judged, finals)  # (P,)
    alone, beside = (_Student.of(features, finals, fractions, judge, given) for given in (None, judged))
    student = alone if alone.lead > alone.unsure and not beside.is_better_than(alone) else beside
    if student.lead <= student.unsure:
        raise MaAgiqaError(
            f"Expected a student that ranks previews better than {kept[0].judge} itself on prompts left out, got a "
            f"rank correlation of {alone.mean:.2f} with the final score ({beside.mean:.2f} where the judge's own score "
            f"of the preview weighs in), and {judge.mean():.2f} by the judge (needed: {student.unsure:.2f} more). "
            "Nothing is written: use the judge, or keep previews of more prompts."
        )
    said = student.said
    measured = {
        "student": round(student.mean, 4),
        "judge": round(float(judge.mean()), 4),
        "beside_the_judge": student is beside,
        "by_fraction": {
            f"{fraction:.3g}": [round(float(_correlations(some[:, [at]], finals).mean()), 4) for some in (said, judged)]
            for at, fraction in enumerate(fractions)
        },
        "prompts": len(kept),
        "candidates": finals.shape[1],
    }
    given = judged if student is beside else None
    early = _taught(features, finals, fractions, given, kept[0].judge, kept[0].pipeline, measured)
    early.save(out)
    return early


def early_text(early: EarlyScorer, out: Path) -> str:
    """A summary for the terminal."""
    found = early.measured
    lines = [
        f"Early scorer: {out}, for {early.judge} on previews of {early.pipeline}",
        "It weighs in what the judge says of the preview" if found["beside_the_judge"] else "The judge is not asked",
        f"Held out: rank correlation with the final score within a prompt {found['student']:.2f}, by the judge itself "
        f"{found['judge']:.2f} ({found['prompts']} prompts)",
        "          by fraction of the steps, student and judge: "
        + ", ".join(f"{fraction}: {a:.2f} {b:.2f}" for fraction, (a, b) in found["by_fraction"].items()),
    ]
    return "\n".join(lines)


@dataclass(frozen=True, eq=False)
class _Student:
    """What a student says of prompts that it did not see.

    Attributes:
        said: (P, F, n) of each preview.
        correlations: (P,) of that with the final scores.
        lead: By how much the mean correlation is larger than the judge's.
        unsure: By how much it has to be.
    """

    said: np.ndarray
    correlations: np.ndarray
    lead: float
    unsure: float

    @classmethod
    def of(
        cls,
        features: np.ndarray,
        finals: np.ndarray,
        fractions: np.ndarray,
        judge: np.ndarray,
        judged: np.ndarray | None,
    ) -> _Student:
        """Args: see `_taught`; `judge`: (P,) the judge's own correlations."""
        said = _left_out(features, finals, fractions, judged)
        correlations = _correlations(said, finals)
        return cls(said, correlations, float((correlations - judge).mean()), _unsure(correlations - judge))

    @property
    def mean(self) -> float:
        return float(self.correlations.mean())

    def is_better_than(self, other: _Student) -> bool:
        lead = self.correlations - other.correlations
        return bool(lead.mean() > _unsure(lead))


def _unsure(leads: np.ndarray) -> float:
    return SURE * float(leads.std(ddof=1)) / math.sqrt(len(leads))


def _described(describe: PreviewFeatures, prompt: KeptPrompt) -> np.ndarray:
    rows = []
    for files in prompt.files:
        pictures = []
        for file in files:
            try:
                with PIL.Image.open(file) as picture:
                    pictures.append(picture.convert("RGB"))
            except OSError as error:
                raise MaAgiqaError(f"Expected a preview in {file}, got {error}. Delete its folder.") from error
        rows.append(describe(pictures))
    return np.stack(rows)


def _correlations(scores: np.ndarray, finals: np.ndarray) -> np.ndarray:
    """(P,): rank correlation within a prompt, mean over fractions; 0 where either does not vary."""
    return np.array(
        [np.mean([np.nan_to_num(srcc(row, final)) for row in rows]) for rows, final in zip(scores, finals, strict=True)]
    )


def _left_out(features: np.ndarray, finals: np.ndarray, fractions: np.ndarray, judged: np.ndarray | None) -> np.ndarray:
    """(P, F, n): what a student says of each prompt that did not see it."""
    prompts = len(finals)
    part = np.random.default_rng(0).permutation(prompts) % PARTS_LEFT_OUT
    said = np.zeros(features.shape[:3])
    for number in range(PARTS_LEFT_OUT):
        out = part == number
        early = _taught(features[~out], finals[~out], fractions, None if judged is None else judged[~out], "", "", {})
        for at, fraction in enumerate(fractions):
            rows = features[out, at].reshape(-1, features.shape[3])
            beside = None if judged is None else judged[out, at].reshape(-1)
            said[out, at] = early.predict(rows, fraction, beside).reshape(out.sum(), -1)
    return said


def _taught(
    features: np.ndarray,
    finals: np.ndarray,
    fractions: np.ndarray,
    judged: np.ndarray | None,
    judge: str,
    pipeline: str,
    measured: dict,
) -> EarlyScorer:
    """`judged`: (P, F, n) the judge's scores of the previews, where they weigh in."""
    P, F, n, D = features.shape
    columns = features.reshape(-1, D)
    widths = np.sqrt(np.repeat(list(PARTS.values()), list(PARTS.values())))  # each part counts alike
    spread = np.maximum(columns.std(0), 1e-6)
    middle = float(fractions.mean())
    blank = EarlyScorer(judge, pipeline, columns.mean(0), spread, np.zeros(D), np.zeros(D), middle, measured)
    x = blank.normalised(columns).reshape(P, F, n, D) / widths
    judged_spread = 1.0
    if judged is not None:
        judged_spread = max(float((judged - judged.mean(2, keepdims=True)).std()), 1e-12) / TRUST
        x = np.concatenate([x, judged[..., None] / judged_spread], axis=3)
    x = (x - x.mean(2, keepdims=True)).reshape(P, F * n, -1)
    y = np.broadcast_to((finals - finals.mean(1, keepdims=True))[:, None], (P, F, n)).reshape(P, F * n)
    away = max(float(fractions.std()), 1e-6)
    late = np.repeat((fractions - middle) / away, n)
    weight, slope = _ridge(x, y, late)
    return EarlyScorer(
        judge,
        pipeline,
        blank.mean,
        spread,
        weight[:D] / widths,
        slope[:D] / away / widths,
        middle,
        measured,
        beside=None if judged is None else (float(weight[D]) / judged_spread, float(slope[D]) / away / judged_spread),
    )


def _ridge(x: np.ndarray, y: np.ndarray, late: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Weights and how they change, with the penalty that predicts prompts left out best.

    Args:
        x: (P, N, D) columns, mean 0 within a group.
        y: (P, N) scores, mean 0 within a prompt.
        late: (N,) by how many deviations each is later than the middle fraction.
    """
    P, _, D = x.shape
    both = np.concatenate([x, x * late[:, None]], axis=2)  # (P, N, 2 D)
    part = np.random.default_rng(1).permutation(P) % min(PARTS_LEFT_OUT, P)
    errors = np.zeros(len(PENALTIES))
    for number in range(part.max() + 1):
        out = part == number
        solve = _solver(both[~out].reshape(-1, 2 * D), y[~out].reshape(-1))
        for at, penalty in enumerate(PENALTIES):
            errors[at] += ((both[out] @ solve(penalty) - y[out]) ** 2).sum()
    weights = _solver(both.reshape(-1, 2 * D), y.reshape(-1))(float(PENALTIES[errors.argmin()]))
    return weights[:D], weights[D:]


def _solver(x: np.ndarray, y: np.ndarray) -> Callable[[float], np.ndarray]:
    """Ridge weights by penalty, all from one decomposition of the smaller product; the penalty is of its mean value."""
    rows, columns = x.shape
    values, vectors = np.linalg.eigh(x @ x.T if rows < columns else x.T @ x)
    values = values.clip(0)
    projected = vectors.T @ (y if rows < columns else x.T @ y)

    def solve(penalty: float) -> np.ndarray:
        solved = vectors @ (projected / (values + penalty * values.mean() + 1e-12))
        return x.T @ solved if rows < columns else solved

    return solve
