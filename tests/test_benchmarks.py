"""The figures' own arithmetic: NIQE, and the share of pairs in order."""

import importlib
import importlib.util
import math
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
from scipy import ndimage, stats

FOLDER = Path(__file__).parents[1] / "benchmarks"


@pytest.fixture(scope="module")
def benchmarks() -> Iterator[ModuleType]:
    """The folder as a package, without the repository's root on sys.path."""
    spec = importlib.util.spec_from_file_location("benchmarks", FOLDER / "__init__.py")
    assert spec is not None
    assert spec.loader is not None
    package = importlib.util.module_from_spec(spec)
    sys.modules["benchmarks"] = package
    spec.loader.exec_module(package)
    yield package
    for name in [name for name in sys.modules if name.partition(".")[0] == "benchmarks"]:
        del sys.modules[name]


@pytest.fixture
def niqe(benchmarks: ModuleType) -> ModuleType:
    return importlib.import_module("benchmarks.niqe")


@pytest.fixture
def ordering(benchmarks: ModuleType) -> ModuleType:
    return importlib.import_module("benchmarks.ordering")


def textured(seed: int, sigma: float = 1.0) -> np.ndarray:
    """(300, 400, 3) uint8."""
    field = ndimage.gaussian_filter(np.random.default_rng(seed).standard_normal((300, 400)), sigma)
    grey = 128 + 40 * field / field.std()
    return np.repeat(grey.clip(0, 255).astype(np.uint8)[..., None], 3, 2)


def test_niqe_describes_whole_blocks(niqe: ModuleType) -> None:
    features, sharpness = niqe.block_features(textured(0))

    assert features.shape == (3 * 4, 36)
    assert np.isfinite(features).all()
    assert (sharpness > 0).all()


def test_fit_finds_the_parameters_values_were_drawn_with(niqe: ModuleType) -> None:
    values = stats.gennorm.rvs(1.3, scale=0.7, size=200_000, random_state=0)
    values = np.where(values < 0, values / 2, values)  # half the scale on the left, as often on either side
    values = values[(values > 0) | (np.arange(len(values)) % 2 == 0)]  # an asymmetric density goes with the scale

    shape, left, right = niqe.fit_asymmetric(values[None])

    assert shape == pytest.approx(1.3, abs=0.03)
    assert left == pytest.approx(0.35, abs=0.01)
    assert right == pytest.approx(0.7, abs=0.01)


def test_niqe_prefers_what_it_was_fitted_on(niqe: ModuleType) -> None:
    fitted = niqe.Niqe.fit(textured(seed) for seed in range(4))

    sharp, soft, softer = (fitted.quality(textured(9, sigma)) for sigma in (1.0, 1.5, 2.5))

    assert 0 > sharp > soft > softer


def test_niqe_has_no_score_for_a_constant_picture(niqe: ModuleType) -> None:
    fitted = niqe.Niqe.fit(textured(seed) for seed in range(2))

    assert math.isnan(fitted.quality(np.full((200, 200, 3), 90, np.uint8)))


def test_niqe_refuses_less_than_a_block(niqe: ModuleType) -> None:
    with pytest.raises(ValueError, match="Expected at least 96 px on each side, got 400 × 95"):
        niqe.block_features(textured(0)[:95])


@pytest.mark.parametrize(
    ("scores", "pairs"),
    [
        ([4, 3, 2, 1], 6),
        ([1, 2, 3, 4], 0),
        ([4, 3, 1, 2], 5),
        ([4, 3, 3, 1], 5),  # a tie is no order
        ([4, math.nan, 3, 1], 4),  # without a score: the worst
        ([4, 3, math.nan, math.nan], 5),
    ],
)
def test_pairs_in_order(ordering: ModuleType, scores: list[float], pairs: int) -> None:
    assert ordering.ordered_pairs(scores) == pairs


def test_interval_is_that_of_the_mean(ordering: ModuleType) -> None:
    shares = np.random.default_rng(1).normal(0.8, 0.1, 400)
    normal = stats.norm.interval(0.95, shares.mean(), stats.sem(shares))

    assert ordering.interval(shares) == pytest.approx(normal, abs=0.002)
    assert ordering.interval(np.full(5, 0.75)) == (0.75, 0.75)


def test_table_means_the_ladders_of_a_group(ordering: ModuleType) -> None:
    ladders = ordering.GROUPS["bar"]
    ordered = {ladder: np.array([[6, 3, 0], [6, 3, 3]]) for ladder in ladders}
    ordered[ladders[0]] = np.array([[0, 3, 0], [6, 3, 3]])

    text = ordering.table(ordering.Result(("a", "b"), ordered, (0, 1, 0)), ["bar"])

    assert f"| {ladders[0]} | 12 | 0.500 | 0.500 | 0.250 |" in text
    assert "| **mean, the bar's ladders** | 48 | **0.875** (0.750–1.000) | **0.500** (0.500–0.500) | **0.250** " in text
    assert "lite 0, BRISQUE 1, NIQE 0" in text
    assert "MISSED (87.5%)" in text


