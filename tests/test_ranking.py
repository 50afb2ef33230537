"""Order, ties, thresholds and the reasons of failures."""

import math
from pathlib import Path
from typing import Any

import numpy as np
import PIL.Image
import pytest
import torch

from ma_agiqa_core.ranking import RankedPicture, Ranking, order, order_by_score, rank
from ma_agiqa_core.scorers.callable import CallableScorer
from ma_agiqa_core.scorers.scorer import ScorerInfo


def indices(ranking: Ranking[RankedPicture]) -> tuple[list[int], list[int], list[int]]:
    kept, rejected, failed = (
        [picture.index for picture in pictures] for pictures in (ranking.kept, ranking.rejected, ranking.failed)
    )
    return kept, rejected, failed


NAN = math.nan
SCORES = (0.2, 0.9, NAN, 0.9, 0.5, NAN, -1.0)


@pytest.mark.parametrize(
    ("limits", "kept", "rejected"),
    [
        ({}, [1, 3, 4, 0, 6], []),
        ({"top_k": 1}, [1], [3, 4, 0, 6]),
        ({"top_k": 99}, [1, 3, 4, 0, 6], []),
        ({"min_score": 0.5}, [1, 3, 4], [0, 6]),
        ({"min_score": 0.5, "top_k": 2}, [1, 3], [4, 0, 6]),
        ({"min_score": 0.6, "top_k": 4}, [1, 3], [4, 0, 6]),
        ({"min_score": math.inf}, [], [1, 3, 4, 0, 6]),
        ({"min_score": -math.inf}, [1, 3, 4, 0, 6], []),
    ],
)
def test_best_first_ties_in_input_order(limits: dict[str, Any], kept: list[int], rejected: list[int]) -> None:
    assert order_by_score(range(7), SCORES, **limits) == Ranking(tuple(kept), tuple(rejected), (2, 5))
    items = [object() for _ in SCORES]  # of any kind, and never compared
    ranking = order_by_score(items, SCORES, **limits)
    assert [items.index(item) for item in ranking.kept + ranking.rejected] == kept + rejected == order(SCORES)


def test_nothing_to_order() -> None:
    assert order_by_score([], []) == Ranking((), (), ())
    assert order([]) == order([NAN]) == []


@pytest.mark.parametrize(
    ("limits", "message"),
    [
        ({"top_k": 0}, "top_k of at least 1, or None, got 0"),
        ({"top_k": -3}, "got -3"),
        ({"min_score": NAN}, "as min_score, got NaN"),
    ],
)
def test_impossible_limits(limits: dict[str, Any], message: str) -> None:
    def untouchable(images: Any, prompts: Any) -> list[float]:
        raise AssertionError("scored although the limits are impossible")

    with pytest.raises(ValueError, match=message):
        order_by_score(SCORES, SCORES, **limits)
    with pytest.raises(ValueError, match=message):
        rank(CallableScorer(untouchable, name="x"), [np.zeros((2, 2, 3), np.uint8)], **limits)


def red_share(images: Any, prompts: Any) -> list[float]:
    return [float(np.asarray(image)[..., 0].mean()) / 255 for image in images]


def test_rank_files(tmp_path: Path) -> None:
    paths = [tmp_path / name for name in ("dark.png", "missing.png", "light.png", "empty.png")]
    for path, shade in ((paths[0], 51), (paths[2], 204)):
        PIL.Image.new("L", (3, 2), shade).save(path)
    paths[3].touch()
    scorer = CallableScorer(red_share, name="red", quantiles=(0, 0.4, 1))
    ranking = rank(scorer, [paths[0], str(paths[1]), paths[2], paths[3]], top_k=1)
    [best], [other] = ranking.kept, ranking.rejected
    assert (best.index, best.path, best.error) == (2, str(paths[2]), None)
    assert best.score == pytest.approx(0.8)
    assert best.percentile == pytest.approx(100 * 2 / 3 + 100 / 6, abs=1e-4)
    assert (other.index, other.percentile) == (0, pytest.approx(25, abs=1e-4))
    assert [(p.index, p.path, p.percentile, p.error) for p in ranking.failed] == [
        (1, str(paths[1]), None, "no such file"),
        (3, str(paths[3]), None, "file is empty"),
    ]
    assert all(math.isnan(picture.score) for picture in ranking.failed)


def test_rank_a_batch_with_prompts() -> None:
    def by_prompt(images: torch.Tensor, prompts: list[str] | None) -> list[float]:
        assert prompts is not None
        assert images.shape == (3, 3, 2, 2)
        return [float(len(prompt)) for prompt in prompts]

    scorer = CallableScorer(by_prompt, name="x", needs_prompt=True, high=9)
    assert indices(rank(scorer, torch.zeros(3, 3, 2, 2), prompts=["a", "ccc", "bb"])) == ([1, 2, 0], [], [])


def test_a_scorer_that_returns_nan_for_a_readable_picture(tmp_path: Path) -> None:
    PIL.Image.new("RGB", (2, 2)).save(tmp_path / "x.png")
    scorer = CallableScorer(lambda images, prompts: [NAN] * len(images), name="x", quantiles=(0, 1))
    ranking = rank(scorer, [tmp_path / "x.png", np.zeros((2, 2, 3), np.uint8)])
    assert [picture.error for picture in ranking.failed] == ["x returned nan"] * 2
    assert not ranking.kept


def test_a_relative_scorer_has_no_threshold_and_no_percentiles() -> None:
    scorer = CallableScorer(lambda images, prompts: [0.5, 1], name="x", relative=True)
    pictures = torch.zeros(2, 3, 2, 2)
    with pytest.raises(ValueError, match=r"for min_score=0\.5, got x.* Use top_k"):
        rank(scorer, pictures, min_score=0.5)
    assert [picture.percentile for picture in rank(scorer, pictures, top_k=1).kept] == [None]


@pytest.mark.parametrize("scores", [[0.5, 1], np.array([0.5, 1]), torch.tensor([[0.5], [1]])])
def test_a_scorer_of_somebody_else_returns_numbers_in_any_container(scores: Any) -> None:
    class Foreign:
        info = ScorerInfo("foreign", "1", 0, 1, "")

        def score(self, images: Any, prompts: Any = None, batch_size: Any = None, on_error: str = "raise") -> Any:
            return scores

    assert [picture.index for picture in rank(Foreign(), torch.zeros(2, 3, 1, 1)).kept] == [1, 0]
    with pytest.raises(ValueError, match=r"Expected 3 (scores|numbers) from 'foreign', got"):
        rank(Foreign(), torch.zeros(3, 3, 1, 1))


def test_malformed_pictures_are_not_failures() -> None:
    with pytest.raises(ValueError, match="BHWC"):
        rank(CallableScorer(red_share, name="x"), torch.zeros(2, 5, 4, 3))
