"""Statistics against scipy, numpy and distributions whose parameters are known."""

import numpy as np
import pytest
import torch
from scipy import ndimage, stats
from torch import Tensor

from ma_agiqa_core.scorers.lite import scene_maps, statistics


@pytest.fixture(scope="module")
def picture() -> Tensor:
    rng = np.random.default_rng(3)
    smooth = ndimage.gaussian_filter(rng.random((3, 200, 300)), (0, 3, 3))
    return torch.from_numpy(((smooth - smooth.min()) / np.ptp(smooth)).astype(np.float32))[None]


def moments_of(x: np.ndarray, columns: int, rows: int) -> np.ndarray:
    """Of a map (H, W), in cells that share no pixels: (rows, columns, 4)."""
    cells = [np.array_split(row, columns, 1) for row in np.array_split(x, rows)]
    parts = (lambda c: np.abs(c).mean(), lambda c: (c * c).mean(), lambda c: (c * c)[c < 0].sum() / c.size)
    return np.array([[[*(part(c) for part in parts), (c < 0).mean()] for c in row] for row in cells])


@pytest.mark.parametrize("strip", [1, 20_000, 50_000, 1 << 18])
def test_scene_is_what_scipy_and_numpy_compute(picture: Tensor, strip: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(scene_maps.STRIP, "cpu", strip)
    luma = picture[:, 0] * 255
    taps = np.exp(-0.5 * (np.arange(-3, 4) / (7 / 6)) ** 2)
    taps /= taps.sum()

    def smooth(x: np.ndarray) -> np.ndarray:
        return ndimage.correlate1d(ndimage.correlate1d(x, taps, 0, mode="nearest"), taps, 1, mode="nearest")

    x = luma[0].double().numpy()
    deviation = np.sqrt(np.maximum(smooth(x * x) - smooth(x) ** 2, 0))
    mscn = (x - smooth(x)) / (deviation + 1)
    scene = scene_maps.natural_scene(luma[:, None], (2, 3), products=True)
    np.testing.assert_allclose(scene.deviation[0, 0], deviation, atol=2e-2)
    assert scene.moments.shape == (1, 6, 5, 4)
    centre = mscn[:-1, 1:-1]
    across, down, diagonal, antidiagonal = mscn[:-1, 2:], mscn[1:, 1:-1], mscn[1:, 2:], mscn[1:, :-2]
    maps = (centre, centre * across, centre * down, centre * diagonal, centre * antidiagonal)
    for place, one in enumerate(maps):
        bounds = [np.arange(n + 1) * side // n for n, side in zip((2, 3), one.shape, strict=True)]
        for row in range(2):
            for column in range(3):
                cell = one[bounds[0][row] : bounds[0][row + 1], bounds[1][column] : bounds[1][column + 1]]
                expected = moments_of(cell, 1, 1)[0, 0]
                np.testing.assert_allclose(scene.moments[0, 3 * row + column, place], expected, atol=2e-3)
    plain = scene_maps.natural_scene(torch.stack([luma, 255 - luma], 1), (1, 1), products=False)
    assert plain.moments.shape == (1, 1, 2, 4)
    np.testing.assert_allclose(plain.moments[0, 0, 0], moments_of(mscn, 1, 1)[0, 0], atol=1e-3)
    np.testing.assert_allclose(plain.contrast()[0, 0], deviation.mean(), atol=1e-2)


@pytest.mark.parametrize(("rows", "count"), [(1, 1), (7, 7), (255, 11), (1023, 11), (500, 3)])
@pytest.mark.parametrize("most", [1, 40, 90.5, 200, 1e9])
def test_strips_hold_every_row_once_and_whole_rows_of_cells_where_they_fit(rows: int, count: int, most: float) -> None:
    starts = [i * rows // count for i in range(count + 1)]
    seen: list[int] = []
    for cells, start, stop in scene_maps._strips(rows, count, most):
        seen += range(start, stop)
        assert starts[cells.start] <= start < stop <= starts[cells.stop]
        assert stop - start <= most or cells.stop - cells.start == 1
    assert seen == list(range(rows))


def test_quantiles_and_deviations_are_torchs() -> None:
    values = torch.rand(3, 1001, generator=torch.Generator().manual_seed(0))
    for some in (values, values[:, :1000], values[:, :2], values[:, :1]):
        shares = torch.tensor([0.1, 0.5, 0.9])
        torch.testing.assert_close(statistics._quantiles(some, (0.1, 0.5, 0.9)), torch.quantile(some, shares, 1).T)
        assert statistics._median(some).equal(some.median(1).values)
    torch.testing.assert_close(statistics._deviation(values), values.std(1))


def sample_moments(sample: np.ndarray) -> Tensor:
    return torch.from_numpy(moments_of(sample.astype(np.float64), 1, 1)[0]).float()[:, None]


@pytest.mark.parametrize("shape", [0.6, 1.0, 2.0, 4.0])
def test_fit_finds_the_shape_and_variance_of_a_generalised_gaussian(shape: float) -> None:
    sample = stats.gennorm.rvs(shape, scale=1.5, size=(500, 500), random_state=1)
    got_shape, mean, left, right = statistics._aggd(sample_moments(sample))[0, 0].tolist()
    assert got_shape == pytest.approx(shape, rel=0.03)
    variance = stats.gennorm.var(shape, scale=1.5)
    assert abs(mean) < 0.03 * variance**0.5
    assert left == pytest.approx(variance, rel=0.03)
    assert right == pytest.approx(variance, rel=0.03)


def test_fit_tells_the_sides_of_an_asymmetric_sample_apart() -> None:
    half = np.abs(np.random.default_rng(0).normal(size=100_000))
    sample = np.concatenate([-half[:33_333], 2 * half[33_333:]])  # as an AGGD has it, each side's weight is its width
    shape, mean, left, right = statistics._aggd(sample_moments(sample[None]))[0, 0].tolist()
    assert shape == pytest.approx(2, rel=0.05)
    assert left == pytest.approx(1, rel=0.03)
    assert right == pytest.approx(4, rel=0.03)
    assert mean == pytest.approx(sample.mean(), rel=0.05)


def test_halving_is_numpys_mean_of_squares() -> None:
    x = np.random.default_rng(0).random((2, 7, 9)).astype(np.float32)
    expected = x[:, :6, :8].reshape(2, 3, 2, 4, 2).mean((2, 4))
    np.testing.assert_allclose(scene_maps.halve(torch.from_numpy(x)), expected, rtol=1e-6)


def test_shapes_and_names_agree(picture: Tensor) -> None:
    features, blocks = statistics.describe(picture)
    assert features.shape == (1, len(statistics.FEATURES)) == (1, 96)
    assert blocks.shape == (1, 2 * 3, len(statistics.BLOCK_FEATURES))
    assert len(set(statistics.FEATURES)) == 96
    assert set(statistics.BLOCK_FEATURES) < set(statistics.FEATURES)
    assert torch.isfinite(features).all()
    assert torch.isfinite(blocks).all()


def test_block_features_average_to_the_pictures_moments() -> None:
    """With one block, its features are those of the picture."""
    small = torch.rand(2, 3, 100, 110, generator=torch.Generator().manual_seed(0))
    features, blocks = statistics.describe(small)
    columns = [statistics.FEATURES.index(name) for name in statistics.BLOCK_FEATURES]
    torch.testing.assert_close(features[:, columns], blocks[:, 0], rtol=1e-5, atol=1e-5)


def test_a_batch_gives_what_its_pictures_give_alone() -> None:
    batch = torch.rand(3, 3, 130, 97, generator=torch.Generator().manual_seed(1))
    features, blocks = statistics.describe(batch)
    for index in range(3):
        alone, alone_blocks = statistics.describe(batch[index : index + 1])
        torch.testing.assert_close(features[index], alone[0], rtol=1e-4, atol=1e-4)
        torch.testing.assert_close(blocks[index], alone_blocks[0], rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("size", [(1, 1), (1, 400), (400, 1), (7, 33), (32, 32)])
def test_any_size_and_a_flat_picture_give_finite_numbers(size: tuple[int, int]) -> None:
    for picture in (torch.full((1, 3, *size), 0.5), torch.rand(1, 3, *size)):
        for values in statistics.describe(picture):
            assert torch.isfinite(values).all()


def test_mirroring_is_numpys_symmetric_padding() -> None:
    x = np.random.default_rng(0).random((1, 3, 5, 9)).astype(np.float32)
    got = statistics.mirror_to(torch.from_numpy(x), 32)
    np.testing.assert_array_equal(got, np.pad(x, ((0, 0), (0, 0), (0, 27), (0, 23)), mode="symmetric"))


def test_named_features_measure_what_they_say() -> None:
    generator = torch.Generator().manual_seed(0)
    grey = torch.full((1, 3, 96, 96), 0.5)
    noisy = (grey + 0.05 * torch.randn(1, 1, 96, 96, generator=generator)).clamp(0, 1)
    stepped = grey.clone()
    stepped[..., ::8] += 0.2
    red = grey.clone()
    red[:, 0] = 1

    def feature(picture: Tensor, name: str) -> float:
        return float(statistics.describe(picture)[0][0, statistics.FEATURES.index(name)])

    assert np.exp(feature(noisy, "band.noise")) - 0.1 == pytest.approx(0.05 * 255, rel=0.1)
    assert feature(stepped, "grid.across") > 2 > feature(noisy, "grid.across")
    assert feature(stepped, "grid.down") == pytest.approx(0, abs=0.01)
    assert feature(red, "colour.saturation") == pytest.approx(0.5, abs=0.01)
    assert feature(red, "colour.white") == pytest.approx(1)
    assert feature(grey, "contrast0.flat") == pytest.approx(1)
