"""One expert left out of a model, or silenced in one that has it: from the options to the scores."""

import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from ma_agiqa_core import load_scorer
from ma_agiqa_core.checkpoint import load_checkpoint, save_checkpoint
from ma_agiqa_core.model import MaAgiqa, MaAgiqaConfig
from ma_agiqa_core.scorers.ma_agiqa import MaAgiqaScorer
from ma_agiqa_core.semantic.extractor import SemanticExtractor, SemanticVectors
from ma_agiqa_core.training.train import TrainingResult

TINY = MaAgiqaConfig(
    backbone="vit_tiny_patch16_224",
    image_size=64,
    backbone_blocks=(0, 1),
    stage_widths=(16, 8),
    swin_mlp_width=12,
    window_size=2,
    semantic_dim=64,
)


@pytest.mark.parametrize("left_out", ["semantic_content", "coherence"])
def test_a_model_without_an_expert_neither_has_nor_reads_it(left_out: str, tmp_path: Path) -> None:
    torch.manual_seed(0)
    model = MaAgiqa(dataclasses.replace(TINY, left_out=(left_out,))).eval()
    pixels, vectors = torch.rand(2, 3, 64, 64), {n: torch.randn(2, 64) for n in ("semantic_content", "coherence")}

    assert not any(left_out in name for name in model.state_dict())
    assert model.fusion.gate.weight.shape == (2, 2 * 16)
    expected = model(pixels, **vectors)
    del vectors[left_out]
    assert torch.equal(model(pixels, **vectors), expected)
    save_checkpoint(model, tmp_path / "ablation.safetensors")
    assert torch.equal(load_checkpoint(tmp_path / "ablation.safetensors")(pixels, **vectors), expected)


def test_its_scorer_asks_only_what_it_reads(owl_folder: Path, noise_pictures: list[np.ndarray], tmp_path: Path) -> None:
    torch.manual_seed(0)
    path = tmp_path / "ablation.safetensors"
    save_checkpoint(MaAgiqa(dataclasses.replace(TINY, left_out=("coherence",))), path)

    scorer = load_scorer(path, semantic=owl_folder, device="cpu")

    assert isinstance(scorer, MaAgiqaScorer)
    assert scorer.extractor is not None
    assert list(scorer.extractor.questions) == ["semantic_content"]
    assert scorer.score(noise_pictures).isfinite().all()


def test_a_head_whose_experts_are_all_left_out_needs_no_language_model(
    noise_pictures: list[np.ndarray], tmp_path: Path
) -> None:
    config = dataclasses.replace(TINY, targets=("quality", "alignment"), left_out=("semantic_content", "coherence"))
    save_checkpoint(MaAgiqa(config), tmp_path / "two.safetensors")

    assert load_scorer(tmp_path / "two.safetensors", device="cpu").score(noise_pictures).isfinite().all()
    with pytest.raises(ValueError, match="names none, got None"):
        load_scorer(tmp_path / "two.safetensors", device="cpu", target="alignment")


@pytest.mark.parametrize(
    "change",
    [
        {"left_out": ("visual",)},
        {"left_out": ("alignment",)},
        {"left_out": ("semantic_content", "coherence")},
        {"left_out": ("coherence",), "semantic_dim": 0},
    ],
)
def test_what_cannot_be_left_out_is_refused(change: dict) -> None:
    with pytest.raises(ValueError, match="Expected some of semantic_content, coherence as left_out, got"):
        dataclasses.replace(TINY, **change)


def random_vectors(count: int = 3) -> dict[str, torch.Tensor]:
    return {name: torch.randn(count, 64) for name in ("semantic_content", "coherence")}


