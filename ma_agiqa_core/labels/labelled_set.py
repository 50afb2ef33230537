"""From a table of scores and a folder of pictures to a checked set of labelled pictures."""

import logging
import math
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

from ..arguments.options import first_names
from ..errors import MaAgiqaError, MissingFileError
from ..records.spreadsheets import PICTURE_COLUMNS, PROMPT_COLUMNS, Table, read_table
from .picture_index import PictureIndex

logger = logging.getLogger(__name__)

QUALITY, ALIGNMENT, AUTHENTICITY = TARGETS = ("quality", "alignment", "authenticity")
MOST = 1e9  # of a score: its square is still far from float32's end

_GENERATORS = ("generator", "generative_model", "generation_model")
_SPLITS = {
    "train": "train",
    "training": "train",
    "val": "val",
    "valid": "val",
    "validation": "val",
    "test": "test",
    "testing": "test",
}


@dataclass(frozen=True)
class LabelledPicture:
    """One picture and its human scores.

    Attributes:
        path: Of an existing file.
        name: Its name in the table.
        scores: By target ("quality", "alignment", "authenticity"), higher is better; only those that the row has.
        prompt: The prompt it was generated from.
        generator: The model that generated it.
        split: "train", "val" or "test" where the table says so.
    """

    path: Path
    name: str
    scores: Mapping[str, float]
    prompt: str | None = None
    generator: str | None = None
    split: str | None = None


@dataclass(frozen=True)
class LabelledSet:
    """Labelled pictures in the order of their table, on which the published shuffle depends.

    Attributes:
        name: E.g. "agiqa-3k", or the table's stem.
        pictures: In the order of the table.
        low: Lower end of the first target's scale, as published or else the least score there is.
        high: Upper end.
        unlabelled: Pictures in the folder that have no score.
        ranges: The scale of every target, the first target first. Empty: the first picture's targets, each
            further one with the least and greatest score there is.
    """

    name: str
    pictures: tuple[LabelledPicture, ...]
    low: float
    high: float
    unlabelled: int = 0
    ranges: Mapping[str, tuple[float, float]] = field(default_factory=dict)

    def __len__(self) -> int:
        return len(self.pictures)

    @property
    def targets(self) -> tuple[str, ...]:
        """What the pictures have scores for; the first one is what `low` and `high` mean."""
        return tuple(dict.fromkeys([*self.ranges, *(name for picture in self.pictures for name in picture.scores)]))

    def range_of(self, target: str) -> tuple[float, float]:
        """The scale of a target.

        Raises:
            ValueError: No picture has a score for it.
        """
        if target not in self.targets:
            raise MaAgiqaError(f"Expected a target of {self.name}, {', '.join(self.targets)}, got {target!r}.")
        if target in self.ranges:
            return self.ranges[target]
        if target == self.targets[0]:
            return self.low, self.high
        return _extremes(picture.scores[target] for picture in self.pictures if target in picture.scores)


def read_labels(
    labels: Path,
    images: Path,
    *,
    score_column: str | Sequence[str] | Mapping[str, str],
    name_column: str | None = None,
    prompt_column: str | None = None,
    generator_column: str | None = None,
    split_column: str | None = None,
    low: float | None = None,
    high: float | None = None,
) -> LabelledSet:
    """Reads a table of scores (see `read_table`) and finds its pictures.

    A row without any score is skipped, and its picture counts as unlabelled.

    Args:
        labels: The table; its first row names the columns.
        images: Folder of the pictures, searched with its subfolders. A name in the table is a path in it, or the
            name of one file anywhere in it; without an ending any picture of that name will do.
        score_column: One column, which is then quality; or several: "alignment=mos_align" (or a mapping) says
            which target a column holds, unless the column has the name of a target.
        name_column: None finds it by its usual names ("name", "image_name", "path" and so on).
        prompt_column: None takes "prompt" if there is one.
        generator_column: None takes "generator" if there is one.
        split_column: Column with train, val (or validation) and test.
        low: Lower end of the scale of all scores; None: that of the data.
        high: Upper end.

    Raises:
        FileNotFoundError: No table or no folder, or pictures of labelled rows do not exist: the first five and
            how many.
        ValueError: A column is missing, a name stands twice, a score is no finite number or out of range, a split
            is unknown; with the row's number.

    Example:
        >>> import tempfile
        >>> from pathlib import Path
        >>> from PIL import Image
        >>> from ma_agiqa_core.labels.labelled_set import read_labels
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     for name in ("a.png", "b.png"):
        ...         Image.new("RGB", (8, 8)).save(Path(folder) / name)
        ...     _ = (Path(folder) / "labels.csv").write_text("name,mos\\na.png,3.5\\nb.png,4\\n")
        ...     labelled = read_labels(Path(folder) / "labels.csv", Path(folder), score_column="mos")
        >>> [picture.scores for picture in labelled.pictures], labelled.low, labelled.high
        ([{'quality': 3.5}, {'quality': 4.0}], 3.5, 4.0)
    """
    table = read_table(labels)
    columns = {target: table.column(column) for target, column in score_columns(score_column).items()}
    name_column = table.column(name_column) if name_column else table.first_column(*PICTURE_COLUMNS)
    if name_column is None:
        raise MaAgiqaError(
            f"Expected a column with the pictures' names in {labels}, got {', '.join(table.columns)}. "
            "Say which it is (on the command line --name-column)."
        )
    return labelled_set(
        table,
        images,
        scores=columns,
        name=name_column,
        prompt=table.column(prompt_column) if prompt_column else table.first_column(*PROMPT_COLUMNS),
        generator=table.column(generator_column) if generator_column else table.first_column(*_GENERATORS),
        split=table.column(split_column) if split_column else None,
        bounds=(low, high),
    )


