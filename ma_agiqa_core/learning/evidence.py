"""What picks say of numbered pictures, as arrays."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np


def _empty_rows() -> np.ndarray:
    return np.zeros(0, int)


def _empty() -> np.ndarray:
    return np.zeros(0)


@dataclass(frozen=True)
class Evidence:
    """Marks, pairs and ratings of pictures 0 to N - 1, each with its weight: copies share one.

    Attributes:
        marked: (M,) rows.
        liked: (M,) 1 or 0.
        mark_weight: (M,).
        better: (P,) rows.
        worse: (P,) rows.
        pair_weight: (P,).
        rated: (R,) rows.
        rating: (R,) with mean 0 and deviation 1.
        rating_weight: (R,).
    """

    marked: np.ndarray = field(default_factory=_empty_rows)
    liked: np.ndarray = field(default_factory=_empty)
    mark_weight: np.ndarray = field(default_factory=_empty)
    better: np.ndarray = field(default_factory=_empty_rows)
    worse: np.ndarray = field(default_factory=_empty_rows)
    pair_weight: np.ndarray = field(default_factory=_empty)
    rated: np.ndarray = field(default_factory=_empty_rows)
    rating: np.ndarray = field(default_factory=_empty)
    rating_weight: np.ndarray = field(default_factory=_empty)

    @property
    def weight(self) -> float:
        """How many picks these are, copies counted once."""
        return float(self.mark_weight.sum() + self.pair_weight.sum() + self.rating_weight.sum())

    def within(self, pictures: np.ndarray, *, whole_pairs: bool = True) -> Evidence:
        """The evidence on some of the pictures.

        Args:
            pictures: (N,) whether each is one of them.
            whole_pairs: Take a pair where both of its pictures are among them, else where one is.
        """
        marks, ratings = pictures[self.marked], pictures[self.rated]
        sides = pictures[self.better].astype(int) + pictures[self.worse]
        pairs = sides == 2 if whole_pairs else sides > 0
        return Evidence(
            self.marked[marks],
            self.liked[marks],
            self.mark_weight[marks],
            self.better[pairs],
            self.worse[pairs],
            self.pair_weight[pairs],
            self.rated[ratings],
            self.rating[ratings],
            self.rating_weight[ratings],
        )

    def has_both_kinds(self) -> bool:
        """Whether anything can be learned: likes and dislikes, pairs, or unlike ratings."""
        has_marks = len(np.unique(self.liked)) == 2
        return has_marks or len(self.better) > 0 or len(np.unique(self.rating)) > 1

    def comparisons(self) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Every two pictures of which one was said to be better, as (better, worse, weight), each (C,).

        Likes against dislikes, the pairs, and higher ratings against lower ones.
        """
        likes, dislikes = np.flatnonzero(self.liked == 1), np.flatnonzero(self.liked == 0)
        left, right = (part.ravel() for part in np.meshgrid(likes, dislikes, indexing="ij"))
        upper, lower = np.nonzero(self.rating[:, None] > self.rating[None])
        return (
            np.concatenate([self.marked[left], self.better, self.rated[upper]]),
            np.concatenate([self.marked[right], self.worse, self.rated[lower]]),
            np.concatenate(
                [
                    self.mark_weight[left] * self.mark_weight[right],
                    self.pair_weight,
                    self.rating_weight[upper] * self.rating_weight[lower],
                ]
            ),
        )
