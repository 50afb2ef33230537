"""What a calibration found: the table, the recommendation, and their forms for people, programs and eyes."""

from __future__ import annotations

import json
import math
import os
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from ...atomic_write import atomic_write
from .replay import LEAST_PROMPTS, Choice, Measured, Schedule, bootstrap_mean, choose

FORMAT = 1

Interval = tuple[float, float] | None


@dataclass(frozen=True)
class FractionResult:
    """What the previews at one fraction of the steps are worth.

    The mappings go from how many candidates would be kept here, and only here, to what comes of it.

    Attributes:
        fraction: Of the scheduler calls.
        step: After how many scheduler calls that is.
        rank_correlation: Spearman's, of preview and final scores within a prompt, mean over prompts; NaN where all
            candidates of every prompt score alike.
        rank_correlation_interval: 95 %, over prompts.
        winner_survives: Share of the prompts whose best finished picture is among those kept.
        regret: How much worse the best finished picture of those kept scores than that of all, mean over prompts.
        share_of_gain: Of what best-of-n gains over one picture at random; NaN where there is no gain.
        cost: Network evaluations, of those of full best-of-n, 0 to 1.
        observed: What the second scorer gives the picture chosen, mean over prompts; empty without one.
    """

    fraction: float
    step: int
    rank_correlation: float
    rank_correlation_interval: Interval
    winner_survives: Mapping[int, float]
    regret: Mapping[int, float]
    share_of_gain: Mapping[int, float]
    cost: Mapping[int, float]
    observed: Mapping[int, float]


@dataclass(frozen=True)
class Recommendation:
    """A `prune_at`, and what it holds for: with another n, number of steps or scheduler it is a guess.

    Attributes:
        prune_at: Fraction to keep count, as `best_of_n` takes it; empty: prune nothing.
        n: Candidates of a prompt.
        steps: `num_inference_steps` where it was given, else the scheduler calls.
        scheduler: Class name.
        share_of_gain: Of the full gain, on the prompts that it was chosen on.
        share_of_gain_interval: 95 %, over prompts.
        share_of_gain_held_out: Of the full gain, on prompts left out of the choice: what to expect of new ones.
        share_of_gain_lower_bound: Of `share_of_gain_held_out`, over prompts; None if nothing is pruned.
        cost: Network evaluations, of those of full best-of-n, 0 to 1.
        network_evaluations: Of one prompt.
        reason: Why nothing is to be pruned, or "".
    """

    prune_at: dict[float, int]
    n: int
    steps: int
    scheduler: str
    share_of_gain: float
    share_of_gain_interval: Interval
    share_of_gain_held_out: float | None
    share_of_gain_lower_bound: float | None
    cost: float
    network_evaluations: float
    reason: str = ""


@dataclass(frozen=True)
class Setting:
    """What was calibrated, and with what.

    Attributes:
        pipeline: Class name.
        scheduler: Class name.
        n: Candidates of a prompt.
        steps: `num_inference_steps` where it was given, else the scheduler calls.
        scheduler_calls: That really happen.
        fractions: Of them, with how many calls each is; ascending.
        seed: Of the first candidate.
        arguments: Of the pipeline, as far as JSON holds them.
        preview: How the previews were decoded.
        scorer: Name and revision.
        observer: Of the second scorer, or None.
        target_share: The wanted share of the gain.
    """

    pipeline: str
    scheduler: str
    n: int
    steps: int
    scheduler_calls: int
    fractions: dict[float, int]
    seed: int
    arguments: dict[str, Any]
    preview: str
    scorer: str
    observer: str | None
    target_share: float


