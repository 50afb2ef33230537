"""Where the bars, ticks and threshold line of the report's histogram go.

All positions are percentages of the plot, so that the SVG stretches with the page while its text keeps
its size.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

ROUND_STEPS = (1.0, 2.0, 2.5, 5.0, 10.0)
FEWEST_BARS, MOST_BARS = 8, 32
MOST_STRETCH = 3.0  # a threshold may widen the axis to this many times the scores' own span


@dataclass(frozen=True)
class Bar:
    """One bin: the rejected share is drawn on top of the kept one."""

    left: float
    width: float
    kept_height: float
    rejected_height: float
    kept: int
    rejected: int
    low: str
    high: str


@dataclass(frozen=True)
class Tick:
    """A labelled position on an axis, in percent from the left or from the bottom."""

    position: float
    label: str


@dataclass(frozen=True)
class Histogram:
    """The geometry of one histogram. `threshold_side` is "" on the chart, else "below" or "above"."""

    bars: tuple[Bar, ...]
    score_ticks: tuple[Tick, ...]
    count_ticks: tuple[Tick, ...]
    threshold: float | None
    threshold_side: str


def make_histogram(
    scores: Sequence[float],
    rejected: Sequence[bool | int],
    threshold: float | None = None,
    least_span: float = 0.0,
) -> Histogram:
    """Bin scores at round steps.

    Args:
        scores: finite scores, at least one.
        rejected: whether each picture was rejected.
        threshold: where to draw the line; far from every score it is drawn at the edge.
        least_span: how much of the score axis is shown at least, so that nearly equal scores look so.
    """
    values = np.asarray(scores, dtype=np.float64)
    low, high = float(values.min()), float(values.max())
    least_span = max(least_span, abs(high) * 1e-3, 1e-6)
    if high - low < least_span:
        low, high = (low + high - least_span) / 2, (low + high + least_span) / 2
    threshold_side = ""
    if threshold is not None:
        widened = max(high, threshold) - min(low, threshold)
        if widened <= MOST_STRETCH * (high - low):
            low, high = min(low, threshold), max(high, threshold)
        else:
            threshold_side = "above" if threshold > high else "below"

    bar_count = min(max(math.ceil(math.sqrt(len(values))), FEWEST_BARS), MOST_BARS)
    step = _round_step((high - low) / bar_count)
    first, last = math.floor(low / step), math.ceil(high / step)
    last = max(last, first + 1)
    edges = np.arange(first, last + 1) * step
    start, stop = float(edges[0]), float(edges[-1])

    was_rejected = np.asarray(rejected, dtype=bool)
    rejected_counts = np.histogram(values[was_rejected], edges)[0]
    kept_counts = np.histogram(values[~was_rejected], edges)[0]
    count_step = max(1, math.ceil(_round_step(int((rejected_counts + kept_counts).max()) / 3)))
    top = math.ceil(int((rejected_counts + kept_counts).max()) / count_step) * count_step

    width = 100 / (last - first)
    bars = tuple(
        Bar(
            left=width * i,
            width=width,
            kept_height=100 * int(kept) / top,
            rejected_height=100 * int(turned_down) / top,
            kept=int(kept),
            rejected=int(turned_down),
            low=_number(float(edges[i])),
            high=_number(float(edges[i + 1])),
        )
        for i, (kept, turned_down) in enumerate(zip(kept_counts, rejected_counts, strict=True))
    )
    tick_step = _round_step((stop - start) / 5)
    ticks = range(math.ceil(start / tick_step - 1e-9), math.floor(stop / tick_step + 1e-9) + 1)
    position = None
    if threshold is not None:
        position = {"below": 0.0, "above": 100.0, "": 100 * (threshold - start) / (stop - start)}[threshold_side]
    return Histogram(
        bars=bars,
        score_ticks=tuple(Tick(100 * (i * tick_step - start) / (stop - start), _number(i * tick_step)) for i in ticks),
        count_ticks=tuple(Tick(100 * count / top, f"{count:,}") for count in range(0, top + 1, count_step)),
        threshold=position,
        threshold_side=threshold_side,
    )


def _round_step(at_least: float) -> float:
    """The smallest of 1, 2, 2.5, 5 times a power of ten that is at least `at_least`."""
    power = 10.0 ** math.floor(math.log10(at_least))
    return next(step * power for step in ROUND_STEPS if step * power >= at_least * (1 - 1e-9))


def _number(value: float) -> str:
    return f"{value:.6g}" if abs(value) > 1e-12 else "0"
