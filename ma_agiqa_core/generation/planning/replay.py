"""What a rule of pruning would have kept and cost, replayed on candidates that were all finished.

Pruning that is exact changes no survivor: the previews' scores say who would have been dropped, the finished pictures'
scores what that would have lost.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class Stage:
    """One look at the previews.

    Attributes:
        place: Which of the fractions.
        keep: How many survive at most; None: as many as there are.
        margin: Who trails the best preview by more, in units of the score, is dropped; None: nobody.
    """

    place: int
    keep: int | None = None
    margin: float | None = None


Rule = tuple[Stage, ...]
"""Stages by ascending place; none: prune nothing."""


def replay(
    rule: Rule, previews: np.ndarray, finals: np.ndarray, fractions: np.ndarray, preview_cost: float = 0.0
) -> tuple[np.ndarray, np.ndarray]:
    """What the rule keeps and costs.

    Args:
        rule: The stages.
        previews: (P, F, n) scores.
        finals: (P, n) scores.
        fractions: (F,) of the evaluations of one candidate, ascending.
        preview_cost: Of one preview and its score, in evaluations of one whole candidate.

    Returns:
        Per prompt: the best survivor's final score less the mean of all n, and the cost, of that of n finished ones.
    """
    alive = np.ones(finals.shape, dtype=bool)
    cost, before = np.zeros(len(finals)), 0.0
    for stage in rule:
        rows = alive.mean(1)
        cost += rows * (fractions[stage.place] - before + preview_cost)
        before = fractions[stage.place]
        alive &= survivors(stage, previews[:, stage.place], alive)
    cost += alive.mean(1) * (1 - before)
    return np.where(alive, finals, -np.inf).max(1) - finals.mean(1), cost


def survivors(stage: Stage, scores: np.ndarray, alive: np.ndarray) -> np.ndarray:
    """Who of those alive (P, n) survives a stage by its scores (P, n); of equal ones the first."""
    there = np.where(alive, scores, -np.inf)
    kept = alive
    if stage.margin is not None:
        kept = kept & (there >= there.max(1, keepdims=True) - stage.margin)
    if stage.keep is not None:
        kept = kept & (_places(there) < stage.keep)
    return kept


def full_gain(finals: np.ndarray) -> np.ndarray:
    """(P,): what best-of-n gains over one candidate at random, by its final scores (P, n)."""
    return finals.max(1) - finals.mean(1)


def _places(scores: np.ndarray) -> np.ndarray:
    """The place of each in its row (P, n), the best is 0; of equal ones the first is ahead."""
    order = np.argsort(-scores, axis=1, kind="stable")
    places = np.empty_like(order)
    np.put_along_axis(places, order, np.broadcast_to(np.arange(scores.shape[1]), scores.shape), axis=1)
    return places
