"""What goes wrong at night, each really done: nothing is lost, counted twice, or half written.

The long versions, as `python -m benchmarks.faults` runs them: `pytest -m long tests/scale`.
"""

import contextlib
import os
import random
import shutil
import signal
import subprocess
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import PIL.Image
import pytest
import torch
from brightness_judge import DEADLY, judge
from dataset_runs import NO_SPACE, REFUSED, Runs
from scale_fixtures import check_exactly_once, rows_of, shade_of, write_pictures

from ma_agiqa_core import score_dataset
from ma_agiqa_core.errors import OutputExistsError
from ma_agiqa_core.records.record import Record, read_records
from ma_agiqa_core.records.writer import open_records
from ma_agiqa_core.scale.engines.local import DIED

pytestmark = pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork and signals")
NOBODY = 65534
DEADLINE = 120.0


@pytest.fixture(scope="module")
def runs() -> Iterator[Runs]:
    runs = Runs()
    yield runs
    runs.close()


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Callable[[int], Path]]:
    """Mounts a disk of so many kB."""
    mounted: list[Path] = []

    def mount(size: int) -> Path:
        folder = tmp_path / f"disk{len(mounted)}"
        folder.mkdir()
        command = ["mount", "-t", "tmpfs", "-o", f"size={size}k", "none", str(folder)]
        if shutil.which("mount") is None or subprocess.run(command, capture_output=True).returncode:
            pytest.skip("a small disk cannot be mounted here: that needs root on Linux")
        mounted.append(folder)
        return folder

    yield mount
    for folder in mounted:
        subprocess.run(["umount", "-l", str(folder)], check=True)


def kill_and_resume(runs: Runs, folder: Path, *, pictures: int, kills: int, workers: int, seconds: float) -> int:
    """SIGKILL at random moments, then a run to the end; gives the number of runs that were killed."""
    write_pictures(folder / "in", pictures)
    random_moment = random.Random(5)
    run = {
        "source": folder / "in",
        "out": folder / "out",
        "workers": workers,
        "save_every": 0.05,
        "seconds": seconds,
        "batch_size": 4,
    }
    killed = 0
    longest = max(0.3, 2 * pictures * seconds / workers / kills)
    for _ in range(kills):
        pid = runs.start(**run)
        until = time.monotonic() + random_moment.uniform(0.0, longest)
        while time.monotonic() < until:
            time.sleep(0.005)
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
        killed += runs.exit_code() == -signal.SIGKILL
        names = [row["key"] for row in rows_of(folder / "out")]
        assert len(names) == len(set(names))
    assert runs.run(**{**run, "seconds": 0.0}) == 0
    check_exactly_once(folder / "out", pictures)
    assert not list((folder / "out").glob("*.tmp"))
    return killed


def test_killed_at_random_moments_and_resumed_every_picture_is_there_once(tmp_path, runs):
    assert kill_and_resume(runs, tmp_path, pictures=300, kills=6, workers=1, seconds=0.003) >= 3


@pytest.mark.long
@pytest.mark.parametrize("workers", [1, 2])
def test_twenty_kills_of_a_run_over_two_thousand_pictures(tmp_path, runs, workers):
    assert kill_and_resume(runs, tmp_path, pictures=2000, kills=20, workers=workers, seconds=0.006) >= 15


def test_a_full_disk_ends_the_run_and_what_is_there_is_whole(tmp_path, runs, small_disk):
    write_pictures(tmp_path / "in", 400)
    disk = small_disk(48)
    run = {"source": tmp_path / "in", "out": disk / "out", "save_every": 0.0, "batch_size": 8, "log": tmp_path / "log"}
    assert runs.run(**run) == NO_SPACE
    assert "No space left" in (tmp_path / "log").read_text("utf-8")
    first = rows_of(disk / "out")
    assert 0 < len(first) < 400
    assert not list((disk / "out").glob("*.tmp"))
    shutil.copytree(disk / "out", tmp_path / "out")  # to a larger disk
    assert runs.run(**{**run, "out": tmp_path / "out"}) == 0
    check_exactly_once(tmp_path / "out", 400)


@pytest.mark.parametrize("name", ["scores.csv", "scores.jsonl", "scores.parquet"])
def test_a_full_disk_leaves_whole_records(tmp_path, small_disk, name):
    disk = small_disk(64)
    records = [Record(f"/{'x' * 200}/{number}.png", 0.5, 50.0, 8, 8, "m@1", None) for number in range(2000)]
    with pytest.raises(OSError, match="No space left"), open_records(disk / name, "m@1") as writer:  # noqa: PT012
        for first in range(0, len(records), 8):
            writer.write(records[first : first + 8])
    left = [file for file in disk.iterdir() if file.suffix in (".csv", ".jsonl")]
    found = list(read_records(left[0]))
    assert 0 < len(found) < 2000
    assert found == records[: len(found)]