@dataclass(frozen=True, eq=False)
class CalibrationReport:
    """Where to prune, and all that says so.

    Attributes:
        setting: What was calibrated.
        prompts: The prompts that were finished.
        table: By fraction, ascending.
        recommended: The cheapest way to prune that keeps the wanted share of the gain.
        random: Mean final score: one picture at random.
        best: Mean final score of the winners: best-of-n.
        observed_random: The second scorer's mean, or None.
        observed_best: What it gives the winners, or None.
        network_evaluations: Of one prompt, all candidates finished.
        preview_cost: How many network evaluations one preview and its score take as long as.
        measured: All scores.
    """

    setting: Setting
    prompts: tuple[str, ...]
    table: tuple[FractionResult, ...]
    recommended: Recommendation
    random: float
    best: float
    observed_random: float | None
    observed_best: float | None
    network_evaluations: float
    preview_cost: float
    measured: Measured

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
                "scores": scores,
            }
        )

    def save(self, path: str | os.PathLike[str]) -> None:
        """Writes `to_dict` as JSON; the file appears whole or not at all."""
        with atomic_write(Path(path), is_shared=True) as temporary:
            temporary.write_text(json.dumps(self.to_dict(), indent=1, ensure_ascii=False) + "\n", encoding="utf-8")

    def plot(self, path: str | os.PathLike[str]) -> None:
        """Draws rank correlation by fraction, and the share of the gain by cost, as a PNG."""
        from .plot import draw

        picture = draw(self)
        with atomic_write(Path(path), is_shared=True) as temporary:
            picture.save(temporary, format="PNG")

    def __str__(self) -> str:
        from .text import text

        return text(self)


def make_report(
    setting: Setting,
    prompts: tuple[str, ...],
    measured: Measured,
    observed: np.ndarray | None,
    preview_cost: float,
) -> CalibrationReport:
    """Puts the report together.

    Args:
        setting: What was calibrated.
        prompts: As many as there are rows in `measured`.
        measured: All scores.
        observed: (P, n) final scores of the second scorer, or None.
        preview_cost: Of one preview and its score, in network evaluations.
    """
    rows = tuple(
        _fraction_result(measured, index, fraction, step, observed)
        for index, (fraction, step) in enumerate(setting.fractions.items())
    )
    winners = measured.final.argmax(1)
    return CalibrationReport(
        setting=setting,
        prompts=prompts,
        table=rows,
        recommended=_recommendation(setting, measured),
        random=float(measured.final.mean()),
        best=float(measured.final.max(1).mean()),
        observed_random=None if observed is None else float(observed.mean()),
        observed_best=None if observed is None else float(observed[np.arange(len(winners)), winners].mean()),
        network_evaluations=measured.total,
        preview_cost=preview_cost,
        measured=measured,
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


def _recommendation(setting: Setting, measured: Measured) -> Recommendation:
    if not measured.full_gain.sum() > 0:
        return _nothing(setting, measured, "all candidates of a prompt score alike, so that best-of-n gains nothing")
    fractions = list(setting.fractions)
    steps = list(setting.fractions.values())
    distinct = [index for index, step in enumerate(steps) if step not in steps[:index]]
    choice = choose(measured, distinct, setting.target_share)
    if not choice.schedule:
        return _nothing(setting, measured, _why_nothing(len(measured.final), choice, setting.target_share))
    return Recommendation(
        prune_at={fractions[index]: keep for index, keep in choice.schedule},
        n=setting.n,
        steps=setting.steps,
        scheduler=setting.scheduler,
        share_of_gain=choice.share,
        share_of_gain_interval=choice.interval,
        share_of_gain_held_out=choice.share_held_out,
        share_of_gain_lower_bound=choice.lower_bound,
        cost=choice.cost,
        network_evaluations=choice.cost * measured.total,
    )


def _why_nothing(prompts: int, choice: Choice, target_share: float) -> str:
    few = f"{prompts} prompt{'s' * (prompts > 1)}"
    if prompts < LEAST_PROMPTS:
        return f"{few} say nothing of others. Take {choice.missing} more, {LEAST_PROMPTS} at least"
    uncertain = f"of no way to prune it is certain that it keeps {target_share:.0%} of the gain on other prompts"
    if choice.missing is None:
        return uncertain
    return f"{uncertain}. About {choice.missing} more than these {few} may show one"


def _nothing(setting: Setting, measured: Measured, reason: str) -> Recommendation:
    return Recommendation(
        prune_at={},
        n=setting.n,
        steps=setting.steps,
        scheduler=setting.scheduler,
        share_of_gain=1.0,
        share_of_gain_interval=None,
        share_of_gain_held_out=None,
        share_of_gain_lower_bound=None,
        cost=1.0,
        network_evaluations=measured.total,
        reason=reason,
    )


def _for_json(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {str(key): _for_json(entry) for key, entry in value.items()}
    if isinstance(value, list | tuple):
        return [_for_json(entry) for entry in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
