"""What every scorer must do, whoever wrote it. A new one is a line in `MAKERS` of tests/support/scorer_makers.py."""

from __future__ import annotations

import copy
import pickle
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import numpy as np
import PIL.Image
import pytest
import torch
from scorer_makers import MAKERS, Small

from ma_agiqa_core import MaAgiqaError, PictureError, Scorer
from ma_agiqa_core.compute.progress import watching
from ma_agiqa_core.pictures.inputs import iterate_pictures
from ma_agiqa_core.scorers.identity import scorer_identity
from ma_agiqa_core.scorers.outcomes import explained, outcomes_of

TEXTS = ["a red cat", "two dogs", "the sea", "a red cat", "x"]
PROMPT = "a cat"


@pytest.fixture(scope="module")
def small(
    tmp_path_factory: pytest.TempPathFactory, checkpoint: Path, visual_checkpoint: Path, owl_folder: Path
) -> Small:
    return Small(tmp_path_factory.mktemp("small"), checkpoint, visual_checkpoint, owl_folder)


@pytest.fixture(scope="module", params=MAKERS)
def scorer(request: pytest.FixtureRequest, small: Small) -> Scorer:
    return MAKERS[request.param](small)


@pytest.fixture(scope="module")
def pictures(noise_pictures: list[np.ndarray]) -> list[np.ndarray]:
    """Of unlike sizes and brightness; the second and the fourth are of one size."""
    return [(picture * share).astype(np.uint8) for picture, share in zip(noise_pictures, SHARES, strict=True)]


SHARES = (0.9, 0.4, 0.7, 1.0, 0.2)


def assert_close(scores: torch.Tensor, expected: torch.Tensor) -> None:
    torch.testing.assert_close(scores, expected, rtol=0, atol=1e-4)


def test_it_says_what_it_is(scorer: Scorer) -> None:
    assert isinstance(scorer, Scorer)
    assert scorer.info.name
    assert scorer.info.low < scorer.info.high
    assert scorer.info.name in scorer_identity(scorer)


def test_scores_are_plain_numbers(scorer: Scorer, pictures: list[np.ndarray]) -> None:
    scores = scorer.score(pictures, TEXTS)
    assert (scores.shape, scores.dtype, scores.device.type) == ((5,), torch.float32, "cpu")
    assert not scores.requires_grad
    assert not scores.is_inference()
    assert len(set(scores.tolist())) > 1  # or the tests below could not fail


@pytest.mark.parametrize("batch_size", [1, 2])
def test_neither_batch_nor_order_shows(scorer: Scorer, pictures: list[np.ndarray], batch_size: int) -> None:
    expected = scorer.score(pictures, TEXTS)
    assert_close(scorer.score(pictures, TEXTS, batch_size), expected)
    assert_close(scorer.score(pictures[::-1], TEXTS[::-1], batch_size).flip(0), expected)


@pytest.mark.parametrize("threads", [1, 3])
def test_the_number_of_threads_does_not_show(scorer: Scorer, pictures: list[np.ndarray], threads: int) -> None:
    expected = scorer.score(pictures, TEXTS)
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        assert_close(scorer.score(pictures, TEXTS), expected)
    finally:
        torch.set_num_threads(before)


def test_the_other_pictures_do_not_show(scorer: Scorer, pictures: list[np.ndarray]) -> None:
    if scorer.info.relative:
        pytest.skip("it compares the pictures of a call")
    alone = [scorer.score(picture, text) for picture, text in zip(pictures, TEXTS, strict=True)]
    assert_close(torch.cat(alone), scorer.score(pictures, TEXTS))


def test_every_kind_of_picture_scores_alike(scorer: Scorer, pictures: list[np.ndarray], tmp_path: Path) -> None:
    array = pictures[1]
    image, path, tensor = PIL.Image.fromarray(array), tmp_path / "picture.png", _tensor(array)
    image.save(path)
    kinds: list[Any] = [array, image, path, str(path), tensor, tensor.double(), array[::-1][::-1]]
    expected = scorer.score([*pictures[:1], *[array] * len(kinds)], PROMPT)
    assert_close(scorer.score([*pictures[:1], *kinds], PROMPT), expected)
    assert_close(scorer.score((*pictures[:1], *kinds), PROMPT), expected)


