"""The lite scorer: the same score however a picture comes, and the weights that the package carries."""

import socket
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from project_paths import ROOT
from safetensors.torch import load_file, save_file

from ma_agiqa_core import Scorer, load_scorer
from ma_agiqa_core.demo import PHOTOGRAPHS, write_demo_pictures
from ma_agiqa_core.scorers.lite import LITE_WEIGHTS, LiteScorer
from ma_agiqa_core.scorers.lite import scorer as lite_scorer
from ma_agiqa_core.scorers.lite.degradations import FAMILIES, TEST_LADDERS, to_bytes

DEMO = ROOT / "ma_agiqa_core" / "demo"


@pytest.fixture(scope="module")
def lite() -> Scorer:
    torch.set_num_threads(1)
    return load_scorer("lite", device="cpu")


@pytest.fixture(scope="module")
def pictures() -> list[np.ndarray]:
    rng = np.random.default_rng(0)
    sizes = [(60, 80), (200, 300), (60, 80), (300, 200), (1, 1), (3, 500), (200, 300), (60, 80)]
    return [rng.integers(0, 256, (*size, 3), np.uint8) for size in sizes]


def test_pictures_wait_in_bounded_memory(
    lite: Scorer, pictures: list[np.ndarray], monkeypatch: pytest.MonkeyPatch
) -> None:
    expected = lite.score(pictures)
    monkeypatch.setitem(lite_scorer.PIXELS_AT_ONCE, "cpu", 10_000)
    torch.testing.assert_close(lite.score(pictures), expected, rtol=0, atol=1e-4)


def test_too_little_memory_halves_the_batch(pictures: list[np.ndarray], monkeypatch: pytest.MonkeyPatch) -> None:
    lite = LiteScorer.from_file(LITE_WEIGHTS, torch.device("cpu"))
    expected, forward, sizes = lite.score(pictures), lite.network.forward, []

    def small(pixels: torch.Tensor) -> torch.Tensor:
        sizes.append(len(pixels))
        if len(pixels) > 1:
            raise RuntimeError("DefaultCPUAllocator: can't allocate memory")
        return forward(pixels)

    monkeypatch.setattr(lite.network, "forward", small)
    torch.testing.assert_close(lite.score(pictures), expected, rtol=0, atol=1e-4)
    assert max(sizes) > 1
    monkeypatch.setattr(lite.network, "forward", lambda pixels: torch.zeros(3) @ torch.zeros(4))
    with pytest.raises(RuntimeError, match=r"\[3\]"):
        lite.score(pictures)


def test_large_pictures_and_extreme_shapes(lite: Scorer) -> None:
    rng = np.random.default_rng(2)
    shapes = [(2100, 2050, 3), (40, 3000, 3)]
    scores = lite.score([rng.integers(0, 256, shape, np.uint8) for shape in shapes])
    assert torch.isfinite(scores).all()


def test_info_says_what_it_is(lite: Scorer) -> None:
    info = lite.info
    assert (info.name, info.low, info.high) == ("lite", 0, 10)
    assert not info.needs_prompt
    assert not info.relative
    assert "NOT MA-AGIQA" in info.description
    assert len(info.revision) == 12
    middle = info.percentile(info.quantiles[50])
    assert middle == pytest.approx(50, abs=1)
    assert info.percentile(-1) == 0
    assert info.percentile(10.1) == 100


def test_weights_are_small_and_need_no_network(monkeypatch: pytest.MonkeyPatch) -> None:
    assert LITE_WEIGHTS.stat().st_size <= 25e6

    def refuse(*_: object) -> None:
        raise AssertionError("no network")

    monkeypatch.setattr(socket.socket, "connect", refuse)
    assert load_scorer("lite").info.name == "lite"


def test_half_precision_storage_loads_into_float32() -> None:
    stored = load_file(LITE_WEIGHTS)
    assert {tensor.dtype for tensor in stored.values()} == {torch.float16, torch.float32}
    scorer = load_scorer("lite", device="cpu")
    assert isinstance(scorer, LiteScorer)
    assert {p.dtype for p in scorer.network.parameters()} == {torch.float32}


def test_damaged_and_foreign_files_are_refused(tmp_path: Path) -> None:
    whole = LITE_WEIGHTS.read_bytes()
    (tmp_path / "cut.safetensors").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(ValueError, match=r"cut\.safetensors"):
        load_scorer(tmp_path / "cut.safetensors")
    foreign = tmp_path / "foreign.safetensors"
    save_file({"a": torch.zeros(1)}, foreign, {"ma_agiqa.format": "1", "ma_agiqa.kind": "lite"})
    with pytest.raises(ValueError, match=r"foreign\.safetensors.*lite"):
        load_scorer(foreign)


