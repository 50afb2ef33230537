"""What choosing gains on the small generator, against network evaluations: the curve of best-of-N, with and without
pruning, between its floor and its ceiling.

One prompt is a digit with seeds of its own. All 16 candidates of a prompt are finished once; best of 4 and of 8 are
chosen among the first of them, since seeds count on. Each pruned run is a call of `best_of_n` of its own.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from ma_agiqa_core import Scorer
from ma_agiqa_core.generation import best_of_n

from . import small_generator

SCHEDULES = {4: {0.4: 2, 0.7: 1}, 8: {0.4: 3, 0.7: 1}, 16: {0.4: 6, 0.7: 1}}  # by N: {fraction: how many go on}
MOST = max(SCHEDULES)
COST_BAR, SHARE_BAR = 0.60, 0.85  # of best of 8
RESAMPLES = 5000
SEEDS_APART = 100  # first seeds of two prompts; more than candidates
CALL = {"num_inference_steps": small_generator.STEPS, "guidance_scale": 1.0, "output_type": "pt"}


@dataclass(frozen=True)
class Measured:
    """Scores of every prompt's candidates, and of the one that pruning returned.

    Attributes:
        final, watched: (P, 16) scores of the finished pictures by the judge that chooses and by the one that watches.
        evaluations: Of the network for one prompt's 16 candidates, all finished.
        pruned: By N: (P,) which candidate came back.
        pruned_evaluations: By N: (P,).
        difference: Largest between the score of a picture that came back from pruning and its score without.
    """

    final: np.ndarray
    watched: np.ndarray
    evaluations: float
    pruned: Mapping[int, np.ndarray]
    pruned_evaluations: Mapping[int, np.ndarray]
    difference: float


@dataclass(frozen=True)
class Way:
    """One way of choosing among N, and what it gains over one picture at random, the mean of all 16 candidates.

    Attributes:
        gain: (P,) by the judge that chooses.
        odds_gain: (P,) by the same judge in log-odds, which do not end where the log-probability does, at 0.
        watched_gain: (P,) by the judge that watches.
        found: Share of prompts whose very best of N came back.
    """

    name: str
    n: int
    evaluations: float
    gain: np.ndarray
    odds_gain: np.ndarray
    watched_gain: np.ndarray
    found: float


def measure(pipe: Any, chooser: Scorer, watcher: Scorer, prompts: int) -> Measured:
    final, watched = np.zeros((prompts, MOST)), np.zeros((prompts, MOST))
    pruned = {n: np.zeros(prompts, int) for n in SCHEDULES}
    spent = {n: np.zeros(prompts) for n in SCHEDULES}
    evaluations, difference = 0.0, 0.0
    for p in range(prompts):
        prompt, first = str(p % small_generator.DIGITS), SEEDS_APART * p
        whole = best_of_n(
            pipe, chooser, prompt, n=MOST, keep=MOST, seed=first, batch_size=MOST, observe=watcher, **CALL
        )
        candidates = np.array(whole.seeds) - first
        final[p, candidates], watched[p, candidates] = whole.scores, whole.observed
        evaluations += whole.network_evaluations / prompts
        for n, schedule in SCHEDULES.items():
            result = best_of_n(pipe, chooser, prompt, n=n, prune_at=schedule, seed=first, batch_size=n, **CALL)
            pruned[n][p] = result.seeds[0] - first
            spent[n][p] = result.network_evaluations
            difference = max(difference, abs(float(result.scores[0]) - final[p, pruned[n][p]]))
    return Measured(final, watched, evaluations, pruned, spent, difference)


def ways(measured: Measured) -> Iterator[Way]:
    """For each N: one at random, all finished, pruned, and pruned by one who knows the finished pictures' scores."""
    for n in SCHEDULES:
        best = measured.final[:, :n].argmax(1)
        full, pruned = measured.evaluations * n / MOST, float(measured.pruned_evaluations[n].mean())
        yield _way(measured, f"{n} pruned at random", n, pruned, None)
        yield _way(measured, f"best of {n}", n, full, best)
        yield _way(measured, f"{n} pruned, " + arrows(n), n, pruned, measured.pruned[n])
        yield _way(measured, f"{n} pruned by the oracle", n, pruned, best)


def _way(measured: Measured, name: str, n: int, evaluations: float, chosen: np.ndarray | None) -> Way:
    """`chosen`: (P,) candidates; None is chance, which brings what the mean of the N is."""
    odds = measured.final - np.log(-np.expm1(measured.final.clip(max=-1e-7)))  # log(p / (1 - p))
    gains = []
    for scores in (measured.final, odds, measured.watched):
        brought = scores[:, :n].mean(1) if chosen is None else scores[np.arange(len(scores)), chosen]
        gains.append(brought - scores.mean(1))
    found = 1 / n if chosen is None else float(np.mean(chosen == measured.final[:, :n].argmax(1)))
    return Way(name, n, evaluations, *gains, found)


def arrows(n: int) -> str:
    return " → ".join(str(count) for count in (n, *SCHEDULES[n].values()))


