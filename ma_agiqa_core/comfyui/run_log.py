"""What a best-of-N run in segments did, as text for people."""

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
) -> str:
    """Several lines: what was scored when, who was kept and dropped, what it cost, and how to have one again.

    Args:
        chosen: Who won.
        heading: What was asked for.
        steps: Of a finished candidate.
        n: How many candidates there were.
        calls: Rows times calls of the diffusion model; a row with guidance counts 2.
        calls_of_one: What one finished candidate takes of them.
        replay: How to make one candidate alone.
    """
    lines = [heading]
    for step in chosen.history:
        done, total = step.step + 1, len(step.scores)
        lines.append(f"after {done} of {steps} steps ({step.fraction:g}): {len(step.kept)} of {total} go on")
        lines.append(f"  kept:    {_listed(step.scores, step.kept)}")
        lines.append(f"  dropped: {_listed(step.scores, step.dropped)}")
    lines.append(f"finished: {_listed(chosen.finished, tuple(chosen.finished))}")
    lines.append(f"best: {_listed(chosen.finished, chosen.rows)}")
    unpruned = round(calls_of_one * n)
    saved = 1 - calls / unpruned if unpruned else 0.0
    lines.append(f"model calls: {calls}, without pruning {unpruned}: {saved:.0%} saved")
    return "\n".join([*lines, replay])


def _listed(scores: Scores, rows: Sequence[int]) -> str:
    """Best first."""
    best_first = sorted(rows, key=lambda row: (-scores[row], row))
    return ", ".join(f"{row} ({scores[row]:.4g})" for row in best_first)
