"""Batches in lockstep: one computes at a time, all are decided on together, none outlives a failure."""

import contextvars
import threading
from collections.abc import Callable, Iterator, Sequence
from types import ModuleType
from typing import Any

import pytest
import torch

from ma_agiqa_core.generation.best_of.lockstep import BatchEnded, Ended, Pause, light_copy, run_in_lockstep


@pytest.fixture(autouse=True)
def no_thread_stays() -> Iterator[None]:
    before = threading.active_count()
    yield
    assert threading.active_count() == before


class Batches:
    """Batches that pause `stages` times; notes who computes and what was left properly."""

    def __init__(self, stages: int = 2) -> None:
        self.stages = stages
        self.log: list[tuple[str, int]] = []
        self.left: list[str] = []
        self.computing = 0

    def run(self, batch: str, pause: Pause) -> str:
        try:
            for stage in range(self.stages):
                self.computing += 1
                assert self.computing == 1
                self.log.append((batch, stage))
                pause(None)
                self.computing -= 1
                batch = pause(batch)
            return batch
        finally:
            self.left.append(batch)


def renamed(reports: Sequence[str]) -> list[str]:
    return [report + "'" for report in reports]


def test_all_batches_pause_before_any_goes_on() -> None:
    batches = Batches()
    assert run_in_lockstep(["a", "b", "c"], batches.run, renamed) == ["a''", "b''", "c''"]
    assert batches.log == [("a", 0), ("b", 0), ("c", 0), ("a'", 1), ("b'", 1), ("c'", 1)]


def test_decisions_are_made_in_the_callers_thread_with_all_reports() -> None:
    seen: list[list[str]] = []

    def decide(reports: list[str]) -> list[str]:
        assert threading.current_thread() is threading.main_thread()
        seen.append(list(reports))
        return reports

    run_in_lockstep(["a", "b"], Batches().run, decide)
    assert seen == [["a", "b"], ["a", "b"]]


def test_one_batch_needs_no_thread() -> None:
    threads: list[threading.Thread] = []

    def run(batch: str, pause: Pause) -> str:
        threads.append(threading.current_thread())
        pause(None)
        return pause(batch)

    assert run_in_lockstep(["a"], run, renamed) == ["a'"]
    assert threads == [threading.main_thread()]
    assert run_in_lockstep(["a"], run, lambda reports: [Ended()]) == [None]


def test_no_batches() -> None:
    assert run_in_lockstep([], Batches().run, renamed) == []


def test_ended_batches_have_no_result_and_the_others_go_on() -> None:
    batches = Batches()

    def decide(reports: Sequence[str]) -> list[Any]:
        return [Ended() if report == "b" else report for report in reports]

    assert run_in_lockstep(["a", "b", "c"], batches.run, decide) == ["a", None, "c"]
    assert sorted(batches.left) == ["a", "b", "c"]


def test_batches_may_finish_at_different_times() -> None:
    def run(batch: int, pause: Pause) -> int:
        for _ in range(batch):
            pause(batch)
        return batch

    counts: list[int] = []
    run_in_lockstep([3, 0, 1], run, lambda reports: counts.append(len(reports)) or reports)  # type: ignore[func-returns-value]
    assert counts == [2, 1, 1]


@pytest.mark.parametrize("error", [ValueError, KeyboardInterrupt, SystemExit])
@pytest.mark.parametrize("names", [["a"], ["a", "b", "c"]])
def test_an_error_while_deciding_ends_all(names: list[str], error: type[BaseException]) -> None:
    batches = Batches()

    def decide(reports: Sequence[str]) -> list[str]:
        raise error("no")

    with pytest.raises(error, match="no"):
        run_in_lockstep(names, batches.run, decide)
    assert sorted(batches.left) == names


