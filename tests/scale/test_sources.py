"""Every kind of source gives the same pictures, each under a key of its own."""

import io
import os
import pickle
import tarfile
from pathlib import Path

import pyarrow
import pyarrow.parquet
import pytest
from brightness_judge import judge
from scale_fixtures import check_exactly_once, picture_bytes, rows_of, shade_of, write_pictures

from ma_agiqa_core import MaAgiqaError, score_dataset
from ma_agiqa_core.scale.sources.finding import find_shards
from ma_agiqa_core.scale.sources.names import is_for_engines
from ma_agiqa_core.scale.sources.shard import Columns, in_shards
from ma_agiqa_core.scale.sources.shard import rows_of as shard_rows


def keys_and_shades(out: Path) -> dict[str, int]:
    return {row["key"]: round(row["brightness"] * 255) for row in rows_of(out)}


def write_tar(path: Path, members: dict[str, bytes], mode: str = "w") -> Path:
    with tarfile.open(path, mode) as archive:  # type: ignore[call-overload]
        for name, content in members.items():
            info = tarfile.TarInfo(name)
            info.size = len(content)
            archive.addfile(info, io.BytesIO(content))
    return path


def test_folder_glob_list_and_file(tmp_path):
    paths = write_pictures(tmp_path / "in", 5)
    sources = {
        "folder": tmp_path / "in",
        "glob": str(tmp_path / "in" / "*.bmp"),
        "list": [tmp_path / "in" / "00000.bmp", *map(str, paths[1:])],
        "url": f"file://{tmp_path / 'in'}",
    }
    for name, source in sources.items():
        if name == "url":
            continue
        score_dataset(source, judge(), out=tmp_path / name)
        check_exactly_once(tmp_path / name, 5)


def test_tars_whole_samples_with_their_texts(tmp_path):
    members = {}
    for number in range(3):
        members[f"{number:03}.txt"] = b"abcde"[: number + 2]
        members[f"{number:03}.png"] = picture_bytes(number)
        members[f"{number:03}.json"] = b'{"other": 1}'
    write_tar(tmp_path / "a.tar", members)
    write_tar(tmp_path / "b.tgz", {"x/1.jpg": picture_bytes(9), "x/1.json": b'{"prompt": "dogs!"}'}, "w:gz")

    score_dataset([tmp_path / "a.tar", tmp_path / "b.tgz"], judge("prompted"), out=tmp_path / "out")

    rows = {row["key"]: row for row in rows_of(tmp_path / "out")}
    assert {key: row["prompted"] for key, row in rows.items()} == {
        f"{tmp_path}/a.tar::000": 2.0,
        f"{tmp_path}/a.tar::001": 3.0,
        f"{tmp_path}/a.tar::002": 4.0,
        f"{tmp_path}/b.tgz::x/1": 5.0,
    }
    assert rows[f"{tmp_path}/b.tgz::x/1"]["prompt"] == "dogs!"


@pytest.mark.parametrize(
    "content", [b"\x1f\x8b\x08", b"\x1f\x8b\x08\x00" + b"\xff" * 60, b"BZh9" + b"x" * 600, b"x" * 700]
)
def test_a_tar_that_is_none_ends_no_run(tmp_path, content):
    """The first was found by fuzzing: tarfile raises a TypeError over it."""
    write_tar(tmp_path / "whole.tar", {"a.png": picture_bytes(1)})
    (tmp_path / "torn.tar").write_bytes(content)
    done = score_dataset([tmp_path / "torn.tar", tmp_path / "whole.tar"], judge(), out=tmp_path / "out")
    assert (done.scored, done.failed) == (1, 1)
    errors = {row["key"]: row["error"] for row in rows_of(tmp_path / "out") if row["error"]}
    assert errors[f"{tmp_path}/torn.tar::"].startswith("Expected a whole tar file")


@pytest.mark.parametrize("kind", [tarfile.GNUTYPE_LONGNAME, tarfile.XHDTYPE, tarfile.XGLTYPE])
def test_a_tar_whose_long_name_would_fill_the_memory(tmp_path, kind):
    """64 MB that pack to a few kB, read whole by tarfile; the picture before it counts."""
    import tracemalloc

    with tarfile.open(tmp_path / "bomb.tgz", "w:gz") as archive:
        info = tarfile.TarInfo("a.png")
        info.size = len(content := picture_bytes(1))
        archive.addfile(info, io.BytesIO(content))
        bomb = tarfile.TarInfo("long")
        bomb.type, bomb.size = kind, 2**26
        assert archive.fileobj is not None
        archive.fileobj.write(bomb.tobuf(tarfile.GNU_FORMAT) + bytes(bomb.size))
    tracemalloc.start()
    try:
        rows = [row for shard in find_shards(tmp_path / "bomb.tgz", Columns()) for row in shard_rows(shard)]
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert [row.error is None for row in rows] == [True, False]
    assert "attributes of 64 MiB" in (rows[1].error or "")
    assert peak < 2**24


