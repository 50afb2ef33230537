"""One candidate at a time, each stopped as soon as it cannot be among the best: for pipelines that cannot be pruned."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from ..pipelines.evaluations import EvaluationCounter
from ..pipelines.families import family_of
from ..pipelines.schedulers import UnsupportedPipelineError
from ..preview.decoding import Previewer
from ..pruning.row_pruner import RowPruner, Stage, watched_calls
from ..pruning.rule import PruningStep, kept_by_stage
from ..pruning.sequential_filter import SequentialScores, unknown_family
from .batches import BatchLimit, Made, Request
from .finished import as_pil
from .lockstep import BatchEnded
from .processes import Processes


def generate_sequentially(request: Request, candidates: Sequence[int], limit: BatchLimit, processes: Processes) -> Made:
    """Makes the candidates one by one, with the outcome of pruning all of them together; it only costs more.

    A candidate is stopped where enough of this process's earlier ones are ahead of it for good.
    """
    mine = processes.share(candidates)
    made = Made()
    scores = SequentialScores(request.schedule)
    with EvaluationCounter(request.pipe) as counter:
        if not request.schedule.stages:
            for number in mine:
                (made.pictures[number],) = request.call(request.pipe, [number])
        else:
            generate = _Candidates(request, scores).generate
            for number in mine:
                made.pictures.update(generate(number))
    made.evaluations = sum(processes.exchange(counter.evaluations))
    if request.schedule.stages:
        _prune(made, request, candidates, scores, processes)
    return made


class _Candidates:
    """Pipeline calls of one candidate each, stopped by the scores of those before."""

    def __init__(self, request: Request, scores: SequentialScores) -> None:
        pipe = request.pipe
        try:
            self._family = family_of(pipe)
        except UnsupportedPipelineError:
            self._family = unknown_family(pipe, request.preview)
        self._previewer = Previewer(pipe, self._family, request.preview)
        self._request, self._scores = request, scores

    def generate(self, number: int) -> dict[int, Any]:
        """The finished candidate, or nothing if it was stopped."""
        request, pipe = self._request, self._request.pipe

        def on_stage(stage: Stage) -> Sequence[int]:
            (preview,) = pruner.previews(self._previewer)
            what = f"the preview at {stage.fraction:g}"
            (score,) = request.scores(request.preview_scorer(stage.fraction), {number: as_pil(preview)}, what).values()
            if self._scores.add(stage, score):
                raise BatchEnded  # the pipeline's own interruption would still decode what is half done
            return stage.rows

        def on_step_end(pipe: Any, step: int, timestep: Any, callback_kwargs: dict[str, Any]) -> dict[str, Any]:
            return pruner.end_step(step, callback_kwargs)

        self._scores.begin()
        pruner = RowPruner(pipe, self._family, request.schedule.fractions, on_stage)
        try:
            with pruner, watched_calls(pipe, pruner.begin):
                (picture,) = request.call(
                    pipe,
                    [number],
                    callback_on_step_end=on_step_end,
                    callback_on_step_end_tensor_inputs=["latents"],
                )
        except BatchEnded:
            if hasattr(pipe, "maybe_free_model_hooks"):
                pipe.maybe_free_model_hooks()
            return {}
        return {number: picture}


def _prune(
    made: Made, request: Request, candidates: Sequence[int], scores: SequentialScores, processes: Processes
) -> None:
    """Leaves what would have been left if the candidates of all processes had been one batch."""
    everyones = processes.exchange((scores.candidates, scores.steps))
    all_scores = [one for part, _ in everyones for one in part]  # processes have their shares in order
    all_steps = max((part for _, part in everyones), key=len)
    schedule = request.schedule
    stages = kept_by_stage(
        all_scores,
        schedule.counts,
        groups=[None] * len(all_scores),
        margins=schedule.margins or None,
        least=schedule.least,
    )
    for fraction, step, (by_row, kept_rows) in zip(request.schedule.fractions, all_steps, stages, strict=False):
        by_candidate = {candidates[row]: score for row, score in by_row.items()}
        pruning = PruningStep.of(step, fraction, by_candidate, [candidates[row] for row in kept_rows])
        made.history.append(pruning)
        made.pictures = {number: picture for number, picture in made.pictures.items() if number not in pruning.dropped}
