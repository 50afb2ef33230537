"""Files that appear whole or not at all."""

from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """A temporary file beside `path` that takes its place at the end, or vanishes if anything is raised.

    Others may read it as any new file, also where safetensors wrote it, for whose files only their owner may.
    """
    temporary = path.with_name(path.name + ".tmp")
    try:
        temporary.write_bytes(b"")
        mode = temporary.stat().st_mode
        yield temporary
        temporary.chmod(mode)
        temporary.replace(path)
    except BaseException:
        with suppress(OSError):
            temporary.unlink()
        raise
