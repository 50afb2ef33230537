"""Select Best Images."""

from collections.abc import Callable
from typing import Any

import pytest
import torch

GREYS = [0.7, 0.3, 0.1, 0.9, 0.5]  # of the pictures of `batch`
SCORES = [7.0, 3.0, 1.0, 9.0, 5.0]


@pytest.fixture
def select(pack_module: Callable[[str], Any], run_node: Callable[..., Any]) -> Callable[..., dict[str, Any]]:
    """Runs the node; gives its outputs by id."""
    node = pack_module("nodes.select_best").SelectBest

    def run(**inputs: Any) -> dict[str, Any]:
        names = [output.id for output in node.GET_SCHEMA().outputs]
        return dict(zip(names, run_node(node, **inputs).result, strict=True))

    return run


def greys(images: list[torch.Tensor]) -> list[float]:
    """The grey of every picture of an output."""
    return [round(float(picture.mean()), 3) for item in images for picture in item]


def is_blocked(value: Any, message: str | None = None) -> bool:
    return type(value).__name__ == "ExecutionBlocker" and value.message == message


def latent(count: int, **more: Any) -> dict[str, Any]:
    """Row i holds i everywhere."""
    return {"samples": torch.arange(count).float()[:, None, None, None].expand(count, 4, 3, 4).clone(), **more}


def test_the_best_come_out_first_with_their_scores(select, batch):
    out = select(images=batch, scores=SCORES, top_k=2)
    assert [tuple(item.shape) for item in out["best_images"]] == [(2, 24, 32, 3)]
    assert greys(out["best_images"]) == [0.9, 0.7]
    assert out["best_scores"] == [9.0, 7.0]
    assert out["indexes"] == "3,0"
    assert greys(out["rejected_images"]) == [0.5, 0.3, 0.1]


def test_without_changes_one_picture_is_kept(select, batch):
    out = select(images=batch, scores=SCORES)
    assert (out["indexes"], out["best_scores"]) == ("3", [9.0])


def test_the_scorer_is_asked_where_no_scores_are(select, batch, managed, progress):
    out = select(images=batch, scorer=managed(), top_k=1, hidden={"unique_id": "7"})
    assert out["indexes"] == "3"
    assert out["best_scores"] == pytest.approx([0.9])
    assert progress[-1] == (5, 5, "7")
    assert select(images=batch, scorer=managed(), scores=[5.0, 4.0, 3.0, 2.0, 1.0])["indexes"] == "0"


def test_the_prompt_reaches_the_scorer(select, batch, managed):
    texts: list[str] = []

    def score(images, prompts):
        texts.extend(prompts)
        return [1.0] * len(images)

    scorer = managed(score, needs_prompt=True)
    select(images=batch[:2], scorer=scorer, prompt="a red fox")
    assert texts == ["a red fox"] * 2
    with pytest.raises(ValueError, match=r"Expected a prompt for mean, .* Connect the text"):
        select(images=batch[:2], scorer=scorer)


def test_lists_and_batches_are_counted_through(select, batch):
    images = [batch[:2], torch.full((1, 8, 8, 3), 0.2), batch[2:]]
    out = select(images=images, scores=[1.0, 2.0, 9.0, 3.0, 8.0, 4.0], top_k=2)
    assert out["indexes"] == "2,4"
    assert [tuple(item.shape) for item in out["best_images"]] == [(1, 8, 8, 3), (1, 24, 32, 3)]
    assert greys(out["best_images"]) == [0.2, 0.9]
    assert [tuple(item.shape) for item in out["rejected_images"]] == [(4, 24, 32, 3)]


def test_alpha_and_half_precision_pass_unchanged(select):
    images = torch.rand(3, 8, 8, 4, generator=torch.Generator().manual_seed(0)).half()
    (best,) = select(images=images, scores=[1.0, 3.0, 2.0])["best_images"]
    assert torch.equal(best, images[1:2])


def test_latents_and_masks_go_along(select, batch):
    noise_mask = torch.arange(5).float()[:, None, None, None].expand(5, 1, 24, 32)
    masks = torch.arange(5).float()[:, None, None].expand(5, 24, 32)
    given = latent(5, noise_mask=noise_mask, batch_index=[10, 11, 12, 13, 14])
    out = select(images=batch, scores=SCORES, top_k=3, latent=given, mask=masks)
    (best,) = out["best_latent"]
    assert best["samples"][:, 0, 0, 0].tolist() == [3, 0, 4]
    assert best["noise_mask"].shape == (3, 1, 24, 32)
    assert best["noise_mask"][:, 0, 0, 0].tolist() == [3, 0, 4]
    assert best["batch_index"] == [13, 10, 14]
    (mask,) = out["best_mask"]
    assert mask[:, 0, 0].tolist() == [3, 0, 4]


