"""The filter in the denoising loop: previews are scored at given fractions of the steps, and the worst rows dropped.

What stays is the same picture as without the filter; see batch_shrink.py for how, and families.py for where.
"""

import functools
from collections.abc import Callable, Hashable, Mapping, Sequence
from types import TracebackType
from typing import Any

import torch
from diffusers.callbacks import PipelineCallback
from torch import Tensor

from ...errors import MaAgiqaError, MisusedCallbackError
from ...scorers.scorer import Scorer
from ..pipelines.families import Family, check_exact, family_of
from ..pipelines.schedulers import UnsupportedPipelineError
from ..preview.decoding import Preview, Previewer
from ..preview.x0 import X0Recorder
from .checks import (
    check_attention_arguments,
    check_installed,
    check_options,
    check_randomness,
    checked_prompts,
    prompts_of,
    row_texts,
)
from .finite_scores import finite_scores
from .row_pruner import BatchShrink, pipeline_frame
from .rule import PruningStep, call_of, is_out, kept_by_stage, kept_rows
from .schedule import PruneSchedule

_OUTSIDE = "Expected the callback inside its `with`, got a call outside. Write `with ... as callback:`."

Decision = Callable[[int, dict[int, float]], Sequence[int]]
"""Gets the number of the stage and the scores by row; gives the rows that go on."""


