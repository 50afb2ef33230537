"""MA-AGIQA checkpoints as scorers: from pictures to scores, end to end, and every mistake on the way."""

import pickle
import shutil
from pathlib import Path

import pytest
import torch

from ma_agiqa_core import PictureError, Scorer, load_scorer, rank
from ma_agiqa_core.checkpoint import load_checkpoint, save_checkpoint
from ma_agiqa_core.preprocess import visual_pixels
from ma_agiqa_core.scorers.ma_agiqa import MaAgiqaScorer
from ma_agiqa_core.semantic import SemanticExtractor
from ma_agiqa_core.semantic.published_mplug_owl2 import PublishedMplugOwl2


@pytest.fixture(scope="module")
def scorer(checkpoint: Path, owl_folder: Path) -> MaAgiqaScorer:
    return MaAgiqaScorer.from_file(checkpoint, semantic=owl_folder, device="cpu")


def test_scores_are_those_of_the_parts_put_together_by_hand(scorer, checkpoint, owl_folder, noise_pictures):
    vectors = SemanticExtractor(owl_folder, device="cpu").extract(noise_pictures)
    with torch.inference_mode():
        expected = load_checkpoint(checkpoint)(visual_pixels(noise_pictures, size=64), **vectors)
    scores = scorer.score(noise_pictures)
    assert scores.shape == (5,)
    assert scores.dtype == torch.float32
    assert scores.std() > 0.01
    torch.testing.assert_close(scores, expected, rtol=0, atol=1e-5)


def test_a_checkpoint_saved_without_facts_scores(checkpoint, owl_folder, noise_pictures, tmp_path, scorer):
    save_checkpoint(load_checkpoint(checkpoint), tmp_path / "plain.safetensors")
    scores = load_scorer(tmp_path / "plain.safetensors", semantic=owl_folder, device="cpu").score(noise_pictures)
    torch.testing.assert_close(scores, scorer.score(noise_pictures), rtol=0, atol=1e-5)


def test_more_pictures_than_are_held_at_once(scorer, noise_pictures):
    expected = scorer.score(noise_pictures)
    scores = scorer.score(noise_pictures * 8)
    torch.testing.assert_close(scores, expected.repeat(8), rtol=0, atol=1e-5)


def test_the_scorer_says_what_it_is(scorer, checkpoint, owl_folder):
    info = scorer.info
    assert isinstance(scorer, Scorer)
    assert (info.name, info.trained_on, info.low, info.high) == ("tiny", "random numbers", 0.0, 5.0)
    assert info.percentile(0.0) == 50
    assert not info.needs_prompt
    assert "MA-AGIQA" in info.description
    assert load_scorer(checkpoint, semantic=owl_folder, revision=info.revision).info == info
    with pytest.raises(ValueError, match=f"revision 'other', got '{info.revision}'"):
        load_scorer(checkpoint, semantic=owl_folder, revision="other")


def test_the_visual_expert_alone_needs_no_language_model(visual_checkpoint, noise_pictures, owl_folder):
    scorer = load_scorer(visual_checkpoint, device="cpu")
    with torch.inference_mode():
        expected = load_checkpoint(visual_checkpoint)(visual_pixels(noise_pictures, size=64))
    torch.testing.assert_close(scorer.score(noise_pictures), expected, rtol=0, atol=1e-5)
    assert "without a language model" in scorer.info.description
    with pytest.raises(ValueError, match=r"no semantic= for .*, got .*visual expert alone"):
        load_scorer(visual_checkpoint, semantic=owl_folder)
    with pytest.raises(ValueError, match="no quantization= for"):
        load_scorer(visual_checkpoint, quantization="nf4")


def test_with_all_pictures_in_the_cache_the_language_model_is_never_loaded(
    checkpoint, owl_folder, noise_pictures, tmp_path, monkeypatch
):
    options = {"semantic": owl_folder, "cache": tmp_path / "cache", "device": "cpu"}
    expected = load_scorer(checkpoint, **options).score(noise_pictures)
    monkeypatch.setattr(PublishedMplugOwl2, "from_folder", None)
    assert torch.equal(load_scorer(checkpoint, **options).score(noise_pictures), expected)


@pytest.mark.parametrize("dtype", ["bfloat16", "float16", torch.bfloat16])
def test_other_precisions_are_near(checkpoint, owl_folder, noise_pictures, scorer, dtype):
    half = load_scorer(checkpoint, semantic=owl_folder, device="cpu", dtype=dtype)
    assert (half.score(noise_pictures) - scorer.score(noise_pictures)).abs().max() < 0.1


