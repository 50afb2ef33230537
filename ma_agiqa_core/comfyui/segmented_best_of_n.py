"""Best of N in segments: sample for a while, score previews, continue with the best of them.

For samplers that can be stopped and continued between two steps, such as ComfyUI's. The sampler itself is behind
`Candidates`; this module decides when it stops, which candidates continue, and which win.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from ..errors import MaAgiqaError
from ..generation.pruning.finite_scores import finite_scores
from ..generation.pruning.rule import PruningStep, call_of, kept_rows
from ..generation.pruning.schedule import PruneSchedule
from ..pictures.inputs import Pictures
from ..scorers.scorer import Scorer
from .latents import Latent, latent_count, latent_rows


@dataclass(frozen=True)
class Stage:
    """One stop.

    Attributes:
        step: After how many steps.
        fraction: What was asked for.
        keep: How many candidates continue.
    """

    step: int
    fraction: float
    keep: int


@dataclass(frozen=True)
class Chosen:
    """The best candidates, and how they were chosen.

    Attributes:
        rows: The best, best first.
        scores: Theirs, as finished pictures.
        finished: The scores of all that were finished, by row.
        history: What was dropped, and when.
    """

    rows: tuple[int, ...]
    scores: tuple[float, ...]
    finished: Mapping[int, float]
    history: tuple[PruningStep, ...]


@dataclass(frozen=True)
class Outcome:
    """How far one candidate got.

    Attributes:
        row: Which candidate.
        score: Of its finished picture, or of the preview at which it was dropped.
        steps: After how many it was dropped; None if it was finished.
    """

    row: int
    score: float
    steps: int | None = None


def outcomes(chosen: Chosen) -> list[Outcome]:
    """Of all candidates: the finished ones best first, then the dropped ones, the last dropped first.

    Example:
        >>> step = PruningStep(7, 0.4, {0: 0.2, 1: 0.9, 2: 0.5}, kept=(1, 2), dropped=(0,))
        >>> [outcome.row for outcome in outcomes(Chosen((2,), (0.6,), {1: 0.4, 2: 0.6}, (step,)))]
        [2, 1, 0]
    """
    found = [Outcome(row, score) for row, score in chosen.finished.items()]
    for step in chosen.history:
        found += [Outcome(row, step.scores[row], step.step + 1) for row in step.dropped]
    return sorted(found, key=lambda outcome: (-(outcome.steps or math.inf), -outcome.score, outcome.row))


class Candidates(Protocol):
    """What makes candidates piece by piece. Rows that are left out never come back."""

    def previews(self, rows: Sequence[int], step: int) -> Pictures:
        """Continues to this step with these rows, and returns previews of them."""
        ...

    def pictures(self, rows: Sequence[int]) -> Pictures:
        """Finishes these rows."""
        ...

    def leads(self, row: int) -> None:
        """Told after each stop which candidate is the best so far."""
        ...


def stages_of(text: str, *, n: int, keep: int, steps: int) -> list[Stage]:
    """When to stop, from a text such as "0.4:4, 0.7:2".

    A stop that drops no candidate is left out; of several at one step the last counts.

    Args:
        text: Fractions of the steps, each with the number of candidates to keep there, in any order.
        n: How many candidates there are.
        keep: How many are wanted at the end.
        steps: How many steps a finished picture takes.

    Raises:
        ValueError: The text is malformed, or asks for what cannot be done.

    Example:
        >>> stages_of("0.4:4, 0.7:2", n=8, keep=1, steps=20)
        [Stage(step=8, fraction=0.4, keep=4), Stage(step=14, fraction=0.7, keep=2)]
    """
    if keep > n:
        raise MaAgiqaError(
            f"Expected to keep at most the {n} candidates there are, got {keep}. Start more candidates, or lower keep."
        )
    schedule = PruneSchedule.parse(text)
    schedule.check(n, keep)
    before = n
    stages: dict[int, Stage] = {}
    for fraction, count in schedule.stages:
        if count < before:
            step = call_of(fraction, steps)
            stages[step] = Stage(step, fraction, count)
        before = count
    if stages and steps < 2:
        raise MaAgiqaError(f"Expected at least 2 steps to prune between, got {steps}. Raise steps, or empty prune_at.")
    return list(stages.values())


def candidate_latents(latent: Latent, n: int) -> dict[str, Any]:
    """One latent n times, or the n that there are, each with the index of its noise.

    Returns:
        A latent of n rows with "batch_index".

    Raises:
        ValueError: Another number of latents, or latents of sound.

    Example:
        >>> import torch
        >>> latent = candidate_latents({"samples": torch.zeros(1, 4, 8, 8)}, n=3)
        >>> latent["samples"].shape, latent["batch_index"]
        (torch.Size([3, 4, 8, 8]), [0, 1, 2])
    """
    count = latent_count(latent)
    if count not in (1, n):
        raise MaAgiqaError(
            f"Expected one latent, or one for each of {n} candidates, got {count}. Set the batch size of the latent to "
            "1, or the number of candidates to the batch size."
        )
    shape = tuple(latent["samples"].shape)
    if len(shape) not in (4, 5):
        raise MaAgiqaError(
            f"Expected latents of pictures or videos, got {shape}, which are sound. This node chooses among pictures, "
            "and among videos by their first frame."
        )
    if count == n:
        return latent_rows(latent, range(n))
    repeated = latent_rows(latent, [0] * n)
    (first,) = latent_rows(latent, [0])["batch_index"]
    return {**repeated, "batch_index": [first + row for row in range(n)]}


def choose(
    candidates: Candidates, scorer: Scorer, *, prompt: str | None, n: int, keep: int, stages: Sequence[Stage]
) -> Chosen:
    """Makes n candidates, drops the worst at each stage, and returns the best.

    Args:
        candidates: What makes them.
        scorer: Any scorer; higher is better, and of equal scores the earlier row is kept.
        prompt: The text behind the pictures, for scorers that read it.
        n: How many to start with.
        keep: How many are wanted.
        stages: From `stages_of`.

    Raises:
        ValueError: The scorer needs a prompt, or gives a score that is not finite.
    """
    if scorer.info.needs_prompt and not (prompt and prompt.strip()):
        raise MaAgiqaError(
            f"Expected a prompt for {scorer.info.name}, which compares pictures with their text, got none. Connect or "
            "write the text behind 'positive'."
        )
    alive = list(range(n))
    history = []
    for stage in stages:
        scores = _scores(scorer, candidates.previews(alive, stage.step), prompt, alive, "the preview of candidate")
        kept = kept_rows(scores, stage.keep)
        dropped = tuple(row for row in alive if row not in kept)
        history.append(PruningStep(stage.step - 1, stage.fraction, scores, tuple(kept), dropped))
        alive = kept
        candidates.leads(max(alive, key=lambda row: (scores[row], -row)))
    finished = _scores(scorer, candidates.pictures(alive), prompt, alive, "candidate")
    best = sorted(alive, key=lambda row: (-finished[row], row))[:keep]
    return Chosen(tuple(best), tuple(finished[row] for row in best), finished, tuple(history))


def _scores(scorer: Scorer, pictures: Pictures, prompt: str | None, rows: Sequence[int], what: str) -> dict[int, float]:
    names = [f"{what} {row}" for row in rows]
    return dict(zip(rows, finite_scores(scorer, pictures, prompt, names, "Use another scorer."), strict=True))
