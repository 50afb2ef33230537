"""Scorers as ComfyUI manages them."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch


@pytest.fixture
def scores_of(pack_module: Callable[[str], Any]) -> Callable[..., list[float]]:
    return pack_module("nodes.sockets.scores").scores_of


def test_scores_are_those_of_the_core_in_input_order(
    managed: Callable[..., Any], scores_of: Callable[..., list[float]], batch: torch.Tensor
) -> None:
    assert scores_of(managed(), list(batch)) == pytest.approx([0.7, 0.3, 0.1, 0.9, 0.5])


def test_a_picture_is_scored_once_whatever_batch_it_comes_in(
    managed: Callable[..., Any], scores_of: Callable[..., list[float]], batch: torch.Tensor
) -> None:
    seen: list[int] = []

    def fn(images: Any, prompts: Any) -> list[float]:
        seen.append(len(images))
        return [float(image.mean()) for image in images]

    scorer = managed(fn)
    scores_of(scorer, list(batch[:3]))
    assert scores_of(scorer, list(batch[[2, 4, 0, 4]])) == pytest.approx([0.1, 0.5, 0.7, 0.5])
    assert seen == [3, 1]


def test_a_prompt_belongs_to_the_picture_where_it_is_read(
    managed: Callable[..., Any], scores_of: Callable[..., list[float]], batch: torch.Tensor
) -> None:
    scorer = managed(lambda images, prompts: [float(len(prompt)) for prompt in prompts], needs_prompt=True, high=100)
    assert scores_of(scorer, list(batch[:2]), ["a", "bb"]) == [1, 2]
    assert scores_of(scorer, list(batch[:2]), ["bb", "bb"]) == [2, 2]


def test_scores_that_compare_a_group_are_never_remembered(
    managed: Callable[..., Any], scores_of: Callable[..., list[float]], batch: torch.Tensor
) -> None:
    scorer = managed(lambda images, prompts: [len(images) for _ in images], relative=True, high=100)
    assert scores_of(scorer, list(batch)) == [5] * 5
    assert scores_of(scorer, list(batch[:2])) == [2, 2]


def test_a_changed_picture_is_another_one(
    managed: Callable[..., Any], scores_of: Callable[..., list[float]], batch: torch.Tensor
) -> None:
    scorer = managed()
    scores_of(scorer, list(batch))
    batch[0] = 0.25  # in place, as some nodes do
    assert scores_of(scorer, list(batch))[0] == pytest.approx(0.25)


def test_the_cache_has_an_end(pack_module: Callable[[str], Any], monkeypatch: pytest.MonkeyPatch) -> None:
    score_cache = pack_module("nodes.scorers.score_cache")
    monkeypatch.setattr(score_cache, "LARGEST_SIZE", 3)
    cache = score_cache.ScoreCache()
    cache.remember({"a": 1.0, "b": 2.0, "c": 3.0})
    cache.known(["a"])
    cache.remember({"d": 4.0})
    assert cache.known(["a", "b", "c", "d"]) == {"a": 1.0, "c": 3.0, "d": 4.0}


def test_a_picture_without_a_score_is_named_by_its_place(
    managed: Callable[..., Any], batch: torch.Tensor, pack_module: Callable[[str], Any]
) -> None:
    core = pack_module("ma_agiqa_core")

    class Picky:
        info = core.ScorerInfo("picky", "1", 0, 1, "")

        def score(self, images_: Any, prompts: Any = None, batch_size: Any = None, on_error: str = "raise") -> Any:
            for index, image in enumerate(images_):
                if image.mean() > 0.8 and on_error == "raise":
                    raise core.PictureError(index, None, "it is too bright")
            return torch.tensor([float("nan") if image.mean() > 0.8 else 0.5 for image in images_])

    scorer = pack_module("nodes.scorers.managed_scorer").ManagedScorer(Picky(), "picky")
    pictures = pack_module("nodes.sockets.images").for_core(list(batch))
    scorer.score(pictures[:2])
    with pytest.raises(ValueError, match=r"^Picture 3 cannot be scored: it is too bright\.$"):
        scorer.score(pictures)
    scores = scorer.score(pictures, on_error="nan")
    assert scores.isnan().tolist() == [False, False, False, True, False]


def test_where_memory_runs_out_everything_else_is_unloaded_and_one_at_a_time_is_tried(
    managed: Callable[..., Any],
    scores_of: Callable[..., list[float]],
    pack_module: Callable[[str], Any],
    batch: torch.Tensor,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    freed: list[float] = []
    memory = pack_module("nodes.scorers.memory").model_management
    monkeypatch.setattr(memory, "free_memory", lambda needed, device, keep_loaded=(): freed.append(needed))

    def fn(images: Any, prompts: Any) -> list[float]:
        if not freed or len(images) > 1:
            raise torch.cuda.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB.")
        return [float(image.mean()) for image in images]

    assert scores_of(managed(fn), list(batch)) == pytest.approx([0.7, 0.3, 0.1, 0.9, 0.5])
    assert freed == [1e30]


def test_comfyuis_out_of_memory_is_the_cores(pack_module: Callable[[str], Any]) -> None:
    from comfy import model_management

    error = model_management.OOM_EXCEPTION("CUDA out of memory. Tried to allocate 2.00 GiB.")
    assert pack_module("ma_agiqa_core.compute.batching").is_out_of_memory(error)


def test_lite_halves_its_batches_where_memory_runs_out(
    pack_module: Callable[[str], Any], scores_of: Callable[..., list[float]], monkeypatch: pytest.MonkeyPatch
) -> None:
    scorer = pack_module("nodes.scorers.loading").managed_scorer("lite", "from checkpoint", "auto", "cpu", True)
    network, sizes = scorer._scorer.network, []
    forward = network.forward

    def tight(rgb: torch.Tensor) -> torch.Tensor:
        sizes.append(len(rgb))
        if len(rgb) > 1:
            raise torch.cuda.OutOfMemoryError("CUDA out of memory.")
        return forward(rgb)

    monkeypatch.setattr(network, "forward", tight)
    torch.manual_seed(0)
    pictures = list(torch.rand(3, 48, 64, 3))
    scores = scores_of(scorer, pictures)
    assert sizes == [3, 1, 2, 1, 1]
    assert scores == pytest.approx([scorer._scorer.score(p.movedim(-1, 0)).item() for p in pictures], abs=1e-4)


def test_the_interrupt_button_ends_scoring_within_one_picture(
    pack_module: Callable[[str], Any], scores_of: Callable[..., list[float]]
) -> None:
    from comfy import model_management

    scorer = pack_module("nodes.scorers.loading").managed_scorer("lite", "from checkpoint", "auto", "cpu", False)
    parts: list[int] = []

    def press(*_: Any) -> None:
        parts.append(1)
        model_management.interrupt_current_processing()

    hooks = [module.register_forward_hook(press) for module in scorer._scorer.network.modules()]
    with pytest.raises(model_management.InterruptProcessingException):
        scores_of(scorer, [torch.rand(48, 64, 3)])
    for hook in hooks:
        hook.remove()
    assert len(parts) <= 3  # a part, and those that end with it
    assert not model_management.processing_interrupted()  # it was taken notice of


def test_the_interrupt_button_ends_an_ensemble_between_pictures(
    managed: Callable[..., Any], scores_of: Callable[..., list[float]], batch: torch.Tensor
) -> None:
    from comfy import model_management

    def fn(images: Any, prompts: Any) -> list[float]:
        model_management.interrupt_current_processing()
        return [0.5] * len(images)

    with pytest.raises(model_management.InterruptProcessingException):
        scores_of(managed(fn), list(batch))


def test_what_another_pack_calls_a_scorer_is_refused(
    pack_module: Callable[[str], Any], run_node: Callable[..., Any], batch: torch.Tensor
) -> None:
    message = "Expected a scorer of Load Image Scorer or Combine Image Scorers, got int. Connect one of these nodes."
    scores = [0.5] * len(batch)
    for module, name, inputs in (
        ("score_images", "ScoreImages", {"images": batch, "scorer": 5}),
        ("select_best", "SelectBest", {"images": batch, "scorer": 5}),
        ("quality_gate", "QualityGate", {"images": batch, "scorer": 5}),
        ("score_sheet", "ScoreSheet", {"images": batch, "scores": scores, "scorer": 5}),
        ("save_scored", "SaveScored", {"images": batch, "scores": scores, "scorer": 5}),
        ("ensemble_scorer", "EnsembleScorer", {"scorer_1": 5}),
    ):
        with pytest.raises(ValueError, match=message):
            run_node(getattr(pack_module(f"nodes.{module}"), name), **inputs)


def test_the_language_model_of_a_judge_is_managed(
    pack_module: Callable[[str], Any], tmp_path: Path, batch: torch.Tensor
) -> None:
    import tiny_judges

    judge = pack_module("ma_agiqa_core").load_scorer(f"deqa:{tiny_judges.write_owl(tmp_path / 'deqa')}", device="cpu")
    expected = judge.score(list(batch.movedim(-1, 1)))
    judge.language_model.drop()
    managed = pack_module("nodes.scorers.managed_scorer").ManagedScorer(judge, "deqa", torch.device("cpu"))
    assert managed.passes == 1
    assert managed._networks.patchers == []  # it is loaded when a picture needs it
    torch.testing.assert_close(managed.score(list(batch.movedim(-1, 1))), expected)
    (patcher,) = managed._networks.patchers
    assert patcher.model.network is judge.language_model.get().network
