"""One run, the next one, and what they refuse."""

import json
import threading
from pathlib import Path

import pyarrow
import pyarrow.parquet
import pytest
from brightness_judge import judge
from scale_fixtures import check_exactly_once, rows_of, shade_of, write_pictures

from ma_agiqa_core import MaAgiqaError, PictureError, load_scorer, score_dataset
from ma_agiqa_core.errors import OutputExistsError
from ma_agiqa_core.records.output_lock import only_writer
from ma_agiqa_core.scale.parts import judges_of, read_schema
from ma_agiqa_core.scale.ranking import rank_parts


def test_columns_and_what_the_parts_say_of_their_judges(tmp_path):
    write_pictures(tmp_path / "in", 3)
    (tmp_path / "in" / "broken.png").write_bytes(b"no picture")
    lite = load_scorer("lite", device="cpu")
    done = score_dataset(tmp_path / "in", [judge(), lite, judge(revision="2")], out=tmp_path / "out")
    assert (done.scored, done.failed, done.already) == (3, 1, 0)
    rows = {Path(row["key"]).name: row for row in rows_of(tmp_path / "out")}
    assert set(rows["broken.png"]) == {
        *("key", "error", "digest", "prompt", "width", "height"),
        *("brightness", "brightness_percentile", "brightness_revision"),
        *("lite", "lite_percentile", "lite_revision"),
        *("brightness_2", "brightness_2_percentile", "brightness_2_revision"),
    }
    assert rows["broken.png"]["error"] == "not a picture Pillow can read"
    assert rows["broken.png"]["lite"] is None
    row = rows["00001.bmp"]
    path = tmp_path / "in" / "00001.bmp"
    assert row["lite"] == pytest.approx(float(lite.score(path)), abs=1e-4)
    assert row["lite_percentile"] == pytest.approx(lite.info.percentile(row["lite"]), abs=1e-3)
    assert row["lite_revision"] == f"lite@{lite.info.revision}"
    assert row["brightness_percentile"] == pytest.approx(100 * shade_of(1) / 255, abs=1e-3)
    assert (row["width"], row["height"]) == (8, 8)
    import hashlib

    assert row["digest"] == hashlib.sha256(path.read_bytes()).hexdigest()[:16]
    (part,) = (tmp_path / "out").glob("*")
    facts = judges_of(read_schema(part))
    assert facts is not None
    assert [judge["identity"] for judge in facts] == [
        "brightness@1",
        f"lite@{lite.info.revision}",
        "brightness@2",
    ]


def test_decoded_once_for_all_judges(tmp_path, monkeypatch):
    from ma_agiqa_core.scale import rows

    write_pictures(tmp_path / "in", 6)
    decoded: list[str] = []
    original = rows.decode_bytes

    def noted(content: bytes, index: int, path: str) -> object:
        decoded.append(path)
        return original(content, index, path)

    monkeypatch.setattr(rows, "decode_bytes", noted)
    score_dataset(tmp_path / "in", [judge(), judge(revision="2"), judge(revision="3")], out=tmp_path / "out")
    assert len(decoded) == len(set(decoded)) == 6


def test_resumed_by_key_and_errors_are_tried_again(tmp_path):
    write_pictures(tmp_path / "in", 5)
    (tmp_path / "in" / "00005.bmp").write_bytes(b"broken")
    assert score_dataset(tmp_path / "in", judge(), out=tmp_path / "out").failed == 1
    write_pictures(tmp_path / "in", 2, first=6)
    write_pictures(tmp_path / "in", 1, first=5)
    done = score_dataset(tmp_path / "in", judge(), out=tmp_path / "out")
    assert (done.scored, done.failed, done.already) == (3, 0, 5)
    check_exactly_once(tmp_path / "out", 8)
    assert score_dataset(tmp_path / "in", judge(), out=tmp_path / "out").scored == 0


def test_a_key_twice_in_a_source_is_one_row(tmp_path):
    (path, *_) = write_pictures(tmp_path / "in", 1)
    table = pyarrow.table({"path": [str(path)] * 3, "id": ["a", "a", "b"]})
    pyarrow.parquet.write_table(table, tmp_path / "t.parquet")
    score_dataset([tmp_path / "t.parquet", tmp_path / "t.parquet"], judge(), id="id", out=tmp_path / "out")
    assert sorted(row["key"] for row in rows_of(tmp_path / "out")) == ["a", "b"]


