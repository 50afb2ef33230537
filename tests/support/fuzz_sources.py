"""Archives and tables of pictures that strangers may send: rows or reasons, and nothing outside their folder."""

import io
import tarfile
import tempfile
from pathlib import Path
from typing import Any

import pyarrow
import pyarrow.parquet
from fuzz_damage import damaged
from hypothesis import strategies as st

from ma_agiqa_core.errors import MaAgiqaError
from ma_agiqa_core.scale.rows import Row
from ma_agiqa_core.scale.sources.names import is_url
from ma_agiqa_core.scale.sources.shard import Columns, rows_of
from ma_agiqa_core.scale.sources.tables import parquet_shards
from ma_agiqa_core.scale.sources.tars import TarShard

_PLACE = st.one_of(
    st.text(max_size=20),
    st.lists(st.sampled_from(("..", ".", "a", "link", "b.png", "", "~", "\\..", "C:")), max_size=6).map("/".join),
    st.sampled_from(("file:///etc/passwd", "s3::file://etc/passwd", "/etc/passwd", "a\0.png", "http://", "link/x.png")),
)
_NAME = st.builds(lambda stem, ending: stem + ending, _PLACE, st.sampled_from((".png", ".txt", ".json", ".a.jpg", "")))
_CONTENT = st.binary(max_size=40) | st.sampled_from((b'{"prompt": "a"}', b'{"prompt": 1}', b"[" * 2000))
_KINDS = (tarfile.REGTYPE, tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.CHRTYPE, tarfile.FIFOTYPE, tarfile.DIRTYPE)


@st.composite
def _tars(draw: st.DrawFn) -> tuple[str, bytes]:
    """An archive with members of any name and kind, whole or damaged."""
    file = io.BytesIO()
    with tarfile.open(fileobj=file, mode=draw(st.sampled_from(("w", "w:gz"))), format=draw(st.integers(0, 2))) as made:
        for name in draw(st.lists(_NAME, max_size=5)):
            member = tarfile.TarInfo(name.replace("\0", ""))
            member.type = draw(st.sampled_from((*_KINDS, tarfile.REGTYPE, tarfile.REGTYPE)))
            content = draw(
                st.binary(max_size=40) | st.sampled_from((b'{"prompt": "a"}', b'{"prompt": 1}', b"[" * 2000))
            )
            member.size = len(content) if member.isreg() else 0
            member.linkname = (
                draw(_PLACE).replace("\0", "") if member.type in (tarfile.SYMTYPE, tarfile.LNKTYPE) else ""
            )
            try:
                made.addfile(member, io.BytesIO(content))
            except (ValueError, UnicodeError):  # a name that the format cannot hold
                continue
    content = file.getvalue()
    return "set.tar", draw(damaged(st.just(content))) if draw(st.booleans()) else content


@st.composite
def _tables(draw: st.DrawFn) -> tuple[str, bytes]:
    """A Parquet table whose places lead anywhere, whole or damaged."""
    cell = _PLACE.map(lambda text: text.encode("utf-8", "replace").decode()) | st.none()
    columns: dict[str, Any] = {draw(st.sampled_from(("path", "url", "image"))): draw(st.lists(cell, max_size=6))}
    count = len(next(iter(columns.values())))
    if draw(st.booleans()):
        columns["prompt"] = draw(st.lists(st.integers(-9, 9) | st.none(), min_size=count, max_size=count))
    table = pyarrow.table({name: pyarrow.array(values) for name, values in columns.items()})
    sink = io.BytesIO()
    pyarrow.parquet.write_table(table, sink)
    content = sink.getvalue()
    return "set.parquet", draw(damaged(st.just(content))) if draw(st.integers(0, 3)) == 0 else content


SOURCES = st.one_of(_tars(), _tables())


def check_source(drawn: tuple[str, bytes]) -> None:
    """Rows with a key, and a picture or a reason; or an error of ours. Nothing is written, no path gets out."""
    name, content = drawn
    with tempfile.TemporaryDirectory() as outer:
        folder = Path(outer) / "folder"
        folder.mkdir()
        (folder / "link").symlink_to(outer)
        place = folder / name
        place.write_bytes(content)
        try:
            shards = [TarShard(str(place))] if name.endswith(".tar") else list(parquet_shards(str(place), Columns()))
            rows = [row for shard in shards for row in rows_of(shard)]
        except MaAgiqaError as error:
            assert str(error)
            rows = []
        for row in rows:
            _check_row(row, folder, from_tar=name.endswith(".tar"))
        assert {path.name for path in Path(outer).rglob("*")} == {"folder", "link", name}


def _check_row(row: Row, folder: Path, *, from_tar: bool) -> None:
    assert isinstance(row.key, str)
    assert row.prompt is None or isinstance(row.prompt, str)
    assert (row.picture is None) == (row.error is not None)
    if from_tar:
        assert row.key.startswith(f"{folder.absolute() / 'set.tar'}::")
        assert row.picture is None or isinstance(row.picture, bytes)
    elif isinstance(row.picture, str) and not is_url(row.picture):
        given = row.picture.removeprefix(f"{folder.absolute()}/")
        assert Path(given).is_absolute() or folder.resolve() in (inside := Path(row.picture).resolve(), *inside.parents)
