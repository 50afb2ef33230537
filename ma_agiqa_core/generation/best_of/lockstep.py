"""Several pipeline calls in lockstep: pruning then goes across all batches, and not only within one.

A pipeline call cannot be paused, and `pipe.scheduler` is state that all calls of a pipe share. So each batch is a
call in a thread of its own, on a light copy of the pipe with a scheduler of its own. Only one thread runs at a time:
it is resumed, runs to its next pause (where previews are to be scored) or to its end, and hands control back. What
is decided at a pause is therefore decided in the caller's thread, with all batches at hand, and nothing depends on
how threads happen to be scheduled. A batch that is alone needs no thread.
"""

from __future__ import annotations

import contextvars
import copy
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

import torch

from ...compute.caller_state import autocasts

THREAD_NAME = "ma-agiqa batch"
Batch = TypeVar("Batch")
Result = TypeVar("Result")
Pause = Callable[[Any], Any]
"""Called by a batch: hands a report over, and comes back with what was decided for it.

With None, at every step, it comes back at once, unless the batch is to end because something else has failed.
"""


class BatchEnded(BaseException):
    """Ends a batch from inside its pipeline call; no error, and nothing that catches errors may catch it."""


@dataclass(frozen=True)
class Ended:
    """The answer to a batch that is to go no further."""


def run_in_lockstep(
    batches: Sequence[Batch],
    run: Callable[[Batch, Pause], Result],
    decide: Callable[[list[Any]], Sequence[Any]],
) -> list[Result | None]:
    """Runs all batches, one computing at a time, until each has finished or was ended.

    Args:
        batches: What `run` is given, one a call.
        run: Computes one batch. It calls the second argument with a report wherever it can be paused; what comes
            back is the answer of `decide`. It must let `BatchEnded` pass.
        decide: Gets the reports of all batches that paused, in their order, when no batch can go further without
            an answer; gives as many answers. `Ended()` ends that batch.

    Returns:
        One result per batch; None for those that were ended.

    Raises:
        Exception: Whatever `run` or `decide` raised first. All other batches are ended before, no thread is left.
    """
    if len(batches) == 1:
        return [_run_alone(batches[0], run, decide)]
    coroutines = [_Coroutine(batch, run) for batch in batches]
    waiting = coroutines
    try:
        while waiting:
            for coroutine in waiting:
                coroutine.resume()
            waiting = [coroutine for coroutine in waiting if coroutine.is_paused]
            if waiting:
                answers = decide([coroutine.report for coroutine in waiting])
                for coroutine, answer in zip(waiting, answers, strict=True):
                    coroutine.answer = answer
        return [coroutine.result for coroutine in coroutines]
    finally:
        for coroutine in coroutines:
            coroutine.end()


def _run_alone(
    batch: Batch, run: Callable[[Batch, Pause], Result], decide: Callable[[list[Any]], Sequence[Any]]
) -> Result | None:
    def pause(report: Any) -> Any:
        if report is None:
            return None
        (answer,) = decide([report])
        if isinstance(answer, Ended):
            raise BatchEnded
        return answer

    try:
        return run(batch, pause)
    except BatchEnded:
        return None


class _Coroutine(Generic[Batch, Result]):
    """One batch in its thread. `resume` lets it run to its next pause or to its end, and waits for that."""

    def __init__(self, batch: Batch, run: Callable[[Batch, Pause], Result]) -> None:
        self.result: Result | None = None
        self.report: Any = None
        self.answer: Any = None
        self.is_paused = False
        self._error: BaseException | None = None
        self._may_run = threading.Semaphore(0)
        self._came_back = threading.Semaphore(0)
        self._is_ending = False
        self._batch, self._run = batch, run
        self._surroundings = _surroundings()
        self._thread: threading.Thread | None = None

    def resume(self) -> None:
        """Raises what the batch raised."""
        self.is_paused = False
        if self._thread is None:
            context = contextvars.copy_context()
            self._thread = threading.Thread(target=context.run, args=(self._work,), name=THREAD_NAME, daemon=True)
            self._thread.start()
        self._may_run.release()
        while not self._came_back.acquire(timeout=0.2):  # an untimed wait cannot be interrupted on Windows
            pass
        if not self.is_paused:
            self._thread.join()
        if self._error is not None:
            error, self._error = self._error, None
            raise error

    def end(self) -> None:
        """Ends the thread wherever it is: at once if it is paused, else at its next pause or step."""
        self._is_ending = True
        if self._thread is not None:
            self._may_run.release()
            self._thread.join()
        self._error = None

    def pause(self, report: Any) -> Any:
        """Called in the thread."""
        if self._is_ending:
            raise BatchEnded
        if report is None:
            return None
        self.report, self.answer, self.is_paused = report, None, True
        self._came_back.release()
        self._may_run.acquire()
        self.report = None
        if self._is_ending or isinstance(self.answer, Ended):
            raise BatchEnded
        return self.answer

    def _work(self) -> None:
        self._may_run.acquire()
        try:
            if not self._is_ending:
                with self._surroundings():
                    self.result = self._run(self._batch, self.pause)
        except BatchEnded:
            pass
        except BaseException as error:
            self._error = error
        finally:
            self._came_back.release()


def _surroundings() -> Callable[[], Any]:
    """What torch keeps per thread, as it is in this one: to be entered in another."""
    casts = autocasts()
    grad, inference = torch.is_grad_enabled(), torch.is_inference_mode_enabled()
    default_device = torch.get_default_device()
    stream = torch.cuda.current_stream() if torch.cuda.is_initialized() else None

    @contextmanager
    def enter() -> Iterator[None]:
        with ExitStack() as stack:
            if stream is not None:
                stack.enter_context(torch.cuda.device(stream.device))
                stack.enter_context(torch.cuda.stream(stream))
            if default_device != torch.get_default_device():
                stack.enter_context(default_device)
            stack.enter_context(torch.inference_mode(inference))
            stack.enter_context(torch.set_grad_enabled(grad))
            for kind, dtype in casts.items():
                stack.enter_context(torch.autocast(kind, dtype=dtype))
            yield

    return enter


def light_copy(pipe: Any, *, progress: dict[str, Any]) -> Any:
    """The same models under a pipe of its own: its call changes neither the scheduler nor the settings of `pipe`.

    Args:
        progress: For the copy's progress bar; what the user has set wins.
    """
    copied = copy.copy(pipe)
    copied.__dict__["scheduler"] = copy.deepcopy(pipe.scheduler)  # setattr would look it up in the shared config
    copied.__dict__["_progress_bar_config"] = {**progress, **getattr(pipe, "_progress_bar_config", {})}
    return copied
