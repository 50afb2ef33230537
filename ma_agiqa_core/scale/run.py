"""What every engine is told, and what it gives back."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np

from .judges import JudgeSettings
from .scoring import ScoredRow
from .sources.shard import Columns


@dataclass(frozen=True)
class EngineRun:
    """One run.

    Attributes:
        settings: Of the judges.
        columns: Of tables.
        done: Hashes of the keys that need no scoring, see `SeenKeys`.
        prompts: By key.
        workers: How many; None leaves it to the engine.
        gpus: Of each worker, for engines that place them; None leaves it to the engine.
    """

    settings: JudgeSettings
    columns: Columns
    done: Sequence[np.ndarray] = ()
    prompts: Mapping[str, str] = field(default_factory=dict)
    workers: int | None = None
    gpus: float | None = None


class Scored(NamedTuple):
    """Some scored rows, and what the judges are that scored them, see `Judges.facts`."""

    rows: Sequence[ScoredRow]
    facts: str


Results = Iterator[Scored]
"""In any order. A row may come twice where a worker died; the writer takes the first."""

Source = Any
"""What `find_shards` takes."""
