"""How strong the ridge should be, and how well the taste then foretells picks that it has not seen.

Pictures are parted into folds by their groups (a prompt, a folder, copies of a picture): no group is in two.
The penalty and the scaling of the features are those whose fits foretell the left-out folds best. What is reported is
nested: the fold that is foretold has no say in the choice either.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from itertools import combinations

import numpy as np

from .columns import Columns, make_columns, scalings
from .evidence import Evidence
from .taste_fit import Fit, fit_taste, held_out_loss

PENALTIES = (30.0, 10.0, 3.0, 1.0, 0.3, 0.1, 0.03, 0.01, 0.003)
LEAST = 1000.0  # the penalty is at least this by the cube of the number of picks: five picks hardly move a ranking
FOLDS = 5
FEWEST = 10  # picks; with fewer nothing is held out


@dataclass(frozen=True)
class Choice:
    """What was chosen.

    Attributes:
        scaling: Of the parts of a description.
        penalty: Of the ridge.
    """

    scaling: Mapping[str, float]
    penalty: float


@dataclass(frozen=True)
class Tried:
    """What the folds said.

    Attributes:
        choice: For all picks.
        folds: (N,) the fold of each picture; all 0 where there were too few picks to hold any out.
        values: (N,) of each picture its value by a fit that has not seen its fold; None without folds.
        choices: Of each fold, without it.
    """

    choice: Choice
    folds: np.ndarray
    values: np.ndarray | None
    choices: tuple[Choice, ...] = ()


def make_folds(groups: np.ndarray, count: int, seed: int) -> np.ndarray:
    """Parts groups into folds of about equal size: (N,) numbers from 0; no group is in two.

    Args:
        groups: (N,) of each picture.
        count: How many folds.
        seed: Of the shuffle.
    """
    names, sizes = np.unique(groups, return_counts=True)
    order = np.random.default_rng(seed).permutation(len(names))
    order = order[np.argsort(-sizes[order], kind="stable")]
    filled = np.zeros(count, int)
    fold_of = {}
    for place in order:
        fold = int(filled.argmin())
        fold_of[names[place]] = fold
        filled[fold] += sizes[place]
    return np.array([fold_of[group] for group in groups])


def try_out(
    standardised: np.ndarray,
    prior: np.ndarray,
    parts: Mapping[str, int],
    evidence: Evidence,
    groups: np.ndarray,
    *,
    seed: int = 0,
) -> Tried:
    """Chooses by folds, and foretells each of them.

    Args:
        standardised: (N, D) of all pictures.
        prior: (N,).
        parts: Widths of the parts, D in all.
        evidence: All there is.
        groups: (N,) that no fold may part.
        seed: Of the folds.
    """
    penalties = allowed_penalties(evidence.weight)
    alike = scalings(parts)[0]
    count = min(FOLDS, len(np.unique(groups)))
    folds = make_folds(groups, max(count, 1), seed)
    if (
        evidence.weight < FEWEST
        or count < 2
        or not all(evidence.within(folds != fold).has_both_kinds() for fold in range(count))
    ):
        return Tried(Choice(alike, max(penalties[-1], 1.0)), np.zeros(len(groups), int), None)
    without = [evidence.within(folds != fold) for fold in range(count)]
    foretold = [_left_out(evidence, folds == fold) for fold in range(count)]
    options = [Choice(scaling, penalty) for scaling in scalings(parts) for penalty in penalties]
    losses = np.zeros((len(options), count))  # of each fold by fits on all others
    nested = np.zeros((len(options), count, count))  # of the second fold by fits on all but both
    values = np.zeros((len(options), len(groups)))
    for which, scaling in enumerate(scalings(parts)):
        columns = make_columns(standardised, prior, parts, scaling)
        place = slice(which * len(penalties), (which + 1) * len(penalties))
        for fold in range(count):
            for row, fit in enumerate(_path(columns, prior, without[fold], penalties), start=place.start):
                losses[row, fold] = held_out_loss(fit, columns.values, prior, foretold[fold])
                values[row, folds == fold] = fit.value(columns.values, prior)[folds == fold]
        for first, second in combinations(range(count), 2):
            inner = evidence.within((folds != first) & (folds != second))
            if not inner.has_both_kinds():
                continue
            for row, fit in enumerate(_path(columns, prior, inner, penalties), start=place.start):
                nested[row, first, second] = held_out_loss(fit, columns.values, prior, foretold[second])
                nested[row, second, first] = held_out_loss(fit, columns.values, prior, foretold[first])
    best = [int(nested[:, fold].sum(1).argmin()) for fold in range(count)]
    found = values[[best[fold] for fold in folds], np.arange(len(folds))]
    return Tried(options[int(losses.sum(1).argmin())], folds, found, tuple(options[row] for row in best))


def fit_choice(
    standardised: np.ndarray, prior: np.ndarray, parts: Mapping[str, int], evidence: Evidence, choice: Choice
) -> tuple[Columns, Fit]:
    """The fit on everything, with the columns that it is of."""
    columns = make_columns(standardised, prior, parts, choice.scaling)
    return columns, fit_taste(columns.values, prior, evidence, choice.penalty)


def allowed_penalties(picks: float) -> list[float]:
    """Those of `PENALTIES` that so many picks may have, strongest first; at least one."""
    least = LEAST / max(picks, 1.0) ** 3
    return [penalty for penalty in PENALTIES if penalty >= least] or [PENALTIES[0]]


def _left_out(evidence: Evidence, fold: np.ndarray) -> Evidence:
    """What a fold is asked for: pairs inside of it, or, where there are hardly any, pairs with one picture of it."""
    strict, loose = evidence.within(fold), evidence.within(fold, whole_pairs=False)
    return strict if 2 * len(strict.better) >= len(loose.better) else loose


def _path(columns: Columns, prior: np.ndarray, evidence: Evidence, penalties: list[float]) -> list[Fit]:
    """Fits with all penalties, each begun from the one before."""
    fits: list[Fit] = []
    for penalty in penalties:
        fits.append(fit_taste(columns.values, prior, evidence, penalty, fits[-1] if fits else None))
    return fits
