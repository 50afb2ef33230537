"""Image Quality Gate."""

from collections.abc import Callable
from typing import Any

import pytest
import torch


@pytest.fixture
def gate(pack_module: Callable[[str], Any], run_node: Callable[..., Any]) -> Callable[..., Any]:
    node = pack_module("nodes.quality_gate").QualityGate
    return lambda **inputs: run_node(node, **inputs).result


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
