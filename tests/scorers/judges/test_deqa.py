"""DeQA-Score and Q-Align in their published layout against numbers of the published code."""

from pathlib import Path
from typing import Any

import published_judges
import pytest
import torch

from ma_agiqa_core import load_scorer
from ma_agiqa_core.scorers.judges.deqa import DeqaScorer
from ma_agiqa_core.scorers.judges.language_judge import LanguageJudge
from ma_agiqa_core.scorers.judges.owl_reader import OwlReader

DEQA, QALIGN = published_judges.fixture("deqa"), published_judges.fixture("qalign")


@pytest.fixture(scope="module")
def deqa(tmp_path_factory: pytest.TempPathFactory) -> DeqaScorer:
    folder = published_judges.write_owl_judge(tmp_path_factory.mktemp("deqa"), DEQA)
    scorer = load_scorer(f"deqa:{folder}", device="cpu")
    assert isinstance(scorer, DeqaScorer)
    return scorer


@pytest.fixture(scope="module")
def qalign_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return published_judges.write_owl_judge(tmp_path_factory.mktemp("qalign"), QALIGN)


def assert_scores(scores: torch.Tensor, of: dict[str, Any]) -> None:
    assert scores.tolist() == pytest.approx(of["expected_scores"], abs=1e-4 * of["spread"])


def test_deqa_gives_the_published_scores(deqa: DeqaScorer) -> None:
    expected = DEQA["questions"]["quality"]
    assert_scores(deqa.score(published_judges.pictures(DEQA)), expected)


def test_deqa_reads_the_published_tokens_and_gives_the_published_logits(deqa: DeqaScorer) -> None:
    expected = DEQA["questions"]["quality"]
    reader = published_judges.reader_of(deqa)
    assert isinstance(reader, OwlReader)
    question = deqa.question("quality", None)
    assert reader.prompt_ids(question) == expected["input_ids"]
    from ma_agiqa_core.scorers.judges.asking import AskedPicture

    pixels = [torch.from_numpy(picture).movedim(-1, 0) for picture in published_judges.pictures(DEQA)]
    logits = reader.read([AskedPicture((one,), (question,)) for one in pixels])
    torch.testing.assert_close(logits[:, 0], torch.tensor(expected["level_logits"]), atol=1e-4, rtol=0)


@pytest.mark.parametrize("target", QALIGN["questions"])
def test_qalign_gives_the_published_scores_of_each_aspect(qalign_folder: Path, target: str) -> None:
    scorer = load_scorer(f"qalign:{qalign_folder}", device="cpu", target=target)
    assert_scores(scorer.score(published_judges.pictures(QALIGN)), QALIGN["questions"][target])


def test_aspects_asked_together_are_those_asked_apart(qalign_folder: Path) -> None:
    scorer = load_scorer(f"qalign:{qalign_folder}", device="cpu")
    assert isinstance(scorer, LanguageJudge)
    together = scorer.score_targets(published_judges.pictures(QALIGN))
    assert list(together) == list(QALIGN["questions"])
    for target, scores in together.items():
        assert_scores(scores, QALIGN["questions"][target])
