"""Ctrl-C at a moment that suits: after what must not be parted."""

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any


@contextmanager
def interrupts_held() -> Iterator[None]:
    """Ctrl-C waits until the block is done, so that it never parts a batch."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    held: list[tuple[Any, Any]] = []
    previous = signal.signal(signal.SIGINT, lambda *received: held.append(received))
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, previous)
        if held and callable(previous):
            previous(*held[0])