# ------------------------------------------------------------------------------------------------------------- tables
def report(measured: Measured, seconds: float) -> str:
    prompts = len(measured.final)
    one = measured.evaluations / MOST
    lines = [
        f"\n{prompts} prompts, {small_generator.STEPS} steps, seeds of their own; {seconds:.0f} s. Pruned at 40 % and "
        "70 % of the steps, previews by the pipeline's VAE. In brackets: bootstrap 95 % interval over prompts.",
        f"One picture: {one:.0f} network evaluations, mean score {measured.final.mean():.3f} (watcher "
        f"{measured.watched.mean():.3f}).\n",
        "| way | evaluations | of best of N | gain in score | share of best of N's gain | the same in log-odds "
        "| the very best came back | watcher's gain |",
        "|---|---|---|---|---|---|---|---|",
    ]
    found = list(ways(measured))
    full = {way.n: way for way in found if way.name == f"best of {way.n}"}
    for way in found:
        whole = full[way.n]
        lines.append(
            f"| {way.name} | {way.evaluations:.0f} | {way.evaluations / whole.evaluations:.1%} | {_mean(way.gain)} "
            f"| {_share(way.gain, whole.gain)} | {_share(way.odds_gain, whole.odds_gain)} | {way.found:.1%} "
            f"| {_mean(way.watched_gain)} |"
        )
    for n in SCHEDULES:
        best = measured.watched[:, :n].max(1) - measured.watched.mean(1)
        lines.append(
            f"| {n}, chosen by the watcher itself | {full[n].evaluations:.0f} | 100.0% | | | | | {_mean(best)} |"
        )
    lines.append(
        f"\nLargest difference between a score after pruning and the same picture's without: {measured.difference:.1e}."
    )
    eight = next(way for way in found if way.name.startswith("8 pruned, "))
    cost = eight.evaluations / full[8].evaluations
    share, low, _ = ratio(eight.gain, full[8].gain)
    lines.append(
        f"Bar, {arrows(8)} at most {COST_BAR:.0%} of the evaluations: {cost:.1%}, {_verdict(cost <= COST_BAR)}."
    )
    lines.append(
        f"Bar, {arrows(8)} at least {SHARE_BAR:.0%} of the gain: {share:.1%}, lower end {low:.1%}, "
        f"{_verdict(low >= SHARE_BAR)}."
    )
    return "\n".join(lines)


def ratio(gains: np.ndarray, of: np.ndarray) -> tuple[float, float, float]:
    """Sum by sum, and its bootstrap interval over prompts."""
    rows = np.random.default_rng(0).integers(0, len(gains), (RESAMPLES, len(gains)))
    low, high = np.percentile(gains[rows].sum(1) / of[rows].sum(1), [2.5, 97.5])
    return float(gains.sum() / of.sum()), float(low), float(high)


def _share(gains: np.ndarray, of: np.ndarray) -> str:
    share, low, high = ratio(gains, of)
    return f"{share:.1%} ({low:.1%}–{high:.1%})"


def _mean(values: np.ndarray) -> str:
    mean, low, high = ratio(values, np.ones_like(values))
    return f"{mean:+.3f} ({low:+.3f} to {high:+.3f})"


def _verdict(is_met: bool) -> str:
    return "met" if is_met else "MISSED"


# ------------------------------------------------------------------------------------------------------------ picture
def draw(measured: Measured, path: Path) -> None:
    """Both judges' gains against network evaluations per prompt."""
    import matplotlib

    matplotlib.use("agg")
    from matplotlib import pyplot

    figure, panels = pyplot.subplots(1, 3, figsize=(15, 4.4), layout="constrained")
    found = list(ways(measured))
    titles = {
        "gain": "log-probability, by the judge that chooses",
        "odds_gain": "log-odds, by the judge that chooses",
        "watched_gain": "log-probability, by a judge that only watches",
    }
    kinds = {
        "all N finished": ("best of", "o-", "tab:blue"),
        "pruned": ("pruned, ", "o-", "tab:red"),
        "pruned by the oracle: ceiling": ("by the oracle", "^:", "tab:green"),
        "pruned at random: floor": ("at random", "v:", "grey"),
    }
    for panel, (which, title) in zip(panels, titles.items(), strict=True):
        for label, (mark, style, colour) in kinds.items():
            some = [way for way in found if mark in way.name]
            gains = {way.evaluations: getattr(way, which) for way in some}
            if which == "watched_gain" and mark == "by the oracle":  # the watcher's ceiling is its own choice
                label = "chosen by the watcher itself: ceiling"
                best = {n: measured.watched[:, :n].max(1) - measured.watched.mean(1) for n in SCHEDULES}
                gains = {measured.evaluations * n / MOST: best[n] for n in SCHEDULES}
            ends = [ratio(gain, np.ones_like(gain)) for gain in gains.values()]
            means, lows, highs = (np.array(column) for column in zip((0, 0, 0), *ends, strict=True))
            at = [measured.evaluations / MOST, *gains]
            panel.errorbar(at, means, (means - lows, highs - means), fmt=style, color=colour, label=label, capsize=2)
            if mark in ("best of", "pruned, "):
                for way, mean in zip(some, means[1:], strict=True):
                    panel.annotate(
                        f"{way.n}", (way.evaluations, mean), (5, -13), textcoords="offset points", color=colour
                    )
        panel.set(title=title, xlabel="network evaluations per prompt", ylabel="gain over one picture at random")
        panel.grid(alpha=0.3)
        panel.legend(loc="center right")
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=90)
