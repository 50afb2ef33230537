"""What strangers may send, and what may come of it: a picture or a value, or an error that says what is wrong.

Each target draws one input with hypothesis and hands it to the code that reads it. Anything but the results and the
errors that it names is a finding. `tests/test_fuzz.py` runs each for a moment with a fixed seed,
`python -m benchmarks.fuzz` for as long as one likes with new ones.
"""

import importlib
import io
import json
import struct
import tempfile
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import PIL.Image
from fuzz_damage import damaged
from fuzz_sources import SOURCES, check_source
from hypothesis import strategies as st
from PIL.PngImagePlugin import PngInfo

from ma_agiqa_core.errors import MaAgiqaError, UnreadablePictureError

FORMATS = ("PNG", "JPEG", "WEBP", "GIF", "BMP", "TIFF", "PPM", "TGA", "ICO", "JPEG2000", "PCX", "SGI", "DDS", "AVIF")


@dataclass(frozen=True)
class Target:
    """One harness.

    Attributes:
        inputs: What is drawn.
        check: Raises where something else comes of it than may.
        reads: What is under test.
    """

    inputs: st.SearchStrategy[Any]
    check: Callable[[Any], None]
    reads: str


@cache
def seeds() -> tuple[bytes, ...]:
    """Whole picture files of many formats and modes."""
    random = np.random.default_rng(0)
    found = []
    for size in ((7, 5), (33, 20)):
        grey = random.integers(0, 256, size, dtype=np.uint8)
        colours = random.integers(0, 256, (*size, 3), dtype=np.uint8)
        images = {"RGB": PIL.Image.fromarray(colours), "L": PIL.Image.fromarray(grey)}
        images |= {
            "RGBA": images["RGB"].convert("RGBA"),
            "P": images["RGB"].convert("P"),
            "1": images["L"].convert("1"),
        }
        images["I;16"] = PIL.Image.fromarray(grey.astype(np.uint16) * 257)
        images["F"] = PIL.Image.fromarray(grey.astype(np.float32))
        exif = PIL.Image.Exif()
        exif[0x0112] = 6
        for kind in FORMATS:
            for image in images.values():
                for options in ({}, {"exif": exif}, {"progressive": True, "quality": 30}, {"compression": "tiff_lzw"}):
                    file = io.BytesIO()
                    try:
                        image.save(file, kind, **options)
                    except Exception:  # not every mode in every format
                        continue
                    if file.getvalue() not in found:
                        found.append(file.getvalue())
    return tuple(found)


def check_picture(content: bytes) -> None:
    """A picture of plain RGB, or one line why not; the same from a file."""
    from ma_agiqa_core.pictures.inputs import decode_bytes
    from ma_agiqa_core.pictures.reading import pixel_count_of_bytes, read_picture_bytes

    assert pixel_count_of_bytes(content) >= 0
    try:
        picture = read_picture_bytes(content)
    except UnreadablePictureError as error:
        assert str(error)
        assert "\n" not in str(error)
        decoded = decode_bytes(content)
        assert decoded.error == str(error)
        return
    assert picture.mode == "RGB"
    assert min(picture.size) > 0
    decoded = decode_bytes(content)
    assert decoded.pixels is not None
    assert (decoded.width, decoded.height) == picture.size


_TEXT = st.text(max_size=30)
_JSON: st.SearchStrategy[Any] = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | _TEXT,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(_TEXT, inner, max_size=4),
    max_leaves=8,
)


@cache
def _lite() -> tuple[dict[str, Any], bytes]:
    """The header of lite's file, and its tensors."""
    from ma_agiqa_core.scorers.lite import LITE_WEIGHTS

    content = LITE_WEIGHTS.read_bytes()
    (size,) = struct.unpack("<Q", content[:8])
    return json.loads(content[8 : 8 + size]), content[8 + size :]