def test_a_full_disk_leaves_no_half_checkpoint_and_no_half_vector(tmp_path, small_disk, tiny_models):
    from ma_agiqa_core.semantic import SemanticCache

    disk = small_disk(32)
    with pytest.raises(Exception, match=r"No space left|os error 28"):
        tiny_models.write_checkpoint(disk / "tiny.safetensors", 64)
    assert not list(disk.iterdir())
    cache = SemanticCache(disk / "cache")
    keys = [SemanticCache.key(torch.full((3, 8, 8), number / 99), "m@1", "?") for number in range(20)]
    for key in keys:
        with contextlib.suppress(OSError):
            cache.put(key, torch.full((1024,), 0.5))
    found = [cache.get(key) for key in keys]
    assert any(vector is None for vector in found)
    assert all(torch.equal(vector, torch.full((1024,), 0.5)) for vector in found if vector is not None)
    assert any(vector is not None for vector in found)


def test_files_that_vanish_or_are_rewritten_while_they_are_read(tmp_path, monkeypatch):
    paths = write_pictures(tmp_path / "in", 120)
    two = [paths[3].read_bytes(), b""]
    PIL.Image.fromarray(np.full((64, 64, 3), 200, np.uint8)).save(tmp_path / "other.bmp")
    two[1] = (tmp_path / "other.bmp").read_bytes()
    is_over = threading.Event()

    def rewrite() -> None:
        number = 0
        while not is_over.is_set():
            number += 1
            paths[100].write_bytes(two[number % 2])

    writer = threading.Thread(target=rewrite)
    writer.start()
    from ma_agiqa_core.scale.sources import shard

    listed = shard.PathShard.rows

    def vanish(self: shard.PathShard) -> Iterator[shard.Row]:
        for number, row in enumerate(listed(self)):
            if number == 10:
                paths[110].unlink(missing_ok=True)
            yield row

    monkeypatch.setattr(shard.PathShard, "rows", vanish)
    try:
        done = score_dataset(tmp_path / "in", judge(seconds=0.001), out=tmp_path / "out", batch_size=2)
    finally:
        is_over.set()
        writer.join()
    rows = {Path(row["key"]).name: row for row in rows_of(tmp_path / "out")}
    assert len(rows) == 120
    assert rows["00110.bmp"]["error"] == "no such file"
    changing = rows["00100.bmp"]
    if changing["error"] is None:
        assert round(255 * changing["brightness"]) in (shade_of(3), 200)
    assert done.failed in (1, 2)


def test_a_folder_that_may_not_be_read(runs, caplog):
    if os.name == "nt" or os.getuid() != 0:
        pytest.skip("only root can become somebody else")
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        folder.chmod(0o777)
        write_pictures(folder / "in", 4)
        write_pictures(folder / "in" / "locked", 2, first=4)
        (folder / "in" / "locked").chmod(0o700)
        (folder / "in" / "00002.bmp").chmod(0o600)
        run = {"source": folder / "in", "out": folder / "out", "user": NOBODY}
        assert runs.run(**run) == 0
        rows = {Path(row["key"]).name: row["error"] for row in rows_of(folder / "out")}
        assert rows == {f"{n:05}.bmp": "permission denied" if n == 2 else None for n in range(4)}
        (folder / "in" / "locked").chmod(0o755)
        (folder / "in" / "00002.bmp").chmod(0o644)
        assert runs.run(**run) == 0
        check_exactly_once(folder / "out", 6)
        (folder / "sealed").mkdir(mode=0o700)
        assert runs.run(**{**run, "out": folder / "sealed" / "out"}) in (REFUSED, NO_SPACE)


def test_a_judge_that_raises_on_one_batch(tmp_path):
    write_pictures(tmp_path / "in", 60)
    score_dataset(tmp_path / "in", judge("stumbles"), out=tmp_path / "out", batch_size=16)
    rows = {int(Path(row["key"]).stem): row for row in rows_of(tmp_path / "out")}
    dark = {number for number in range(60) if shade_of(number) < 8}
    assert {number for number, row in rows.items() if row["error"]} == dark
    assert all(rows[number]["error"] == "cannot be scored: too dark" for number in dark)


def test_memory_for_two_pictures_at_a_time(tmp_path):
    write_pictures(tmp_path / "in", 40)
    score_dataset(tmp_path / "in", judge("small-memory"), out=tmp_path / "out", batch_size=16)
    check_exactly_once(tmp_path / "out", 40, "small-memory")


