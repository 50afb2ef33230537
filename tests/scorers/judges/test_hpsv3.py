"""HPSv3 in its published layout against the published package."""

import json
from pathlib import Path
from typing import Any

import published_judges
import pytest
import torch
from safetensors.torch import save_file

from ma_agiqa_core import load_scorer
from ma_agiqa_core.scorers.judges.asking import AskedPicture
from ma_agiqa_core.scorers.judges.hpsv3 import PIXELS, HpsV3Scorer
from ma_agiqa_core.scorers.judges.hpsv3_instruction import INSTRUCTION, REWARD_TOKEN
from ma_agiqa_core.scorers.judges.qwen_reader import QwenReader

FIXTURE = published_judges.fixture("hpsv3")
BAR = 1e-4 * FIXTURE["spread"]
START, END = FIXTURE["chat_text_prompt0"].split("<|image_pad|>")
CHAT = (
    START
    + "{% for part in messages[0]['content'] %}{% if part['type'] == 'image' %}<|image_pad|>{% else %}"
    + END.replace("TEXT", "{{ part['text'] }}")
    + "{% endif %}{% endfor %}"
)


def instruction(prompt: str) -> str:
    return FIXTURE["instruction"].replace("{text_prompt}", prompt) + FIXTURE["after_the_instruction"]


def tokenizer() -> Any:
    """Gives the real tokenizer's ids for the fixture's texts; its vocabulary is too large to carry."""
    import transformers
    from tokenizers import AddedToken

    image, video = FIXTURE["config"]["image_token_id"], FIXTURE["config"]["video_token_id"]
    known: dict[str, list[int]] = {}
    for prompt, runs in zip(FIXTURE["prompts"], FIXTURE["input_ids_runs"], strict=True):
        ids = [token for token in published_judges.unrolled(runs) if token != FIXTURE["pad_id"]]
        first, last = ids.index(image), len(ids) - ids[::-1].index(image)
        reward = ids.index(FIXTURE["reward_token_id"])
        before, after = END.replace("TEXT", instruction(prompt)).split(REWARD_TOKEN)
        known |= {START: ids[:first], before: ids[last:reward], after: ids[reward + 1 :]}
    used = {token for ids in known.values() for token in ids}
    fillers = {f"w{token}": token for token in range(min(image, video)) if token not in used}
    fillers["<unk>"] = fillers.pop(next(iter(fillers)))
    made = published_judges.tokenizer_of_texts(dict(sorted(known.items(), key=lambda entry: -len(entry[0]))), fillers)
    for token, text in sorted({image: "<|image_pad|>", video: "<|video_pad|>"}.items()):
        made.add_tokens([AddedToken(text, special=True, normalized=False)])
        assert made.token_to_id(text) == token
    kind = getattr(transformers, published_judges.TOKENIZER)
    return kind(tokenizer_object=made, pad_token="<unk>", unk_token="<unk>", eos_token="<unk>")  # none is added


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    import transformers

    folder = tmp_path_factory.mktemp("hpsv3")
    (folder / "config.json").write_text(json.dumps({"model_type": "qwen2_vl", **FIXTURE["config"]}))
    images = transformers.Qwen2VLImageProcessor(size={"shortest_edge": 3136, "longest_edge": 12845056})
    videos = transformers.Qwen2VLVideoProcessor()
    transformers.Qwen2VLProcessor(images, tokenizer(), videos, chat_template=CHAT).save_pretrained(folder)
    save_file(published_judges.weights(FIXTURE), folder / "HPSv3.safetensors")
    return folder


@pytest.fixture(scope="module")
def scorer(folder: Path) -> HpsV3Scorer:
    loaded = load_scorer(f"hpsv3:{folder}", device="cpu")
    assert isinstance(loaded, HpsV3Scorer)
    return loaded


def test_scores_of_every_picture_with_every_prompt_are_the_published_ones(scorer: HpsV3Scorer) -> None:
    """Each picture is looked at once, with three prompts."""
    pictures, prompts = published_judges.pictures(FIXTURE), FIXTURE["prompts"]
    scores = scorer.score(pictures * len(prompts), [prompt for prompt in prompts for _ in pictures])
    expected = [score for row in FIXTURE["expected_scores"]["values"] for score in row]
    assert scores.tolist() == pytest.approx(expected, abs=BAR)


def test_mu_and_sigma_are_the_published_ones(scorer: HpsV3Scorer) -> None:
    """Each picture with its own prompt: one padded batch."""
    pictures = [torch.from_numpy(picture).movedim(-1, 0) for picture in published_judges.pictures(FIXTURE)]
    reader = published_judges.reader_of(scorer)
    asked = [
        AskedPicture((pixels,), (scorer.question(None, prompt),))
        for pixels, prompt in zip(pictures, FIXTURE["prompts"], strict=True)
    ]
    rewards = reader.read([reader.prepare(one) for one in asked])[:, 0]
    expected = torch.tensor(FIXTURE["expected_rewards_batch_of_three_prompts"])
    torch.testing.assert_close(rewards, expected, atol=BAR, rtol=0)


def test_the_instruction_and_its_tokens_are_the_published_ones(scorer: HpsV3Scorer) -> None:
    assert FIXTURE["instruction"] + FIXTURE["after_the_instruction"] == INSTRUCTION
    assert FIXTURE["min_pixels"] == FIXTURE["max_pixels"] == PIXELS
    reader = published_judges.reader_of(scorer)
    assert isinstance(reader, QwenReader)
    for prompt, runs in zip(FIXTURE["prompts"], FIXTURE["input_ids_runs"], strict=True):
        ids = published_judges.unrolled(runs)
        before, after = reader.prompts.tokens(scorer.question(None, prompt)).texts
        image = reader.prompts.image_token_id
        first, last = ids.index(image), len(ids) - ids[::-1].index(image)
        assert list(before) == ids[:first]
        assert list(after) == ids[last : last + len(after)]
        assert set(ids[last + len(after) :]) <= {FIXTURE["pad_id"]}