@pytest.mark.parametrize("error", [ValueError, MemoryError, KeyboardInterrupt])
@pytest.mark.parametrize("at", [("a", 0), ("b", 0), ("c", 0), ("a'", 1), ("b'", 1)])
def test_an_error_in_one_batch_ends_the_others(at: tuple[str, int], error: type[BaseException]) -> None:
    batches = Batches()

    def run(batch: str, pause: Pause) -> str:
        def pause_or_fail(report: Any) -> Any:
            if report is None and batches.log[-1] == at:
                raise error("here")
            return pause(report)

        return batches.run(batch, pause_or_fail)

    with pytest.raises(error, match="here"):
        run_in_lockstep(["a", "b", "c"], run, renamed)
    assert len(batches.left) == len({batch for batch, _ in batches.log if len(batch) == 1})


def test_a_computing_batch_ends_at_its_next_step(monkeypatch: pytest.MonkeyPatch) -> None:
    """Ctrl-C reaches the caller's thread while a batch computes in another."""
    steps: list[int] = []
    started, interrupted = threading.Event(), threading.Event()

    def run(batch: str, pause: Pause) -> None:
        for step in range(10):
            steps.append(step)
            started.set()
            interrupted.wait(30)
            pause(None)

    from ma_agiqa_core.generation.best_of import lockstep

    def interrupt(semaphore: threading.Semaphore, **_: Any) -> bool:
        started.wait(30)
        raise KeyboardInterrupt

    end = lockstep._Coroutine.end

    def end_then_let_go(coroutine: Any) -> None:
        coroutine._is_ending = True
        interrupted.set()
        end(coroutine)

    class Interrupted(threading.Semaphore):
        def acquire(self, blocking: bool = True, timeout: float | None = None) -> bool:
            if threading.current_thread() is threading.main_thread():
                interrupt(self)
            return super().acquire(blocking, timeout)

    monkeypatch.setattr(lockstep._Coroutine, "end", end_then_let_go)
    monkeypatch.setattr(lockstep.threading, "Semaphore", Interrupted)
    with pytest.raises(KeyboardInterrupt):
        run_in_lockstep(["a", "b"], run, renamed)
    assert steps == [0]


def test_a_batch_ended_is_no_error_that_pipelines_catch() -> None:
    assert not issubclass(BatchEnded, Exception)


VARIABLE: contextvars.ContextVar[str] = contextvars.ContextVar("VARIABLE", default="unset")


def surroundings(batch: object, pause: Pause) -> tuple[object, ...]:
    return (
        torch.is_grad_enabled(),
        torch.is_inference_mode_enabled(),
        torch.is_autocast_enabled("cpu") and torch.get_autocast_dtype("cpu"),
        torch.get_default_device(),
        torch.get_num_threads(),
        VARIABLE.get(),
    )


@pytest.mark.parametrize(
    "enter",
    [
        torch.no_grad,
        torch.enable_grad,
        torch.inference_mode,
        lambda: torch.autocast("cpu", dtype=torch.bfloat16),
        lambda: torch.device("meta"),
    ],
    ids=["no_grad", "enable_grad", "inference_mode", "autocast", "default_device"],
)
def test_what_torch_keeps_per_thread_is_the_same_in_all_batches(enter: Callable[[], Any]) -> None:
    token = VARIABLE.set("set")
    try:
        with enter():
            expected = surroundings(None, renamed)
            assert run_in_lockstep([0, 1], surroundings, renamed) == [expected] * 2
    finally:
        VARIABLE.reset(token)


def test_a_light_copy_has_the_same_models_and_a_scheduler_of_its_own(tiny_pipelines: ModuleType) -> None:
    pipe = tiny_pipelines.pipeline("sd")
    pipe.scheduler.set_timesteps(3)
    config = pipe.config
    copied = light_copy(pipe, progress={"desc": "seeds 0-3"})
    assert type(copied) is type(pipe)
    assert copied.unet is pipe.unet
    assert copied.vae is pipe.vae
    copied.scheduler.set_timesteps(7)
    assert len(pipe.scheduler.timesteps) == 3
    copied._interrupt = True
    copied._num_timesteps = 7
    assert not getattr(pipe, "_interrupt", False)
    assert pipe._progress_bar_config == {"disable": True}
    assert copied._progress_bar_config == {"desc": "seeds 0-3", "disable": True}
    assert pipe.config is config
