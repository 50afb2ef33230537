"""The filter's decisions: previews are scored, and of each prompt the best rows of the call survive."""

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from typing import Any

from torch import Tensor

from ...errors import MaAgiqaError
from ...scorers.scorer import Scorer
from ..pipelines.families import check_exact, family_of
from ..pipelines.family import Family
from ..preview.decoding import Preview
from .checks import prompts_of, row_texts
from .finite_scores import finite_scores
from .row_pruner import Stage
from .rule import PruningStep, judge_of_previews, kept_rows
from .schedule import EVERYONE, PruneSchedule


class RowFilter(ABC):
    """Scores the previews of pipeline calls, and says which rows survive.

    Args:
        pipe: The pipeline.
        scorer: Scores the previews.
        schedule: When, and how many survive.
        prompts: For the scorer; None takes those of the call.
        min_score: Rows below it go too, but the best of each prompt stays.

    Attributes:
        history: What was decided at each stage.
        early_scorer: Judges the previews in place of the scorer, see `judge_of_previews`; None: the scorer does.
    """

    history: Sequence[PruningStep]

    def __init__(
        self,
        pipe: Any,
        scorer: Scorer,
        schedule: PruneSchedule,
        prompts: str | Sequence[str] | None,
        min_score: float | None,
    ) -> None:
        self.pipe, self.scorer, self.schedule = pipe, scorer, schedule
        self.min_score = min_score
        self.texts: list[str] | None = None  # per row
        self.rows_per_prompt = 1
        self._prompts = prompts
        self.early_scorer: Any = None

    @property
    def tensor_inputs(self) -> list[str]:
        """What the pipeline is to give to its callback."""
        return list(self.pipe._callback_tensor_inputs)

    @abstractmethod
    def family(self, preview: Preview) -> Family:
        """The pipeline's family; refuses a pipeline in which this filter would make other pictures."""

    @abstractmethod
    def check_call(self, prompts: int) -> None:
        """Refuses a call with this many prompts, and `rows_per_prompt` rows of each."""

    @abstractmethod
    def decide(self, stage: Stage, scores: Mapping[int, float]) -> list[int]:
        """The rows that survive; `scores` by row."""

    @abstractmethod
    def survivors(self, rows: tuple[int, ...]) -> tuple[int, ...]:
        """What is kept in the end; `rows`: those that the last call still has."""

    def begin(self, call: Mapping[str, Any]) -> None:
        """Before a pipeline call.

        Args:
            call: The pipeline's arguments by name.

        Raises:
            ValueError: Prompts that are missing or do not match, or a number of rows that cannot be filtered.
        """
        prompts, self.rows_per_prompt = prompts_of(call)
        self.texts = row_texts(self._prompts, prompts, self.rows_per_prompt)
        if self.texts is None and self.scorer.info.needs_prompt and self.schedule.stages:
            raise MaAgiqaError(
                f"Expected prompts for {self.scorer.info.name!r}, which needs them, got a call without text. Give "
                "them to the callback: prompts=..."
            )
        self.check_call(len(prompts))

    def survivors_of_stage(self, stage: Stage, previews: Tensor) -> list[int]:
        """The rows that survive a stage.

        Args:
            previews: (B, 3, H, W) RGB in [0, 1], one for each of `stage.rows`.

        Raises:
            ValueError: Another number of scores, or one that is not finite.
        """
        scorer = judge_of_previews(self.scorer, self.early_scorer, stage.fraction)
        groups = [range(len(stage.rows))] if not scorer.info.relative else self._by_prompt(stage.rows)
        scores: dict[int, float] = {}
        for places in groups:
            rows = [stage.rows[place] for place in places]
            prompts = None if self.texts is None else [self.texts[row] for row in rows]
            names = [f"the preview of row {row}" for row in rows]
            advice = "Fix the scorer; nothing has been dropped."
            found = finite_scores(scorer, previews[list(places)], prompts, names, advice)
            scores |= dict(zip(rows, found, strict=True))
        return self.decide(stage, {row: scores[row] for row in stage.rows})

    def _by_prompt(self, rows: Sequence[int]) -> list[Sequence[int]]:
        """Places within `rows`: a relative scorer compares the pictures of a call, here those of one prompt."""
        places: dict[int, list[int]] = {}
        for place, row in enumerate(rows):
            places.setdefault(row // self.rows_per_prompt, []).append(place)
        return list(places.values())


class BatchFilter(RowFilter):
    """All candidates are rows of one pipeline call."""

    def __init__(self, *args: Any) -> None:
        super().__init__(*args)
        self.history: list[PruningStep] = []
        self._has_begun = False

    def family(self, preview: Preview) -> Family:
        family = family_of(self.pipe)
        check_exact(self.pipe, family)
        return family

    def check_call(self, prompts: int) -> None:
        if self._has_begun:
            raise MaAgiqaError(
                "Expected one pipeline call inside the `with`, got a second one. Make a callback for each call."
            )
        if self.schedule.stages:
            limited = [stage for stage in self.schedule.stages if stage[1] != EVERYONE]
            fraction, keep = limited[0] if limited else (0.0, 0)
            if keep > self.rows_per_prompt:
                raise MaAgiqaError(
                    f"Expected to keep at most {self.rows_per_prompt}, the pictures per prompt of this call, got "
                    f"{keep} at {fraction:g} in prune_at. Make more pictures, or keep fewer."
                )
        self._has_begun = True

    def decide(self, stage: Stage, scores: Mapping[int, float]) -> list[int]:
        groups = {row: row // self.rows_per_prompt for row in scores}
        keep = self.schedule.counts[stage.number]
        margin, least = self.schedule.margin(stage.number), self.schedule.least
        kept = kept_rows(scores, keep, groups=groups, min_score=self.min_score, margin=margin, least=least)
        self.history.append(PruningStep.of(stage.step, stage.fraction, scores, kept))
        return kept

    def survivors(self, rows: tuple[int, ...]) -> tuple[int, ...]:
        return rows
