"""Several scorers side by side."""

import math

import pytest
from scipy.stats import spearmanr

from ma_agiqa_core.report.judges import disagreements, judges_table, notes_of_others, rank_correlation
from ma_agiqa_core.scorers.scorer import ScorerInfo

NAN = math.nan
ONE, OTHER, THIRD = [3.0, 1.0, 2.0, 5.0, 4.0], [2.0, 1.0, 5.0, 3.0, 4.0], [1.0, 1.0, 2.0, 2.0, 3.0]


def info(name: str) -> ScorerInfo:
    return ScorerInfo(name=name, revision="1", low=0, high=10, trained_on="nothing")


def test_the_correlation_is_spearmans_mean_over_pairs() -> None:
    assert rank_correlation([ONE, OTHER]) == pytest.approx(spearmanr(ONE, OTHER).statistic)
    pairs = [(ONE, OTHER), (ONE, THIRD), (OTHER, THIRD)]
    expected = sum(spearmanr(one, other).statistic for one, other in pairs) / 3
    assert rank_correlation([ONE, OTHER, THIRD]) == pytest.approx(expected)
    assert rank_correlation([[*ONE, NAN], [*OTHER, 9.0]]) == pytest.approx(rank_correlation([ONE, OTHER]))


@pytest.mark.parametrize("columns", [[[1.0], [2.0]], [[1.0, 1.0], [1.0, 2.0]], [[NAN, 1.0], [1.0, NAN]]])
def test_where_it_is_not_defined(columns: list[list[float]]) -> None:
    assert math.isnan(rank_correlation(columns))
    assert "rank correlation of a and b: not defined" in judges_table([info("a"), info("b")], columns)


def test_disagreement_is_the_distance_of_places() -> None:
    assert disagreements([[1.0, 2.0, 3.0], [1.0, 3.0, 2.0]]) == [0, 0.5, 0.5]
    assert disagreements([[1.0, 1.0, 2.0], [1.0, 2.0, 3.0]]) == [0.25, 0.25, 0]  # the equal share a place
    assert disagreements([[1.0], [2.0]]) == [0]
    assert disagreements([[1.0, NAN, 2.0], [1.0, 2.0, 3.0]]) == pytest.approx([0.5, NAN, 0], nan_ok=True)


def test_the_table() -> None:
    table = judges_table([info("lite"), info("lite"), info("clip")], [ONE, OTHER, [*THIRD[:4], NAN]])
    lines = table.splitlines()
    assert lines[0].split("  ")[-1].strip() == "clip"
    assert "lite 1" in lines[0]
    assert "lite 2" in lines[0]
    assert lines[1].split() == ["3", "5.00", "(#1)", "3.00", "(#3)", "2.000", "(#2)"]
    assert lines[2].split() == ["4", "4.00", "(#2)", "4.00", "(#2)", "none"]
    assert lines[6] == f"rank correlation of lite 1 and lite 2: {spearmanr(ONE, OTHER).statistic:.2f}"
    assert lines[9].startswith("they differ most on picture 2 (#4, #1, #1), ")
    assert "picture 4" not in lines[9]  # one has no opinion


def test_full_agreement_has_no_dispute() -> None:
    assert "differ" not in judges_table([info("a"), info("b")], [ONE, ONE])


def test_notes_for_captions() -> None:
    assert notes_of_others([[1.0, 2.0]]) == ["", ""]
    assert notes_of_others([[1.0, 2.0], [2.0, NAN]]) == ["other: #1", "other: #-"]
