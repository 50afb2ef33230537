"""Ranked Contact Sheet."""

from collections.abc import Callable
from typing import Any

import pytest
import torch


@pytest.fixture
def sheet(pack_module: Callable[[str], Any], run_node: Callable[..., Any]) -> Callable[..., torch.Tensor]:
    node = pack_module("nodes.score_sheet").ScoreSheet
    return lambda **inputs: run_node(node, **inputs).result[0]


@pytest.fixture
def batch(batch: torch.Tensor) -> torch.Tensor:
    """In reds, since letters are grey."""
    return batch * torch.tensor([1.0, 0, 0])


def place_of(sheet: torch.Tensor, red: float) -> tuple[int, int]:
    """Left and top of the thumbnail of one red."""
    rows, columns = ((sheet[0] * 255).round() == torch.tensor([int(red * 255), 0, 0])).all(dim=2).nonzero().T
    return int(columns.min()), int(rows.min())


def test_one_picture_with_all_of_them_best_first(sheet, batch):
    out = sheet(images=batch, scores=[7.0, 3.0, 1.0, 9.0, 5.0], columns=5)
    assert out.ndim == 4
    assert (len(out), out.shape[3], out.dtype) == (1, 3, torch.float32)
    assert 0 <= out.min() < out.max() <= 1
    places = [place_of(out, red) for red in (0.9, 0.7, 0.5, 0.3, 0.1)]
    assert [left for left, _ in places] == sorted(left for left, _ in places)
    assert len({top for _, top in places}) == 1


def test_columns_make_rows(sheet, batch):
    out = sheet(images=batch, scores=[7.0, 3.0, 1.0, 9.0, 5.0], columns=2)
    tops = [place_of(out, red)[1] for red in (0.9, 0.7, 0.5, 0.3, 0.1)]
    assert tops[0] == tops[1] < tops[2] == tops[3] < tops[4]
    assert sheet(images=batch, scores=[1.0] * 5).shape[2] > 0  # 0 columns: as many as fit


def test_a_scorer_adds_percentiles(sheet, batch, managed):
    given = {"images": batch, "scores": [0.7, 0.3, 0.1, 0.9, 0.5]}
    plain = sheet(**given)
    assert sheet(**given, scorer=managed(quantiles=(0.0, 1.0))).shape[1] > plain.shape[1]  # a second line
    assert torch.equal(sheet(**given, scorer=managed()), plain)
    assert torch.equal(sheet(**given, scorer=managed(relative=True)), plain)


def test_mixed_sizes_alpha_and_one_picture(sheet, batch):
    clear = torch.zeros(1, 20, 20, 4)  # half of it nothing, half red
    clear[..., 0], clear[:, :, 10:, 3] = 0.2, 1
    out = sheet(images=[batch, clear], scores=[1.0, 2.0, 3.0, 4.0, 5.0, 6.0])
    left, top = place_of(out, 0.2)
    assert (left, top) < place_of(out, 0.5)  # right of it in the same row, the best stands first
    assert out[0, top, left - 1].tolist() == [1, 1, 1]
    assert len(sheet(images=batch[:1], scores=[1.0])) == 1


@pytest.mark.parametrize("scores", [[], [1.0], [1.0] * 6])
def test_another_number_of_scores_is_refused(sheet, batch, scores):
    with pytest.raises(ValueError, match=f"one score for each of 5 pictures, got {len(scores)}"):
        sheet(images=batch, scores=scores)


def test_an_empty_batch_is_refused(sheet, batch):
    with pytest.raises(ValueError, match="at least one picture, got an empty batch"):
        sheet(images=batch[:0], scores=[])
