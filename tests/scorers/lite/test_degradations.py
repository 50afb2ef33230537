"""Every degradation keeps shape, range and dtype, is seeded, and gets worse with its level."""

import io

import numpy as np
import pytest
from PIL import Image
from scipy import ndimage

from ma_agiqa_core.scorers.lite import degradations
from ma_agiqa_core.scorers.lite.degradations import FAMILIES, TEST_LADDERS


@pytest.fixture(scope="module")
def picture() -> np.ndarray:
    rng = np.random.default_rng(0)
    layers = [ndimage.gaussian_filter(rng.random((96, 128, 3)), (s, s, 0)) for s in (0.7, 3, 12)]
    mixed = sum((layer - layer.mean()) / layer.std() for layer in layers)
    return np.clip(0.5 + 0.12 * np.asarray(mixed), 0, 1).astype(np.float32)


@pytest.mark.parametrize("family", sorted(FAMILIES))
def test_family(family: str, picture: np.ndarray) -> None:
    before = picture.copy()
    light, heavy = (FAMILIES[family](picture, level, np.random.default_rng(1)) for level in (0.1, 0.9))
    again = FAMILIES[family](picture, 0.9, np.random.default_rng(1))
    np.testing.assert_array_equal(picture, before)
    np.testing.assert_array_equal(heavy, again)
    for copy in (light, heavy):
        assert copy.shape == picture.shape
        assert copy.dtype == np.float32
        assert copy.min() >= -1e-4
        assert copy.max() <= 1 + 1e-4
    assert np.abs(light - picture).mean() > 0
    if family != "upscale_sharpened":  # there the halos of a light one weigh as much as the lost detail of a heavy one
        assert np.abs(heavy - picture).mean() > np.abs(light - picture).mean()


@pytest.mark.parametrize("ladder", sorted(TEST_LADDERS))
def test_ladder_goes_down_three_steps(ladder: str, picture: np.ndarray) -> None:
    errors = [np.abs(step(picture, np.random.default_rng(0)) - picture).mean() for step in TEST_LADDERS[ladder]]
    assert len(errors) == 3
    assert errors == sorted(errors)


def test_jpeg_is_pillows(picture: np.ndarray) -> None:
    buffer = io.BytesIO()
    Image.fromarray((picture * 255 + 0.5).astype(np.uint8)).save(buffer, "JPEG", quality=30)
    expected = np.asarray(Image.open(buffer), np.float32) / 255
    np.testing.assert_array_equal(degradations.jpeg(picture, 30), expected)


def test_noise_has_the_stated_deviation() -> None:
    grey = np.full((200, 200, 3), 0.5, np.float32)
    noisy = degradations.noise(grey, 15.0, np.random.default_rng(0))
    assert noisy.std() * 255 == pytest.approx(15, rel=0.02)


def test_upscaling_removes_the_highest_frequencies(picture: np.ndarray) -> None:
    def high(x: np.ndarray) -> float:
        return float(np.abs(np.fft.fft2(x.mean(-1))[32:64, 40:88]).mean())

    assert high(degradations.upscale(picture, 4)) < 0.2 * high(picture)
