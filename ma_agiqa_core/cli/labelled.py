"""Tables of labels on the command line, as `train` and `evaluate` take them: one set, or several in turn."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

from .options import PATH, notice, together

if TYPE_CHECKING:
    from ..labels.labelled_set import LabelledSet

_Value = TypeVar("_Value")
_NAMES = ("labels", "images", "score_columns", "datasets", "name_column", "prompt_column", "generator_column")

labels_options = together(
    click.option(
        "--labels",
        required=True,
        multiple=True,
        type=PATH,
        metavar="F",
        help="Table of human scores: .csv, .tsv or .xlsx; with --dataset, the set's folder. Repeat for more sets.",
    ),
    click.option(
        "--images",
        multiple=True,
        type=PATH,
        metavar="DIR",
        help="Folder with the pictures of --labels; one per --labels.",
    ),
    click.option(
        "--score-column",
        "score_columns",
        multiple=True,
        metavar="C",
        help="Score column; alignment=C for another target; separate several with commas.",
    ),
    click.option(
        "--dataset",
        "datasets",
        multiple=True,
        metavar="NAME",
        help="Published data set, one per --labels: agiqa-3k, aigcqa-20k, aigciqa2023, koniq-10k or spaq.",
    ),
    click.option("--name-column", metavar="C", help="Column with the file names.  [default: detected]"),
    click.option("--prompt-column", metavar="C", help="Prompt column.  [default: prompt]"),
    click.option("--generator-column", metavar="C", help="Generator column.  [default: generator]"),
)


def take_labelled_sets(options: dict[str, Any], split: str | None) -> list[LabelledSet]:
    """`read_labelled_sets` of a command's options, from which they are taken."""
    return read_labelled_sets(**{name: options.pop(name) for name in _NAMES}, split=split)


def say_unlabelled(labelled: LabelledSet) -> None:
    """Says how many pictures have no score."""
    if labelled.unlabelled:
        notice(f"{labelled.name}: {labelled.unlabelled} pictures without a score are left out")


def read_labelled_sets(
    labels: Sequence[Path],
    images: Sequence[Path],
    score_columns: Sequence[str],
    datasets: Sequence[str],
    *,
    name_column: str | None = None,
    prompt_column: str | None = None,
    generator_column: str | None = None,
    split: str | None = None,
) -> list[LabelledSet]:
    """The sets that the options of `labels_options` name, in order.

    Args:
        labels: Tables, or the folders of published sets.
        images: One folder for each; published sets find their own.
        score_columns: One for all, or one for each; each may be several, with commas. With one set, several
            columns of it. Of a published set: its targets, default quality.
        datasets: None, or one for each.
        name_column: Of the tables, as are the two that follow.
        prompt_column: None finds it.
        generator_column: None finds it.
        split: `--split`; if it names a column, that is read.

    Raises:
        ValueError: Options that do not pair up, or labels that cannot be used.
        OSError: Files that are not there.
    """
    from ..labels.datasets import read_dataset
    from ..labels.labelled_set import QUALITY, read_labels
    from ..labels.splits import split_column

    folders = _paired("--images", images, labels, may_be_none=bool(datasets))
    names = _paired("--dataset", datasets, labels, may_be_none=True)
    if len(labels) == 1 and len(score_columns) > 1:
        score_columns = [",".join(score_columns)]
    if len(labels) > 1 and len(score_columns) == 1:
        score_columns = list(score_columns) * len(labels)
    columns = _paired("--score-column", score_columns, labels, may_be_none=bool(datasets))
    sets = []
    for table, folder, name, column in zip(labels, folders, names, columns, strict=True):
        several = [part.strip() for part in column.split(",")] if column else []
        if name is not None:
            sets.append(read_dataset(name, table, folder, several or [QUALITY]))
            continue
        assert folder is not None
        sets.append(
            read_labels(
                table,
                folder,
                score_column=several,
                name_column=name_column,
                prompt_column=prompt_column,
                generator_column=generator_column,
                split_column=None if split is None else split_column(split),
            )
        )
    return _told_apart(sets, labels)


def _told_apart(sets: Sequence[LabelledSet], labels: Sequence[Path]) -> list[LabelledSet]:
    """Sets of one name, as tables in two folders may have, with their folder's name before it."""
    names = [labelled.name for labelled in sets]
    return [
        replace(labelled, name=f"{table.resolve().parent.name}/{labelled.name}")
        if names.count(labelled.name) > 1
        else labelled
        for labelled, table in zip(sets, labels, strict=True)
    ]


def _paired(
    option: str, values: Sequence[_Value], labels: Sequence[Path], *, may_be_none: bool
) -> Sequence[_Value | None]:
    """One value for each --labels."""
    if not values and may_be_none:
        return [None] * len(labels)
    if len(values) != len(labels):
        raise click.UsageError(
            f"Expected one {option} per --labels, got {len(values)} for {len(labels)}.", click.get_current_context()
        )
    return values