def test_other_judges_are_refused_and_the_parts_stay(tmp_path):
    write_pictures(tmp_path / "in", 2)
    score_dataset(tmp_path / "in", judge(), out=tmp_path / "out")
    before = {path: path.read_bytes() for path in (tmp_path / "out").iterdir()}
    with pytest.raises(MaAgiqaError, match="Expected the judges that the parts were made with, brightness@1, got"):
        score_dataset(tmp_path / "in", judge(revision="2"), out=tmp_path / "out")
    assert {path: path.read_bytes() for path in (tmp_path / "out").iterdir()} == before


def test_a_second_run_on_one_output_is_refused(tmp_path):
    write_pictures(tmp_path / "in", 2)
    with only_writer(tmp_path / "out"), pytest.raises(OutputExistsError, match="no other process is writing"):
        score_dataset(tmp_path / "in", judge(), out=tmp_path / "out")
    score_dataset(tmp_path / "in", judge(), out=tmp_path / "out")
    check_exactly_once(tmp_path / "out", 2)


def test_on_error_raise_keeps_what_came_before(tmp_path):
    write_pictures(tmp_path / "in", 3)
    (tmp_path / "in" / "00001.bmp").write_bytes(b"broken")
    with pytest.raises(PictureError, match=r"00001\.bmp.*not a picture"):
        score_dataset(tmp_path / "in", judge(), out=tmp_path / "out", on_error="raise", batch_size=1)
    assert {Path(row["key"]).name for row in rows_of(tmp_path / "out")} >= {"00000.bmp"}


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"engine": "spark"}, "Expected engine"),
        ({"on_error": "skip"}, "Expected on_error"),
        ({"workers": 0}, "Expected workers"),
        ({"model": []}, "Expected at least one judge"),
    ],
)
def test_wrong_options(tmp_path, options, message):
    with pytest.raises(MaAgiqaError, match=message):
        score_dataset(tmp_path, **{"model": judge(), "out": tmp_path / "out", **options})
    assert not (tmp_path / "out").exists()


def test_prompts_by_key_by_file_and_by_column(tmp_path):
    paths = write_pictures(tmp_path / "in", 2)
    (tmp_path / "in" / "prompts.csv").write_text("path,prompt\n00000.bmp,ab\n", "utf-8")
    score_dataset(tmp_path / "in", judge("prompted"), prompts=tmp_path / "in" / "prompts.csv", out=tmp_path / "file")
    rows = {Path(row["key"]).name: row for row in rows_of(tmp_path / "file")}
    assert rows["00000.bmp"]["prompted"] == 2
    assert rows["00001.bmp"]["error"] == "no prompt for this picture"
    score_dataset(tmp_path / "in", judge("prompted"), prompts={str(paths[1]): "abc"}, out=tmp_path / "keys")
    assert {row["prompted"] for row in rows_of(tmp_path / "keys")} == {None, 3}
    table = pyarrow.table({"path": list(map(str, paths)), "text": ["a", "abcd"]})
    pyarrow.parquet.write_table(table, tmp_path / "t.parquet")
    score_dataset(tmp_path / "t.parquet", judge("prompted"), prompts="text", out=tmp_path / "column")
    assert [row["prompted"] for row in rows_of(tmp_path / "column")] == [1, 4]


@pytest.mark.long
def test_several_workers_do_what_one_does_and_refuse_what_one_refuses(tmp_path):
    write_pictures(tmp_path / "in", 1100)
    score_dataset(tmp_path / "in", judge(), out=tmp_path / "out", workers=2)
    check_exactly_once(tmp_path / "out", 1100)
    with pytest.raises(MaAgiqaError, match="Expected the judges that the parts were made with, brightness@1, got"):
        score_dataset(tmp_path / "in", judge(revision="2"), out=tmp_path / "out", workers=2)


