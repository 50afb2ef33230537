"""Cells that a spreadsheet must not run, and that must read back as they were."""

import csv
import io
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from ma_agiqa_core.records.csv_cells import cell_text, csv_row
from ma_agiqa_core.records.record import COLUMNS, Record, csv_line, json_line, read_records

MakePicture = Callable[[Path, int], Path]
FORMULAS = ["=1+2", "+1", "-x.png", "@SUM(1)", "\t=1", "\r=1", "\n=1", "  =1", "\u00a0@x", "＝1"]
HARMLESS = ["a.png", "a=1", "x-y", "猫.png", "", " a", "1+2"]
STRANGE = ["'", "''", "'=1", "'a.png", "a;=1", "a\t=1", 'a";=1', "a,=1", "a\n=1"]


def rows_of(line: bytes, separator: str = ",") -> list[list[str]]:
    return list(csv.reader(io.StringIO(line.decode(), newline=""), delimiter=separator))


@pytest.mark.parametrize("text", [*FORMULAS, *HARMLESS, *STRANGE])
def test_text_reads_back_and_is_no_formula(text: str) -> None:
    ((cell, number),) = rows_of(csv_row([text, -1.5]))

    assert cell_text(cell) == text
    assert cell.lstrip()[:1] not in tuple("=+-@＝＋－＠")
    assert cell[:1] not in tuple("\t\r\n")
    assert number == "-1.5"
    assert (cell == text) == (text in HARMLESS or text[:1] == "a")


@pytest.mark.parametrize("separator", [";", "\t"])
def test_another_separator_starts_no_cell_inside_text(separator: str) -> None:
    text = f"a{separator}=1+2"

    assert rows_of(csv_row([text]), separator) == [[text]]


@pytest.mark.parametrize("text", [*FORMULAS, *STRANGE])
def test_records_read_back(tmp_path: Path, text: str) -> None:
    record = Record(text, -0.5, None, 1, 2, text, text, text, "2025-07-01T12:00:00Z", "0123")
    for suffix, line in ((".csv", csv_line(record)), (".jsonl", json_line(record))):
        out = tmp_path / f"scores{suffix}"
        header = ",".join(COLUMNS) + "\n" if suffix == ".csv" else ""
        out.write_bytes(header.encode() + line)
        assert list(read_records(out)) == [record]


def test_names_that_look_like_formulas_are_resumed(
    folder: Path, run: Any, make_picture: MakePicture, monkeypatch: pytest.MonkeyPatch
) -> None:
    names = ("=1+2.png", "@SUM(1).png", "-x.png", "'=x.png", "'.png", "plain;=1.png")
    for name in names:
        make_picture(folder / "in" / name, 51)
    monkeypatch.chdir(folder / "in")

    assert run("score", ".", "--out", "scores.csv")[0] == 0
    with Path("scores.csv").open(newline="", encoding="utf-8") as file:
        cells = [row["path"] for row in csv.DictReader(file)]
    assert not any(cell.startswith(("=", "+", "-", "@")) for cell in cells)
    assert sorted(record.path for record in read_records(Path("scores.csv"))) == sorted(names)
    assert "Nothing left" in run("score", ".", "--out", "scores.csv", "--resume")[2]


@pytest.mark.parametrize("newline", ["\n", "\r\n"])
def test_an_output_that_a_spreadsheet_saved_is_resumed(folder: Path, run: Any, newline: str) -> None:
    out = folder / "scores.csv"
    run("score", "photos", "--out", out)
    saved = out.read_bytes()
    out.write_bytes(b"\xef\xbb\xbf" + saved.replace(b"\n", newline.encode()))

    assert "0 of 1 pictures" in run("score", "photos", "--out", out, "--resume")[2]  # the broken one
    assert sorted(out.read_bytes().splitlines()) == sorted(saved.splitlines())
    assert not saved.startswith(b"\xef\xbb\xbf")


def test_predictions_run_no_formulas(tmp_path: Path) -> None:
    from ma_agiqa_core.training.outputs import write_predictions

    pictures = [SimpleNamespace(name="=1.png", scores={"quality": -2.0})]
    labelled, split = SimpleNamespace(pictures=pictures), SimpleNamespace(val=[0], test=[])
    write_predictions(tmp_path / "p.csv", labelled, split, ["quality"], np.array([[-1.5]]))  # type: ignore[arg-type]

    (row,) = csv.DictReader((tmp_path / "p.csv").open(encoding="utf-8"))
    assert row == {"name": "'=1.png", "split": "val", "quality_label": "-2.0", "quality_prediction": "-1.5"}
