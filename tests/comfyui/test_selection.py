"""Which pictures go on."""

import math

import numpy as np
import pytest
import torch

from ma_agiqa_core.comfyui.selection import Selection, one_score_each, select_best, split_at

NAN = math.nan


@pytest.mark.parametrize(
    ("scores", "limits", "kept", "rejected"),
    [
        ([1, 3, 2], {"top_k": 1}, (1,), (2, 0)),
        ([1, 3, 2], {"top_k": 2}, (1, 2), (0,)),
        ([1, 3, 2], {"top_k": 9}, (1, 2, 0), ()),
        ([1, 3, 2], {"top_k": 3, "min_score": 2}, (1, 2), (0,)),
        ([1, 3, 2], {"top_k": 1, "min_score": 2}, (1,), (2, 0)),
        ([2, 2, 2], {"top_k": 2}, (0, 1), (2,)),
        ([NAN, 3, NAN, 4], {"top_k": 4}, (3, 1), (0, 2)),
        ([7], {"top_k": 1}, (0,), ()),
        ([-math.inf, math.inf], {"top_k": 1}, (1,), (0,)),
    ],
)
def test_the_best_come_first(
    scores: list[float], limits: dict, kept: tuple[int, ...], rejected: tuple[int, ...]
) -> None:
    assert select_best(scores, **limits) == Selection(kept, rejected)


def test_the_indexes_are_text() -> None:
    assert select_best([1, 3, 2], top_k=3).indexes == "1,2,0"
    assert select_best([1.0], top_k=1, min_score=2, if_none="block").indexes == ""


def test_if_none_is_good_enough() -> None:
    assert select_best([1, 3, 2], top_k=2, min_score=4) == Selection((1,), (2, 0))  # one, however many were wanted
    assert select_best([1, 3, 2], top_k=2, min_score=4, if_none="block") == Selection((), (1, 2, 0))
    with pytest.raises(ValueError, match=r"score of at least 4, got 3 for the best of 3\. Lower the minimum"):
        select_best([1, 3, 2], top_k=2, min_score=4, if_none="error")


def test_without_any_score() -> None:
    assert select_best([NAN, NAN], top_k=1, if_none="block") == Selection((), (0, 1))
    for if_none in ("best", "error"):
        with pytest.raises(ValueError, match=r"score for at least one picture, got none for 2\."):
            select_best([NAN, NAN], top_k=1, if_none=if_none)


@pytest.mark.parametrize(
    ("limits", "message"),
    [
        ({"top_k": 0}, "top_k of at least 1, or None, got 0"),
        ({"top_k": 1, "min_score": NAN}, "number as min_score, got NaN"),
        ({"top_k": 1, "if_none": "all"}, "Expected best, block, error if none is good enough, got 'all'"),
    ],
)
def test_wrong_limits_are_refused(limits: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        select_best([1, 2], **limits)


def test_both_sides_of_a_gate_keep_their_order() -> None:
    assert split_at([1, 5, NAN, 4, 6], 4) == Selection((1, 3, 4), (0, 2))
    assert split_at([1], 0) == Selection((0,), ())
    assert split_at([1], 2) == Selection((), (0,))
    with pytest.raises(ValueError, match="got NaN"):
        split_at([1], NAN)


@pytest.mark.parametrize(
    "values",
    [
        [1, 2.5],
        [[1, 2.5]],
        ([1], (2.5,)),
        torch.tensor([1, 2.5]),
        [torch.tensor([1.0]), torch.tensor(2.5)],
        np.array([1, 2.5]),
    ],
)
def test_scores_come_in_many_forms(values: object) -> None:
    assert one_score_each(values, 2) == [1.0, 2.5]


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ([1.0], "one score for each of 2 pictures, got 1"),
        ([1.0, 2.0, 3.0], "one score for each of 2 pictures, got 3"),
        ([], "got 0"),
        (["1", "2"], "numbers as scores, got '1'"),
        ([True, False], "numbers as scores, got True"),
        ([None, 1.0], "numbers as scores, got None"),
    ],
)
def test_scores_that_do_not_fit_are_refused(values: object, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        one_score_each(values, 2)
