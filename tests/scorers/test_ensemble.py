"""Ensembles against scipy's ranks and z-scores and percentiles computed by numpy."""

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import PIL.Image
import pytest
import scipy.stats
import torch

from ma_agiqa_core.errors import MaAgiqaError
from ma_agiqa_core.pictures import inputs as images_module
from ma_agiqa_core.pictures.groups import PICTURES_AT_ONCE
from ma_agiqa_core.pictures.inputs import PictureError, read_picture
from ma_agiqa_core.scorers import callable as callable_module
from ma_agiqa_core.scorers.callable import CallableScorer
from ma_agiqa_core.scorers.ensemble import EnsembleScorer
from ma_agiqa_core.scorers.scorer import Scorer

QUANTILES = {"a": (0.0, 1.0, 4.0), "b": (10.0, 20.0, 25.0, 50.0)}


def pictures(count: int) -> torch.Tensor:
    """(count, 3, 1, 1), all the same: the members below go by the position."""
    return torch.zeros(count, 3, 1, 1)


def member(name: str, scores: Sequence[float], **info: Any) -> CallableScorer:
    return CallableScorer(
        lambda images, prompts: scores[: len(images)],
        name=name,
        revision="1",
        high=100,
        **{"quantiles": QUANTILES.get(name, ()), **info},
    )


A, B = [0.5, 4, 1, 1, -3], [22, 10, 35, 35, 60]


def test_calibrated_is_the_weighted_mean_of_percentiles() -> None:
    ensemble = EnsembleScorer([(member("a", A), 1), (member("b", B), 3)])
    shares = [np.interp(A, QUANTILES["a"], [0, 0.5, 1]), np.interp(B, QUANTILES["b"], [0, 1 / 3, 2 / 3, 1])]
    expected = (shares[0] + 3 * shares[1]) / 4
    scores = ensemble.score(pictures(5))
    assert scores.dtype == torch.float32
    np.testing.assert_allclose(scores, expected, atol=1e-6)


def test_calibrated_does_not_depend_on_the_group() -> None:
    ensemble = EnsembleScorer([(member("a", A), 1), (member("b", B), 3)])
    assert torch.equal(ensemble.score(pictures(5))[:2], ensemble.score(pictures(2)))


@pytest.mark.parametrize("prompts", [None, "one for all"])
def test_rank_against_scipy(prompts: str | None) -> None:
    ensemble = EnsembleScorer([(member("a", A), 1), (member("b", B), 3)], combine="rank")
    ranks = [(scipy.stats.rankdata(scores) - 1) / 4 for scores in (A, B)]
    expected = (ranks[0] + 3 * ranks[1]) / 4
    np.testing.assert_allclose(ensemble.score(pictures(5), prompts), expected, atol=1e-6)


def test_zscore_against_scipy() -> None:
    ensemble = EnsembleScorer([(member("a", A), 1), (member("b", B), 3)], combine="zscore")
    expected = (scipy.stats.zscore(A) + 3 * scipy.stats.zscore(B)) / 4
    np.testing.assert_allclose(ensemble.score(pictures(5)), expected, atol=1e-6)


@pytest.mark.parametrize(("combine", "reference"), [("rank", [0, 1, 0.5, 1, 0]), ("zscore", None)])
def test_groups_are_the_pictures_of_one_prompt(combine: str, reference: list[float] | None) -> None:
    scores, prompts = [1.0, 9, 5, 3, 2], ["x", "x", "x", "y", "y"]
    if reference is None:
        reference = [*scipy.stats.zscore(scores[:3]), *scipy.stats.zscore(scores[3:])]
    order = [3, 0, 4, 1, 2]  # groups need not be contiguous
    ensemble = EnsembleScorer([(member("c", [scores[i] for i in order]), 2)], combine=combine)
    result = ensemble.score(pictures(5), [prompts[i] for i in order])
    np.testing.assert_allclose(result, [reference[i] for i in order], atol=1e-6)


@pytest.mark.parametrize(("combine", "lone", "equal"), [("rank", 1.0, 0.5), ("zscore", 0.0, 0.0)])
def test_groups_without_differences(combine: str, lone: float, equal: float) -> None:
    ensemble = EnsembleScorer([(member("c", [0.1] * 7), 1)], combine=combine)
    assert ensemble.score(pictures(1)).tolist() == [lone]
    assert ensemble.score(pictures(7)).tolist() == [equal] * 7


