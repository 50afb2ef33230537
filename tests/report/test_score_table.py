"""Scores as plain text."""

import math

from ma_agiqa_core import ScorerInfo
from ma_agiqa_core.report.score_table import score_table


def info(**changes: object) -> ScorerInfo:
    return ScorerInfo(**{"name": "judge", "revision": "1", "low": 0.0, "high": 10.0, "trained_on": "", **changes})  # type: ignore[arg-type]


def test_best_first_with_numbers_in_input_order_and_percentiles() -> None:
    table = score_table(info(quantiles=(0.0, 5.0, 10.0)), [2.5, 10.0, math.nan, 7.25])
    assert table.splitlines() == [
        "judge (about 0 to 10; higher is better)",
        "rank  picture  score  better than",
        "   1        1  10.00        100 %",
        "   2        3   7.25         72 %",
        "   3        0   2.50         25 %",
        "   -        2   none",
    ]


def test_without_percentiles_and_relative() -> None:
    table = score_table(info(relative=True, low=-math.inf, high=math.inf), [0.5, -0.5])
    assert table.splitlines() == [
        "judge (scores compare these pictures with each other)",
        "rank  picture   score",
        "   1        0   0.500",
        "   2        1  -0.500",
    ]
