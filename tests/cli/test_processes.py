"""The command line as a process: killed, interrupted, piped, on a terminal; with the package's scorer."""

import contextlib
import json
import os
import random
import select
import signal
import struct
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import PIL.Image
import pytest
from project_paths import SUPPORT

from ma_agiqa_core import cli
from ma_agiqa_core.records.record import read_records

MakePicture = Callable[[Path, int], Path]
SCRIPT = SUPPORT / "brightness_cli.py"
DEADLINE = 180.0  # seconds, on a machine under load
needs_fork = pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork and signals")


def start(*arguments: object, **options: Any) -> "subprocess.Popen[str]":
    command = [sys.executable, str(SCRIPT), *map(str, arguments)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, **options)


def wait_until(is_true: Callable[[], bool], what: str) -> None:
    deadline = time.monotonic() + DEADLINE
    while not is_true():
        assert time.monotonic() < deadline, what


class Server:
    """Runs command lines in forks of one process that has imported everything."""

    def __init__(self) -> None:
        self._process = start("--serve", stdin=subprocess.PIPE)

    def start(self, *arguments: object) -> int:
        assert self._process.stdin is not None
        self._process.stdin.write(json.dumps([str(argument) for argument in arguments]) + "\n")
        self._process.stdin.flush()
        return self._answer()

    def exit_code(self) -> int:
        return self._answer()

    def _answer(self) -> int:
        assert self._process.stdout is not None
        return int(self._process.stdout.readline())

    def close(self) -> None:
        self._process.kill()
        self._process.communicate()


@pytest.fixture(scope="module")
def server() -> Iterator[Server]:
    server = Server()
    yield server
    server.close()


@needs_fork
@pytest.mark.parametrize("name", ["scores.csv", "scores.jsonl", "scores.parquet"])
def test_killed_at_random_moments_and_resumed_nothing_is_lost_twice_or_half(
    tmp_path: Path, make_picture: MakePicture, server: Server, name: str
) -> None:
    random_moment = random.Random(3)
    out = tmp_path / name
    growing = out.with_name(name + ".partial.jsonl") if out.suffix == ".parquet" else out
    for i in range(120):
        make_picture(tmp_path / "in" / f'{i:03} "quoted",\nnew line.png', i)
    options = ("--out", out, "--model", "slow", "--batch-size", 2)

    def size() -> int:
        return growing.stat().st_size if growing.exists() else 0

    kills = 0
    for attempt in range(8):
        pid = server.start("score", tmp_path / "in", *options, *(["--resume"] if attempt else []))
        target = size() + random_moment.randrange(3000)
        ended = time.monotonic() + random_moment.random()  # also while it starts, finds and rewrites
        while size() < target and time.monotonic() < ended:
            pass
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
        kills += server.exit_code() == -signal.SIGKILL
        whole = list(read_records(growing)) if growing.exists() else []
        assert len({record.path for record in whole}) == len(whole)
    assert kills >= 3

    server.start("score", tmp_path / "in", *options, "--resume")
    assert server.exit_code() == 0

    records = list(read_records(out))
    expected = Counter(str(path) for path in (tmp_path / "in").iterdir())
    assert Counter(record.path for record in records) == expected
    brightness = {record.path: record.score for record in records}
    assert all(score == pytest.approx(int(Path(path).name[:3]) / 255) for path, score in brightness.items())
    assert sorted(tmp_path.iterdir()) == sorted([out, tmp_path / "in"])  # no journal, no temporary file


@needs_fork
@pytest.mark.parametrize("name", ["scores.csv", pytest.param("scores.jsonl", marks=pytest.mark.long), "scores.parquet"])
def test_interrupt_ends_at_once_and_keeps_what_was_written(
    tmp_path: Path, make_picture: MakePicture, name: str
) -> None:
    out = tmp_path / name
    for i in range(12):
        make_picture(tmp_path / "in" / f"{i:02}.png", i)
    arguments = ("score", tmp_path / "in", "--out", out, "--batch-size", 2, "--json", "--model", "hangs")
    hangs = tmp_path / "hangs"
    process = start(*arguments, env={**os.environ, "HANGS": str(hangs)})
    wait_until(hangs.exists, "the third batch")

    pressed = time.monotonic()
    process.send_signal(signal.SIGINT)  # in the middle of a batch that takes a minute
    printed, err = process.communicate(timeout=DEADLINE)

    assert time.monotonic() - pressed < 20  # a moment, but on a machine under load; the batch takes a minute
    assert process.returncode == 130, err
    assert "Traceback" not in err
    written = [Path(record.path).name for record in read_records(out)]
    assert f"Interrupted: {len(written)} of 12 pictures are done. They are in {out}; continue with --resume." in err
    assert written in (["00.png", "01.png"], ["00.png", "01.png", "02.png", "03.png"])  # two done, or on their way
    assert [record["index"] for record in json.loads(printed)["records"]] == list(range(len(written)))


@needs_fork
def test_reader_that_leaves_early_ends_the_run_quietly(tmp_path: Path, make_picture: MakePicture) -> None:
    for i in range(40):
        make_picture(tmp_path / f"{i:02}.png", i)
    process = start("score", tmp_path, "--batch-size", 1)
    assert process.stdout is not None
    assert process.stdout.readline().startswith("SCORE")
    process.stdout.close()

    assert process.stderr is not None
    assert "Traceback" not in (err := process.stderr.read())
    assert "Exception ignored" not in err
    assert process.wait(DEADLINE) == -signal.SIGPIPE, err


