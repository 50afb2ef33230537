"""What all vision-language judges do alike: the cache, equal pictures, reasons, several targets, long prompts."""

import logging
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tiny_judges
import torch
from torch import Tensor

from ma_agiqa_core import MaAgiqaError, PictureError, load_scorer
from ma_agiqa_core.scorers.identity import scorer_identity
from ma_agiqa_core.scorers.judges.asking import AskedPicture
from ma_agiqa_core.scorers.judges.batches import QUESTIONS_AT_ONCE
from ma_agiqa_core.scorers.judges.held_reader import FirstTokenReader, HeldReader
from ma_agiqa_core.scorers.judges.prompt_limit import LONGEST_PROMPT
from ma_agiqa_core.scorers.judges.vqascore import VqaScorer, vqascore_info

CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_judges.write_qrealign(tmp_path_factory.mktemp("judges") / "qrealign")


@pytest.fixture(scope="module")
def pictures() -> list[np.ndarray]:
    random = np.random.default_rng(2)
    return [random.integers(0, 256, (size, 50, 3), dtype=np.uint8) for size in (40, 60)]


class Asked(FirstTokenReader):
    """Says yes as far as a picture is bright; remembers what it was asked."""

    def __init__(self) -> None:
        super().__init__(self.answer, token=0)
        self.batches: list[list[AskedPicture]] = []

    @staticmethod
    def answer(pictures: Sequence[Tensor], texts: Sequence[str]) -> Tensor:
        return torch.stack(
            [
                torch.stack([p.float().mean() / 255 + len(t) / 100, torch.tensor(0.5)])
                for p, t in zip(pictures, texts, strict=True)
            ]
        )

    def read(self, batch: Sequence[AskedPicture]) -> Tensor:
        self.batches.append(list(batch))
        return super().read(batch)


def judge_of(reader: Any, dtype: torch.dtype = torch.float32) -> VqaScorer:
    return VqaScorer(HeldReader(reader, "bright", device=CPU, dtype=dtype), vqascore_info("bright", "1"))


def test_equal_pictures_are_looked_at_once(pictures: list[np.ndarray]) -> None:
    reader = Asked()
    first, second = pictures
    scores = judge_of(reader).score([first, second, first.copy(), first], ["a", "b", "cc", "a"])
    (batch,) = reader.batches
    assert sorted(len(asked.questions) for asked in batch) == [1, 2]
    assert scores[0] == scores[3] != scores[2]


def test_many_questions_about_a_picture_are_asked_in_rounds(pictures: list[np.ndarray]) -> None:
    reader = Asked()
    prompts = ["x" * (1 + count) for count in range(QUESTIONS_AT_ONCE + 3)]
    scores = judge_of(reader).score([pictures[0]] * len(prompts), prompts)
    assert sorted(len(asked.questions) for batch in reader.batches for asked in batch) == [3, QUESTIONS_AT_ONCE]
    assert (scores.diff() > 0).all()


def test_answers_are_kept_and_the_model_is_not_loaded_for_them(
    folder: Path, pictures: list[np.ndarray], tmp_path: Path
) -> None:
    cache = tmp_path / "answers"
    expected = load_scorer(f"qrealign:{folder}", device="cpu", cache=cache).score(pictures)
    again: Any = load_scorer(f"qrealign:{folder}", device="cpu", cache=cache)
    assert again.score(pictures).tolist() == expected.tolist()
    assert not again.language_model.is_loaded
    again.score_targets(pictures, ["aesthetics"])  # another question
    assert again.language_model.is_loaded


def test_answers_of_another_precision_are_others(folder: Path, pictures: list[np.ndarray], tmp_path: Path) -> None:
    load_scorer(f"qrealign:{folder}", device="cpu", cache=tmp_path).score(pictures[0])
    half: Any = load_scorer(f"qrealign:{folder}", device="cpu", cache=tmp_path, dtype="bfloat16")
    half.score(pictures[0])
    assert half.language_model.is_loaded
    assert "dtype=bfloat16" in scorer_identity(half)


def test_a_score_that_is_none_says_what_to_do(pictures: list[np.ndarray]) -> None:
    def overflow(pictures: Sequence[Tensor], texts: Sequence[str]) -> Tensor:
        return torch.full((len(pictures), 2), torch.inf)

    judge = judge_of(FirstTokenReader(overflow, token=0), torch.float16)
    with pytest.raises(PictureError, match="float16 overflows above 65504"):
        judge.score(pictures, "a cat")


def test_a_shape_that_the_model_refuses_is_its_own_picture_s_error(folder: Path, pictures: list[np.ndarray]) -> None:
    thin = np.zeros((1, 900, 3), np.uint8)
    found = load_scorer(f"qrealign:{folder}", device="cpu").explain([pictures[0], thin])  # type: ignore[attr-defined]
    assert isinstance(found[0], float)
    assert "900 × 1" in found[1]


def test_targets_are_those_of_the_judge(folder: Path, pictures: list[np.ndarray], tmp_path: Path) -> None:
    judge: Any = load_scorer(f"qrealign:{folder}", device="cpu")
    assert judge.info.targets == ("quality", "aesthetics")
    both = judge.score_targets(pictures)
    alone = load_scorer(f"qrealign:{folder}", device="cpu", target="aesthetics").score(pictures)
    torch.testing.assert_close(both["aesthetics"], alone, atol=1e-5, rtol=0)
    with pytest.raises(MaAgiqaError, match="'beauty'"):
        judge.score_targets(pictures, ["beauty"])
    broken = tmp_path / "broken.png"
    broken.write_bytes(b"no picture")
    assert judge.score_targets([broken], on_error="nan")["quality"].isnan().all()
    with pytest.raises(PictureError, match="broken"):
        judge.score_targets([broken])


def test_a_long_prompt_is_cut_and_said_once(pictures: list[np.ndarray], caplog: pytest.LogCaptureFixture) -> None:
    reader = Asked()
    judge = judge_of(reader)
    with caplog.at_level(logging.WARNING):
        for _ in range(2):
            judge.score(pictures[0], "y" * (LONGEST_PROMPT + 5))
    assert len([record for record in caplog.records if str(LONGEST_PROMPT + 5) in record.getMessage()]) == 1
    assert reader.batches[0][0].questions[0].text.count("y") == LONGEST_PROMPT