def score_columns(asked: str | Sequence[str] | Mapping[str, str]) -> dict[str, str]:
    """Which column holds which target.

    Args:
        asked: "mos"; or several, e.g. ("mos_quality", "alignment=mos_align"); or {"quality": "mos_quality"}.

    Raises:
        ValueError: An unknown target, one target twice, or a column whose target is not said.
    """
    if isinstance(asked, Mapping):
        pairs = list(asked.items())
    else:
        pairs = []
        for text in [asked] if isinstance(asked, str) else asked:
            target, sign, column = text.partition("=")
            if target.strip() in TARGETS and sign:
                pairs.append((target.strip(), column.strip()))
            else:
                pairs.append((text if text in TARGETS else QUALITY, text))
    columns: dict[str, str] = {}
    for target, column in pairs:
        if target not in TARGETS:
            raise MaAgiqaError(f"Expected a target of {', '.join(TARGETS)}, got {target!r}.")
        if not column:
            raise MaAgiqaError(f"Expected a column for {target}, got an empty name.")
        if target in columns:
            raise MaAgiqaError(
                f"Expected one column for each target, got {columns[target]!r} and {column!r} for {target}. "
                f"Write e.g. alignment={column}."
            )
        columns[target] = column
    if not columns:
        raise MaAgiqaError("Expected a column with scores, got none.")
    return columns


def labelled_set(
    table: Table,
    images: Path,
    *,
    scores: Mapping[str, str],
    name: str,
    prompt: str | None = None,
    generator: str | None = None,
    split: str | None = None,
    bounds: tuple[float | None, float | None] = (None, None),
    title: str | None = None,
) -> LabelledSet:
    """The checked set of a table whose columns are known; see `read_labels`.

    Args:
        table: Table of labels.
        images: Folder of the pictures.
        scores: Column of each target.
        name: Column of the pictures' names.
        prompt: Column of the prompts, if there is one.
        generator: Column of the generators, if there is one.
        split: Column of the splits, if there is one.
        bounds: Scale of all scores, None for an open end.
        title: Name of the set; None takes the table's stem.
    """
    if not images.is_dir():
        what = "which is a file. Name the folder that it is in" if images.exists() else "no such folder"
        raise MissingFileError(f"Expected a folder of pictures, got {images}: {what}.")
    files = PictureIndex(images)
    rows = list(_scored_rows(table, scores, name, bounds))
    paths = _find_pictures(rows, files)
    _refuse_missing([row.name for row in rows if row.number not in paths], len(table.rows), images, files)
    if not rows:
        raise MaAgiqaError(f"Expected scores in {', '.join(scores.values())} of {table.path}, got none.")
    pictures = tuple(
        LabelledPicture(
            paths[row.number],
            row.name,
            row.scores,
            prompt=row.cells[prompt] or None if prompt else None,
            generator=row.cells[generator] or None if generator else None,
            split=_split(row.cells[split], split, row.place) if split and row.cells[split] else None,
        )
        for row in rows
    )
    ranges = {target: _range(pictures, target, column, table.path, bounds) for target, column in scores.items()}
    low, high = ranges[next(iter(scores))]
    unlabelled = files.count_without(picture.path for picture in pictures)
    return LabelledSet(title or table.path.stem, pictures, low, high, unlabelled, ranges)


