"""One group of candidates of one prompt: made in batches that fit, pruned together, the finished ones given back."""

from __future__ import annotations

import gc
import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import PIL.Image
import torch

from ...compute.batching import is_out_of_memory
from ...scorers.scorer import Scorer
from ..pipelines.evaluations import EvaluationCounter
from ..pipelines.families import family_of
from ..preview.decoding import Previewer
from ..pruning.finite_scores import finite_scores
from ..pruning.look_cost import LookCost, LookTimer
from ..pruning.row_pruner import RowPruner, Stage, watched_calls
from ..pruning.rule import PruningStep, judge_of_previews, kept_rows
from ..pruning.schedule import PruneSchedule
from .finished import as_pil, frames_of, pictures_of, repeated
from .lockstep import Ended, Pause, light_copy, run_in_lockstep
from .processes import Processes

logger = logging.getLogger(__name__)

FIRST_BATCH = {"cuda": 16}
FIRST_BATCH_ELSEWHERE = 4  # where memory is swapped, nothing says that it ran out


@dataclass(frozen=True)
class Request:
    """What is to be made.

    Attributes:
        pipe: The diffusers pipeline.
        scorer: What chooses.
        prompt: What the scorer is told; None if there is no text.
        arguments: Of the pipeline call, all but those that differ from batch to batch.
        rows_argument: Its argument for the number of pictures per prompt; None makes one picture a call.
        per_row: Those of the arguments that are pictures to begin with. Given once, most pipelines would encode it with
            the first row's generator, and the other rows would not be the pictures of their seeds.
        schedule: When candidates are dropped, and how many survive.
        preview: As in `QualityFilterCallback`.
        seed: Of candidate 0.
        early_scorer: Judges previews in its place, see `judge_of_previews`.
        frames: Of a finished video, those that are scored.
    """

    pipe: Any
    scorer: Scorer
    prompt: str | None
    arguments: Mapping[str, Any]
    rows_argument: str | None
    per_row: tuple[str, ...]
    schedule: PruneSchedule
    preview: Any
    seed: int
    early_scorer: Any = None
    frames: tuple[int, ...] = (0,)

    def call(self, pipe: Any, candidates: Sequence[int], **more: Any) -> list[Any]:
        """The pictures of these candidates, or of those of them that survive."""
        generators = [torch.Generator("cpu").manual_seed(self.seed + number) for number in candidates]
        rows = {} if self.rows_argument is None else {self.rows_argument: len(generators)}
        pictures = {name: repeated(self.arguments[name], len(generators)) for name in self.per_row}
        return pictures_of(pipe(**{**self.arguments, **pictures}, **rows, **more, generator=generators))

    def preview_scorer(self, fraction: float) -> Scorer:
        """Who scores the previews at a fraction of the steps."""
        return judge_of_previews(self.scorer, self.early_scorer, fraction)

    def scores(self, scorer: Scorer, pictures: Mapping[int, PIL.Image.Image], what: str) -> dict[int, float]:
        """The score of every candidate.

        Raises:
            ValueError: Another number of scores, or one that is not finite.
        """
        if not pictures:
            return {}
        names = [f"{what} of seed {self.seed + number}" for number in pictures]
        return dict(zip(pictures, finite_scores(scorer, list(pictures.values()), self.prompt, names), strict=True))


@dataclass
class BatchLimit:
    """How many candidates at a time; `given` by the user, or found out by halving where memory runs out."""

    size: int
    given: bool

    @classmethod
    def of(cls, pipe: Any, batch_size: int | None) -> BatchLimit:
        if batch_size is not None:
            return cls(batch_size, given=True)
        device = torch.device(getattr(pipe, "_execution_device", "cpu"))
        return cls(FIRST_BATCH.get(device.type, FIRST_BATCH_ELSEWHERE), given=False)