def test_a_semantic_model_of_another_width_is_refused_before_its_weights_are_read(checkpoint, owl_folder, tmp_path):
    import json

    other = Path(shutil.copytree(owl_folder, tmp_path / "other"))
    config = json.loads((other / "config.json").read_text())
    (other / "config.json").write_text(json.dumps({**config, "hidden_size": 32}))
    with pytest.raises(ValueError, match=r"width 64 for .*tiny.safetensors', got 32 .*trained with, owner/owl"):
        load_scorer(checkpoint, semantic=other)


def test_without_the_semantic_model_it_says_which_one_and_how(checkpoint):
    with pytest.raises(FileNotFoundError, match=r"'owner/owl' on this machine.*hf download owner/owl.*semantic=FOLDER"):
        load_scorer(checkpoint, local_files_only=True)


def test_nan_in_a_vector_is_that_pictures_error_and_never_a_score(scorer, noise_pictures, tmp_path, monkeypatch):
    features = PublishedMplugOwl2.features

    def failing(self, pictures, questions):
        vectors = features(self, pictures, questions)
        vectors["semantic_content"][[picture.shape[2] == 90 for picture in pictures]] = torch.nan
        return vectors

    monkeypatch.setattr(PublishedMplugOwl2, "features", failing)
    scores = scorer.score(noise_pictures, on_error="nan")
    assert scores.isnan().tolist() == [False, False, True, False, False]
    with pytest.raises(PictureError, match=r"Picture 2 cannot be scored: its semantic_content vector has 64 values"):
        scorer.score(noise_pictures)
    ranking = rank(scorer, noise_pictures)
    assert [picture.index for picture in ranking.failed] == [2]
    assert str(ranking.failed[0].error).startswith(
        "its semantic_content vector has 64 values of 64 that are NaN or infinite"
    )
    assert len(ranking.kept) == 4


def test_weights_that_overflow_in_half_precision_give_an_error_and_never_a_score(
    checkpoint, owl_folder, noise_pictures, tmp_path
):
    from ma_agiqa_core.checkpoint import read_facts, save_checkpoint

    model = load_checkpoint(checkpoint)
    with torch.no_grad():
        model.fusion.gate.weight.mul_(1e7)
    save_checkpoint(model, tmp_path / "large.safetensors", read_facts(checkpoint))
    large = load_scorer(tmp_path / "large.safetensors", semantic=owl_folder, device="cpu", dtype="float16")
    with pytest.raises(PictureError, match=r"its score is (nan|-?inf): use dtype 'float32'"):
        large.score(noise_pictures[0])
    exact = load_scorer(tmp_path / "large.safetensors", semantic=owl_folder, device="cpu")
    assert exact.score(noise_pictures).isfinite().all()


@pytest.mark.parametrize("kept", [0, 100, 5000])
def test_a_truncated_checkpoint_is_named(checkpoint, tmp_path, kept):
    (tmp_path / "cut.safetensors").write_bytes(checkpoint.read_bytes()[:kept])
    with pytest.raises(ValueError, match=r"cut\.safetensors"):
        load_scorer(tmp_path / "cut.safetensors")


def test_the_published_pickle_is_refused_with_the_command_that_converts_it(tmp_path):
    (tmp_path / "published.pt").write_bytes(pickle.dumps({}))
    with pytest.raises(ValueError, match=r"published\.pt.*ma-agiqa convert"):
        load_scorer(tmp_path / "published.pt")


def test_a_checkpoint_from_the_hubs_cache(checkpoint, owl_folder, tmp_path, monkeypatch, noise_pictures, scorer):
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path))
    for repository, source in (("owner/scorer", checkpoint), ("owner/owl", owl_folder)):
        cached = tmp_path / f"models--{repository.replace('/', '--')}"
        snapshot = cached / "snapshots" / ("a" * 40)
        if source.is_dir():
            shutil.copytree(source, snapshot)
        else:
            snapshot.mkdir(parents=True)
            shutil.copy(source, snapshot / "model.safetensors")
        (cached / "refs").mkdir()
        (cached / "refs" / "main").write_text("a" * 40)
    cached_scorer = load_scorer("owner/scorer", local_files_only=True, device="cpu")
    assert isinstance(cached_scorer, MaAgiqaScorer)
    assert cached_scorer.extractor is not None
    assert cached_scorer.extractor.revision == "a" * 40
    assert torch.equal(cached_scorer.score(noise_pictures), scorer.score(noise_pictures))
