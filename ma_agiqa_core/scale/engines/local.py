"""This machine: one worker in this process, or several in processes of their own, one for each graphics card."""

from __future__ import annotations

import json
import queue
from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any

from ...errors import MaAgiqaError
from ..run import EngineRun, Results, Scored
from ..scoring import ScoredRow
from ..sources.shard import Shard
from .processes import WorkerProcess
from .work import Worker

MOST_DEATHS_AT_START = 3
MOST_DEATHS_LATER = 20  # one after the other, where judges could be loaded before
CAREFUL_AFTER = 2  # deaths over the same shard
DIED = "the process died in which it was scored, as by a lack of memory or a fault in a decoder"


def run_locally(shards: Iterator[Shard], run: EngineRun) -> Results:
    """Scores shards on this machine.

    With one worker this happens in this process. Several are processes of their own: one that dies is replaced, and
    its shards are done again; where two died over one shard it is gone through picture by picture, and the one at which
    a process dies again gets a row with that error.

    Raises:
        ValueError: The judges cannot be loaded, or not in processes of their own.
    """
    devices = _devices(run)
    if len(devices) == 1:
        worker = Worker(_on_device(run, devices[0]))
        return (Scored(rows, worker.facts) for rows in worker.score_shards(shards))
    return _Pool(shards, run, devices).results()


def _devices(run: EngineRun) -> list[str]:
    """The device of every worker."""
    device = str(run.settings.options.get("device", "auto"))
    if device == "auto" and all(isinstance(model, str) for model in run.settings.models):
        import torch

        if (cards := torch.cuda.device_count()) > 1:
            count = run.workers or cards
            return [f"cuda:{number % cards}" for number in range(count)]
    return [device] * (run.workers or 1)


def _on_device(run: EngineRun, device: str) -> EngineRun:
    return replace(run, settings=replace(run.settings, options={**run.settings.options, "device": device}))


@dataclass
class _Task:
    """A shard that is to be done."""

    number: int
    shard: Shard
    deaths: int = 0
    skip: frozenset[str] = frozenset()


class _Pool:
    """Hands shards to processes as they ask, and takes back those of a process that died."""

    def __init__(self, shards: Iterator[Shard], run: EngineRun, devices: list[str]) -> None:
        self._shards = enumerate(shards)
        self._run = run
        self._devices = devices
        self._again: deque[_Task] = deque()
        self._messages: queue.Queue[tuple[WorkerProcess, Any]] = queue.Queue()
        self._held: dict[WorkerProcess, dict[int, _Task]] = {}
        self._resting: list[WorkerProcess] = []  # those that asked when there was nothing to do
        self._at: dict[WorkerProcess, str] = {}
        self._deaths_at_start = 0
        self._facts: str | None = None
        self._is_at_end = False

    def results(self) -> Results:
        try:
            for number in range(len(self._devices)):
                self._start(number)
            while self._held:
                worker, message = self._messages.get()
                yield from self._heard(worker, message)
        finally:
            for worker in list(self._held):
                worker.kill()

    def _start(self, number: int) -> None:
        run = _on_device(self._run, self._devices[number])
        self._held[WorkerProcess(number, run, len(self._devices), self._messages)] = {}

    def _heard(self, worker: WorkerProcess, message: Any) -> Results:
        if worker not in self._held:
            return
        what, *details = message
        if what == "ready":
            (self._facts,) = details
            self._deaths_at_start = 0
        elif what == "want":
            self._answer(worker)
        elif what == "at":
            (self._at[worker],) = details
        elif what == "rows":
            rows, finished = details
            for number in finished:
                self._held[worker].pop(number, None)
            assert self._facts is not None
            if rows:
                yield Scored(rows, self._facts)
            self._let_go()
        elif what == "refused":
            raise details[0]
        elif what == "broken":
            raise RuntimeError(f"A worker has met a bug:\n{details[0]}")
        else:
            yield from self._died(worker)

    def _answer(self, worker: WorkerProcess) -> None:
        task = self._next()
        if task is not None:
            self._held[worker][task.number] = task
            is_careful = task.deaths >= CAREFUL_AFTER
            self._at.pop(worker, None)
            worker.send(("careful" if is_careful else "shard", task.number, task.shard, task.skip))
        else:
            worker.send(("pause",))
            self._resting.append(worker)
            self._let_go()

    def _next(self) -> _Task | None:
        if self._again:
            return self._again.popleft()
        if self._is_at_end:
            return None
        if (found := next(self._shards, None)) is None:
            self._is_at_end = True
            return None
        return _Task(*found)

    def _let_go(self) -> None:
        """Ends the resting workers when all is done, and wakes them for what has to be done again."""
        while self._again and self._resting:
            worker = self._resting.pop()
            if worker in self._held:
                self._answer(worker)
        if self._is_at_end and not self._again and not any(self._held.values()):
            for worker in list(self._held):
                worker.send(("end",))
                del self._held[worker]

    def _died(self, worker: WorkerProcess) -> Results:
        tasks = self._held.pop(worker)
        self._resting = [other for other in self._resting if other is not worker]
        if not worker.was_ready:
            self._deaths_at_start += 1
            if self._deaths_at_start >= (MOST_DEATHS_AT_START if self._facts is None else MOST_DEATHS_LATER):
                raise MaAgiqaError(
                    f"Expected workers that load the judges, got {self._deaths_at_start} that died of it (exit code "
                    f"{worker.exit_code()}). Give fewer workers, or see what they print above."
                )
        at = self._at.pop(worker, None)
        for task in tasks.values():
            skip = task.skip
            if task.deaths >= CAREFUL_AFTER and at is not None:
                skip |= {at}
                assert self._facts is not None
                nothing = (None,) * len(json.loads(self._facts))
                yield Scored([ScoredRow(at, nothing, nothing, DIED, None, None, None, None)], self._facts)
            self._again.append(_Task(task.number, task.shard, task.deaths + 1, skip))
        if self._again or not self._is_at_end:
            self._start(worker.number)
        self._let_go()
