"""Early scorers on two small generators: what a student of previews keeps, beside the plain judge, on held-out prompts.

    python -m benchmarks.early_scorers            the generators are trained first where they are not in --cache
    python -m benchmarks.early_scorers --only lite

digits  small_generator.py: early previews already show the digit, and the judge reads them well
scenes  scene_generator.py: early previews are blurred blends; its four judges are in scene_judges.py

`calibrate(save_previews=...)` keeps the previews of some prompts, and students are taught as `distill --previews`
teaches them, from few prompts and from more. Of the scenes' 48 prompts 16 are held out, of the digits other seeds; no
two prompts share a seed. The previews of those held out are scored by the judge and by the student, and schedules are
replayed with either. What a refused student would have kept is shown too: it says whether refusing was right.
"""

from __future__ import annotations

import tempfile
import time
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import click
import numpy as np
import torch

from ma_agiqa_core import CallableScorer, Scorer
from ma_agiqa_core.generation import EarlyScorer, best_of_n
from ma_agiqa_core.generation.calibration.measure import Calibration
from ma_agiqa_core.generation.early.kept_previews import read_kept
from ma_agiqa_core.generation.planning.replay import Stage as Look
from ma_agiqa_core.generation.planning.replay import full_gain, replay
from ma_agiqa_core.training.distillation.early import lessons_of
from ma_agiqa_core.training.distillation.early_students import (
    Lessons,
    better_of,
    predicted,
    rank_correlations,
    students,
    taught,
)

from . import scene_generator, scene_judges, scenes, small_generator
from .gain_curve import CALL, ratio
from .machine import machine

N = 8
FRACTIONS = (0.1, 0.2, 0.3, 0.4, 0.6)
SCHEDULES = {
    "8 → 3 → 1 at .2, .4": {0.2: 3, 0.4: 1},
    "8 → 2 at .3": {0.3: 2},
    "8 → 3 → 1 at .4, .6": {0.4: 3, 0.6: 1},
}
CHECKED = 2  # prompts that best_of_n makes again with the student
OTHER_SEEDS = 100_000
SETTINGS = {key: value for key, value in CALL.items() if key != "output_type"}


@click.command()
@click.option(
    "--only", type=click.Choice(["digits", "scenes", *scene_judges.NAMES]), help="One generator, or one judge."
)
@click.option("--taught", default="24,72", show_default=True, help="Counts of prompts to learn from.")
@click.option("--held-out", default=32, show_default=True, type=click.IntRange(min=2), help="Prompts to look at.")
@click.option("--cache", type=click.Path(path_type=Path), default=small_generator.DEFAULT_CACHE, show_default=True)
def main(only: str | None, taught: str, held_out: int, cache: Path) -> None:
    torch.set_num_threads(1)
    print(machine(), flush=True)
    counts = [int(count) for count in taught.split(",")]
    if only in (None, "digits"):
        words = [str(digit) for digit in range(small_generator.DIGITS)]
        judges: dict[str, Scorer] = {"chooser": small_generator.judges()[0]}
        pipe = small_generator.load_or_train(cache)
        compare("digits", pipe, judges, words, words, counts, held_out, only, cache)
    if only != "digits":
        pipe = scene_generator.load_or_train(cache)
        judges, (known, unknown) = scene_judges.judges(cache), _divided(scenes.PROMPTS)
        compare("scenes", pipe, judges, known, unknown, counts, held_out, only, cache)


def compare(
    name: str,
    pipe: Any,
    judges: Mapping[str, Scorer],
    known: Sequence[str],
    unknown: Sequence[str],
    counts: Sequence[int],
    held_out: int,
    only: str | None,
    cache: Path,
) -> None:
    """Teaches students on known prompts, and prints what they keep on the unknown ones."""
    start = time.perf_counter()
    seen = keep(name, pipe, judges, known, max(counts), 0, cache)
    unseen = keep(name, pipe, judges, unknown, held_out, OTHER_SEEDS, cache)
    lessons, others = by_judge(seen, judges), by_judge(unseen, judges)
    for judge_name, judge in judges.items():
        if only not in (None, name, judge_name):
            continue
        other, notes = others[judge_name], []
        print(f"\n{name}, judged by {judge_name}: {spread(other)}\n\n{HEAD}\n{row('judge', '', other.judged, other)}")
        for count in counts:
            learnt = lessons[judge_name].of(np.arange(count))
            alone, beside = students(learnt)
            chosen = better_of(alone, beside)
            for student in (alone, beside):
                is_taken = student is chosen and student.is_worth_it
                early = taught(learnt, student.is_beside, judge_name, type(pipe).__name__, {})
                who = f"{count} prompts, {'beside the judge' if student.is_beside else 'the preview alone'}"
                outcome = f"{student.lead:+.3f} of {student.needed:.3f}{', taken' if is_taken else ''}"
                print(row(who, outcome, predicted(early, other), other), flush=True)
                if is_taken:
                    notes.append(f"{who}: {in_the_loop(pipe, judge, early, unknown, other)}")
        print("\n".join(["", *notes]) if notes else "\nRefused: the plain judge is kept.", flush=True)
    print(f"\n{time.perf_counter() - start:.0f} s.", flush=True)