class QualityFilterCallback(PipelineCallback):
    """Drops the worst rows of a pipeline call on the way; the rows that stay come out as they would have anyway.

    A context manager around one pipeline call; the object goes into `callback_on_step_end`, alone or among
    others in `MultiPipelineCallbacks`. Leaving restores everything, whatever was raised.

    Args:
        pipe: A pipeline of diffusers.
        scorer: Scores the previews.
        prune_at: How many rows of each prompt go on after these fractions of the scheduler calls that really
            happen: after max(1, round(fraction * calls)), never after the last. None only watches.
        prompts: For the scorer: one, one per prompt of the call, or one per row. None takes those of the call.
        min_score: Rows below it go too, but the best of each prompt stays.
        preview: How previews are made, see `Previewer`.
        strategy: "batch", or "sequential": one row per pipeline call and any number of calls inside the `with`.
            Each is a candidate, which is stopped as soon as it cannot be among the best; what the pipeline
            returns for one that was stopped is no picture. `survivors` then counts the calls.
        local_files_only: Never use the network for a preview decoder.

    Attributes:
        network_evaluations: Rows times denoiser calls; a row with guidance counts 2.

    Raises:
        ValueError: Arguments that contradict each other or the scorer.
    """

    def __init__(
        self,
        pipe: Any,
        scorer: Scorer,
        *,
        prune_at: Mapping[float, int] | None = None,
        prompts: str | Sequence[str] | None = None,
        min_score: float | None = None,
        preview: Preview = "auto",
        strategy: str = "batch",
        local_files_only: bool = False,
        _decide: Decision | None = None,
    ) -> None:
        super().__init__()
        self._stages = PruneSchedule.of(prune_at).stages
        self._min_score = check_options(scorer, bool(self._stages), min_score, strategy)
        self._pipe, self._scorer, self._prompts = pipe, scorer, checked_prompts(prompts)
        self._preview, self._local_files_only = preview, local_files_only
        self._is_sequential = strategy == "sequential"
        self._decide = _decide
        self._is_entered = False
        self._forget()

    def _forget(self) -> None:
        self._shrink: BatchShrink | None = None
        self._watch: X0Recorder | None = None
        self._previewer: Previewer | None = None
        self._plain_check: Callable[..., Any] | None = None
        self._is_running = False
        self._expected_rows = 0
        self._rows_per_prompt = 1
        self._texts: list[str] | None = None  # per row
        self._history: list[PruningStep] = []
        self._candidates: list[list[float]] = []  # sequential: scores by call and stage
        self._groups: list[Hashable] = []  # sequential: which calls compete
        self._steps: list[int] = []  # sequential: the stages' steps

    @property
    def tensor_inputs(self) -> list[str]:
        """For `callback_on_step_end_tensor_inputs`.

        Raises:
            RuntimeError: A pipeline that has been given the callback outside of its `with` asks for them.
        """
        if not self._is_entered and pipeline_frame(self._pipe) is not None:
            raise MisusedCallbackError(_OUTSIDE)
        return ["latents"] if self._is_sequential else list(self._pipe._callback_tensor_inputs)

    @property
    def survivors(self) -> tuple[int, ...]:
        """Original row of each returned picture; with "sequential" the calls whose pictures are kept."""
        if self._is_sequential:
            stages = self._kept_by_stage()
            return tuple(stages[-1][1] if stages else range(len(self._candidates)))
        return tuple(self._shrink.rows) if self._shrink is not None else ()

    @property
    def history(self) -> tuple[PruningStep, ...]:
        """What was decided at each step; with "sequential" as if all candidates had been one batch."""
        if not self._is_sequential:
            return tuple(self._history)
        return tuple(
            _pruning_step(step, fraction, scores, kept)
            for step, (fraction, _), (scores, kept) in zip(
                self._steps, self._stages, self._kept_by_stage(), strict=False
            )
        )

    @property
    def network_evaluations(self) -> int:
        return self._shrink.evaluations if self._shrink is not None else 0

    def __enter__(self) -> "QualityFilterCallback":
        """Checks the pipeline and installs what is needed.

        Raises:
            UnsupportedPipelineError: The survivors of this pipeline would be other pictures.
            ValueError: The scheduler's x0 or a preview is not known.
        """
        if self._is_entered:
            raise MisusedCallbackError(
                "Expected a callback that is not in use, got one inside its own `with`. Make another."
            )
        self._forget()
        family = self._family()
        self._watch = X0Recorder(self._pipe.scheduler)
        self._shrink = BatchShrink(self._pipe, family)
        if self._stages:
            self._previewer = Previewer(self._pipe, family, self._preview, local_files_only=self._local_files_only)
        self._is_entered = True
        try:
            self._watch.install()
            self._shrink.install()
            self._wrap_check()
        except BaseException:
            self._restore()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        """Restores everything.

        Raises:
            RuntimeError: The pipeline was given another callback in place of this one, so that nothing was dropped.
        """
        was_passed_over = self._is_entered and self._was_passed_over()
        self._restore()
        if error is None and was_passed_over:
            raise MisusedCallbackError(
                "Expected the callback at the end of the steps, got none: the pipeline was given another one, and "
                "nothing has been dropped. Pass callback_on_step_end=callback, or both in MultiPipelineCallbacks."
            )

    def _was_passed_over(self) -> bool:
        assert self._shrink is not None
        assert self._watch is not None
        return bool(self._stages) and self._watch.calls > 0 and not self._shrink.rows

    def callback_fn(self, pipeline: Any, step_index: int, timestep: Any, callback_kwargs: dict[str, Any]) -> Any:
        """Called by the pipeline at the end of each step."""
        try:
            return self._end_step(step_index, callback_kwargs)
        except BaseException:
            self._restore()  # also if whoever catches this stays inside the `with`
            raise

    def _family(self) -> Family:
        pipe = self._pipe
        missing = [name for name in ("scheduler", "_callback_tensor_inputs", "check_inputs") if not hasattr(pipe, name)]
        try:
            family = family_of(pipe)
        except UnsupportedPipelineError:
            if not self._is_sequential or missing or not hasattr(type(pipe), "interrupt"):
                raise
            if self._stages and not callable(self._preview):
                raise UnsupportedPipelineError(
                    f"Expected a callable as preview for {type(pipe).__name__}, whose latents are not known, got "
                    f"{self._preview!r}. Give a function (latents) -> (B, 3, H, W) in [0, 1]."
                ) from None
            return Family("other", (), denoisers=("unet", "transformer", "transformer_2"), batch_arguments=frozenset())
        if not self._is_sequential:
            check_exact(pipe, family)
        return family

    def _wrap_check(self) -> None:
        """Every pipeline checks its inputs before it does anything: the moment to see what it was called with."""
        check = self._pipe.check_inputs
        self._plain_check = vars(self._pipe).get("check_inputs")

        @functools.wraps(check)
        def check_inputs(*args: Any, **kwargs: Any) -> Any:
            checked = check(*args, **kwargs)
            frame = pipeline_frame(self._pipe)
            if frame is not None and self._is_entered:
                variables = dict(frame.f_locals)
                del frame
                try:
                    self._begin(variables)
                except BaseException:
                    self._restore()
                    raise
            return checked

        vars(self._pipe)["check_inputs"] = check_inputs

    def _restore(self) -> None:
        if not self._is_entered:
            return
        self._is_entered = False
        try:
            if self._shrink is not None:
                self._shrink.remove()
        finally:
            if self._watch is not None:
                self._watch.remove()
            if self._plain_check is not None:
                vars(self._pipe)["check_inputs"] = self._plain_check
            else:
                vars(self._pipe).pop("check_inputs", None)

    def _begin(self, call: dict[str, Any]) -> None:
        """Refuses a call before its first step; `call`: the pipeline's local variables, its arguments among them."""
        assert self._shrink is not None
        assert self._watch is not None
        if self._is_running and not self._is_sequential:
            raise MaAgiqaError(
                "Expected one pipeline call inside the `with`, got a second one. Make a callback for each call."
            )
        check_installed(call, self.tensor_inputs)
        prompts, self._rows_per_prompt = prompts_of(call)
        total = self._expected_rows = len(prompts) * self._rows_per_prompt
        if self._pipe.scheduler is not self._watch.scheduler:
            raise MaAgiqaError(
                f"Expected the scheduler that the pipeline had on entering, got another "
                f"{type(self._pipe.scheduler).__name__}. Set it before the `with`."
            )
        self._texts = row_texts(self._prompts, prompts, self._rows_per_prompt)
        if self._texts is None and self._scorer.info.needs_prompt and self._stages:
            raise MaAgiqaError(
                f"Expected prompts for {self._scorer.info.name!r}, which needs them, got a call without text. Give "
                "them to the callback: prompts=..."
            )
        if self._is_sequential:
            if total != 1:
                raise MaAgiqaError(
                    f"Expected one row per call with strategy='sequential', got {total}. Call the pipeline once for "
                    "each candidate, with a generator of its own."
                )
            self._candidates.append([])
            self._groups.append(self._texts[0] if self._texts else None)
        elif self._stages:
            if self._decide is None and self._stages[0][1] > self._rows_per_prompt:
                raise MaAgiqaError(
                    f"Expected to keep at most {self._rows_per_prompt}, the pictures per prompt of this call, got "
                    f"{self._stages[0][1]} at {self._stages[0][0]:g} in prune_at. Make more pictures, or keep fewer."
                )
            if total > 1:
                check_randomness(self._pipe, self._shrink.family, call, total)
                check_attention_arguments(call)
        self._is_running = True
        self._shrink.begin()
        self._watch.reset()

    def _end_step(self, step: int, callback_kwargs: dict[str, Any]) -> dict[str, Any]:
        shrink = self._shrink
        if not self._is_entered or shrink is None:
            raise MisusedCallbackError(_OUTSIDE)
        shrink.end_step(callback_kwargs["latents"])
        if not self._is_running:
            raise MisusedCallbackError(
                f"Expected {type(self._pipe).__name__} to be called itself, got a call of another pipeline. Make the "
                "callback for the pipeline that is called."
            )
        if len(shrink.rows) > self._expected_rows or (not self._history and len(shrink.rows) != self._expected_rows):
            raise MisusedCallbackError(
                f"Expected {self._expected_rows} rows from the prompts and pictures per prompt, got "
                f"{len(shrink.rows)}. Give one picture per prompt, or one for all."
            )
        stage = self._stage_at(step)
        if stage is None:
            return callback_kwargs
        if self._is_sequential:
            self._end_stage_alone(step, stage)
            return callback_kwargs
        scores = self._scores(shrink.rows)
        kept = self._kept(stage, scores)
        self._history.append(_pruning_step(step, self._stages[stage][0], scores, kept))
        return shrink.shrink(kept, callback_kwargs)

    def _stage_at(self, step: int) -> int | None:
        """The stage that is decided after this step; where several fall together, the last of them."""
        calls = self._scheduler_calls()
        due = [
            stage
            for stage, (fraction, _) in enumerate(self._stages)
            if calls > 1 and call_of(fraction, calls) == step + 1
        ]
        return due[-1] if due else None

    def _scheduler_calls(self) -> int:
        """Those that happen in this pipeline call."""
        return int(self._pipe.num_timesteps)

    def _kept(self, stage: int, scores: dict[int, float]) -> list[int]:
        if self._decide is not None:
            return sorted(self._decide(stage, scores))
        groups = {row: row // self._rows_per_prompt for row in scores}
        return kept_rows(scores, self._stages[stage][1], groups=groups, min_score=self._min_score)

    def _end_stage_alone(self, step: int, stage: int) -> None:
        own = self._candidates[-1]
        (score,) = self._scores([0]).values()
        own += [score] * (stage + 1 - len(own))  # stages that fell together
        self._steps += [step] * (stage + 1 - len(self._steps))
        rivals = [
            scores
            for scores, group in zip(self._candidates[:-1], self._groups[:-1], strict=True)
            if group == self._groups[-1]
        ]
        if is_out(own, rivals, self._stages[stage][1], self._min_score):
            self._pipe._interrupt = True

    def _kept_by_stage(self) -> list[tuple[dict[int, float], list[int]]]:
        counts = [count for _, count in self._stages]
        return kept_by_stage(self._candidates, counts, groups=self._groups, min_score=self._min_score)

    def _scores(self, rows: Sequence[int]) -> dict[int, float]:
        """Of the previews of all rows that are there, by original row."""
        assert self._shrink is not None
        assert self._watch is not None
        assert self._previewer is not None
        x0 = self._watch.x0
        if x0 is None:
            raise MisusedCallbackError(
                "Expected a scheduler call before the callback, got none. Use the pipe's own scheduler."
            )
        with torch.no_grad():
            pictures = self._previewer.pictures(self._shrink.composed(x0), self._shrink.arguments)
            parts = [list(range(len(rows)))]
            if self._scorer.info.relative:  # compares within a call: one for each prompt
                groups: dict[int, list[int]] = {}
                for position, row in enumerate(rows):
                    groups.setdefault(row // self._rows_per_prompt, []).append(position)
                parts = list(groups.values())
            scores: dict[int, float] = {}
            for part in parts:
                scores |= self._part_scores(pictures[part], [rows[position] for position in part])
        return {row: scores[row] for row in rows}

    def _part_scores(self, pictures: Tensor, rows: Sequence[int]) -> dict[int, float]:
        prompts = None if self._texts is None else [self._texts[row] for row in rows]
        names = [f"the preview of row {row}" for row in rows]
        advice = "Mend the scorer; nothing has been dropped."
        return dict(zip(rows, finite_scores(self._scorer, pictures, prompts, names, advice), strict=True))


def _pruning_step(step: int, fraction: float, scores: dict[int, float], kept: Sequence[int]) -> PruningStep:
    return PruningStep(step, fraction, scores, tuple(kept), tuple(row for row in scores if row not in kept))
