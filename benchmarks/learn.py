"""Learning a taste from picks: how fast, how many picks a taste needs, and what few or contrary picks do.

    python -m benchmarks.learn

Pictures are made-up scenes of 512 px. A taste is a property of them; the half of the pictures that has more of it is
liked. Agreement is measured on 150 scenes that nobody picked: the share of pairs of a liked and a disliked one that the
scorer puts in this order. The prior is lite, whose score has nothing to do with these tastes.
"""

from __future__ import annotations

import os

os.environ.update(OMP_NUM_THREADS="1", MKL_NUM_THREADS="1", OPENBLAS_NUM_THREADS="1")  # read by the imports below

import hashlib
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from unittest.mock import patch

import click
import numpy as np
import torch
from scipy.stats import spearmanr
from torch import Tensor

from ma_agiqa_core import learn, load_scorer
from ma_agiqa_core.learning import learn as learning
from ma_agiqa_core.picks.pick import Mark, PickedPicture, Picks
from ma_agiqa_core.pictures.inputs import Picture
from ma_agiqa_core.scorers.learned import LearnedScorer
from ma_agiqa_core.scorers.picture_features.lite_features import LiteFeatures

from .machine import machine
from .made_up_tastes import TASTES, Scene, make_scene, write_scenes

PICKED, UNSEEN = 200, 150
TASTE_PICKS, FEW, FEW_ROUNDS = 60, 5, 10
ROUNDS = 3  # of unlike picks
SECONDS_BAR, ACCURACY_BAR, CONTRARY_BAR, FEW_BAR = 60.0, 0.9, 0.9, 0.95


@click.command()
def main() -> None:
    """Measure how a taste is learned."""
    torch.set_num_threads(1)
    print(machine())
    random = np.random.default_rng(0)
    scenes = [make_scene(random) for _ in range(PICKED + UNSEEN)]
    with tempfile.TemporaryDirectory() as folder:
        paths = write_scenes(Path(folder), scenes)
        picked, unseen = paths[:PICKED], paths[PICKED:]
        values = np.array([TASTES["warm colours"](scene) for scene in scenes])
        start = time.perf_counter()
        learn(_marks(picked, values[:PICKED] > np.median(values)), device="cpu")
        seconds = time.perf_counter() - start
        print(f"\n{PICKED} picks at 512 px: {seconds:.1f} s, {_verdict(seconds <= SECONDS_BAR)} {SECONDS_BAR:.0f} s\n")
        features = RememberedFeatures(torch.device("cpu"))
        with patch.object(learning, "load_features", lambda *_: features):
            _tastes(picked, unseen, scenes)
            _contrary(picked, unseen)
            _few(picked, unseen)


def _tastes(picked: Sequence[Path], unseen: Sequence[Path], scenes: Sequence[Scene]) -> None:
    print(f"| taste, {TASTE_PICKS} picks | pairs of unseen pictures in order: mean | least of {ROUNDS} | lite | bar |")
    print("|---|---|---|---|---|")
    lite = _values("lite", unseen)
    for name, taste in TASTES.items():
        values = np.array([taste(scene) for scene in scenes])
        liked = values > np.median(values)
        found = []
        for seed in range(ROUNDS):
            rows = np.random.default_rng(seed).permutation(PICKED)[:TASTE_PICKS]
            scorer = learn(_marks([picked[row] for row in rows], liked[rows]), device="cpu")
            found.append(_in_order(_values(scorer, unseen), liked[PICKED:]))
        mean = float(np.mean(found))
        bar = f"{_verdict(mean >= ACCURACY_BAR)} {ACCURACY_BAR}"
        print(f"| {name} | {mean:.3f} | {min(found):.3f} | {_in_order(lite, liked[PICKED:]):.3f} | {bar} |")


def _contrary(picked: Sequence[Path], unseen: Sequence[Path]) -> None:
    print("\nWhat lite ranks low is liked:\n")
    print("| picks | SRCC with lite on unseen pictures | pairs in the order of the picks | bar |\n|---|---|---|---|")
    lite, unseen_lite = _values("lite", picked), _values("lite", unseen)
    for count in (FEW, 20, 60, PICKED):
        rows = np.random.default_rng(0).permutation(PICKED)[:count]
        scorer = learn(_marks([picked[row] for row in rows], lite[rows] < np.median(lite[rows])), device="cpu")
        found = _values(scorer, unseen)
        share = _in_order(found, unseen_lite < np.median(unseen_lite))
        bar = f"{_verdict(share >= CONTRARY_BAR)} {CONTRARY_BAR}" if count == PICKED else ""
        print(f"| {count} | {spearmanr(found, unseen_lite).statistic:.3f} | {share:.3f} | {bar} |")


def _few(picked: Sequence[Path], unseen: Sequence[Path]) -> None:
    lite, found = _values("lite", unseen), []
    for seed in range(FEW_ROUNDS):
        random = np.random.default_rng(seed)
        rows = random.permutation(PICKED)[:FEW]
        liked = np.array([True, False, *random.integers(0, 2, FEW - 2).astype(bool)])
        scorer = learn(_marks([picked[row] for row in rows], liked), device="cpu")
        found.append(spearmanr(_values(scorer, unseen), lite).statistic)
    verdict = _verdict(min(found) >= FEW_BAR)
    print(f"\n{FEW} random picks, {FEW_ROUNDS} times: SRCC with lite at least {min(found):.4f}, {verdict} {FEW_BAR}")


def _marks(paths: Sequence[Path], liked: np.ndarray) -> Picks:
    return Picks(
        tuple(Mark(PickedPicture(str(path)), bool(is_liked)) for path, is_liked in zip(paths, liked, strict=True))
    )


def _values(scorer: str | LearnedScorer, paths: Sequence[Path]) -> np.ndarray:
    loaded = load_scorer(scorer, device="cpu") if isinstance(scorer, str) else scorer
    return loaded.score(list(paths)).double().numpy()


def _in_order(values: np.ndarray, liked: np.ndarray) -> float:
    likes, dislikes = values[liked], values[~liked]
    return float((0.5 + 0.5 * np.sign(likes[:, None] - dislikes[None])).mean())


class RememberedFeatures(LiteFeatures):
    """lite's features; a picture seen before is not described again, since dozens of scorers here see the same ones."""

    def __init__(self, device: torch.device) -> None:
        super().__init__(device)
        self._known: dict[bytes, Tensor | str] = {}

    def describe_group(self, pictures: Sequence[Picture], batch_size: int | None) -> list[Tensor | str]:
        return [self._remembered(picture, batch_size) for picture in pictures]

    def _remembered(self, picture: Picture, batch_size: int | None) -> Tensor | str:
        assert picture.pixels is not None
        key = hashlib.sha256(picture.pixels.contiguous().numpy()).digest()
        if key not in self._known:
            self._known[key] = super().describe_group([picture], batch_size)[0]
        return self._known[key]


def _verdict(is_met: bool) -> str:
    return "meets" if is_met else "MISSES"


if __name__ == "__main__":
    main()
