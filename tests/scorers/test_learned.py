"""Learned scorers as files; what all scorers must do is in test_scorer_contract.py."""

from pathlib import Path

import numpy as np
import pytest
import tiny_models
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save, save_file

from ma_agiqa_core import load_scorer
from ma_agiqa_core.errors import MaAgiqaError
from ma_agiqa_core.pictures.inputs import iterate_pictures
from ma_agiqa_core.scorers.families import FAMILIES, family_of
from ma_agiqa_core.scorers.learned import LearnedScorer


@pytest.fixture(scope="module")
def file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_models.write_learned(tmp_path_factory.mktemp("learned") / "mine.safetensors")


def changed(file: Path, folder: Path, **metadata: str | None) -> Path:
    with safe_open(file, framework="pt") as checkpoint:
        entries = dict(checkpoint.metadata())
    for name, value in metadata.items():
        entries.pop(f"ma_agiqa.{name}")
        if value is not None:
            entries[f"ma_agiqa.{name}"] = value
    save_file(load_file(file), folder / "changed.safetensors", entries)
    return folder / "changed.safetensors"


def test_the_score_is_the_formula_of_its_module(file):
    scorer = load_scorer(file, device="cpu")
    picture = np.random.default_rng(0).integers(0, 256, (48, 64, 3), np.uint8)
    tensors = {name: part.double().numpy() for name, part in load_file(file).items()}
    lite = load_scorer("lite", device="cpu")
    low, middle, high = np.quantile(lite.info.quantiles, [0.16, 0.5, 0.84])
    prior = (float(lite.score([picture])[0]) - middle) / ((high - low) / 2)
    assert isinstance(scorer, LearnedScorer)
    (description,) = scorer.features.describe(iterate_pictures([picture]))
    assert isinstance(description, torch.Tensor)
    z = ((description.double().numpy() - tensors["mean"]) / tensors["deviation"]).clip(-4, 4)
    odds = z @ tensors["weight"] + tensors["prior_weight"] * prior + tensors["bias"]
    assert float(scorer.score([picture])[0]) == pytest.approx(10 / (1 + np.exp(-odds)), abs=1e-3)


def test_it_is_a_family_of_its_own():
    family = family_of({"ma_agiqa.kind": "learned"})
    assert family is not None
    assert family.name == "learned"
    assert [family.name for family in FAMILIES].count("learned") == 1


@pytest.mark.parametrize(
    ("metadata", "message"),
    [
        ({"features": "vgg"}, "got 'vgg'"),
        ({"features": None}, "'ma_agiqa.features' is missing"),
        ({"quantiles": "no"}, "damaged"),
        ({"prior": "pickscore"}, "as prior, got 'pickscore'"),
        ({"features_revision": "old"}, "features of lite in revision 'old'.*Learn it again"),
        ({"prior_revision": "old"}, "lite as prior in revision 'old'"),
    ],
)
def test_a_changed_file_is_refused(file, tmp_path, metadata, message):
    with pytest.raises(MaAgiqaError, match=message):
        load_scorer(changed(file, tmp_path, **metadata))


def test_other_tensors_and_options_are_refused(file, tmp_path):
    with safe_open(file, framework="pt") as checkpoint:
        entries = dict(checkpoint.metadata())
    save_file({"weight": torch.zeros(3)}, tmp_path / "other.safetensors", entries)
    with pytest.raises(MaAgiqaError, match=r"Expected a learned scorer, got .*other\.safetensors"):
        load_scorer(tmp_path / "other.safetensors")
    with pytest.raises(MaAgiqaError, match="no semantic= for a learned scorer"):
        load_scorer(file, semantic="owl")
    with pytest.raises(MaAgiqaError, match="got 'float16'"):
        load_scorer(file, dtype="float16")


def test_a_header_whose_length_looks_like_a_pickle_is_none(file, tmp_path):
    """The first bytes of a safetensors file are that length: 0x80 0x02 begins a pickle as well."""
    with safe_open(file, framework="pt") as checkpoint:
        entries = dict(checkpoint.metadata())
    tensors = load_file(file)
    length = int.from_bytes(save(tensors, entries)[:8], "little")
    content = save(tensors, {**entries, "ma_agiqa.trained_on": "x" * ((0x0280 - length) % 0x10000)})
    (tmp_path / "mine.safetensors").write_bytes(content)
    assert content.startswith(b"\x80\x02")
    assert load_scorer(tmp_path / "mine.safetensors", device="cpu").info.name == "tiny"
