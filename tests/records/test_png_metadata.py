"""The PNG chunk `ma_agiqa`."""

import json
import math
from pathlib import Path

import PIL.Image
import pytest
from PIL.PngImagePlugin import PngInfo

from ma_agiqa_core.errors import MaAgiqaError
from ma_agiqa_core.records.png_metadata import (
    PictureMetadata,
    add_metadata,
    metadata_of_scores,
    read_metadata,
    save_picture,
)
from ma_agiqa_core.scorers.scorer import ScorerInfo

SCORED = PictureMetadata(0.5, 42.0, "lite", "abc", rank=1, index=3)
MADE = PictureMetadata(
    0.5,
    None,
    "lite",
    "abc",
    rank=2,
    index=3,
    seed=2**62,
    pipeline="StableDiffusionXLPipeline",
    steps=30,
    guidance=5.0,
    prompt='Ein "Käfer", 虫\nauf Grün',
)


@pytest.mark.parametrize("metadata", [SCORED, MADE])
def test_what_is_written_is_read(metadata: PictureMetadata, tmp_path: Path) -> None:
    picture = PIL.Image.new("RGB", (4, 3), (10, 20, 30))
    path = save_picture(picture, tmp_path / "a.png", metadata)
    assert read_metadata(path) == metadata
    with PIL.Image.open(path) as opened:
        assert opened.tobytes() == picture.tobytes()
        assert read_metadata(opened) == metadata
    assert [file.name for file in tmp_path.iterdir()] == ["a.png"]


def test_the_chunk_is_as_the_contract_says(tmp_path: Path) -> None:
    save_picture(PIL.Image.new("RGB", (4, 3)), tmp_path / "a.png", SCORED)
    with PIL.Image.open(tmp_path / "a.png") as opened:
        assert json.loads(opened.info["ma_agiqa"]) == {
            "format": 1,
            "score": 0.5,
            "percentile": 42.0,
            "model": "lite",
            "revision": "abc",
            "rank": 1,
            "index": 3,
        }
    known = json.loads(MADE.to_json())
    assert known["percentile"] is None
    assert (known["seed"], known["steps"], known["guidance"]) == (2**62, 30, 5.0)
    assert (known["pipeline"], known["prompt"]) == ("StableDiffusionXLPipeline", MADE.prompt)


def test_other_chunks_stay(tmp_path: Path) -> None:
    chunks = PngInfo()
    chunks.add_text("prompt", '{"1": {}}')
    chunks.add_text("workflow", "{}")
    PIL.Image.new("RGB", (4, 3)).save(tmp_path / "a.png", pnginfo=add_metadata(chunks, SCORED))
    with PIL.Image.open(tmp_path / "a.png") as opened:
        assert opened.info["prompt"] == '{"1": {}}'
        assert opened.info["workflow"] == "{}"
        assert read_metadata(opened) == SCORED


def test_pictures_without_the_chunk_have_none(tmp_path: Path) -> None:
    PIL.Image.new("RGB", (4, 3)).save(tmp_path / "a.png")
    assert read_metadata(tmp_path / "a.png") is None


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("no JSON", "Expected JSON with a format in the chunk 'ma_agiqa', got 'no JSON'"),
        ("[1]", "Expected JSON with a format"),
        ('{"score": 1}', "Expected JSON with a format"),
        ('{"format": 2}', r"Expected format 1 in the chunk 'ma_agiqa', got 2\. Update ma-agiqa"),
        ('{"format": 1}', "Expected score, model, rank and index in the chunk 'ma_agiqa'"),
    ],
)
def test_chunks_that_are_not_ours_are_refused(text: str, message: str, tmp_path: Path) -> None:
    chunks = PngInfo()
    chunks.add_text("ma_agiqa", text)
    PIL.Image.new("RGB", (4, 3)).save(tmp_path / "a.png", pnginfo=chunks)
    with pytest.raises(ValueError, match=message):
        read_metadata(tmp_path / "a.png")