def test_ranked_from_the_parts(tmp_path):
    write_pictures(tmp_path / "in", 40)
    (tmp_path / "in" / "broken.png").write_bytes(b"no picture")
    score_dataset(tmp_path / "in", [judge(), judge("stumbles")], out=tmp_path / "out", save_every=0, batch_size=4)
    assert len(list((tmp_path / "out").iterdir())) > 3
    shades = sorted((shade_of(number) for number in range(40)), reverse=True)
    ranked = rank_parts(tmp_path / "out", top_share=0.1)
    assert (ranked.kept, ranked.rejected, ranked.failed) == (4, 36, 1)
    assert [round(255 * (record.score or 0)) for record in ranked.ranking.kept] == shades[:4]
    assert [round(255 * (record.score or 0)) for record in ranked.ranking.rejected] == shades[4:]
    assert (ranked.info.name, ranked.info.low, ranked.info.high) == ("brightness", 0, 1)
    assert rank_parts(tmp_path / "out", top_k=7).kept == 7
    assert rank_parts(tmp_path / "out", min_score=0.5).kept == sum(shade > 127 for shade in shades)
    by_other = rank_parts(tmp_path / "out", judge="stumbles")
    assert by_other.failed == 1 + sum(shade < 8 for shade in shades)
    with pytest.raises(MaAgiqaError, match="Expected a judge of the parts, brightness, stumbles, got 'lite'"):
        rank_parts(tmp_path / "out", judge="lite")


def test_a_sample_spans_the_ranks(tmp_path, monkeypatch):
    from ma_agiqa_core.scale import ranking

    monkeypatch.setattr(ranking, "IN_SAMPLE", 10)
    monkeypatch.setattr(ranking, "LISTED", 30)
    write_pictures(tmp_path / "in", 60)
    score_dataset(tmp_path / "in", judge(), out=tmp_path / "out")
    ranked = rank_parts(tmp_path / "out", top_k=20)
    assert (len(ranked.ranking.kept), len(ranked.ranking.rejected)) == (20, 0)
    assert (len(ranked.sample.kept), len(ranked.sample.rejected)) == (5, 5)
    assert ranked.sample.kept[0] == ranked.ranking.kept[0]
    assert ranked.sample.kept[-1] == ranked.ranking.kept[-1]


def test_parts_that_are_none(tmp_path):
    write_pictures(tmp_path / "in", 2)
    score_dataset(tmp_path / "in", judge(), out=tmp_path / "out")
    (part,) = (tmp_path / "out").iterdir()
    with pytest.raises(MaAgiqaError, match="Expected parts in"):
        rank_parts(tmp_path)
    torn = tmp_path / "out" / "part-000009.parquet"
    torn.write_bytes(part.read_bytes()[:-20])
    with pytest.raises(MaAgiqaError, match=r"Expected a whole Parquet part, got .*part-000009"):
        score_dataset(tmp_path / "in", judge(), out=tmp_path / "out")
    pyarrow.parquet.write_table(pyarrow.table({"key": ["a"]}), torn)
    with pytest.raises(MaAgiqaError, match="which is none"):
        score_dataset(tmp_path / "in", judge(), out=tmp_path / "out")
    schema = read_schema(part).with_metadata({b"ma_agiqa.parts": b"2"})
    with pytest.raises(MaAgiqaError, match="Expected parts of format 1, got '2'"):
        judges_of(schema)
    with pytest.raises(MaAgiqaError, match="names its judges"):
        judges_of(read_schema(part).with_metadata({b"ma_agiqa.parts": b"1", b"ma_agiqa.judges": b'[{"column": 1}]'}))


def test_judges_that_cannot_be_sent_are_refused_with_several_workers(tmp_path):
    from ma_agiqa_core import CallableScorer

    write_pictures(tmp_path / "in", 2)
    local = CallableScorer(lambda pictures, prompts: [0.0] * len(pictures), name="local")
    with pytest.raises(MaAgiqaError, match="Expected judges that several processes can load"):
        score_dataset(tmp_path / "in", local, out=tmp_path / "out", workers=2)
    relative = CallableScorer(lambda pictures, prompts: [0.0] * len(pictures), name="relative", relative=True)
    with pytest.raises(MaAgiqaError, match="scale of its own to score pictures of a data set"):
        score_dataset(tmp_path / "in", relative, out=tmp_path / "out")


def test_progress(tmp_path):
    write_pictures(tmp_path / "in", 5)
    told: list[tuple[int, int]] = []
    score_dataset(
        tmp_path / "in", judge(), out=tmp_path / "out", on_progress=lambda *counts: told.append(counts), batch_size=2
    )
    assert told[-1] == (5, 0)
    assert json.dumps(told)
    assert threading.active_count() < 20
