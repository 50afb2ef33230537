"""A worker in a process of its own, and what the two say to each other: pickled tuples over its standard streams.

To the worker: ("shard" or "careful", number, shard, keys to leave out), ("pause",), ("end",). From it: ("want",),
("ready", facts), ("at", key), ("rows", scored rows, numbers of finished shards), ("refused", error), ("broken", text).
Both are programs of ours on one machine, and nothing else can write there.
"""

from __future__ import annotations

import os
import pickle
import queue
import signal
import subprocess
import sys
import threading
import traceback
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import replace
from typing import Any, BinaryIO

from ...errors import MaAgiqaError
from ..rows import Row
from ..run import EngineRun
from ..sources.shard import Shard, rows_of
from .work import Worker


class WorkerProcess:
    """The worker as its owner sees it. What it says comes in `messages`, and at last ("died",).

    Raises:
        ValueError: The judges are objects that cannot be sent.
    """

    def __init__(self, number: int, run: EngineRun, workers: int, messages: queue.Queue[tuple[Any, Any]]) -> None:
        self.number = number
        self.was_ready = False
        self._messages = messages
        try:
            first = pickle.dumps((list(sys.path), number, workers, run))
        except Exception as error:  # pickle raises nearly every kind
            raise MaAgiqaError(
                f"Expected judges that several processes can load, got some that cannot be sent ({error}). Name them "
                "as for load_scorer, or take one worker."
            ) from error
        threads = str(max(1, (os.cpu_count() or 1) // workers))
        self._process = subprocess.Popen(
            [sys.executable, "-c", f"import sys; sys.path[:] = {sys.path!r}; from {__name__} import main; main()"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            env={"OMP_NUM_THREADS": threads, "MKL_NUM_THREADS": threads, **os.environ},
        )
        self._write(first)
        threading.Thread(target=self._listen, name=f"worker-{number}", daemon=True).start()

    @property
    def pid(self) -> int:
        """Of the process."""
        return self._process.pid

    def send(self, message: tuple[Any, ...]) -> None:
        """Says something; a worker that died hears nothing."""
        self._write(pickle.dumps(message))

    def kill(self) -> None:
        """Ends it at once."""
        self._process.kill()
        self._process.wait()

    def exit_code(self) -> int | None:
        """Of a process that has ended."""
        with suppress(subprocess.TimeoutExpired):
            self._process.wait(5)
        return self._process.returncode

    def _write(self, content: bytes) -> None:
        assert self._process.stdin is not None
        with suppress(OSError):
            self._process.stdin.write(content)
            self._process.stdin.flush()

    def _listen(self) -> None:
        assert self._process.stdout is not None
        with suppress(Exception):  # torn where it was killed
            while True:
                message = pickle.load(self._process.stdout)
                self.was_ready |= message[0] == "ready"
                self._messages.put((self, message))
        self._messages.put((self, ("died",)))


def main() -> None:
    """The worker."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # its owner ends it
    inwards, outwards = sys.stdin.buffer, os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)  # what libraries print must not come between
    with suppress(EOFError, BrokenPipeError):  # the owner is gone
        _work(inwards, outwards)
    os._exit(0)


def _work(inwards: BinaryIO, outwards: BinaryIO) -> None:
    def say(*message: Any) -> None:
        pickle.dump(message, outwards)
        outwards.flush()

    _path, _number, workers, run = pickle.load(inwards)
    try:
        worker = Worker(run, workers)
        say("ready", worker.facts)
        _Conversation(worker, inwards, say).go_on()
    except (EOFError, BrokenPipeError):
        raise
    except (MaAgiqaError, OSError) as error:
        say("refused", error)
    except Exception:
        say("broken", traceback.format_exc())


class _Conversation:
    """Asks for shards while it scores: the rows of the next are fetched before the last are done."""

    def __init__(self, worker: Worker, inwards: BinaryIO, say: Callable[..., None]) -> None:
        self._worker, self._inwards, self._say = worker, inwards, say
        self._left: dict[int, int] = {}  # rows of a shard that are not scored yet
        self._is_read: set[int] = set()  # shards that were gone through
        self._careful: tuple[int, Shard, frozenset[str]] | None = None
        self._is_paused = self._is_over = False

    def go_on(self) -> None:
        """Until there is nothing left in the whole run."""
        while not self._is_over:
            for rows in self._worker.score(self._rows()):
                for row in rows:
                    self._left[row.shard] -= 1
                self._say("rows", rows, self._finished())
            self._say("rows", [], self._finished())
            if self._careful is not None:
                self._go_carefully(*self._careful)

    def _rows(self) -> Iterator[Row]:
        """Of shard after shard, until there is none for now."""
        if not self._is_paused:
            self._say("want")
        self._is_paused, self._careful = False, None
        while True:
            what, *details = pickle.load(self._inwards)
            if what == "careful":
                self._careful = (details[0], details[1], details[2])
                return
            if what != "shard":
                self._is_paused, self._is_over = what == "pause", what == "end"
                return
            number, shard, skip = details
            self._left[number] = 0
            for row in self._of(shard, skip):
                self._left[number] += 1
                yield replace(row, shard=number)
            self._is_read.add(number)
            self._say("want")

    def _of(self, shard: Shard, skip: frozenset[str]) -> Iterator[Row]:
        return (row for row in rows_of(shard) if row.key not in skip and row.key not in self._worker.done)

    def _finished(self) -> list[int]:
        finished = [number for number in self._is_read if not self._left[number]]
        for number in finished:
            self._is_read.discard(number)
            del self._left[number]
        return finished

    def _go_carefully(self, number: int, shard: Shard, skip: frozenset[str]) -> None:
        """One picture at a time, each told before: if this process dies, its owner knows of which."""
        for row in self._of(shard, skip):
            self._say("at", row.key)
            for rows in self._worker.score([row]):
                self._say("rows", rows, [])
        self._say("rows", [], [number])
