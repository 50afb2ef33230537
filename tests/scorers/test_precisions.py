"""How far half precision moves a score: the tolerances of docs/security.md, by small random networks."""

from pathlib import Path

import numpy as np
import pytest
import tiny_models
import torch

from ma_agiqa_core import load_scorer

OF_RANGE = {"bfloat16": 0.02, "float16": 0.003}  # of what scores span: 8 and 11 bits of precision


@pytest.fixture(scope="module")
def clip_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("clip") / "clip"
    tiny_models.write_clip(folder, seed=4)
    return folder


@pytest.mark.parametrize("dtype", OF_RANGE)
def test_clip(clip_folder: Path, noise_pictures: list[np.ndarray], dtype: str) -> None:
    texts = ["a cat", "two dogs", "a", "red", "sofa"]
    exact = load_scorer(f"clip:{clip_folder}", device="cpu", dtype="float32").score(noise_pictures, texts)
    half = load_scorer(f"clip:{clip_folder}", device="cpu", dtype=dtype).score(noise_pictures, texts)
    assert not torch.equal(exact, half)
    assert float((exact - half).abs().max()) < OF_RANGE[dtype] * 100


@pytest.mark.parametrize("dtype", OF_RANGE)
def test_ma_agiqa(checkpoint: Path, owl_folder: Path, noise_pictures: list[np.ndarray], dtype: str) -> None:
    scorers = {
        name: load_scorer(checkpoint, semantic=owl_folder, device="cpu", dtype=name) for name in ("float32", dtype)
    }
    exact, half = (scorer.score(noise_pictures) for scorer in scorers.values())
    span = scorers["float32"].info.high - scorers["float32"].info.low
    assert float((exact - half).abs().max()) < OF_RANGE[dtype] * span


def test_lite_is_the_same_from_bytes_floats_and_files(tmp_path: Path, noise_pictures: list[np.ndarray]) -> None:
    import PIL.Image

    lite = load_scorer("lite", device="cpu")
    paths = []
    for number, picture in enumerate(noise_pictures):
        paths.append(tmp_path / f"{number}.png")
        PIL.Image.fromarray(picture).save(paths[-1])
    floats = [torch.from_numpy(picture).permute(2, 0, 1) / 255 for picture in noise_pictures]
    expected = lite.score(noise_pictures)
    for given in (paths, floats):
        torch.testing.assert_close(lite.score(given), expected, rtol=0, atol=1e-5)
