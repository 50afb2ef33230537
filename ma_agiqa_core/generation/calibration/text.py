"""A calibration as text: what was measured, a table, and what to do."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping

from ...report.names import decimals_for
from .figures import CalibrationFigures

FEW_PROMPTS = 20  # below, the intervals are too wide to tell one fraction from the next


def text(figures: CalibrationFigures) -> str:
    """Several lines, at most 120 characters wide for the usual numbers."""
    return "\n".join([*_heading(figures), "", *_table(figures), "", *_advice(figures)])


def _heading(figures: CalibrationFigures) -> list[str]:
    s = figures.setting
    score = _score_format(figures)
    lines = [
        f"{s.pipeline} with {s.scheduler}, {s.steps} steps: {_count(figures)}, best of {s.n} by {s.scorer}.",
        f"One picture at random scores {score(figures.random)}, the best of {s.n} {score(figures.best)} "
        f"({score(figures.best - figures.random, '+')}), for {figures.network_evaluations:.0f} network evaluations.",
    ]
    if figures.observed_random is not None and figures.observed_best is not None:
        lines.append(
            f"{s.observer}, only reported: {figures.observed_random:.4g} and {figures.observed_best:.4g} "
            f"({figures.observed_best - figures.observed_random:+.3g})."
        )
    return [*lines, *map(str, figures.watch)]


def _table(figures: CalibrationFigures) -> list[str]:
    """One line per fraction; of the keep counts one, a quarter and a half of n."""
    n = figures.setting.n
    keeps = sorted({1, max(n // 4, 1), max(n // 2, 1)})
    score = _score_format(figures)
    counts = "".join(f"{f'keep {keep}':>8}" for keep in keeps)
    width = 8 * len(keeps)
    titles = ("winner survives", "regret in score", "cost")
    lines = [
        f"{'pruned after':<17}{'rank correlation':<24}" + "".join(f"  {title:>{width}}" for title in titles),
        f"{'':<17}{'preview and final':<24}" + f"  {counts:>{width}}" * 3,
    ]
    for row in figures.table:
        cells = (
            "".join(f"{f'{row.winner_survives[keep]:.0%}':>8}" for keep in keeps),
            "".join(f"{score(row.regret[keep]):>8}" for keep in keeps),
            "".join(f"{f'{row.cost[keep]:.0%}':>8}" for keep in keeps),
        )
        after = f"{row.fraction:.0%} (step {row.step})"
        correlation = _with_interval(row.rank_correlation, row.rank_correlation_interval, ".2f")
        lines.append(f"{after:<17}{correlation:<24}" + "".join(f"  {cell:>{width}}" for cell in cells))
    return [line.rstrip() for line in lines]


def _advice(figures: CalibrationFigures) -> list[str]:
    best = figures.recommended
    preview = f"A preview with its score takes as long as {figures.preview_cost:.2g} network evaluations."
    if not best.prune_at:
        lines = [f"Recommended: prune nothing: {best.reason}."]
    else:
        share = _with_interval(best.share_of_gain, best.share_of_gain_interval, ".0%")
        held_out = best.share_of_gain_held_out
        bound = best.share_of_gain_lower_bound
        new = "" if held_out is None else f", {held_out:.0%} by prompts left out of the choice"
        lines = [
            f"Recommended: prune_at={best.prune_at}",
            *_margins(best.margin),
            f"It keeps {share} of the gain{new}, at {best.cost:.0%} of the network evaluations "
            f"({best.network_evaluations:.0f} of {figures.network_evaluations:.0f} for a prompt); "
            f"{best.time:.0%} with the time of previews and their scores.",
            *([] if bound is None else [f"Expect {bound:.0%} or more on new prompts."]),
            f"It holds for n={best.n}, {best.steps} steps and {best.scheduler}, and for this scorer.",
        ]
    lines.append(preview)
    if len(figures.prompts) < FEW_PROMPTS:
        lines.append(f"Only {_count(figures)}: take {FEW_PROMPTS} or more before relying on these figures.")
    return lines


def _margins(margin: Mapping[float, float]) -> list[str]:
    """One line, if there are any."""
    if not margin:
        return []
    widths = ", ".join(f"{fraction:g}: {width:.3g}" for fraction, width in margin.items())
    return [f"Margins: {{{widths}}}: whoever trails the best preview by more is dropped too."]


def _count(figures: CalibrationFigures) -> str:
    return "1 prompt" if len(figures.prompts) == 1 else f"{len(figures.prompts)} prompts"


def _score_format(figures: CalibrationFigures) -> Callable[..., str]:
    digits = decimals_for(figures.best - figures.random)
    return lambda value, sign="": f"{value:{sign}.{digits}f}"


def _with_interval(value: float, interval: tuple[float, float] | None, form: str) -> str:
    if math.isnan(value):
        return "-"
    return f"{value:{form}}" + ("" if interval is None else f" ({interval[0]:{form}} to {interval[1]:{form}})")
