"""Percentiles among the user's own pictures: numbers against numpy, and every other scorer refused."""

import copy
import json
import pickle
from dataclasses import replace
from pathlib import Path
from typing import Any

import clip_judges
import numpy as np
import pytest
import torch

from ma_agiqa_core import CallableScorer, EnsembleScorer, MaAgiqaError, Scorer, load_scorer
from ma_agiqa_core.scorers.identity import scorer_identity
from ma_agiqa_core.scorers.percentiles import quantiles_of
from ma_agiqa_core.scorers.scaled_scorer import ScaledScorer, read_percentiles, write_percentiles


def bright(revision: str = "1", *, relative: bool = False) -> CallableScorer:
    return CallableScorer(
        lambda images, prompts: [1.0] * len(images), name="bright", revision=revision, relative=relative
    )


class OfTarget:
    """As `bright`, but of a target."""

    info = replace(bright().info, targets=("quality",), target="quality")

    def score(self, images: Any, prompts: Any = None, batch_size: Any = None, on_error: Any = "raise") -> torch.Tensor:
        return torch.ones(len(images))


def test_quantiles_are_numpys() -> None:
    scores = np.random.default_rng(0).normal(size=333)
    quantiles = quantiles_of(scores)
    assert len(quantiles) == 101
    np.testing.assert_allclose(quantiles, np.percentile(scores, np.arange(101)))


def test_a_percentile_is_the_share_of_pictures_that_score_lower(tmp_path: Path) -> None:
    scores = np.random.default_rng(1).normal(size=1000)
    write_percentiles(bright(), [*scores, float("nan")], tmp_path / "p.json")
    scaled = ScaledScorer(bright(), read_percentiles(tmp_path / "p.json"))
    for score in (-1.0, 0.0, 1.5):
        percentile = scaled.info.percentile(score)
        assert percentile is not None
        assert percentile == pytest.approx(100 * (scores < score).mean(), abs=0.6)


def test_a_judge_gets_its_scale_and_keeps_its_scores(tmp_path: Path) -> None:
    folder = clip_judges.write_laion(tmp_path / "laion")
    plain = load_scorer(f"laion-aesthetic:{folder}", device="cpu")
    pictures = [clip_judges.waves(seed, 40, 50) for seed in range(6)]
    scores = plain.score(pictures)
    write_percentiles(plain, scores.tolist(), tmp_path / "p.json")
    scaled = load_scorer(f"laion-aesthetic:{folder}", device="cpu", percentiles=tmp_path / "p.json")
    torch.testing.assert_close(scaled.score(pictures), scores, rtol=0, atol=0)
    assert scaled.info.percentile(float(scores.max())) == 100
    assert scaled.networks[0] is scaled.network  # type: ignore[attr-defined]
    assert scorer_identity(scaled).startswith(f"{scorer_identity(plain)};percentiles=")
    for other in (copy.deepcopy(scaled), pickle.loads(pickle.dumps(scaled))):
        assert other.info == scaled.info
    both = EnsembleScorer([(scaled, 1), (load_scorer("lite", device="cpu"), 1)])
    assert both.score(pictures).shape == (6,)


@pytest.mark.parametrize(
    ("other", "what"),
    [
        (bright("2"), "revision '1'"),
        (OfTarget(), "target None"),
        (CallableScorer(lambda images, prompts: [], name="dark"), "scorer 'bright'"),
    ],
)
def test_percentiles_of_another_scorer_are_refused(other: Scorer, what: str, tmp_path: Path) -> None:
    write_percentiles(bright(), [1.0, 2.0], tmp_path / "p.json")
    with pytest.raises(MaAgiqaError, match=f"got those of {what}.*Make them anew"):
        ScaledScorer(other, read_percentiles(tmp_path / "p.json"))


@pytest.mark.parametrize("content", ["", "[]", "{}", '{"kind": "percentiles", "format": 2}', "not json"])
def test_other_files_are_refused(content: str, tmp_path: Path) -> None:
    (tmp_path / "p.json").write_text(content)
    with pytest.raises(MaAgiqaError, match=r"Expected percentiles in .*`ma-agiqa percentiles`"):
        load_scorer("lite", percentiles=tmp_path / "p.json")


def test_quantiles_in_disorder_are_refused(tmp_path: Path) -> None:
    write_percentiles(bright(), [1.0, 2.0], tmp_path / "p.json")
    content = json.loads((tmp_path / "p.json").read_text())
    (tmp_path / "p.json").write_text(json.dumps({**content, "quantiles": [2.0, 1.0]}))
    with pytest.raises(MaAgiqaError, match="Expected percentiles in"):
        read_percentiles(tmp_path / "p.json")


def test_what_makes_no_scale_is_refused(tmp_path: Path) -> None:
    with pytest.raises(MaAgiqaError, match="at least 2 pictures, got 1"):
        write_percentiles(bright(), [1.0, float("nan")], tmp_path / "p.json")
    with pytest.raises(MaAgiqaError, match="scale of its own for percentiles"):
        write_percentiles(bright(relative=True), [1.0, 2.0], tmp_path / "p.json")
