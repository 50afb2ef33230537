"""How far scoring is: networks tell it after every batch, and the watcher is called."""

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
    """Tells the watcher that a network has seen this many more pictures; 0 is a chance to end a long one."""
    if (callback := _watcher.get()) is not None:
        callback(pictures)
