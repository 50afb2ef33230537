"""Edits, judged on source, result and instruction."""

from pathlib import Path
from typing import Any

import numpy as np
import PIL.Image
import pytest
import tiny_chat_models
import tiny_judges
import torch
import transformers

from ma_agiqa_core import MaAgiqaError, PictureError, load_scorer
from ma_agiqa_core.generation import edit_judge
from ma_agiqa_core.scorers.identity import scorer_identity
from ma_agiqa_core.scorers.judges.edit import QUESTION, EditScorer
from ma_agiqa_core.scorers.judges.vqascore import pillow_first

INSTRUCTIONS = ["make it blue", "remove the dog on the left"]


@pytest.fixture(scope="module")
def pictures() -> list[np.ndarray]:
    random = np.random.default_rng(3)
    return [random.integers(0, 256, (*size, 3), dtype=np.uint8) for size in ((60, 90), (56, 56), (90, 40))]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_judges.write_vqascore(tmp_path_factory.mktemp("edit") / "vqa")


@pytest.fixture(scope="module")
def judge(folder: Path, pictures: list[np.ndarray]) -> EditScorer:
    whole: Any = load_scorer(f"vqascore:{folder}", device="cpu")
    return edit_judge(whole, pictures[0])


def plain_score(folder: Path, source: np.ndarray, result: np.ndarray, instruction: str) -> float:
    """By the model as transformers has it, with both pictures in one chat."""
    model = transformers.Qwen2_5_VLForConditionalGeneration.from_pretrained(folder).eval()
    processor = transformers.AutoProcessor.from_pretrained(folder)
    images = [pillow_first(processor)(PIL.Image.fromarray(picture)) for picture in (source, result)]
    content: list[dict[str, Any]] = [{"type": "image", "image": image} for image in images]
    content.append({"type": "text", "text": QUESTION.replace("{prompt}", instruction)})
    inputs = processor.apply_chat_template(
        [{"role": "user", "content": content}],
        add_generation_prompt=True,
        tokenize=True,
        return_dict=True,
        return_tensors="pt",
    )
    with torch.no_grad():
        logits = model(**inputs).logits[0, -1]
    yes = processor.tokenizer("Yes", add_special_tokens=False)["input_ids"][0]
    return float(torch.softmax(logits.double(), -1)[yes])


def test_it_sees_source_and_result_as_a_plain_call_does(
    judge: EditScorer, folder: Path, pictures: list[np.ndarray]
) -> None:
    results = [pictures[1], pictures[2], pictures[1]]
    texts = [INSTRUCTIONS[0], INSTRUCTIONS[1], INSTRUCTIONS[1]]
    expected = [plain_score(folder, pictures[0], result, text) for result, text in zip(results, texts, strict=True)]
    assert judge.score(results, texts).tolist() == pytest.approx(expected, rel=2e-3, abs=1e-7)
    assert judge.info.target == "edit"


def test_another_source_is_another_scorer(judge: EditScorer, pictures: list[np.ndarray], tmp_path: Path) -> None:
    other = edit_judge(judge, pictures[2])
    assert scorer_identity(other) != scorer_identity(judge)
    assert not torch.allclose(other.score(pictures[1], "x"), judge.score(pictures[1], "x"))


def test_answers_are_kept_by_both_pictures(folder: Path, pictures: list[np.ndarray], tmp_path: Path) -> None:
    whole: Any = load_scorer(f"vqascore:{folder}", device="cpu", cache=tmp_path)
    first = edit_judge(whole, pictures[0]).score(pictures[1], "x")
    second = edit_judge(whole, pictures[2]).score(pictures[1], "x")
    again: Any = load_scorer(f"vqascore:{folder}", device="cpu", cache=tmp_path)
    assert edit_judge(again, pictures[0]).score(pictures[1], "x").tolist() == first.tolist() != second.tolist()
    assert not again.language_model.is_loaded


def test_what_cannot_judge_edits_is_refused(pictures: list[np.ndarray], judge: EditScorer, tmp_path: Path) -> None:
    with pytest.raises(MaAgiqaError, match="got lite"):
        edit_judge(load_scorer("lite", device="cpu"), pictures[0])  # type: ignore[arg-type]
    with pytest.raises(PictureError, match="nowhere"):
        edit_judge(judge, tmp_path / "nowhere.png")
    tiny_chat_models.save_smolvlm(tmp_path / "smolvlm")
    one: Any = load_scorer(f"vqascore:{tmp_path / 'smolvlm'}", device="cpu")
    with pytest.raises(PictureError, match="got 2"):
        edit_judge(one, pictures[0]).score(pictures[1], "x")
