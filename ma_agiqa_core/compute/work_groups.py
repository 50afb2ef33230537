"""Items in groups for one worker: as large as a few seconds of work, so that little is lost and little waits."""

import time
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor, wait
from typing import TypeVar

FIRST_GROUP, LARGEST_GROUP = 4, 64
GROWTH = 4  # of a group over the one before: the first may have waited for a model to be loaded
GROUP_SECONDS = 10.0  # of work that a killed run may lose
GROUP_PIXELS = 2**26  # 67 megapixels, decoded 200 MB: large pictures come in smaller groups

Item = TypeVar("Item")
Result = TypeVar("Result")


class Pace:
    """How many items a group has: as many as some seconds are enough for, by the last group."""

    def __init__(self, size: int | None = None, seconds: float = GROUP_SECONDS, least: int = 1) -> None:
        """With a `size` all groups have that many; without, `least` at least after the first."""
        self._is_fixed = size is not None
        self._seconds, self._least = seconds, least
        self.size = FIRST_GROUP if size is None else size

    def learn(self, count: int, seconds: float) -> None:
        """Says how long a group of `count` took."""
        if not self._is_fixed:
            enough = int(count * self._seconds / seconds) if seconds > 0 else LARGEST_GROUP
            self.size = min(max(enough, self._least), GROWTH * count, LARGEST_GROUP)


def work_in_groups(
    items: Iterable[Item],
    work: Callable[[list[Item]], Result],
    *,
    pixels_of: Callable[[Item], int],
    size: int | None = None,
    seconds: float = GROUP_SECONDS,
    least: int = 1,
    is_one_group: bool = False,
) -> Iterator[Result]:
    """What `work` makes of all items, a group at a time and in order.

    It works in a thread of its own, so that Ctrl-C reaches the caller at once, however long a group takes. The next
    group is gathered meanwhile.

    Args:
        items: Taken in the thread that asks.
        work: Called in the worker's thread.
        pixels_of: What an item takes up in memory.
        size: Items in a group; None finds it out, by the next two.
        seconds: That a group takes at most.
        least: Items in a group after the first, however long they take.
        is_one_group: All items are one group, whatever they take up.
    """
    pace = Pace(size, seconds, least)

    def timed(group: list[Item]) -> Result:
        started = time.monotonic()
        result = work(group)
        pace.learn(len(group), time.monotonic() - started)
        return result

    worker = ThreadPoolExecutor(1, thread_name_prefix="scorer")
    running: Future[Result] | None = None
    try:
        for group in [list(items)] if is_one_group else _groups(items, pixels_of, pace):
            submitted = worker.submit(timed, group)
            if running is not None:
                yield _interruptible(running)
            running = submitted
        if running is not None:
            yield _interruptible(running)
    except KeyboardInterrupt:
        if running is not None and running.done():  # what was scored is kept
            yield running.result()
        raise
    finally:
        worker.shutdown(wait=False, cancel_futures=True)


def _groups(items: Iterable[Item], pixels_of: Callable[[Item], int], pace: Pace) -> Iterator[list[Item]]:
    group: list[Item] = []
    pixels, started = 0, time.monotonic()
    for item in items:
        group.append(item)
        pixels += pixels_of(item)
        is_late = time.monotonic() - started > GROUP_SECONDS  # what is done already waits for it
        if len(group) >= pace.size or pixels >= GROUP_PIXELS or is_late:
            yield group
            group, pixels, started = [], 0, time.monotonic()
    if group:
        yield group


def _interruptible(future: Future[Result]) -> Result:
    while not wait([future], timeout=0.2).done:  # without a timeout Windows lets no Ctrl-C through
        pass
    return future.result()
