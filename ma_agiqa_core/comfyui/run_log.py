"""What a best-of-N run in segments did, as readable text."""

from collections.abc import Sequence

from ..generation.pruning.rule import Scores
from .segmented_best_of_n import Chosen


def run_log(
    chosen: Chosen,
    *,
    heading: str,
    steps: int,
    n: int,
    calls: int,
    calls_of_one: float,
    replay: str,
    first: int = 0,
) -> str:
    """Several lines: what was scored when, what was kept and dropped, what it cost, and how to reproduce a candidate.

    Args:
        chosen: The winners.
        heading: The settings of the run.
        steps: Of a finished candidate.
        n: How many candidates there were.
        calls: Rows times calls of the diffusion model; a row with guidance counts 2.
        calls_of_one: How many of them one finished candidate takes.
        replay: How to reproduce one candidate.
        first: The number of the first candidate.
    """
    lines = [heading]
    for step in chosen.history:
        done, total = step.step + 1, len(step.scores)
        lines.append(f"after {done} of {steps} steps ({step.fraction:g}): {len(step.kept)} of {total} kept")
        lines.append(f"  kept:    {_listed(step.scores, step.kept, first)}")
        lines.append(f"  dropped: {_listed(step.scores, step.dropped, first)}")
    lines.append(f"finished: {_listed(chosen.finished, tuple(chosen.finished), first)}")
    lines.append(f"best: {_listed(chosen.finished, chosen.rows, first)}")
    unpruned = round(calls_of_one * n)
    saved = 1 - calls / unpruned if unpruned else 0.0
    lines.append(f"model calls: {calls}, without pruning {unpruned}: {saved:.0%} saved")
    return "\n".join([*lines, replay])


def _listed(scores: Scores, rows: Sequence[int], first: int) -> str:
    """Best first."""
    best_first = sorted(rows, key=lambda row: (-scores[row], row))
    return ", ".join(f"{first + row} ({scores[row]:.4g})" for row in best_first)
