"""Draws a calibration as one picture, with Pillow alone: rank correlation by fraction, and gain by cost."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import PIL.Image
import PIL.ImageDraw
import PIL.ImageFont

if TYPE_CHECKING:
    from .report import CalibrationReport

SIZE = (1400, 620)
PANELS = ((90, 90, 650, 530), (790, 90, 1350, 530))  # left, top, right, bottom
INK, GREY, PALE = (30, 30, 30), (120, 120, 120), (225, 225, 225)
BLUE, BAND, ORANGE = (38, 102, 166), (206, 222, 240), (214, 94, 30)
MOST_CURVES = 4

Point = tuple[float, float]


def draw(report: CalibrationReport) -> PIL.Image.Image:
    """The report's two figures side by side, RGB."""
    picture = PIL.Image.new("RGB", SIZE, "white")
    canvas = PIL.ImageDraw.Draw(picture)
    setting = report.setting
    title = f"{setting.pipeline}, {setting.scheduler}, {setting.steps} steps: best of {setting.n} by {setting.scorer}"
    canvas.text((SIZE[0] / 2, 28), title, INK, _font(19), anchor="mm")
    _draw_correlation(canvas, report)
    _draw_gain(canvas, report)
    return picture


def _draw_correlation(canvas: PIL.ImageDraw.ImageDraw, report: CalibrationReport) -> None:
    rows = [row for row in report.table if not math.isnan(row.rank_correlation)]
    ends = [end for row in rows for end in (row.rank_correlation_interval or (row.rank_correlation,))]
    bottom = min([0.0, *(math.floor(end * 5) / 5 for end in ends)])
    axes = _Axes(canvas, PANELS[0], (0, 1), (bottom, 1), "rank correlation of preview and final score")
    axes.frame("share of the steps done before the preview", [i / 5 for i in range(6)], "{:.0%}".format)
    low = [(row.fraction, row.rank_correlation_interval[0]) for row in rows if row.rank_correlation_interval]
    high = [(row.fraction, row.rank_correlation_interval[1]) for row in rows if row.rank_correlation_interval]
    if len(low) > 1:
        canvas.polygon([axes.place(point) for point in [*low, *reversed(high)]], BAND)
    axes.grid()
    axes.curve([(row.fraction, row.rank_correlation) for row in rows], BLUE)
    axes.note(0.98, bottom, "band: 95 % interval over prompts" if len(low) > 1 else "")


def _draw_gain(canvas: PIL.ImageDraw.ImageDraw, report: CalibrationReport) -> None:
    shares = [share for row in report.table for share in row.share_of_gain.values() if not math.isnan(share)]
    bottom = min([0.0, *(math.floor(share * 5) / 5 for share in shares)])
    axes = _Axes(canvas, PANELS[1], (0, 1), (bottom, 1), f"share of the gain of best of {report.setting.n}")
    axes.frame("network evaluations, of those of finishing all", [i / 5 for i in range(6)], "{:.0%}".format)
    axes.grid()
    if not shares:
        return
    rows = report.table
    picked = sorted({round(i * (len(rows) - 1) / max(MOST_CURVES - 1, 1)) for i in range(MOST_CURVES)})
    for place, index in enumerate(picked):
        fade = place / max(len(picked) - 1, 1)
        colour = tuple(round(pale + fade * (full - pale)) for pale, full in zip((150, 185, 222), BLUE, strict=True))
        row = rows[index]
        curve = [(row.cost[keep], row.share_of_gain[keep]) for keep in row.cost]
        axes.curve(curve, colour, label=f"at {row.fraction:.0%}")
    target = report.setting.target_share
    axes.dashes(target, f"wanted: {target:.0%}")
    best = report.recommended
    if best.prune_at:
        axes.star((best.cost, best.share_of_gain), ORANGE)
        stages = ", ".join(f"{fraction:g}: {keep}" for fraction, keep in best.prune_at.items())
        axes.note(0.98, bottom, f"recommended: prune_at={{{stages}}}", ORANGE)


@dataclass
class _Axes:
    """A panel with linear axes, drawn into a box (left, top, right, bottom) of pixels."""

    canvas: PIL.ImageDraw.ImageDraw
    box: tuple[int, int, int, int]
    x: tuple[float, float]
    y: tuple[float, float]
    title: str

    def place(self, point: Point) -> Point:
        left, top, right, bottom = self.box
        across = (point[0] - self.x[0]) / (self.x[1] - self.x[0])
        up = (point[1] - self.y[0]) / (self.y[1] - self.y[0])
        return left + across * (right - left), bottom - up * (bottom - top)

    def frame(self, x_title: str, x_ticks: Sequence[float], form: Callable[[float], str]) -> None:
        left, top, right, bottom = self.box
        self.canvas.text((left, top - 28), self.title, INK, _font(17), anchor="lm")
        self.canvas.text(((left + right) / 2, bottom + 52), x_title, INK, _font(17), anchor="mm")
        for tick in x_ticks:
            self.canvas.text((self.place((tick, 0))[0], bottom + 20), form(tick), GREY, _font(15), anchor="mm")

    def grid(self) -> None:
        left, top, right, bottom = self.box
        for step in range(round((self.y[1] - self.y[0]) * 5) + 1):
            value = self.y[0] + step / 5
            height = self.place((0, value))[1]
            self.canvas.line([(left, height), (right, height)], PALE)
            self.canvas.text((left - 12, height), f"{value:.1f}", GREY, _font(15), anchor="rm")
        self.canvas.line([(left, top), (left, bottom), (right, bottom)], GREY, 2)

    def curve(self, points: Sequence[Point], colour: tuple[int, ...], label: str = "") -> None:
        places = [self.place(point) for point in points]
        if len(places) > 1:
            self.canvas.line(places, colour, 3, joint="curve")
        for x, y in places:
            self.canvas.ellipse([x - 5, y - 5, x + 5, y + 5], colour)
        if label and places:
            self.canvas.text((places[0][0] + 8, places[0][1] + 14), label, colour, _font(14), anchor="lm")

    def dashes(self, value: float, label: str) -> None:
        left, _, right, _ = self.box
        height = self.place((0, value))[1]
        for start in range(left, right, 14):
            self.canvas.line([(start, height), (min(start + 7, right), height)], ORANGE, 2)
        self.canvas.text((left + 8, height - 12), label, ORANGE, _font(14), anchor="lm")

    def star(self, point: Point, colour: tuple[int, ...]) -> None:
        x, y = self.place(point)
        tips = [
            (x + r * math.sin(a * math.pi / 5), y - r * math.cos(a * math.pi / 5)) for a, r in enumerate([14, 6] * 5)
        ]
        self.canvas.polygon(tips, colour)

    def note(self, x: float, y: float, text: str, colour: tuple[int, ...] = GREY) -> None:
        right, height = self.place((x, y))
        self.canvas.text((right, height - 16), text, colour, _font(15), anchor="rm")


def _font(size: int) -> PIL.ImageFont.FreeTypeFont | PIL.ImageFont.ImageFont:
    return PIL.ImageFont.load_default(size)