@pytest.mark.parametrize("combine", ["calibrated", "rank", "zscore"])
def test_a_failed_picture_is_left_out_of_its_group(combine: str) -> None:
    a, b = [0.5, math.nan, 2, 3, 3.5], [15, 30, 22, math.nan, 40]
    left = [0, 2, 4]
    ensemble = EnsembleScorer([(member("a", a), 1), (member("b", b), 1)], combine=combine)
    alone = EnsembleScorer(
        [(member("a", [a[i] for i in left]), 1), (member("b", [b[i] for i in left]), 1)], combine=combine
    )
    scores = ensemble.score(pictures(5), on_error="nan")
    assert scores.isnan().tolist() == [False, True, False, True, False]
    assert scores[left].tolist() == alone.score(pictures(3)).tolist()


@pytest.mark.parametrize("combine", ["calibrated", "rank", "zscore"])
def test_no_pictures(combine: str) -> None:
    assert EnsembleScorer([(member("a", A), 1)], combine=combine).score([]).shape == (0,)


def test_unreadable_files(tmp_path: Path) -> None:
    PIL.Image.new("RGB", (2, 2)).save(tmp_path / "x.png")
    files = [tmp_path / "missing.png", tmp_path / "x.png"]
    ensemble = EnsembleScorer([(member("a", A), 1), (member("b", B), 1)])
    with pytest.raises(PictureError, match="Picture 0") as raised:
        ensemble.score(files)
    assert raised.value.reason == "no such file"
    assert ensemble.score(files, on_error="nan").isnan().tolist() == [True, False]


