"""Work done in threads before its result is asked for."""

import threading
from collections import deque
from collections.abc import Callable, Generator, Iterable
from concurrent.futures import CancelledError, Future, ThreadPoolExecutor
from typing import TypeVar

Item = TypeVar("Item")
Made = TypeVar("Made")


def prefetch(
    items: Iterable[Item],
    make: Callable[[Item], Made],
    workers: int,
    ahead: int | None = None,
    *,
    weigh: Callable[[Item], float] = lambda item: 0,
    most: float = 0,
) -> Generator[Made, None, None]:
    """`make` of each item in order, made in threads before it is asked for.

    Endless iterables are fine. A generator that is left early stops its threads without waiting for them.

    Args:
        items: Taken when their turn comes, in the thread that asks.
        make: Called in the threads; what it raises is raised in the item's place.
        workers: Threads.
        ahead: How many are held or being made before they are asked for; default `workers`.
        weigh: Called in the threads; what it raises is raised in the item's place.
        most: What is held or being made weighs no more in all, but for the next one to be asked for: it is made
            whatever it weighs.
    """
    pool = ThreadPoolExecutor(workers, thread_name_prefix="prefetch")
    ahead = workers if ahead is None else ahead
    pending: deque[Future[Made]] = deque()
    room = _Room(most)

    def make_in_turn(place: int, item: Item) -> Made:
        weight = 0.0
        try:
            weight = weigh(item)
        finally:
            room.enter(place, weight)
        return make(item)

    def next_made() -> Made:
        made = pending.popleft().result()
        room.leave()
        return made

    try:
        for place, item in enumerate(items):
            pending.append(pool.submit(make_in_turn, place, item))
            if len(pending) > ahead:
                yield next_made()
        while pending:
            yield next_made()
    finally:
        room.close()
        pool.shutdown(wait=False, cancel_futures=True)


class _Room:
    """What is held or being made: places are entered and left in order, and the next one to be left is always let in.

    Threads take items in order, so that one always has the next place, and nothing waits forever.
    """

    def __init__(self, most: float) -> None:
        self._most = most
        self._weights: dict[int, float] = {}
        self._entered = self._next = 0
        self._is_closed = False
        self._changed = threading.Condition()

    def enter(self, place: int, weight: float) -> None:
        """Waits until there is room.

        Raises:
            CancelledError: Nothing will be asked for any more.
        """
        with self._changed:
            self._changed.wait_for(lambda: self._is_closed or (place == self._entered and self._has_room(weight)))
            if self._is_closed:
                raise CancelledError
            self._weights[place] = weight
            self._entered += 1
            self._changed.notify_all()

    def _has_room(self, weight: float) -> bool:
        return self._entered == self._next or sum(self._weights.values()) + weight <= self._most

    def leave(self) -> None:
        """The next one was asked for."""
        with self._changed:
            self._weights.pop(self._next, None)
            self._next += 1
            self._changed.notify_all()

    def close(self) -> None:
        """Wakes all waiting threads."""
        with self._changed:
            self._is_closed = True
            self._changed.notify_all()