class _Row(NamedTuple):
    """A row with scores: its number, where it is for messages, the picture's name, scores by target, all cells."""

    number: int
    place: str
    name: str
    scores: dict[str, float]
    cells: Mapping[str, str]


def _scored_rows(
    table: Table, scores: Mapping[str, str], name: str, bounds: tuple[float | None, float | None]
) -> Iterator[_Row]:
    for number, cells in zip(table.numbers, table.rows, strict=True):
        place = f"row {number} of {table.path}"
        if not cells[name]:
            raise MaAgiqaError(f"Expected a picture's name in {place}, got none.")
        found = {
            target: _score(cells[column], column, bounds, place) for target, column in scores.items() if cells[column]
        }
        if found:
            yield _Row(number, place, cells[name], found, cells)


def _find_pictures(rows: Iterable[_Row], files: PictureIndex) -> dict[int, Path]:
    """By row number: the path of its picture; none where there is no such picture."""
    paths: dict[int, Path] = {}
    seen: dict[str | Path, int] = {}
    for row in rows:
        path = files.find(row.name, row.place)
        names: list[str | Path] = [row.name] if path is None else [row.name, path]
        for same in names:
            if same in seen:
                raise MaAgiqaError(
                    f"Expected each picture once, got {row.name!r} in row {seen[same]} and in {row.place}."
                )
            seen[same] = row.number
        if path is not None:
            paths[row.number] = path
    return paths


def _range(
    pictures: Iterable[LabelledPicture],
    target: str,
    column: str,
    table: Path,
    bounds: tuple[float | None, float | None],
) -> tuple[float, float]:
    """The bounds of a target's scores; an open end is that of the scores there are."""
    scores = [picture.scores[target] for picture in pictures if target in picture.scores]
    if not scores:
        raise MaAgiqaError(f"Expected scores in {column} of {table}, got none.")
    least, greatest = _extremes(scores)
    if least == greatest:
        logger.warning("every score in %s is %g: there is no correlation with them", column, least)
    low, high = bounds
    return least if low is None else float(low), greatest if high is None else float(high)


def _score(text: str, column: str, bounds: tuple[float | None, float | None], place: str) -> float:
    try:
        score = float(text) if "_" not in text else math.nan
    except ValueError:
        is_comma = text.count(",") == 1 and text.replace(",", "", 1).lstrip("-").isdigit()
        advice = "Write decimals with a dot." if is_comma else "Leave it empty if the picture has no score."
        raise MaAgiqaError(f"Expected a number as {column} in {place}, got {text!r}. {advice}") from None
    if not math.isfinite(score):
        raise MaAgiqaError(f"Expected a finite number as {column} in {place}, got {text!r}.")
    if abs(score) > MOST:
        raise MaAgiqaError(f"Expected {column} from {-MOST:g} to {MOST:g} in {place}, got {text!r}.")
    low, high = bounds
    if (low is not None and score < low) or (high is not None and score > high):
        raise MaAgiqaError(f"Expected {column} from {low} to {high} in {place}, got {text}.")
    return score


def _split(text: str, column: str, place: str) -> str:
    if text.lower() not in _SPLITS:
        raise MaAgiqaError(f"Expected train, val or test as {column} in {place}, got {text!r}.")
    return _SPLITS[text.lower()]


def _refuse_missing(missing: Sequence[str], rows: int, images: Path, files: PictureIndex) -> None:
    if missing:
        advice = ""
        if len(missing) == rows:  # the wrong folder, or the wrong column
            there = f", where pictures are called e.g. {files.example}" if files.example else ", where no pictures are"
            advice = f" Name another folder than this one{there}; or another column with their names."
        raise MissingFileError(
            f"Expected a picture for each labelled row in {images}, got none for {len(missing)} of {rows}: "
            f"{first_names(missing)}.{advice}"
        )


def _extremes(scores: Iterable[float]) -> tuple[float, float]:
    values = list(scores)
    return min(values), max(values)


def counted_generators(labelled: LabelledSet) -> Counter[str]:
    """How many pictures each generator made, in the order of the table."""
    return Counter(picture.generator for picture in labelled.pictures if picture.generator is not None)
