"""Commands whose output nobody reads, cannot be written, or goes to a terminal of another locale."""

import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from project_paths import SUPPORT

from ma_agiqa_core import cli
from ma_agiqa_core.records.record import read_records

MakePicture = Callable[[Path, int], Path]
SCRIPT = SUPPORT / "brightness_cli.py"
ASCII = {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}
needs_posix = pytest.mark.skipif(os.name == "nt", reason="pipes and locales of POSIX")


def command(*arguments: object, locale: dict[str, str] | None = None, **options: Any) -> "subprocess.CompletedProcess":
    started = [sys.executable, str(SCRIPT), *map(str, arguments)]
    options = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "timeout": 60, **options}
    done = subprocess.run(started, env={**os.environ, **(locale or {})}, **options)
    print(done.stderr)  # shown where a test fails
    return done


class Left:
    """A stream whose reader has gone."""

    encoding = "utf-8"

    def write(self, text: str) -> int:
        raise BrokenPipeError(32, "Broken pipe")

    def isatty(self) -> bool:
        return False

    def flush(self) -> None:
        raise BrokenPipeError(32, "Broken pipe")


@pytest.mark.parametrize(
    "arguments",
    [
        ["score", "photos"],
        ["score", "photos", "--json"],
        ["rank", "photos"],
        ["rank", "photos", "--json"],
        ["models"],
        ["models", "--json"],
        ["--help"],
        ["score", "--help"],
        ["--version"],
    ],
)
@pytest.mark.usefixtures("brightness")
def test_a_reader_that_left_is_no_failure(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], arguments: list[str]
) -> None:
    monkeypatch.setattr(sys, "stdout", Left())

    assert cli.run(arguments) == 141
    assert "Traceback" not in capsys.readouterr().err


@pytest.mark.usefixtures("brightness")
def test_a_reader_of_stderr_that_left(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stderr", Left())

    assert cli.run(["score", "photos", "--out", "scores.csv"]) == 141
    assert cli.run(["score", "nowhere"]) == 2
    assert len(list(read_records(Path("scores.csv")))) == 4


@needs_posix
def test_a_closed_pipe_ends_a_process_like_other_programs(tmp_path: Path, make_picture: MakePicture) -> None:
    make_picture(tmp_path / "a.png", 51)
    reader, writer = os.pipe()
    os.close(reader)

    done = command("rank", tmp_path, stdout=writer)
    os.close(writer)

    assert done.returncode == -signal.SIGPIPE
    assert b"Traceback" not in done.stderr
    assert b"Exception ignored" not in done.stderr


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="no /dev/full")
def test_a_full_disk_is_told_in_one_line(tmp_path: Path, make_picture: MakePicture) -> None:
    make_picture(tmp_path / "a.png", 51)
    with Path("/dev/full").open("w") as full:
        done = command("rank", tmp_path, stdout=full)

        assert done.returncode == 2
        assert done.stderr.splitlines()[-1] == b"ma-agiqa: No space left on device"
        assert command("score", "nowhere", stderr=full).returncode == 2


@pytest.mark.skipif(sys.platform != "linux", reason="other file systems refuse such names")
@pytest.mark.parametrize(
    ("first", "out"),
    [(ASCII, "scores.csv"), pytest.param({"PYTHONUTF8": "1"}, "scores.jsonl", marks=pytest.mark.long)],
)
def test_records_are_resumed_in_another_locale(
    tmp_path: Path, make_picture: MakePicture, first: dict[str, str], out: str
) -> None:
    other = ASCII if "LC_ALL" not in first else {"PYTHONUTF8": "1"}
    folder = tmp_path / "zażółć"
    make_picture(folder / "zażółć.png", 51)
    make_picture(folder / "plain.png", 51).rename(folder / os.fsdecode(b"caf\xe9.png"))
    (folder / "prompts.csv").write_text("path,prompt\nzażółć.png,gęś\ncaf\\xe9.png,four\n", encoding="utf-8")
    options = ("--model", "needs-prompt", "--prompts", folder / "prompts.csv", "--resume")
    # From inside, so that the working directory's own name counts, too.
    assert command("score", ".", "--out", out, *options, cwd=folder, locale=first).returncode == 0
    again = command("score", folder, "--out", out, *options, "--report", "r.html", cwd=folder, locale=other)
    assert again.returncode == 0
    assert b"Nothing left" in again.stderr
    assert {record.path: record.score for record in read_records(folder / out)} == {
        "zażółć.png": 3,
        r"caf\xe9.png": 4,
    }
    assert "zażółć.png" in (folder / "r.html").read_text(encoding="utf-8")


def test_a_mac_has_one_name_for_both_spellings(monkeypatch: pytest.MonkeyPatch) -> None:
    from ma_agiqa_core.records.record import path_key

    composed, decomposed = "/\u00e9.png", "/e\u0301.png"
    assert path_key(composed) != path_key(decomposed)
    monkeypatch.setattr(sys, "platform", "darwin")
    assert path_key(composed) == path_key(decomposed)


def test_a_latin_1_locale_means_the_same_files(monkeypatch: pytest.MonkeyPatch) -> None:
    from ma_agiqa_core.records.record import path_text

    listed = "zażółć é.png".encode().decode("latin-1")
    monkeypatch.setattr(sys, "getfilesystemencoding", lambda: "iso8859-1")

    assert path_text(listed) == "zażółć é.png"
    assert path_text("ż.png") == "ż.png"  # which no such system lists
