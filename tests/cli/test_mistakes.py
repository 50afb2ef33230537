"""What users get wrong, and what file systems hold in store: one clear line, never a traceback."""

import json
import os
import sys
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from ma_agiqa_core.records.record import read_records

MakePicture = Callable[[Path, int], Path]
STRANGE_NAMES = [
    "with space",
    "qu'ote\"s",
    "$(touch HACKED)`;&|",
    "two\nlines",
    "猫 été Привет",
    "--top",
    "%s{}",
]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["score", "nowhere"], "Expected a picture or a folder, got nowhere, which does not exist."),
        (["score", "nothing"], "Expected pictures in nothing, got none."),
        (["score", ""], "Invalid value for 'SOURCE...': Expected a path, got an empty one."),
        (["rank", "photos", "--copy-best", ""], "Invalid value for '--copy-best': Expected a path, got an empty one."),
        (["score", "a\0b"], "got 'a\\x00b' with a NUL character."),
        (["score"], "Missing argument 'SOURCE...'. Try 'ma-agiqa score --help'."),
        (["score", "photos", "--model", "missing"], "Expected a known model, got 'missing'."),
        (["score", "photos", "--out", "scores.txt"], "Expected an output ending in .csv, .jsonl or .parquet"),
        (["score", "photos", "--out", "nowhere/scores.csv"], "Expected an existing folder for scores.csv"),
        (["score", "photos", "--resume"], "Expected --out F beside --resume, got none."),
        (
            ["score", "photos", "--report", "photos/a.png"],
            "Expected a report ending in .html, got photos/a.png.",
        ),
        (["score", "photos", "--batch-size", "0"], "Invalid value for '--batch-size': 0"),
        (["score", "photos", "--dtype", "int3"], "Invalid value for '--dtype': 'int3'"),
        (["score", "photos", "--bogus"], "No such option"),
        (
            ["score", "photos", "--prompts", "nowhere.csv"],
            "Expected a table of prompts, got nowhere.csv: no such",
        ),
        (["score", "photos", "--prompts", "photos/a.png"], "Expected prompts in a .csv or .jsonl file"),
        (["score", "photos", "--model", "needs-prompt"], "Expected prompts for needs-prompt, got none."),
        (["rank", "photos", "--top", "0"], "Invalid value for '--top': Expected at least 1, got 0."),
        (["rank", "photos", "--min-score", "good"], "Invalid value for '--min-score': 'good'"),
        (
            ["rank", "photos", "--min-score", "nan"],
            "Invalid value for '--min-score': Expected a number, got nan.",
        ),
        (["rank", "photos", "--copy-best", "photos/a.png"], "photos/a.png"),
        (["bogus"], "No such command 'bogus'"),
    ],
)
def test_mistakes_are_one_line_and_exit_code_2(folder: Path, run: Any, arguments: list[str], message: str) -> None:
    (folder / "nothing").mkdir()
    before = {path: path.read_bytes() for path in folder.rglob("*.*")}

    code, out, err = run(*arguments)

    assert (code, out) == (2, "")
    assert err.startswith("ma-agiqa: ")
    assert message in err
    assert err.count("\n") == 1
    assert {path: path.read_bytes() for path in folder.rglob("*.*")} == before


@pytest.mark.parametrize("arguments", [["--debug", "score", "nowhere"], ["score", "nowhere", "--debug"]])
def test_debug_shows_the_traceback(folder: Path, run: Any, arguments: list[str]) -> None:
    code, _, err = run(*arguments)

    assert code == 2
    assert "Traceback (most recent call last)" in err
    assert "MissingFileError" in err
    assert err.splitlines()[-1].startswith("ma-agiqa: Expected a picture or a folder")


def test_bare_command_shows_the_help(run: Any) -> None:
    code, out, err = run()

    assert (code, out) == (2, "")
    assert "Commands:" in err


def test_folder_that_cannot_be_listed_is_told_and_fails(
    folder: Path, run: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    scandir = os.scandir

    def guarded(path: Path) -> object:
        if Path(path).name == "sub":
            raise PermissionError(13, "Permission denied", str(path))
        return scandir(path)

    monkeypatch.setattr(os, "scandir", guarded)
    (folder / "photos" / "broken.png").unlink()
    code, out, err = run("score", "photos")

    assert code == 1
    assert out.count(".png") == 2
    assert err.splitlines()[0] == "ma-agiqa: left out photos/sub: Permission denied"


@pytest.mark.skipif(os.name == "nt", reason="Windows forbids most of these names")
def test_strange_names_and_links_that_loop(
    tmp_path: Path, run: Any, make_picture: MakePicture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    pictures = [make_picture(tmp_path / "in" / name / f"{name}.png", 51) for name in STRANGE_NAMES]
    (tmp_path / "in" / "loop").symlink_to(tmp_path / "in")
    expected = Counter(str(path.relative_to(tmp_path)) for path in pictures)

    for suffix in (".csv", ".jsonl", ".parquet"):
        assert run("score", "in", "--out", f"scores{suffix}", "--report", "report.html")[0] == 0
        assert Counter(record.path for record in read_records(Path(f"scores{suffix}"))) == expected
    code, out, _ = run("rank", "in", "--copy-best", "best")

    assert code == 0
    assert len(out.splitlines()) == 1 + len(pictures)  # a newline in a name does not break the table
    assert sorted(path.name for path in Path("best").iterdir()) == sorted(path.name for path in pictures)
    assert not list(tmp_path.rglob("HACKED*"))


@pytest.mark.skipif(sys.platform != "linux", reason="other file systems refuse such names")
def test_name_that_is_no_unicode(
    tmp_path: Path, run: Any, make_picture: MakePicture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    source = make_picture(tmp_path / "plain.png", 51)
    source.rename(os.fsdecode(b"caf\xe9.png"))

    assert run("score", ".", "--out", "scores.csv")[0] == 0
    assert [record.path for record in read_records(Path("scores.csv"))] == [r"caf\xe9.png"]
    assert "Nothing left to score" in run("score", ".", "--out", "scores.csv", "--resume")[2]
    assert json.loads(run("score", ".", "--json")[1])["records"][0]["path"] == r"caf\xe9.png"