def test_a_silenced_expert_is_one_that_was_cut_out() -> None:
    """Its vector is zeros: so its rows and columns of the gate make no difference."""
    torch.manual_seed(0)
    model = MaAgiqa(TINY).eval()
    cut = MaAgiqa(dataclasses.replace(TINY, left_out=("coherence",))).eval()
    state = {name: tensor for name, tensor in model.state_dict().items() if "coherence" not in name}
    kept = torch.arange(48).view(3, 16)[[0, 2]].flatten()  # semantic content, coherence, visual
    state["fusion.gate.weight"] = state["fusion.gate.weight"][[0, 2]][:, kept]
    state["fusion.gate.bias"] = state["fusion.gate.bias"][[0, 2]]
    cut.load_state_dict(state)
    pixels, vectors = torch.rand(3, 3, 64, 64), random_vectors()
    whole = model(pixels, **vectors)

    model.switch_off(["coherence"])

    assert not torch.equal(model(pixels, **vectors), whole)
    torch.testing.assert_close(model(pixels, semantic_content=vectors["semantic_content"]), cut(pixels, **vectors))
    model.switch_off([])
    assert torch.equal(model(pixels, **vectors), whole)


def test_what_is_silent_is_not_looked_at() -> None:
    torch.manual_seed(0)
    model = MaAgiqa(TINY).eval()
    vectors = random_vectors()
    model.switch_off(["visual"])
    assert torch.equal(model(torch.rand(3, 3, 64, 64), **vectors), model(torch.rand(3, 3, 64, 64), **vectors))
    model.switch_off(["semantic_content", "coherence"])
    assert model(torch.rand(3, 3, 64, 64)).isfinite().all()  # needs no vectors
    for experts in (["visual", "semantic_content", "coherence"], ["alignment"], ["taste"]):
        with pytest.raises(ValueError, match="Expected some of the experts semantic_content, coherence, visual, got"):
            model.switch_off(experts)


def test_the_scorer_of_a_silenced_model(
    checkpoint: Path, visual_checkpoint: Path, owl_folder: Path, noise_pictures: list[np.ndarray]
) -> None:
    def scores(**options: object) -> torch.Tensor:
        return load_scorer(checkpoint, device="cpu", **options).score(noise_pictures)  # type: ignore[arg-type]

    whole = scores(semantic=owl_folder)
    one = load_scorer(checkpoint, semantic=owl_folder, device="cpu", without=["coherence"])
    assert isinstance(one, MaAgiqaScorer)
    assert one.info.name == "tiny-without-coherence"
    assert one.extractor is not None
    assert list(one.extractor.questions) == ["semantic_content"]
    alone = scores(semantic="none")  # no language model at hand
    assert torch.equal(alone, scores(without=["semantic_content", "coherence"]))
    assert all((a - b).abs().max() > 1e-6 for a, b in ((whole, one.score(noise_pictures)), (whole, alone)))
    plain = load_scorer(visual_checkpoint, device="cpu").score(noise_pictures)
    assert torch.equal(load_scorer(visual_checkpoint, device="cpu", semantic="none").score(noise_pictures), plain)
    with pytest.raises(ValueError, match=r"Expected no without= for a lite scorer, got \('coherence',\)"):
        load_scorer("lite", without=["coherence"])


def test_training_without_an_expert_asks_nothing_for_it(
    run_training: Callable[..., TrainingResult],
    owl_folder: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    asked: set[str] = set()
    ask = SemanticExtractor.vectors

    def vectors(self: SemanticExtractor, *arguments: Any, **options: Any) -> SemanticVectors:
        answer = ask(self, *arguments, **options)
        asked.update(answer.vectors)
        return answer

    monkeypatch.setattr(SemanticExtractor, "vectors", vectors)

    result = run_training(tmp_path, epochs=1, semantic=str(owl_folder), left_out=("coherence",))

    assert asked == {"semantic_content"}
    scorer = load_scorer(result.model, device="cpu", semantic=owl_folder)
    assert isinstance(scorer, MaAgiqaScorer)
    assert scorer.extractor is not None
    assert list(scorer.extractor.questions) == ["semantic_content"]


def test_an_expert_that_is_not_there_is_refused_before_the_language_model_works(
    run_training: Callable[..., TrainingResult], owl_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(SemanticExtractor, "vectors", lambda *_, **__: pytest.fail("asked"))

    with pytest.raises(ValueError, match=r"Expected some of semantic_content, coherence as left_out"):
        run_training(tmp_path, semantic=str(owl_folder), left_out=("alignment",))
