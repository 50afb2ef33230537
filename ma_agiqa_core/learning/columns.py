"""Descriptions as the few columns that a taste is fitted on, and a fit's weights as the features' own again."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from ..scorers.learned import MOST

MOST_COLUMNS = 256  # principal ones; a ridge penalty leaves little of the others
PRIOR_SCALE = 0.7  # of the column with which the prior can be taken back
QUIET = 0.25  # scale of the parts that are not in favour
_EPS = 1e-6


@dataclass(frozen=True)
class Standard:
    """What descriptions are standardised by: both (D,)."""

    mean: np.ndarray
    deviation: np.ndarray

    def apply(self, descriptions: np.ndarray) -> np.ndarray:
        """(N, D), as `Taste.standardise` does it."""
        return ((descriptions - self.mean) / self.deviation).clip(-MOST, MOST)


def standard_of(descriptions: np.ndarray, has_common_scale: bool) -> Standard:
    """Means and deviations of descriptions (N, D); one deviation for all columns that have a common scale."""
    mean = descriptions.mean(0)
    deviation = descriptions.std(0)
    if has_common_scale:
        deviation = np.full_like(deviation, np.sqrt((deviation**2).mean()))
    return Standard(mean, deviation.clip(_EPS))


@dataclass(frozen=True)
class Columns:
    """What is fitted on.

    Attributes:
        values: (N, K) of the pictures; the last column is the prior's.
        basis: (D, K - 1) the standardised features in the other columns.
    """

    values: np.ndarray
    basis: np.ndarray

    def feature_weight(self, weight: np.ndarray) -> np.ndarray:
        """Of weights (K,) of the columns those of the standardised features: (D,)."""
        return self.basis @ weight[:-1]

    def prior_weight(self, weight: np.ndarray, has_prior: bool) -> float:
        """Of weights (K,) of the columns that of the prior."""
        return float(has_prior + PRIOR_SCALE * weight[-1])


def scalings(parts: Mapping[str, int]) -> list[dict[str, float]]:
    """Which parts of a description to listen to: all alike, or one of them more than the others."""
    alike = dict.fromkeys(parts, 1.0)
    if len(parts) == 1:
        return [alike]
    return [alike, *({**dict.fromkeys(parts, QUIET), part: 1.0} for part in parts)]


def make_columns(
    standardised: np.ndarray, prior: np.ndarray, parts: Mapping[str, int], scaling: Mapping[str, float]
) -> Columns:
    """Principal columns of descriptions, scaled so that a picture's squares add up to about 1.

    Args:
        standardised: (N, D).
        prior: (N,).
        parts: Widths, D in all.
        scaling: Of each part.
    """
    widths = np.fromiter(parts.values(), int)
    scale = np.array([scaling[part] for part in parts])
    scale = np.repeat(scale / np.sqrt(widths) / np.linalg.norm(scale), widths)
    x = standardised * scale
    left, values, right = np.linalg.svd(x, full_matrices=False)
    count = min(MOST_COLUMNS, int((values > 1e-6 * values[0]).sum()))
    columns = left[:, :count] * values[:count]
    return Columns(np.column_stack([columns, PRIOR_SCALE * prior]), scale[:, None] * right[:count].T)