@st.composite
def _checkpoints(draw: st.DrawFn) -> bytes:
    """A safetensors file whose head, metadata or length is not what it was."""
    header, tensors = _lite()
    header = json.loads(json.dumps(header))
    names = st.sampled_from(
        [
            *header["__metadata__"],
            "ma_agiqa.format",
            "ma_agiqa.kind",
            "ma_agiqa.config",
            "ma_agiqa.network",
            "ma_agiqa.x",
        ]
    )
    values = st.one_of(
        _TEXT,
        _JSON.map(json.dumps),
        st.sampled_from(("1", "lite", "ma-agiqa", "student", "learned", "[]", "{}", "nan", "-inf", "1e999", "[3,1]")),
    )
    for _ in range(draw(st.integers(0, 4))):
        header["__metadata__"][draw(names)] = draw(values)
    for _ in range(draw(st.integers(0, 1))):
        name = draw(st.sampled_from(sorted(set(header) - {"__metadata__"})))
        match draw(st.sampled_from(("dtype", "shape", "offsets", "gone", "renamed"))):
            case "dtype":
                header[name]["dtype"] = draw(st.sampled_from(("F16", "F64", "I64", "BOOL", "X", "BF16")))
            case "shape":
                header[name]["shape"] = draw(st.lists(st.integers(-1, 2**40), max_size=4))
            case "offsets":
                header[name]["data_offsets"] = draw(st.lists(st.integers(-1, 2**63), min_size=2, max_size=2))
            case "gone":
                del header[name]
            case "renamed":
                header[draw(_TEXT)] = header.pop(name)
    if draw(st.booleans()):
        tensors = tensors[: draw(st.integers(0, 4096))]
    head = json.dumps(header).encode("utf-8", "backslashreplace")
    if draw(st.integers(0, 3)) == 0:
        head = draw(damaged(st.just(head)))
    size = len(head) if draw(st.integers(0, 7)) else draw(st.integers(0, 2**64 - 1))
    return struct.pack("<Q", size) + head + tensors


def check_checkpoint(content: bytes) -> None:
    """A scorer, or an error of ours."""
    from ma_agiqa_core import load_scorer

    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "model.safetensors"
        file.write_bytes(content)
        try:
            scorer = load_scorer(file, device="cpu", local_files_only=True)
        except MaAgiqaError as error:
            assert str(error)
            return
        assert scorer.info.low < scorer.info.high


_PRUNE = st.one_of(
    st.text(max_size=40),
    st.text("0123456789.:,; -+einfa_\n\t%", max_size=40),
    st.lists(st.tuples(st.floats(), st.integers()), max_size=5).map(lambda ps: ", ".join(f"{f}:{n}" for f, n in ps)),
    st.lists(st.tuples(st.floats(0, 1), st.integers(1, 8)), max_size=5).map(
        lambda ps: ",".join(f"{f}:{n}" for f, n in ps)
    ),
)


def check_prune_at(text: str) -> None:
    """A rising schedule of fractions and counts, or an error of ours."""
    from ma_agiqa_core.generation.pruning.schedule import PruneSchedule

    try:
        stages = PruneSchedule.parse(text).stages
    except MaAgiqaError as error:
        assert str(error)
        return
    assert all(0 < fraction < 1 and keep >= 1 for fraction, keep in stages)
    assert stages == tuple(sorted(stages))


_CELL = st.one_of(
    st.text(max_size=12),
    st.sampled_from(
        ("a.png", "b.png", "../a.png", "/etc/passwd", "3.5", "-1e999", "nan", "", '"', "'", "=1+1", "a\\b")
    ),
)


@st.composite
def _tables(draw: st.DrawFn) -> tuple[str, bytes]:
    """A table's ending and its bytes, text of a table or nearly one."""
    ending = draw(st.sampled_from((".csv", ".tsv", ".txt", ".json", ".jsonl", ".xlsx")))
    header = draw(
        st.lists(st.sampled_from(("path", "prompt", "mos", "name", "score", "x", "")), min_size=1, max_size=4)
    )
    rows = draw(st.lists(st.lists(_CELL, max_size=4), max_size=4))
    if ending in (".json", ".jsonl"):
        objects = [dict(zip(header, row, strict=False)) for row in rows]
        if draw(st.booleans()):
            objects = [draw(_JSON) for _ in range(draw(st.integers(0, 3)))]
        text = json.dumps(objects) if ending == ".json" else "\n".join(map(json.dumps, objects))
    else:
        separator = draw(st.sampled_from((",", ";", "\t")))
        text = draw(st.sampled_from(("\n", "\r\n", "\r"))).join(separator.join(row) for row in [header, *rows])
    encoding = draw(st.sampled_from(("utf-8", "utf-8-sig", "utf-16", "utf-16-le", "utf-32", "latin-1")))
    content = text.encode(encoding, "replace")
    if draw(st.integers(0, 2)) == 0:
        content = draw(damaged(st.just(content or b"x")))
    return ending, content


