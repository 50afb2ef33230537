"""Image Quality Gate."""

from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import pytest
import torch


@pytest.fixture
def outputs(pack_module: Callable[[str], Any], run_node: Callable[..., Any]) -> Callable[..., dict[str, Any]]:
    """Runs the node; gives its outputs by id."""
    node = pack_module("nodes.quality_gate").QualityGate

    def run(**inputs: Any) -> dict[str, Any]:
        names = [output.id for output in node.GET_SCHEMA().outputs]
        return dict(zip(names, run_node(node, **inputs).result, strict=True))

    return run


@pytest.fixture
def gate(outputs: Callable[..., dict[str, Any]]) -> Callable[..., Any]:
    """The two sides."""
    return lambda **inputs: tuple(outputs(**inputs)[f"{side}_images"] for side in ("passed", "failed"))


def greys(images: list[torch.Tensor]) -> list[float]:
    return [round(float(picture.mean()), 3) for item in images for picture in item]


def is_blocked(value: Any) -> bool:
    return type(value).__name__ == "ExecutionBlocker" and value.message is None


def test_each_picture_goes_one_way_in_input_order(gate, batch, managed, progress):
    passed, failed = gate(images=batch, scorer=managed(), min_score=0.5, hidden={"unique_id": "3"})
    assert greys(passed) == [0.7, 0.9, 0.5]
    assert greys(failed) == [0.3, 0.1]
    assert [tuple(item.shape) for item in passed + failed] == [(3, 24, 32, 3), (2, 24, 32, 3)]
    assert progress[-1] == (5, 5, "3")


@pytest.mark.parametrize(("min_score", "empty"), [(0.0, 1), (1.0, 0)])
def test_an_empty_side_is_one_silent_blocker(gate, batch, managed, min_score, empty):
    sides = gate(images=batch, scorer=managed(), min_score=min_score)
    assert is_blocked(sides[empty])
    assert greys(sides[1 - empty]) == [0.7, 0.3, 0.1, 0.9, 0.5]


def test_one_picture_and_mixed_sizes(gate, batch, managed):
    passed, failed = gate(images=batch[3:4], scorer=managed(), min_score=0.5)
    assert greys(passed) == [0.9]
    assert is_blocked(failed)
    passed, failed = gate(images=[batch, torch.ones(1, 4, 6, 3)], scorer=managed(), min_score=0.8)
    assert [tuple(item.shape) for item in passed] == [(1, 24, 32, 3), (1, 4, 6, 3)]
    assert [tuple(item.shape) for item in failed] == [(4, 24, 32, 3)]


def test_the_prompt_reaches_the_scorer(gate, batch, managed):
    scorer = managed(lambda images, prompts: [float(len(text)) for text in prompts], needs_prompt=True)
    passed, failed = gate(images=batch[:2], scorer=scorer, prompt=["long text", "text"], min_score=5.0)
    assert (greys(passed), greys(failed)) == ([0.7], [0.3])
    with pytest.raises(ValueError, match="Expected a prompt for mean"):
        gate(images=batch, scorer=scorer)


def test_a_picture_is_scored_once_however_the_limit_changes(gate, batch, managed):
    seen = []

    def score(images, prompts):
        seen.extend(images)
        return [float(image.mean()) for image in images]

    scorer = managed(score)
    for limit in (0.2, 0.5, 0.8):
        gate(images=batch, scorer=scorer, min_score=limit)
    assert len(seen) == 5


def test_a_scorer_that_only_compares_is_refused(gate, batch, managed):
    with pytest.raises(ValueError, match="Expected no min score with mean, got 0"):
        gate(images=batch, scorer=managed(relative=True), min_score=0.0)


def test_an_empty_batch_is_refused(gate, batch, managed):
    with pytest.raises(ValueError, match="at least one picture, got an empty batch"):
        gate(images=batch[:0], scorer=managed())


