"""What the command line prints of records, rankings and models: aligned tables, and JSON."""

import json
import math
from collections.abc import Iterable, Sequence
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from ..ranking import Ranking
from ..records.formats import Record
from ..report.names import better_than, decimals_for, readable
from ..scorers.scorer import ScorerInfo

if TYPE_CHECKING:
    from ..scorers.installed import InstalledModel


class ScoreTable:
    """Columns as wide as the range of scores needs, so that a line can be printed before all are known."""

    def __init__(self, info: ScorerInfo) -> None:
        span = info.high - info.low
        is_bounded = math.isfinite(span) and span > 0
        self._decimals = decimals_for(span)
        ends = (info.low, info.high) if is_bounded else (-99.0, 99.0)
        self._width = max(len("SCORE"), *(len(f"{end:.{self._decimals}f}") for end in ends))
        self.header = f"{'SCORE':>{self._width}}  BETTER THAN  PICTURE"

    def line(self, record: Record) -> str:
        number = "-" if record.score is None else f"{record.score:.{self._decimals}f}"
        percentile = better_than(record.percentile)
        share = "-" if percentile is None else f"{percentile} %"
        note = f"  ({readable(record.error)})" if record.error else ""
        return f"{number:>{self._width}}  {share:>11}  {readable(record.path)}{note}"


def ranking_table(ranking: Ranking[Record], info: ScorerInfo, *, is_selection: bool) -> str:
    """The ranking, best first; with a column for what is kept where there was a selection."""
    table = ScoreTable(info)
    lines = [f"RANK  {'VERDICT   ' if is_selection else ''}{table.header}"]
    for verdict, records in _groups(ranking).items():
        for record in records:
            place = "-" if verdict == "failed" else len(lines)
            lines.append(f"{place:>4}  {f'{verdict:<10}' if is_selection else ''}{table.line(record)}")
    return "\n".join(lines)


def ranking_json(ranking: Ranking[Record], records: Sequence[Record], info: ScorerInfo) -> str:
    """The ranking for programs, one picture a line, each with its index among the records."""
    index = {record: i for i, record in enumerate(records)}
    parts = [f'"model": {json.dumps(model_facts(info))}']
    for verdict, group in _groups(ranking).items():
        lines = [json.dumps({"index": index[record], **asdict(record)}) for record in group]
        parts.append(f'"{verdict}": [{",".join(chr(10) + line for line in lines)}]')
    return "{" + ",\n".join(parts) + "}"


def model_facts(info: ScorerInfo) -> dict[str, Any]:
    """What `--json` says about the model."""
    names = (
        "name",
        "revision",
        "low",
        "high",
        "trained_on",
        "needs_prompt",
        "relative",
        "description",
        "targets",
        "target",
    )
    facts = {name: getattr(info, name) for name in names}
    for end in ("low", "high"):  # JSON has no infinity
        facts[end] = facts[end] if math.isfinite(facts[end]) else None
    return facts


def model_list(models: "Iterable[InstalledModel]") -> str:
    """Models one below the other, a line for each fact."""
    blocks = []
    for model in models:
        facts = {**asdict(model), "size": _size(model.size)}
        blocks.append("\n".join(f"{key.replace('_', ' '):<12}{value}" for key, value in facts.items() if value))
    return "\n\n".join(blocks)


def _groups(ranking: Ranking[Record]) -> dict[str, Sequence[Record]]:
    return {"kept": ranking.kept, "rejected": ranking.rejected, "failed": ranking.failed}


def _size(size: int) -> str:
    return f"{size / 1e9:.1f} GB" if size >= 1e9 else f"{size / 1e6:.1f} MB"
