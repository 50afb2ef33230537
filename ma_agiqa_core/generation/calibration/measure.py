"""Measures where early rejection pays: how well a preview's score, at each fraction of the steps, predicts the winner.

All candidates are finished, and every preview on the way is scored. Since pruning is exact, what any `prune_at`
would have kept and cost can then be replayed from the scores (replay.py).
"""

from __future__ import annotations

import gc
import logging
import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from ...arguments.numbers import count_of, plain
from ...compute.batching import is_out_of_memory
from ...compute.device_clock import device_clock
from ...errors import MaAgiqaError
from ...scorers.scorer import Scorer
from ...scorers.watching import as_observers, watched
from ..best_of.finished import as_pil, frames_of, pictures_of, repeated
from ..best_of.request import argument_of, check_scorers, checked_seed
from ..early.early_scorer import judge_name
from ..early.kept_previews import keep_prompt
from ..pipelines.families import family_of
from ..pipelines.rows_of_a_call import pictures_per_row
from ..preview.decoding import Previewer
from ..pruning.finite_scores import finite_scores
from ..pruning.row_pruner import RowPruner, Stage, watched_calls
from ..pruning.rule import call_of
from .candidates import Candidates
from .checks import check_call, checked_fractions, checked_share, given_prompts
from .replay import Measured
from .report import CalibrationReport, Setting, make_report

logger = logging.getLogger(__name__)

FRACTIONS = (0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8)


def calibrate(
    pipe: Any,
    scorer: Scorer,
    prompts: str | Sequence[str],
    *,
    n: int = 8,
    fractions: Sequence[float] = FRACTIONS,
    target_share: float = 0.9,
    seed: int = 0,
    preview: Any = "auto",
    observe: Scorer | Sequence[Scorer] | None = None,
    batch_size: int | None = None,
    save_previews: str | os.PathLike[str] | None = None,
    **pipe_kwargs: Any,
) -> CalibrationReport:
    """Finds out for a pipeline and a scorer at which fractions of the steps candidates can be dropped.

    For every prompt n candidates are generated to the end; start with about twenty prompts like those to come. A
    prompt that is repeated gets the next n seeds.

    Args:
        pipe: A diffusers pipeline with `callback_on_step_end`.
        scorer: What chooses the best.
        prompts: One or more.
        n: Candidates of each prompt, with the seeds `seed`, `seed + 1`, ...
        fractions: Of the scheduler calls, between 0 and 1, at which previews are scored.
        target_share: Of the gain of best-of-n over one picture at random, which the recommended `prune_at` keeps.
        seed: Of the first candidate.
        preview: As in `QualityFilterCallback`.
        observe: A second scorer, or several, that only watch: the report says how much of its own gain each gets.
        batch_size: Candidates at a time; None: all n, and half as many where memory runs out.
        save_previews: Folder for the previews with the scores of their finished pictures: what an early scorer is
            taught from (`ma-agiqa distill --previews`). Every prompt then has seeds of its own, the next n: prompts
            that share noise look alike, and one that is left out would not be new to the early scorer.
        pipe_kwargs: Further arguments of the pipeline, such as `num_inference_steps` and `guidance_scale`: those
            that the pipeline will be used with. Of a video the first frame is judged.

    Raises:
        UnsupportedPipelineError: The pipeline is of no known family.
        ValueError: A wrong argument, raised before anything is generated; a score that is not finite.

    Example:
        Twenty prompts with the real model take minutes on a GPU, so these lines are not run:

        >>> from diffusers import DiffusionPipeline
        >>> from ma_agiqa_core import load_scorer
        >>> pipe = DiffusionPipeline.from_pretrained("owner/model").to("cuda")  # doctest: +SKIP
        >>> prompts = Path("prompts.txt").read_text().splitlines()  # doctest: +SKIP
        >>> report = calibrate(pipe, load_scorer("lite"), prompts, num_inference_steps=30)  # doctest: +SKIP
        >>> print(report)  # doctest: +SKIP
        >>> report.recommended.prune_at  # doctest: +SKIP
        {0.3: 4, 0.6: 2}
    """
    calibration = Calibration(
        pipe,
        scorer,
        prompts,
        n=n,
        fractions=fractions,
        target_share=target_share,
        seed=seed,
        preview=preview,
        observe=observe,
        batch_size=batch_size,
        save_previews=save_previews,
        pipe_kwargs=pipe_kwargs,
    )
    for done in calibration.run():
        logger.info("calibrated with %d of %d prompts", done, len(calibration.prompts))
    return calibration.report()


