"""A pick: what somebody said of a picture, or of two."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime, timezone

LIKE, DISLIKE = "like", "dislike"


@dataclass(frozen=True)
class PickedPicture:
    """A picture that was picked or passed over, by its file.

    Attributes:
        path: Of its file when it was picked, as `records.record.path_text` writes it.
        digest: The first digits of the SHA-256 of its file, by which it is found where it was moved; None if not known.
        prompt: What it was made from, where that is known: pictures of one prompt compete with each other.
    """

    path: str
    digest: str | None = None
    prompt: str | None = None


@dataclass(frozen=True)
class Mark:
    """One picture that was liked, or disliked.

    Attributes:
        picture: Which.
        is_liked: Else it was disliked.
        scorer: The scorer whose scores were beside it, where there was one.
        date: When, in UTC and ISO 8601.
    """

    picture: PickedPicture
    is_liked: bool
    scorer: str | None = None
    date: str | None = None


@dataclass(frozen=True)
class Pair:
    """Two pictures, one of which was said to be better.

    Attributes:
        better: The one.
        worse: The other.
        scorer: As of a mark.
        date: As of a mark.
    """

    better: PickedPicture
    worse: PickedPicture
    scorer: str | None = None
    date: str | None = None


@dataclass(frozen=True)
class Rating:
    """A picture and a number that somebody gave it, higher is better."""

    picture: PickedPicture
    value: float


@dataclass(frozen=True)
class Picks:
    """All that was said, in the order in which it was said. Sessions add up: `first + second`.

    Example:
        >>> from ma_agiqa_core.picks.pick import Mark, Pair, PickedPicture, Picks
        >>> cat, dog = PickedPicture("cat.png"), PickedPicture("dog.png")
        >>> monday = Picks(marks=(Mark(cat, is_liked=True),))
        >>> tuesday = Picks(pairs=(Pair(better=cat, worse=dog),))
        >>> len(monday + tuesday)
        2
        >>> [picture.path for picture in (monday + tuesday).pictures()]
        ['cat.png', 'cat.png', 'dog.png']
    """

    marks: tuple[Mark, ...] = ()
    pairs: tuple[Pair, ...] = ()
    ratings: tuple[Rating, ...] = ()

    def __add__(self, other: Picks) -> Picks:
        return Picks(self.marks + other.marks, self.pairs + other.pairs, self.ratings + other.ratings)

    def __len__(self) -> int:
        return len(self.marks) + len(self.pairs) + len(self.ratings)

    def pictures(self) -> Iterable[PickedPicture]:
        """Every picture as often as it was picked."""
        yield from (mark.picture for mark in self.marks)
        for pair in self.pairs:
            yield from (pair.better, pair.worse)
        yield from (rating.picture for rating in self.ratings)


def now() -> str:
    """The date of a pick that is made now: UTC, to the second."""
    return f"{datetime.now(timezone.utc):%Y-%m-%dT%H:%M:%SZ}"
