"""VQAScore of a Qwen2.5-VL in its published layout against numbers of t2v_metrics."""

import math
from pathlib import Path
from typing import Any

import published_judges
import pytest
import torch

from ma_agiqa_core import load_scorer
from ma_agiqa_core.scorers.judges.mrope import positions
from ma_agiqa_core.scorers.judges.qwen_reader import QwenReader
from ma_agiqa_core.scorers.judges.vqascore import QUESTION, VqaScorer

FIXTURE = published_judges.fixture("vqascore_qwen2_5_vl")
BAR = 1e-4 * FIXTURE["spread"]
CHAT = (
    "{% if messages[0]['role'] != 'system' %}<|im_start|>system\nYou are a helpful assistant.<|im_end|>\n{% endif %}"
    "{% for message in messages %}<|im_start|>{{ message['role'] }}\n{% for part in message['content'] %}"
    "{% if part['type'] == 'image' %}<|vision_start|><|image_pad|><|vision_end|>{% else %}{{ part['text'] }}{% endif %}"
    "{% endfor %}<|im_end|>\n{% endfor %}{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    import transformers

    images = transformers.Qwen2VLImageProcessor(size={"shortest_edge": 3136, "longest_edge": 12845056})
    tokenizer = published_judges.byte_tokenizer(FIXTURE)
    videos = transformers.Qwen2VLVideoProcessor()
    processor = transformers.Qwen2_5_VLProcessor(images, tokenizer, videos, chat_template=CHAT)
    return published_judges.write_qwen_judge(tmp_path_factory.mktemp("vqa"), FIXTURE, "Qwen2_5_VL", processor)


@pytest.fixture(scope="module")
def scorer(folder: Path) -> VqaScorer:
    loaded = load_scorer(f"vqascore:{folder}", device="cpu")
    assert isinstance(loaded, VqaScorer)
    return loaded


def all_pairs() -> tuple[list[Any], list[str]]:
    """Every picture with every prompt, row by row as in the fixture."""
    pictures, prompts = published_judges.pictures(FIXTURE), FIXTURE["prompts"]
    return pictures * len(prompts), [prompt for prompt in prompts for _ in pictures]


def assert_scores(scores: torch.Tensor, values: list[list[float]]) -> None:
    expected = [value for row in values for value in row]
    assert scores.tolist() == pytest.approx(expected, abs=BAR)
    assert scores.tolist() == pytest.approx(expected, rel=1e-3)  # some are small


def test_scores_are_the_published_ones(scorer: VqaScorer) -> None:
    pictures, prompts = all_pairs()
    assert QUESTION.format(prompt="{}") == FIXTURE["question_template"]
    assert_scores(scorer.score(pictures, prompts), FIXTURE["expected_scores"]["values"])


def test_a_picture_alone_scores_as_with_the_others(scorer: VqaScorer) -> None:
    pictures, prompts = all_pairs()
    alone = [scorer.score(picture, prompt) for picture, prompt in zip(pictures, prompts, strict=True)]
    assert_scores(torch.cat(alone), FIXTURE["expected_scores"]["values"])


def test_the_later_wording_gives_its_own_numbers(scorer: VqaScorer) -> None:
    template = FIXTURE["newer_question_template"].format("{prompt}")
    later = VqaScorer(scorer.language_model, scorer.info, template=template)
    pictures, prompts = all_pairs()
    assert_scores(later.score(pictures, prompts), FIXTURE["expected_scores_newer_template"])
    assert f"question={template}" in later.settings


def test_tokens_and_positions_are_the_published_ones(scorer: VqaScorer) -> None:
    reader = published_judges.reader_of(scorer)
    assert isinstance(reader, QwenReader)
    for expected in FIXTURE["input_ids"]:
        _, rows, columns = FIXTURE["image_grid_thw"][expected["picture"]]
        grid = (rows // reader.prompts.merge, columns // reader.prompts.merge)
        question = scorer.question(None, FIXTURE["prompts"][expected["prompt"]])
        before, after = reader.prompts.tokens(question).texts
        ids = [*before, *[reader.prompts.image_token_id] * math.prod(grid), *after]
        assert ids == published_judges.unrolled(expected["runs"])
        if expected["prompt"] == expected["picture"] == 0:
            axes = FIXTURE["position_ids_prompt0_picture0"]
            assert positions([len(before), grid, len(after)]).tolist() == list(axes.values())
