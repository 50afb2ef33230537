"""Pickled shards as safetensors: the same model, the same scores."""

from pathlib import Path

import numpy as np
import pytest
import tiny_judges
import torch

from ma_agiqa_core import MaAgiqaError, load_scorer
from ma_agiqa_core.cli import run
from ma_agiqa_core.errors import OutputExistsError
from ma_agiqa_core.model_files.shards_converted import convert_shards


def test_a_converted_folder_scores_the_same(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    published, out = tiny_judges.write_owl(tmp_path / "published"), tmp_path / "out"
    assert run(["convert", str(published), str(out)]) == 0
    assert "3 files of weights" in capsys.readouterr().out
    assert not list(out.glob("*.bin"))
    picture = np.random.default_rng(0).integers(0, 256, (40, 60, 3), dtype=np.uint8)
    before, after = (load_scorer(f"deqa:{folder}", device="cpu").score(picture) for folder in (published, out))
    assert after.tolist() == pytest.approx(
        before.tolist(), rel=1e-5
    )  # where weights lie in memory shows in the last bit


def test_what_needs_no_conversion_and_what_would_be_overwritten_is_refused(tmp_path: Path) -> None:
    published = tiny_judges.write_owl(tmp_path / "published")
    convert_shards(published, tmp_path / "out")
    with pytest.raises(OutputExistsError, match="out"):
        convert_shards(published, tmp_path / "out")
    with pytest.raises(MaAgiqaError, match=r"model-.*safetensors"):
        convert_shards(tmp_path / "out", tmp_path / "again")


def test_a_pickle_with_more_than_tensors_is_refused(tmp_path: Path) -> None:
    torch.save({"weight": print}, tmp_path / "pytorch_model.bin")
    with pytest.raises(MaAgiqaError, match=r"pytorch_model\.bin"):
        convert_shards(tmp_path, tmp_path / "out")
