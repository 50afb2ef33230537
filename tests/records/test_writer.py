"""Outputs that go on where they ended: what is kept, dropped, refused and left untouched."""

import os
import signal
import threading
from collections.abc import Callable
from pathlib import Path

import pytest

from ma_agiqa_core.records import record as records
from ma_agiqa_core.records import writer as record_writer
from ma_agiqa_core.records.record import Record, read_records
from ma_agiqa_core.records.writer import check_output, open_records

FORMATS = (".csv", ".jsonl", ".parquet")


def scored(path: str, model: str = "lite@1", score: float = 0.5) -> Record:
    return Record(path, score, 50.0, 8, 8, model, None)


def failed(path: str, model: str = "lite@1") -> Record:
    return Record(path, None, None, None, None, model, "file is empty")


def write(out: Path, *batch: Record, resume: bool = False, identity: str = "lite@1") -> None:
    with open_records(out, identity, resume=resume) as writer:
        writer.write(batch)


@pytest.fixture(params=FORMATS)
def out(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    return tmp_path / f"scores{request.param}"


def leave_killed(out: Path, *batch: Record, resume: bool = False) -> None:
    """Writes without closing, as a killed run does."""
    open_records(out, "lite@1", resume=resume).write(batch)


def test_resume_keeps_scores_and_drops_errors(out: Path) -> None:
    write(out, scored("a.png"), failed("b.png"), scored("c.png"))

    with open_records(out, "lite@1", resume=True) as writer:
        assert [writer.holds(name) for name in ("a.png", "b.png", "c.png", "d.png")] == [
            True,
            False,
            True,
            False,
        ]
        assert writer.holds(os.path.abspath("a.png"))  # noqa: PTH100
        assert writer.holds(Path("x/../a.png"))
        writer.write([scored("b.png")])

    assert list(read_records(out)) == [scored("a.png"), scored("c.png"), scored("b.png")]
    assert list(out.parent.iterdir()) == [out]


def test_without_resume_the_output_is_overwritten(out: Path) -> None:
    write(out, scored("a.png"))
    leave_killed(out, scored("b.png"))
    write(out, scored("c.png"))

    assert list(read_records(out)) == [scored("c.png")]
    assert list(out.parent.iterdir()) == [out]


def test_resume_without_an_output_starts_one(out: Path) -> None:
    write(out, scored("a.png"), resume=True)

    assert list(read_records(out)) == [scored("a.png")]


def test_killed_run_is_resumed_any_number_of_times(out: Path) -> None:
    write(out, scored("a.png"))
    leave_killed(out, scored("b.png"), failed("x.png"), resume=True)
    leave_killed(out, scored("c.png"), resume=True)
    write(out, scored("d.png"), resume=True)

    assert list(read_records(out)) == [scored(f"{letter}.png") for letter in "abcd"]


def test_each_path_is_kept_once(out: Path) -> None:
    write(out, scored("a.png"), scored("./a.png"), scored("b.png"))
    write(out, resume=True)

    assert list(read_records(out)) == [scored("a.png"), scored("b.png")]


def test_parquet_killed_between_replacing_and_removing_its_journal(tmp_path: Path) -> None:
    out = tmp_path / "scores.parquet"
    leave_killed(out, scored("a.png"), scored("b.png"))
    journal = tmp_path / "scores.parquet.partial.jsonl"
    content = journal.read_bytes()
    write(out, resume=True)
    journal.write_bytes(content)

    write(out, scored("c.png"), resume=True)

    assert list(read_records(out)) == [scored("a.png"), scored("b.png"), scored("c.png")]
    assert not journal.exists()


@pytest.mark.parametrize("record", [scored("b.png", "other@2"), failed("b.png", "lite@1;dtype=float16")])
def test_resume_refuses_other_scores_and_leaves_them(out: Path, record: Record) -> None:
    write(out, scored("a.png"), record)
    before = out.read_bytes()

    with pytest.raises(ValueError, match=rf"hold scores of lite@1, as this run makes, got {record.model}\. "):
        open_records(out, "lite@1", resume=True)

    assert out.read_bytes() == before
    assert list(out.parent.iterdir()) == [out]


def test_resume_refuses_a_journal_of_other_scores(tmp_path: Path) -> None:
    leave_killed(tmp_path / "scores.parquet", scored("a.png"))

    with pytest.raises(ValueError, match=r"hold scores of other@2, as this run makes, got lite@1"):
        open_records(tmp_path / "scores.parquet", "other@2", resume=True)

    write(tmp_path / "scores.parquet", resume=True)
    assert list(read_records(tmp_path / "scores.parquet")) == [scored("a.png")]


def test_resume_refuses_what_is_not_an_output_and_leaves_it(out: Path) -> None:
    out.write_text("my diary")

    with pytest.raises(ValueError, match="to hold records of ma-agiqa"):
        open_records(out, "lite@1", resume=True)

    assert out.read_text() == "my diary"
    assert list(out.parent.iterdir()) == [out]


def test_parquet_streams_in_row_groups(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from pyarrow import parquet

    monkeypatch.setattr(record_writer, "ROW_GROUP", 10)
    monkeypatch.setattr(records, "ROW_GROUP", 10)
    out = tmp_path / "scores.parquet"
    pictures = [scored(f"{i}.png", score=i / 100) for i in range(47)]
    write(out, *pictures[:23])
    with open_records(out, "lite@1", resume=True) as writer:
        for start in range(23, 47, 3):
            writer.write(pictures[start : start + 3])

    assert list(read_records(out)) == pictures
    metadata = parquet.read_metadata(out)
    assert [metadata.row_group(i).num_rows for i in range(metadata.num_row_groups)] == [10, 10, 10, 10, 7]


@pytest.mark.skipif(os.name == "nt", reason="links need rights on Windows")
def test_linked_output_stays_a_link(tmp_path: Path) -> None:
    target, link = tmp_path / "real.csv", tmp_path / "link.csv"
    target.write_text("")
    link.symlink_to(target)

    write(link, scored("a.png"))

    assert link.is_symlink()
    assert list(read_records(target)) == [scored("a.png")]


@pytest.mark.skipif(os.name == "nt", reason="no SIGINT to oneself on Windows")
def test_interrupt_comes_after_the_batch(out: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert threading.current_thread() is threading.main_thread()
    encode: Callable[[Record], bytes] = record_writer.json_line

    def interrupted(record: Record) -> bytes:
        signal.raise_signal(signal.SIGINT)  # of this thread: kill() may reach another one, later
        return encode(record)

    monkeypatch.setattr(record_writer, "json_line", interrupted)
    monkeypatch.setattr(record_writer, "csv_line", lambda record: interrupted(record) and records.csv_line(record))
    writer = open_records(out, "lite@1")

    with pytest.raises(KeyboardInterrupt), writer:
        writer.write([scored("a.png"), scored("b.png")])

    assert list(read_records(out)) == [scored("a.png"), scored("b.png")]


@pytest.mark.parametrize("name", ["scores.txt", "scores", "scores.csv.gz", "photo.png"])
def test_other_endings_are_refused(tmp_path: Path, name: str) -> None:
    with pytest.raises(ValueError, match=rf"ending in \.csv, \.jsonl or \.parquet, got .*{name}"):
        check_output(tmp_path / name)


def test_missing_folder_is_refused(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"Expected an existing folder for a\.csv, got .*nowhere"):
        check_output(tmp_path / "nowhere" / "a.csv")


def test_parquet_without_pyarrow_names_the_pip_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "pyarrow", None)

    with pytest.raises(ImportError, match=r'pip install "ma-agiqa\[parquet\]"'):
        check_output(tmp_path / "a.parquet")