def test_members_of_a_tar_that_would_leave_it_are_nothing_but_keys(tmp_path):
    tar = tmp_path / "evil.tar"
    with tarfile.open(tar, "w") as archive:
        for name in ("../../escape.png", "/tmp/absolute.png"):
            info = tarfile.TarInfo(name)
            info.size = len(content := picture_bytes(1))
            archive.addfile(info, io.BytesIO(content))
        link = tarfile.TarInfo("link.png")
        link.type, link.linkname = tarfile.SYMTYPE, "/etc/passwd"
        archive.addfile(link)
        hard = tarfile.TarInfo("hard.png")
        hard.type, hard.linkname = tarfile.LNKTYPE, "../../escape.png"
        archive.addfile(hard)
        device = tarfile.TarInfo("device.png")
        device.type = tarfile.CHRTYPE
        archive.addfile(device)
    before = sorted(tmp_path.parent.rglob("*"))
    score_dataset(tar, judge(), out=tmp_path / "out")
    assert set(keys_and_shades(tmp_path / "out")) == {f"{tar}::../../escape", f"{tar}::/tmp/absolute"}
    new = set(tmp_path.parent.rglob("*")) - set(before)
    assert {path.relative_to(tmp_path).parts[0] for path in new} == {"out"}


def test_of_a_damaged_shard_what_is_whole_is_scored_and_a_row_says_the_rest(tmp_path):
    whole = write_tar(tmp_path / "a.tar", {f"{number}.png": picture_bytes(number) for number in range(4)})
    (tmp_path / "cut.tar").write_bytes(whole.read_bytes()[: 2 * 1024 + 700])
    (tmp_path / "no.tar").write_bytes(b"no tar at all" * 99)
    done = score_dataset([tmp_path / "cut.tar", tmp_path / "no.tar", whole], judge(), out=tmp_path / "out")
    rows = {row["key"]: row for row in rows_of(tmp_path / "out")}
    assert {f"{tmp_path}/cut.tar::0", f"{tmp_path}/a.tar::3"} <= set(rows)
    assert "Expected a whole tar file" in rows[f"{tmp_path}/cut.tar::"]["error"]
    assert "Expected a whole tar file" in rows[f"{tmp_path}/no.tar::"]["error"]
    assert done.failed == 2

    write_tar(tmp_path / "cut.tar", {f"{number}.png": picture_bytes(number) for number in range(4)})
    (tmp_path / "no.tar").write_bytes(whole.read_bytes())
    score_dataset([tmp_path / "cut.tar", tmp_path / "no.tar", whole], judge(), out=tmp_path / "out")
    assert len(rows_of(tmp_path / "out")) == 12
    assert not any(row["error"] for row in rows_of(tmp_path / "out"))


def test_parquet_of_bytes_paths_and_structs(tmp_path):
    write_pictures(tmp_path / "in", 4)
    table = pyarrow.table({"image": [picture_bytes(number) for number in range(4)], "id": [10, 11, 12, 13]})
    pyarrow.parquet.write_table(table, tmp_path / "bytes.parquet", row_group_size=2)
    score_dataset(tmp_path / "bytes.parquet", judge(), id="id", out=tmp_path / "bytes")
    assert keys_and_shades(tmp_path / "bytes") == {str(10 + number): shade_of(number) for number in range(4)}

    score_dataset(tmp_path / "bytes.parquet", judge(), out=tmp_path / "numbered")
    assert set(keys_and_shades(tmp_path / "numbered")) == {f"{tmp_path}/bytes.parquet#{number}" for number in range(4)}

    paths = [f"in/{number:05}.bmp" for number in range(4)]
    pyarrow.parquet.write_table(pyarrow.table({"path": paths}), tmp_path / "paths.parquet")
    score_dataset(tmp_path / "paths.parquet", judge(), out=tmp_path / "paths")
    check_exactly_once(tmp_path / "paths", 4)

    structs = [{"bytes": picture_bytes(1), "path": None}, {"bytes": None, "path": "in/00003.bmp"}]
    pyarrow.parquet.write_table(pyarrow.table({"image": structs, "prompt": ["a", "bcd"]}), tmp_path / "hf.parquet")
    score_dataset(tmp_path / "hf.parquet", [judge(), judge("prompted")], out=tmp_path / "hf")
    rows = rows_of(tmp_path / "hf")
    assert [round(row["brightness"] * 255) for row in rows] == [shade_of(1), shade_of(3)]
    assert [row["prompted"] for row in rows] == [1.0, 3.0]


