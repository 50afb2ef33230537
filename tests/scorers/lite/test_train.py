"""The parts of the recipe that are formulas; the recipe itself is run by hand."""

import numpy as np
import pytest
import torch

from ma_agiqa_core.scorers.lite.degradations import FAMILIES
from ma_agiqa_core.scorers.lite.recipe import train
from ma_agiqa_core.scorers.lite.recipe.training_set import TEST_CONTENTS, UNSEEN_FAMILIES


def test_pairwise_loss_is_the_weighted_sum_over_ordered_pairs() -> None:
    rng = np.random.default_rng(0)
    scores, target = rng.normal(size=6), np.array([1, 0.9, 0.2, 1, 0.98, 0.1])
    view, anchor = np.array([0, 0, 0, 1, 1, 2]), np.array([True, True, True, True, True, False])
    total = weights = 0.0
    for i in range(6):
        for j in range(6):
            gap = target[i] - target[j]
            if gap <= train.MARGIN:
                continue
            if view[i] == view[j]:
                weight = 1.0
            elif anchor[i] and anchor[j]:
                weight = train.ANCHOR_PAIRS
            else:
                weight = train.PLAIN_PAIRS if gap > train.PLAIN else 0.0
            weight *= max(gap, 0.1)
            total += weight * np.log1p(np.exp(-(scores[i] - scores[j])))
            weights += weight
    got = train.pairwise_loss(*(torch.from_numpy(x) for x in (scores, target, view, anchor)))
    assert float(got) == pytest.approx(total / weights)


def test_labels_keep_test_contents_out_of_training() -> None:
    content = np.array(["kodim01", "kodim03", "kodim01", "sunset", "kodim01"])
    labels = train.Labels(content, np.array([0, 0, 0, 2, 1]), np.array(["x"] * 5), np.ones(5, np.float32))
    assert labels.test.tolist() == [False, True, False, False, False]
    assert labels.anchor.tolist() == [True, True, True, False, True]
    assert [view.tolist() for view in labels.training_views()] == [[0, 2], [4], [3]]


def test_what_is_held_out_exists() -> None:
    assert set(FAMILIES) > UNSEEN_FAMILIES
    assert len(TEST_CONTENTS) == 17
    assert not UNSEEN_FAMILIES & set(train.VECTOR_FAMILIES)
    assert set(train.VECTOR_FAMILIES) - {"original"} <= set(FAMILIES)
