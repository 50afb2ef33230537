"""SHA-256 of files, those of large ones remembered."""

import hashlib
import json
import os
from contextlib import suppress
from pathlib import Path

from ..atomic_write import atomic_write

LARGE = 2**24  # bytes; smaller files are read as fast as what is remembered is found


def file_digest(path: Path) -> str:
    """SHA-256 of a file's content, 64 hexadecimal digits.

    Those of large files are remembered with path, size and time of change, in the Hub's cache of assets.

    Raises:
        OSError: The file cannot be read.
    """
    remembered = None
    found = path.stat()
    place = str(path.resolve())
    state = [place, found.st_size, found.st_mtime_ns]
    if found.st_size > LARGE:
        from huggingface_hub import cached_assets_path

        with suppress(OSError):
            folder = cached_assets_path("ma-agiqa", namespace="fingerprints")
            remembered = folder / f"{hashlib.sha256(os.fsencode(place)).hexdigest()[:32]}.json"
            with suppress(OSError, ValueError):
                *known, digest = json.loads(remembered.read_text(encoding="utf-8"))
                if known == state:
                    return digest
    digest = _sha256(path)
    if remembered is not None:
        with suppress(OSError), atomic_write(remembered, is_shared=True) as temporary:
            temporary.write_text(json.dumps([*state, digest]), encoding="utf-8")
    return digest


def _sha256(path: Path) -> str:
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while block := file.read(2**22):
            digest.update(block)
    return digest.hexdigest()
