"""Pruning without a scorer: a pipeline call is stopped at given fractions of its steps, and told which rows survive.

`RowPruner` knows when a stage is reached, shows the previews there, and drops rows exactly. What survives is decided
elsewhere: `on_stage` is the filter of the callback, the comparison of all batches in best_of_n, or, in a calibration,
a look at the previews that keeps all rows.
"""

import functools
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from ...errors import MaAgiqaError, MisusedCallbackError
from ..pipelines.family import Family
from ..preview.decoding import Previewer
from ..preview.x0 import X0Recorder
from .checks import check_attention_arguments, check_randomness, prompts_of
from .pipeline_loop import PipelineLoop, loop_variables, pipeline_frame
from .row_surgery import Loop, RowSurgery
from .rule import call_of


@dataclass(frozen=True)
class Stage:
    """Where a pipeline call may be pruned.

    Attributes:
        number: Which of the fractions it is, from 0.
        fraction: Of the scheduler calls.
        step: Index of the step after which it is reached, from 0.
        rows: Original numbers of the rows that are still there, ascending.
    """

    number: int
    fraction: float
    step: int
    rows: tuple[int, ...]


OnStage = Callable[[Stage], Sequence[int]]
"""Gives the rows that survive, ascending, out of `stage.rows`."""


class RowPruner:
    """Drops rows of one pipeline call at its stages; a context manager.

    Inside its `with` it takes a call that begins with `begin` and whose every step ends with `end_step`; one call
    after the other. Leaving takes all hooks off and gives the caller's generators and tensors back whole.

    Args:
        pipe: A pipeline of diffusers.
        family: Its family.
        stages: Fractions of the scheduler calls, ascending. Each is reached after max(1, round(fraction * calls)) of
            them, never after the last; where several fall together, only the last of them is.
        on_stage: Called at every stage.
        loop: Where the loop's variables lie; None: they are the local variables of the pipeline's `__call__`.
    """

    def __init__(
        self,
        pipe: Any,
        family: Family,
        stages: Sequence[float],
        on_stage: OnStage,
        *,
        loop: Loop | None = None,
    ) -> None:
        self._pipe, self._family = pipe, family
        self._stages, self._on_stage = tuple(stages), on_stage
        self._loop = PipelineLoop(pipe) if loop is None else loop
        self._recorder = X0Recorder(pipe.scheduler)
        self._surgery = RowSurgery(pipe, family, self._loop)
        self._expected_rows: int | None = None  # None: no call has begun
        self._scheduler_calls: int | None = None
        self._is_staged = False

    @property
    def rows(self) -> tuple[int, ...]:
        """Original numbers of the rows that are still there; empty before the first step's end."""
        return tuple(self._surgery.rows)

    @property
    def evaluations(self) -> int:
        """Rows times denoiser calls so far, in all calls; a row with guidance counts 2."""
        return self._surgery.evaluations

    @property
    def was_passed_over(self) -> bool:
        """Whether a pipeline ran whose steps did not end here."""
        return bool(self._stages) and self._recorder.calls > 0 and not self._surgery.rows

    def __enter__(self) -> "RowPruner":
        """Installs what is needed.

        Raises:
            ValueError: The scheduler's x0 is not known.
        """
        try:
            self._recorder.install()
            self._surgery.install()
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        try:
            self._surgery.remove()
        finally:
            self._recorder.remove()

    def begin(self, call: Mapping[str, Any], *, scheduler_calls: int | None = None) -> None:
        """Before the first step of a call, in its thread.

        Args:
            call: The pipeline's arguments by name.
            scheduler_calls: How many there will be; None takes the pipeline's own count.

        Raises:
            UnsupportedPipelineError: Noise or attention that depends on the other rows.
            ValueError: Another scheduler than on entering, or rows that share a generator and need their own.
        """
        if self._pipe.scheduler is not self._recorder.scheduler:
            raise MaAgiqaError(
                f"Expected the scheduler that the pipeline had on entering, got another "
                f"{type(self._pipe.scheduler).__name__}. Set it before the `with`."
            )
        prompts, rows_per_prompt = prompts_of(call)
        total = len(prompts) * rows_per_prompt
        if self._stages and total > 1:
            check_randomness(self._pipe, self._family, call, total)
            check_attention_arguments(call)
        self._expected_rows, self._scheduler_calls, self._is_staged = total, scheduler_calls, False
        self._surgery.begin()
        self._recorder.reset()

    def end_step(self, step: int, callback_kwargs: dict[str, Any]) -> dict[str, Any]:
        """At the end of every step: reaches the stage that is due, and drops the rows that do not survive it.

        Args:
            step: Its index, from 0.
            callback_kwargs: What the pipeline gives to its callback; not changed.

        Returns:
            What the callback is to return.
        """
        self._surgery.end_step(callback_kwargs["latents"])
        rows = self.rows
        if self._expected_rows is None:
            raise MisusedCallbackError(
                f"Expected {type(self._pipe).__name__} to be called itself, got a call of another pipeline. Make the "
                "callback for the pipeline that is called."
            )
        if len(rows) > self._expected_rows or (not self._is_staged and len(rows) != self._expected_rows):
            raise MisusedCallbackError(
                f"Expected {self._expected_rows} rows from the prompts and pictures per prompt, got {len(rows)}. Give "
                "one picture per prompt, or one for all."
            )
        number = self._stage_after(step)
        if number is None:
            return callback_kwargs
        kept = self._on_stage(Stage(number, self._stages[number], step, rows))
        self._is_staged = True
        return self._surgery.keep(kept, callback_kwargs)

    @torch.no_grad()
    def previews(self, previewer: Previewer) -> Tensor:
        """Pictures of all rows that are there, as they will come out by the last prediction.

        Returns:
            (B, 3, H, W) float32 RGB in [0, 1].
        """
        x0 = self._recorder.x0
        if x0 is None:
            raise MisusedCallbackError(
                "Expected a scheduler call before the callback, got none. Use the pipe's own scheduler."
            )
        given, mask = self._kept_picture()
        if isinstance(given, Tensor) and isinstance(mask, Tensor) and given.shape[1:] == x0.shape[1:]:
            x0 = (1 - mask.to(x0)) * given.to(x0) + mask.to(x0) * x0
        return previewer.pictures(x0, self._surgery.arguments)

    def _stage_after(self, step: int) -> int | None:
        calls = self._scheduler_calls
        if calls is None:
            calls = int(getattr(self._pipe, "num_timesteps", None) or len(self._pipe.scheduler.timesteps))
        due = [
            number for number, fraction in enumerate(self._stages) if calls > 1 and call_of(fraction, calls) == step + 1
        ]
        return due[-1] if due else None

    def _kept_picture(self) -> tuple[Any, Any]:
        """Latents of the given picture, and the mask: 0 where inpainting keeps it."""
        if "image_latents" not in self._family.blended:
            return None, None
        variables = self._loop.read()
        return variables.get("image_latents"), variables.get(self._family.kept_mask)


