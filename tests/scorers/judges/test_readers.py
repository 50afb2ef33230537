"""Sharing and padding change nothing: every answer is that of a plain call of transformers, one picture at a time."""

import functools
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import PIL.Image
import published_judges
import pytest
import tiny_chat_models
import tiny_judges
import torch
import transformers
from safetensors import safe_open

from ma_agiqa_core import load_scorer
from ma_agiqa_core.model_files.transformers_folder import model_type
from ma_agiqa_core.scorers.judges.qwen_reader import QwenReader
from ma_agiqa_core.scorers.judges.vqascore import VqaScorer, pillow_first

PROMPTS = ["a red cat", "two dogs on a very long red sofa", "x"]


@pytest.fixture(scope="module")
def pictures() -> list[np.ndarray]:
    random = np.random.default_rng(1)
    return [random.integers(0, 256, (*size, 3), dtype=np.uint8) for size in ((60, 90), (56, 56), (90, 40))]


def folder_of(kind: str, root: Path) -> Path:
    folder = root / kind
    if not folder.exists():
        folder.mkdir()
        tiny_chat_models.FAMILIES[kind][1](folder)
    return folder


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("chat_models")


@functools.cache
def as_published(folder: Path) -> tuple[Any, Any]:
    """The model as transformers has it, and its processor."""
    model = transformers.AutoModelForImageTextToText.from_pretrained(folder).eval()
    return model, transformers.AutoProcessor.from_pretrained(folder)


def plain_score(folder: Path, picture: np.ndarray, question: str) -> float:
    """The probability of "Yes" by the model as transformers has it."""
    model, processor = as_published(folder)
    image = PIL.Image.fromarray(picture)
    if model_type(model.config) in ("qwen2_vl", "qwen2_5_vl"):
        image = pillow_first(processor)(image)
    content = [{"type": "image", "image": image}, {"type": "text", "text": question}]
    inputs = processor.apply_chat_template(
        [{"role": "user", "content": content}],
        add_generation_prompt=True,
        tokenize=True,
        return_dict=True,
        return_tensors="pt",
    )
    inputs["attention_mask"] = torch.ones_like(inputs["input_ids"])
    with torch.no_grad():
        logits = model(**inputs).logits[0, -1]
    yes = processor.tokenizer("Yes", add_special_tokens=False)["input_ids"][0]
    return float(torch.softmax(logits.double(), -1)[yes])


@pytest.mark.parametrize("kind", ["qwen2_vl", "qwen2_5_vl", "qwen3_vl", "internvl", "smolvlm"])
def test_every_answer_is_that_of_a_plain_call(kind: str, root: Path, pictures: list[np.ndarray]) -> None:
    folder = folder_of(kind, root)
    scorer = load_scorer(f"vqascore:{folder}", device="cpu")
    assert isinstance(scorer, VqaScorer)
    rows, texts = pictures * len(PROMPTS), [prompt for prompt in PROMPTS for _ in pictures]
    expected = [
        plain_score(folder, picture, scorer.question(None, text).text)
        for picture, text in zip(rows, texts, strict=True)
    ]
    assert scorer.score(rows, texts).tolist() == pytest.approx(expected, rel=2e-3, abs=1e-7)
    own = scorer.score(pictures, PROMPTS).tolist()  # a question each: no picture is shared
    assert own == pytest.approx([expected[0], expected[4], expected[8]], rel=2e-3, abs=1e-7)


def test_a_head_that_is_tied_to_the_embeddings_is_not_in_the_files(root: Path, pictures: list[np.ndarray]) -> None:
    """As Q-ReAlign-Mini and Qwen2.5-VL-3B are published."""
    folder = root / "tied"
    tiny_judges.write_vqascore(folder)
    model: Any = transformers.Qwen2_5_VLForConditionalGeneration.from_pretrained(folder)
    model.config.tie_word_embeddings = model.config.get_text_config().tie_word_embeddings = True
    model.tie_weights()
    model.save_pretrained(folder)
    with safe_open(folder / "model.safetensors", framework="pt") as weights:
        assert "lm_head.weight" not in weights.keys()  # noqa: SIM118 - not a dict
    scorer: Any = load_scorer(f"vqascore:{folder}", device="cpu")
    expected = plain_score(folder, pictures[0], scorer.question(None, PROMPTS[0]).text)
    assert scorer.score(pictures[0], PROMPTS[0]).tolist() == pytest.approx([expected], rel=2e-3)


