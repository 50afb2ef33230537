"""Tests of training: lite describes a picture once, however many runs are compared with it."""

from collections.abc import Sequence
from pathlib import Path

import pytest
import torch

from ma_agiqa_core.scorers.picture_features.features import PictureFeatures
from ma_agiqa_core.training import baselines
from ma_agiqa_core.training.descriptions import describe_files

_known: dict[tuple[Path, int], torch.Tensor] = {}


@pytest.fixture(autouse=True)
def described_once(monkeypatch: pytest.MonkeyPatch) -> None:
    def describe(paths: Sequence[Path], features: PictureFeatures) -> torch.Tensor:
        keys = [(path, path.stat().st_mtime_ns) for path in paths]
        new = [key for key in keys if key not in _known]
        _known.update(zip(new, describe_files([path for path, _ in new], features), strict=True))
        return torch.stack([_known[key] for key in keys]) if keys else describe_files([], features)

    monkeypatch.setattr(baselines, "describe_files", describe)
