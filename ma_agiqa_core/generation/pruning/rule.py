"""When candidates are pruned, and which survive: the best of each prompt at a stage, of equal ones the earlier row."""

from collections.abc import Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

Scores = Mapping[int, float]


@dataclass(frozen=True)
class PruningStep:
    """What was decided at one step.

    Attributes:
        step: Index of the step after which it was decided, from 0.
        fraction: Of `prune_at`.
        scores: Of the previews, by original row.
        kept: Original rows that survive, ascending.
        dropped: The others.
    """

    step: int
    fraction: float
    scores: Mapping[int, float]
    kept: tuple[int, ...]
    dropped: tuple[int, ...]

    @classmethod
    def of(cls, step: int, fraction: float, scores: Scores, kept: Iterable[int]) -> "PruningStep":
        """What is not kept was dropped."""
        survivors = tuple(sorted(kept))
        return cls(step, fraction, scores, survivors, tuple(row for row in scores if row not in survivors))


def judge_of_previews(scorer: Any, early_scorer: Any, fraction: float) -> Any:
    """Who scores the previews at a fraction of the steps.

    Args:
        scorer: Of the finished pictures.
        early_scorer: None, any scorer, or what has a scorer for each fraction: `at(fraction)`, or `at(fraction,
            scorer)` where the scorer's own score of the preview weighs in.
        fraction: Of the steps.
    """
    if early_scorer is None:
        return scorer
    if not hasattr(early_scorer, "at"):
        return early_scorer
    if getattr(early_scorer, "beside", None) is not None:
        return early_scorer.at(fraction, scorer)
    return early_scorer.at(fraction)


def call_of(fraction: float, calls: int) -> int:
    """After which of the scheduler calls a fraction of them is done: at least 1, never the last."""
    return min(max(1, round(fraction * calls)), calls - 1)


def kept_rows(
    scores: Scores,
    keep: int,
    *,
    groups: Mapping[int, Hashable] | None = None,
    min_score: float | None = None,
    margin: float | None = None,
    least: int = 1,
) -> list[int]:
    """The rows that survive.

    Args:
        scores: By row.
        keep: How many of each group.
        groups: Which rows compete; None: all of them.
        min_score: Rows below it go, but the best of a group stays even then.
        margin: Rows that trail the best of their group by more go; None: nobody for that.
        least: How many of a group stay whatever the margin says.

    Returns:
        Ascending rows.
    """
    members: dict[Hashable, list[int]] = {}
    for row in scores:
        members.setdefault(None if groups is None else groups[row], []).append(row)
    kept: list[int] = []
    for rows in members.values():
        rows.sort(key=lambda row: (-scores[row], row))
        good = sum(min_score is None or scores[row] >= min_score for row in rows)
        if margin is not None:
            near = sum(scores[row] >= scores[rows[0]] - margin for row in rows)
            good = min(good, max(near, least))
        kept += rows[: max(1, min(keep, good))]
    return sorted(kept)


def is_out(
    candidate: Sequence[float],
    earlier: Sequence[Sequence[float]],
    keep: int,
    min_score: float | None = None,
    margin: float | None = None,
    least: int = 1,
) -> bool:
    """Whether a candidate cannot be kept at its last stage, whatever candidates are still to come.

    It is out if `keep` earlier candidates are at least as good at this stage and at every stage before: wherever it
    had survived, they would have survived too, and they are ahead of it now. Of those below `min_score` only the best
    of all can stay, so that there one such candidate suffices; of those that trail one such candidate by more than
    `margin` only `least` can.

    Args:
        candidate: Its scores at the stages so far.
        earlier: Those of the candidates before it; one that was stopped has fewer.
    """
    stage = len(candidate) - 1
    better = [
        scores[stage]
        for scores in earlier
        if len(scores) > stage and all(other >= own for other, own in zip(scores, candidate, strict=False))
    ]
    if min_score is not None and candidate[-1] < min_score:
        keep = 1
    elif margin is not None and better and candidate[-1] < max(better) - margin:
        keep = min(keep, least)
    return len(better) >= keep


def kept_by_stage(
    candidates: Sequence[Sequence[float]],
    keep: Sequence[int],
    *,
    groups: Sequence[Hashable],
    min_score: float | None = None,
    margins: Sequence[float | None] | None = None,
    least: int = 1,
) -> list[tuple[dict[int, float], list[int]]]:
    """What pruning all candidates together would have done, from candidates that were stopped only where `is_out`.

    Returns:
        Per stage that candidates have reached: the scores of those that came so far, and which of them survive.
    """
    alive = list(range(len(candidates)))
    stages = []
    for stage, count in enumerate(keep):
        scores = {row: candidates[row][stage] for row in alive if len(candidates[row]) > stage}
        if not scores:
            break
        alive = kept_rows(
            scores,
            count,
            groups=dict(enumerate(groups)),
            min_score=min_score,
            margin=None if margins is None else margins[stage],
            least=least,
        )
        stages.append((scores, alive))
    return stages
