"""The judges of one run: loaded together, given each decoded picture once."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from itertools import compress
from pathlib import Path
from typing import Any

from ..errors import MaAgiqaError
from ..pictures.inputs import Picture
from ..pictures.prompts import NO_PROMPT
from ..scorers.families import named_family
from ..scorers.identity import scorer_identity
from ..scorers.load import load_scorer
from ..scorers.outcomes import tolerant_outcomes
from ..scorers.picture_scorer import Outcome
from ..scorers.scorer import Scorer

_FACTS = ("name", "revision", "low", "high", "trained_on", "description", "needs_prompt", "target")


@dataclass(frozen=True)
class JudgeSettings:
    """Which judges, and how they are loaded: what a worker is told.

    Attributes:
        models: For `load_scorer`, or scorers as they are.
        options: More arguments of `load_scorer`.
        batch_size: Pictures at a time at most; None leaves it to the scorers.
        percentiles: Files of `ma-agiqa percentiles`, for any of them.
        expected: The identities that earlier parts were made with; None if there are none.
    """

    models: tuple[str | Scorer, ...]
    options: Mapping[str, Any] = field(default_factory=dict)
    batch_size: int | None = None
    percentiles: tuple[Path, ...] = ()
    expected: tuple[str, ...] | None = None


@dataclass(frozen=True)
class Judge:
    """One judge: its column, and what it is.

    Attributes:
        column: Of its scores.
        scorer: What scores.
        identity: See `scorer_identity`.
    """

    column: str
    scorer: Scorer
    identity: str


class Judges:
    """All judges of a run.

    Raises:
        ValueError: A scorer that compares the pictures of one call; other judges than the parts were made with.
    """

    def __init__(self, settings: JudgeSettings) -> None:
        self.batch_size = settings.batch_size
        self.judges: list[Judge] = []
        for scorer in _loaded(settings):
            scorer.info.require_scale("to score pictures of a data set", "Rank the pictures of a folder instead.")
            column = _column(scorer.info.name, [judge.column for judge in self.judges])
            self.judges.append(Judge(column, scorer, scorer_identity(scorer)))
        self._check(settings.expected)

    def _check(self, expected: Sequence[str] | None) -> None:
        identities = tuple(judge.identity for judge in self.judges)
        if expected is not None and tuple(expected) != identities:
            raise MaAgiqaError(
                f"Expected the judges that the parts were made with, {', '.join(expected)}, got "
                f"{', '.join(identities)}. Name another folder, or the same judges with the same options."
            )

    @property
    def needs_prompts(self) -> bool:
        """Whether any of them does."""
        return any(judge.scorer.info.needs_prompt for judge in self.judges)

    def facts(self) -> str:
        """What the parts say of their judges, as JSON."""
        return json.dumps(
            [
                {
                    "column": judge.column,
                    "identity": judge.identity,
                    **{name: _plain(getattr(judge.scorer.info, name)) for name in _FACTS},
                }
                for judge in self.judges
            ]
        )

    def outcomes(self, pictures: Sequence[Picture], prompts: Sequence[str | None]) -> list[list[Outcome]]:
        """For each judge, for each picture, its score or the reason why there is none."""
        return [self._of_one(judge.scorer, pictures, prompts) for judge in self.judges]

    def _of_one(self, scorer: Scorer, pictures: Sequence[Picture], prompts: Sequence[str | None]) -> list[Outcome]:
        needs_prompt = scorer.info.needs_prompt
        errors = [
            picture.error or (NO_PROMPT if needs_prompt and not (prompt or "").strip() else None)
            for picture, prompt in zip(pictures, prompts, strict=True)
        ]
        is_ready = [error is None for error in errors]
        texts = [(prompt or "").strip() for prompt in compress(prompts, is_ready)] if needs_prompt else None
        made = iter(tolerant_outcomes(scorer, list(compress(pictures, is_ready)), texts, self.batch_size))
        return [next(made) if error is None else error for error in errors]


def _loaded(settings: JudgeSettings) -> list[Scorer]:
    """All of them; of several each gets those options that its family takes."""
    from ..scorers.scaled_scorer import with_percentiles

    scorers: list[Scorer] = []
    for model in settings.models:
        if not isinstance(model, str):
            scorers.append(model)
            continue
        family = named_family(model) if len(settings.models) > 1 else None
        refused = () if family is None else family.refuses
        taken = {name: value for name, value in settings.options.items() if name not in refused}
        scorers.append(load_scorer(model, **taken))
    return list(with_percentiles(scorers, settings.percentiles))


def as_models(model: str | Scorer | Sequence[str | Scorer]) -> tuple[str | Scorer, ...]:
    """One or several judges as a tuple.

    Raises:
        ValueError: There is none.
    """
    models = (model,) if isinstance(model, str | Scorer) else tuple(model)
    if not models:
        raise MaAgiqaError("Expected at least one judge, got none. Name a model, such as 'lite'.")
    return models


def _column(name: str, taken: Sequence[str]) -> str:
    """A name for a column, made of a scorer's name, that no other column has."""
    plain = re.sub(r"[^\w.-]+", "_", name).strip("_") or "score"
    names = {*taken, "key", "error", "width", "height", "digest", "prompt"}
    number, column = 1, plain
    while column in names:
        number += 1
        column = f"{plain}_{number}"
    return column


def _plain(value: object) -> object:
    """JSON has no infinity."""
    return None if isinstance(value, float) and value in (float("inf"), float("-inf")) else value
