"""What goes to and comes from engines that only know columns: pickled shards, and scored rows with their judges.

Both ends are this program, on machines of the user's own.
"""

from __future__ import annotations

import json
import pickle
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

from ...errors import MaAgiqaError
from ..parts import import_pyarrow
from ..run import Results, Scored
from ..scoring import ScoredRow
from ..sources.shard import Shard

SHARD = "shard"


def shards_as_column(shards: Iterable[Shard]) -> list[bytes]:
    """Each as bytes."""
    return [pickle.dumps(shard) for shard in shards]


def answer(rows: Sequence[ScoredRow], facts: str) -> Any:
    """Rows as a table of two columns: each row as JSON, and what the judges are in the first."""
    return _table([json.dumps(_as_list(row)) for row in rows], facts)


def refusal(error: MaAgiqaError | OSError) -> Any:
    """Why there are no rows: raised again by `read_answers`."""
    return _table([""], json.dumps({"refused": str(error)}))


def answer_type() -> Any:
    """The columns of `answer`, as pyarrow names them."""
    pa = import_pyarrow()
    return pa.schema([("row", pa.string()), ("facts", pa.string())])


def read_answers(tables: Iterable[Any]) -> Results:
    """The rows in tables of answers.

    Raises:
        ValueError: What a worker refused.
    """
    facts = ""
    for table in tables:
        rows: list[ScoredRow] = []
        for text, told in zip(table["row"].to_pylist(), table["facts"].to_pylist(), strict=True):
            if told:
                facts = told
                if isinstance(known := json.loads(told), dict):
                    raise MaAgiqaError(known["refused"])
            if text:
                rows.append(_from_list(json.loads(text)))
        if rows:
            yield Scored(rows, facts)


def _table(rows: Sequence[str], facts: str) -> Any:
    pa = import_pyarrow()
    return pa.table({"row": list(rows), "facts": [facts] * len(rows)}, schema=answer_type())


def _as_list(row: ScoredRow) -> list[Any]:
    return [
        row.key,
        row.scores,
        row.percentiles,
        row.error,
        row.width,
        row.height,
        row.digest,
        row.prompt,
    ]


def _from_list(values: Sequence[Any]) -> ScoredRow:
    key, scores, percentiles, *others = values
    return ScoredRow(key, tuple(scores), tuple(percentiles), *others)


def unpickled(shards: Iterable[bytes]) -> Iterator[Shard]:
    """What `shards_as_column` made bytes of."""
    for shard in shards:
        yield pickle.loads(shard)
