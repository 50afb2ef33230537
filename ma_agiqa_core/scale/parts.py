"""The Parquet parts of a run: what stands in them, written so that each is whole, and each key in one of them.

A part appears when it is complete. A run writes one every `save_every` seconds, or every hundredth of the time it has
run if that is longer, so that there are some hundred of them after a night, and a kill costs what came since.
"""

from __future__ import annotations

import json
import os
import time
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from ..atomic_write import atomic_write, check_can_write_in
from ..errors import MaAgiqaError, MissingPackageError
from .scoring import ScoredRow
from .seen_keys import SeenKeys

FORMAT = "1"
MOST_ROWS = 200_000  # of a part
SHARE_OF_TIME = 0.01
_FORMAT_KEY, _JUDGES_KEY = b"ma_agiqa.parts", b"ma_agiqa.judges"


def import_pyarrow() -> Any:
    """The module pyarrow, or an ImportError that says how to get it."""
    try:
        import pyarrow
        import pyarrow.parquet
    except ImportError as error:
        raise MissingPackageError('Expected pyarrow, got none. Run: pip install "ma-agiqa[parquet]"') from error
    return pyarrow


def part_schema(facts: str) -> Any:
    """The columns of a part: key, for each judge score, percentile and revision, then what is known of the picture.

    Args:
        facts: Of the judges, as `Judges.facts` gives them.
    """
    pa = import_pyarrow()
    columns = [pa.field("key", pa.string(), nullable=False)]
    for judge in json.loads(facts):
        name = judge["column"]
        columns += [
            pa.field(name, pa.float32()),
            pa.field(f"{name}_percentile", pa.float32()),
            pa.field(f"{name}_revision", pa.string()),
        ]
    columns += [pa.field(name, pa.string()) for name in ("error", "digest", "prompt")]
    columns += [pa.field(name, pa.int32()) for name in ("width", "height")]
    return pa.schema(columns, metadata={_FORMAT_KEY: FORMAT.encode(), _JUDGES_KEY: facts.encode()})


def part_table(rows: Sequence[ScoredRow], facts: str) -> Any:
    """Rows as a table with the columns of `part_schema`."""
    pa = import_pyarrow()
    schema = part_schema(facts)
    columns: dict[str, list[Any]] = {"key": [row.key for row in rows]}
    for place, judge in enumerate(json.loads(facts)):
        name = judge["column"]
        columns[name] = [row.scores[place] for row in rows]
        columns[f"{name}_percentile"] = [row.percentiles[place] for row in rows]
        columns[f"{name}_revision"] = [judge["identity"]] * len(rows)
    for name in ("error", "digest", "prompt", "width", "height"):
        columns[name] = [getattr(row, name) for row in rows]
    return pa.table([pa.array(columns[field.name], field.type) for field in schema], schema=schema)


def judges_of(schema: Any) -> list[dict[str, Any]] | None:
    """What a part says of its judges; None if it is no part of ours.

    Raises:
        ValueError: It is a part of a later version.
    """
    metadata = schema.metadata or {}
    if _FORMAT_KEY not in metadata:
        return None
    if metadata[_FORMAT_KEY] != FORMAT.encode():
        raise MaAgiqaError(
            f"Expected parts of format {FORMAT}, got {metadata[_FORMAT_KEY].decode(errors='replace')!r}. "
            "Update ma-agiqa."
        )
    try:
        found = json.loads(metadata[_JUDGES_KEY])
        if not all(isinstance(judge["column"], str) and isinstance(judge["identity"], str) for judge in found):
            raise TypeError
    except (KeyError, TypeError, ValueError):
        raise MaAgiqaError("Expected a part that names its judges, got one that does not. Score again.") from None
    return list(found)


def part_files(folder: Path) -> list[Path]:
    """The parts in a folder, in the order in which they were written."""
    return sorted(folder.glob("part-*.parquet"))


def holds_parts(folder: Path) -> bool:
    """Whether a folder holds parts of ours."""
    first = folder / _name(0)
    return first.is_file() and judges_of(read_schema(first)) is not None


