"""What the command line prints of records, rankings and models: aligned tables, and JSON."""

import json
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from ..ranking import Ranking
from ..records.record import Judged, Record, as_row
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
        note = f"  ({readable(record.error)})" if record.error else ""
        return f"{self.score(record):>{self._width}}  {_share(record):>11}  {readable(record.path)}{note}"

    def score(self, record: Record | Judged) -> str:
        return "-" if record.score is None else f"{record.score:.{self._decimals}f}"


class JudgesTable:
    """As `ScoreTable`, with a column for each of several scorers: its score, and the percentile where it has one."""

    def __init__(self, names: Sequence[str], infos: Sequence[ScorerInfo]) -> None:
        self._tables = [ScoreTable(info) for info in infos]
        self._widths = [
            max(len(readable(name)), 14 if info.quantiles else 8) for name, info in zip(names, infos, strict=True)
        ]
        names = [f"{readable(name):>{width}}" for name, width in zip(names, self._widths, strict=True)]
        self.header = "  ".join([*names, "PICTURE"])

    def line(self, record: Record) -> str:
        cells = []
        for judged, table, width in zip(record.judges, self._tables, self._widths, strict=True):
            share = "" if judged.percentile is None else f" ({_share(judged)})"
            cells.append(f"{table.score(judged) + share:>{width}}")
        errors = errors_of(record)
        return "  ".join([*cells, readable(record.path)]) + (f"  ({readable(errors)})" if errors else "")


def score_table_of(infos: Mapping[str, ScorerInfo]) -> ScoreTable | JudgesTable:
    """The table of a run by one scorer, or by several: their infos by the names of their columns."""
    if len(infos) == 1:
        return ScoreTable(*infos.values())
    return JudgesTable(list(infos), list(infos.values()))


def errors_of(record: Record) -> str:
    """Why a picture has no score: of several scorers that say different things with their names."""
    reasons = {judged.name: judged.error for judged in record.judges if judged.error is not None}
    if (len(set(reasons.values())) == 1 and len(reasons) == len(record.judges)) or not reasons:
        return record.error or ""
    return "; ".join(f"{name}: {reason}" for name, reason in reasons.items())


def _share(record: Record | Judged) -> str:
    percentile = better_than(record.percentile)
    return "-" if percentile is None else f"{percentile} %"


def facts_json(infos: Mapping[str, ScorerInfo]) -> str:
    """The start of a JSON object: "model", and "models" where there are several."""
    facts = [model_facts(info) for info in infos.values()]
    several = f', "models": {json.dumps(facts)}' if len(facts) > 1 else ""
    return f'"model": {json.dumps(facts[0])}{several}'


def ranking_table(ranking: Ranking[Record], infos: Mapping[str, ScorerInfo], *, is_selection: bool) -> str:
    """The ranking, best first; with a column for what is kept where there was a selection."""
    table = score_table_of(infos)
    lines = [f"RANK  {'VERDICT   ' if is_selection else ''}{table.header}"]
    for verdict, records in _groups(ranking).items():
        for record in records:
            place = "-" if verdict == "failed" else len(lines)
            lines.append(f"{place:>4}  {f'{verdict:<10}' if is_selection else ''}{table.line(record)}")
    return "\n".join(lines)


def ranking_json(ranking: Ranking[Record], records: Sequence[Record], infos: Mapping[str, ScorerInfo]) -> str:
    """The ranking for programs, one picture a line, each with its index among the records."""
    index = {record: i for i, record in enumerate(records)}
    parts = [facts_json(infos)]
    for verdict, group in _groups(ranking).items():
        lines = [json.dumps({"index": index[record], **as_row(record)}) for record in group]
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
