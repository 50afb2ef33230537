"""Where a judge's weights lie: in a file, a folder or a repository of the Hub, under their published name."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ...arguments.options import expanded
from ...errors import MaAgiqaError, MissingFileError
from ...model_files.digest import file_digest
from ...model_files.hub import hub_file, is_hub_id, split_hub_id
from ...model_files.transformers_folder import read_json
from ..family import Request

CONFIGS = "ma_agiqa.configs"  # in the metadata of a converted file: the JSON files that lay beside the published one
DIGITS = 12  # of a fingerprint, as a revision


@dataclass(frozen=True)
class JudgeFiles:
    """What was found.

    Attributes:
        weights: The file.
        folder: Where config and tokenizer are looked for.
        name: Hub id, or the name of the folder or file.
        pinned: The fingerprint that is wanted; None for any, and for a Hub id, whose revision chose the file.
    """

    weights: Path
    folder: Path
    name: str
    pinned: str | None

    def config(self, name: str) -> dict[str, Any]:
        """What a JSON file beside the weights says, or what a converted file says that it said; else nothing.

        Raises:
            ValueError: It holds something else.
        """
        if (path := self.folder / name).is_file():
            return read_json(path)
        found = json.loads(_metadata(self.weights).get(CONFIGS, "{}")).get(name, {})
        return found if isinstance(found, dict) else {}


def find_weights(request: Request, family: str, names: Sequence[str]) -> JudgeFiles:
    """Finds the weights that `request.model` says.

    Args:
        request: Its `model` is a file, a folder or a Hub id; its revision of a Hub id is a branch, tag or commit, of
            files the first digits of their fingerprint.
        family: For messages.
        names: What they are called where they are published, the newest first, and what a converted file is called.

    Raises:
        FileNotFoundError: They are not on this machine and cannot be downloaded.
        ValueError: A folder without any of `names`, or no model is named.
    """
    model = request.model
    if not model.strip():
        raise MaAgiqaError(f"Expected a folder, file or Hub id after '{family}:', got none. Use {family!r} alone.")
    if is_hub_id(model):
        weights = _of_hub(request, names)
        return JudgeFiles(weights, weights.parent, split_hub_id(model)[0], None)
    path = expanded(model)
    if path.is_file():
        return JudgeFiles(path, path.parent, path.name, request.revision)
    if not path.is_dir():
        raise MissingFileError(f"Expected a file, folder or Hub id of {family}, got {model!r}: no such file or folder.")
    found = next((path / name for name in names if (path / name).is_file()), None)
    if found is None:
        raise MaAgiqaError(
            f"Expected {' or '.join(names)} in {str(path)!r}, got none of them. Download the judge's file, or name it."
        )
    return JudgeFiles(found, path, path.resolve().name, request.revision)


def fingerprint_of(paths: Sequence[Path]) -> str:
    """The first digits of a SHA-256: of one file that of its content, of several over theirs."""
    digests = [file_digest(path) for path in paths]
    if len(digests) == 1:
        return digests[0][:DIGITS]
    return hashlib.sha256("\n".join(digests).encode()).hexdigest()[:DIGITS]


def checked_revision(files: JudgeFiles, others: Sequence[Path] = ()) -> str:
    """The fingerprint of the weights, and of the `others` that decide on scores.

    Raises:
        ValueError: Another one is wanted.
    """
    found = fingerprint_of([files.weights, *others])
    if files.pinned is not None and files.pinned != found:
        raise MaAgiqaError(f"Expected revision {files.pinned!r}, got {found!r} in {str(files.weights)!r}.")
    return found


def _of_hub(request: Request, names: Sequence[str]) -> Path:
    """The first of the names that is here, else the first that the repository has."""
    failed: list[MissingFileError] = []
    for is_local in (True,) if request.local_files_only else (True, False):
        failed = []
        for name in names:
            try:
                return hub_file(request.model, name, revision=request.revision, local_files_only=is_local)
            except MissingFileError as error:
                failed.append(error)
    raise failed[0]


def _metadata(weights: Path) -> dict[str, str]:
    from safetensors import SafetensorError, safe_open

    if weights.suffix.lower() != ".safetensors":
        return {}
    try:
        with safe_open(weights, framework="pt") as opened:
            return opened.metadata() or {}
    except (SafetensorError, OSError):  # said by who reads the weights
        return {}
