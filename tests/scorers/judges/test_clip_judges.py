"""ImageReward, HPSv2, PickScore and the aesthetic predictors against numbers of their published code.

All numbers are the fixtures', which say what ran; a file of another seed may stand in the place of each.
"""

from pathlib import Path
from typing import Any

import clip_judges
import numpy as np
import pytest
import torch

from ma_agiqa_core import Scorer, load_scorer
from ma_agiqa_core.scorers.judges.hpsv2 import cleaned
from ma_agiqa_core.scorers.judges.picture_judge import PictureJudge

BAR = 1e-4  # of the spread of a fixture's scores
FAMILIES = {
    "imagereward": ("imagereward", clip_judges.write_imagereward),
    "hpsv2": ("hpsv2", clip_judges.write_hpsv2),
    "laion-aesthetic": ("aesthetic_laion_v2", clip_judges.write_laion),
    "aesthetic-v2.5": ("aesthetic_v2_5", clip_judges.write_aesthetic_v2_5),
    "clip": ("pickscore", clip_judges.write_pickscore),
}
WITH_PROMPTS = ("imagereward", "hpsv2", "clip")
OWN = [name for name in FAMILIES if name != "clip"]


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    place = tmp_path_factory.mktemp("judges")
    return {name: write(place / fixture) for name, (fixture, write) in FAMILIES.items()}


@pytest.fixture(scope="module")
def judges(folders: dict[str, Path]) -> dict[str, Scorer]:
    return {name: load_scorer(f"{name}:{folder}", device="cpu") for name, folder in folders.items()}


def published(name: str) -> dict[str, Any]:
    return clip_judges.fixture(FAMILIES[name][0])


@pytest.mark.parametrize("name", WITH_PROMPTS)
def test_scores_with_prompts_are_the_published_ones(name: str, judges: dict[str, Scorer]) -> None:
    judge = published(name)
    shown = clip_judges.pictures(judge)
    expected = torch.tensor(judge["expected_scores"]["values"])
    scores = torch.stack([judges[name].score(shown, prompt) for prompt in judge["prompts"]])
    assert float((scores - expected).abs().max()) < BAR * judge["spread"]
    pairs = [(shown[column], prompt) for prompt in judge["prompts"] for column in range(len(shown))]
    mixed = judges[name].score([picture for picture, _ in pairs], [prompt for _, prompt in pairs], batch_size=4)
    assert float((mixed - expected.flatten()).abs().max()) < BAR * judge["spread"], "of many prompts in one batch"


@pytest.mark.parametrize("name", [name for name in FAMILIES if name not in WITH_PROMPTS])
def test_scores_of_pictures_alone_are_the_published_ones(name: str, judges: dict[str, Scorer]) -> None:
    judge = published(name)
    scores = judges[name].score(clip_judges.pictures(judge))
    assert float((scores - torch.tensor(judge["expected_scores"])).abs().max()) < BAR * judge["spread"]


@pytest.mark.parametrize("name", OWN)
def test_pixels_are_the_published_ones(name: str, judges: dict[str, Scorer]) -> None:
    judge = published(name)
    scorer = judges[name]
    assert isinstance(scorer, PictureJudge)
    for picture, expected in zip(clip_judges.pictures(judge), judge["pixels"], strict=True):
        pixels = scorer.pixels(picture)
        assert list(pixels.shape) == expected["shape"]
        flat, middle = pixels.flatten(), pixels.numel() // 2
        torch.testing.assert_close(flat[:8], torch.tensor(expected["first8"]), rtol=1e-5, atol=1e-6)
        torch.testing.assert_close(flat[middle : middle + 8], torch.tensor(expected["mid8"]), rtol=1e-5, atol=1e-6)
        assert pixels.double().mean().item() == pytest.approx(expected["mean"], rel=1e-5, abs=1e-6)
        assert pixels.double().std().item() == pytest.approx(expected["std"], rel=1e-5)


@pytest.mark.parametrize("name", ["imagereward", "hpsv2"])
def test_token_ids_are_the_published_ones(
    name: str, judges: dict[str, Scorer], caplog: pytest.LogCaptureFixture
) -> None:
    judge = published(name)
    tokens = judges[name].tokens  # type: ignore[attr-defined]
    texts = judge["prompts"] if name == "imagereward" else [cleaned(prompt) for prompt in judge["prompts"]]
    found = tokens.ids(texts)
    assert [[*row, *[0] * (tokens.limit - len(row))] for row in found] == judge["input_ids"]
    assert {len(row) for row in judge["input_ids"]} == {tokens.limit}


def test_hpsv2_embeddings_are_the_published_ones(judges: dict[str, Scorer]) -> None:
    judge, scorer = published("hpsv2"), judges["hpsv2"]
    assert isinstance(scorer, PictureJudge)
    texts = scorer.read(judge["prompts"], None)
    for found, expected in zip(texts, judge["text_features"], strict=True):
        torch.testing.assert_close(found[:8], torch.tensor(expected["first8"]), rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize(
    ("prompt", "same"),
    [("a cat&amp;dog", "a cat&dog"), ("“a”  Cat\n", '"a" cat'), ("caf&amp;eacute;", "café"), ("schÃ¶n", "schön")],
)
def test_hpsv2_cleans_prompts_as_open_clip_does(prompt: str, same: str, judges: dict[str, Scorer]) -> None:
    shown = clip_judges.pictures(published("hpsv2"))[:1]
    assert cleaned(prompt) == same
    torch.testing.assert_close(judges["hpsv2"].score(shown, prompt), judges["hpsv2"].score(shown, same))


def test_hpsv2_scores_what_its_published_code_raises_on(judges: dict[str, Scorer]) -> None:
    judge = published("hpsv2")
    scorer = judges["hpsv2"]
    side = int(scorer.size)  # type: ignore[attr-defined]
    exact = clip_judges.waves(5, side * 4 // 5, side)  # the longest side needs no resize, and yet it must be padded
    padded = np.zeros((side, side, 3), np.uint8)
    top = (side - len(exact)) // 2
    padded[top : top + len(exact)] = exact
    alone, whole = scorer.score([exact, padded], judge["prompts"][0])
    assert alone == whole


@pytest.mark.parametrize("name", FAMILIES)
def test_a_score_does_not_depend_on_the_batch(name: str, judges: dict[str, Scorer]) -> None:
    judge = published(name)
    shown: list[Any] = [
        *clip_judges.pictures(judge),
        *(clip_judges.waves(seed, 90 + 7 * seed, 300) for seed in range(6)),
    ]
    prompts = [judge["prompts"][row % 3] for row in range(9)] if name in WITH_PROMPTS else None
    together = judges[name].score(shown, prompts)
    for size in (1, 2, 9):
        other = judges[name].score(shown, prompts, batch_size=size)
        torch.testing.assert_close(other, together, rtol=0, atol=BAR * judge["spread"])


@pytest.mark.parametrize("name", OWN)
def test_half_precision_is_near(name: str, folders: dict[str, Path], judges: dict[str, Scorer]) -> None:
    judge = published(name)
    half = load_scorer(f"{name}:{folders[name]}", device="cpu", dtype="bfloat16")
    prompt = judge["prompts"][0] if name in WITH_PROMPTS else None
    shown = clip_judges.pictures(judge)
    apart = (half.score(shown, prompt) - judges[name].score(shown, prompt)).abs().max()
    assert 0 < apart < judge["spread"]
