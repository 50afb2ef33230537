"""Resident memory of this process while it scores many small files the way `ma-agiqa score --out` does."""

from __future__ import annotations

import os
import shutil
import tempfile
import time
from pathlib import Path

import numpy as np
import psutil
import torch
from PIL import Image, ImageOps

from ma_agiqa_core import demo
from ma_agiqa_core.cli import scoring_run
from ma_agiqa_core.pictures import folders
from ma_agiqa_core.records import writer as record_writer

SIZES = ((192, 192), (256, 256), (320, 224), (224, 320), (384, 256), (512, 512))  # width, height
SAMPLE_EVERY = 500  # pictures
FIRST = 1000
BAR = 0.10


def report(weights: str, count: int) -> None:
    """Prints resident memory every 500 pictures, and how the last figure compares with that at picture 1 000."""
    torch.set_num_threads(os.cpu_count() or 1)  # as on the command line
    process = psutil.Process()
    resident: dict[int, float] = {}
    with tempfile.TemporaryDirectory() as name:
        folder, out = Path(name, "pictures"), Path(name, "scores.csv")
        write_pictures(folder, count)
        run = scoring_run.prepare(scoring_run.ScoringOptions(model=weights, device="cpu"))
        done, start = 0, time.perf_counter()
        print("\n| pictures | resident, MB |\n|---|---|")
        with record_writer.open_records(out, run.identity) as writer:
            for batch in scoring_run.score_pictures(run, folders.find_pictures([folder])):
                writer.write(batch)
                before, done = done, done + len(batch)
                if done // SAMPLE_EVERY > before // SAMPLE_EVERY:
                    resident[done // SAMPLE_EVERY * SAMPLE_EVERY] = process.memory_info().rss / 1e6
                    print(f"| {done} | {process.memory_info().rss / 1e6:.0f} |", flush=True)
        seconds = time.perf_counter() - start
        written = sum(1 for _ in out.open(encoding="utf-8")) - 1
    print(f"\n{written} records in {seconds:.0f} s: {written / seconds:.1f} pictures/s on {os.cpu_count()} threads.")
    if FIRST in resident and len(resident) > 1:
        last = max(resident)
        ratio = resident[last] / resident[FIRST]
        verdict = "met" if abs(ratio - 1) <= BAR else "MISSED"
        print(
            f"Resident memory at picture {FIRST}: {resident[FIRST]:.0f} MB; at {last}: {resident[last]:.0f} MB; "
            f"ratio {ratio:.3f}. Bar, within {BAR:.0%}: {verdict}."
        )


def write_pictures(folder: Path, count: int) -> None:
    """Writes `count` files: the demo's photographs in a few sizes, as JPEG and PNG, copied in turn."""
    folder.mkdir()
    kinds: list[Path] = []
    for name in demo.PHOTOGRAPHS:
        with Image.open(Path(demo.__file__).with_name(f"{name}.jpg")) as photograph:
            for size in SIZES:
                kinds.append(folder.with_name(f"{name}_{size[0]}x{size[1]}.{'png' if len(kinds) % 4 == 0 else 'jpg'}"))
                ImageOps.fit(photograph.convert("RGB"), size, Image.Resampling.LANCZOS).save(kinds[-1])
    order = np.random.default_rng(0).permutation(count) % len(kinds)
    for i, kind in enumerate(order):
        shutil.copyfile(kinds[kind], folder / f"{i:06d}{kinds[kind].suffix}")


if __name__ == "__main__":
    raise SystemExit("Run it as `python -m benchmarks.lite --memory`.")