def test_one_picture_and_a_batch_come_without_a_list(scorer: Scorer, pictures: list[np.ndarray]) -> None:
    first, second = _tensor(pictures[1]), _tensor(pictures[3])
    assert_close(scorer.score(torch.stack([first, second]), TEXTS[:2]), scorer.score([first, second], TEXTS[:2]))
    for one in (pictures[0], PIL.Image.fromarray(pictures[0]), _tensor(pictures[0])):
        assert_close(scorer.score(one, PROMPT), scorer.score([pictures[0]], PROMPT))


@pytest.mark.parametrize("nothing", [[], (), torch.zeros(0, 3, 8, 8)], ids=["list", "tuple", "batch"])
def test_no_pictures(scorer: Scorer, nothing: Any) -> None:
    no_prompts: list[str] = []
    for prompts in (None, PROMPT, no_prompts):
        scores = scorer.score(nothing, prompts)
        assert (scores.shape, scores.dtype) == ((0,), torch.float32)


def test_unreadable_pictures(scorer: Scorer, pictures: list[np.ndarray], tmp_path: Path) -> None:
    path = tmp_path / "a.png"
    PIL.Image.fromarray(pictures[0]).save(path)
    (tmp_path / "broken.png").write_bytes(b"no picture")
    given: list[Any] = [path, tmp_path / "broken.png", pictures[1], tmp_path / "missing.png", pictures[2]]
    with pytest.raises(PictureError) as raised:
        scorer.score(given, TEXTS)
    assert (raised.value.index, raised.value.path) == (1, str(tmp_path / "broken.png"))
    readable = [0, 2, 4]
    scores = scorer.score(given, TEXTS, on_error="nan")
    assert scores.isnan().tolist() == [False, True, False, True, False]
    assert_close(scores[readable], scorer.score(pictures[:3], [TEXTS[i] for i in readable]))
    outcomes = explained(scorer, given, TEXTS)
    assert [outcomes[1], outcomes[3]] == [raised.value.reason, "no such file"]
    assert [outcomes[i] for i in readable] == scores[readable].tolist()
    assert explained(scorer, [given[1]], PROMPT) == [raised.value.reason]


def test_decoded_pictures_score_alike(scorer: Scorer, pictures: list[np.ndarray], tmp_path: Path) -> None:
    paths = [tmp_path / f"{i}.png" for i in range(len(pictures))]
    for path, picture in zip(paths, pictures, strict=True):
        PIL.Image.fromarray(picture).save(path)
    (missing,) = iterate_pictures([tmp_path / "missing.png"])
    outcomes = outcomes_of(scorer, [*iterate_pictures(paths), missing], [*TEXTS, PROMPT], 2)
    assert outcomes.pop() == "no such file"
    assert_close(torch.tensor(outcomes), scorer.score(pictures, TEXTS))


@pytest.mark.parametrize("on_error", ["raise", "nan"])
def test_malformed_pictures_are_refused_whatever_on_error_is(scorer: Scorer, on_error: str) -> None:
    cases: list[tuple[Any, str]] = [
        (torch.rand(2, 8, 8, 3), "BHWC"),
        ([torch.full((3, 8, 8), 2.5)], r"2\.5"),
        ([np.zeros((8, 8))], r"\(8, 8\)"),
        (3, "int"),
    ]
    for malformed, value in cases:
        with pytest.raises(MaAgiqaError, match=value):
            scorer.score(malformed, PROMPT, on_error=on_error)


