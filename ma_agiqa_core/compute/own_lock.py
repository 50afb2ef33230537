"""A lock that does not stand in the way of copies."""

from __future__ import annotations

import threading
from types import TracebackType


class OwnLock:
    """`threading.Lock` for attributes: the copy of an object, also one that was pickled, gets a new one, not held."""

    def __init__(self) -> None:
        self._lock = threading.Lock()

    def __enter__(self) -> None:
        self._lock.acquire()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._lock.release()

    def __reduce__(self) -> tuple[type[OwnLock], tuple[()]]:
        return OwnLock, ()
