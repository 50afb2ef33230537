"""The report of a calibration: its figures, put together from the scores, as text, JSON and a picture."""

from __future__ import annotations

import json
import math
import os
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np

from ...atomic_write import atomic_write
from ...scorers.watching import Watch
from ..planning.plan import PruningPlan
from ..planning.planner import plan_pruning
from .figures import CalibrationFigures, FractionResult, Recommendation, Setting
from .plot import draw
from .replay import Measured, Schedule, bootstrap_mean, bootstrap_ratio
from .text import text

FORMAT = 1


class CalibrationReport(CalibrationFigures):
    """The figures of a calibration, as text, JSON and a picture."""

    def to_dict(self) -> dict[str, Any]:
        """All of it for JSON: no NaN or infinity, keys are strings."""
        facts = {
            name: getattr(self, name)
            for name in (
                "random",
                "best",
                "observed_random",
                "observed_best",
                "network_evaluations",
                "preview_cost",
                "prompts",
            )
        }
        scores = {"previews": self.measured.previews.tolist(), "final": self.measured.final.tolist()}
        return _for_json(
            {
                "format": FORMAT,
                "setting": asdict(self.setting),
                "recommended": asdict(self.recommended),
                "table": [asdict(row) for row in self.table],
                **facts,
                "watch": [watch.to_dict() for watch in self.watch],
                "scores": scores,
            }
        )

    def save(self, path: str | os.PathLike[str]) -> None:
        """Writes `to_dict` as JSON; the file appears whole or not at all."""
        with atomic_write(Path(path), is_shared=True) as temporary:
            temporary.write_text(json.dumps(self.to_dict(), indent=1, ensure_ascii=False) + "\n", encoding="utf-8")

    def plot(self, path: str | os.PathLike[str]) -> None:
        """Draws rank correlation by fraction, and the share of the gain by cost, as a PNG."""
        draw(self, Path(path))

    def __str__(self) -> str:
        return text(self)


def make_report(
    setting: Setting,
    prompts: tuple[str, ...],
    measured: Measured,
    observed: np.ndarray | None,
    preview_cost: float,
    watch: tuple[Watch, ...] = (),
) -> CalibrationReport:
    """Puts the report together.

    Args:
        setting: What was calibrated.
        prompts: As many as there are rows in `measured`.
        measured: All scores.
        observed: (P, n) final scores of the second scorer, or None.
        preview_cost: Of one preview and its score, in network evaluations.
        watch: Of each scorer that only watches.
    """
    rows = tuple(
        _fraction_result(measured, index, fraction, step, observed)
        for index, (fraction, step) in enumerate(setting.fractions.items())
    )
    winners = measured.final.argmax(1)
    plan = _plan(setting, measured, preview_cost)
    return CalibrationReport(
        setting=setting,
        prompts=prompts,
        table=rows,
        recommended=_recommendation(setting, measured, plan),
        random=float(measured.final.mean()),
        best=float(measured.final.max(1).mean()),
        observed_random=None if observed is None else float(observed.mean()),
        observed_best=None if observed is None else float(observed[np.arange(len(winners)), winners].mean()),
        network_evaluations=measured.total,
        preview_cost=preview_cost,
        measured=measured,
        watch=watch,
        plan=plan,
    )


def _fraction_result(
    measured: Measured, index: int, fraction: float, step: int, observed: np.ndarray | None
) -> FractionResult:
    from ...metrics import srcc

    pairs = zip(measured.previews[:, index], measured.final, strict=True)
    correlations = np.array([value for value in (srcc(*pair) for pair in pairs) if not math.isnan(value)])
    P, n = measured.final.shape
    prompts, winners = np.arange(P), measured.final.argmax(1)
    survives, regret, share, cost, seen = {}, {}, {}, {}, {}
    full = measured.full_gain
    for keep in range(1, n):
        schedule: Schedule = ((index, keep),)
        alive, gain = measured.survivors(schedule), measured.gain(schedule)
        survives[keep] = float(alive[prompts, winners].mean())
        regret[keep] = float((full - gain).mean())
        share[keep] = float(gain.sum() / full.sum()) if full.sum() > 0 else math.nan
        cost[keep] = measured.cost(schedule)
        if observed is not None:
            chosen = np.where(alive, measured.final, -np.inf).argmax(1)
            seen[keep] = float(observed[prompts, chosen].mean())
    return FractionResult(
        fraction=fraction,
        step=step,
        rank_correlation=float(correlations.mean()) if len(correlations) else math.nan,
        rank_correlation_interval=bootstrap_mean(correlations),
        winner_survives=survives,
        regret=regret,
        share_of_gain=share,
        cost=cost,
        observed=seen,
    )


def _plan(setting: Setting, measured: Measured, preview_cost: float) -> PruningPlan:
    """Of the fractions that are the same call only the first is planned with; keys are the setting's fractions."""
    fractions, distinct = list(setting.fractions), _distinct(setting)
    done = measured.evaluations[distinct] / measured.total
    one = measured.total / setting.n  # evaluations of one candidate
    plan = plan_pruning(
        measured.previews[:, distinct],
        measured.final,
        done,
        target_share=setting.target_share,
        preview_cost=preview_cost / one,
    )
    return plan.renamed([fractions[index] for index in distinct])


def _distinct(setting: Setting) -> list[int]:
    steps = list(setting.fractions.values())
    return [index for index, step in enumerate(steps) if step not in steps[:index]]


def _recommendation(setting: Setting, measured: Measured, plan: PruningPlan) -> Recommendation:
    is_pruned, interval, share, cost = bool(plan.prune_at), None, 1.0, 1.0
    if is_pruned:
        gains, costs = plan.evaluations(measured.previews[:, _distinct(setting)], measured.final)
        full = measured.full_gain
        interval, share, cost = bootstrap_ratio(gains, full), float(gains.sum() / full.sum()), float(costs.mean())
    return Recommendation(
        prune_at=plan.prune_at,
        margin=plan.margin,
        n=setting.n,
        steps=setting.steps,
        scheduler=setting.scheduler,
        share_of_gain=share,
        share_of_gain_interval=interval,
        share_of_gain_held_out=plan.expected_share if is_pruned else None,
        share_of_gain_lower_bound=plan.promised_share,
        cost=cost,
        time=plan.cost,
        network_evaluations=cost * measured.total,
        reason=plan.reason,
    )


def _for_json(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {str(key): _for_json(entry) for key, entry in value.items()}
    if isinstance(value, list | tuple):
        return [_for_json(entry) for entry in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
