"""`prune_at` is read in one place: the same numbers are taken, and the same mistakes told, by all who take one."""

from types import ModuleType
from typing import Any

import numpy as np
import pytest
import torch

from ma_agiqa_core import CallableScorer
from ma_agiqa_core.comfyui.segmented_best_of_n import stages_of
from ma_agiqa_core.errors import MaAgiqaError
from ma_agiqa_core.generation import QualityFilterCallback, best_of_n
from ma_agiqa_core.generation.pruning.schedule import PruneSchedule

EQUAL = CallableScorer(lambda images, prompts: [0.5] * len(images), name="equal")


@pytest.mark.parametrize(
    "given",
    [
        {0.4: 4, 0.7: 2},
        {0.7: 2, 0.4: 4},
        {np.float64(0.4): np.int64(4), np.float64(0.7): np.uint8(2)},
        {torch.tensor(0.4, dtype=torch.float64): torch.tensor(4), 0.7: np.array(2)},
    ],
)
def test_numbers_of_any_library_become_pythons_own(given):
    stages = PruneSchedule.of(given).stages
    assert stages == ((0.4, 4), (0.7, 2))
    assert {(type(fraction), type(keep)) for fraction, keep in stages} == {(float, int)}
    assert PruneSchedule.parse("0.7:2, 0.4:4").stages == stages


def test_float32_is_close():
    (((fraction, keep),)) = PruneSchedule.of({np.float32(0.4): 4}).stages
    assert (fraction, keep) == (pytest.approx(0.4), 4)


def test_nothing_is_nothing():
    assert PruneSchedule.of(None).stages == PruneSchedule.of({}).stages == PruneSchedule.parse(" ,").stages == ()


@pytest.mark.parametrize(
    ("given", "text", "message"),
    [
        ({0.0: 2}, "0.0:2", r"Expected fractions between 0 and 1 in prune_at, got 0\.0"),
        ({40: 2}, "40:2", "Expected fractions between 0 and 1 in prune_at, got 40 in"),
        ({0.5: 0}, "0.5:0", r"Expected whole numbers of at least 1 to keep, got 0 at 0\.5"),
        ({0.4: 2, 0.7: 3}, "0.4:2, 0.7:3", r"Expected at most 2 candidates at 0\.7 in prune_at, got 3: there are no"),
    ],
)
def test_a_mistake_is_told_in_the_same_words_everywhere(
    tiny_pipelines: ModuleType, given: dict[float, int], text: str, message: str
) -> None:
    pipe = tiny_pipelines.pipeline("sd")
    with pytest.raises(MaAgiqaError, match=message):
        best_of_n(pipe, EQUAL, "a cat", n=8, prune_at=given)
    with pytest.raises(MaAgiqaError, match=message):
        QualityFilterCallback(pipe, EQUAL, prune_at=given)
    with pytest.raises(MaAgiqaError, match=message):
        stages_of(text, n=8, keep=1, steps=20)


@pytest.mark.parametrize("given", ["0.4:4", [0.5], {"0.5": 1}, {True: 1}, {None: 1}, {np.array([0.5]).tobytes(): 1}, 3])
def test_something_else_is_no_schedule(given: Any) -> None:
    with pytest.raises(MaAgiqaError, match="Expected prune_at as a dict of fractions of the steps with keep counts"):
        PruneSchedule.of(given)


@pytest.mark.parametrize("count", [True, np.bool_(True), torch.tensor(True), 2.0, np.float64(2), "2", None, [2]])
def test_no_whole_number_to_keep(count: Any) -> None:
    with pytest.raises(MaAgiqaError, match=r"Expected whole numbers of at least 1 to keep, got .* at 0\.5"):
        PruneSchedule.of({0.5: count})
