"""Scorers as ComfyUI manages them."""

from collections.abc import Callable
from typing import Any

import pytest
import torch


@pytest.fixture
def scores_of(pack_module: Callable[[str], Any]) -> Callable[..., list[float]]:
    return pack_module("nodes.managed_scorer").scores_of


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
