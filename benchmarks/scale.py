"""Data sets on engines: what workers gain, what a second judge costs, memory, Ray's overhead, workers that are killed.

python -m benchmarks.scale [PART ...] [--pictures 600] [--side 512] [--turns 3] [--many 100000]

Parts: workers, judges, memory, size, ray, kills; all without. Each prints its bar and whether it was met. What is
compared takes turns, and the median counts. A rate is that from the first tenth of the pictures on to the last row:
starting is told beside it.
"""

from __future__ import annotations

import argparse
import os
import random
import shutil
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

SUPPORT = Path(__file__).parents[1] / "tests" / "support"
sys.path.insert(0, str(SUPPORT))
os.environ["PYTHONPATH"] = os.pathsep.join([str(SUPPORT), os.environ.get("PYTHONPATH", "")])
os.environ.setdefault("OMP_NUM_THREADS", "1")


def pictures(folder: Path, count: int, side: int) -> Path:
    """JPEG files cut out of the demo's photographs, each with faint noise of its own."""
    import numpy as np
    from PIL import Image, ImageOps

    from ma_agiqa_core import demo

    folder.mkdir(parents=True)
    made = np.random.default_rng(0)
    photographs = []
    for name in demo.PHOTOGRAPHS:
        with Image.open(Path(demo.__file__).with_name(f"{name}.jpg")) as photograph:
            wide = (side * 5 // 4,) * 2
            photographs.append(np.asarray(ImageOps.fit(photograph.convert("RGB"), wide, Image.Resampling.LANCZOS)))
    noise = made.normal(0, 1.5, (side, side, 3)).astype(np.float32)
    for number in range(count):
        top, left = made.integers(0, side // 4, 2)
        cut = photographs[number % len(photographs)][top : top + side, left : left + side]
        noisy = np.rint(cut + np.roll(noise, number, (0, 1))).clip(0, 255).astype(np.uint8)
        Image.fromarray(noisy).save(folder / f"{number:06}.jpg", quality=90)
    return folder


class Run(NamedTuple):
    """Pictures a second once it runs, the seconds before its first row, and processor milliseconds a picture."""

    rate: float
    start: float
    busy: float


def run(source: Path, out: Path, model: object = "lite", **options: object) -> Run:
    from ma_agiqa_core import score_dataset

    shutil.rmtree(out, ignore_errors=True)
    started = time.monotonic()
    told = [(0.0, 0, 0.0)]
    options = {"device": "cpu", **options} if model == "lite" else options

    def note(count: int, _: int) -> None:
        told.append((time.monotonic() - started, count, processor_seconds()))

    score_dataset(source, model, out=out, on_progress=note, **options)
    end, count, busy = told[-1]
    begin, before, was_busy = next(noted for noted in told if noted[1] >= count / 10)
    return Run((count - before) / (end - begin), told[1][0], 1000 * (busy - was_busy) / (count - before))


def processor_seconds() -> float:
    """Of this process and of all that it started: other work on the machine changes it less than it changes seconds."""
    import psutil

    spent = 0.0
    this = psutil.Process()
    for process in (this, *this.children(recursive=True)):
        try:
            spent += sum(process.cpu_times()[:2])
        except psutil.Error:  # it has just ended
            continue
    return spent


def median(values: list[float]) -> str:
    """With the least and the most."""
    return f"{statistics.median(values):.2f} ({min(values):.2f} to {max(values):.2f})"


def verdict(is_met: bool) -> str:
    return "met" if is_met else "MISSED"


def bare_gain(source: Path) -> float:
    """What two processes that share nothing score in the time that one needs: what the machine has to give."""
    from ma_agiqa_core import load_scorer
    from ma_agiqa_core.pictures.inputs import decode
    from ma_agiqa_core.scorers.outcomes import tolerant_outcomes

    lite = load_scorer("lite", device="cpu")
    decoded = [decode(path) for path in sorted(source.iterdir())[:64]]

    def seconds() -> float:
        started = time.monotonic()
        tolerant_outcomes(lite, decoded, None, None)
        return time.monotonic() - started

    seconds()
    one = seconds()
    child = os.fork()
    two = seconds()
    if child == 0:
        os._exit(0)
    os.waitpid(child, 0)
    return 2 * one / two


def workers(folder: Path, count: int, side: int, turns: int) -> None:
    source = pictures(folder / "workers", count, side)
    ones, twos, bare = [], [], []
    for _ in range(turns):
        bare.append(bare_gain(source))
        ones.append(run(source, folder / "out", workers=1))
        twos.append(run(source, folder / "out", workers=2))
    gains = [two.rate / one.rate for one, two in zip(ones, twos, strict=True)]
    one, two = (statistics.median(each.rate for each in runs) for runs in (ones, twos))
    print(f"workers: one {one:.1f} pictures/s, two {two:.1f}: {median(gains)} times", end="")
    print(f" (bar: at least 1.7): {verdict(statistics.median(gains) >= 1.7)}; processor ms a picture", end="")
    print(f" {median([each.busy for each in ones])} and {median([each.busy for each in twos])};", end="")
    print(f" two bare processes of lite: {median(bare)} times one", flush=True)


def judges(folder: Path, count: int, side: int, turns: int) -> None:
    from ma_agiqa_core import load_scorer
    from ma_agiqa_core.pictures.inputs import decode
    from ma_agiqa_core.scorers.outcomes import tolerant_outcomes

    source = pictures(folder / "judges", count, side)
    lite, second = load_scorer("lite", device="cpu"), load_scorer("lite", device="cpu")
    started = time.monotonic()
    decoded = [decode(path) for path in sorted(source.iterdir())]
    decoding = 1000 * (time.monotonic() - started) / count
    shares, added, own, busy = [], [], [], []
    for _ in range(turns):
        one, two = (run(source, folder / "out", models) for models in (lite, [lite, second]))
        started, was_busy = time.monotonic(), processor_seconds()
        for first in range(0, count, 64):  # as they come to the judges
            tolerant_outcomes(second, decoded[first : first + 64], None, None)
        own.append(1000 * (time.monotonic() - started) / count)
        added.append(1000 / two.rate - 1000 / one.rate)
        shares.append(added[-1] / own[-1])
        busy.append((two.busy - one.busy) / (1000 * (processor_seconds() - was_busy) / count))
    print(
        f"judges: the second adds {median(added)} ms a picture; lite alone needs {median(own)} ms, decoding "
        f"{decoding:.2f} ms: {median(shares)} of its own time",
        end="",
    )
    print(f" (bar: at most 1, give or take 0.05): {verdict(statistics.median(shares) <= 1.05)}", end="")
    print(f"; of its own processor time {median(busy)}", flush=True)


def memory(folder: Path, count: int) -> None:
    """The peak of a process that scores, at a tenth and at all of the pictures."""
    source = pictures(folder / "memory", count, 64)
    few = folder / "few"
    few.mkdir()
    for path in sorted(source.iterdir())[: count // 10]:
        shutil.copy(path, few)
    code = (
        "import sys, resource; from ma_agiqa_core import score_dataset; "
        "score_dataset(sys.argv[1], 'lite', out=sys.argv[2], device='cpu'); "
        "print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)"
    )
    peaks = []
    for place, name in ((few, "few_out"), (source, "many_out")):
        done = subprocess.run(
            [sys.executable, "-c", code, str(place), str(folder / name)], capture_output=True, text=True, check=True
        )
        peaks.append(int(done.stdout) / 1024)
    ratio = peaks[1] / peaks[0]
    print(
        f"memory: {peaks[0]:.0f} MB at {count // 10} pictures, {peaks[1]:.0f} MB at {count}: {ratio:.3f} times", end=""
    )
    print(f" (bar: flat, at most 1.05): {verdict(ratio <= 1.05)}", flush=True)


def ray(folder: Path, count: int, side: int, turns: int) -> None:
    source = pictures(folder / "ray", count, side)
    locally, on_ray = [], []
    for _ in range(turns):
        locally.append(run(source, folder / "out", workers=1))
        on_ray.append(run(source, folder / "out", workers=1, engine="ray"))
        import ray as cluster

        cluster.shutdown()  # its idle processes are no part of the next local run
    over = [100 * (local.rate / ray.rate - 1) for local, ray in zip(locally, on_ray, strict=True)]
    rates = [statistics.median(run.rate for run in runs) for runs in (locally, on_ray)]
    print(f"ray: local {rates[0]:.1f} pictures/s, Ray {rates[1]:.1f}: {median(over)} % more time a picture", end="")
    print(f" (bar: at most 10 %): {verdict(statistics.median(over) <= 10)}; first row after", end="")
    print(f" {locally[-1].start:.1f} and {on_ray[-1].start:.1f} s; processor ms a picture", end="")
    print(f" {median([run.busy for run in locally])} and {median([run.busy for run in on_ray])}", flush=True)


def size(folder: Path, count: int = 200_000) -> None:
    """Bytes of a row with one judge: keys as in an object store, which no compression shortens to nothing."""
    import hashlib
    import json

    import numpy as np

    from ma_agiqa_core.scale.parts import PartWriter
    from ma_agiqa_core.scale.scoring import ScoredRow

    facts = json.dumps([{"column": "lite", "identity": "lite@0123456789ab"}])
    made = np.random.default_rng(0)
    parts = PartWriter(folder / "size", 1e9)
    for first in range(0, count, 1000):
        digests = [hashlib.sha256(str(number).encode()).hexdigest() for number in range(first, first + 1000)]
        parts.add(
            [
                ScoredRow(
                    f"s3://bucket/renders/{first // 10_000:05}/{digest[:16]}.png",
                    (float(made.normal(5, 1)),),
                    (float(made.uniform(0, 100)),),
                    None,
                    1024,
                    1024,
                    digest[16:32],
                    None,
                )
                for digest in digests
            ],
            facts,
        )
    parts.save()
    total = sum(file.stat().st_size for file in (folder / "size").iterdir())
    print(f"size: {total / count:.1f} bytes a row with one judge, over {count} rows", flush=True)


def kills(folder: Path, many: int) -> None:
    """Two of the workers are killed on the way."""
    import psutil
    from brightness_judge import judge
    from scale_fixtures import check_exactly_once, write_pictures

    from ma_agiqa_core import score_dataset

    write_pictures(folder / "many", many)
    killed: list[int] = []
    moment = random.Random(0)

    def kill() -> None:
        while len(killed) < 2:
            time.sleep(moment.uniform(1, 3))
            if not list((folder / "kills").glob("part-*")):
                continue
            for child in psutil.Process().children():
                try:
                    if "engines.processes" in " ".join(child.cmdline()) and child.pid not in killed:
                        child.kill()
                        killed.append(child.pid)
                        break
                except psutil.Error:
                    continue

    killer = threading.Thread(target=kill, daemon=True)
    killer.start()
    started = time.monotonic()
    score_dataset(folder / "many", judge(), out=folder / "kills", workers=2, save_every=1.0)
    seconds = time.monotonic() - started
    try:
        check_exactly_once(folder / "kills", many)
        is_right = len(killed) == 2
    except AssertionError as error:
        print(error)
        is_right = False
    print(f"kills: {many} pictures, {len(killed)} workers killed, {seconds:.0f} s; each in one row, and right", end="")
    print(f": {verdict(is_right)}", flush=True)


def main() -> None:
    from benchmarks.machine import machine

    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("parts", nargs="*", metavar="PART")
    parser.add_argument("--pictures", type=int, default=600)
    parser.add_argument("--side", type=int, default=512)
    parser.add_argument("--turns", type=int, default=3)
    parser.add_argument("--many", type=int, default=100_000)
    parser.add_argument("--memory-pictures", type=int, default=10_000)
    arguments = parser.parse_args()
    of_run = (arguments.pictures, arguments.side, arguments.turns)
    known: dict[str, Callable[[Path], None]] = {
        "workers": lambda folder: workers(folder, *of_run),
        "judges": lambda folder: judges(folder, *of_run),
        "memory": lambda folder: memory(folder, arguments.memory_pictures),
        "size": size,
        "ray": lambda folder: ray(folder, *of_run),
        "kills": lambda folder: kills(folder, arguments.many),
    }
    print(machine(), flush=True)
    for name in arguments.parts or known:
        with tempfile.TemporaryDirectory() as folder:
            known[name](Path(folder))


if __name__ == "__main__":
    main()
