"""Writes the ranked pictures as one HTML file that needs nothing else: no network, no other files.

Every text that comes from outside (paths, errors, the title, what a model says of itself) passes through
Jinja2's autoescape. The page's Content-Security-Policy names its one script and one style sheet by hash
and allows pictures only as data: URIs, so a browser fetches nothing and runs nothing else.
"""

import base64
import hashlib
import json
import math
from array import array
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import repeat
from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING, Any

import jinja2
from markupsafe import Markup

from ..atomic_write import atomic_write
from ..errors import MaAgiqaError
from ..records.record import Record, path_from_text, path_text
from .histogram import make_histogram
from .names import better_than, decimals_for, decimals_of, file_link, name_within, readable, shared_folder
from .thumbnails import Thumbnail, make_thumbnails

if TYPE_CHECKING:
    from ..ranking import Ranking
    from ..scorers.scorer import ScorerInfo

MODEL_FACTS = ("name", "revision", "low", "high", "trained_on", "description", "relative")


@dataclass(frozen=True)
class Card:
    """What the template shows of one picture; all text is raw, the template escapes it."""

    rank: int
    state: str
    score: str
    sort_score: str
    percentile: int | None
    name: str
    path: str
    link: str
    width: int
    height: int
    thumbnail: Thumbnail
    judges: tuple["JudgeLine", ...]
    key: str
    pick: str


@dataclass(frozen=True)
class JudgeLine:
    """What one of several scorers says on a card; `sort_score` is "null" where it says nothing."""

    name: str
    score: str
    sort_score: str
    percentile: int | None
    error: str


def write_report(
    out: Path,
    pictures: "Iterable[Record] | Ranking[Record]",
    *,
    model: "Mapping[str, Any] | ScorerInfo",
    threshold: float | None = None,
    title: str = "Pictures ranked by quality",
    max_pictures: int = 2000,
    judges: "Mapping[str, ScorerInfo] | None" = None,
    notes: Sequence[str] = (),
) -> None:
    """Write one self-contained HTML file, replacing `out` only when it is complete.

    Args:
        out: The file to write; missing parent folders are made.
        pictures: A ranking, of which the page shows what is kept and rejected; or records in any order where nothing
            was selected: they are read once, and more than `max_pictures` are never held for long.
        model: name, revision, low, high, trained_on, description and relative of the scorer.
        threshold: The score from which pictures were kept, drawn in the histogram.
        title: The page's heading.
        max_pictures: Beyond that many scored pictures only the best half and the worst half are shown,
            and of the failed ones the first so many.
        judges: Where several scorers judged the pictures, each by its name in the records: every card shows what all
            say, and the page sorts by any. `model` is the first.
        notes: Further lines for the page's top.

    Raises:
        ValueError: `max_pictures` is below 2.

    Example:
        >>> from pathlib import Path
        >>> from tempfile import TemporaryDirectory
        >>> from ma_agiqa_core.records.record import Record
        >>> records = [Record("a.png", 71.3, 83.6, 640, 480, "lite@1", None)]
        >>> facts = {"name": "lite", "revision": "1", "low": 0.0, "high": 100.0}
        >>> with TemporaryDirectory() as folder:
        ...     write_report(Path(folder, "report.html"), records, model=facts, title="My pictures")
        ...     "<h1>My pictures</h1>" in Path(folder, "report.html").read_text(encoding="utf-8")
        True
    """
    if max_pictures < 2:
        raise MaAgiqaError(f"Expected max_pictures of at least 2, got {max_pictures}.")
    out = Path(out)
    group = _gather(pictures, max_pictures)
    facts = _model_facts(model)
    decimals = _decimals(facts, group.scores)
    folder = shared_folder([record.path for record in (*(record for _, _, record in group.shown), *group.failed)])
    context = {
        "title": readable(title),
        "model": facts,
        "identity": readable("@".join(str(facts[key]) for key in ("name", "revision") if facts[key])),
        "group": group,
        "folder": readable(folder),
        "threshold": None if threshold is None else f"{threshold:.{decimals}f}",
        "median": f"{median(group.scores):.{decimals}f}" if group.scores else "",
        "best": f"{max(group.scores):.{decimals}f}" if group.scores else "",
        "worst": f"{min(group.scores):.{decimals}f}" if group.scores else "",
        "histogram": make_histogram(group.scores, group.rejected, threshold, 0.1 * _model_span(facts))
        if group.scores
        else None,
        "notes": [readable(note) for note in notes],
        "cards": _cards(group, folder, out.parent, decimals, _decimals_of_judges(judges or {}, group)),
        "judges": [
            {"name": readable(name), "description": readable(info.description)} for name, info in (judges or {}).items()
        ],
        "failures": [
            {
                "name": readable(name_within(record.path, folder)),
                "path": readable(record.path),
                "error": readable(record.error or "The scorer gave no finite score."),
            }
            for record in group.failed
        ],
    }
    out.parent.mkdir(parents=True, exist_ok=True)
    with atomic_write(out, is_shared=True) as partial, partial.open("w", encoding="utf-8", newline="\n") as file:
        file.writelines(_render(context))


@dataclass
class _Group:
    """All pictures, of which only the ends of the ranking are held.

    `scores` and `rejected` cover every scored picture, in the order they came.
    """

    shown: list[tuple[int, str, Record]] = field(default_factory=list)  # rank from 1, state, record; best first
    scores: "array[float]" = field(default_factory=lambda: array("d"))
    rejected: bytearray = field(default_factory=bytearray)
    kept_count: int = 0
    rejected_count: int = 0
    failed: list[Record] = field(default_factory=list)
    failed_count: int = 0

    @property
    def left_out(self) -> int:
        return len(self.scores) - len(self.shown)

    @property
    def selected(self) -> bool:
        return self.kept_count + self.rejected_count > 0

    @property
    def has_percentiles(self) -> bool:
        return any(record.percentile is not None for _, _, record in self.shown)


