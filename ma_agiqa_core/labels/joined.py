"""Several labelled sets as one, so that their targets are trained together."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from ..errors import MaAgiqaError
from .labelled_set import LabelledPicture, LabelledSet
from .splits import Split


def merge_sets(sets: Sequence[LabelledSet], splits: Sequence[Split]) -> tuple[LabelledSet, Split]:
    """One set with the rows of all in turn, each split as it was.

    Scores for a target that an earlier set has too are moved linearly to that one's scale; a set without a target
    just has no labels for it.

    Raises:
        ValueError: A picture is in two of the sets.
    """
    if len(sets) == 1:
        return sets[0], splits[0]
    ranges: dict[str, tuple[float, float]] = {}
    pictures: list[LabelledPicture] = []
    parts: tuple[list[int], list[int], list[int]] = ([], [], [])
    places: dict[str, str] = {}
    for labelled, split in zip(sets, splits, strict=True):
        own = {target: labelled.range_of(target) for target in labelled.targets}
        for target, scale in own.items():
            ranges.setdefault(target, scale)
        for part, rows in zip(parts, (split.train, split.val, split.test), strict=True):
            part += [len(pictures) + row for row in rows]
        for picture in labelled.pictures:
            place = str(picture.path.resolve())
            if place in places:
                raise MaAgiqaError(
                    f"Expected each picture in one set, got {place!r} in {places[place]} and in {labelled.name}."
                )
            places[place] = labelled.name
            scores = {target: _moved(score, own[target], ranges[target]) for target, score in picture.scores.items()}
            pictures.append(replace(picture, scores=scores))
    low, high = next(iter(ranges.values()))
    name = "+".join(labelled.name for labelled in sets)
    unlabelled = sum(labelled.unlabelled for labelled in sets)
    return LabelledSet(name, tuple(pictures), low, high, unlabelled, ranges), Split(*map(tuple, parts))


def _moved(score: float, scale: tuple[float, float], to: tuple[float, float]) -> float:
    if scale == to or scale[0] == scale[1]:
        return score
    return to[0] + (score - scale[0]) / (scale[1] - scale[0]) * (to[1] - to[0])
