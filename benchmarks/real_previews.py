"""What previews of SDXL and FLUX.1-dev are worth, and what `plan_pruning` makes of them.

    python -m benchmarks.real_previews previews.npz

The scores are those published with TTSnap (github TerrysLearning/TTSnap, no licence stated; not part of this
repository): ImageReward, PickScore and HPSv2 of the preview after every one of 20 evaluations, 100 prompts x 96 seeds.
PATH is an .npz with an array (100, 96, 20) for each `MODEL/JUDGE/plain`, the last column the finished picture.

A draw takes so many prompts with 8 seeds each, plans on them, and reads what the plan keeps and costs on all other
prompts, in 12 groups of 8 seeds. Gain is over one picture at random; shares are of full best-of-8's gain.
"""

from __future__ import annotations

import time
from pathlib import Path

import click
import numpy as np

from ma_agiqa_core.generation import PruningPlan, plan_pruning

from .machine import machine

N, EVALUATIONS, DRAWS = 8, 20, 16
LOOKS = np.array([4, 6, 8, 10, 12, 14, 16])  # evaluations, as calibrate's fractions
FRACTIONS = LOOKS / EVALUATIONS
FIXED = {"8 → 3 → 1 at .4, .7": {0.4: 3, 0.7: 1}, "8 → 4 → 2 at .4, .7": {0.4: 4, 0.7: 2}, "8 → 4 at .5": {0.5: 4}}
MODELS, JUDGES = ("flux", "sdxl"), ("imagereward", "pickscore", "hpsv2")
COST_BARS = {
    ("flux", "imagereward"): 0.58,
    ("flux", "pickscore"): 0.62,
    ("flux", "hpsv2"): 0.69,
    ("sdxl", "imagereward"): 0.57,
    ("sdxl", "pickscore"): 0.68,
    ("sdxl", "hpsv2"): 0.73,
}
TARGET, WORST_BAR, PROMISE_BAR, GROWTH_BAR = 0.9, 0.83, 0.01, 1.07


