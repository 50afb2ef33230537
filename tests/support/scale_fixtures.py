"""Folders of plain pictures whose mean brightness is known, and what stands in a folder of parts."""

from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import PIL.Image
import pyarrow.parquet


def shade_of(number: int) -> int:
    """Of picture `number`, 0 to 255."""
    return (number * 7) % 256


def write_pictures(folder: Path, count: int, first: int = 0) -> list[Path]:
    """Plain grey pictures of 8 by 8 pixels, `00000.bmp` and so on: BMP is the fastest to write."""
    folder.mkdir(parents=True, exist_ok=True)
    paths = []
    for number in range(first, first + count):
        path = folder / f"{number:05}.bmp"
        PIL.Image.new("RGB", (8, 8), (shade_of(number),) * 3).save(path)
        paths.append(path)
    return paths


def picture_bytes(number: int) -> bytes:
    """The file of picture `number` as a PNG."""
    import io

    file = io.BytesIO()
    PIL.Image.fromarray(np.full((8, 8, 3), shade_of(number), np.uint8)).save(file, "PNG")
    return file.getvalue()


def rows_of(out: Path) -> list[dict[str, Any]]:
    """All rows of all parts."""
    rows: list[dict[str, Any]] = []
    for file in sorted(out.glob("part-*.parquet")):
        rows += pyarrow.parquet.read_table(file).to_pylist()
    return rows


def check_exactly_once(out: Path, count: int, judge: str = "brightness") -> None:
    """Every one of `count` pictures of `write_pictures` has one row, and the right score in it."""
    rows = rows_of(out)
    counts = Counter(Path(row["key"]).name for row in rows)
    expected = {f"{number:05}.bmp" for number in range(count)}
    assert set(counts) == expected, (sorted(expected - set(counts))[:5], sorted(set(counts) - expected)[:5])
    assert set(counts.values()) == {1}, counts.most_common(3)
    for row in rows:
        assert row["error"] is None, row
        assert abs(row[judge] - shade_of(int(Path(row["key"]).stem)) / 255) < 1e-6, row
