"""What a folder of models offers."""

import shutil
from pathlib import Path
from types import ModuleType

import clip_judges
import pytest

from ma_agiqa_core import load_scorer
from ma_agiqa_core.comfyui.model_listing import (
    place_of,
    published_name,
    published_scorers,
    scorer_path,
    scorers_in,
    semantic_models_in,
)
from ma_agiqa_core.model_files.digest import file_digest
from ma_agiqa_core.scorers.families import FAMILIES
from ma_agiqa_core.scorers.installed import installed_models

LAION = "sac+logos+ava1-l14-linearMSE.pth"


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


def test_published_judges_are_scorers(tmp_path: Path) -> None:
    clip_judges.write_laion(tmp_path / "taste")
    clip_judges.write_hpsv2(tmp_path / "judges" / "HPSv2")
    shutil.copy(tmp_path / "judges" / "HPSv2" / "HPS_v2.1_compressed.pt", tmp_path)
    assert scorers_in(tmp_path) == ["HPS_v2.1_compressed.pt", "judges/HPSv2", "taste"]
    assert scorer_path(tmp_path, "taste") == f"laion-aesthetic:{tmp_path / 'taste'}"
    assert scorer_path(tmp_path, "HPS_v2.1_compressed.pt") == f"hpsv2:{tmp_path / 'HPS_v2.1_compressed.pt'}"
    assert place_of(scorer_path(tmp_path, "judges/HPSv2")) == tmp_path / "judges" / "HPSv2"
    for name in ("taste", "judges/HPSv2"):
        load_scorer(scorer_path(tmp_path, name), device="cpu")
    (found,) = [model for model in installed_models([tmp_path / "taste"]) if model.source == "folder"]
    assert (found.kind, found.revision) == ("scorer", file_digest(tmp_path / "taste" / LAION)[:12])
    assert f"--model laion-aesthetic:{tmp_path / 'taste'}" in found.description


def test_no_folder_offers_nothing(tmp_path: Path) -> None:
    assert scorers_in(tmp_path / "gone") == semantic_models_in(tmp_path / "gone") == []


def test_a_learned_scorer_is_listed_and_loaded(tmp_path: Path, tiny_models: ModuleType) -> None:
    tiny_models.write_learned(tmp_path / "taste" / "mine.safetensors")

    assert scorers_in(tmp_path) == ["taste/mine.safetensors"]
    assert load_scorer(scorer_path(tmp_path, "taste/mine.safetensors"), device="cpu").info.name == "tiny"


def test_every_family_that_loads_by_its_name_is_offered() -> None:
    offered = [published_name(name) for name in published_scorers()]
    assert offered == [family.name for family in FAMILIES if family.by_name]
    assert {"imagereward", "hpsv3", "vqascore", "aesthetic-v2.5"} <= set(offered)
    assert all(name is not None and place_of(name) is None for name in offered)
    assert published_name("imagereward") is None
    assert published_name("lite (published)") is None