class Tokens:
    """Counts the tokens that go through a model's language layers, and the calls."""

    def __init__(self, reader: QwenReader) -> None:
        self.calls: list[tuple[int, int]] = []
        network: Any = reader.network
        network.get_input_embeddings().register_forward_hook(self._count)

    def _count(self, module: Any, given: Any, embedded: torch.Tensor) -> None:
        self.calls.append((embedded.shape[0], embedded.shape[1]))


@pytest.fixture
def counted(tmp_path: Path) -> tuple[VqaScorer, Tokens]:
    scorer: Any = load_scorer(f"vqascore:{tiny_judges.write_vqascore(tmp_path / 'vqa')}", device="cpu")
    return scorer, Tokens(scorer.language_model.get())


def test_unlike_pictures_are_one_batch_behind_the_text_that_is_read_once(
    counted: tuple[VqaScorer, Tokens], pictures: list[np.ndarray]
) -> None:
    scorer, tokens = counted
    scorer.score(pictures, "a cat", batch_size=3)
    (one, before), (rows, most) = tokens.calls
    assert (one, rows) == (1, 3)
    tokens.calls.clear()
    scorer.score(pictures[::-1], "a dog", batch_size=3)
    assert tokens.calls == [(3, most)]
    assert before > 0


def test_further_prompts_cost_only_their_own_ends(
    counted: tuple[VqaScorer, Tokens], pictures: list[np.ndarray]
) -> None:
    scorer, tokens = counted
    prompts = ["aa", "bb", "ccc"]
    scorer.score([pictures[0]] * 3, prompts)
    _, (one, _), (rows, most) = tokens.calls
    assert (one, rows) == (1, 3)
    reader: Any = published_judges.reader_of(scorer)
    endings = [len(reader.prompts.tokens(scorer.question(None, prompt)).texts[-1]) for prompt in prompts]
    shared = len(scorer.template.partition("{prompt}")[0].encode())
    assert most < max(endings) - shared + 1


def test_a_moved_model_reads_its_beginning_again(counted: tuple[VqaScorer, Tokens], pictures: list[np.ndarray]) -> None:
    scorer, tokens = counted
    expected = scorer.score(pictures, "a cat", batch_size=3)
    (one, before), _ = tokens.calls
    network = published_judges.reader_of(scorer).network
    network._apply(torch.clone)  # as to another device and back
    tokens.calls.clear()
    torch.testing.assert_close(scorer.score(pictures, "a cat", batch_size=3), expected)
    assert tokens.calls[0] == (one, before)


@pytest.mark.parametrize(
    ("family", "write"),
    [
        ("deqa", tiny_judges.write_owl),
        ("qrealign", tiny_judges.write_qrealign),
        ("vqascore", tiny_judges.write_vqascore),
        ("hpsv3", tiny_judges.write_hpsv3),
    ],
)
@pytest.mark.parametrize(
    "options", [{"quantization": "int8"}, {"device_map": {"": "cpu"}}, {"dtype": "bfloat16"}], ids=str
)
def test_other_placements_and_precisions_are_near(
    family: str, write: Callable[[Path], Path], options: dict[str, Any], root: Path, pictures: list[np.ndarray]
) -> None:
    if "quantization" in options and find_spec("torchao") is None:
        pytest.skip("bitsandbytes has int8 on a processor only in newer versions, and torchao is not installed")
    folder = write(root / family)
    plain = load_scorer(f"{family}:{folder}", device="cpu").score(pictures, PROMPTS)
    other = load_scorer(f"{family}:{folder}", device="cpu", **options).score(pictures, PROMPTS)
    assert torch.isfinite(other).all()
    if "device_map" in options:
        torch.testing.assert_close(other, plain, atol=1e-5, rtol=1e-4)
    else:  # random weights: rounding is far larger than in trained ones
        assert float((other - plain).abs().max()) < 0.5 * max(1.0, float(plain.abs().max()))
