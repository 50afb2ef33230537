"""Candidates that come one by one: each is stopped as soon as it cannot be among the best, whatever comes later."""

from collections.abc import Hashable, Mapping, Sequence
from typing import Any

from ...errors import MaAgiqaError
from ..pipelines.evaluations import DENOISERS
from ..pipelines.families import family_of
from ..pipelines.family import Family
from ..pipelines.refused import REFUSED
from ..pipelines.schedulers import UnsupportedPipelineError
from ..preview.decoding import Preview
from .batch_filter import RowFilter
from .row_pruner import Stage
from .rule import PruningStep, is_out, kept_by_stage
from .schedule import PruneSchedule


class SequentialScores:
    """The scores of candidates that come one by one.

    Attributes:
        candidates: Scores by candidate and stage; one that was stopped has fewer.
        steps: Index of the step at which each stage was reached.
    """

    def __init__(self, schedule: PruneSchedule, min_score: float | None = None) -> None:
        self.candidates: list[list[float]] = []
        self.steps: list[int] = []
        self._schedule, self._min_score = schedule, min_score
        self._groups: list[Hashable] = []

    def begin(self, group: Hashable = None) -> None:
        """The next candidate; it competes with those of the same group."""
        self.candidates.append([])
        self._groups.append(group)

    def add(self, stage: Stage, score: float) -> bool:
        """The last candidate's score at a stage.

        Returns:
            Whether it cannot be among the best any more.
        """
        own = self.candidates[-1]
        own += [score] * (stage.number + 1 - len(own))  # stages that fell together
        self.steps += [stage.step] * (stage.number + 1 - len(self.steps))
        rivals = [
            scores
            for scores, group in zip(self.candidates[:-1], self._groups[:-1], strict=True)
            if group == self._groups[-1]
        ]
        schedule = self._schedule
        keep, margin = schedule.counts[stage.number], schedule.margin(stage.number)
        return is_out(own, rivals, keep, self._min_score, margin, schedule.least)

    def by_stage(self) -> list[tuple[dict[int, float], list[int]]]:
        """Scores and survivors of each stage, as if all candidates had been one batch."""
        return kept_by_stage(
            self.candidates,
            self._schedule.counts,
            groups=self._groups,
            min_score=self._min_score,
            margins=self._schedule.margins or None,
            least=self._schedule.least,
        )


class SequentialFilter(RowFilter):
    """Every pipeline call is one candidate; one that is out is interrupted."""

    def __init__(self, *args: Any) -> None:
        super().__init__(*args)
        self._scores = SequentialScores(self.schedule, self.min_score)

    @property
    def tensor_inputs(self) -> list[str]:
        return ["latents"]

    def family(self, preview: Preview) -> Family:
        """Also of a pipeline in which rows cannot be dropped: there is only one."""
        try:
            return family_of(self.pipe)
        except UnsupportedPipelineError:
            refused = REFUSED.get(type(self.pipe).__name__)
            if not hasattr(type(self.pipe), "interrupt") or (refused is not None and not refused.sequential):
                raise
            for name in ("scheduler", "_callback_tensor_inputs"):
                if not hasattr(self.pipe, name):
                    raise
            return unknown_family(self.pipe, preview if self.schedule.stages else None)

    def check_call(self, prompts: int) -> None:
        if prompts * self.rows_per_prompt != 1:
            raise MaAgiqaError(
                f"Expected one row per call with strategy='sequential', got {prompts * self.rows_per_prompt}. Call the "
                "pipeline once for each candidate, with a generator of its own."
            )
        self._scores.begin(self.texts[0] if self.texts else None)

    def decide(self, stage: Stage, scores: Mapping[int, float]) -> list[int]:
        (score,) = scores.values()
        if self._scores.add(stage, score):
            self.pipe._interrupt = True
        return list(stage.rows)

    @property
    def history(self) -> Sequence[PruningStep]:  # type: ignore[override]
        return [
            PruningStep.of(step, fraction, scores, kept)
            for step, fraction, (scores, kept) in zip(
                self._scores.steps, self.schedule.fractions, self._scores.by_stage(), strict=False
            )
        ]

    def survivors(self, rows: tuple[int, ...]) -> tuple[int, ...]:
        """The calls whose pictures are kept."""
        stages = self._scores.by_stage()
        return tuple(stages[-1][1] if stages else range(len(self._scores.candidates)))


def unknown_family(pipe: Any, preview: Any) -> Family:
    """For a pipeline that is not known, in which nothing is cut.

    Raises:
        UnsupportedPipelineError: A preview that needs to know how the latents lie.
    """
    if preview is not None and not callable(preview):
        raise UnsupportedPipelineError(
            f"Expected a callable as preview for {type(pipe).__name__}, whose latents are not known, got {preview!r}. "
            "Give a function (latents) -> (B, 3, H, W) in [0, 1]."
        ) from None
    return Family("other", (), denoisers=DENOISERS, batch_arguments=frozenset())