@click.command()
@click.argument("path", type=click.Path(exists=True, path_type=Path))
@click.option("--draws", default=DRAWS, show_default=True, type=click.IntRange(min=1), help="Of calibration prompts.")
def main(path: Path, draws: int) -> None:
    print(machine(), flush=True)
    start = time.perf_counter()
    file = path / "previews.npz" if path.is_dir() else path
    with np.load(file) as arrays:
        sets = {(m, j): arrays[f"{m}/{j}/plain"].astype(np.float64) for m in MODELS for j in JUDGES}
    print(fixed_table(sets), flush=True)
    print(budget_table(sets, max(draws // 4, 1)), flush=True)
    print(plan_table(sets, draws), flush=True)
    print(f"\n{time.perf_counter() - start:.0f} s.")


# ------------------------------------------------------------------------------------------------------ fixed schedules
def fixed_table(sets: dict[tuple[str, str], np.ndarray]) -> str:
    """Share and cost of schedules that know nothing of the model, on all prompts, in groups of 8 seeds."""
    lines = ["\n| model, judge | " + " | ".join(f"{name}: share of the gain, cost" for name in FIXED) + " |"]
    lines.append("|---|" + "---|" * len(FIXED))
    for (model, judge), scores in sets.items():
        previews, finals = grouped(scores)
        cells = []
        for schedule in FIXED.values():
            gain, cost = scheduled(schedule, previews, finals)
            cells.append(f"{gain.sum() / full(finals).sum():.3f}, {cost:.3f}")
        lines.append(f"| {model}, {judge} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def scheduled(schedule: dict[float, int], previews: np.ndarray, finals: np.ndarray) -> tuple[np.ndarray, float]:
    """Gain by group, and cost."""
    alive = np.ones(finals.shape, dtype=bool)
    cost, before = 0.0, 0.0
    for fraction, keep in schedule.items():
        cost += alive[0].mean() * (fraction - before)
        before = fraction
        seen = np.where(alive, previews[:, int(np.argmin(abs(FRACTIONS - fraction)))], -np.inf)
        alive = seen >= np.sort(seen, axis=1)[:, [-keep]]
    return np.where(alive, finals, -np.inf).max(1) - finals.mean(1), float(cost + alive[0].mean() * (1 - before))


# -------------------------------------------------------------------------------------------------------------- planned
def plan_table(sets: dict[tuple[str, str], np.ndarray], draws: int) -> str:
    lines = [
        "\n| model, judge | prompts | share of the gain on others, mean | worst | promised | promise held | cost "
        "| bar of the cost | margins |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    verdicts = []
    for (model, judge), scores in sets.items():
        for prompts in (20, 40):
            shares, costs, promises, margins = planned(scores, prompts, draws)
            bar, held = COST_BARS[model, judge], np.mean(promises <= shares)
            lines.append(
                f"| {model}, {judge} | {prompts} | {shares.mean():.3f} | {shares.min():.3f} "
                f"| {np.nanmean(promises):.3f} | {held:.0%} | {costs.mean():.3f} | {bar if prompts == 20 else ''} "
                f"| {margins.mean():.0%} |"
            )
            if prompts == 20:
                verdicts += [
                    (f"{model}, {judge}: share at least {TARGET}", shares.mean() >= TARGET),
                    (
                        f"{model}, {judge}: promise at most {PROMISE_BAR} above",
                        np.nanmean(promises - shares) <= PROMISE_BAR,
                    ),
                    (f"{model}, {judge}: cost at most {bar}", costs.mean() <= bar),
                ]
            else:
                verdicts.append(
                    (f"{model}, {judge}: worst of {prompts} prompts at least {WORST_BAR}", shares.min() >= WORST_BAR)
                )
    missed = [name for name, is_met in verdicts if not is_met]
    lines.append(
        f"\n{len(verdicts) - len(missed)} of {len(verdicts)} bars met. " + "; ".join(f"MISSED: {n}" for n in missed)
    )
    return "\n".join(lines)


def planned(scores: np.ndarray, prompts: int, draws: int) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """By draw: true share, cost, promised share (NaN without one), whether by a margin."""
    rows = []
    for draw in range(draws):
        plan, others = plan_of_draw(scores, prompts, draw)
        previews, finals = grouped(scores[others])
        gain, cost = plan.apply(previews, finals)
        promised = np.nan if plan.promised_share is None else plan.promised_share
        rows.append((gain.sum() / full(finals).sum(), cost.mean(), promised, bool(plan.margin)))
    shares, costs, promises, margins = np.array(rows, dtype=np.float64).T
    return shares, costs, promises, margins


def plan_of_draw(scores: np.ndarray, prompts: int, draw: int) -> tuple[PruningPlan, np.ndarray]:
    """The plan from some prompts with 8 seeds each, and the prompts that it did not see."""
    random = np.random.default_rng(draw)
    shuffled = random.permutation(len(scores))
    seen = np.stack([scores[prompt, random.permutation(scores.shape[1])[:N]] for prompt in shuffled[:prompts]])
    previews, finals = grouped(seen)
    return plan_pruning(previews, finals, FRACTIONS, target_share=TARGET), shuffled[prompts:]


# --------------------------------------------------------------------------------------------------------------- budget
def budget_table(sets: dict[tuple[str, str], np.ndarray], draws: int) -> str:
    """Gain of more pruned candidates at the cost of a full best-of-8, by its gain, on other prompts."""
    lines = [
        f"\nAs many evaluations as a full best-of-8, spent on more candidates; {draws} draws of 20 prompts.\n",
        "| model, judge | gain by that of best-of-8 | candidates | evaluations, of best-of-8's |",
        "|---|---|---|---|",
    ]
    for (model, judge), scores in sets.items():
        found = [_spent(scores, draw) for draw in range(draws)]
        growth, n, cost = (np.array(column) for column in zip(*found, strict=True))
        lines.append(f"| {model}, {judge} | {growth.mean():.3f} | {n.min()} to {n.max()} | {cost.mean():.3f} |")
        if (model, judge) == ("flux", "imagereward"):
            verdict = "met" if growth.mean() >= GROWTH_BAR else "MISSED"
            bar = f"\nBar, {model}, {judge}: {GROWTH_BAR} times best-of-8's gain: {verdict} ({growth.mean():.3f})."
    return "\n".join([*lines, bar])


def _spent(scores: np.ndarray, draw: int) -> tuple[float, int, float]:
    plan, others = plan_of_draw(scores, 20, draw)
    rich = plan.for_budget(N)
    previews, finals = grouped(scores[others], rich.n)
    gain, cost = rich.apply(previews, finals)
    reached = (gain + finals.mean(1)).mean() - scores[others, :, -1].mean()
    return float(reached / full(grouped(scores[others])[1]).mean()), rich.n, float(cost.mean() * rich.n / N)


def grouped(scores: np.ndarray, n: int = N) -> tuple[np.ndarray, np.ndarray]:
    """(P, S, 20) as previews (P * S / n, F, n) and finals (P * S / n, n)."""
    groups = scores[:, : scores.shape[1] // n * n].reshape(-1, n, EVALUATIONS)
    return groups[:, :, LOOKS - 1].transpose(0, 2, 1), groups[:, :, -1]


def full(finals: np.ndarray) -> np.ndarray:
    return finals.max(1) - finals.mean(1)


if __name__ == "__main__":
    main()