def test_unknown_entries_of_a_later_version_are_passed_over(tmp_path: Path) -> None:
    chunks = PngInfo()
    chunks.add_text("ma_agiqa", json.dumps({**json.loads(SCORED.to_json()), "more": 1}))
    PIL.Image.new("RGB", (4, 3)).save(tmp_path / "a.png", pnginfo=chunks)
    assert read_metadata(tmp_path / "a.png") == SCORED


def test_a_score_that_json_lacks_is_refused_and_leaves_no_file(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="not JSON compliant"):
        save_picture(PIL.Image.new("RGB", (4, 3)), tmp_path / "a.png", PictureMetadata(math.nan, None, "a", "", 1, 0))
    assert list(tmp_path.iterdir()) == []


def test_a_group_of_scores_is_ranked_with_percentiles() -> None:
    info = ScorerInfo("lite", "abc", 0, 10, "data", quantiles=(0.0, 10.0))
    scored = metadata_of_scores([2.0, 5.0, math.nan, 3.0, math.inf], info)
    assert [entry and (entry.rank, entry.index, entry.score, entry.percentile) for entry in scored] == [
        (4, 0, 2.0, 20.0),
        (2, 1, 5.0, 50.0),
        None,
        (3, 3, 3.0, 30.0),
        None,
    ]
    assert scored[0] is not None
    assert (scored[0].model, scored[0].revision) == ("lite", "abc")


def test_a_group_scored_by_an_unknown_or_relative_scorer_has_no_percentiles(tmp_path: Path) -> None:
    (unknown,) = metadata_of_scores([2.0])
    assert unknown == PictureMetadata(2.0, None, None, None, rank=1, index=0)
    assert read_metadata(save_picture(PIL.Image.new("RGB", (4, 3)), tmp_path / "a.png", unknown)) == unknown
    (relative,) = metadata_of_scores([0.5], ScorerInfo("both", "rank", 0, 1, "", relative=True))
    assert relative == PictureMetadata(0.5, None, "both", "rank", rank=1, index=0)


def test_pictures_are_saved_with_and_without_chunks(tmp_path: Path) -> None:
    picture = PIL.Image.new("RGB", (4, 3))
    chunks = PngInfo()
    chunks.add_text("workflow", "{}")
    with PIL.Image.open(save_picture(picture, tmp_path / "a.png", SCORED, chunks, compress_level=1)) as opened:
        assert opened.info["workflow"] == "{}"
        assert read_metadata(opened) == SCORED
    with PIL.Image.open(save_picture(picture, tmp_path / "b.png", None)) as opened:
        assert opened.info == {}


@pytest.mark.parametrize(
    "wrong",
    [{"score": None}, {"score": float("inf")}, {"index": 1.5}, {"rank": True}, {"model": 3}, {"seed": "1"}],
    ids=str,
)
def test_a_chunk_with_values_of_other_kinds_is_none_of_ours(tmp_path: Path, wrong: dict[str, object]) -> None:
    """Found by fuzzing."""
    known = {"format": 1, "score": 1.0, "percentile": None, "model": None, "revision": None, "rank": 1, "index": 0}
    chunks = PngInfo()
    chunks.add_text("ma_agiqa", json.dumps({**known, **wrong}))
    PIL.Image.new("RGB", (4, 4)).save(tmp_path / "a.png", pnginfo=chunks)
    (name,) = wrong
    with pytest.raises(MaAgiqaError, match=f"as {name} in the chunk 'ma_agiqa'"):
        read_metadata(tmp_path / "a.png")


def test_a_broken_file_is_no_picture(tmp_path: Path) -> None:
    """Found by fuzzing."""
    (tmp_path / "a.png").write_bytes(b"\x89PN")
    with pytest.raises(MaAgiqaError, match="Expected a whole picture"):
        read_metadata(tmp_path / "a.png")