def check_table(table: tuple[str, bytes]) -> None:
    """Prompts and labels, or errors of ours; no picture outside the folder of pictures is found."""
    from ma_agiqa_core.labels.labelled_set import read_labels
    from ma_agiqa_core.records.prompts import read_prompts

    ending, content = table
    with tempfile.TemporaryDirectory() as folder:
        images = Path(folder) / "images"
        images.mkdir()
        for name in ("a.png", "b.png"):
            (images / name).touch()
        file = Path(folder) / f"table{ending}"
        file.write_bytes(content)
        try:
            prompts = read_prompts(file)
        except MaAgiqaError as error:
            assert str(error)
        else:
            assert all(isinstance(text, str) for pair in prompts.items() for text in pair)
        try:
            labelled = read_labels(file, images, score_column="mos")
        except MaAgiqaError as error:
            assert str(error)
        else:
            assert all(np.isfinite(list(picture.scores.values())).all() for picture in labelled.pictures)
            assert all(images in Path(picture.path).resolve().parents for picture in labelled.pictures)


_PICTURE = st.fixed_dictionaries(
    {},
    optional={
        "path": _TEXT | _JSON,
        "digest": st.text("0123456789abcdef", max_size=64) | _JSON,
        "prompt": _TEXT | _JSON,
    },
)
_PICK = st.one_of(
    _JSON,
    _PICTURE.flatmap(lambda p: st.sampled_from(("like", "dislike", "?")).map(lambda mark: {**p, "mark": mark})),
    st.fixed_dictionaries({"better": _PICTURE, "worse": _PICTURE}),
)
_PICKS = st.one_of(
    st.fixed_dictionaries(
        {"format": st.sampled_from((1, 2, "1", None)) | _JSON, "picks": st.lists(_PICK, max_size=4) | _JSON}
    ),
    st.fixed_dictionaries({"format": st.just(1), "picks": st.lists(_PICK, max_size=4)}),
    _JSON,
).map(lambda value: json.dumps(value).encode("utf-8", "backslashreplace"))


def check_picks(content: bytes) -> None:
    """Picks, or an error of ours."""
    read_picks = importlib.import_module("ma_agiqa_core.picks.picks_file").read_picks
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "picks.json"
        file.write_bytes(content)
        try:
            picks = read_picks(file)
        except MaAgiqaError as error:
            assert str(error)
            return
        assert all(isinstance(picture.path, str) for picture in picks.pictures())


_CHUNK = st.one_of(
    _TEXT,
    _JSON.map(json.dumps),
    st.fixed_dictionaries(
        {
            "format": st.sampled_from((1, 2, "1")) | _JSON,
            "score": _JSON,
            "percentile": _JSON,
            "rank": _JSON,
            "index": _JSON,
        },
        optional={"model": _JSON, "revision": _JSON, "seed": _JSON, "prompt": _JSON, "other": _JSON},
    ).map(json.dumps),
)


@st.composite
def _pngs(draw: st.DrawFn) -> bytes:
    """A PNG with our chunk, or nearly so."""
    chunks = PngInfo()
    text = draw(_CHUNK)
    if draw(st.booleans()):
        chunks.add_itxt("ma_agiqa", text, zip=draw(st.booleans()))
    else:
        chunks.add_text("ma_agiqa", text.encode("latin-1", "replace").decode("latin-1"), zip=draw(st.booleans()))
    file = io.BytesIO()
    PIL.Image.new("RGB", (4, 4)).save(file, "PNG", pnginfo=chunks)
    content = file.getvalue()
    return draw(damaged(st.just(content))) if draw(st.integers(0, 2)) == 0 else content


def check_png_metadata(content: bytes) -> None:
    """What the chunk says, None, or an error of ours."""
    from ma_agiqa_core.records.png_metadata import read_metadata

    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "a.png"
        file.write_bytes(content)
        try:
            found = read_metadata(file)
        except MaAgiqaError as error:
            assert str(error)
            return
        if found is not None:
            json.loads(found.to_json())


TARGETS = {
    "pictures": Target(damaged(st.deferred(lambda: st.sampled_from(seeds()))), check_picture, "every format's reader"),
    "checkpoints": Target(_checkpoints(), check_checkpoint, "safetensors files and their metadata"),
    "prune_at": Target(_PRUNE, check_prune_at, "the sampler node's schedule"),
    "tables": Target(_tables(), check_table, "tables of prompts and labels"),
    "picks": Target(_PICKS, check_picks, "picks.json"),
    "sources": Target(SOURCES, check_source, "tars, and tables of pictures' places"),
    "png_metadata": Target(_pngs(), check_png_metadata, "the PNG chunk ma_agiqa"),
}


def quietly(check: Callable[[Any], None]) -> Callable[[Any], None]:
    """Without the warnings that Pillow and numpy have for damaged files."""

    def checked(drawn: Any) -> None:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            check(drawn)

    return checked
