"""BRISQUE (Mittal, Moorthy & Bovik, 2012) as the PyPI package `brisque` 0.2.0 computes it.

Only what keeps it from running is mended: its `scale_features` calls float() on arrays of one value.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np

MISSING = 'Expected the package brisque, got none. Install it with `pip install -e ".[bench]"`.'


class PublishedBrisque:
    """Pictures -> quality, higher is better. OpenCV is set to one thread.

    Raises:
        ImportError: The extra `bench` is not installed.
    """

    def __init__(self) -> None:
        with _quiet():
            try:
                import cv2
                from brisque.brisque import BRISQUE
            except ImportError as error:
                raise ImportError(MISSING) from error
            cv2.setNumThreads(1)
            self._brisque = BRISQUE(url=False)
        self._brisque.scale_features = _with_plain_numbers(self._brisque.scale_features)

    def quality(self, rgb: np.ndarray) -> float:
        """Minus BRISQUE's score, about -100 .. 0; NaN where it finds none.

        Args:
            rgb: (H, W, 3) uint8.
        """
        try:
            with _quiet():
                return -float(self._brisque.score(rgb))
        except (ValueError, ArithmeticError, IndexError):  # its fit of a constant picture, for one
            return math.nan


def _with_plain_numbers(scale_features: Callable[[Any], np.ndarray]) -> Callable[[Any], np.ndarray]:
    def scale(features: Any) -> np.ndarray:
        return scale_features([np.asarray(value, float).reshape(-1)[0] for value in features])

    return scale


@contextmanager
def _quiet() -> Iterator[None]:
    """It warns of SciPy's old names and of fits that do not converge."""
    with warnings.catch_warnings(), np.errstate(all="ignore"):
        warnings.simplefilter("ignore")
        yield