class Calibration:
    """A calibration prompt by prompt, with a report at any time; arguments and errors are those of `calibrate`.

    Args:
        local_files_only: Never use the network for a preview decoder.
    """

    def __init__(
        self,
        pipe: Any,
        scorer: Scorer,
        prompts: str | Sequence[str],
        *,
        n: int = 8,
        fractions: Sequence[float] = FRACTIONS,
        target_share: float = 0.9,
        seed: int = 0,
        preview: Any = "auto",
        observe: Scorer | Sequence[Scorer] | None = None,
        batch_size: int | None = None,
        local_files_only: bool = False,
        save_previews: str | os.PathLike[str] | None = None,
        pipe_kwargs: Mapping[str, Any] | None = None,
    ) -> None:
        self._fractions, self._target_share = checked_fractions(fractions), checked_share(target_share)
        self.prompts = given_prompts(prompts)
        self._arguments = dict(pipe_kwargs or {})
        self._n = count_of("n", n)
        if self._n == 1:
            raise MaAgiqaError("Expected n of at least 2, got 1. With one candidate there is nothing to choose.")
        self._seed = checked_seed(seed, self._n)
        most = self._n if batch_size is None else min(count_of("batch_size", batch_size), self._n)
        self._count_name = check_call(pipe, self._arguments)
        self._pipe, self._scorer, self._observers = pipe, scorer, as_observers(observe)
        self._batch_size = most if self._count_name else 1
        self._family = family_of(pipe)
        with RowPruner(pipe, self._family, self._fractions, lambda stage: stage.rows):
            pass  # refuses a scheduler whose x0 is not known
        self._previewer = Previewer(pipe, self._family, preview, local_files_only=local_files_only)
        self._folder = None if save_previews is None else Path(save_previews)
        if self._folder is not None and self._folder.is_dir() and any(self._folder.iterdir()):
            raise MaAgiqaError(f"Expected a new or empty folder for previews, got {self._folder}. Name another.")
        self._steps: dict[float, int] = {}
        self._calls = 0
        self._done: list[_PromptScores] = []
        check_scorers(scorer, self._observers, self.prompts)

    @property
    def done(self) -> tuple[str, ...]:
        """The prompts that were finished."""
        return tuple(scores.prompt for scores in self._done)

    def run(self) -> Iterator[int]:
        """Generates and scores prompt by prompt; gives the number of finished ones after each.

        Raises:
            ValueError: A score that is not finite; whatever the pipeline refuses.
        """
        for prompt in self.prompts[len(self._done) :]:
            self._add(prompt)
            yield len(self._done)

    def _add(self, prompt: str) -> None:
        earlier = self.done.count(prompt) if self._folder is None else len(self._done)
        seed = self._seed + self._n * earlier
        made = self._generate(prompt, seed)
        self._calls, self._steps = made.calls, {f: call_of(f, made.calls) for f in self._fractions}
        started = device_clock()
        by_step = {
            step: self._scores(self._scorer, pictures, prompt, seed, f"the preview after step {step}")
            for step, pictures in sorted(made.previews.items())
        }
        preview_seconds = made.preview_seconds + device_clock() - started
        previews = [by_step[step] for step in self._steps.values()]
        count = self._n * len(by_step)
        finals = self._scores(self._scorer, made.finished, prompt, seed, "the finished picture")
        if self._folder is not None:
            keep_prompt(
                self._folder,
                len(self._done),
                {fraction: made.previews[step] for fraction, step in self._steps.items()},
                prompt=prompt,
                judge=judge_name(self._scorer),
                pipeline=type(self._pipe).__name__,
                previews=np.stack(previews),
                finals=finals,
            )
        self._done.append(
            _PromptScores(
                prompt,
                np.stack(previews),
                finals,
                tuple(
                    self._scores(observer, made.finished, prompt, seed, "the finished picture")
                    for observer in self._observers
                ),
                np.array([made.evaluations[step] for step in self._steps.values()], dtype=np.float64),
                made.total_evaluations,
                (preview_seconds / count) / (made.seconds / made.total_evaluations),
            )
        )

    def report(self) -> CalibrationReport:
        """What the prompts so far say.

        Raises:
            ValueError: There are none yet.
        """
        done = self._done
        if not done:
            raise MaAgiqaError("Expected at least one finished prompt, got none. Call run() first.")
        measured = Measured(
            previews=np.stack([prompt.previews for prompt in done]),
            final=np.stack([prompt.final for prompt in done]),
            evaluations=np.mean([prompt.evaluations for prompt in done], axis=0),
            total=float(np.mean([prompt.total for prompt in done])),
        )
        seen = [np.stack(scores) for scores in zip(*(prompt.observed for prompt in done), strict=True)]
        return make_report(
            self._setting(),
            self.done,
            measured,
            seen[0] if seen else None,
            float(np.median([prompt.preview_cost for prompt in done])),
            tuple(
                watched(judge_name(self._scorer), judge_name(observer), zip(measured.final, scores, strict=True))
                for observer, scores in zip(self._observers, seen, strict=True)
            ),
        )

    def _setting(self) -> Setting:
        steps = plain(argument_of(self._pipe, self._arguments, "num_inference_steps"))
        arguments = {name: plain(value) for name, value in self._arguments.items()}
        json_holds = (str, int, float, bool, type(None))
        return Setting(
            pipeline=type(self._pipe).__name__,
            scheduler=type(self._pipe.scheduler).__name__,
            n=self._n,
            steps=steps if isinstance(steps, int) else self._calls,
            scheduler_calls=self._calls,
            fractions=self._steps,
            seed=self._seed,
            arguments={k: v if isinstance(v, json_holds) else type(v).__name__ for k, v in arguments.items()},
            preview=self._previewer.source,
            scorer=judge_name(self._scorer),
            observer=judge_name(self._observers[0]) if self._observers else None,
            target_share=self._target_share,
        )

    def _generate(self, prompt: str, seed: int) -> Candidates:
        """All candidates of one prompt, in as few calls as memory allows."""
        made = Candidates()
        while len(made.finished) < self._n:
            first = len(made.finished)
            try:
                part = self._call(prompt, range(seed + first, seed + min(first + self._batch_size, self._n)))
            except (MemoryError, RuntimeError) as error:
                if self._batch_size == 1 or not is_out_of_memory(error):
                    raise
            else:
                made.extend(part)
                continue
            self._batch_size //= 2  # out here: the error, and with it the tensors of its frames, is gone
            logger.warning("memory ran out: continuing with %d candidates at a time", self._batch_size)
            gc.collect()
            if torch.cuda.is_available():
                torch.cuda.empty_cache()
        return made

    def _call(self, prompt: str, seeds: range) -> Candidates:
        made = Candidates()

        def on_stage(stage: Stage) -> Sequence[int]:
            """Looks at all rows, and keeps them."""
            started = device_clock()
            made.previews[stage.step + 1] = [as_pil(picture) for picture in pruner.previews(self._previewer)]
            made.evaluations[stage.step + 1] = pruner.evaluations
            made.preview_seconds += device_clock() - started
            return stage.rows

        def on_step_end(pipe: Any, step: int, timestep: Any, callback_kwargs: dict[str, Any]) -> dict[str, Any]:
            if not made.calls:
                made.calls = int(pipe.num_timesteps)
                if made.calls < 2:
                    raise MaAgiqaError(f"Expected at least 2 scheduler calls, got {made.calls}. Take more steps.")
            return pruner.end_step(step, callback_kwargs)

        generators = [torch.Generator("cpu").manual_seed(seed) for seed in seeds]
        per_row = pictures_per_row(self._pipe, self._arguments)
        pictures = {name: repeated(self._arguments[name], len(generators)) for name in per_row}
        pruner = RowPruner(self._pipe, self._family, self._fractions, on_stage)
        started = device_clock()
        with pruner, watched_calls(self._pipe, pruner.begin):
            output = self._pipe(
                prompt=prompt,
                generator=generators,
                callback_on_step_end=on_step_end,
                output_type="pil",
                **({self._count_name: len(generators)} if self._count_name else {}),
                **{**self._arguments, **pictures},
            )
        made.total_evaluations = pruner.evaluations
        made.seconds = device_clock() - started - made.preview_seconds
        made.finished = [frames_of(picture, (0,))[0] for picture in pictures_of(output)]
        if len(made.finished) != len(generators):
            raise MaAgiqaError(f"Expected {len(generators)} pictures, got {len(made.finished)} from {prompt!r}.")
        return made

    def _scores(self, scorer: Scorer, pictures: list[Any], prompt: str, seed: int, what: str) -> np.ndarray:
        """(n,) float64."""
        names = [f"{what} of seed {seed + number} and the prompt {prompt!r}" for number in range(len(pictures))]
        return np.array(finite_scores(scorer, pictures, [prompt] * len(pictures), names))


@dataclass(frozen=True, eq=False)
class _PromptScores:
    """What `Measured` has of one prompt; `observed` by each scorer that watches, `preview_cost` as in the report."""

    prompt: str
    previews: np.ndarray
    final: np.ndarray
    observed: tuple[np.ndarray, ...]
    evaluations: np.ndarray
    total: int
    preview_cost: float
