"""Rows of CSV that a spreadsheet shows and does not run.

A cell that starts with one of `FORMULA_STARTS`, spaces aside, would be a formula (CWE-1236), so such text gets an
apostrophe before it, as OWASP advises; text that starts with an apostrophe gets one more, so that taking one away
always gives the text again. A cell with a comma, a quote, a line's end, a semicolon or a tab is quoted: another
separator, as in a German Excel, starts no new cell inside it. UTF-8 without a byte order mark, which many readers of
CSV take for a part of the first column's name: open such files in Excel by Data > From Text/CSV.
"""

import csv
import io
from collections.abc import Iterable

ENCODING = "utf-8"
FORMULA_STARTS = ("=", "+", "-", "@", "＝", "＋", "－", "＠")
_FIRST = ("'", "\t", "\r", "\n")  # an apostrophe goes before these wherever they are the first
_QUOTED = "\r\n;\t"  # csv quotes cells with one of the characters that end its lines


def csv_row(cells: Iterable[str | float | None]) -> bytes:
    """One row; None is an empty cell, numbers stay as they are."""
    line = io.StringIO()
    csv.writer(line, lineterminator=_QUOTED).writerow([_guarded(cell) for cell in cells])
    return (line.getvalue().removesuffix(_QUOTED) + "\n").encode(ENCODING)


def cell_text(cell: str) -> str:
    """The text that `csv_row` was given for a cell."""
    return cell.removeprefix("'")


def _guarded(cell: str | float | None) -> str | float | None:
    if isinstance(cell, str) and (cell.startswith(_FIRST) or cell.lstrip().startswith(FORMULA_STARTS)):
        return f"'{cell}"
    return cell