def _name(number: int) -> str:
    return f"part-{number:06}.parquet"


def read_schema(file: Path) -> Any:
    """The schema of a part.

    Raises:
        ValueError: It is no whole Parquet file.
    """
    pa = import_pyarrow()
    try:
        return pa.parquet.read_schema(file)
    except (pa.ArrowException, OSError, ValueError) as error:
        raise MaAgiqaError(
            f"Expected a whole Parquet part, got {file}, which cannot be read ({str(error).splitlines()[0]}). Delete "
            "it: its pictures are scored again when the run is resumed."
        ) from error


class PartWriter:
    """The parts of one output, and which keys are in them. Hold the folder by `only_writer`.

    Args:
        folder: Made if it is missing.
        save_every: Seconds.

    Raises:
        ValueError: A file in the folder is no whole part; the folder cannot be written.
    """

    def __init__(self, folder: Path, save_every: float = 10.0) -> None:
        self._pa = import_pyarrow()
        check_can_write_in(folder)
        folder.mkdir(parents=True, exist_ok=True)
        self._folder, self._save_every = folder, save_every
        self.done = SeenKeys()
        self.expected: tuple[str, ...] | None = None
        self._number = 0
        self._facts: str | None = None
        self._waiting: list[Any] = []
        self._rows = 0
        self._started = self._saved = time.monotonic()
        self.failed = self.scored = 0
        for file in part_files(folder):
            self._take(file)

    def _take(self, file: Path) -> None:
        """Learns what a part holds; rows with an error leave it, to be tried again."""
        judges = judges_of(read_schema(file))
        if judges is None:
            raise MaAgiqaError(f"Expected a folder for parts of ma-agiqa, got {file}, which is none. Name another.")
        identities = tuple(judge["identity"] for judge in judges)
        if self.expected is not None and identities != self.expected:
            raise MaAgiqaError(
                f"Expected parts of one set of judges in {self._folder}, got {', '.join(self.expected)} and "
                f"{', '.join(identities)} in {file.name}. Keep those of one set in a folder."
            )
        self.expected = identities
        self._number = max(self._number, int("".join(filter(str.isdigit, file.stem)) or 0) + 1)
        found = self._pa.parquet.read_table(file, columns=["key", "error"])
        is_good = found["error"].is_null()
        is_new = self._pa.array(self.done.add_new(found["key"].filter(is_good).to_pylist()), self._pa.bool_())
        if self._pa.compute.sum(is_new).as_py() == len(found):
            return
        whole = self._pa.parquet.read_table(file).filter(is_good)
        self._write(file, whole.filter(is_new))

    def add(self, rows: Sequence[ScoredRow], facts: str) -> list[ScoredRow]:
        """Takes scored rows; writes a part if one is due.

        Returns:
            Those whose keys are new.
        """
        self._facts = facts
        is_new = self.done.add_new([row.key for row in rows])
        rows = [row for row, new in zip(rows, is_new, strict=True) if new]
        if rows:
            self._waiting.append(part_table(rows, facts))
            self._rows += len(rows)
            self.scored += sum(row.error is None for row in rows)
            self.failed += sum(row.error is not None for row in rows)
        now = time.monotonic()
        wait = max(self._save_every, SHARE_OF_TIME * (now - self._started))
        if self._rows >= MOST_ROWS or now - self._saved >= wait:
            self.save()
        return list(rows)

    def save(self) -> None:
        """Writes what is waiting as a part."""
        if self._waiting:
            self._write(self._folder / _name(self._number), self._pa.concat_tables(self._waiting))
            self._number += 1
            self._waiting.clear()
            self._rows = 0
        self._saved = time.monotonic()

    def _write(self, file: Path, table: Any) -> None:
        with atomic_write(file) as temporary, temporary.open("wb") as opened:
            self._pa.parquet.write_table(table, opened, compression="zstd")
            opened.flush()
            os.fsync(opened.fileno())  # else a power cut may leave an empty file under the part's name

    def keys(self) -> Iterable[Any]:
        """What is done, for workers."""
        return self.done.merged().arrays()
