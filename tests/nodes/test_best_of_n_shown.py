"""What the best-of-N sampler shows of its candidates, limits as percentiles, and videos."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import PIL.Image
import pytest
import torch

pytestmark = pytest.mark.comfyui_only

SETTINGS: dict[str, Any] = {
    "seed": 11,
    "n": 4,
    "keep": 1,
    "sampler_name": "euler",
    "scheduler": "normal",
    "steps": 4,
    "cfg": 1.0,
    "prune_at": "0.25:3, 0.75:2",
}


@pytest.fixture
def best_of(
    pack_module: Callable[[str], Any], run_node: Callable[..., Any], tiny_diffusion: Any, managed: Callable[..., Any]
) -> Callable[..., Any]:
    """Runs the node; gives its NodeOutput."""
    node = pack_module("nodes.best_of_n_sampler").BestOfNSampler
    inputs = {
        **SETTINGS,
        "model": tiny_diffusion.tiny_model(),
        "vae": tiny_diffusion.TinyVae(),
        "scorer": managed(),
        "positive": tiny_diffusion.conditioning(1),
        "negative": tiny_diffusion.conditioning(2),
        "latent_image": {"samples": torch.zeros(1, 4, 8, 8)},
    }
    return lambda **own: run_node(node, hidden={"unique_id": "7"}, **{**inputs, **own})


@pytest.fixture
def drawn(pack_module: Callable[[str], Any], monkeypatch: pytest.MonkeyPatch) -> list[dict[str, Any]]:
    """What is asked of the strip: scores, notes, numbers."""
    strip, asked = pack_module("nodes.sockets.score_strip"), []
    true = strip.strip_sheet

    def drawing(images: Any, scores: Any, percentiles: Any, **given: Any) -> Any:
        asked.append({"scores": list(scores), "percentiles": percentiles, **given})
        return true(images, scores, percentiles, **given)

    monkeypatch.setattr(strip, "strip_sheet", drawing)
    return asked


def sizes(ui: dict[str, Any]) -> list[tuple[int, int]]:
    import folder_paths

    found = []
    for entry in ui["images"]:
        with PIL.Image.open(Path(folder_paths.get_temp_directory(), entry["filename"])) as picture:
            found.append(picture.size)
    return found


def test_all_candidates_are_shown_with_how_far_they_got(best_of: Callable[..., Any], drawn: list[Any]) -> None:
    out = best_of()
    (strip,) = drawn
    assert len(out.ui["images"]) == 1
    assert strip["notes"] == ["", "", "dropped after 3 of 4", "dropped after 1 of 4"]
    assert sorted(strip["numbers"]) == [0, 1, 2, 3]
    assert strip["numbers"][0] == int(out.args[3])
    assert strip["scores"][0] == out.args[2][0]
    assert strip["scores"][0] >= strip["scores"][1]
    for line in out.args[4].splitlines():
        if line.startswith("  dropped"):
            number, note = line.split()[1], "dropped after"
            assert strip["notes"][strip["numbers"].index(int(number))].startswith(note)


def test_without_overlay_the_candidates_alone_are_shown(best_of: Callable[..., Any]) -> None:
    assert sizes(best_of(overlay=False).ui) == [(16, 16)] * 4
    assert all(height > 16 for _, height in sizes(best_of().ui))


def test_candidates_of_all_rounds_are_shown(best_of: Callable[..., Any], drawn: list[Any]) -> None:
    best_of(rounds=2, min_score=9.0)
    (strip,) = drawn
    assert sorted(strip["numbers"]) == list(range(8))
    assert [bool(note) for note in strip["notes"]] == [False] * 4 + [True] * 4


def test_the_lowest_score_may_be_a_percentile(
    best_of: Callable[..., Any], managed: Callable[..., Any], drawn: list[Any]
) -> None:
    easy = managed(quantiles=(0.0, 0.1))
    *_, scores, _, log = best_of(scorer=easy, rounds=3, min_score=90.0, min_score_as="percentile").args
    assert log.endswith("1 of at most 3 rounds: met, best 100 for 90")
    assert scores[0].percentile == 100
    assert drawn[0]["percentiles"] == [100, 100, None, None]  # previews have none
    hard = managed(quantiles=(0.0, 2.0))
    *_, log = best_of(scorer=hard, rounds=2, min_score=90.0, min_score_as="percentile").args
    assert "2 of at most 2 rounds: not met, best " in log
    with pytest.raises(ValueError, match="Expected a scorer with percentiles, got mean, which has none"):
        best_of(rounds=2, min_score=90.0, min_score_as="percentile")


@pytest.fixture
def videos(tiny_diffusion: Any) -> dict[str, Any]:
    """Inputs for a small Wan with three frames."""
    return {
        "model": tiny_diffusion.tiny_video_model(),
        "vae": tiny_diffusion.TinyVae(),
        "latent_image": {"samples": torch.zeros(1, 16, 3, 4, 6)},
    }


def test_videos_are_chosen_by_their_first_frame(best_of: Callable[..., Any], videos: dict[str, Any]) -> None:
    pruned = best_of(**videos, keep=2).args
    whole = best_of(**videos, keep=4, prune_at="").args
    latent, images, scores, indexes, _ = pruned
    assert latent["samples"].shape == (2, 16, 3, 4, 6)
    assert images.shape == (2 * 3, 8, 12, 3)  # all frames of the kept
    assert scores == pytest.approx([float(images[place].mean()) for place in (0, 3)])
    rows = [whole[3].split(",").index(number) for number in indexes.split(",")]
    assert torch.allclose(latent["samples"], whole[0]["samples"][rows], atol=1e-4)


def test_of_videos_only_what_is_kept_is_decoded_whole(best_of: Callable[..., Any], videos: dict[str, Any]) -> None:
    shapes = []
    decode = videos["vae"].decode

    def noted(latents: torch.Tensor) -> torch.Tensor:
        shapes.append(tuple(latents.shape[:3]))
        return decode(latents)

    videos["vae"].decode = noted
    best_of(**videos)
    assert shapes == [(4, 16, 1), (3, 16, 1), (2, 16, 1), (1, 16, 3)]


def test_videos_of_several_rounds(best_of: Callable[..., Any], videos: dict[str, Any]) -> None:
    latent, images, scores, indexes, _ = best_of(**videos, keep=2, rounds=2, min_score=9.0).args
    assert latent["batch_index"] == [int(index) for index in indexes.split(",")]
    assert scores == pytest.approx([float(images[place].mean()) for place in (0, 3)])
