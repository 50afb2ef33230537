"""Numbers as users give them, NumPy's and torch's among them, as Python's own; booleans and texts are not numbers."""

import math
import operator
from collections.abc import Iterable
from numbers import Real
from typing import Any

from ..errors import MaAgiqaError


def whole_number(value: Any) -> int | None:
    """An int, a NumPy integer, or a whole number in an array or tensor without dimensions, as an int.

    Returns:
        None for everything else, a float such as 4.0 among it.
    """
    if _is_boolean(value):
        return None
    try:
        return operator.index(value)
    except (TypeError, ValueError):
        return None


def real_number(value: Any) -> float | None:
    """Any real number, also in an array or tensor without dimensions, as a float; None for everything else."""
    is_scalar = isinstance(value, Real) or (hasattr(value, "dtype") and getattr(value, "ndim", None) == 0)
    if not is_scalar or _is_boolean(value):
        return None
    try:
        return float(value)
    except (TypeError, ValueError):
        return None


def count_of(name: str, value: Any) -> int:
    """A whole number of at least 1.

    Raises:
        ValueError: It is none.
    """
    number = whole_number(value)
    if number is None or number < 1:
        raise MaAgiqaError(f"Expected {name} as a whole number of at least 1, got {value!r}.")
    return number


def plain(value: Any) -> Any:
    """A number of NumPy's or torch's as one of Python's, which JSON can hold; everything else as it is."""
    is_scalar = hasattr(value, "dtype") and getattr(value, "ndim", None) == 0
    return value.item() if is_scalar and hasattr(value, "item") else value


def checked_quantiles(quantiles: Iterable[float]) -> tuple[float, ...]:
    """Scores at evenly spaced shares of some pictures, as floats; none at all stands for no percentiles.

    Raises:
        ValueError: A single one, or numbers that are not ascending and finite.
    """
    scores = tuple(float(score) for score in quantiles)
    if len(scores) == 1 or not all(map(math.isfinite, scores)) or list(scores) != sorted(scores):
        raise MaAgiqaError(f"Expected two or more ascending finite quantiles, or none, got {scores}.")
    return scores


def _is_boolean(value: Any) -> bool:
    return isinstance(value, bool) or "bool" in str(getattr(value, "dtype", ""))