def test_prompts(scorer: Scorer, pictures: list[np.ndarray]) -> None:
    one = scorer.score(pictures, PROMPT)
    assert_close(scorer.score(pictures, [PROMPT] * 5), one)
    with pytest.raises(MaAgiqaError, match="5 pictures, got 2"):
        scorer.score(pictures, ["a", "b"])
    with pytest.raises(MaAgiqaError, match="got 3"):
        scorer.score(pictures, 3)  # type: ignore[arg-type]
    if scorer.info.needs_prompt:
        with pytest.raises(MaAgiqaError, match="got None"):
            scorer.score(pictures)
        with pytest.raises(MaAgiqaError, match="for picture 1, got an empty one"):
            scorer.score(pictures[:2], ["a", " "])
    else:
        assert_close(scorer.score(pictures), one)


def test_half_a_character_in_a_prompt_costs_at_most_its_picture(scorer: Scorer, pictures: list[np.ndarray]) -> None:
    scores = scorer.score(pictures[:2], ["a cat \ud83d", "a dog"], on_error="nan")
    assert scores[1].isfinite()
    if scores[0].isnan():
        with pytest.raises(PictureError, match="half a character") as raised:
            scorer.score(pictures[:2], ["a cat \ud83d", "a dog"])
        assert raised.value.index == 0


@pytest.mark.parametrize(
    ("options", "value"),
    [({"batch_size": 0}, "got 0"), ({"batch_size": 2.5}, "got 2.5"), ({"on_error": "skip"}, "skip")],
)
def test_wrong_options(scorer: Scorer, pictures: list[np.ndarray], options: dict[str, Any], value: str) -> None:
    with pytest.raises(MaAgiqaError, match=value):
        scorer.score(pictures, PROMPT, **options)


def test_whoever_watches_hears_of_every_picture(scorer: Scorer, pictures: list[np.ndarray]) -> None:
    seen: list[int] = []
    with watching(seen.append):
        scorer.score(pictures, PROMPT)
    assert sum(seen) >= len(pictures)


@pytest.fixture
def strange_state() -> Iterator[ExitStack]:
    with ExitStack() as stack:
        yield stack
        torch.set_default_dtype(torch.float32)


def test_the_callers_settings_of_torch_change_nothing(
    scorer: Scorer, pictures: list[np.ndarray], strange_state: ExitStack
) -> None:
    expected = scorer.score(pictures, TEXTS)
    strange_state.enter_context(torch.autocast("cpu", dtype=torch.bfloat16))
    strange_state.enter_context(torch.inference_mode())
    strange_state.enter_context(torch.device("meta"))
    torch.set_default_dtype(torch.float16)
    scores = scorer.score(pictures, TEXTS)
    assert torch.get_default_dtype() == torch.float16
    assert torch.is_autocast_enabled("cpu")
    assert torch.is_inference_mode_enabled()
    strange_state.close()
    assert not scores.is_inference()
    assert (scores.dtype, scores.device.type) == (torch.float32, "cpu")
    assert torch.equal(scores, expected)


@pytest.mark.parametrize(
    "used", [pytest.param(False, marks=pytest.mark.long), True], ids=["before its first picture", "afterwards"]
)
@pytest.mark.parametrize("name", MAKERS)
def test_copies_score_the_same_and_share_nothing(
    name: str, used: bool, small: Small, pictures: list[np.ndarray]
) -> None:
    scorer = MAKERS[name](small)
    expected = MAKERS[name](small).score(pictures, TEXTS)
    if used:
        scorer.score(pictures[:1], PROMPT)
    for copied in (copy.deepcopy(scorer), pickle.loads(pickle.dumps(scorer))):
        assert copied.info == scorer.info
        assert_close(copied.score(pictures, TEXTS), expected)
        for network in getattr(copied, "networks", ()):
            for weights in [*network.parameters(), *network.buffers()]:
                weights.detach().zero_()
    assert_close(scorer.score(pictures, TEXTS), expected)


def _tensor(array: np.ndarray) -> torch.Tensor:
    """(3, H, W) float32 in [0, 1]."""
    return torch.from_numpy(array.copy()).movedim(-1, 0).float() / 255
