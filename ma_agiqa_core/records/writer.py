"""Writes scoring records so that a run killed at any moment loses at most the batch it was in.

Every batch is one write of whole lines. Parquet cannot be appended to: its records also go to a JSON Lines
journal beside it, which is what survives a kill, and the Parquet file appears complete when the run ends.
"""

import os
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Sequence
from contextlib import ExitStack
from pathlib import Path

from ..atomic_write import atomic_write, check_can_write
from ..compute.interrupts import interrupts_held
from ..errors import MaAgiqaError
from .csv_cells import csv_row
from .record import (
    READERS,
    ROW_GROUP,
    Record,
    as_row,
    columns_of,
    csv_line,
    import_parquet,
    json_line,
    read_records,
)
from .resumed import ResumedRecords


class RecordWriter(ABC):
    """Where records go. Leaving the `with` block keeps what was written, whatever was raised."""

    def __init__(self, done: ResumedRecords) -> None:
        self._done = done

    def holds(self, path: str | os.PathLike[str]) -> bool:
        """Whether the output this run resumes already holds the picture's score."""
        return Path(path) in self._done

    @abstractmethod
    def write(self, batch: Sequence[Record]) -> None:
        """Adds a batch, whole even if Ctrl-C comes meanwhile."""

    @abstractmethod
    def close(self) -> None:
        """Completes the output."""

    def __enter__(self) -> "RecordWriter":
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()


def check_output(out: Path) -> None:
    """Refuses at once what `open_records` would refuse after the model is loaded.

    Raises:
        ValueError: The name does not end in .csv, .jsonl or .parquet, or the file cannot be written.
        FileNotFoundError: The folder does not exist.
        ImportError: Parquet without pyarrow.
    """
    if out.suffix.lower() not in READERS:
        raise MaAgiqaError(f"Expected an output ending in .csv, .jsonl or .parquet, got {out}.")
    check_can_write(out)
    if out.suffix.lower() == ".parquet":
        import_parquet()


def open_records(
    out: Path,
    identity: str,
    *,
    resume: bool = False,
    former: str | None = None,
    pictures: Iterable[Path] = (),
    prompt_of: Callable[[Path], str | None] = lambda picture: None,
    judges: Sequence[str] = (),
) -> RecordWriter:
    """Opens an output for this run's records. Hold it by `only_writer` where other processes may write it.

    Args:
        out: A .csv, .jsonl or .parquet file, overwritten unless the run is resumed.
        identity: The `model` of this run's records.
        resume: Keep the scores the output holds; records with an error are dropped, to be tried again.
        former: See `ResumedRecords`.
        pictures: Of these a score is only kept if the picture's file and prompt are still what was scored.
        prompt_of: Their prompts.
        judges: The names of the scorers, where there are several: see `columns_of`.

    Raises:
        ValueError: A resumed output is not one of ours, or another model or other settings made it. It stays
            as it was.
    """
    out = out.resolve()  # a link stays a link
    check_output(out)
    is_parquet = out.suffix.lower() == ".parquet"
    done = ResumedRecords(out, identity, former)
    if resume:
        for file in (out, _journal_of(out)) if is_parquet else (out,):
            done.take(read_records(file) if file.exists() else ())
        done.forget_changed(pictures, prompt_of)
    return (_ParquetWriter if is_parquet else _TextWriter)(out, resume, done, columns_of(judges))


def _journal_of(out: Path) -> Path:
    return out.with_name(out.name + ".partial.jsonl")


class _TextWriter(RecordWriter):
    def __init__(self, out: Path, resume: bool, done: ResumedRecords, columns: Sequence[str]) -> None:
        super().__init__(done)
        self._encode = csv_line if out.suffix.lower() == ".csv" else json_line
        old = read_records(out) if resume and out.exists() else iter(())
        with atomic_write(out) as temporary, temporary.open("wb") as file:
            file.write(csv_row(columns) if self._encode is csv_line else b"")
            file.writelines(self._encode(record) for record in done.kept(old))
        self._file = out.open("ab")

    def write(self, batch: Sequence[Record]) -> None:
        with interrupts_held():
            self._file.write(b"".join(map(self._encode, batch)))
            self._file.flush()

    def close(self) -> None:
        self._file.close()


class _ParquetWriter(RecordWriter):
    """Row groups go to a temporary file as they fill, so closing takes no time however many there are."""

    def __init__(self, out: Path, resume: bool, done: ResumedRecords, columns: Sequence[str]) -> None:
        super().__init__(done)
        parquet = import_parquet()
        import pyarrow

        text, number, size = pyarrow.string(), pyarrow.float64(), pyarrow.int32()
        types = {"score": number, "percentile": number, "width": size, "height": size}
        self._schema = pyarrow.schema([(name, types.get(name.rpartition(" ")[2], text)) for name in columns])
        self._make_table = pyarrow.Table.from_pylist
        self._rows: list[Record] = []
        self._journal_path = _journal_of(out)
        with ExitStack() as opened:
            temporary = opened.enter_context(atomic_write(out))
            self._file = opened.enter_context(parquet.ParquetWriter(temporary, self._schema))
            if resume and out.exists():
                self._add(done.kept(read_records(out)))
            self._journal = _TextWriter(self._journal_path, resume, done, columns)
            self._add(read_records(self._journal_path))
            self._opened = opened.pop_all()
        if not resume:
            out.unlink(missing_ok=True)

    def write(self, batch: Sequence[Record]) -> None:
        with interrupts_held():
            self._journal.write(batch)
            self._add(batch)

    def close(self) -> None:
        with interrupts_held():
            self._flush()
            self._opened.close()  # completes the temporary file, which takes the output's place
            self._journal.close()
            self._journal_path.unlink()

    def _add(self, records: Iterable[Record]) -> None:
        for record in records:
            self._rows.append(record)
            if len(self._rows) == ROW_GROUP:
                self._flush()

    def _flush(self) -> None:
        self._file.write_table(self._make_table([as_row(record) for record in self._rows], schema=self._schema))
        self._rows.clear()
