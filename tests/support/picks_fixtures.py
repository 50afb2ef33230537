"""Small pictures with a property that somebody may like: warm or cold colours."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from ma_agiqa_core.pictures.inputs import Picture
from ma_agiqa_core.scorers.picture_features.lite_features import LiteFeatures

SIDE = 48


def write_warm_and_cold(folder: Path, count: int, seed: int = 0) -> tuple[list[Path], list[Path]]:
    """Writes folder/liked (warm) and folder/disliked (cold), `count` pictures in all."""
    random = np.random.default_rng(seed)
    found: tuple[list[Path], list[Path]] = ([], [])
    for number in range(count):
        is_cold = number % 2
        coarse = random.uniform(60, 190, (4, 4, 3)) + np.array([40, 0, -40]) * (-1 if is_cold else 1)
        picture = Image.fromarray(coarse.clip(0, 255).astype(np.uint8)).resize((SIDE, SIDE), Image.Resampling.BICUBIC)
        path = folder / ("disliked" if is_cold else "liked") / f"{number:03d}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        picture.save(path)
        found[is_cold].append(path)
    return found


@pytest.fixture(scope="session")
def warm_and_cold(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with liked/ (warm) and disliked/ (cold), 12 pictures each. Not to be changed."""
    folder = tmp_path_factory.mktemp("picks")
    write_warm_and_cold(folder, 24)
    return folder


class RememberedFeatures(LiteFeatures):
    """lite's features; a picture seen before is not described again."""

    def __init__(self) -> None:
        super().__init__(torch.device("cpu"))
        self._known: dict[bytes, torch.Tensor | str] = {}

    def describe_group(self, pictures: Sequence[Picture], batch_size: int | None) -> list[torch.Tensor | str]:
        return [self._remembered(picture) for picture in pictures]

    def _remembered(self, picture: Picture) -> torch.Tensor | str:
        assert picture.pixels is not None
        key = hashlib.sha256(picture.pixels.contiguous().numpy().tobytes()).digest()
        if key not in self._known:
            self._known[key] = super().describe_group([picture], 1)[0]
        return self._known[key]


@pytest.fixture(scope="session")
def lite_features() -> RememberedFeatures:
    return RememberedFeatures()
