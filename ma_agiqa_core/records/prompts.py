"""Reading `--prompts FILE`: which prompt each picture was made from, or which prompts to make pictures from."""

import os
import re
from collections.abc import Callable, Iterable, Mapping
from functools import cache
from pathlib import Path

from ..errors import MaAgiqaError
from .csv_cells import cell_text
from .record import COLUMNS, path_from_text, path_key, path_text
from .spreadsheets import PICTURE_COLUMNS, PROMPT_COLUMNS, Table, read_table, read_text

_ESCAPED_BYTE = re.compile(rb"\\x([89a-f][0-9a-f])")


def read_prompts(file: Path) -> dict[str, str]:
    r"""Reads a table with `path` and `prompt`, of any kind that `read_table` knows.

    Args:
        file: Other columns are passed over; without `path` one called as in tables of labels will do. A path is
            absolute, or relative to the file's folder; one with backslashes may have been written on Windows.

    Returns:
        Prompts by what `path_key` makes of the picture's path; "" where a row has none.

    Raises:
        FileNotFoundError: There is no such file.
        OSError: It cannot be read.
        ValueError: No such table, or no such columns in it; a row that is cut or has no path, or one picture with two
            prompts, with the row's number.
    """
    table = read_table(file, "prompts", usual=(".csv", ".jsonl"), text_columns=(*PICTURE_COLUMNS, *PROMPT_COLUMNS))
    paths, prompts = _column(table, "path", PICTURE_COLUMNS), _column(table, "prompt", PROMPT_COLUMNS)
    is_ours = table.columns == COLUMNS and file.suffix.lower() == ".csv"
    as_written = cell_text if is_ours else str  # other programs' apostrophes mean themselves
    real_folder = cache(os.path.realpath)
    found: dict[str, str] = {}
    rows: dict[str, tuple[int, str]] = {}  # by the one name that a picture has on this machine
    for number, row in zip(table.numbers, table.rows, strict=True):
        key, prompt = _key(as_written(row[paths]), table, number), as_written(row[prompts])
        first, known = rows.setdefault(_one_name(key, real_folder), (number, prompt))
        if known != prompt:
            raise MaAgiqaError(
                f"Expected one prompt for each picture, got {known!r} in row {first} and {prompt!r} in row {number} of "
                f"{file}, both for {key}. Take one of the rows out."
            )
        found[key] = prompt
    return found


def read_prompt_lines(file: Path) -> list[str]:
    """Reads plain text, one prompt a line, UTF-8 unless a byte order mark says otherwise; empty lines are passed over.

    Raises:
        ValueError: No prompts, or no plain text.
        OSError: The file cannot be read.
    """
    lines = [line.strip() for line in read_text(file, "prompts").splitlines()]
    if prompts := [line for line in lines if line]:
        return prompts
    raise MaAgiqaError(f"Expected prompts in {file}, one a line, got none.")


def missing_prompts(prompts: Mapping[str, str], pictures: Iterable[Path], file: Path) -> str | None:
    """What to say where a file has no prompts for some of the pictures, but some for pictures that are none of them.

    That is what wrong paths look like; a file for more pictures, or for fewer, is as it should be.

    Args:
        prompts: By `path_key`, as read from the file.
        pictures: All that are scored.
        file: Of the prompts.
    """
    unused, without, total = dict.fromkeys(prompts), list[str](), 0
    for key in map(path_key, pictures):
        total += 1
        if key in prompts:
            unused.pop(key, None)
        else:
            without.append(key)
    if not without or not unused:
        return None
    by_name = {os.path.basename(key): key for key in reversed(unused)}  # noqa: PTH119 - keys are text
    wanted = next((key for key in without if os.path.basename(key) in by_name), without[0])  # noqa: PTH119
    row = by_name.get(os.path.basename(wanted), next(iter(unused)))  # noqa: PTH119
    return (
        f"no prompt in {file} for {len(without)} of {total} pictures, e.g. {wanted}; {len(unused)} of its "
        f"{len(prompts)} prompts are for none of the pictures, e.g. {row}. Paths in it are absolute, or relative to "
        "its folder."
    )


def _column(table: Table, usual: str, names: Iterable[str]) -> str:
    if (column := table.first_column(usual)) is not None:
        return column
    found = [column for name in names if (column := table.first_column(name)) is not None]
    if len(found) == 1:
        return found[0]
    got = f"{' and '.join(map(repr, found))} without it" if found else f"{', '.join(map(repr, table.columns))} alone"
    raise MaAgiqaError(
        f"Expected the columns path and prompt in {table.path}, got no {usual}, but {got}. Name it in the first row "
        "(in JSON in each object)."
    )


def _key(path: str, table: Table, number: int) -> str:
    if not path:
        raise MaAgiqaError(f"Expected path and prompt in row {number} of {table.path}, got no path.")
    folder = table.path.parent
    try:
        name = path_from_text(path)  # refuses half a character, which no file is called
        if "\\" in path and not _is_file(folder, name):
            path = path.replace("\\", "/")
        return path_key(folder / path)
    except ValueError as error:
        raise MaAgiqaError(f"Expected a path in row {number} of {table.path}, got {path!r}: {error}.") from error


def _is_file(folder: Path, name: str) -> bool:
    r"""Whether there is such a file, under this name or with the bytes that `path_text` writes as `\xff`."""
    written = os.fsencode(name)
    raw = _ESCAPED_BYTE.sub(lambda escape: bytes.fromhex(escape[1].decode()), written)
    return any(os.path.lexists(os.path.join(os.fsencode(folder), known)) for known in (written, raw))  # noqa: PTH118


def _one_name(key: str, real_folder: Callable[[str], str]) -> str:
    folder, name = os.path.split(key)
    real = path_text(real_folder(path_from_text(folder)))
    return os.path.normcase(os.path.join(real, name))  # noqa: PTH118 - keys are text
