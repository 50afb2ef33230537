"""Rows in, scored rows out: fetched and decoded ahead, each picture once for all judges."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from ..compute.work_groups import work_in_groups
from ..pictures.prefetch import prefetch
from ..pictures.reading import PIXELS_AHEAD
from ..records.record import valid_text
from .judges import Judges
from .rows import DecodedRow, Row, RowToDecode

_SMALL_GROUPS: dict[str, Any] = {"seconds": 1.0, "least": 16}


@dataclass(frozen=True)
class ScoredRow:
    """What is known of one picture in the end.

    Attributes:
        key: Of the row.
        scores: One for each judge; None where there is none.
        percentiles: The same.
        error: Why there is none.
        width: Pixels, as is `height`.
        digest: Of the picture's file.
        prompt: What it was scored with.
        shard: Of the row.
    """

    key: str
    scores: tuple[float | None, ...]
    percentiles: tuple[float | None, ...]
    error: str | None
    width: int | None
    height: int | None
    digest: str | None
    prompt: str | None
    shard: int = 0


def score_rows(
    judges: Judges,
    rows: Iterable[Row],
    *,
    threads: int = 2,
    prompts: Mapping[str, str] | str | None = None,
    is_shared: bool = False,
) -> Iterator[list[ScoredRow]]:
    """Scores rows in order, a group at a time.

    Args:
        judges: All of them see each picture.
        rows: Taken in the thread that asks.
        threads: Fetch and decode.
        prompts: By key, for rows that bring none.
        is_shared: Other workers score, too: small groups, so that none has much in hand when the rest has nothing.
    """
    known = prompts if isinstance(prompts, Mapping) else {}

    def work(group: list[DecodedRow]) -> list[ScoredRow]:
        texts = [known.get(decoded.row.key, decoded.row.prompt) for decoded in group]
        return _scored(judges, group, texts)

    decoded = prefetch(
        map(RowToDecode, rows),
        RowToDecode.decoded,
        threads,
        2 * threads,
        weigh=RowToDecode.pixels,
        most=PIXELS_AHEAD,
    )
    return work_in_groups(
        decoded,
        work,
        pixels_of=lambda row: row.picture.width * row.picture.height,
        size=judges.batch_size,
        **(_SMALL_GROUPS if is_shared else {}),
    )


def _scored(judges: Judges, group: Sequence[DecodedRow], prompts: Sequence[str | None]) -> list[ScoredRow]:
    outcomes = judges.outcomes([decoded.picture for decoded in group], prompts)
    scored = []
    for place, (decoded, prompt) in enumerate(zip(group, prompts, strict=True)):
        scores = [column[place] for column in outcomes]
        numbers = tuple(None if isinstance(score, str) else score for score in scores)
        picture = decoded.picture
        scored.append(
            ScoredRow(
                valid_text(decoded.row.key),
                numbers,
                tuple(
                    None if number is None else judge.scorer.info.percentile(number)
                    for judge, number in zip(judges.judges, numbers, strict=True)
                ),
                _error(judges, decoded, scores),
                picture.width or None,
                picture.height or None,
                decoded.digest,
                valid_text(prompt) if prompt and judges.needs_prompts else None,
                decoded.row.shard,
            )
        )
    return scored


def _error(judges: Judges, decoded: DecodedRow, outcomes: Sequence[float | str]) -> str | None:
    """One line: of the picture, or of the judges that gave no score."""
    if decoded.picture.error is not None:
        return valid_text(decoded.picture.error)
    reasons = {
        judge.column: outcome
        for judge, outcome in zip(judges.judges, outcomes, strict=True)
        if isinstance(outcome, str)
    }
    if not reasons:
        return None
    if len(judges.judges) == 1:
        return valid_text(next(iter(reasons.values())))
    return valid_text("; ".join(f"{column}: {reason}" for column, reason in reasons.items()))
