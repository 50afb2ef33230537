"""Scores of the ordering test that a next run reuses: a file of JSON lines, each a scorer's scores of one ladder."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable
from pathlib import Path


def digest(*parts: str | bytes | Path) -> str:
    """Of strings, bytes and the content of files, in their order."""
    found = hashlib.sha256()
    for part in parts:
        data = part.read_bytes() if isinstance(part, Path) else part.encode() if isinstance(part, str) else part
        found.update(hashlib.sha256(data).digest())
    return found.hexdigest()[:24]


class KeptScores:
    """Scores by key, appended to a file as they are made; without a file they are kept for this run only.

    Args:
        path: Its folder is made. A last line that an interrupted run cut short is left out.
    """

    def __init__(self, path: Path | None) -> None:
        self._path = path
        self._known: dict[str, list[float]] = {}
        if path is None or not path.exists():
            return
        for line in path.read_text(encoding="utf-8").splitlines():
            try:
                row = json.loads(line)
            except ValueError:
                continue
            self._known[row["key"]] = row["scores"]

    def __contains__(self, key: str) -> bool:
        return key in self._known

    def __getitem__(self, key: str) -> list[float]:
        return self._known[key]

    def add(self, rows: Iterable[tuple[str, list[float]]]) -> None:
        """Keeps scores by key; NaN is a score too."""
        lines = []
        for key, scores in rows:
            self._known[key] = scores
            lines.append(json.dumps({"key": key, "scores": scores}) + "\n")
        if self._path is not None and lines:
            self._path.parent.mkdir(parents=True, exist_ok=True)
            with self._path.open("a", encoding="utf-8") as file:
                file.write("\n" * self._is_cut_short() + "".join(lines))

    def _is_cut_short(self) -> bool:
        if self._path is None or not self._path.exists() or not self._path.stat().st_size:
            return False
        with self._path.open("rb") as file:
            file.seek(-1, 2)
            return file.read() != b"\n"