@contextmanager
def watched_calls(pipe: Any, on_call: Callable[[dict[str, Any]], None]) -> Iterator[None]:
    """Tells of every call of the pipeline inside the block, before it does anything.

    Nearly every pipeline checks its inputs first: the moment to see what it was called with. Where there is nothing
    to check, the texts are encoded first, or, where they are given as vectors, the latents are drawn.

    Args:
        on_call: Gets the pipeline's local variables, its arguments among them.
    """
    names = ["check_inputs"] if hasattr(pipe, "check_inputs") else ["encode_prompt", "prepare_latents", "_pad_text"]
    names = [name for name in names if hasattr(pipe, name)]
    own = {name: vars(pipe)[name] for name in names if name in vars(pipe)}
    told: list[Any] = []  # the frame of the call that is known already

    def watched(function: Callable[..., Any], *, is_last: bool, is_checking: bool) -> Callable[..., Any]:
        @functools.wraps(function)
        def wrapper(*args: Any, **kwargs: Any) -> Any:
            result = function(*args, **kwargs) if is_checking else None  # what is wrong is told in the pipeline's words
            frame = pipeline_frame(pipe)
            if frame is not None:
                if frame not in told:
                    on_call(loop_variables(pipe))
                told[:] = [] if is_last else [frame]
            del frame
            return result if is_checking else function(*args, **kwargs)

        return wrapper

    try:
        for name in names:
            is_checking = name == "check_inputs"
            vars(pipe)[name] = watched(getattr(pipe, name), is_last=name == names[-1], is_checking=is_checking)
        yield
    finally:
        told.clear()
        for name in names:
            vars(pipe).pop(name, None)
        vars(pipe).update(own)
