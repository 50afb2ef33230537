"""Standard output and error when they are closed, full, or nobody reads them any more."""

import os
import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

READER_LEFT = 141  # what a shell says of a program that ended by SIGPIPE


class ReaderLeftError(Exception):
    """The program that reads our output has closed it, as `head` does: nobody is left to report to."""


def open_streams() -> None:
    """Opens streams that our parent process closed, lest the next file that is opened becomes standard output."""
    for name, mode in (("stdin", "r"), ("stdout", "w"), ("stderr", "w")):
        if getattr(sys, name) is None:
            setattr(sys, name, Path(os.devnull).open(mode))  # noqa: SIM115 - open to the end
    for stream in (sys.stdout, sys.stderr):  # any file name can be printed, whatever the terminal's encoding
        stream.reconfigure(errors="backslashreplace")  # type: ignore[union-attr]


@contextmanager
def writing_to_reader() -> Iterator[None]:
    """Turns the error of writing to a pipe that nobody reads into `ReaderLeftError`."""
    try:
        yield
    except BrokenPipeError as error:
        raise ReaderLeftError from error


def flush_streams() -> None:
    """Writes out what is left; what cannot be written is dropped, where Python would end with exit code 120."""
    for stream in (sys.stdout, sys.stderr):
        try:
            stream.flush()
        except (OSError, ValueError):
            with suppress(OSError, ValueError):
                nowhere = os.open(os.devnull, os.O_WRONLY)
                os.dup2(nowhere, stream.fileno())


def end_as_reader_left() -> None:
    """Ends at once and without a word, by SIGPIPE like other programs; threads that still score are not awaited."""
    if hasattr(signal, "SIGPIPE"):
        signal.signal(signal.SIGPIPE, signal.SIG_DFL)
        os.kill(os.getpid(), signal.SIGPIPE)
    os._exit(READER_LEFT)
