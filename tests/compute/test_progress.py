"""How far scoring is."""

from pathlib import Path

import numpy as np
import pytest
import torch

from ma_agiqa_core import CallableScorer, EnsembleScorer, load_scorer
from ma_agiqa_core.compute.progress import tick, watching


@pytest.fixture
def seen() -> list[int]:
    return []


def test_nobody_has_to_watch() -> None:
    tick(3)


def test_every_network_counts_its_pictures(seen: list[int], noise_pictures: list[np.ndarray]) -> None:
    bright = CallableScorer(lambda images, prompts: [float(np.mean(image)) for image in images], name="bright")
    both = EnsembleScorer([(load_scorer("lite", device="cpu"), 1.0), (bright, 1.0)], combine="rank")
    with watching(seen.append):
        both.score(noise_pictures)
    assert sum(seen) == 2 * len(noise_pictures)
    tick(1)
    assert sum(seen) == 2 * len(noise_pictures)  # nobody watches any more


def test_a_large_picture_gives_chances_to_end_it(seen: list[int]) -> None:
    with watching(seen.append):
        load_scorer("lite", device="cpu").score(torch.rand(1, 3, 1400, 3000))
    assert seen == [0] * (len(seen) - 1) + [1]
    assert len(seen) > 2


def test_what_a_watcher_raises_ends_the_scoring() -> None:
    def stop(_: int) -> None:
        raise InterruptedError

    with watching(stop), pytest.raises(InterruptedError):
        load_scorer("lite", device="cpu").score(torch.rand(4, 3, 64, 64))


def test_ma_agiqa_looks_twice_also_where_vectors_are_known(
    seen: list[int], checkpoint: Path, owl_folder: Path, tmp_path: Path, noise_pictures: list[np.ndarray]
) -> None:
    scorer = load_scorer(checkpoint, semantic=owl_folder, cache=tmp_path, device="cpu")
    for _ in range(2):
        seen.clear()
        with watching(seen.append):
            scorer.score(noise_pictures)
        assert sum(seen) == 2 * len(noise_pictures)
