"""One writer at a time for an output that grows while it is written."""

import errno
import logging
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from ..errors import MaAgiqaError, OutputExistsError

logger = logging.getLogger(__name__)

_NO_LOCKS = (errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP, errno.EINVAL)  # of file systems that cannot lock


@contextmanager
def only_writer(out: Path) -> Iterator[None]:
    """Keeps other processes from writing `out` inside this `with`, by a lock on a file beside it.

    The system lets go of what a killed process held. On a file system without locks the log says that nothing keeps
    a second process away.

    Raises:
        FileExistsError: Another process is writing it.
        ValueError: No file can be made beside it.
    """
    from filelock import FileLock, Timeout

    out = out.resolve()  # the same file by a link is the same output
    file = out.with_name(out.name + ".lock")
    lock = FileLock(file, timeout=0)
    try:
        lock.acquire()
    except Timeout:
        raise OutputExistsError(
            f"Expected an output that no other process is writing, got {out}. Wait for that process, or name another "
            "output."
        ) from None
    except (NotImplementedError, OSError) as error:
        if isinstance(error, OSError) and error.errno not in _NO_LOCKS:
            raise MaAgiqaError(f"Expected an output that can be written, got {out}: {error.strerror}.") from error
        logger.warning("%s cannot be locked there (%s): let no second process write it", out, error)
        yield
        return
    try:
        yield
    finally:
        with suppress(OSError):
            file.unlink()  # while it is held, so that nobody's next lock is deleted; Windows refuses that, and keeps it
        lock.release()
