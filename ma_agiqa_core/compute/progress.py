"""How far scoring is: networks report every batch, and a callback is called."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar

_watcher: ContextVar[Callable[[int], object] | None] = ContextVar("watcher", default=None)


@contextmanager
def watching(callback: Callable[[int], object]) -> Iterator[None]:
    """Calls `callback` inside this `with`, in this thread, with the number of pictures that a network has just seen.

    A picture counts once for every network that looks at it: once for `lite`, twice for MA-AGIQA with a language
    model, once for each member of an ensemble. What `callback` raises ends the scoring.
    """
    token = _watcher.set(callback)
    try:
        yield
    finally:
        _watcher.reset(token)


def tick(pictures: int) -> None:
    """Reports that a network has seen this many more pictures; 0 gives the callback a chance to end a long run."""
    if (callback := _watcher.get()) is not None:
        callback(pictures)
