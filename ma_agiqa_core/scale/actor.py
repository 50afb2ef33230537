"""The judges as a callable class: for pipelines of one's own, in Ray Data, `datasets` or a loop."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from ..errors import MaAgiqaError
from ..scorers.scorer import Scorer
from .engines.work import threads_for
from .judges import Judges, JudgeSettings, as_models
from .parts import part_table
from .scoring import ScoredRow, score_rows
from .sources.shard import Columns
from .sources.tables import columns_of, row_of


class ScoreActor:
    """Loads judges once, then adds their scores to batch after batch.

    Args:
        model: A model for `load_scorer`, or several; or scorers.
        picture: The column of pictures: paths, URLs, bytes, or arrays (H, W, 3) uint8. None looks for one.
        prompt: The column of prompts; None takes `prompt` where there is one.
        batch_size: Pictures at a time at most.
        workers: How many such actors share the cores of a machine.
        options: More arguments of `load_scorer`, such as `device`.

    Raises:
        ValueError: A judge cannot be loaded, or is relative.

    Example:
        >>> import numpy as np
        >>> actor = ScoreActor("lite", device="cpu")
        >>> batch = actor({"image": [np.zeros((32, 32, 3), np.uint8)] * 2, "id": ["a", "b"]})
        >>> sorted(batch)
        ['digest', 'error', 'height', 'id', 'image', 'lite', 'lite_percentile', 'lite_revision', 'width']
        >>> batch["lite"].dtype, batch["width"].tolist()
        (dtype('float32'), [32, 32])

        In Ray Data: `ds.map_batches(ScoreActor, fn_constructor_kwargs={"model": "lite"}, concurrency=4)`.
    """

    def __init__(
        self,
        model: str | Scorer | Sequence[str | Scorer] = "lite",
        *,
        picture: str | None = None,
        prompt: str | None = None,
        batch_size: int | None = None,
        workers: int = 1,
        **options: Any,
    ) -> None:
        self._judges = Judges(JudgeSettings(as_models(model), options, batch_size))
        self._facts = self._judges.facts()
        self._columns = Columns(prompt=prompt, picture=picture)
        self._threads = threads_for(workers)

    def __call__(self, batch: Any) -> Any:
        """Adds the columns of a part but `key`: scores, percentiles, revisions, error, digest, prompt, width, height.

        Args:
            batch: Columns by name (arrays or lists), a pyarrow Table, or a pandas DataFrame.

        Returns:
            The same kind of thing. A picture without a score has NaN (null in a Table), and its `error` says why.

        Raises:
            ValueError: No column of pictures, or another kind of batch.
        """
        columns, given = _as_columns(batch)
        scored = self._scored(columns)
        made = part_table(scored, self._facts).drop_columns(["key"])
        if "prompt" in columns or not self._judges.needs_prompts:
            made = made.drop_columns(["prompt"])
        if given == "table":
            for name in made.column_names:
                if name in batch.column_names:
                    batch = batch.drop_columns([name])
                batch = batch.append_column(name, made[name])
            return batch
        added = {name: made[name].to_numpy() for name in made.column_names}
        return batch.assign(**added) if given == "frame" else {**batch, **added}

    def _scored(self, columns: Mapping[str, Sequence[Any]]) -> list[ScoredRow]:
        found = columns_of(list(columns), self._columns, "the batch")
        count = len(columns[found.picture])
        rows = [
            row_of({name: columns[name][place] for name in found.names}, found, f"row-{place}", None)
            for place in range(count)
        ]
        return [row for group in score_rows(self._judges, rows, threads=self._threads) for row in group]


def _as_columns(batch: Any) -> tuple[Mapping[str, Sequence[Any]], str]:
    if isinstance(batch, Mapping):
        return batch, "columns"
    kind = type(batch).__module__.partition(".")[0]
    if kind == "pyarrow" and hasattr(batch, "column_names"):
        return {name: batch[name].to_pylist() for name in batch.column_names}, "table"
    if kind == "pandas" and hasattr(batch, "assign"):
        return {name: batch[name].to_numpy() for name in batch.columns}, "frame"
    raise MaAgiqaError(f"Expected columns by name, a pyarrow Table or a DataFrame, got {type(batch).__name__}.")
