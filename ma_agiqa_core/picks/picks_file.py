"""picks.json: read, written whole, and added to.

The HTML report, the node Mark Images and people's own programs write it:
`{"format": 1, "picks": [{"path", "digest", "mark": "like" | "dislike", "prompt", "scorer", "date"} |
{"better": {"path", "digest", "prompt"}, "worse": {...}, "scorer", "date"}]}`. Only `path`, and `mark` or `better` with
`worse`, must be there. A path is absolute, or relative to the file's folder or to the working directory.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ..arguments.options import shown
from ..atomic_write import atomic_write
from ..errors import MaAgiqaError, MissingFileError
from ..records.output_lock import only_writer
from .pick import DISLIKE, LIKE, Mark, Pair, PickedPicture, Picks

FORMAT = 1
_DIGEST = re.compile(r"[0-9a-f]{8,64}")


def read_picks(file: Path) -> Picks:
    """Reads a picks.json.

    Raises:
        FileNotFoundError: There is no such file.
        OSError: It cannot be read.
        ValueError: Not JSON, another version, or a pick that is none; the message says which, from 1.

    Example:
        >>> import tempfile
        >>> from pathlib import Path
        >>> from ma_agiqa_core.picks.picks_file import read_picks
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     file = Path(folder, "picks.json")
        ...     _ = file.write_text('{"format": 1, "picks": [{"path": "a.png", "mark": "like"}]}')
        ...     read_picks(file).marks[0].is_liked
        True
    """
    if not file.exists():
        raise MissingFileError(f"Expected a file of picks, got {file}: no such file.")
    if file.is_dir():
        raise MaAgiqaError(f"Expected a file of picks, got the folder {file}. Name the picks.json in it.")
    try:
        whole = json.loads(file.read_bytes().decode("utf-8-sig"))
    except (ValueError, RecursionError) as error:
        raise MaAgiqaError(f"Expected picks as JSON in {file}, got an error: {error}. Export them again.") from error
    if not isinstance(whole, dict) or "picks" not in whole:
        raise MaAgiqaError(f'Expected {{"format": {FORMAT}, "picks": [...]}} in {file}, got {shown(whole)}.')
    if (version := whole.get("format")) != FORMAT or isinstance(version, bool):
        raise MaAgiqaError(
            f"Expected picks of format {FORMAT} in {file}, got {shown(version)}. Export them with this version, or "
            "install the version of ma-agiqa that wrote them."
        )
    if not isinstance(whole["picks"], list):
        raise MaAgiqaError(f"Expected a list of picks in {file}, got {shown(whole['picks'])}.")
    marks: list[Mark] = []
    pairs: list[Pair] = []
    for number, entry in enumerate(whole["picks"], start=1):
        place = f"pick {number} of {file}"
        if not isinstance(entry, dict) or ("mark" in entry) == ("better" in entry or "worse" in entry):
            raise MaAgiqaError(
                f"Expected an object with mark, or with better and worse, as {place}, got {shown(entry)}."
            )
        said = {"scorer": _text(entry, "scorer", place), "date": _text(entry, "date", place)}
        if "mark" not in entry:
            better, worse = (_picture(entry.get(side), f"{side} of {place}") for side in ("better", "worse"))
            pairs.append(Pair(better, worse, **said))
        elif entry["mark"] in (LIKE, DISLIKE):
            marks.append(Mark(_picture(entry, place), entry["mark"] == LIKE, **said))
        else:
            raise MaAgiqaError(f"Expected {LIKE!r} or {DISLIKE!r} as mark of {place}, got {shown(entry['mark'])}.")
    return Picks(tuple(marks), tuple(pairs))


def write_picks(file: Path, picks: Picks) -> None:
    """Writes a picks.json, whole or not at all, one pick a line.

    Raises:
        OSError: It cannot be written.
        ValueError: There are ratings, which the format has no place for.
    """
    if picks.ratings:
        raise MaAgiqaError(f"Expected marks and pairs for {file}, got {len(picks.ratings)} ratings. Keep those as CSV.")
    entries = [_mark_entry(mark) for mark in picks.marks] + [_pair_entry(pair) for pair in picks.pairs]
    lines = ",\n".join(json.dumps(entry, ensure_ascii=False) for entry in entries)
    with atomic_write(file, is_shared=True) as temporary:
        temporary.write_text(f'{{"format": {FORMAT}, "picks": [\n{lines}\n]}}\n', encoding="utf-8")


def add_picks(file: Path, picks: Picks) -> None:
    """Adds picks behind those of a file, which is made where there is none.

    Raises:
        FileExistsError: Another process is adding to it.
        OSError: It cannot be written.
        ValueError: What is there are no picks of this version.
    """
    with only_writer(file):
        write_picks(file, (read_picks(file) if file.exists() else Picks()) + picks)


def _picture(entry: Any, place: str) -> PickedPicture:
    if not isinstance(entry, dict) or not isinstance(entry.get("path"), str) or not entry["path"]:
        raise MaAgiqaError(f"Expected an object with a path as {place}, got {shown(entry)}.")
    digest = _text(entry, "digest", place)
    if digest is not None and not _DIGEST.fullmatch(digest.lower()):
        raise MaAgiqaError(f"Expected the first digits of a SHA-256 as digest of {place}, got {shown(digest)}.")
    return PickedPicture(entry["path"], digest and digest.lower(), _text(entry, "prompt", place))


def _text(entry: Mapping[str, Any], name: str, place: str) -> str | None:
    value = entry.get(name)
    if value is not None and not isinstance(value, str):
        raise MaAgiqaError(f"Expected a text as {name} of {place}, got {shown(value)}.")
    return value or None


def _mark_entry(mark: Mark) -> dict[str, str]:
    verdict = {"mark": LIKE if mark.is_liked else DISLIKE}
    return _picture_entry(mark.picture) | verdict | _known(scorer=mark.scorer, date=mark.date)


def _pair_entry(pair: Pair) -> dict[str, Any]:
    sides = {"better": _picture_entry(pair.better), "worse": _picture_entry(pair.worse)}
    return sides | _known(scorer=pair.scorer, date=pair.date)


def _picture_entry(picture: PickedPicture) -> dict[str, str]:
    return {"path": picture.path} | _known(digest=picture.digest, prompt=picture.prompt)


def _known(**facts: str | None) -> dict[str, str]:
    return {name: fact for name, fact in facts.items() if fact is not None}
