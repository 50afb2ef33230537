"""A function as a scorer: what it is given, and what it may return."""

import math
from pathlib import Path
from typing import Any

import numpy as np
import PIL.Image
import pytest
import torch

from ma_agiqa_core.pictures.inputs import PictureError
from ma_agiqa_core.scorers.callable import CallableScorer

RED = np.full((4, 4, 3), (255, 0, 0), np.uint8)


def red_share(images: Any, prompts: list[str] | None) -> list[float]:
    return [float(np.asarray(image)[..., 0].mean()) / 255 for image in images]


class Recorder:
    """Returns 0, 1, 2 ... and remembers its calls."""

    def __init__(self) -> None:
        self.calls: list[tuple[Any, list[str] | None]] = []
        self.count = 0

    def __call__(self, images: Any, prompts: list[str] | None) -> list[int]:
        self.calls.append((images, prompts))
        self.count += len(images)
        return list(range(self.count - len(images), self.count))


@pytest.fixture
def files(tmp_path: Path) -> list[Path]:
    paths = [tmp_path / f"{shade}.png" for shade in (0, 51, 255)]
    for path in paths:
        PIL.Image.new("L", (3, 2), int(path.stem)).save(path)
    return paths


def test_scores_come_back_in_order_as_float32(files: list[Path]) -> None:
    scores = CallableScorer(red_share, name="red").score([*files, RED])
    assert scores.dtype == torch.float32
    assert scores.tolist() == pytest.approx([0, 0.2, 1, 1])


def test_files_become_rgb_images_and_the_rest_is_untouched(files: list[Path]) -> None:
    recorder = Recorder()
    image, tensor = PIL.Image.new("LA", (2, 2)), torch.zeros(3, 2, 2, dtype=torch.float64)
    CallableScorer(recorder, name="x").score([str(files[1]), image, RED, tensor], prompts="a cat")
    [(given, prompts)] = recorder.calls
    assert (given[0].mode, given[0].size) == ("RGB", (3, 2))
    assert given[1] is image
    assert given[2] is RED
    assert given[3] is tensor
    assert prompts == ["a cat"] * 4


def test_a_batch_tensor_stays_one() -> None:
    recorder, batch = Recorder(), torch.rand(5, 3, 4, 4, generator=torch.Generator().manual_seed(0))
    assert CallableScorer(recorder, name="x").score(batch, batch_size=2).tolist() == [0, 1, 2, 3, 4]
    assert [len(images) for images, _ in recorder.calls] == [2, 2, 1]
    assert torch.equal(torch.cat([images for images, _ in recorder.calls]), batch)


@pytest.mark.parametrize("nothing", [[], (), torch.zeros(0, 3, 4, 4)])
def test_no_pictures(nothing: Any) -> None:
    recorder = Recorder()
    scores = CallableScorer(recorder, name="x", needs_prompt=True).score(nothing)
    assert (scores.shape, scores.dtype, recorder.calls) == ((0,), torch.float32, [])


def test_batches_and_their_prompts(files: list[Path]) -> None:
    recorder = Recorder()
    CallableScorer(recorder, name="x").score(files, prompts=["a", "b", "c"], batch_size=2)
    assert [(len(images), prompts) for images, prompts in recorder.calls] == [(2, ["a", "b"]), (1, ["c"])]


def test_a_relative_function_sees_the_whole_group(files: list[Path]) -> None:
    recorder = Recorder()
    CallableScorer(recorder, name="x", relative=True).score(files, batch_size=1)
    assert [len(images) for images, _ in recorder.calls] == [3]


@pytest.mark.parametrize("broken", ["missing.png", PIL.Image.new("RGB", (0, 1))])
def test_unreadable_pictures(files: list[Path], broken: Any) -> None:
    recorder = Recorder()
    scorer = CallableScorer(recorder, name="x")
    with pytest.raises(PictureError) as raised:
        scorer.score([*files, broken])
    assert (raised.value.index, raised.value.path) == (3, broken if isinstance(broken, str) else None)
    scores = scorer.score([broken, *files, broken], prompts=list("abcde"), batch_size=4, on_error="nan")
    assert scores.isnan().tolist() == [True, False, False, False, True]
    assert scores[1:4].tolist() == [0, 1, 2]
    assert [prompts for _, prompts in recorder.calls] == [["b", "c", "d"]]


def test_malformed_pictures_are_refused_before_any_call(files: list[Path]) -> None:
    recorder = Recorder()
    with pytest.raises(ValueError, match="BHWC"):
        CallableScorer(recorder, name="x").score(torch.zeros(2, 5, 4, 3), on_error="nan")
    with pytest.raises(ValueError, match="as picture 3"):
        CallableScorer(recorder, name="x").score([*files, torch.zeros(9, 9)], batch_size=1, on_error="nan")
    assert not recorder.calls


@pytest.mark.parametrize(
    "result",
    [
        [0.25, 0.5],
        (0.25, 0.5),
        np.array([0.25, 0.5]),
        np.array([[0.25], [0.5]], np.float16),
        np.array([0.5, 0.25])[::-1],
        torch.tensor([[0.25], [0.5]], dtype=torch.float64, requires_grad=True),
        [torch.tensor(0.25), torch.tensor(0.5)],
        [np.float32(0.25), np.float32(0.5)],
    ],
)
def test_numbers_in_any_container(result: Any) -> None:
    scores = CallableScorer(lambda images, prompts: result, name="x").score([RED, RED])
    assert scores.dtype == torch.float32
    assert not scores.requires_grad
    assert scores.tolist() == [0.25, 0.5]


@pytest.mark.parametrize(
    ("result", "message"),
    [
        ([0.5], r"Expected 2 scores from 'x', got torch.float32 \(1,\)"),
        (0.5, r"got torch.float32 \(\)"),
        ([], r"got torch.float32 \(0,\)"),
        (np.zeros((2, 2)), r"got torch.float64 \(2, 2\)"),
        (["good", "bad"], "Expected 2 numbers from 'x', got list"),
        (None, "got NoneType"),
        ([1j, 2j], "complex"),
    ],
)
def test_anything_else_is_refused(result: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        CallableScorer(lambda images, prompts: result, name="x").score([RED, RED])


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
def test_scores_that_are_not_finite(bad: float) -> None:
    scorer = CallableScorer(lambda images, prompts: [0.5, bad, bad], name="x")
    with pytest.raises(ValueError, match=rf"^Picture 1 cannot be scored: x returned {bad}\.$"):
        scorer.score([RED] * 3)
    scores = scorer.score([RED] * 3, on_error="nan")
    assert scores[0] == 0.5
    assert scores[1:].isnan().all()


def test_options_reach_the_info() -> None:
    scorer = CallableScorer(red_share, name="red", revision="7", low=-1, high=2, trained_on="nothing", quantiles=[0, 1])
    assert (scorer.info.name, scorer.info.revision, scorer.info.low, scorer.info.high) == ("red", "7", -1, 2)
    assert scorer.info.percentile(0.25) == 25
    with pytest.raises(ValueError, match="on_error"):
        scorer.score(RED, on_error="skip")
    with pytest.raises(ValueError, match="Expected prompts"):
        CallableScorer(red_share, name="red", needs_prompt=True).score(RED)
