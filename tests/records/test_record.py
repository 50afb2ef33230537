"""Records in their three formats: round trips, torn tails, what is not ours."""

import csv
import json
from pathlib import Path

import pytest
from pyarrow import parquet

from ma_agiqa_core.records.record import COLUMNS, Record, csv_line, json_line, path_text, read_records
from ma_agiqa_core.records.writer import open_records

FORMATS = (".csv", ".jsonl", ".parquet")
RECORDS = [
    Record("plain.png", 0.1234567, 50.0, 640, 480, "lite@1", None),
    Record("a,b \"c\" 'd'.png", 1e-7, None, 1, 2, "lite@1", None),
    Record("two\nlines\r\n.png", -3.5, 0.0, 5, 6, "lite@1;dtype=float32", None),
    Record("\r lone return \u2028 猫.png", 100.0, 100.0, 7, 8, "lite@1", None),
    Record("broken.png", None, None, None, None, "lite@1", 'not, "a" picture\nat all'),
]


def write(out: Path, records: list[Record]) -> None:
    with open_records(out, "lite@1") as writer:
        writer.write(records)


@pytest.mark.parametrize("suffix", FORMATS)
def test_round_trip(tmp_path: Path, suffix: str) -> None:
    out = tmp_path / f"scores{suffix}"
    write(out, RECORDS)

    assert list(read_records(out)) == RECORDS


def test_other_programs_read_the_same(tmp_path: Path) -> None:
    for suffix in FORMATS:
        write(tmp_path / f"scores{suffix}", RECORDS)
    expected = [tuple(getattr(record, column) for column in COLUMNS) for record in RECORDS]

    with (tmp_path / "scores.csv").open(newline="", encoding="utf-8") as file:
        rows = list(csv.reader(file))
    assert tuple(rows[0][:7]) == ("path", "score", "percentile", "width", "height", "model", "error")
    assert tuple(rows[0][7:]) == ("prompt", "modified", "digest")
    cells = [["" if value is None else str(value) for value in row] for row in expected]
    cells[3][0] = f"'{cells[3][0]}"  # it starts with a return
    assert rows[1:] == cells

    lines = (tmp_path / "scores.jsonl").read_bytes().split(b"\n")
    assert [tuple(json.loads(line).values()) for line in lines[:-1]] == expected
    assert lines[-1] == b""

    table = parquet.read_table(tmp_path / "scores.parquet")
    assert table.column_names == list(COLUMNS)
    assert [tuple(row.values()) for row in table.to_pylist()] == expected


@pytest.mark.parametrize("suffix", [".csv", ".jsonl"])
def test_cut_anywhere_only_the_last_record_is_lost(tmp_path: Path, suffix: str) -> None:
    whole, cut = tmp_path / f"whole{suffix}", tmp_path / f"cut{suffix}"
    write(whole, RECORDS)
    content = whole.read_bytes()
    encode = csv_line if suffix == ".csv" else json_line
    ends = [len(content) - sum(len(encode(r)) for r in RECORDS)]
    for record in RECORDS:
        ends.append(ends[-1] + len(encode(record)))

    for length in range(len(content) + 1):
        cut.write_bytes(content[:length])
        count = sum(end <= length for end in ends[1:])
        assert list(read_records(cut)) == RECORDS[:count], length


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("a.csv", "name,age\nx,3\n"),
        ("a.csv", "hello"),
        ("a.csv", ",".join(COLUMNS) + ",more\n"),
        ("a.csv", ",".join(COLUMNS) + "\nx,not a number,,,,m,\n"),
        ("a.csv", ",".join(COLUMNS) + "\nx,1\ny,1,1,1,1,m,\n"),
        ("a.jsonl", "hello"),
        ("a.jsonl", '{"other": 1}\n'),
        ("a.jsonl", '{"path": "x"}\n'),
        ("a.jsonl", '{"path" broken\n' + json_line(RECORDS[0]).decode()),
        ("a.parquet", "PAR1 not really"),
    ],
)
def test_what_is_not_ours_is_refused(tmp_path: Path, name: str, content: str) -> None:
    (tmp_path / name).write_text(content)

    with pytest.raises(ValueError, match=rf"Expected {name} to hold records of ma-agiqa, got something else"):
        list(read_records(tmp_path / name))


def test_undecodable_bytes_become_escapes() -> None:
    assert path_text("猫 été.png") == "猫 été.png"
    assert path_text(b"caf\xe9.png".decode("utf-8", "surrogateescape")) == r"caf\xe9.png"
