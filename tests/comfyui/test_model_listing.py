"""What a folder of models offers."""

import shutil
from pathlib import Path
from types import ModuleType

import pytest

from ma_agiqa_core import load_scorer
from ma_agiqa_core.comfyui.model_listing import scorer_path, scorers_in, semantic_models_in


@pytest.fixture
def models(tmp_path: Path, tiny_models: ModuleType, visual_checkpoint: Path, owl_folder: Path) -> Path:
    for name in ("b.safetensors", "A.SAFETENSORS", "own/c.safetensors", ".hidden/d.safetensors"):
        target = tmp_path / name
        target.parent.mkdir(exist_ok=True)
        shutil.copy(visual_checkpoint, target)
    tiny_models.write_clip(tmp_path / "clip")
    tiny_models.write_clip(tmp_path / "own" / "siglip", model_type="siglip")
    shutil.copytree(owl_folder, tmp_path / "owl")
    (tmp_path / "half").mkdir()
    (tmp_path / "half" / "config.json").write_text('{"model_type": "clip"}')
    return tmp_path


def test_checkpoints_and_clip_folders_are_scorers(models: Path) -> None:
    assert scorers_in(models) == ["A.SAFETENSORS", "b.safetensors", "clip", "own/c.safetensors", "own/siglip"]
    assert semantic_models_in(models) == ["owl"]


def test_all_of_them_load(models: Path) -> None:
    for name in scorers_in(models):
        load_scorer(scorer_path(models, name), device="cpu")


def test_no_folder_offers_nothing(tmp_path: Path) -> None:
    assert scorers_in(tmp_path / "gone") == semantic_models_in(tmp_path / "gone") == []


def test_a_learned_scorer_is_listed_and_loaded(tmp_path: Path, tiny_models: ModuleType) -> None:
    tiny_models.write_learned(tmp_path / "taste" / "mine.safetensors")

    assert scorers_in(tmp_path) == ["taste/mine.safetensors"]
    assert load_scorer(scorer_path(tmp_path, "taste/mine.safetensors"), device="cpu").info.name == "tiny"
