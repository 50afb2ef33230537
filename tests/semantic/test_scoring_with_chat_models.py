"""A transformers model in the place of mPLUG-Owl2, from a folder on disk to scores."""

import json

import pytest
import tiny_models
import torch

from ma_agiqa_core import load_scorer
from ma_agiqa_core.semantic import SemanticExtractor


@pytest.mark.parametrize("family", ["qwen2_5_vl", "llava_onevision"])
def test_pictures_are_scored_end_to_end(family, chat_folder, checkpoint, noise_pictures, tmp_path):
    folder = chat_folder(family)
    large = [picture.repeat(2, axis=0).repeat(2, axis=1) for picture in noise_pictures]
    extractor = SemanticExtractor(folder, device="cpu")
    vectors = extractor.extract(large)
    width = extractor.hidden_size
    assert json.loads((folder / "config.json").read_text())["model_type"] == family
    assert {tuple(matrix.shape) for matrix in vectors.values()} == {(5, width)}
    mine = tiny_models.write_checkpoint(tmp_path / "mine.safetensors", width)
    scorer = load_scorer(mine, semantic=folder, device="cpu", cache=tmp_path / "cache")
    scores = scorer.score(large)
    assert scores.isfinite().all()
    for batch_size in (1, 2):
        uncached = load_scorer(mine, semantic=folder, device="cpu")
        torch.testing.assert_close(uncached.score(large, batch_size=batch_size), scores, rtol=0, atol=1e-4)


def test_the_width_is_known_before_the_weights_are_read(chat_folder):
    extractor = SemanticExtractor(chat_folder("qwen2_5_vl"), device="cpu")
    assert extractor.hidden_size == 64
    assert not extractor.is_loaded
