"""Prompts as token ids: cut where the judge stops to read, and said."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from ...compute.own_lock import OwnLock
from ...errors import MaAgiqaError, MissingFileError, first_line
from ...model_files.hub import hub_file

logger = logging.getLogger(__name__)

_MOST_REMEMBERED = 1000  # prompts whose truncation was told


class PromptTokens:
    """A tokenizer with a limit.

    Args:
        tokenizer: Of transformers.
        limit: How many tokens the judge reads, the first and last included.
        judge: For the log.
    """

    def __init__(self, tokenizer: Any, limit: int, judge: str) -> None:
        self._tokenizer, self.limit, self._judge = tokenizer, limit, judge
        self._tokenizing = OwnLock()  # padding and truncation are settings of the tokenizer's own
        self._cut: set[str] = set()

    def ids(self, texts: Sequence[str]) -> list[list[int]]:
        """Token ids of each text, not padded; of one that is longer than the limit, the log says so once."""
        with self._tokenizing:
            whole = [self._tokenizer(text, verbose=False)["input_ids"] for text in texts]
        for text, found in zip(texts, whole, strict=True):
            if len(found) > self.limit and text not in self._cut and len(self._cut) < _MOST_REMEMBERED:
                self._cut.add(text)
                logger.warning(
                    "%s reads the first %d of the %d tokens of the prompt %.200r",
                    self._judge,
                    self.limit,
                    len(found),
                    text,
                )
        return [found if len(found) <= self.limit else [*found[: self.limit - 1], found[-1]] for found in whole]


def load_tokenizer(
    class_name: str,
    folders: Sequence[Path],
    files: Sequence[tuple[str, ...]],
    repository: str,
    *,
    local_files_only: bool,
) -> Any:
    """The tokenizer in one of the folders; if there is none, the one that the judge was published to be used with.

    Args:
        class_name: Of transformers.
        folders: Looked at first.
        files: Sets of names, each enough for a tokenizer.
        repository: Of the Hub, with the first of `files`.
        local_files_only: Never use the network.

    Raises:
        FileNotFoundError: It is in neither place.
        ValueError: Its files are damaged.
    """
    import transformers

    has_one = (folder for folder in folders if any(all((folder / name).is_file() for name in names) for names in files))
    folder = next(has_one, None) or _of_hub(files, repository, local_files_only=local_files_only)
    if folder is None:
        wanted = " or ".join(" and ".join(names) for names in files)
        raise MissingFileError(
            f"Expected a tokenizer ({wanted}) in {str(folders[0])!r}, got none. It is that of {repository}: run "
            f"`hf download {repository} {' '.join(files[0])}`, or copy it into the folder."
        )
    try:
        return getattr(transformers, class_name).from_pretrained(folder, local_files_only=True)
    except Exception as error:  # it raises whatever the first damage leads to
        raise MaAgiqaError(
            f"Expected a tokenizer in {str(folder)!r}, got {first_line(error)} Download it again."
        ) from error


def _of_hub(files: Sequence[tuple[str, ...]], repository: str, *, local_files_only: bool) -> Path | None:
    """The folder in the Hub's cache with one of the sets of files, which is downloaded if it may be."""
    for is_local in (True,) if local_files_only else (True, False):
        for names in files:
            with suppress(FileNotFoundError):
                places = [hub_file(repository, name, local_files_only=is_local) for name in names]
                return places[0].parent
    return None


def check_special_tokens(tokenizer: Any, expected: dict[str, int], rows: int, where: str) -> None:
    """Refuses a tokenizer of another model.

    Args:
        tokenizer: Of transformers.
        expected: Special tokens and their ids.
        rows: Of the judge's word embeddings.
        where: Its folder or file, for messages.

    Raises:
        ValueError: A special token is no single id, or another one, or there are more tokens than embeddings.
    """
    for token, number in expected.items():
        found = tokenizer(token, add_special_tokens=False, verbose=False)["input_ids"]
        if found != [number]:
            raise MaAgiqaError(
                f"Expected {token!r} to be the token {number} of the tokenizer in {where!r}, got {found}. "
                "Use the tokenizer that the judge was published with."
            )
    if len(tokenizer) > rows:
        raise MaAgiqaError(
            f"Expected a tokenizer of at most {rows} tokens in {where!r}, got {len(tokenizer)}. "
            "Use the tokenizer that the judge was published with."
        )
