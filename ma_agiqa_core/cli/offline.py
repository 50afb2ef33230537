"""`--offline`: Python opens no connection to another machine, whatever a library tries."""

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from ..errors import MaAgiqaError

_LOOPBACK = ("localhost", "127.", "::1", "0.0.0.0", "::ffff:127.")
_ASKS = {"socket.connect": 1, "socket.sendto": 1, "socket.getaddrinfo": 0, "socket.gethostbyname": 0}  # which argument

_state = {"forbidden": 0, "watching": 0}  # an audit hook cannot be taken away again


@contextmanager
def no_network() -> Iterator[None]:
    """Refuses connections to other machines inside this `with`, and tells Hugging Face's libraries.

    It sees what goes through Python's sockets. Of libraries that have their own, the Hub's client is told by its
    variable; sources at URLs are refused by name.
    """
    if not _state["watching"]:
        sys.addaudithook(_refuse)
        _state["watching"] = 1
    before = os.environ.get("HF_HUB_OFFLINE")
    os.environ["HF_HUB_OFFLINE"] = "1"
    _state["forbidden"] += 1
    try:
        yield
    finally:
        _state["forbidden"] -= 1
        if before is None:
            os.environ.pop("HF_HUB_OFFLINE", None)
        else:
            os.environ["HF_HUB_OFFLINE"] = before


def _refuse(event: str, arguments: tuple[Any, ...]) -> None:
    if not _state or not _state["forbidden"] or event not in _ASKS:  # no state: Python is ending
        return
    asked = arguments[_ASKS[event]]
    host = asked[0] if isinstance(asked, tuple) and asked else asked
    if isinstance(host, bytes):
        host = host.decode("ascii", "replace")
    is_of_this_machine = not isinstance(host, str) or not host or host.startswith(("/", "\0", *_LOOPBACK))
    if not is_of_this_machine:
        raise MaAgiqaError(f"Expected no network, as --offline says, got a connection to {host}. Leave --offline out.")