def test_latents_and_masks_of_mixed_sizes_come_out_as_lists(select, batch):
    images = [batch[:1], torch.full((1, 8, 8, 3), 0.2), batch[1:2]]
    latents = [latent(1), {"samples": torch.full((1, 4, 1, 1), 5.0)}, latent(1)]
    masks = [torch.zeros(1, 24, 32), torch.ones(1, 8, 8), torch.zeros(1, 24, 32)]
    out = select(images=images, scores=[1.0, 3.0, 2.0], top_k=2, latent=latents, mask=masks)
    assert [tuple(item["samples"].shape) for item in out["best_latent"]] == [(1, 4, 1, 1), (1, 4, 3, 4)]
    assert [item["batch_index"] for item in out["best_latent"]] == [[0], [0]]
    assert [tuple(item.shape) for item in out["best_mask"]] == [(1, 8, 8), (1, 24, 32)]
    out = select(images=images, scores=[3.0, 1.0, 2.0], top_k=2, latent=latents, mask=masks)
    assert [tuple(item["samples"].shape) for item in out["best_latent"]] == [(2, 4, 3, 4)]
    assert [tuple(item.shape) for item in out["best_mask"]] == [(2, 24, 32)]


def test_an_output_without_its_input_says_so(select, batch):
    out = select(images=batch, scores=SCORES)
    assert is_blocked(
        out["best_latent"], "nothing is connected to the input 'latent' of Select Best Images. Connect it."
    )
    assert is_blocked(out["best_mask"], "nothing is connected to the input 'mask' of Select Best Images. Connect it.")


def test_an_empty_side_is_one_silent_blocker(select, batch):
    out = select(images=batch, scores=SCORES, top_k=9)  # more than there are
    assert out["indexes"] == "3,0,4,1,2"
    assert is_blocked(out["rejected_images"])


def test_a_lowest_score(select, batch):
    limits = {"use_min_score": True, "min_score": 5.0, "top_k": 9}
    assert select(images=batch, scores=SCORES, **limits)["indexes"] == "3,0,4"
    assert select(images=batch, scores=SCORES, **{**limits, "use_min_score": False})["indexes"] == "3,0,4,1,2"


def test_if_none_is_good_enough(select, batch):
    given = {
        "images": batch,
        "scores": SCORES,
        "use_min_score": True,
        "min_score": 9.5,
        "top_k": 2,
        "latent": latent(5),
    }
    assert select(**given)["indexes"] == "3"
    blocked = select(**given, on_none="block", mask=torch.zeros(5, 24, 32))
    best = ("best_images", "best_latent", "best_mask", "best_scores", "indexes")
    assert all(is_blocked(blocked[name]) for name in best)
    assert (blocked["kept_count"], blocked["rejected_count"]) == (0, 5)
    assert greys(blocked["rejected_images"]) == [0.9, 0.7, 0.5, 0.3, 0.1]
    with pytest.raises(ValueError, match=r"score of at least 9\.5, got 9 for the best of 5\. Lower the minimum"):
        select(**given, on_none="error")


def test_a_lowest_score_means_nothing_to_a_scorer_that_only_compares(select, batch, managed):
    scorer = managed(relative=True)
    assert select(images=batch, scorer=scorer)["indexes"] == "3"
    with pytest.raises(ValueError, match=r"Expected no min score with mean, got 0\.5: .* with 'top k' alone"):
        select(images=batch, scorer=scorer, use_min_score=True, min_score=0.5)


