"""Two processes and one output: the second is refused, a killed one is in nobody's way."""

import contextlib
import errno
import logging
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import filelock
import pytest

from ma_agiqa_core.errors import MaAgiqaError
from ma_agiqa_core.records.output_lock import only_writer
from ma_agiqa_core.records.record import read_records

FORMATS = (".csv", ".jsonl", ".parquet")


HOLDER = """
import sys, pathlib
from ma_agiqa_core.records.output_lock import only_writer
with only_writer(pathlib.Path(sys.argv[1])):
    print("held", flush=True)
    sys.stdin.read()
"""


@pytest.fixture
def holder(folder: Path) -> Iterator[Callable[[Path], "subprocess.Popen[str]"]]:
    """Starts a process that holds an output until it is killed."""
    with contextlib.ExitStack() as started:

        def hold(out: Path) -> "subprocess.Popen[str]":
            command = [sys.executable, "-c", HOLDER, str(out)]
            process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
            started.enter_context(process)
            started.callback(process.kill)
            assert process.stdout is not None
            assert process.stdout.readline() == "held\n"
            return process

        yield hold


def test_the_second_writer_is_refused_and_a_killed_one_forgotten(folder: Path, run: Any, holder: Any) -> None:
    outputs = [folder / f"scores{suffix}" for suffix in FORMATS]
    run("score", "photos", "--out", outputs[0])
    before = outputs[0].read_bytes()
    process = holder(outputs[0])

    for more in ([], ["--resume"]):
        code, printed, err = run("score", "photos", "--out", "./photos/../scores.csv", "--model", "missing", *more)
        assert (code, printed) == (2, "")
        assert f"Expected an output that no other process is writing, got {outputs[0]}. Wait" in err
        assert err.count("\n") == 1
    assert outputs[0].read_bytes() == before
    assert run("score", "photos", "--out", outputs[1])[0] == 1  # another output is free
    process.kill()
    process.wait()

    assert "Expected" not in run("score", "photos", "--out", outputs[0], "--resume")[2]
    assert sorted(path.name for path in folder.iterdir()) == ["photos", "scores.csv", "scores.jsonl"]


@pytest.mark.parametrize("suffix", FORMATS)
def test_every_format_is_held(folder: Path, run: Any, suffix: str) -> None:
    out = folder / f"scores{suffix}"
    with only_writer(out):
        code, _, err = run("score", "photos", "--out", out)

    assert code == 2
    assert "no other process is writing" in err
    assert not out.exists()
    run("score", "photos", "--out", out)
    assert len(list(read_records(out))) == 4


@pytest.mark.skipif(os.name == "nt", reason="links need rights on Windows")
def test_a_link_is_the_same_output(folder: Path) -> None:
    (folder / "link.csv").symlink_to(folder / "real.csv")

    with (
        only_writer(folder / "link.csv"),
        pytest.raises(FileExistsError, match=r"got .*real\.csv\."),
        only_writer(folder / "real.csv"),
    ):
        pass


def test_a_run_that_is_interrupted_lets_go(folder: Path) -> None:
    with contextlib.suppress(KeyboardInterrupt), only_writer(folder / "a.csv"):
        raise KeyboardInterrupt
    with only_writer(folder / "a.csv"):
        pass
    assert [path.name for path in folder.iterdir()] == ["photos"]


@pytest.mark.parametrize("error", [NotImplementedError("no flock"), OSError(errno.ENOLCK, "No locks available")])
def test_without_locks_the_run_goes_on_and_says_so(
    folder: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, error: Exception
) -> None:
    def acquire(lock: filelock.FileLock) -> None:
        raise error

    monkeypatch.setattr(filelock.FileLock, "acquire", acquire)
    with caplog.at_level(logging.WARNING), only_writer(folder / "a.csv"):
        pass
    assert "a.csv cannot be locked" in caplog.text
    assert "let no second process write it" in caplog.text


def test_a_folder_where_nothing_can_be_made_is_refused(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def acquire(lock: filelock.FileLock) -> None:
        raise OSError(errno.EROFS, "Read-only file system")

    monkeypatch.setattr(filelock.FileLock, "acquire", acquire)
    with pytest.raises(MaAgiqaError, match=r"got .*a\.csv: Read-only"), only_writer(folder / "a.csv"):
        pass
