"""What `ma-agiqa train --preset tiny` learns of made-up labels, how fast, and whether a killed run ends the same.

    python -m benchmarks.tiny_preset

Every set has 240 pictures of smooth coloured patches with noise (`made_up_labels.py`), split 70/10/20. The last row has
60 pictures; its model is measured on the 180 others of the set. One thread: seconds are of the processor, Python's
start included, which on an idle machine are the clock's.
"""

from __future__ import annotations

import os

os.environ.update(OMP_NUM_THREADS="1", MKL_NUM_THREADS="1", OPENBLAS_NUM_THREADS="1")  # read by the imports below

import csv
import json
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import click
import numpy as np
import torch
from safetensors.torch import load_file
from scipy.stats import spearmanr

from ma_agiqa_core import load_scorer

from .machine import machine
from .made_up_labels import LABELS, write_labelled

PICTURES, FEW = 240, 60
SRCC_BAR, SECONDS_BAR = 0.9, 120.0


@click.command()
def main() -> None:
    """Measure the tiny preset."""
    print(machine())
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        print(
            f"\n| label, {PICTURES} pictures | test SRCC | ridge, validation | lite, validation | s | clock, s | bar |"
        )
        print("|---|---|---|---|---|---|---|")
        for label in LABELS:
            table = write_labelled(folder / label, label, PICTURES)
            clock, start = time.perf_counter(), _seconds_of_children()
            _train(table, folder / f"run-{label}")
            seconds, clock = _seconds_of_children() - start, time.perf_counter() - clock
            figures = json.loads((folder / f"run-{label}" / "metrics.json").read_text())
            srcc, beside = figures["test"]["srcc"], figures["validation_beside"]["quality"]
            met = srcc >= SRCC_BAR and (label != "blur" or seconds < SECONDS_BAR)
            ridge, lite = beside["ridge on lite's features"]["srcc"], beside["lite"]["srcc"]
            found = f"{srcc:.3f} | {ridge:.3f} | {lite:.3f} | {seconds:.0f} | {clock:.0f}"
            print(f"| {label} | {found} | {_verdict(met)} |", flush=True)
        _killed(folder)
        _few(folder)


def _killed(folder: Path) -> None:
    table, out = folder / "blur" / "labels.csv", folder / "killed"
    process = subprocess.Popen(_command(table, out), stderr=subprocess.PIPE, stdout=subprocess.DEVNULL, text=True)
    assert process.stderr is not None
    for line in process.stderr:
        if "Epoch" in line and " 7 of" in line:
            process.send_signal(signal.SIGKILL)
            break
    process.wait()
    _train(table, out, "--resume")
    resumed, whole = (load_file(run / "model.safetensors") for run in (out, folder / "run-blur"))
    same = resumed.keys() == whole.keys() and all(torch.equal(part, whole[name]) for name, part in resumed.items())
    print(f"\nKilled after epoch 7 and resumed: {'the same weights, bit for bit' if same else 'OTHER WEIGHTS'}")


def _few(folder: Path) -> None:
    table = folder / "blur" / "labels.csv"
    with table.open(newline="", encoding="utf-8") as file:
        header, *rows = list(csv.reader(file))
    few = folder / "blur" / "few.csv"
    few.write_text("\n".join(",".join(row) for row in [header, *rows[:FEW]]) + "\n", encoding="utf-8")
    _train(few, folder / "run-few")
    others = rows[FEW:]
    paths = [folder / "blur" / "pictures" / name for name, _ in others]
    labels = np.array([float(value) for _, value in others])
    found = {
        name: spearmanr(load_scorer(model, device="cpu").score(paths).numpy(), labels).statistic
        for name, model in (("lite", "lite"), ("tiny", folder / "run-few" / "model.safetensors"))
    }
    print(
        f"\n{FEW} labelled pictures of the blur set, SRCC on the {len(others)} others: {found['tiny']:.3f}, "
        f"lite {found['lite']:.3f}, {_verdict(found['tiny'] > found['lite'])}"
    )


def _command(table: Path, out: Path, *more: str) -> list[str]:
    return [
        *(sys.executable, "-m", "ma_agiqa_core.cli", "train", "--labels", str(table)),
        *("--images", str(table.with_name("pictures")), "--score-column", "value", "--out", str(out)),
        *("--preset", "tiny", "--semantic", "none", "--device", "cpu", *more),
    ]


def _train(table: Path, out: Path, *more: str) -> None:
    subprocess.run(_command(table, out, *more), check=True, capture_output=True)


def _seconds_of_children() -> float:
    return sum(os.times()[2:4])


def _verdict(is_met: bool) -> str:
    return "met" if is_met else "MISSED"


if __name__ == "__main__":
    main()