@pytest.mark.parametrize("quantiles", ["5", '["a", "b"]', "[3, 1]", "not json"])
def test_bad_percentiles_name_the_file(tmp_path: Path, quantiles: str) -> None:
    path = tmp_path / "mine.safetensors"
    metadata = {"ma_agiqa.format": "1", "ma_agiqa.kind": "lite", "ma_agiqa.quantiles": quantiles}
    save_file(load_file(LITE_WEIGHTS), path, metadata)
    with pytest.raises(ValueError, match=r"mine\.safetensors"):
        load_scorer(path)


def test_batches_of_degraded_photographs_change_nothing(lite: Scorer) -> None:
    """Real pictures of one size: there the sums over support vectors are large and cancel."""
    clean = np.asarray(Image.open(DEMO / "chelsea.jpg"), np.float32)[:200, :240] / 255
    copies = [clean, *(step(clean, np.random.default_rng(0)) for ladder in TEST_LADDERS.values() for step in ladder)]
    pictures = [to_bytes(copy) for copy in copies]
    alone = torch.cat([lite.score(picture) for picture in pictures])
    torch.testing.assert_close(lite.score(pictures), alone, rtol=0, atol=2e-5)
    torch.testing.assert_close(lite.score(pictures[::-1], batch_size=3), alone.flip(0), rtol=0, atol=2e-5)


def test_a_copy_of_the_weights_scores_alike(lite: Scorer, tmp_path: Path) -> None:
    copy = tmp_path / "model.safetensors"
    copy.write_bytes(LITE_WEIGHTS.read_bytes())
    picture = np.random.default_rng(3).integers(0, 256, (80, 80, 3), np.uint8)
    for model in (copy, tmp_path):
        again = load_scorer(model, device="cpu")
        assert again.info.revision == lite.info.revision
        torch.testing.assert_close(again.score(picture), lite.score(picture))


def test_photographs_are_better_than_their_degraded_copies(lite: Scorer) -> None:
    """The demo's photographs were not trained on: at least 93 % of the pairs of each are in the right order."""
    right = []
    for name in PHOTOGRAPHS:
        clean = np.asarray(Image.open(DEMO / f"{name}.jpg"), np.float32)[:300, :400] / 255
        for ladder in TEST_LADDERS.values():
            copies = [clean, *(step(clean, np.random.default_rng(0)) for step in ladder)]
            scores = lite.score([to_bytes(copy) for copy in copies])
            right += [bool(scores[a] > scores[b]) for a in range(4) for b in range(a + 1, 4)]
    assert np.mean(right) >= 0.93


@pytest.fixture(scope="module")
def photographs() -> list[np.ndarray]:
    """The demo's, which nothing of lite was made from, (320, 400, 3) in 0..1."""
    return [np.asarray(Image.open(DEMO / f"{name}.jpg"), np.float32)[:320, :400] / 255 for name in PHOTOGRAPHS]


def test_any_clean_picture_is_better_than_any_ruined_one(lite: Scorer, photographs: list[np.ndarray]) -> None:
    """Across contents: the scale is one for all."""
    clean = lite.score([to_bytes(picture) for picture in photographs])
    for family in ("jpeg", "blur", "white_noise", "upscale", "unfinished", "blotches", "grain", "melted"):
        ruined = [FAMILIES[family](picture, 0.9, np.random.default_rng(0)) for picture in photographs]
        assert lite.score([to_bytes(picture) for picture in ruined]).max() < clean.min(), family


@pytest.mark.parametrize("family", ["unfinished", "melted", "blotches", "checkerboard"])
def test_what_previews_suffer_from_costs(lite: Scorer, photographs: list[np.ndarray], family: str) -> None:
    clean = lite.score([to_bytes(picture) for picture in photographs])
    damaged = [FAMILIES[family](picture, 0.8, np.random.default_rng(0)) for picture in photographs]
    assert (clean - lite.score([to_bytes(picture) for picture in damaged])).min() > 0.2


def test_black_and_white_is_no_damage(lite: Scorer, photographs: list[np.ndarray]) -> None:
    clean = lite.score([to_bytes(picture) for picture in photographs])
    grey = [np.repeat(picture @ np.array([[0.299], [0.587], [0.114]], np.float32), 3, -1) for picture in photographs]
    blurred = [FAMILIES["blur"](picture, 0.5, np.random.default_rng(0)) for picture in photographs]
    lost = clean - lite.score([to_bytes(picture) for picture in grey])
    assert (lost < 0.5 * (clean - lite.score([to_bytes(picture) for picture in blurred]))).all()


def test_demo_pictures_are_the_same_every_time(tmp_path: Path) -> None:
    first = write_demo_pictures(tmp_path / "a")
    second = write_demo_pictures(tmp_path / "b")
    assert [path.name for path in first] == [path.name for path in second]
    assert len(first) == len(set(first)) == 4 * 6
    for one, other in zip(first, second, strict=True):
        assert one.read_bytes() == other.read_bytes()
