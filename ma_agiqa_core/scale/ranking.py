"""Ranks what stands in parts, without the judge: one column of scores is held, 4 bytes each, and the best rows read."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from ..errors import MaAgiqaError
from ..ranking import Ranking
from ..records.record import Record
from ..scorers.scorer import ScorerInfo
from .parts import import_pyarrow, judges_of, part_files, read_schema

ROWS_AT_ONCE = 8192
LISTED = 100_000  # pictures of which those that are not kept are listed, too
IN_SAMPLE = 2000


@dataclass(frozen=True)
class PartsRanking:
    """The pictures of a folder of parts, best first.

    Attributes:
        info: Of the judge.
        ranking: Kept, rejected and failed. Where there are more than `LISTED` pictures, only those kept are in it.
        sample: At most `IN_SAMPLE` of them, evenly over the ranks of the kept and of the rejected.
        kept: How many; as are the following.
        rejected: Scored lower.
        failed: Without a score.
    """

    info: ScorerInfo
    ranking: Ranking[Record]
    sample: Ranking[Record]
    kept: int
    rejected: int
    failed: int


def rank_parts(
    folder: Path,
    *,
    top_k: int | None = None,
    top_share: float | None = None,
    min_score: float | None = None,
    judge: str | None = None,
) -> PartsRanking:
    """Ranks the pictures of a folder of parts.

    Args:
        folder: With parts of one set of judges.
        top_k: Keep at most this many.
        top_share: Keep at most this share of those with a score, 0 to 1, and at least one.
        min_score: Keep none below.
        judge: The name of the judge's column; None takes the first.

    Raises:
        ValueError: There are no whole parts, parts of several sets of judges, or no such judge.
    """
    files = part_files(folder)
    if not files:
        raise MaAgiqaError(f"Expected parts in {folder}, got none. Score a data set into it first.")
    facts = _facts(files, judge)
    parts = _Parts(files, facts)
    scores = parts.scores()
    known = np.flatnonzero(np.isfinite(scores))
    best_first = known[np.argsort(-scores[known], kind="stable")]
    count = len(best_first)
    if min_score is not None:
        count = int(np.count_nonzero(scores[best_first] >= min_score))
    if top_share is not None:
        count = min(count, max(1, round(top_share * len(best_first))))
    if top_k is not None:
        count = min(count, top_k)
    kept, rejected = best_first[:count], best_first[count:]
    failed = np.flatnonzero(~np.isfinite(scores))
    is_listed = len(scores) <= LISTED
    half = IN_SAMPLE // 2 if len(kept) and len(rejected) else IN_SAMPLE
    return PartsRanking(
        parts.info(),
        Ranking(
            tuple(parts.records(kept)),
            tuple(parts.records(rejected)) if is_listed else (),
            tuple(parts.records(failed)) if is_listed else (),
        ),
        Ranking(
            tuple(parts.records(_evenly(kept, half))),
            tuple(parts.records(_evenly(rejected, half))),
            tuple(parts.records(failed[:IN_SAMPLE])),
        ),
        len(kept),
        len(rejected),
        len(failed),
    )


def _evenly(places: np.ndarray, most: int) -> np.ndarray:
    """At most so many of them, the first and the last among them."""
    if len(places) <= most:
        return places
    return places[np.linspace(0, len(places) - 1, most).round().astype(np.int64)]


def _facts(files: Sequence[Path], wanted: str | None) -> dict[str, Any]:
    sets: dict[tuple[str, ...], list[dict[str, Any]]] = {}
    for file in files:
        judges = judges_of(read_schema(file))
        if judges is None:
            raise MaAgiqaError(f"Expected parts of ma-agiqa, got {file}, which is none. Keep it in another folder.")
        sets.setdefault(tuple(judge["identity"] for judge in judges), judges)
    if len(sets) > 1:
        names = "; ".join(", ".join(identities) for identities in sets)
        raise MaAgiqaError(f"Expected parts of one set of judges, got {names}. Keep those of one set in a folder.")
    (judges,) = sets.values()
    if wanted is None:
        return judges[0]
    for judge in judges:
        if wanted in (judge["column"], judge["name"]):
            return judge
    raise MaAgiqaError(
        f"Expected a judge of the parts, {', '.join(judge['column'] for judge in judges)}, got {wanted!r}."
    )


class _Parts:
    """The rows of several parts, by their place in all of them."""

    def __init__(self, files: Sequence[Path], facts: dict[str, Any]) -> None:
        self._pa = import_pyarrow()
        self._files, self._facts = files, facts
        counts = [self._pa.parquet.read_metadata(file).num_rows for file in files]
        self._begins = np.concatenate([[0], np.cumsum(counts)])

    def info(self) -> ScorerInfo:
        facts = self._facts
        low, high, target = facts.get("low"), facts.get("high"), facts.get("target")
        return ScorerInfo(
            name=str(facts.get("name", facts["column"])),
            revision=str(facts.get("revision", "")),
            low=-math.inf if low is None else float(low),
            high=math.inf if high is None else float(high),
            trained_on=str(facts.get("trained_on", "")),
            needs_prompt=bool(facts.get("needs_prompt")),
            description=str(facts.get("description", "")),
            targets=() if target is None else (str(target),),
            target=None if target is None else str(target),
        )

    def scores(self) -> np.ndarray:
        """float32, NaN where there is none."""
        column = self._facts["column"]
        made = np.full(int(self._begins[-1]), np.nan, np.float32)
        for begin, file in zip(self._begins[:-1], self._files, strict=True):
            found = self._pa.parquet.read_table(file, columns=[column])[column].to_numpy()
            made[begin : begin + len(found)] = found
        return made

    def records(self, places: np.ndarray) -> Iterator[Record]:
        """The rows at these places, in their order; each part is read once for `ROWS_AT_ONCE` of them."""
        for first in range(0, len(places), ROWS_AT_ONCE):
            yield from self._some(places[first : first + ROWS_AT_ONCE])

    def _some(self, places: np.ndarray) -> list[Record]:
        found: dict[int, Record] = {}
        of_part = np.searchsorted(self._begins, places, side="right") - 1
        for part in np.unique(of_part):
            here = places[of_part == part]
            rows = self._pa.parquet.read_table(self._files[part]).take(self._pa.array(here - self._begins[part]))
            for place, row in zip(here.tolist(), rows.to_pylist(), strict=True):
                found[place] = self._record(row)
        return [found[place] for place in places.tolist()]

    def _record(self, row: dict[str, Any]) -> Record:
        column = self._facts["column"]
        return Record(
            path=row["key"],
            score=_significant(row[column]),
            percentile=_significant(row[f"{column}_percentile"]),
            width=row["width"],
            height=row["height"],
            model=self._facts["identity"],
            error=row["error"] if row[column] is None else None,
            prompt=row["prompt"],
            digest=row["digest"],
        )


def _significant(value: float | None) -> float | None:
    """Seven digits, which is what float32 holds."""
    return None if value is None else float(f"{value:.7g}")
