"""One candidate at a time, each stopped as soon as it cannot be among the best: for pipelines that cannot be shrunk."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch

from ...pictures.prompts import Prompts
from ...scorers.scorer import Scorer
from ..pipelines.evaluations import counted
from ..pruning.callback import QualityFilterCallback
from ..pruning.rule import PruningStep, kept_by_stage
from .batches import BatchLimit, Made, Request, as_pil
from .lockstep import BatchEnded
from .processes import Processes


def generate_sequentially(request: Request, candidates: Sequence[int], limit: BatchLimit, processes: Processes) -> Made:
    """Makes the candidates one by one, with the outcome of pruning all of them together; it only costs more.

    A candidate is stopped where enough of this process's earlier ones are ahead of it for good.
    """
    mine = processes.share(candidates)
    made = Made()
    scores: list[list[float]] = []
    steps: list[int] = []
    with counted(request.pipe) as calls:
        if not request.prune_at:
            for number in mine:
                (made.pictures[number],) = request.call(request.pipe, [number])
        else:
            with QualityFilterCallback(
                request.pipe,
                _Judge(request.scorer),
                prune_at=request.prune_at,
                prompts=request.prompt,
                preview=request.preview,
                strategy="sequential",
            ) as callback:
                for number in mine:
                    made.pictures.update(_one(request, number, callback))
                scores, steps = callback._candidates, callback._steps
    made.evaluations = sum(processes.exchange(calls.evaluations))
    if request.prune_at:
        _prune(made, request, candidates, scores, steps, processes)
    return made


def _one(request: Request, number: int, callback: QualityFilterCallback) -> dict[int, Any]:
    """The finished candidate, or nothing if it was stopped."""

    def on_step_end(pipe: Any, step: int, timestep: Any, callback_kwargs: dict[str, Any]) -> dict[str, Any]:
        returned = callback(pipe, step, timestep, callback_kwargs)
        if getattr(pipe, "_interrupt", False):
            raise BatchEnded  # the pipeline itself would still decode what is half done
        return returned

    pipe = request.pipe
    try:
        (picture,) = request.call(
            pipe,
            [number],
            callback_on_step_end=on_step_end,
            callback_on_step_end_tensor_inputs=callback.tensor_inputs,
        )
    except BatchEnded:
        pipe._interrupt = False
        if hasattr(pipe, "maybe_free_model_hooks"):
            pipe.maybe_free_model_hooks()
        return {}
    return {number: picture}


def _prune(
    made: Made,
    request: Request,
    candidates: Sequence[int],
    scores: list[list[float]],
    steps: list[int],
    processes: Processes,
) -> None:
    """Leaves those that would have been left if the candidates of all processes had been one batch."""
    everyones = processes.exchange((scores, steps))
    all_scores = [one for part, _ in everyones for one in part]  # processes have their shares in order
    all_steps = max((part for _, part in everyones), key=len)
    fractions, counts = list(request.prune_at), list(request.prune_at.values())
    stages = kept_by_stage(all_scores, counts, groups=[None] * len(all_scores))
    for fraction, step, (by_row, kept_rows) in zip(fractions, all_steps, stages, strict=False):
        kept = tuple(candidates[row] for row in kept_rows)
        by_candidate = {candidates[row]: score for row, score in by_row.items()}
        dropped = tuple(number for number in by_candidate if number not in kept)
        made.history.append(PruningStep(step, fraction, by_candidate, kept, dropped))
        made.pictures = {number: picture for number, picture in made.pictures.items() if number not in dropped}


class _Judge:
    """The scorer, given previews as the PIL pictures that it also gets at the end."""

    def __init__(self, scorer: Scorer) -> None:
        self.info = scorer.info
        self._scorer = scorer

    def score(
        self, images: Any, prompts: Prompts = None, batch_size: int | None = None, on_error: str = "raise"
    ) -> torch.Tensor:
        """See `Scorer.score`."""
        return self._scorer.score([as_pil(image) for image in images], prompts, batch_size, on_error)
