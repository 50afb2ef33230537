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
    """One way of choosing among N, measured by one judge: gains (P,) over the mean of the N finished candidates."""

    name: str
    n: int
    evaluations: float
    gain: np.ndarray
    watched_gain: np.ndarray
    chosen: np.ndarray  # (P,) candidates


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
    rng = np.random.default_rng(0)
    for n in SCHEDULES:
        final = measured.final[:, :n]
        full, pruned = measured.evaluations * n / MOST, float(measured.pruned_evaluations[n].mean())
        drawn = rng.integers(0, n, len(final))
        yield _way(measured, f"{n} pruned at random", n, pruned, drawn)
        yield _way(measured, f"best of {n}", n, full, final.argmax(1))
        yield _way(measured, f"{n} pruned, " + arrows(n), n, pruned, measured.pruned[n])
        yield _way(measured, f"{n} pruned by the oracle", n, pruned, final.argmax(1))


def _way(measured: Measured, name: str, n: int, evaluations: float, chosen: np.ndarray) -> Way:
    rows = np.arange(len(chosen))
    gain, watched = (scores[rows, chosen] - scores[:, :n].mean(1) for scores in (measured.final, measured.watched))
    return Way(name, n, evaluations, gain, watched, chosen)


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
        "| way | evaluations | of best of N | gain in score | share of best of N's gain | the very best came back "
        "| watcher's gain |",
        "|---|---|---|---|---|---|---|",
    ]
    found = list(ways(measured))
    full = {way.n: way for way in found if way.name == f"best of {way.n}"}
    for way in found:
        whole = full[way.n]
        share, low, high = ratio(way.gain, whole.gain)
        lines.append(
            f"| {way.name} | {way.evaluations:.0f} | {way.evaluations / whole.evaluations:.1%} | {_mean(way.gain)} "
            f"| {share:.1%} ({low:.1%}–{high:.1%}) | {np.mean(way.chosen == whole.chosen):.1%} "
            f"| {_mean(way.watched_gain)} |"
        )
    for n in SCHEDULES:
        best = measured.watched[:, :n].max(1) - measured.watched[:, :n].mean(1)
        lines.append(
            f"| {n}, chosen by the watcher itself | {full[n].evaluations:.0f} | 100.0% | | | | {_mean(best)} |"
        )
    lines.append(
        f"\nLargest difference between a score after pruning and the same picture's without: {measured.difference:.1e}."
    )
    eight = next(way for way in found if way.name.startswith("8 pruned, "))
    cost = eight.evaluations / full[8].evaluations
    share, low, _ = ratio(eight.gain, full[8].gain)
    odds, odds_low, odds_high = ratio(*(in_log_odds(measured, way) for way in (eight, full[8])))
    lines.append(
        "Log-probability ends at 0, so that avoiding a wrong digit is most of the gain. In log-odds, which do not end, "
        f"{arrows(8)} keeps {odds:.1%} ({odds_low:.1%}–{odds_high:.1%})."
    )
    lines.append(
        f"Bar, {arrows(8)} at most {COST_BAR:.0%} of the evaluations: {cost:.1%}, {_verdict(cost <= COST_BAR)}."
    )
    lines.append(
        f"Bar, {arrows(8)} at least {SHARE_BAR:.0%} of the gain: {share:.1%}, lower end {low:.1%}, "
        f"{_verdict(low >= SHARE_BAR)}."
    )
    return "\n".join(lines)


def in_log_odds(measured: Measured, way: Way) -> np.ndarray:
    """(P,): the gain of the same choice, measured by log(p / (1 - p))."""
    final = measured.final[:, : way.n]
    odds = final - np.log(-np.expm1(final.clip(max=-1e-7)))
    return odds[np.arange(len(odds)), way.chosen] - odds.mean(1)


def ratio(gains: np.ndarray, of: np.ndarray) -> tuple[float, float, float]:
    """Sum by sum, and its bootstrap interval over prompts."""
    rows = np.random.default_rng(0).integers(0, len(gains), (RESAMPLES, len(gains)))
    low, high = np.percentile(gains[rows].sum(1) / of[rows].sum(1), [2.5, 97.5])
    return float(gains.sum() / of.sum()), float(low), float(high)


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

    figure, panels = pyplot.subplots(1, 2, figsize=(11, 4.2), layout="constrained")
    found = list(ways(measured))
    one = measured.evaluations / MOST
    kinds = {
        "all N finished": ("best of", "o-", "tab:blue"),
        "pruned": ("pruned, ", "o-", "tab:red"),
        "pruned by the oracle (ceiling)": ("by the oracle", "^:", "tab:green"),
        "pruned at random (floor)": ("at random", "v:", "grey"),
    }
    titles = ("by the judge that chooses", "by a second judge that only watches")
    for panel, title, which in zip(panels, titles, ("gain", "watched_gain"), strict=True):
        for label, (mark, style, colour) in kinds.items():
            if which == "watched_gain" and "oracle" in mark:
                continue  # the best by the judge that chooses: for the watcher no ceiling
            some = [way for way in found if mark in way.name]
            at = [one, *(way.evaluations for way in some)]
            intervals = [(0.0, 0.0, 0.0), *(ratio(gain := getattr(way, which), np.ones_like(gain)) for way in some)]
            means, lows, highs = (np.array(column) for column in zip(*intervals, strict=True))
            panel.errorbar(at, means, (means - lows, highs - means), fmt=style, color=colour, label=label, capsize=2)
            if mark in ("best of", "pruned, "):
                for way, mean in zip(some, means[1:], strict=True):
                    panel.annotate(f"N={way.n}", (way.evaluations, mean), (4, -12), textcoords="offset points")
        if which == "watched_gain":
            best = [measured.watched[:, :n].max(1) - measured.watched[:, :n].mean(1) for n in SCHEDULES]
            at = [one, *(measured.evaluations * n / MOST for n in SCHEDULES)]
            panel.plot(
                at, [0.0, *(gain.mean() for gain in best)], "^:", color="tab:green", label="its own choice (ceiling)"
            )
        panel.set(title=f"Gain {title}", xlabel="network evaluations per prompt")
        panel.set_ylabel("gain in log-probability of the wanted digit")
        panel.grid(alpha=0.3)
        panel.legend(loc="center right")
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=110)