def _gather(pictures: "Iterable[Record] | Ranking[Record]", most: int) -> _Group:
    group = _Group()
    best_first: list[tuple[float, bool, int, str, Record]] = []  # ties: kept first, then as they came
    for arrival, (state, record) in enumerate(_with_states(pictures)):
        if record.score is None or not math.isfinite(record.score):
            group.failed_count += 1
            if len(group.failed) < most:
                group.failed.append(record)
            continue
        is_rejected = state == "rejected"
        group.scores.append(record.score)
        group.rejected.append(is_rejected)
        group.kept_count += state == "kept"
        group.rejected_count += is_rejected
        best_first.append((-record.score, is_rejected, arrival, state, record))
        if len(best_first) >= 4 * most:  # what lies in the middle now can never return to the ends
            best_first.sort(key=lambda ranked: ranked[:3])
            del best_first[most:-most]
    best_first.sort(key=lambda ranked: ranked[:3])
    total = len(group.scores)
    if total > most:
        head, tail = best_first[: (most + 1) // 2], best_first[-(most // 2) :]
    else:
        head, tail = best_first, []
    group.shown = [(1 + i, *ranked[3:]) for i, ranked in enumerate(head)]
    group.shown += [(1 + total - len(tail) + i, *ranked[3:]) for i, ranked in enumerate(tail)]
    return group


def _with_states(pictures: "Iterable[Record] | Ranking[Record]") -> Iterator[tuple[str, Record]]:
    from ..ranking import Ranking  # imports torch

    if not isinstance(pictures, Ranking):
        yield from zip(repeat("scored"), pictures)
        return
    for state, records in (("kept", pictures.kept), ("rejected", pictures.rejected), ("failed", pictures.failed)):
        yield from zip(repeat(state), records)


def _model_facts(model: "Mapping[str, Any] | ScorerInfo") -> dict[str, Any]:
    read = model.get if isinstance(model, Mapping) else lambda key: getattr(model, key, None)
    facts = {key: read(key) for key in MODEL_FACTS}
    return {key: readable(value) if isinstance(value, str) else value for key, value in facts.items()}


def _decimals(facts: Mapping[str, Any], scores: "array[float]") -> int:
    return decimals_for(_model_span(facts) or (max(scores) - min(scores) if scores else 0))


def _model_span(facts: Mapping[str, Any]) -> float:
    """How wide the model's range is; 0 where it has none."""
    span = (facts["high"] or 0) - (facts["low"] or 0)
    return span if math.isfinite(span) and span > 0 else 0


def _decimals_of_judges(judges: "Mapping[str, ScorerInfo]", group: _Group) -> dict[str, int]:
    """By the name of a scorer how many decimals its scores are shown with."""
    found = {}
    for name, info in judges.items():
        scores = [judged.score for _, _, record in group.shown for judged in record.judges if judged.name == name]
        known = [score for score in scores if score is not None]
        found[name] = decimals_for(info.high - info.low) if math.isfinite(info.high - info.low) else decimals_of(known)
    return found


def _judge_lines(record: Record, decimals: Mapping[str, int]) -> tuple[JudgeLine, ...]:
    return tuple(
        JudgeLine(
            readable(judged.name),
            "" if judged.score is None else f"{judged.score:.{decimals[judged.name]}f}",
            "null" if judged.score is None else repr(judged.score),
            better_than(judged.percentile),
            readable(judged.error or ""),
        )
        for judged in record.judges
        if judged.name in decimals
    )


def _cards(group: _Group, folder: str, report_folder: Path, decimals: int, judges: Mapping[str, int]) -> Iterator[Card]:
    paths = [path_from_text(record.path) for _, _, record in group.shown]
    for (rank, state, record), path, thumbnail in zip(group.shown, paths, make_thumbnails(paths), strict=True):
        yield Card(
            rank=rank,
            state=state,
            score=f"{record.score:.{decimals}f}",
            sort_score=repr(record.score),
            percentile=better_than(record.percentile),
            name=readable(name_within(record.path, folder)),
            path=readable(record.path),
            link=file_link(path, report_folder),
            width=record.width or 0,
            height=record.height or 0,
            thumbnail=thumbnail,
            judges=_judge_lines(record, judges),
            key=record.digest or hashlib.sha256(record.path.encode()).hexdigest(),
            pick=_pick(record, path),
        )


def _pick(record: Record, path: str) -> str:
    """What picks.json says of the picture, as JSON: where it is, what it is, and what it was made from."""
    entry = {"path": path_text(Path(path).absolute()), "digest": record.digest, "prompt": record.prompt}
    return json.dumps({name: value for name, value in entry.items() if value})


def _render(context: Mapping[str, Any]) -> Iterator[str]:
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(Path(__file__).parent),
        autoescape=True,
        trim_blocks=True,
        lstrip_blocks=True,
        undefined=jinja2.StrictUndefined,
    )
    style = environment.get_template("report.css.j2").render()
    script = environment.get_template("report.js.j2").render()
    return environment.get_template("report.html.j2").generate(
        context,
        style=Markup(style),
        style_hash=_content_hash(style),
        script=Markup(script),
        script_hash=_content_hash(script),
    )


def _content_hash(text: str) -> str:
    """The hash by which a Content-Security-Policy allows an inline script or style."""
    return "sha256-" + base64.b64encode(hashlib.sha256(text.encode()).digest()).decode("ascii")