def test_paths_in_a_table_do_not_leave_its_folder(tmp_path):
    write_pictures(tmp_path, 1)
    (tmp_path / "set").mkdir()
    (tmp_path / "set" / "link").symlink_to(tmp_path)
    paths = ["../00000.bmp", "link/00000.bmp", "file:///etc/passwd", "zip://x::file:///etc/passwd", None, ""]
    pyarrow.parquet.write_table(
        pyarrow.table({"path": paths, "id": list("abcdef")}), tmp_path / "set" / "table.parquet"
    )
    score_dataset(tmp_path / "set" / "table.parquet", judge(), id="id", out=tmp_path / "out")
    errors = {row["key"]: row["error"] for row in rows_of(tmp_path / "out")}
    assert errors["a"] == errors["b"] == "its path leads out of the folder of its table"
    assert errors["c"] == "its place is no URL of a store: file"
    assert errors["d"] == "its place is no URL of a store: zip"
    assert errors["e"] == errors["f"] == "the source has no picture here"


def test_object_stores_through_fsspec(tmp_path):
    import fsspec

    memory = fsspec.filesystem("memory")
    for number in range(3):
        memory.pipe(f"/bucket/a/{number:05}.png", picture_bytes(number))
    memory.pipe("/bucket/a/notes.txt", b"none")
    tar = write_tar(tmp_path / "x.tar", {"s.png": picture_bytes(7)})
    memory.pipe("/bucket/tars/x.tar", tar.read_bytes())
    sink = io.BytesIO()
    urls = ["memory://bucket/a/00001.png", "memory://bucket/a/none.png"]
    pyarrow.parquet.write_table(pyarrow.table({"url": urls}), sink)
    memory.pipe("/bucket/t.parquet", sink.getvalue())

    score_dataset(["memory://bucket/a", "memory://bucket/tars/*.tar"], judge(), out=tmp_path / "out")
    score_dataset("memory://bucket/t.parquet", judge(), out=tmp_path / "table")

    found = keys_and_shades(tmp_path / "out")
    assert sorted(found.values()) == sorted([shade_of(0), shade_of(1), shade_of(2), shade_of(7)])
    assert all(key.startswith("memory://") for key in found)
    assert {row["key"]: row["error"] for row in rows_of(tmp_path / "table")} == {urls[0]: None, urls[1]: "no such file"}


def test_a_table_that_is_damaged_inside_ends_no_run(tmp_path):
    """Its head is whole, so that it is found out only while it is read; found by fuzzing."""
    write_pictures(tmp_path / "in", 3)
    whole = tmp_path / "whole.parquet"
    paths = [str(tmp_path / "in" / f"{number:05}.bmp") for number in range(3)]
    pyarrow.parquet.write_table(pyarrow.table({"path": paths}), whole, use_dictionary=False, compression="none")
    content = whole.read_bytes()
    at = content.index(paths[1].encode())  # the others stand in the statistics, too
    (tmp_path / "text.parquet").write_bytes(content[:at] + b"\xff\xfe" + content[at + 2 :])
    (tmp_path / "sizes.parquet").write_bytes(content[: at - 4] + b"\xff\xff\xff\x7f" + content[at:])
    sources = [tmp_path / "text.parquet", tmp_path / "sizes.parquet", whole]
    done = score_dataset(sources, judge(), out=tmp_path / "out")
    assert (done.scored, done.failed) == (3, 2)
    errors = {row["key"]: row["error"] for row in rows_of(tmp_path / "out") if row["error"]}
    assert set(errors) == {f"{tmp_path}/text.parquet::", f"{tmp_path}/sizes.parquet::"}
    assert all(error.startswith("Expected a Parquet file") for error in errors.values())


def test_lance(tmp_path):
    lance = pytest.importorskip("lance", reason="pylance is not installed")
    table = pyarrow.table({"id": [f"n{number}" for number in range(3)], "bytes": [picture_bytes(n) for n in range(3)]})
    lance.write_dataset(table, tmp_path / "set.lance", max_rows_per_file=2)
    score_dataset(tmp_path / "set.lance", judge(), id="id", out=tmp_path / "out")
    assert keys_and_shades(tmp_path / "out") == {f"n{number}": shade_of(number) for number in range(3)}


def test_hugging_face_data_sets(tmp_path):
    datasets = pytest.importorskip("datasets", reason="datasets is not installed")
    rows = {"image": [{"bytes": picture_bytes(n), "path": None} for n in range(3)], "name": ["a", "b", "c"]}
    features = datasets.Features({"image": datasets.Image(), "name": datasets.Value("string")})
    made = datasets.Dataset.from_dict(rows, features=features)
    score_dataset(made, judge(), id="name", out=tmp_path / "out")
    assert keys_and_shades(tmp_path / "out") == {"a": shade_of(0), "b": shade_of(1), "c": shade_of(2)}
    score_dataset(made.to_iterable_dataset(), judge(), id="name", out=tmp_path / "iterable")
    assert keys_and_shades(tmp_path / "iterable") == keys_and_shades(tmp_path / "out")