@dataclass(eq=False)
class Made:
    """What came of a group of candidates.

    Attributes:
        pictures: Those that this process finished, by candidate.
        history: How the others were dropped.
        evaluations: Rows times denoiser calls, in all processes.
        look_cost: What looking at previews took in this process.
    """

    pictures: dict[int, Any] = field(default_factory=dict)
    history: list[PruningStep] = field(default_factory=list)
    evaluations: int = 0
    look_cost: LookCost = field(default_factory=LookCost)


def generate_in_batches(request: Request, candidates: Sequence[int], limit: BatchLimit, processes: Processes) -> Made:
    """Makes the candidates in batches that run in lockstep; those of other processes take part in the pruning.

    Raises:
        RuntimeError: Out of memory with one candidate at a time, or with the batch size that was asked for.
    """
    mine = processes.share(candidates)
    while True:
        group = _Group(request, processes)
        batches = [mine[start : start + limit.size] for start in range(0, len(mine), limit.size)]
        try:
            return group.generate(batches)
        except (MemoryError, RuntimeError) as error:
            largest = max(map(len, batches), default=0)
            if limit.given or largest < 2 or not group.may_restart or not is_out_of_memory(error):
                raise
            limit.size = largest // 2
        logger.warning("memory ran out: restarting with %d candidates at a time", limit.size)
        gc.collect()  # out here: the error, and with it the tensors of its frames, is gone
        if torch.cuda.is_available():
            torch.cuda.empty_cache()


@dataclass(frozen=True)
class _Report:
    """What a batch has to say where it pauses: its pictures by candidate, as they will come out by this preview."""

    stage: Stage
    previews: dict[int, PIL.Image.Image]


class _Group:
    def __init__(self, request: Request, processes: Processes) -> None:
        self._request, self._processes = request, processes
        self._made = Made()
        self._timer, self._counter = LookTimer(), EvaluationCounter(request.pipe)
        self.may_restart = True

    def generate(self, batches: Sequence[Sequence[int]]) -> Made:
        is_pruned = bool(self._request.schedule.stages)
        with self._counter as counter:
            finished = self._pruned(batches) if is_pruned else map(self._unpruned, batches)
            self._made.pictures = {number: picture for batch in finished for number, picture in batch.items()}
        self.may_restart = False
        if is_pruned:
            while self._prune(None) is not None:
                pass  # other processes still have candidates to drop
            mine = [number for batch in batches for number in batch]
            self._made.look_cost = self._timer.cost(self._made.history, mine, counter.evaluations)
        self._made.evaluations = sum(self._processes.exchange(counter.evaluations))
        return self._made

    def _unpruned(self, candidates: Sequence[int]) -> dict[int, Any]:
        return dict(zip(candidates, self._request.call(self._request.pipe, candidates), strict=True))

    def _pruned(self, batches: Sequence[Sequence[int]]) -> list[dict[int, Any]]:
        pipe = self._request.pipe
        try:
            run = self._run_on_pipe if len(batches) == 1 else self._run_on_copy
            return [batch for batch in run_in_lockstep(batches, run, self._decide) if batch is not None]
        finally:
            if getattr(pipe, "_all_hooks", None):
                pipe.maybe_free_model_hooks()  # copies have put hooks of their own on its models; an end skips it

    def _run_on_pipe(self, candidates: Sequence[int], pause: Pause) -> dict[int, Any]:
        return self._run(self._request.pipe, candidates, pause)

    def _run_on_copy(self, candidates: Sequence[int], pause: Pause) -> dict[int, Any]:
        first, last = (self._request.seed + number for number in (candidates[0], candidates[-1]))
        progress = {"desc": f"seeds {first}-{last}" if first < last else f"seed {first}"}
        return self._run(light_copy(self._request.pipe, progress=progress), candidates, pause)

    def _run(self, pipe: Any, candidates: Sequence[int], pause: Pause) -> dict[int, Any]:
        request = self._request
        family = family_of(pipe)
        previewer = Previewer(pipe, family, request.preview)

        def on_stage(stage: Stage) -> list[int]:
            """Survivors are decided on among all batches."""
            with self._timer.looking(len(stage.rows), self._counter.evaluations):
                pictures = [as_pil(picture) for picture in pruner.previews(previewer)]
            numbers = [candidates[row] for row in stage.rows]
            kept = pause(_Report(stage, dict(zip(numbers, pictures, strict=True))))
            return [row for row in stage.rows if candidates[row] in kept]

        def on_step_end(pipe: Any, step: int, timestep: Any, callback_kwargs: dict[str, Any]) -> dict[str, Any]:
            pause(None)
            return pruner.end_step(step, callback_kwargs)

        pruner = RowPruner(pipe, family, request.schedule.fractions, on_stage)
        with pruner, watched_calls(pipe, pruner.begin):
            pictures = request.call(
                pipe,
                candidates,
                callback_on_step_end=on_step_end,
                callback_on_step_end_tensor_inputs=pipe._callback_tensor_inputs,
            )
        return dict(zip((candidates[row] for row in pruner.rows), pictures, strict=True))

    def _decide(self, reports: Sequence[_Report]) -> list[Any]:
        """For each batch the candidates that survive, or its end."""
        kept = self._prune(reports)
        return [kept if kept and kept & report.previews.keys() else Ended() for report in reports]

    def _prune(self, reports: Sequence[_Report] | None) -> set[int] | None:
        """Drops candidates of all processes; None once no process has any more to drop."""
        self.may_restart = False
        stages = self._processes.exchange((reports[0].stage.number, reports[0].stage.step) if reports else None)
        stage = next((stage for stage in stages if stage is not None), None)
        if stage is None:
            return None
        number, step = stage
        fraction, keep = self._request.schedule.stages[number]
        previews = {number: picture for report in reports or () for number, picture in report.previews.items()}
        scorer, what = self._request.preview_scorer(fraction), f"the preview at {fraction:g}"
        with self._timer.looking(0, self._counter.evaluations):
            scores = group_scores(self._request, scorer, previews, what, self._processes)
        schedule = self._request.schedule
        kept = set(kept_rows(scores, keep, margin=schedule.margin(number), least=schedule.least))
        self._made.history.append(PruningStep.of(step, fraction, scores, kept))
        return kept


