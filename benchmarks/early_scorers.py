"""Early scorers on two small generators: what a student of previews keeps, beside the plain judge, on held-out prompts.

    python -m benchmarks.early_scorers            the digits' generator is trained first where it is not in --cache
    python -m benchmarks.early_scorers --only lite

digits  small_generator.py: early previews already show the digit, and the judge reads them well
crops   crop_generator.py: early previews are blends of many pictures; its judges, `lite` and a contrast, want detail

For each judge, `calibrate(save_previews=...)` keeps the previews of some prompts, and `distill_previews` teaches a
student or refuses. Of the crops' eighteen prompts six are held out, of the digits other seeds. Their previews and
finished pictures are scored by the judge, the previews by the student too; schedules are replayed with either.
"""

from __future__ import annotations

import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import click
import numpy as np
import PIL.Image
import torch

from ma_agiqa_core import MaAgiqaError, Scorer
from ma_agiqa_core.generation import EarlyScorer, best_of_n, calibrate
from ma_agiqa_core.generation.early.kept_previews import KeptPrompt, read_kept
from ma_agiqa_core.generation.planning.replay import Stage as Look
from ma_agiqa_core.generation.planning.replay import full_gain, replay
from ma_agiqa_core.generation.pruning.rule import judge_of_previews
from ma_agiqa_core.metrics import srcc
from ma_agiqa_core.training.distillation.early import distill_previews, early_text

from . import crop_generator, small_generator
from .gain_curve import CALL, ratio
from .machine import machine

N = 8
FRACTIONS = (0.2, 0.3, 0.4, 0.5, 0.7)
SCHEDULES = {
    "8 → 3 → 1 at .2, .5": {0.2: 3, 0.5: 1},
    "8 → 2 at .3": {0.3: 2},
    "8 → 3 → 1 at .4, .7": {0.4: 3, 0.7: 1},
}
HELD_OUT = 3  # every third prompt of the crops
CHECKED = 3  # prompts that best_of_n makes again with the student
OTHER_SEEDS = 10_000


@dataclass(frozen=True)
class HeldOut:
    """Held-out prompts.

    Attributes:
        plain, early: (P, F, n) scores of the previews by the judge and by the student.
        finals: (P, n) scores of the finished pictures by the judge.
    """

    plain: np.ndarray
    early: np.ndarray
    finals: np.ndarray


@click.command()
@click.option("--only", type=click.Choice(["digits", "lite", "detail"]), help="The digits, or one judge of the crops.")
@click.option("--taught", default=24, show_default=True, type=click.IntRange(min=10), help="Prompts to learn from.")
@click.option("--held-out", default=24, show_default=True, type=click.IntRange(min=2), help="Prompts to look at.")
@click.option("--cache", type=click.Path(path_type=Path), default=small_generator.DEFAULT_CACHE, show_default=True)
def main(only: str | None, taught: int, held_out: int, cache: Path) -> None:
    torch.set_num_threads(1)
    print(machine(), flush=True)
    if only in (None, "digits"):
        pipe, judge = small_generator.load_or_train(cache), small_generator.judges()[0]
        words = [str(digit) for digit in range(small_generator.DIGITS)]
        compare("digits", pipe, judge, words, words, taught, held_out)
    known, unknown = _divided(crop_generator.PROMPTS)
    for name, judge in crop_generator.judges().items():
        if only in (None, name):
            compare("crops", crop_generator.generator(), judge, known, unknown, taught, held_out)


def compare(
    name: str, pipe: Any, judge: Scorer, known: Sequence[str], unknown: Sequence[str], taught: int, held_out: int
) -> None:
    """Teaches a student on known prompts, and prints what it keeps on the unknown ones."""
    start = time.perf_counter()
    with tempfile.TemporaryDirectory() as folder:
        kept, file = Path(folder, "kept"), Path(folder, "early.safetensors")
        keep(pipe, judge, known, taught, kept, seed=0)
        print(
            f"\n{name}, judged by {judge.info.name}: {taught} prompts to learn from, {held_out} held out.", flush=True
        )
        try:
            early = distill_previews(kept, file)
        except MaAgiqaError as refusal:
            print(f"Refused: {refusal}", flush=True)
            return
        others = keep(pipe, judge, unknown, held_out, Path(folder, "others"), seed=OTHER_SEEDS)
        print(early_text(early, file))
        print(table(judged(judge, early, others)))
        print(in_the_loop(pipe, judge, early, others))
        print(f"{time.perf_counter() - start:.0f} s.", flush=True)


