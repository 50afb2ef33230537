"""What `plan_pruning` is given; refused before anything is computed."""

from __future__ import annotations

from typing import Any

import numpy as np

from ...errors import MaAgiqaError


def checked_scores(previews: Any, finals: Any, fractions: Any) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Scores (P, F, n), (P, n) and fractions (F,) as float64.

    Raises:
        ValueError: Other shapes, fewer than two candidates, scores that are not finite, or fractions that do not ascend
            within 0 and 1.
    """
    try:
        before, after, places = (np.asarray(given, dtype=np.float64) for given in (previews, finals, fractions))
    except (TypeError, ValueError) as error:
        raise MaAgiqaError(f"Expected numbers as scores and fractions, got {error}. Give numpy arrays.") from error
    if before.ndim != 3 or after.ndim != 2 or places.ndim != 1:
        raise MaAgiqaError(
            f"Expected previews (P, F, n), finals (P, n) and fractions (F,), got {before.shape}, {after.shape} and "
            f"{places.shape}."
        )
    prompts, looks, n = before.shape
    if after.shape != (prompts, n) or len(places) != looks:
        raise MaAgiqaError(
            f"Expected finals ({prompts}, {n}) and {looks} fractions for previews {before.shape}, got {after.shape} "
            f"and {len(places)}."
        )
    if n < 2 or prompts < 1 or looks < 1:
        raise MaAgiqaError(
            f"Expected at least one prompt, one fraction and two candidates, got previews {before.shape}. With one "
            "candidate there is nothing to choose."
        )
    if not (np.isfinite(before).all() and np.isfinite(after).all()):
        raise MaAgiqaError("Expected finite scores, got NaN or infinity. Leave out the prompts that have them.")
    if not (places > 0).all() or not (places <= 1).all() or not (np.diff(places) > 0).all():
        raise MaAgiqaError(f"Expected fractions that ascend above 0 and up to 1, got {places.tolist()}.")
    return before, after, places