@pytest.mark.long
def test_a_picture_at_which_every_process_dies(tmp_path):
    write_pictures(tmp_path / "in", 40)
    PIL.Image.new("RGB", (8, 8), (DEADLY,) * 3).save(tmp_path / "in" / "deadly.bmp")
    done = score_dataset(tmp_path / "in", judge("deadly"), out=tmp_path / "out", workers=2)
    assert (done.scored, done.failed) == (40, 1)
    (failed,) = [row for row in rows_of(tmp_path / "out") if row["error"]]
    assert (Path(failed["key"]).name, failed["error"]) == ("deadly.bmp", DIED)
    assert len(rows_of(tmp_path / "out")) == 41


def kill_workers(folder: Path, *, pictures: int, kills: int, seconds: float) -> int:
    """SIGKILL of single workers of a running run; gives how many were hit."""
    import psutil

    write_pictures(folder / "in", pictures)
    killed: list[int] = []
    random_moment = random.Random(1)

    def kill() -> None:
        deadline = time.monotonic() + DEADLINE
        while len(killed) < kills and time.monotonic() < deadline and not (folder / "over").exists():
            time.sleep(random_moment.uniform(0.05, 0.3))
            if not list((folder / "out").glob("part-*")):
                continue
            children = psutil.Process().children()
            random_moment.shuffle(children)
            for child in children:
                with contextlib.suppress(psutil.Error):  # it has just ended
                    if "engines.processes" in " ".join(child.cmdline()) and child.pid not in killed:
                        child.kill()
                        killed.append(child.pid)
                        break

    killer = threading.Thread(target=kill)
    killer.start()
    score_dataset(folder / "in", judge(seconds=seconds), out=folder / "out", workers=2, save_every=0.05, batch_size=8)
    (folder / "over").touch()
    killer.join()
    check_exactly_once(folder / "out", pictures)
    return len(killed)


def test_workers_that_are_killed_are_replaced(tmp_path):
    assert kill_workers(tmp_path, pictures=1200, kills=1, seconds=0.004) == 1


@pytest.mark.long
def test_many_workers_that_are_killed(tmp_path):
    assert kill_workers(tmp_path, pictures=6000, kills=6, seconds=0.01) >= 4


def test_workers_that_cannot_start(tmp_path, monkeypatch):
    from ma_agiqa_core import MaAgiqaError
    from ma_agiqa_core.scale.engines import processes

    write_pictures(tmp_path / "in", 3)
    monkeypatch.setattr(processes.sys, "executable", shutil.which("false") or "/bin/false")
    with pytest.raises(MaAgiqaError, match="Expected workers that load the judges, got 3 that died of it"):
        score_dataset(tmp_path / "in", judge(), out=tmp_path / "out", workers=2)


def test_a_clock_that_jumps(tmp_path, monkeypatch):
    """The clock of the wall may say what it will, and files may come from the future."""
    paths = write_pictures(tmp_path / "in", 60)
    jumps = iter(range(10**9))
    monkeypatch.setattr(time, "time", lambda: 1e9 + (-1) ** next(jumps) * 1e8)
    monkeypatch.setattr(time, "time_ns", lambda: int(1e18) + (-1) ** next(jumps) * 10**17)
    for number, path in enumerate(paths[:20]):
        os.utime(path, (4e9, 4e9) if number % 2 else (0, 0))
    score_dataset(tmp_path / "in", judge(seconds=0.001), out=tmp_path / "out", save_every=0.01, batch_size=4)
    for path in paths[20:40]:
        os.utime(path, (4e9, 4e9))
    assert score_dataset(tmp_path / "in", judge(), out=tmp_path / "out").already == 60
    check_exactly_once(tmp_path / "out", 60)
    assert len(list((tmp_path / "out").iterdir())) > 1


def test_two_runs_on_one_output(tmp_path, runs):
    write_pictures(tmp_path / "in", 200)
    run = {"source": tmp_path / "in", "out": tmp_path / "out", "save_every": 0.0, "batch_size": 4}
    runs.start(**run, seconds=0.02)
    deadline = time.monotonic() + DEADLINE
    while not list((tmp_path / "out").glob("part-*")) and time.monotonic() < deadline:
        time.sleep(0.005)
    with pytest.raises(OutputExistsError, match="no other process is writing"):
        score_dataset(tmp_path / "in", judge(), out=tmp_path / "out")
    assert runs.exit_code() == 0
    check_exactly_once(tmp_path / "out", 200)