def test_latents_masks_scores_and_counts_go_with_their_pictures(outputs, batch, managed):
    numbers = torch.arange(5).float()
    latent = {"samples": numbers[:, None, None, None].expand(5, 4, 3, 4), "batch_index": [5, 6, 7, 8, 9]}
    masks = numbers[:, None, None].expand(5, 24, 32)
    out = outputs(images=batch, scorer=managed(), min_score=0.5, latent=latent, mask=masks)
    assert [item["batch_index"] for item in out["passed_latent"]] == [[5, 8, 9]]
    assert [item["samples"][:, 0, 0, 0].tolist() for item in out["failed_latent"]] == [[1, 2]]
    assert [mask[:, 0, 0].tolist() for mask in out["passed_mask"] + out["failed_mask"]] == [[0, 3, 4], [1, 2]]
    assert out["passed_scores"] == pytest.approx([0.7, 0.9, 0.5])
    assert out["failed_scores"] == pytest.approx([0.3, 0.1])
    assert [score.origin.index for score in out["passed_scores"]] == [0, 3, 4]
    assert (out["passed_count"], out["failed_count"]) == (3, 2)


class Video:
    """What VIDEO links carry: the first frame stands for it."""

    def __init__(self, frames: torch.Tensor) -> None:
        self._frames = frames

    def get_components(self) -> Any:
        return SimpleNamespace(images=self._frames)


def test_videos_go_the_way_of_their_first_frame(outputs, batch, managed):
    first = [Video(torch.stack([picture, 1 - picture])) for picture in batch]
    out = outputs(images=first, scorer=managed(), min_score=0.5, anything=first)
    assert out["passed_anything"] == [first[0], first[3], first[4]]
    assert out["failed_anything"] == [first[1], first[2]]
    assert (greys(out["passed_images"]), greys(out["failed_images"])) == ([0.7, 0.9, 0.5], [0.3, 0.1])


def test_the_gate_takes_images_and_videos(pack_module):
    (images,) = [
        given for given in pack_module("nodes.quality_gate").QualityGate.GET_SCHEMA().inputs if given.id == "images"
    ]
    assert images.get_io_type() == "IMAGE,VIDEO"


def test_an_empty_side_blocks_all_but_its_count(outputs, batch, managed):
    latent = {"samples": torch.zeros(5, 4, 3, 4)}
    given = {"latent": latent, "mask": torch.zeros(5, 24, 32), "anything": list("abcde")}
    out = outputs(images=batch, scorer=managed(), min_score=1.0, **given)
    assert all(is_blocked(out[f"passed_{what}"]) for what in ("images", "latent", "mask", "scores", "anything"))
    assert (out["passed_count"], out["failed_count"]) == (0, 5)


def test_an_output_without_its_input_says_so(outputs, batch, managed):
    out = outputs(images=batch, scorer=managed(), min_score=0.5)
    for name in ("latent", "mask", "anything"):
        for side in ("passed", "failed"):
            said = out[f"{side}_{name}"].message
            assert said == f"nothing is connected to the input '{name}' of Image Quality Gate. Connect it."


def test_the_limit_may_be_a_percentile(gate, batch, managed):
    calibrated = managed(quantiles=(0.0, 0.2, 0.4, 0.6, 0.8, 1.0))
    passed, failed = gate(images=batch, scorer=calibrated, min_score=60.0, min_score_as="percentile")
    assert (greys(passed), greys(failed)) == ([0.7, 0.9], [0.3, 0.1, 0.5])
    passed, _ = gate(images=batch, scorer=managed(), min_score=50.0, min_score_as="percentile in this run")
    assert greys(passed) == [0.7, 0.9, 0.5]
    passed, _ = gate(images=batch, scorer=managed(relative=True), min_score=100, min_score_as="percentile in this run")
    assert greys(passed) == [0.9]


@pytest.mark.parametrize(
    ("measure", "limit", "message"),
    [
        ("percentile", 50.0, "Expected a scorer with percentiles, got mean, which has none. Set 'min score is' to"),
        ("percentile", 101.0, "Expected a percentile from 0 to 100 as min score, got 101"),
        ("percentile in this run", -1.0, "Expected a percentile in this run from 0 to 100 as min score, got -1"),
    ],
)
def test_a_percentile_that_cannot_be(gate, batch, managed, measure, limit, message):
    with pytest.raises(ValueError, match=message):
        gate(images=batch, scorer=managed(), min_score=limit, min_score_as=measure)