def group_scores(
    request: Request, scorer: Scorer, mine: Mapping[int, PIL.Image.Image], what: str, processes: Processes
) -> dict[int, float]:
    """The scores of the candidates of all processes, by candidate in ascending order."""
    if not scorer.info.relative:
        parts = processes.exchange(request.scores(scorer, mine, what))
    else:  # it must see all of them at once
        pictures = {n: picture for part in processes.exchange(mine) for n, picture in part.items()}
        pictures = dict(sorted(pictures.items()))
        parts = processes.exchange(request.scores(scorer, pictures, what) if processes.index == 0 else {})[:1]
    return dict(sorted((number, score) for part in parts for number, score in part.items()))


def finished_scores(
    request: Request, scorer: Scorer, mine: Mapping[int, Any], processes: Processes
) -> dict[int, float]:
    """The same of finished candidates; of a video the mean score of `request.frames`."""
    frames = {number: frames_of(picture, request.frames) for number, picture in mine.items()}
    places = max(processes.exchange(max(map(len, frames.values()), default=0)))
    by_frame = []
    for place in range(places):
        what = "the finished picture" if places == 1 else f"frame {request.frames[place]} of the video"
        pictures = {number: row[place] for number, row in frames.items()}
        by_frame.append(group_scores(request, scorer, pictures, what, processes))
    return {number: sum(scores[number] for scores in by_frame) / places for number in by_frame[0]} if places else {}


def best(scores: Mapping[int, float], keep: int) -> set[int]:
    """The best candidates; of equal ones those with the smaller number."""
    return set(sorted(scores, key=lambda number: (-scores[number], number))[:keep])