def test_a_data_set_in_memory_is_not_sent_whole_with_every_shard(tmp_path):
    """Every worker gets the rows it scores; one on disk is sent as its place there."""
    datasets = pytest.importorskip("datasets", reason="datasets is not installed")
    made = datasets.Dataset.from_dict({"bytes": [picture_bytes(n) for n in range(100)], "id": list(range(100))})
    whole = len(pickle.dumps(made))
    sent = [pickle.dumps(shard) for shard in find_shards(made, Columns(id="id"))]
    assert len(sent) > 4
    assert max(map(len, sent)) < whole / 2
    made.save_to_disk(tmp_path / "set")
    for name, source in {"memory": made, "disk": datasets.load_from_disk(tmp_path / "set")}.items():
        score_dataset(source, judge(), id="id", out=tmp_path / name)
        assert keys_and_shades(tmp_path / name) == {str(number): shade_of(number) for number in range(100)}


def test_few_pictures_are_many_shards_and_many_are_few(tmp_path):
    """Eight workers over 600 pictures all have something to do, and none ends long after the others."""
    sizes = [len(shard) for shard in in_shards(range(600))]
    assert sum(sizes) == 600
    assert max(sizes) <= 600 / 8 / 4
    sizes = [len(shard) for shard in in_shards(range(10**6))]
    assert (sum(sizes), max(sizes)) == (10**6, 512)
    assert len(sizes) < 1.2 * 10**6 / 512
    paths = write_pictures(tmp_path / "in", 40)
    for source in (tmp_path / "in", list(map(str, paths)), str(tmp_path / "in" / "*.bmp")):
        shards = list(find_shards(source, Columns()))
        assert len(shards) == 3
        assert [row.key for shard in shards for row in shard.rows()] == list(map(str, paths))


def test_a_folder_of_shards(tmp_path):
    folder = tmp_path / "set"
    folder.mkdir()
    write_tar(folder / "0.tar", {"a.png": picture_bytes(1)})
    write_tar(folder / "1.tar", {"a.png": picture_bytes(2)})
    score_dataset(folder, judge(), out=tmp_path / "out")
    assert keys_and_shades(tmp_path / "out") == {f"{folder}/0.tar::a": shade_of(1), f"{folder}/1.tar::a": shade_of(2)}


def test_what_is_no_source(tmp_path):
    (tmp_path / "empty").mkdir()
    (tmp_path / "t.parquet").write_bytes(b"PAR1 is it not")
    pyarrow.parquet.write_table(pyarrow.table({"a": [1]}), tmp_path / "other.parquet")
    mistakes = {
        tmp_path / "empty": "got none",
        tmp_path / "nowhere": "nowhere, which does not exist",
        str(tmp_path / "*.png"): "Expected files that match",
        tmp_path / "t.parquet": "Expected a Parquet file",
        tmp_path / "other.parquet": "Expected a column with pictures",
        "nosuch://x/y": "Expected a URL that fsspec can open",
        "memory://not/there": "Expected files at memory://not/there",
    }
    for source, message in mistakes.items():
        with pytest.raises(MaAgiqaError, match=message):
            list(find_shards(source, Columns()))
    with pytest.raises(MaAgiqaError, match="got int"):
        find_shards(5, Columns())
    pyarrow.parquet.write_table(pyarrow.table({"bytes": [b"x"]}), tmp_path / "b.parquet")
    with pytest.raises(MaAgiqaError, match="Expected the column 'nope'"):
        list(find_shards(tmp_path / "b.parquet", Columns(id="nope")))


@pytest.mark.parametrize(
    ("place", "is_one"),
    [
        ("s3://bucket/x", True),
        ("a.tar", True),
        ("x/y.parquet", True),
        ("x.lance/", True),
        ("renders/*.png", True),
        ("renders", False),
        ("a[1].png.txt", True),
        ("C:\\pictures", False),
    ],
)
def test_what_only_engines_read(place, is_one):
    assert is_for_engines(place) is is_one


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="needs pipes")
def test_pipes_and_folders_named_in_a_table_are_no_pictures(tmp_path):
    os.mkfifo(tmp_path / "pipe.png")
    (tmp_path / "folder.png").mkdir()
    table = pyarrow.table({"path": [str(tmp_path / "pipe.png"), str(tmp_path / "folder.png"), "a\0b.png"]})
    pyarrow.parquet.write_table(table, tmp_path / "t.parquet")
    score_dataset(tmp_path / "t.parquet", judge(), out=tmp_path / "out")
    assert [row["error"] for row in rows_of(tmp_path / "out")][:2] == [
        "not a regular file",
        "is a folder, not a picture",
    ]
    assert all(row["error"] for row in rows_of(tmp_path / "out"))