def keep(pipe: Any, judge: Scorer, prompts: Sequence[str], count: int, folder: Path, seed: int) -> list[KeptPrompt]:
    """Previews with their scores, of `count` prompts; a repeated one has other seeds."""
    words = [prompts[number % len(prompts)] for number in range(count)]
    settings = {key: value for key, value in CALL.items() if key != "output_type"}
    calibrate(
        pipe,
        judge,
        words,
        n=N,
        fractions=FRACTIONS,
        seed=seed,
        batch_size=N,
        preview="vae",
        save_previews=folder,
        **settings,
    )
    return read_kept(folder)


def judged(judge: Scorer, early: EarlyScorer, kept: Sequence[KeptPrompt]) -> HeldOut:
    scorers = {fraction: judge_of_previews(judge, early, fraction) for fraction in FRACTIONS}
    said = [[_score(scorers[f], row, one.prompt) for f, row in zip(FRACTIONS, one.files, strict=True)] for one in kept]
    return HeldOut(np.stack([one.previews for one in kept]), np.array(said), np.stack([one.finals for one in kept]))


def _score(scorer: Scorer, files: Sequence[Path], prompt: str) -> np.ndarray:
    pictures = [PIL.Image.open(file).convert("RGB") for file in files]
    return scorer.score(pictures, [prompt] * len(files)).double().numpy()


def table(held: HeldOut) -> str:
    lines = ["\n| at | " + " | ".join(f"{fraction:.0%}" for fraction in FRACTIONS) + " |"]
    lines.append("|---|" + "---|" * len(FRACTIONS))
    for name, scores in (("judge", held.plain), ("student", held.early)):
        means = [
            np.mean([srcc(*pair) for pair in zip(scores[:, at], held.finals, strict=True)])
            for at in range(len(FRACTIONS))
        ]
        lines.append(
            f"| rank correlation with the final score, {name} | " + " | ".join(f"{m:.2f}" for m in means) + " |"
        )
    lines += ["\n| schedule | cost | share of the gain, judge | share, student | difference |", "|---|---|---|---|---|"]
    full = full_gain(held.finals)
    for name, schedule in SCHEDULES.items():
        plain, cost = kept_gain(schedule, held.plain, held.finals)
        early, _ = kept_gain(schedule, held.early, held.finals)
        shares = (_share(gain, full) for gain in (plain, early))
        lines.append(f"| {name} | {cost:.3f} | {' | '.join(shares)} | {_share(early - plain, full, sign='+')} |")
    return "\n".join(lines)


def kept_gain(schedule: Mapping[float, int], previews: np.ndarray, finals: np.ndarray) -> tuple[np.ndarray, float]:
    """(P,) gain over one picture at random, and the cost, of finishing all."""
    rule = tuple(Look(FRACTIONS.index(fraction), count) for fraction, count in schedule.items())
    gain, cost = replay(rule, previews, finals, np.array(FRACTIONS))
    return gain, float(cost.mean())


def in_the_loop(pipe: Any, judge: Scorer, early: EarlyScorer, kept: Sequence[KeptPrompt]) -> str:
    """The first held-out prompts again, by best_of_n: what is kept is what the replay keeps."""
    schedule = next(iter(SCHEDULES.values()))
    held = judged(judge, early, kept[:CHECKED])
    gain, _ = kept_gain(schedule, held.early, held.finals)
    differences = []
    for one, expected, finals in zip(kept, gain, held.finals, strict=False):
        result = best_of_n(
            pipe,
            judge,
            one.prompt,
            n=N,
            prune_at=schedule,
            seed=OTHER_SEEDS,
            batch_size=N,
            preview="vae",
            early_scorer=early,
            **CALL,
        )
        differences.append(abs(result.scores[0] - finals.mean() - expected))
    largest = max(differences)
    return f"\nbest_of_n(early_scorer=...) on {CHECKED} of these prompts differs from the replay by {largest:.1e}."


def _share(gains: np.ndarray, of: np.ndarray, sign: str = "") -> str:
    share, low, high = ratio(gains, of)
    return f"{share:{sign}.3f} ({low:{sign}.3f} to {high:{sign}.3f})"


def _divided(prompts: Sequence[str]) -> tuple[list[str], list[str]]:
    """Each thing is held out at one distance, another from thing to thing."""
    out = [(number // HELD_OUT + number) % HELD_OUT == 0 for number in range(len(prompts))]
    return [p for p, is_out in zip(prompts, out, strict=True) if not is_out], [
        p for p, is_out in zip(prompts, out, strict=True) if is_out
    ]


if __name__ == "__main__":
    main()