@pytest.fixture
def reads(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The names of the files that are decoded, as they are."""
    names: list[str] = []

    def counted(path: Path) -> PIL.Image.Image:
        names.append(Path(path).name)
        return read_picture(path)

    for module in (images_module, callable_module):
        monkeypatch.setattr(module, "read_picture", counted)
    return names


def brightness(name: str, **info: Any) -> CallableScorer:
    """Goes by the pictures, which must be PIL images of a known size."""

    def score(pictures: Sequence[PIL.Image.Image], _: object) -> list[float]:
        assert all(picture.size == (3, 2) for picture in pictures)
        return [float(np.asarray(picture).mean()) for picture in pictures]

    return CallableScorer(score, name=name, high=255, **info)


@pytest.fixture
def files(tmp_path: Path) -> list[Path]:
    """More than are decoded at a time."""
    paths = [tmp_path / f"{number:02}.png" for number in range(37)]
    for number, path in enumerate(paths):
        PIL.Image.new("RGB", (3, 2), (7 * number % 256,) * 3).save(path)
    return paths


@pytest.mark.parametrize("combine", ["calibrated", "rank", "zscore"])
def test_every_file_is_decoded_once(combine: str, files: list[Path], reads: list[str]) -> None:
    members = [brightness(name, quantiles=(0, 255)) for name in "abc"]
    if combine != "calibrated":
        members = [*members[:2], EnsembleScorer([(members[2], 1), (members[0], 2)], combine="rank")]  # type: ignore[list-item]
    ensemble = EnsembleScorer([(scorer, 1) for scorer in members], combine=combine)
    scores = ensemble.score(files)
    assert sorted(reads) == [path.name for path in files]
    shades = np.array([7.0 * number % 256 for number in range(len(files))])
    ranks = (scipy.stats.rankdata(shades) - 1) / 36
    expected = {"calibrated": shades / 255, "rank": ranks}.get(combine)
    if expected is not None:
        np.testing.assert_allclose(scores, expected, atol=1e-6)
    assert int(scores.argmax()) == int(shades.argmax())


def test_no_more_than_a_group_of_files_is_held(files: list[Path]) -> None:
    seen: list[int] = []

    def count(pictures: Sequence[Any], _: object) -> list[float]:
        seen.append(len(pictures))
        return [0.0] * len(pictures)

    EnsembleScorer([(CallableScorer(count, name="count"), 1)], combine="rank").score(files)
    assert sum(seen) == len(files)
    assert max(seen) <= PICTURES_AT_ONCE


def test_a_relative_member_gets_all_files_at_once(files: list[Path]) -> None:
    seen: list[int] = []

    def place(pictures: Sequence[Any], _: object) -> list[float]:
        seen.append(len(pictures))
        return list(range(len(pictures)))

    relative = CallableScorer(place, name="places", relative=True)
    scores = EnsembleScorer([(relative, 1), (brightness("a"), 1)], combine="rank").score(files)
    assert seen == [37]
    assert scores.isfinite().all()


@pytest.mark.parametrize("bad", [3, 35])
def test_the_first_picture_that_fails_is_named(bad: int, files: list[Path]) -> None:
    files[bad + 1].write_bytes(b"no picture")
    shade = 7 * bad % 256

    def score(pictures: Sequence[PIL.Image.Image], _: object) -> list[float]:
        values = [float(np.asarray(picture).mean()) for picture in pictures]
        return [math.inf if value == shade else value for value in values]

    ensemble = EnsembleScorer([(brightness("a"), 1), (CallableScorer(score, name="fussy"), 1)], combine="rank")
    with pytest.raises(PictureError, match="fussy returned inf") as raised:
        ensemble.score(files)
    assert (raised.value.index, raised.value.path) == (bad, str(files[bad]))
    files[bad].write_bytes(b"no picture either")
    with pytest.raises(PictureError) as raised:
        ensemble.score(files)
    assert (raised.value.index, raised.value.path) == (bad, str(files[bad]))
    assert ensemble.score(files, on_error="nan").isnan().nonzero().flatten().tolist() == [bad, bad + 1]


def test_prompts_stay_with_their_files(files: list[Path]) -> None:
    def score(pictures: Sequence[PIL.Image.Image], prompts: Any) -> list[float]:
        pairs = zip(pictures, prompts, strict=True)
        return [float(np.asarray(picture).mean() == 7 * int(prompt) % 256) for picture, prompt in pairs]

    scorer = CallableScorer(score, name="pairs", needs_prompt=True, quantiles=(0, 1))
    prompts = [str(number) for number in range(len(files))]
    ensemble = EnsembleScorer([(scorer, 1), (brightness("b", quantiles=(-1e9, 1e9)), 1e-9)])
    assert torch.allclose(ensemble.score([*files, files[0]], [*prompts, "0"]), torch.ones(38), atol=1e-6)


def test_info() -> None:
    needs_prompt = member("b", B, needs_prompt=True, trained_on="ratings")
    calibrated = EnsembleScorer([(member("a", A, trained_on="toys"), 1), (needs_prompt, 2.5)])
    info = calibrated.info
    assert isinstance(calibrated, Scorer)
    assert (info.name, info.revision) == ("ensemble(a+b)", "calibrated:a@1*1+b@1*2.5")
    assert (info.low, info.high, info.needs_prompt, info.relative) == (0, 1, True, False)
    assert info.trained_on == "toys; ratings"
    assert info.percentile(0.5) is None
    with pytest.raises(ValueError, match="Expected prompts"):
        calibrated.score(pictures(2))
    for combine, low, high in (("rank", 0, 1), ("zscore", -math.inf, math.inf)):
        info = EnsembleScorer([(member("a", A), 1)], combine=combine).info
        assert (info.low, info.high, info.relative) == (low, high, True)


def test_ensembles_nest() -> None:
    inner = EnsembleScorer([(member("a", A), 1), (member("b", B), 1)], combine="rank")
    outer = EnsembleScorer([(inner, 1)], combine="rank")
    expected = (scipy.stats.rankdata(inner.score(pictures(5))) - 1) / 4
    np.testing.assert_allclose(outer.score(pictures(5)), expected, atol=1e-6)
    with pytest.raises(ValueError, match=r"ensemble\(a\+b\), which is relative to its group"):
        EnsembleScorer([(inner, 1)])


def test_members_from_a_generator() -> None:
    ensemble = EnsembleScorer((scorer, 1.0) for scorer in (member("a", A), member("b", B)))
    assert ensemble.info.name == "ensemble(a+b)"
    with pytest.raises(ValueError, match="at least one"):
        EnsembleScorer(iter(()))


@pytest.mark.parametrize(
    ("members", "combine", "message"),
    [
        ([], "rank", "at least one"),
        ([("a", 0)], "rank", "weight above 0, got 0 for a"),
        ([("a", -1)], "calibrated", "got -1 for a"),
        ([("a", math.nan)], "calibrated", "got nan for a"),
        ([("a", math.inf)], "calibrated", "got inf for a"),
        ([("a", 1)], "median", "'calibrated', 'rank' or 'zscore', got 'median'"),
        ([("a", 1), ("c", 1)], "calibrated", "got c, which has no quantiles. Use combine='rank'"),
    ],
)
def test_impossible_ensembles(members: list[tuple[str, float]], combine: str, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        EnsembleScorer([(member(name, A), weight) for name, weight in members], combine=combine)


def test_a_member_that_returns_another_number_of_scores() -> None:
    class Careless:
        info = member("a", A).info

        def score(
            self, images: Any, prompts: Any = None, batch_size: int | None = None, on_error: str = "raise"
        ) -> torch.Tensor:
            return torch.zeros(1)

    with pytest.raises(ValueError, match="Expected 3 scores from 'a'"):
        EnsembleScorer([(Careless(), 1)]).score(pictures(3))


@pytest.mark.parametrize("members", [None, 3])
def test_members_that_are_no_list_are_named(members: Any) -> None:
    with pytest.raises(MaAgiqaError, match=str(members)):
        EnsembleScorer(members)
