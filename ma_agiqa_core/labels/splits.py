"""Which pictures train, which choose the best epoch, and which only measure.

The ratio split is the published one: `random.Random(seed).shuffle` of the row numbers, cut at int(n * 0.7) and
int(n * 0.8).
"""

import random
import re
from collections.abc import Sequence
from dataclasses import dataclass

from ..arguments.options import first_names
from ..errors import MaAgiqaError
from .labelled_set import LabelledSet, counted_generators

PUBLISHED_RATIO, PUBLISHED_SEED = "70/10/20", 20
_PARTS = ("train", "val", "test")


@dataclass(frozen=True)
class Split:
    """Row numbers of a `LabelledSet`, from 0.

    Attributes:
        train: To learn from.
        val: To choose the best epoch by.
        test: To measure on, once.

    Raises:
        ValueError: A row is in two of them, or twice in one.
    """

    train: tuple[int, ...]
    val: tuple[int, ...]
    test: tuple[int, ...]

    def __post_init__(self) -> None:
        rows = [*self.train, *self.val, *self.test]
        if len(set(rows)) != len(rows):
            twice = next(row for row in rows if rows.count(row) > 1)
            parts = [name for name in _PARTS for row in getattr(self, name) if row == twice]
            raise MaAgiqaError(f"Expected each picture in one part, got picture {twice} in {' and '.join(parts)}.")


def make_split(labelled: LabelledSet, text: str = PUBLISHED_RATIO, seed: int = PUBLISHED_SEED) -> Split:
    """The split that `--split` asks for.

    Args:
        labelled: The set.
        text: "70/10/20": rows by the published shuffle; "prompt:70/10/20": no prompt in two parts;
            "generator:NAME": that generator is the test; anything else names the column that the set was read
            with (see `split_column`).
        seed: Seed of the shuffle.

    Raises:
        ValueError: No such split of this set; the message says why.

    Example:
        >>> from pathlib import Path
        >>> from ma_agiqa_core.labels.labelled_set import LabelledPicture, LabelledSet
        >>> from ma_agiqa_core.labels.splits import make_split
        >>> pictures = tuple(LabelledPicture(Path(f"{n}.png"), f"{n}.png", {"quality": n}) for n in range(10))
        >>> make_split(LabelledSet("mine", pictures, 0, 9), "80/10/10", seed=1)
        Split(train=(6, 8, 9, 7, 5, 3, 0, 4), val=(1,), test=(2,))
    """
    kind, _, rest = text.partition(":")
    if kind == "prompt":
        return split_by_prompt(labelled, rest or PUBLISHED_RATIO, seed)
    if kind == "generator":
        return split_by_generator(labelled, rest, seed)
    return split_by_ratio(labelled, text, seed) if split_column(text) is None else split_by_column(labelled)


def split_column(text: str) -> str | None:
    """The column that a `--split` names, for `read_labels(split_column=...)`; None for the other kinds."""
    is_other = text.partition(":")[0] in ("prompt", "generator") or re.fullmatch(r"[\d.\s/]+", text)
    return None if is_other else text


def split_by_ratio(labelled: LabelledSet, ratio: str = PUBLISHED_RATIO, seed: int = PUBLISHED_SEED) -> Split:
    """Rows shuffled, then cut: the published split of AGIQA-3K and AIGCQA-20K with the default ratio and seed."""
    rows = list(range(len(labelled)))
    random.Random(seed).shuffle(rows)
    until_val, until_test = (int(len(rows) * share) for share in _cuts(ratio))
    has = f"{labelled.name} has {_counted(len(labelled), 'picture')}"
    return _whole(rows[:until_val], rows[until_val:until_test], rows[until_test:], ratio, has)


def split_by_column(labelled: LabelledSet) -> Split:
    """As the table says."""
    if without := [picture.name for picture in labelled.pictures if picture.split is None]:
        raise MaAgiqaError(
            f"Expected a split for each picture of {labelled.name}, got none for {len(without)}: "
            f"{first_names(without)}."
        )
    train, val, test = (
        tuple(row for row, picture in enumerate(labelled.pictures) if picture.split == part) for part in _PARTS
    )
    return Split(train, val, test)


def split_by_prompt(labelled: LabelledSet, ratio: str = PUBLISHED_RATIO, seed: int = PUBLISHED_SEED) -> Split:
    """Prompts shuffled and cut where the pictures' shares come nearest: pictures of one prompt stay together."""
    of_prompt: dict[str, list[int]] = {}
    for row, picture in enumerate(labelled.pictures):
        if picture.prompt is None:
            raise MaAgiqaError(f"Expected a prompt for each picture of {labelled.name}, got none for {picture.name!r}.")
        of_prompt.setdefault(picture.prompt, []).append(row)
    groups = list(of_prompt.values())
    random.Random(seed).shuffle(groups)
    parts: tuple[list[int], list[int], list[int]] = ([], [], [])
    cuts, done = _cuts(ratio), 0
    for group in groups:
        middle = (done + len(group) / 2) / len(labelled)
        parts[sum(middle >= cut for cut in cuts)].extend(group)
        done += len(group)
    return _whole(*parts, ratio, f"{labelled.name} has {_counted(len(groups), 'prompt')}")


def split_by_generator(labelled: LabelledSet, left_out: str, seed: int = PUBLISHED_SEED) -> Split:
    """The test is all of one generator; the others are shuffled, an eighth of them validates (as 70 to 10)."""
    known = counted_generators(labelled)
    if left_out not in known or len(known) < 2:
        names = ", ".join(known) or "none"
        raise MaAgiqaError(f"Expected one of several generators of {labelled.name}, {names}, got {left_out!r}.")
    test = [row for row, picture in enumerate(labelled.pictures) if picture.generator == left_out]
    others = sorted(set(range(len(labelled))) - set(test))
    random.Random(seed).shuffle(others)
    until_val = int(len(others) * 7 / 8)
    has = f"the other generators made {_counted(len(others), 'picture')}"
    return _whole(others[:until_val], others[until_val:], test, "70/10/20", has)


def _cuts(ratio: str) -> tuple[float, float]:
    """Where validation and test begin, as shares of all."""
    parts = ratio.split("/")
    try:
        train, val, test = (float(part) for part in parts)
        total = train + val + test
        if not (train > 0 and val >= 0 and test >= 0 and total < float("inf")):
            raise ValueError
    except ValueError:
        raise MaAgiqaError(
            f"Expected the shares of train, val and test as 70/10/20, got {ratio!r}. The first is above 0."
        ) from None
    return train / total, (train + val) / total


def _whole(train: Sequence[int], val: Sequence[int], test: Sequence[int], ratio: str, has: str) -> Split:
    """The split, unless a part that was asked for is empty."""
    shares = [float(part) for part in ratio.split("/")]
    for name, rows, share in zip(_PARTS, (train, val, test), shares, strict=True):
        if share and not rows:
            raise MaAgiqaError(f"Expected pictures for {name}, got none: {has}.")
    return Split(tuple(train), tuple(val), tuple(test))


def _counted(number: int, what: str) -> str:
    return f"{number} {what}{'' if number == 1 else 's'}"
