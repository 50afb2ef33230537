"""A scale for scorers that have none: which share of the user's own pictures scores lower.

CLIP-type judges and rewards have no range of their own. `ma-agiqa percentiles` scores a folder once and keeps the
quantiles with the judge's name and revision; `load_scorer(..., percentiles=F)` then gives percentiles as if the scorer
had been calibrated on these pictures. A file of another judge, revision or target is refused.
"""

from __future__ import annotations

import json
import math
import os
from collections.abc import Iterable, Iterator, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, replace
from hashlib import sha256
from pathlib import Path
from typing import Any

from ..arguments.numbers import checked_quantiles
from ..arguments.options import expanded
from ..atomic_write import atomic_write
from ..errors import MaAgiqaError
from ..pictures.inputs import Picture
from .identity import scorer_settings
from .percentiles import quantiles_of
from .picture_scorer import Outcome, PictureScorer
from .scorer import Scorer, ScorerInfo

FORMAT = 1
ENOUGH = 100  # pictures: with fewer, percentiles are coarse


@dataclass(frozen=True)
class Percentiles:
    """What a file of percentiles holds.

    Attributes:
        scorer: Name of the scorer that they are of.
        revision: Its revision.
        target: What it scored; None if that is not known.
        pictures: How many were scored.
        quantiles: Their scores at evenly spaced shares, 0 % to 100 %.
    """

    scorer: str
    revision: str
    target: str | None
    pictures: int
    quantiles: tuple[float, ...]

    def differs_from(self, info: ScorerInfo) -> str | None:
        """What is another than in a scorer's `info`, in words; None if they are the same."""
        parts: dict[str, tuple[str | None, str | None]] = {
            "scorer": (self.scorer, info.name),
            "revision": (self.revision, info.revision),
            "target": (self.target, info.target),
        }
        return next((f"{name} {ours!r}" for name, (ours, its) in parts.items() if ours != its), None)


def write_percentiles(scorer: Scorer, scores: Iterable[float], out: str | os.PathLike[str]) -> Percentiles:
    """Keeps what a scorer says of the user's pictures as a scale for it.

    Args:
        scorer: Any with a scale of its own.
        scores: Of the pictures; those that are not finite are left out.
        out: The JSON file to write.

    Raises:
        ValueError: Scores of fewer than two pictures, or a relative scorer.

    Example:
        >>> import tempfile
        >>> from ma_agiqa_core import CallableScorer
        >>> brightness = CallableScorer(lambda images, prompts: images.mean(dim=(1, 2, 3)), name="brightness")
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     write_percentiles(brightness, [0.2, 0.4, 0.9], f"{folder}/mine.json").pictures
        ...     scaled = ScaledScorer(brightness, read_percentiles(f"{folder}/mine.json"))
        >>> scaled.info.percentile(0.4)
        3
        50.0
    """
    scorer.info.require_scale("for percentiles")
    finite = [float(score) for score in scores if math.isfinite(score)]
    if len(finite) < 2:
        raise MaAgiqaError(f"Expected scores of at least 2 pictures, got {len(finite)}. Give more pictures.")
    info = scorer.info
    found = Percentiles(info.name, info.revision, info.target, len(finite), quantiles_of(finite))
    content = {"format": FORMAT, "kind": "percentiles", **vars(found)}
    with atomic_write(Path(out), is_shared=True) as temporary:
        temporary.write_text(json.dumps(content, indent=1), encoding="utf-8")
    return found


def read_percentiles(path: str | os.PathLike[str]) -> Percentiles:
    """Reads what `write_percentiles` wrote.

    Raises:
        OSError: The file cannot be read.
        ValueError: It holds something else.
    """
    file = expanded(path)
    try:
        content = json.loads(file.read_text(encoding="utf-8"))
        if content["kind"] != "percentiles" or content["format"] != FORMAT:
            raise MaAgiqaError(f"kind {content['kind']!r}, format {content['format']!r}")
        target = content["target"]
        return Percentiles(
            str(content["scorer"]),
            str(content["revision"]),
            None if target is None else str(target),
            int(content["pictures"]),
            checked_quantiles(content["quantiles"]),
        )
    except (ValueError, TypeError, KeyError, RecursionError) as error:
        raise MaAgiqaError(
            f"Expected percentiles in {str(path)!r}, got {error!r}. Write them with `ma-agiqa percentiles`."
        ) from error


class ScaledScorer(PictureScorer):
    """A scorer with percentiles among the user's own pictures; everything else is the scorer's.

    Args:
        scorer: Any.
        percentiles: Of the same scorer.

    Raises:
        ValueError: Percentiles of another scorer, revision or target.
    """

    def __init__(self, scorer: Scorer, percentiles: Percentiles) -> None:
        if other := percentiles.differs_from(scorer.info):
            info = scorer.info
            raise MaAgiqaError(
                f"Expected percentiles of {info.name}@{info.revision}"
                f"{f' (target {info.target})' if info.target else ''}, got those of {other}. Make them anew with "
                "`ma-agiqa percentiles`."
            )
        self._scorer, self._percentiles = scorer, percentiles
        self.is_callers_own = not isinstance(scorer, PictureScorer) or scorer.is_callers_own

    @property
    def info(self) -> ScorerInfo:
        return replace(self._scorer.info, quantiles=self._percentiles.quantiles)

    @property
    def settings(self) -> tuple[str, ...]:
        """For `scorer_identity`: its records say other percentiles."""
        digits = sha256(repr(self._percentiles.quantiles).encode()).hexdigest()[:8]
        return (*scorer_settings(self._scorer), f"percentiles={digits}")

    def set_up(self) -> AbstractContextManager[None]:
        """As the scorer's."""
        return self._scorer.set_up() if isinstance(self._scorer, PictureScorer) else super().set_up()

    def outcomes(
        self, pictures: Iterable[Picture], prompts: Sequence[str] | None, batch_size: int | None
    ) -> Iterator[Outcome]:
        """As the scorer's; see `PictureScorer.outcomes`."""
        if isinstance(self._scorer, PictureScorer):
            yield from self._scorer.outcomes(pictures, prompts, batch_size)
            return
        from .outcomes import outcomes_of

        yield from outcomes_of(self._scorer, list(pictures), prompts, batch_size)

    def __getattr__(self, name: str) -> Any:
        """What only this kind of scorer has, such as its `networks`."""
        if name.startswith("__") or name == "_scorer":  # asked for while it is copied
            raise AttributeError(name)
        return getattr(self._scorer, name)


def with_percentiles(scorers: Sequence[Scorer], files: Sequence[str | os.PathLike[str]]) -> list[Scorer]:
    """Gives each of several scorers the percentiles that are its.

    Raises:
        ValueError: A file of none of them.
    """
    found = list(scorers)
    for file in files:
        percentiles = read_percentiles(file)
        places = [place for place, scorer in enumerate(found) if percentiles.differs_from(scorer.info) is None]
        if not places:
            if len(found) == 1:
                ScaledScorer(found[0], percentiles)  # says what differs
            raise MaAgiqaError(
                f"Expected percentiles of one of {', '.join(scorer.info.name for scorer in found)}, got those of "
                f"{percentiles.scorer}@{percentiles.revision} in {str(file)!r}."
            )
        for place in places:
            found[place] = ScaledScorer(found[place], percentiles)
    return found
