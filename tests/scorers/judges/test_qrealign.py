"""Q-ReAlign in its published layout against numbers of transformers' network and the published formula."""

from pathlib import Path
from typing import Any

import published_judges
import pytest
import tiny_chat_models
import torch

from ma_agiqa_core import load_scorer
from ma_agiqa_core.scorers.judges.asking import AskedPicture, Question
from ma_agiqa_core.scorers.judges.qrealign import QUESTIONS, QRealignScorer
from ma_agiqa_core.scorers.judges.qwen_reader import QwenReader

FIXTURE = published_judges.fixture("qrealign")
ASPECTS = {"quality": FIXTURE["questions"]["cli_iqa"], "aesthetics": FIXTURE["questions"]["cli_iaa"]}
BAR = 1e-4 * FIXTURE["spread_all"]


def processor() -> Any:
    import transformers

    tiny_chat_models.needed("Qwen3_5Config")
    said = FIXTURE["image_processor"]
    images = transformers.Qwen2VLImageProcessor(
        patch_size=said["patch_size"],
        temporal_patch_size=said["temporal_patch_size"],
        merge_size=said["merge_size"],
        size={"shortest_edge": said["shortest_edge"], "longest_edge": said["longest_edge"]},
        image_mean=said["image_mean"],
        image_std=said["image_std"],
    )
    videos = transformers.Qwen3VLVideoProcessor()
    tokenizer = published_judges.byte_tokenizer(FIXTURE)
    return transformers.Qwen3VLProcessor(images, tokenizer, videos, chat_template=FIXTURE["chat_template"])


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return published_judges.write_qwen_judge(tmp_path_factory.mktemp("qrealign"), FIXTURE, "Qwen3_5", processor())


@pytest.fixture(scope="module")
def scorer(folder: Path) -> QRealignScorer:
    loaded = load_scorer(f"qrealign:{folder}", device="cpu")
    assert isinstance(loaded, QRealignScorer)
    return loaded


@pytest.mark.parametrize("target", ASPECTS)
def test_scores_are_the_published_ones(folder: Path, target: str) -> None:
    scores = load_scorer(f"qrealign:{folder}", device="cpu", target=target).score(published_judges.pictures(FIXTURE))
    assert scores.tolist() == pytest.approx(ASPECTS[target]["expected_scores"], abs=BAR)


def test_aspects_asked_together_share_the_picture_exactly(scorer: QRealignScorer) -> None:
    together = scorer.score_targets(published_judges.pictures(FIXTURE))
    for target, scores in together.items():
        assert scores.tolist() == pytest.approx(ASPECTS[target]["expected_scores"], abs=BAR)


def test_the_questions_are_the_command_lines(scorer: QRealignScorer) -> None:
    for target, expected in ASPECTS.items():
        assert QUESTIONS[target] == Question(expected["prompt"], f" {expected['stem']}")
    assert scorer.info.revision.endswith("-cli")


def test_tokens_are_the_published_ones(scorer: QRealignScorer) -> None:
    reader = published_judges.reader_of(scorer)
    assert isinstance(reader, QwenReader)
    grid = FIXTURE["image_grid_thw"]
    for target, expected in ASPECTS.items():
        before, after = reader.prompts.tokens(QUESTIONS[target]).texts
        for (_, rows, columns), runs in zip(grid, expected["input_ids_runs"], strict=True):
            pads = [reader.prompts.image_token_id] * (rows * columns // reader.prompts.merge**2)
            assert [*before, *pads, *after] == published_judges.unrolled(runs)


def test_the_readmes_words_give_the_readmes_numbers(scorer: QRealignScorer) -> None:
    """The other published wording, with which numbers are not comparable: the reader would give it too."""
    expected = FIXTURE["questions"]["readme"]
    question = Question(expected["prompt"], expected["stem"])
    reader = published_judges.reader_of(scorer)
    pictures = [torch.from_numpy(picture).movedim(-1, 0) for picture in published_judges.pictures(FIXTURE)]
    logits = reader.read([reader.prepare(AskedPicture((pixels,), (question,))) for pixels in pictures])
    assert [scorer.score_of(row[0]) for row in logits] == pytest.approx(expected["expected_scores"], abs=BAR)
    torch.testing.assert_close(logits[:, 0], torch.tensor(expected["level_logits"]), atol=1e-3, rtol=0)
