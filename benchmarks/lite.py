"""Speed and memory of the lite scorer on the CPU.

    python -m benchmarks.lite             pictures per second beside BRISQUE and Pillow; how long starting takes
    python -m benchmarks.lite --memory    resident memory while 10 000 pictures are scored

The pictures are the demo's photographs, enlarged where they are smaller than 512 px, and mosaics of four of them at
1024 px; each gets faint seeded noise, so that enlarging does not flatter PNG's decoder. Everything has one thread, and
the contenders take turns, so that whatever else the machine does hits all of them. Rates are by processor time, which
on an idle machine is the clock's: on a busy one the clock tells how often others had their turn.
"""

from __future__ import annotations

import os

os.environ.update(OMP_NUM_THREADS="1", MKL_NUM_THREADS="1", OPENBLAS_NUM_THREADS="1")  # read by the imports below

import shutil
import statistics
import subprocess
import sys
import sysconfig
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import click
import numpy as np
import torch
from PIL import Image, ImageOps

from ma_agiqa_core import Scorer, demo, load_scorer

from . import lite_memory
from .machine import machine
from .published_brisque import PublishedBrisque

SIDES = (512, 1024)
BATCH = 8
STARTS = 5
RATE_BARS = {512: 3.0, 1024: 5.0}  # times BRISQUE's rate
START_BARS = {"ma-agiqa --help": 1.0, "load_scorer": 0.3}  # seconds


@dataclass
class Contender:
    """Something to time: `work` treats `pictures` pictures."""

    side: int
    name: str
    pictures: int
    work: Callable[[], object]
    seconds: list[float] = field(default_factory=list)  # of the processor
    clock: list[float] = field(default_factory=list)

    def run(self) -> None:
        clock, start = time.perf_counter(), time.process_time()
        self.work()
        self.seconds.append((time.process_time() - start) / self.pictures)
        self.clock.append((time.perf_counter() - clock) / self.pictures)

    @property
    def median(self) -> float:
        return statistics.median(self.seconds)


@click.command()
@click.option("--memory", is_flag=True, help="Resident memory instead of speed.")
@click.option("--weights", default="lite", show_default=True, metavar="F", help="lite, or a lite .safetensors file.")
@click.option("--repeats", default=7, show_default=True, type=click.IntRange(min=1), help="Turns of each contender.")
@click.option("--count", default=10_000, show_default=True, type=click.IntRange(min=1), help="Pictures for --memory.")
def main(memory: bool, weights: str, repeats: int, count: int) -> None:
    print(machine(), flush=True)
    if memory:
        lite_memory.report(weights, count)
        return
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as folder:
        scorer = load_scorer(weights, device="cpu")
        found = contenders(scorer, PublishedBrisque(), Path(folder))
        for contender in found:
            contender.work()  # caches and lazy imports are not what is measured
        for _ in range(repeats):
            for contender in found:
                contender.run()
    print(speed_table(found, repeats))
    print(start_table())


# ------------------------------------------------------------------------------------------------------------- speed
def contenders(scorer: Scorer, brisque: PublishedBrisque, folder: Path) -> list[Contender]:
    found = []
    for side in SIDES:
        pictures = make_pictures(side)
        png, jpeg = ([folder / f"{side}_{i}.{kind}" for i in range(len(pictures))] for kind in ("png", "jpg"))
        for picture, png_file, jpeg_file in zip(pictures, png, jpeg, strict=True):
            Image.fromarray(picture).save(png_file)
            Image.fromarray(picture).save(jpeg_file, quality=90)
        batch = [pictures[i % len(pictures)] for i in range(BATCH)]
        found += [
            Contender(side, "lite, one at a time", len(pictures), partial(_each, scorer.score, pictures)),
            Contender(side, f"lite, {BATCH} in a call", BATCH, partial(scorer.score, batch)),  # batches as it likes
            Contender(side, f"lite, batches of {BATCH}", BATCH, partial(scorer.score, batch, batch_size=BATCH)),
            Contender(side, "BRISQUE (PyPI)", len(pictures), partial(_each, brisque.quality, pictures)),
            Contender(side, "Pillow, decoding PNG", len(pictures), partial(_each, _decode, png)),
            Contender(side, "Pillow, decoding JPEG", len(pictures), partial(_each, _decode, jpeg)),
        ]
    return found


