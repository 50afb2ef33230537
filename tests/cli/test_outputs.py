"""Outputs that cannot be written are refused before a model is loaded, by every command that has one."""

import errno
from pathlib import Path
from typing import Any

import pytest

from ma_agiqa_core import cli
from ma_agiqa_core.atomic_write import atomic_write, check_can_write, check_can_write_in
from ma_agiqa_core.errors import MaAgiqaError

SCORING = [("score", "--out", "F.csv"), ("score", "--report", "F.html"), ("rank", "--report", "F.html")]
OTHERS = [
    (["evaluate", "--labels", "l.csv", "--images", "photos", "--score-column", "mos"], "--plot", "F.png"),
    (["distill", "--teacher", "missing", "--images", "photos"], "--out", "F.safetensors"),
    (["calibrate", "nowhere", "--prompts", "p.txt"], "--out", "F.json"),
    (["calibrate", "nowhere", "--prompts", "p.txt"], "--plot", "F.png"),
    *(([command, "photos", "--model", "missing"], option, name) for command, option, name in SCORING),
]


@pytest.mark.parametrize(("command", "option", "name"), OTHERS)
@pytest.mark.usefixtures("brightness")
def test_files_that_cannot_be_written(
    folder: Path, capsys: pytest.CaptureFixture[str], command: list[str], option: str, name: str
) -> None:
    is_folder, is_read_only = folder / f"1{name}", folder / f"2{name}"
    is_folder.mkdir()
    is_read_only.touch(0o444)

    for out, message in (
        (is_folder, f"Expected a file to write, got the folder {is_folder}."),
        (is_read_only, f"got {is_read_only}, which is read-only."),
        (folder / "photos" / "a.png" / name, "a.png"),
    ):
        assert cli.run([*command, option, str(out)]) == 2
        err = capsys.readouterr().err
        assert message in err
        assert err.count("\n") == 1
    assert not list(folder.glob("*.tmp"))


@pytest.mark.parametrize(
    "command",
    [
        ["rank", "photos", "--model", "missing", "--copy-best"],
        ["extract", "photos", "--semantic", "missing", "--cache"],
        ["train", "--labels", "l.csv", "--images", "photos", "--score-column", "mos", "--out"],
    ],
)
@pytest.mark.usefixtures("brightness")
def test_folders_that_cannot_be_written(folder: Path, capsys: pytest.CaptureFixture[str], command: list[str]) -> None:
    assert cli.run([*command, "photos/a.png"]) == 2
    err = capsys.readouterr().err
    assert "photos/a.png" in err
    assert err.count("\n") == 1


def test_convert_says_so_before_it_reads(folder: Path, run: Any) -> None:
    (folder / "out.safetensors").mkdir()

    assert "got the folder out.safetensors" in run("convert", "nowhere.pt", "out.safetensors")[2]


def test_a_folder_without_permission(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def touch(path: Path, *arguments: object) -> None:
        raise PermissionError(errno.EACCES, "Permission denied")

    monkeypatch.setattr(Path, "touch", touch)
    with pytest.raises(MaAgiqaError, match=rf"got .*a\.csv: {tmp_path} says Permission denied\."):
        check_can_write(tmp_path / "a.csv")
    with pytest.raises(MaAgiqaError, match=rf"got .*new/er: {tmp_path} says Permission denied\."):
        check_can_write_in(tmp_path / "new" / "er")


def test_checking_leaves_nothing_behind(tmp_path: Path) -> None:
    check_can_write(tmp_path / "new" / "report.html", makes_folder=True)
    check_can_write_in(tmp_path / "other")
    with pytest.raises(FileNotFoundError, match=r"existing folder for a\.csv, got .*new"):
        check_can_write(tmp_path / "new" / "a.csv")

    assert list(tmp_path.iterdir()) == []


def test_two_writers_of_one_file_do_not_mix(tmp_path: Path) -> None:
    report = tmp_path / "report.html"
    with atomic_write(report, is_shared=True) as first:
        first.write_text("first")
        with atomic_write(report, is_shared=True) as second:
            second.write_text("second")
        assert report.read_text() == "second"

    assert report.read_text() == "first"
    assert list(tmp_path.iterdir()) == [report]
