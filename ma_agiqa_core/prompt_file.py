"""Reading `--prompts FILE`: which prompt each picture was made from, or which prompts to make pictures from."""

import csv
import json
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import TextIO

from .errors import MaAgiqaError
from .records import path_key


def read_prompts(file: Path) -> dict[str, str]:
    """Reads a CSV or JSON Lines file with `path` and `prompt`.

    Args:
        file: UTF-8; other columns are passed over. A path is absolute, or relative to the file's folder.

    Returns:
        Prompts by what `path_key` makes of the picture's path.

    Raises:
        ValueError: Another ending, or a row without path and prompt, with its line.
    """
    if file.suffix.lower() not in _ROWS:
        raise MaAgiqaError(f"Expected prompts in a .csv or .jsonl file, got {file}.")
    prompts = {}
    with file.open(encoding="utf-8-sig", newline="") as text:
        try:
            for number, row in enumerate(_ROWS[file.suffix.lower()](text), start=1):
                path, prompt = row.get("path"), row.get("prompt")
                if not (isinstance(path, str) and path and isinstance(prompt, str)):
                    raise MaAgiqaError(f"row {number} is {json.dumps(row, ensure_ascii=False)}")
                prompts[path_key(file.parent / path)] = prompt
        except (csv.Error, AttributeError, ValueError) as error:
            raise MaAgiqaError(f"Expected path and prompt in every row of {file}, got an error: {error}.") from error
    return prompts


def read_prompt_lines(file: Path) -> list[str]:
    """Reads plain text, UTF-8, one prompt a line; empty lines are passed over.

    Raises:
        ValueError: No prompts, or no plain text.
        OSError: The file cannot be read.
    """
    try:
        lines = [line.strip() for line in file.read_text(encoding="utf-8-sig").splitlines()]
    except UnicodeDecodeError as error:
        raise MaAgiqaError(f"Expected prompts as plain text in {file}, got an error: {error}.") from error
    if prompts := [line for line in lines if line]:
        return prompts
    raise MaAgiqaError(f"Expected prompts in {file}, one a line, got none.")


def _json_rows(text: TextIO) -> Iterator[Mapping[str, object]]:
    return (json.loads(line) for line in text if line.strip())


_ROWS: dict[str, Callable[[TextIO], Iterable[Mapping[str, object]]]] = {
    ".csv": csv.DictReader,
    ".jsonl": _json_rows,
}
