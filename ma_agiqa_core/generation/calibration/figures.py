"""The figures of a calibration: what was calibrated, what previews are worth by fraction, and the recommendation."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from ...scorers.watching import Watch
from ..planning.plan import PruningPlan
from .replay import Measured

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
        prune_at: Fraction to keep count, as `best_of_n` takes it, with the margins in it; empty: prune nothing.
        margin: Fraction to how far a preview may trail the best one, in units of the score; empty without margins.
        n: Candidates of a prompt.
        steps: `num_inference_steps` where it was given, else the scheduler calls.
        scheduler: Class name.
        share_of_gain: Of the full gain, on the prompts that it was chosen on.
        share_of_gain_interval: 95 %, over prompts.
        share_of_gain_held_out: Of the full gain, by prompts left out of the choice: what to expect of new ones.
        share_of_gain_lower_bound: Of that: what is promised; None if nothing is pruned.
        cost: Network evaluations, of those of full best-of-n, 0 to 1.
        time: The same with previews and their scores, in as many evaluations as take their time.
        network_evaluations: Of one prompt.
        reason: Why nothing is to be pruned, or "".
    """

    prune_at: dict[float, int]
    margin: dict[float, float]
    n: int
    steps: int
    scheduler: str
    share_of_gain: float
    share_of_gain_interval: Interval
    share_of_gain_held_out: float | None
    share_of_gain_lower_bound: float | None
    cost: float
    time: float
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
class CalibrationFigures:
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
        watch: What each scorer that only watches says of choosing by the other: its share of its own gain.
        plan: What is recommended, to be applied to other scores.
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
    plan: PruningPlan
    watch: tuple[Watch, ...] = ()
