"""The judges as a callable class, for pipelines of one's own."""

import numpy as np
import pyarrow
import pytest
from brightness_judge import judge
from scale_fixtures import picture_bytes, shade_of, write_pictures

from ma_agiqa_core import MaAgiqaError, ScoreActor


def test_columns_by_name(tmp_path):
    paths = write_pictures(tmp_path, 2)
    batch = ScoreActor([judge(), judge(revision="2")])(
        {"path": np.array([*map(str, paths), "none.png"]), "n": [1, 2, 3]}
    )
    assert batch["n"] == [1, 2, 3]
    assert np.round(batch["brightness"][:2] * 255).tolist() == [shade_of(0), shade_of(1)]
    assert np.isnan(batch["brightness"][2])
    assert batch["brightness"].dtype == np.float32
    assert batch["error"].tolist() == [None, None, "no such file"]
    assert np.array_equal(batch["brightness"], batch["brightness_2"], equal_nan=True)


def test_tables_and_prompts():
    table = pyarrow.table({"text": ["ab", "abc"], "bytes": [picture_bytes(0), picture_bytes(1)]})
    made = ScoreActor(judge("prompted"), prompt="text")(table)
    assert made["prompted"].to_pylist() == [2.0, 3.0]
    assert made["width"].to_pylist() == [8, 8]
    assert made["text"].to_pylist() == ["ab", "abc"]


def test_frames():
    pandas = pytest.importorskip("pandas", reason="pandas is not installed")
    frame = pandas.DataFrame({"image": [picture_bytes(3)], "id": [7]}, index=["x"])
    made = ScoreActor(judge())(frame)
    assert made.loc["x", "brightness"] == pytest.approx(shade_of(3) / 255)
    assert made.loc["x", "id"] == 7


def test_arrays():
    shades = [np.full((4, 4, 3), shade, np.uint8) for shade in (0, 51)]
    assert ScoreActor(judge())({"image": shades})["brightness"] == pytest.approx([0, 0.2])
    wrong = ScoreActor(judge())({"image": [np.zeros((4, 4, 3))]})
    assert "Expected a uint8 array (H, W, 3)" in wrong["error"][0]


def test_what_is_no_batch():
    with pytest.raises(MaAgiqaError, match="got list"):
        ScoreActor(judge())([1, 2])
    with pytest.raises(MaAgiqaError, match="Expected a column with pictures"):
        ScoreActor(judge())({"a": [1]})