@pytest.mark.parametrize(
    ("inputs", "message"),
    [
        ({}, "Expected scores or a scorer, got neither. Connect the scores of Score Images"),
        ({"scores": [1.0, 2.0]}, "one score for each of 5 pictures, got 2. Connect the scores of"),
        ({"scores": SCORES, "latent": latent(4)}, "as many latents as pictures, 5, got 4. Connect the LATENT that"),
        ({"scores": SCORES, "mask": torch.zeros(1, 24, 32)}, "as many masks as pictures, 5, got 1. Connect the MASK"),
        ({"scores": SCORES, "top_k": [1, 2]}, "one value for 'top k', got a list of 2"),
        ({"scores": SCORES, "top_k": 0}, "top_k of at least 1"),
    ],
)
def test_mistakes_are_told_in_a_sentence(select, batch, inputs, message):
    with pytest.raises(ValueError) as error:  # noqa: PT011 (its text is compared below)
        select(images=batch, **inputs)
    assert message in str(error.value)


def test_bad_pictures_are_told_in_a_sentence(select, batch):
    with pytest.raises(ValueError, match="at least one picture, got an empty batch"):
        select(images=batch[:0], scores=[])
    batch[1, 3, 4, 0] = float("nan")
    with pytest.raises(ValueError, match="got NaN or infinite ones in picture 1"):
        select(images=batch, scores=SCORES)


def test_what_is_rejected_comes_out_whole(select, batch):
    masks = torch.arange(5).float()[:, None, None].expand(5, 24, 32)
    out = select(images=batch, scores=SCORES, top_k=2, latent=latent(5), mask=masks)
    assert [item["batch_index"] for item in out["rejected_latent"]] == [[4, 1, 2]]
    assert [mask[:, 0, 0].tolist() for mask in out["rejected_mask"]] == [[4, 1, 2]]
    assert out["rejected_scores"] == [5.0, 3.0, 1.0]
    assert (out["kept_count"], out["rejected_count"]) == (2, 3)
    out = select(images=batch, scores=SCORES, top_k=5, latent=latent(5), mask=masks)
    assert all(is_blocked(out[f"rejected_{what}"]) for what in ("images", "latent", "mask", "scores"))
    assert (out["kept_count"], out["rejected_count"]) == (5, 0)


def test_a_list_of_anything_is_sorted_by_the_scores(select, batch):
    prompts = ["a", "b", "c", "d", "e"]
    assert select(images=batch, scores=SCORES, top_k=9, anything=prompts)["best_anything"] == ["d", "a", "e", "b", "c"]
    (rows,) = select(images=batch, scores=SCORES, top_k=2, anything=torch.arange(5))["best_anything"]
    assert rows.tolist() == [3, 0]
    limits = {"use_min_score": True, "min_score": 10.0, "on_none": "block"}
    for things in (prompts, torch.arange(5)):
        assert is_blocked(select(images=batch, scores=SCORES, anything=things, **limits)["best_anything"])
    with pytest.raises(ValueError, match=r"Expected as many things as pictures, 5, got 2\. Connect the list"):
        select(images=batch, scores=SCORES, anything=["a", "b"])
    message = "nothing is connected to the input 'anything' of Select Best Images. Connect it."
    assert is_blocked(select(images=batch, scores=SCORES)["best_anything"], message)


def test_the_limit_may_be_a_percentile(select, batch, managed):
    limits = {"use_min_score": True, "top_k": 9, "min_score_as": "percentile"}
    calibrated = managed(quantiles=(0.0, 0.2, 0.4, 0.6, 0.8, 1.0))
    first = select(images=batch, scorer=calibrated, min_score=60.0, **limits)
    assert first["indexes"] == "3,0"
    assert [score.percentile for score in first["best_scores"]] == pytest.approx([90, 70], abs=1e-4)
    # scores of a node of ours carry their percentiles; others need the scorer
    again = select(images=batch[[3, 0]], scores=first["best_scores"], min_score=80.0, **limits)
    assert again["indexes"] == "0"
    assert (
        select(images=batch, scores=[0.7, 0.3, 0.1, 0.9, 0.5], scorer=calibrated, min_score=60.0, **limits)["indexes"]
        == "3,0"
    )
    with pytest.raises(ValueError, match=r"scores with percentiles, got 5 of 5 without\. Connect the scorer as well"):
        select(images=batch, scores=SCORES, min_score=60.0, **limits)


def test_the_better_half_of_a_run_needs_no_scale(select, batch, managed):
    limits = {"use_min_score": True, "min_score": 50.0, "top_k": 9, "min_score_as": "percentile in this run"}
    assert select(images=batch, scores=SCORES, **limits)["indexes"] == "3,0,4"
    assert select(images=batch, scorer=managed(relative=True), **limits)["indexes"] == "3,0,4"