def make_pictures(side: int) -> list[np.ndarray]:
    """The demo's photographs, cut square, as (side, side, 3) uint8; at 1024 px mosaics of them, each in a new order."""
    rng = np.random.default_rng(0)
    tiles = []
    for name in demo.PHOTOGRAPHS:
        with Image.open(Path(demo.__file__).with_name(f"{name}.jpg")) as photograph:
            square = ImageOps.fit(photograph.convert("RGB"), (512, 512), Image.Resampling.LANCZOS)
        noisy = np.asarray(square, np.float32) + rng.normal(0, 1.5, (512, 512, 3))
        tiles.append(np.rint(noisy).clip(0, 255).astype(np.uint8))
    if side == 512:
        return tiles
    orders = [np.roll(range(4), shift) for shift in range(4)]
    return [np.block([[[tiles[a]], [tiles[b]]], [[tiles[c]], [tiles[d]]]]) for a, b, c, d in orders]


def speed_table(found: list[Contender], repeats: int) -> str:
    lines = [
        f"\nOne thread each, processor time, medians of {repeats} interleaved turns.\n",
        "| side, px | what | pictures/s | ms each (least–most) | by the clock | rate, BRISQUE = 1 | time, PNG = 1 |",
        "|---|---|---|---|---|---|---|",
    ]
    by_key = {(contender.side, contender.name): contender.median for contender in found}
    for one in found:
        brisque, png = by_key[one.side, "BRISQUE (PyPI)"], by_key[one.side, "Pillow, decoding PNG"]
        spread = f"{1e3 * min(one.seconds):.1f}–{1e3 * max(one.seconds):.1f}"
        lines.append(
            f"| {one.side} | {one.name} | {1 / one.median:.1f} | {1e3 * one.median:.1f} ({spread}) "
            f"| {1e3 * statistics.median(one.clock):.1f} | {brisque / one.median:.2f} | {one.median / png:.2f} |"
        )
    lines.append("")
    for side, bar in RATE_BARS.items():
        ratio = by_key[side, "BRISQUE (PyPI)"] / by_key[side, "lite, one at a time"]
        lines.append(
            f"At least {bar:g} times BRISQUE's rate at {side} px: {_verdict(ratio >= bar)} ({ratio:.2f} times)."
        )
    return "\n".join(lines)


def _each(work: Callable[[Any], object], inputs: Sequence[object]) -> None:
    for one in inputs:
        work(one)


def _decode(path: Path) -> np.ndarray:
    with Image.open(path) as image:
        return np.asarray(image.convert("RGB"))


# ---------------------------------------------------------------------------------------------------------- starting
def start_table() -> str:
    program = shutil.which("ma-agiqa", path=sysconfig.get_path("scripts"))
    if program is None:
        raise click.ClickException("Expected ma-agiqa beside this Python, got none. Install the package.")
    adds = (
        "import time, torch; start = time.perf_counter(); from ma_agiqa_core import load_scorer; "
        "print(time.perf_counter() - start)"
    )
    helps, imports = [], []
    for _ in range(STARTS):
        start = time.perf_counter()
        subprocess.run([program, "--help"], check=True, stdout=subprocess.DEVNULL)
        helps.append(time.perf_counter() - start)
        imports.append(float(subprocess.check_output([sys.executable, "-c", adds], text=True)))
    medians = {"ma-agiqa --help": statistics.median(helps), "load_scorer": statistics.median(imports)}
    what = {
        "ma-agiqa --help": "`ma-agiqa --help`, in all",
        "load_scorer": "`from ma_agiqa_core import load_scorer`, after `import torch`",
    }
    rows = [
        f"| {what[key]} | {medians[key]:.3f} | under {bar:g} | {_verdict(medians[key] < bar)} |"
        for key, bar in START_BARS.items()
    ]
    return "\n".join([f"\n| start, median of {STARTS} | s | bar | |", "|---|---|---|---|", *rows])


def _verdict(is_met: bool) -> str:
    return "met" if is_met else "MISSED"


if __name__ == "__main__":
    main()
