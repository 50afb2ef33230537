"""What is good enough: scores, percentiles of the scorer, percentiles in the run."""

import math

import pytest

from ma_agiqa_core.comfyui.limits import lowest_passing, percentiles_in_run
from ma_agiqa_core.comfyui.selection import Selection, select_best, split_at

NAN = math.nan
SCORES = [5.0, 7.0, 6.0, 8.0]


@pytest.mark.parametrize(
    ("scores", "expected"),
    [
        (SCORES, [0, 200 / 3, 100 / 3, 100]),
        ([1.0, 2.0, 2.0, 3.0], [0, 50, 50, 100]),
        ([4.0, 4.0], [50, 50]),
        ([4.0], [100]),
        ([4.0, NAN, 5.0], [0, NAN, 100]),
        ([NAN], [NAN]),
        ([-math.inf, 0.0, math.inf], [0, 50, 100]),
        ([], []),
    ],
)
def test_percentiles_in_a_run(scores: list[float], expected: list[float]) -> None:
    assert percentiles_in_run(scores) == pytest.approx(expected, nan_ok=True)


@pytest.mark.parametrize(
    ("limit", "measure", "kept"),
    [
        (6.0, "score", (3, 1, 2)),
        (60.0, "percentile", (3, 1)),
        (60.1, "percentile", (3,)),
        (50.0, "percentile in this run", (3, 1)),
        (100.0, "percentile in this run", (3,)),
        (0.0, "percentile in this run", (3, 1, 2, 0)),
    ],
)
def test_limits_as_percentiles(limit: float, measure: str, kept: tuple[int, ...]) -> None:
    given = {"measure": measure, "percentiles": [10.0, 60.0, 40.0, 90.0]}
    assert select_best(SCORES, top_k=9, min_score=limit, **given).kept == kept  # type: ignore[arg-type]
    assert split_at(SCORES, limit, **given).kept == tuple(sorted(kept))  # type: ignore[arg-type]


def test_no_percentile_is_high_enough() -> None:
    given = {"min_score": 95.0, "measure": "percentile", "percentiles": [10.0, 60.0, 40.0, 90.0]}
    assert lowest_passing(SCORES, 95, "percentile", [10.0, 60.0, 40.0, 90.0]) == math.inf
    assert select_best(SCORES, top_k=2, **given) == Selection((3,), (1, 2, 0))  # type: ignore[arg-type]
    assert select_best(SCORES, top_k=2, **given, if_none="block").kept == ()  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="Expected a percentile of at least 95, got 90 for the best of 4"):
        select_best(SCORES, top_k=2, **given, if_none="error")  # type: ignore[arg-type]


def test_a_picture_without_a_score_needs_no_percentile() -> None:
    assert split_at([NAN, 5.0], 50, "percentile", [None, 60.0]) == Selection((1,), (0,))
    with pytest.raises(ValueError, match=r"scores with percentiles, got 1 of 2 without\. Connect the scorer as well"):
        split_at([4.0, 5.0], 50, "percentile", [None, 60.0])


def test_an_unknown_measure_is_named() -> None:
    with pytest.raises(ValueError, match=r"Expected score, percentile, percentile in this run .* got 'share'"):
        split_at(SCORES, 50, "share")
