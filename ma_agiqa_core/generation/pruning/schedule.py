"""`prune_at`: after which fractions of the steps how many candidates survive; read and checked here for all."""

import logging
import re
import sys
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

from ...arguments.numbers import real_number, whole_number
from ...errors import MaAgiqaError

EVERYONE = sys.maxsize  # of a stage that limits no count

logger = logging.getLogger(__name__)

_STAGE = re.compile(r"(\d*\.?\d+)\s*:\s*(\d+)")


class PruneAt(dict[float, int]):
    """A `prune_at` that may also drop by margins.

    Attributes:
        margin: Fraction to how far a preview may trail the best of its prompt, in units of the score.
    """

    def __init__(self, counts: Mapping[float, int] | None = None, margin: Mapping[float, float] | None = None) -> None:
        super().__init__(counts or {})
        self.margin: dict[float, float] = dict(margin or {})


@dataclass(frozen=True)
class PruneSchedule:
    """When candidates are dropped, and how many stay.

    Attributes:
        stages: Fractions of the steps, ascending and between 0 and 1, with keep counts that do not rise; EVERYONE where
            no count is limited.
        margins: By stage, how far a preview may trail the best of its prompt, in units of the score; None: any way.
            Empty: no margins at all.
        least: How many of a prompt stay whatever the margins say.

    Example:
        >>> schedule = PruneSchedule.parse("0.7:2, 0.4:4")
        >>> schedule.stages
        ((0.4, 4), (0.7, 2))
        >>> schedule == PruneSchedule.of({0.4: 4, 0.7: 2})
        True
        >>> schedule.check(n=8, keep=2)  # raises what these candidates cannot follow
        >>> schedule.fractions, schedule.counts
        ((0.4, 0.7), (4, 2))
    """

    stages: tuple[tuple[float, int], ...] = ()
    margins: tuple[float | None, ...] = ()
    least: int = 1

    @property
    def fractions(self) -> tuple[float, ...]:
        return tuple(fraction for fraction, _ in self.stages)

    @property
    def counts(self) -> tuple[int, ...]:
        """How many candidates survive each stage."""
        return tuple(count for _, count in self.stages)

    def margin(self, stage: int) -> float | None:
        """Of the stage with this number."""
        return self.margins[stage] if self.margins else None

    @classmethod
    def of(cls, given: Any) -> "PruneSchedule":
        """From what `best_of_n` and the callback take: None, a plan, or a mapping such as {0.4: 4, 0.7: 2}.

        A plan is what has `prune_at` and `margin`, both by fraction: a `PruningPlan`, or calibrate's recommendation.
        The reason of one that prunes nothing is logged.

        Raises:
            ValueError: Something else, a fraction or count out of range, or counts that rise.
        """
        if given is None:
            return cls()
        if reason := getattr(given, "reason", ""):
            logger.warning("nothing is pruned: %s", reason)
        margin = getattr(given, "margin", None)
        if isinstance(margin, Mapping):
            return cls._with_margins(cls.of({**getattr(given, "prune_at", given)}), margin)
        if not isinstance(given, Mapping) or any(real_number(key) is None for key in given):
            raise MaAgiqaError(
                f"Expected prune_at as a dict of fractions of the steps with keep counts, got {given!r}. Write "
                "{0.4: 4, 0.7: 2}; of calibrate's report it is `report.recommended.prune_at`."
            )
        return cls(_checked(given.items(), f"in {given!r}"))

    @classmethod
    def _with_margins(cls, counted: "PruneSchedule", margin: Mapping[Any, Any]) -> "PruneSchedule":
        margins: dict[float, float] = {}
        for given, width in margin.items():
            fraction, value = checked_fraction(given, " in margin"), real_number(width)
            if value is None or not value >= 0:
                raise MaAgiqaError(f"Expected margins of at least 0, got {width!r} at {fraction:g}.")
            margins[fraction] = value
        counts = dict(counted.stages)
        fractions = sorted({*counts, *margins})
        return cls(
            tuple((fraction, counts.get(fraction, EVERYONE)) for fraction in fractions),
            tuple(margins.get(fraction) for fraction in fractions) if margins else (),
        )

    @classmethod
    def parse(cls, text: str) -> "PruneSchedule":
        """From a text such as "0.4:4, 0.7:2", in any order; without any stage it prunes nothing.

        Raises:
            ValueError: The text is malformed, a fraction or count is out of range, or counts rise.
        """
        stages = []
        for part in filter(None, (part.strip() for part in re.split(r"[,;\n]", text))):
            match = _STAGE.fullmatch(part)
            if match is None:
                raise MaAgiqaError(
                    f"Expected prune_at in the form 0.4:4, got {part!r} in {text!r}. Write fractions of the steps with "
                    'how many survive, such as "0.4:4, 0.7:2", or nothing to finish all.'
                )
            stages.append((int(match[1]) if match[1].isdigit() else float(match[1]), int(match[2])))
        return cls(_checked(stages, f"in {text!r}"))

    def check(self, n: int, keep: int) -> None:
        """Refuses a schedule that these candidates cannot follow.

        Args:
            n: How many there are.
            keep: How many are wanted in the end.

        Raises:
            ValueError: More are to survive than there are, or fewer are left than are wanted.
        """
        limited = [stage for stage in self.stages if stage[1] != EVERYONE]
        if not limited:
            return
        (fraction, first), (_, last) = limited[0], limited[-1]
        if first > n:
            raise MaAgiqaError(_more_than_there_are(n, fraction, first))
        if last < keep:
            raise MaAgiqaError(
                f"Expected prune_at to leave at least the {keep} candidates that are to be kept, got {last}. Raise the "
                "last count of prune_at, or lower keep."
            )


def checked_fraction(given: Any, name: str = "", where: str = "") -> float:
    """A fraction of the steps as Python's own number.

    Args:
        name: Where they belong, for the error.
        where: What was given as a whole.

    Raises:
        ValueError: It is no number between 0 and 1.
    """
    fraction = real_number(given)
    if fraction is None or not 0 < fraction < 1:  # NaN is not either
        got = repr(given) if fraction is None else given
        raise MaAgiqaError(
            f"Expected fractions between 0 and 1{name}, got {got}{where}. 0.4 is after 40 % of the steps."
        )
    return fraction


def _checked(stages: Iterable[tuple[Any, Any]], where: str) -> tuple[tuple[float, int], ...]:
    """Stages with Python's own numbers, ascending."""
    counts: dict[float, int] = {}
    for given, count in stages:
        fraction, keep = checked_fraction(given, " in prune_at", f" {where}"), whole_number(count)
        if keep is None or keep < 1:
            raise MaAgiqaError(f"Expected whole numbers of at least 1 to keep, got {count!r} at {fraction:g} {where}.")
        if fraction in counts:
            raise MaAgiqaError(f"Expected each fraction once in prune_at, got {fraction:g} twice {where}.")
        counts[fraction] = keep
    ascending = sorted(counts.items())
    for (_, before), (fraction, keep) in pairwise(ascending):
        if keep > before:
            raise MaAgiqaError(_more_than_there_are(before, fraction, keep))
    return tuple(ascending)


def _more_than_there_are(before: int, fraction: float, keep: int) -> str:
    return (
        f"Expected at most {before} candidates at {fraction:g} in prune_at, got {keep}: there are no more by then. Let "
        "the counts fall from one stop to the next."
    )