def test_copies_of_a_ladder_get_worse_and_are_the_same_every_time(ordering: ModuleType) -> None:
    original = textured(0).astype(np.float32) / 255
    for ladder in ("noise", "family seams"):
        copies = ordering.make_copies(original, "some", ladder)
        errors = [float(np.abs(copy - original).mean()) for copy in copies]

        assert errors == sorted(errors)
        assert np.array_equal(copies[1], ordering.make_copies(original, "some", ladder)[1])


def test_kept_scores_outlive_an_interrupted_run(benchmarks: ModuleType, tmp_path: Path) -> None:
    module = importlib.import_module("benchmarks.ordering_scores")
    path = tmp_path / "new" / "scores.jsonl"
    kept = module.KeptScores(path)
    kept.add([("a", [1.0, math.nan]), ("b", [2.0])])
    path.write_text(path.read_text() + '{"key": "c", "sco')  # killed while it wrote
    again = module.KeptScores(path)
    assert "c" not in again
    again.add([("d", [4.0])])

    last = module.KeptScores(path)
    assert {key for key in "abcd" if key in last} == {"a", "b", "d"}
    assert last["a"][0] == 1.0
    assert math.isnan(last["a"][1])
    assert last["d"] == [4.0]


def test_what_scores_depend_on_changes_their_key(benchmarks: ModuleType, tmp_path: Path) -> None:
    digest = importlib.import_module("benchmarks.ordering_scores").digest
    file = tmp_path / "picture"
    file.write_bytes(b"one")
    before = digest("BRISQUE", "jpeg", file)
    assert digest("BRISQUE", "jpeg", file) == before != digest("BRISQUEjpeg", "", file)
    file.write_bytes(b"two")
    assert digest("BRISQUE", "jpeg", file) != before


def test_only_unknown_ladders_are_scored(ordering: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    picture = tmp_path / "a.png"
    picture.write_bytes(b"of this run")
    monkeypatch.setattr(ordering, "identities", lambda *_: {name: name for name in ordering.SCORERS})
    monkeypatch.setattr(ordering, "ProcessPoolExecutor", lambda *_, **__: ThreadPoolExecutor(1))
    monkeypatch.setattr(ordering, "_start_worker", lambda *_: None)
    made = []

    def score(job: Any) -> dict[str, list[float]]:
        made.append((job.ladder, job.scorers))
        return {name: [float(len(job.ladder))] for name in job.scorers}

    monkeypatch.setattr(ordering, "_score", score)
    kept = ordering.KeptScores(tmp_path / "kept")
    kept.add([(ordering.digest("BRISQUE", "a", "jpeg", picture), [7.0])])
    for _ in range(2):
        scores = ordering.scores_of([("a", picture, "jpeg"), ("a", picture, "blur")], "lite", [], kept, 1)
        np.testing.assert_array_equal(scores["a", "jpeg"], [[4, 7, 4]])
    assert made == [("jpeg", ("lite", "NIQE")), ("blur", ordering.SCORERS)]


def test_scenes_are_drawn_alike_by_seed(benchmarks: ModuleType) -> None:
    import torch

    scenes = importlib.import_module("benchmarks.scenes")
    pictures, prompts = scenes.scenes(1, seed=0)
    assert torch.equal(pictures, scenes.scenes(1, seed=0)[0])
    assert not torch.equal(pictures, scenes.scenes(1, seed=1)[0])
    assert pictures.shape == (len(scenes.PROMPTS), 3, 32, 32)
    assert prompts.tolist() == list(range(len(scenes.PROMPTS)))


def test_latents_come_back_from_the_pictures_they_stand_for(benchmarks: ModuleType) -> None:
    import torch

    network = importlib.import_module("benchmarks.scene_network")
    torch.manual_seed(0)
    autoencoder = network.PrincipalComponents()
    autoencoder.basis.data = torch.linalg.qr(torch.randn(3 * 32**2, network.COMPONENTS)).Q.T
    autoencoder.mean.data.normal_()
    autoencoder.scale.data.uniform_(0.5, 2)
    latents = torch.randn(2, network.CHANNELS, network.PLACES, network.PLACES)
    torch.testing.assert_close(
        autoencoder.components(autoencoder.decode(latents).sample), latents, atol=1e-4, rtol=1e-4
    )