@pytest.mark.parametrize("encoding", ["ascii", "cp1252"])
def test_any_terminal_encoding(tmp_path: Path, make_picture: MakePicture, encoding: str) -> None:
    make_picture(tmp_path / "猫.png", 51)
    process = start("score", tmp_path, env={**os.environ, "PYTHONIOENCODING": encoding})
    printed, err = process.communicate(timeout=DEADLINE)

    assert process.returncode == 0, err
    assert "Traceback" not in err
    assert r"\u732b.png" in printed or "猫.png" in printed


@needs_fork
@pytest.mark.parametrize(
    "closed", [">&-", *(pytest.param(one, marks=pytest.mark.long) for one in ("2>&-", ">&- 2>&-")), "<&- >&- 2>&-"]
)
def test_closed_streams(tmp_path: Path, make_picture: MakePicture, closed: str) -> None:
    make_picture(tmp_path / "a.png", 100)
    command = f'exec "$@" {closed}'
    score = map(str, [sys.executable, SCRIPT, "score", tmp_path, "--out", tmp_path / "scores.csv"])
    done = subprocess.run(["sh", "-c", command, "sh", *score], capture_output=True, text=True, timeout=DEADLINE)
    assert (done.returncode, "Traceback" in done.stderr) == (0, False), done.stderr
    assert len(list(read_records(tmp_path / "scores.csv"))) == 1


@needs_fork
def test_progress_on_a_terminal(tmp_path: Path, make_picture: MakePicture) -> None:
    import fcntl
    import pty
    import termios

    for i in range(60):
        make_picture(tmp_path / f"{i:02}.png", i)
    ours, theirs = pty.openpty()
    fcntl.ioctl(ours, termios.TIOCSWINSZ, struct.pack("4H", 30, 120, 0, 0))
    command = [sys.executable, str(SCRIPT), "score", str(tmp_path), "--model", "slow", "--batch-size", "1"]
    with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=theirs) as process:
        os.close(theirs)
        shown = b""
        with contextlib.suppress(OSError):  # the other end is closed
            while select.select([ours], [], [], DEADLINE)[0] and (chunk := os.read(ours, 4096)):
                shown += chunk
    os.close(ours)

    assert process.returncode == 0, shown
    assert b" of 60, " in shown
    assert b" left, " in shown
    assert b"pictures/s" in shown


def test_help_imports_nothing_heavy() -> None:
    code = (
        "import sys; from ma_agiqa_core.cli import run; assert run(sys.argv[1:]) == 0; "
        "print(*sorted({name.partition('.')[0] for name in sys.modules}), file=sys.stderr)"
    )
    for arguments in (["--help"], ["score", "--help"], ["--version"]):
        done = subprocess.run([sys.executable, "-c", code, *arguments], capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
        loaded = set(done.stderr.split())
        assert "click" in loaded
        assert not loaded & {"torch", "numpy", "PIL", "scipy", "tqdm", "jinja2", "pyarrow", "safetensors"}


def installed_command() -> list[str]:
    return [sys.executable, "-c", "from ma_agiqa_core.cli import main; main()"]


@pytest.fixture
def lite() -> None:
    from ma_agiqa_core.scorers import lite

    if not (hasattr(lite, "LITE_WEIGHTS") and lite.LITE_WEIGHTS.exists()):
        pytest.skip("the weights of lite are not there")


@pytest.mark.usefixtures("lite")
def test_lite_from_end_to_end(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    coarse = PIL.Image.fromarray(rng.integers(0, 256, (24, 32, 3), dtype=np.uint8))
    sharp = coarse.resize((256, 192), PIL.Image.Resampling.NEAREST)
    sharp.save(tmp_path / "sharp.png")
    sharp.resize((32, 24)).resize((256, 192)).save(tmp_path / "blurred.jpg", quality=20)
    (tmp_path / "broken.png").touch()
    done = subprocess.run(
        [
            *installed_command(),
            "rank",
            tmp_path,
            "--top",
            "1",
            "--json",
            "--report",
            tmp_path / "report.html",
        ],
        capture_output=True,
        text=True,
    )

    assert done.returncode == 1, done.stderr
    answer = json.loads(done.stdout)
    assert answer["model"]["name"] == "lite"
    assert len(answer["kept"]) == len(answer["rejected"]) == len(answer["failed"]) == 1
    assert answer["failed"][0]["error"] == "file is empty"
    model = answer["model"]
    assert all(model["low"] <= entry["score"] <= model["high"] for entry in answer["kept"] + answer["rejected"])
    assert (tmp_path / "report.html").stat().st_size > 1000


@pytest.mark.usefixtures("lite")
def test_models_says_what_lite_is(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.run(["models", "--json"]) == 0
    (entry,) = json.loads(capsys.readouterr().out)["models"]
    assert entry["name"] == "lite"
    assert Path(entry["file"]).stat().st_size == entry["size"]

    assert cli.run(["models"]) == 0
    assert entry["revision"] in (shown := capsys.readouterr().out)
    assert "MA-AGIQA" in shown
