"""The work of one worker, whatever runs it: shards become rows, those done are left out, the rest is scored."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from dataclasses import replace

from ..judges import Judges
from ..rows import Row
from ..run import EngineRun
from ..scoring import ScoredRow, score_rows
from ..seen_keys import SeenKeys
from ..sources.names import needs_network
from ..sources.shard import Shard, rows_of

MOST_THREADS = 4


def threads_for(workers: int) -> int:
    """How many threads of each worker fetch and decode."""
    return max(1, min(MOST_THREADS, (os.cpu_count() or 1) // workers))


class Worker:
    """The loaded judges, and what is done already.

    Args:
        run: What the engine was told.
        workers: On this machine, which share its cores.
    """

    def __init__(self, run: EngineRun, workers: int = 1) -> None:
        self.judges = Judges(run.settings)
        self.facts = self.judges.facts()
        self.done = SeenKeys(run.done)
        self._prompts = run.prompts
        self._is_offline = bool(run.settings.options.get("local_files_only"))
        self._threads, self._is_shared = threads_for(workers), workers > 1

    def score_shards(self, shards: Iterable[Shard]) -> Iterator[list[ScoredRow]]:
        """Scores what is not done yet, in order."""
        return self.score(row for shard in shards for row in rows_of(shard) if row.key not in self.done)

    def score(self, rows: Iterable[Row]) -> Iterator[list[ScoredRow]]:
        """Scores rows in order."""
        rows = map(without_network, rows) if self._is_offline else rows
        return score_rows(self.judges, rows, threads=self._threads, prompts=self._prompts, is_shared=self._is_shared)


def without_network(row: Row) -> Row:
    """The row; one whose picture lies at a URL gets an error instead."""
    if not (isinstance(row.picture, str) and needs_network(row.picture)):
        return row
    return replace(row, picture=None, error="it lies at a URL, and the network is forbidden")
