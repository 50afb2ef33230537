"""What makes two scorers the same."""

from typing import Any

import pytest

from ma_agiqa_core.scorers.callable import CallableScorer
from ma_agiqa_core.scorers.ensemble import EnsembleScorer
from ma_agiqa_core.scorers.identity import scorer_identity
from ma_agiqa_core.scorers.scorer import Scorer


def scorer(*settings: str, name: str = "one") -> Scorer:
    made: Any = CallableScorer(lambda pictures, prompts: [], name=name, revision="7", quantiles=(0, 1))
    if settings:
        made.settings = settings
    return made


@pytest.mark.parametrize(
    ("settings", "identity"),
    [((), "one@7"), (("dtype=float16", "semantic=owl@3"), "one@7;dtype=float16;semantic=owl@3")],
)
def test_name_revision_and_settings(settings: tuple[str, ...], identity: str) -> None:
    assert scorer_identity(scorer(*settings)) == identity


def test_an_ensemble_is_all_of_its_members() -> None:
    def ensemble(*settings: str) -> str:
        inner = EnsembleScorer([(scorer(*settings), 2.0)])
        return scorer_identity(EnsembleScorer([(inner, 1.0), (scorer(name="two"), 3.0)], combine="rank"))

    assert ensemble() != ensemble("semantic=owl@3")
    assert ensemble("semantic=owl@3") != ensemble("semantic=owl@4")
    assert "two@7*3" in ensemble()


def test_any_name_can_be_written() -> None:
    assert scorer_identity(scorer("semantic=caf\udce9@3")) == r"one@7;semantic=caf\udce9@3"
