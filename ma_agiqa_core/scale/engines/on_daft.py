"""Daft: a class with the judges in each of its workers, here or on the cluster that Daft was told of; rows come back.

As with Ray, what is done is asked of the parts, and the writer takes each key once.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import partial
from typing import Any

from ...errors import MaAgiqaError, MissingPackageError
from ..parts import import_pyarrow
from ..run import EngineRun, Results, Source
from ..scoring import ScoredRow
from ..sources.finding import find_shards
from ..sources.objects import is_daft
from ..sources.tables import TableColumns, columns_of, key_of_content, row_of
from .answers import SHARD, answer, read_answers, refusal, shards_as_column, unpickled
from .work import Worker

ROWS_AT_ONCE = 64
CORES_OF_A_WORKER = 4


def import_daft() -> Any:
    """The module daft, or an ImportError that says how to get it."""
    try:
        import daft
    except ImportError as error:
        raise MissingPackageError('Expected daft, got none. Run: pip install "ma-agiqa[daft]"') from error
    return daft


def run_on_daft(source: Source, run: EngineRun) -> Results:
    """Scores a source, or a Daft DataFrame, with Daft.

    Raises:
        ImportError: Daft is missing.
        ValueError: The judges cannot be loaded.
    """
    daft = import_daft()
    import_pyarrow()
    workers = run.workers or max(1, (os.cpu_count() or 1) // CORES_OF_A_WORKER)
    judges = _judges_class(daft, run, workers)
    if is_daft(source):
        columns = columns_of(source.column_names, run.columns, "the data frame")
        nothing = daft.lit(None).cast(daft.DataType.string())
        given = [nothing if name is None else daft.col(name) for name in (columns.picture, columns.id, columns.prompt)]
        answers = source.select(judges(run, workers, columns).of_rows(*given).alias("answer"))
    else:
        shards = shards_as_column(find_shards(source, run.columns))
        frame = daft.from_pydict({SHARD: shards})
        answers = frame.select(judges(run, workers, None).of_shards(daft.col(SHARD)).alias("answer")).explode("answer")
    return read_answers(_tables(answers.to_arrow_iter()))


def _tables(batches: Iterable[Any]) -> Iterator[Any]:
    pa = import_pyarrow()
    for batch in batches:
        cells = [json.loads(cell) for cell in batch["answer"].to_pylist() if cell]
        yield pa.table({"row": [row for row, _ in cells], "facts": [facts for _, facts in cells]})


def _cells(table: Any) -> list[str]:
    return [json.dumps(pair) for pair in zip(table["row"].to_pylist(), table["facts"].to_pylist(), strict=True)]


class _Judges:
    """What Daft makes once in each of its workers."""

    def __init__(self, run: EngineRun, workers: int, columns: TableColumns | None) -> None:
        self._columns = columns
        self._worker: Worker | None = None
        self._refusal: list[str] = []
        try:
            self._worker = Worker(run, workers)
        except (MaAgiqaError, OSError) as error:
            self._refusal = _cells(refusal(error))

    def shards(self, shards: Sequence[bytes]) -> list[list[str]]:
        """For each shard the cells of its rows, what the judges are first."""
        return [self._answers(partial(_score_shard, shard)) for shard in shards]

    def rows(self, pictures: Sequence[Any], ids: Sequence[Any], prompts: Sequence[Any]) -> list[str]:
        """A cell for each row; empty for one that was done before."""
        columns = self._columns
        assert columns is not None
        found = []
        for picture, key, prompt in zip(pictures, ids, prompts, strict=True):
            values = {columns.picture: picture}
            values |= {} if columns.id is None else {columns.id: key}
            values |= {} if columns.prompt is None else {columns.prompt: prompt}
            found.append(row_of(values, columns, key_of_content(values), None))
        cells = self._answers(lambda worker: worker.score([row for row in found if row.key not in worker.done]))
        cells = cells[1:] if len(cells) > 1 else cells
        return (cells + [""] * len(found))[: max(len(found), 1)]

    def _answers(self, score: Callable[[Worker], Iterator[list[ScoredRow]]]) -> list[str]:
        if self._worker is None:
            return self._refusal
        facts = self._worker.facts
        try:
            rows = [row for group in score(self._worker) for row in group]
        except (MaAgiqaError, OSError) as error:
            return _cells(refusal(error))
        return [json.dumps(["", facts]), *_cells(answer(rows, facts))]


def _score_shard(shard: bytes, worker: Worker) -> Iterator[list[ScoredRow]]:
    return worker.score_shards(unpickled([shard]))


def _judges_class(daft: Any, run: EngineRun, workers: int) -> Any:
    text = daft.DataType.string()

    @daft.cls(max_concurrency=workers, gpus=run.gpus or 0, use_process=workers > 1)
    class Judging:
        def __init__(self, run: EngineRun, workers: int, columns: TableColumns | None) -> None:
            self._judges = _Judges(run, workers, columns)

        @daft.method.batch(return_dtype=daft.DataType.list(text), batch_size=1)
        def of_shards(self, shards: Any) -> Any:
            return self._judges.shards(shards.to_pylist())

        @daft.method.batch(return_dtype=text, batch_size=ROWS_AT_ONCE)
        def of_rows(self, pictures: Any, ids: Any, prompts: Any) -> Any:
            given = pictures.to_pylist()
            ids, prompts = (_as_long(series.to_pylist(), len(given)) for series in (ids, prompts))
            return self._judges.rows(given, ids, prompts)

    return Judging


def _as_long(values: list[Any], count: int) -> list[Any]:
    """A literal comes as one value."""
    return values * count if len(values) == 1 else values