def keep(
    name: str, pipe: Any, judges: Mapping[str, Scorer], prompts: Sequence[str], count: int, seed: int, cache: Path
) -> dict[str, np.ndarray]:
    """What `count` prompts show, by array's name, from `cache`; made and put there where it is not.

    The pictures are made once, and scored by all judges.
    """
    file = cache / f"{name}-previews-{count}-from-{seed}.npz"
    if not file.is_file():
        heard: list[list[np.ndarray]] = []

        def score(pictures: Any, texts: Any) -> np.ndarray:
            said = [judge.score(pictures, texts).double().numpy() for judge in judges.values()]
            if len(pictures) == N:  # else calibration tries whether the scorer answers
                heard.append(said)
            return said[0]

        everybody = CallableScorer(score, name="everybody", low=-np.inf, high=np.inf, needs_prompt=True)
        with tempfile.TemporaryDirectory() as folder:
            for number in range(count):
                calibration = Calibration(
                    pipe,
                    everybody,
                    prompts[number % len(prompts)],
                    n=N,
                    fractions=FRACTIONS,
                    seed=seed + N * number,
                    batch_size=N,
                    preview="vae",
                    save_previews=Path(folder, f"{number:04d}"),
                    pipe_kwargs=SETTINGS,
                )
                list(calibration.run())
            features = lessons_of(read_kept(Path(folder))).features
        scores = np.array(heard).reshape(count, len(FRACTIONS) + 1, len(judges), N)  # the finished pictures' last
        np.savez(file, features=features, **dict(zip(judges, scores.swapaxes(0, 2).swapaxes(1, 2), strict=True)))
    with np.load(file) as arrays:
        return dict(arrays)


def by_judge(arrays: Mapping[str, np.ndarray], judges: Iterable[str]) -> dict[str, Lessons]:
    return {
        name: Lessons(arrays["features"], arrays[name][:, :-1], arrays[name][:, -1], np.array(FRACTIONS))
        for name in judges
    }


HEAD = (
    "| scores of previews | lead when taught, of what is needed | rank correlation with the final score at "
    f"{', '.join(f'{fraction:.1g}' for fraction in FRACTIONS)} | mean | "
    + " | ".join(f"share of the gain, {name}" for name in SCHEDULES)
    + " |\n|---|---|---|---|"
    + "---|" * len(SCHEDULES)
)


def row(who: str, outcome: str, said: np.ndarray, held: Lessons) -> str:
    """A row of the table, with the difference from the judge where it is not the judge."""
    correlations = rank_correlations(said, held.finals).mean(0)
    cells = [who, outcome, " ".join(f"{one:.2f}" for one in correlations), f"{correlations.mean():.3f}"]
    full = full_gain(held.finals)
    for schedule in SCHEDULES.values():
        gain, judges = (kept_gain(schedule, scores, held.finals) for scores in (said, held.judged))
        share = f"{ratio(gain, full)[0]:.3f}"
        if said is not held.judged:
            more, low, high = ratio(gain - judges, full)
            share += f", {more:+.3f} ({low:+.3f} to {high:+.3f})"
        cells.append(share)
    return f"| {' | '.join(cells)} |"


def spread(held: Lessons) -> str:
    within = held.finals.std(1).mean()
    return f"final scores' spread within a prompt {within:.3f}, of prompts' means {held.finals.mean(1).std():.3f}"


def kept_gain(schedule: Mapping[float, int], previews: np.ndarray, finals: np.ndarray) -> np.ndarray:
    """(P,) gain over one picture at random."""
    rule = tuple(Look(FRACTIONS.index(fraction), count) for fraction, count in schedule.items())
    return replay(rule, previews, finals, np.array(FRACTIONS))[0]


def in_the_loop(pipe: Any, judge: Scorer, early: EarlyScorer, prompts: Sequence[str], held: Lessons) -> str:
    """The first held-out prompts again, by best_of_n: what is kept is what the replay keeps."""
    schedule = next(iter(SCHEDULES.values()))
    gain = kept_gain(schedule, predicted(early, held), held.finals)
    differences = []
    for number, prompt in enumerate(prompts[:CHECKED]):
        result = best_of_n(
            pipe,
            judge,
            prompt,
            n=N,
            prune_at=schedule,
            seed=OTHER_SEEDS + N * number,
            batch_size=N,
            preview="vae",
            early_scorer=early,
            **CALL,
        )
        differences.append(abs(result.scores[0] - held.finals[number].mean() - gain[number]))
    return (
        f"best_of_n(early_scorer=...) on {CHECKED} of these prompts differs from the replay by {max(differences):.1e}."
    )


def _divided(prompts: Sequence[str]) -> tuple[list[str], list[str]]:
    """Of each colour and kind one surface is held out, another from kind to kind."""
    kinds, surfaces = len(scenes.KINDS), len(scenes.SURFACES)
    out = [
        (number // kinds) % surfaces == (number % kinds + number // (kinds * surfaces)) % surfaces
        for number in range(len(prompts))
    ]
    return [p for p, is_out in zip(prompts, out, strict=True) if not is_out], [
        p for p, is_out in zip(prompts, out, strict=True) if is_out
    ]


if __name__ == "__main__":
    main()
