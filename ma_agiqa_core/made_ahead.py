"""Work done in threads ahead of whoever asks for it."""

from collections import deque
from collections.abc import Callable, Generator, Iterable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

Item = TypeVar("Item")
Made = TypeVar("Made")


def made_ahead(
    items: Iterable[Item], make: Callable[[Item], Made], workers: int, ahead: int | None = None
) -> Generator[Made, None, None]:
    """`make` of each item in order, made in threads before it is asked for.

    Endless iterables are fine. A generator that is left early stops its threads without waiting for them.

    Args:
        items: Taken when their turn comes, in the thread that asks.
        make: Called in the threads; what it raises is raised in the item's place.
        workers: Threads.
        ahead: How many are held or being made before they are asked for; default `workers`.
    """
    pool = ThreadPoolExecutor(workers, thread_name_prefix="made-ahead")
    ahead = workers if ahead is None else ahead
    pending: deque[Future[Made]] = deque()
    try:
        for item in items:
            pending.append(pool.submit(make, item))
            if len(pending) > ahead:
                yield pending.popleft().result()
        while pending:
            yield pending.popleft().result()
    finally:
        pool.shutdown(wait=False, cancel_futures=True)
