"""Teaches an `EarlyScorer` from a folder of previews that calibrate kept, or refuses.

Two students are taught: one sees the preview alone, to the other the judge's own score of it is a further column. A
judge that reads the prompt sees what the first cannot; a judge that is misled, or dear, is better left out. Every
prompt is left out once: what a student then says of its previews is compared, by rank correlation within the prompt,
with what the judge itself says of them. Where neither is better, both are refused.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

import numpy as np
import PIL.Image

from ...errors import MaAgiqaError
from ...generation.early.early_scorer import EarlyScorer, PreviewFeatures
from ...generation.early.kept_previews import KeptPrompt, read_kept
from .early_students import Lessons, Student, better_of, rank_correlations, students, taught

LEAST_PROMPTS = 10


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
    lessons = lessons_of(kept, progress)
    alone, beside = students(lessons)
    student = better_of(alone, beside)
    judge = rank_correlations(lessons.judged, lessons.finals).mean()
    if not student.is_worth_it:
        raise MaAgiqaError(
            f"Expected a student that ranks previews better than {kept[0].judge} itself on prompts left out, got a "
            f"rank correlation of {alone.mean:.2f} with the final score ({beside.mean:.2f} where the judge's own score "
            f"of the preview weighs in), and {judge:.2f} by the judge (needed: {student.needed:.2f} more). "
            "Nothing is written: use the judge, or keep previews of more prompts."
        )
    early = taught(lessons, student.is_beside, kept[0].judge, kept[0].pipeline, _measured(student, lessons))
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


def lessons_of(
    kept: Sequence[KeptPrompt], progress: Callable[[Sequence[KeptPrompt]], Iterable[KeptPrompt]] = iter
) -> Lessons:
    """What the kept previews show, with their scores."""
    describe = PreviewFeatures()
    return Lessons(
        np.stack([_described(describe, prompt) for prompt in progress(kept)]),
        np.stack([prompt.previews for prompt in kept]),
        np.stack([prompt.finals for prompt in kept]),
        np.array(kept[0].fractions),
    )


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


def _measured(student: Student, lessons: Lessons) -> dict:
    by_student, by_judge = (rank_correlations(some, lessons.finals).mean(0) for some in (student.said, lessons.judged))
    return {
        "student": round(float(by_student.mean()), 4),
        "judge": round(float(by_judge.mean()), 4),
        "beside_the_judge": student.is_beside,
        "by_fraction": {
            f"{fraction:.3g}": [round(float(one), 4) for one in pair]
            for fraction, *pair in zip(lessons.fractions, by_student, by_judge, strict=True)
        },
        "prompts": len(lessons.finals),
        "candidates": lessons.finals.shape[1],
    }
