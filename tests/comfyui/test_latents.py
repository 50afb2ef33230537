"""Latents and masks that go with the chosen pictures."""

import pytest
import torch

from ma_agiqa_core.comfyui.latents import flattened_masks, latent_count, latent_rows, select_latents


def samples(count: int, *size: int, start: int = 0) -> torch.Tensor:
    """Row i holds i everywhere."""
    return (
        (start + torch.arange(count, dtype=torch.float32))
        .reshape(-1, 1, 1, 1)
        .expand(count, 4, *(size or (2, 3)))
        .clone()
    )


def values(tensor: torch.Tensor) -> list[float]:
    return tensor.flatten(1)[:, 0].tolist()


def test_rows_come_in_the_given_order_with_their_noise() -> None:
    chosen = latent_rows({"samples": samples(4)}, [3, 0, 2])
    assert values(chosen["samples"]) == [3, 0, 2]
    assert chosen["samples"].shape == (3, 4, 2, 3)
    assert chosen["batch_index"] == [3, 0, 2]
    assert set(chosen) == {"samples", "batch_index"}


def test_the_index_of_an_earlier_cut_is_kept() -> None:
    chosen = latent_rows({"samples": samples(3), "batch_index": [7, 5, 6]}, [2, 0])
    assert chosen["batch_index"] == [6, 7]
    assert latent_rows(chosen, [1])["batch_index"] == [7]


def test_an_index_that_is_a_tensor_becomes_a_list_of_numbers() -> None:
    chosen = latent_rows({"samples": samples(3), "batch_index": torch.tensor([7, 5, 6])}, [2, 0])
    assert chosen["batch_index"] == [6, 7]
    assert [type(index) for index in chosen["batch_index"]] == [int, int]


def test_the_latent_that_came_in_stays_as_it_was() -> None:
    latent = {"samples": samples(3), "noise_mask": torch.zeros(1, 1, 8, 8)}
    chosen = latent_rows(latent, [1])
    chosen["samples"][:] = 9
    chosen["noise_mask"][:] = 9
    assert values(latent["samples"]) == [0, 1, 2]
    assert latent["noise_mask"].max() == 0
    assert "batch_index" not in latent


@pytest.mark.parametrize(
    ("rows", "expected"),
    [(1, [0]), (2, [1, 1, 0]), (4, [3, 1, 2])],  # as ComfyUI repeats too few of them
)
def test_a_noise_mask_goes_along(rows: int, expected: list[float]) -> None:
    mask = torch.arange(rows, dtype=torch.float32).reshape(-1, 1, 1, 1).expand(rows, 1, 8, 8)
    chosen = latent_rows({"samples": samples(4), "noise_mask": mask}, [3, 1, 2])
    assert values(chosen["noise_mask"]) == expected
    assert chosen["noise_mask"].shape[1:] == (1, 8, 8)


def test_a_single_noise_mask_without_batch_is_shared() -> None:
    assert latent_rows({"samples": samples(2), "noise_mask": torch.ones(8, 8)}, [1])["noise_mask"].shape == (8, 8)


def test_entries_with_as_many_rows_are_cut_and_others_taken_along() -> None:
    latent = {"samples": samples(3), "depth": torch.arange(3), "names": ["a", "b", "c"], "type": "audio", "scale": 8}
    chosen = latent_rows(latent, [2, 1])
    assert chosen["depth"].tolist() == [2, 1]
    assert chosen["names"] == ["c", "b"]
    assert (chosen["type"], chosen["scale"]) == ("audio", 8)


def test_latents_with_time_are_rows_too() -> None:
    video = samples(3).unsqueeze(2).repeat(1, 1, 5, 1, 1)
    assert latent_rows({"samples": video}, [2])["samples"].shape == (1, 4, 5, 2, 3)


def test_rows_of_several_batches_of_one_size_become_one_batch() -> None:
    batches = [
        {"samples": samples(2), "noise_mask": torch.zeros(1, 1, 8, 8), "type": "a"},
        {"samples": samples(3, start=10), "noise_mask": torch.ones(1, 1, 8, 8), "type": "a"},
    ]
    (chosen,) = select_latents(batches, [4, 0, 2])
    assert values(chosen["samples"]) == [12, 0, 10]
    assert chosen["batch_index"] == [2, 0, 0]  # of the noise of each one's own batch
    assert values(chosen["noise_mask"]) == [1, 0, 1]
    assert chosen["type"] == "a"


@pytest.mark.parametrize(
    "other",
    [
        {"samples": samples(1, 5, 5)},
        {"samples": samples(1), "noise_mask": torch.zeros(1, 1, 8, 8)},
        {"samples": samples(1), "type": "audio"},
        {"samples": samples(1).half()},
    ],
)
def test_rows_that_do_not_fit_together_stay_apart(other: dict) -> None:
    first, second = select_latents([other, {"samples": samples(2, start=5)}], [2, 0])
    assert values(first["samples"]) == [6]
    assert second["samples"].shape == other["samples"].shape


def test_shared_entries_are_joined_only_if_equal() -> None:
    alike = [{"samples": samples(1), "scale": torch.tensor(8.0)}, {"samples": samples(1), "scale": torch.tensor(8.0)}]
    (joined,) = select_latents(alike, [0, 1])
    assert joined["scale"] == 8
    alike[1]["scale"] = torch.tensor(16.0)
    assert len(select_latents(alike, [0, 1])) == 2


def test_what_is_no_latent_is_refused() -> None:
    with pytest.raises(ValueError, match=r"latent with samples .* got NoneType"):
        latent_count({"noise_mask": torch.zeros(1)})
    with pytest.raises(ValueError, match="got Tensor"):
        latent_count({"samples": torch.zeros(3)})
    with pytest.raises(ValueError, match="one batch_index for each of 3 latents, got 2"):
        latent_rows({"samples": samples(3), "batch_index": [0, 1]}, [0])


def test_masks_of_every_shape_are_counted_through() -> None:
    masks = flattened_masks([torch.zeros(2, 4, 5), torch.ones(6, 7), torch.zeros(1, 1, 3, 3)])
    assert [tuple(mask.shape) for mask in masks] == [(4, 5), (4, 5), (6, 7), (3, 3)]
    with pytest.raises(ValueError, match=r"masks \[batch, height, width\], got \(2, 3, 4, 4\)"):
        flattened_masks([torch.zeros(2, 3, 4, 4)])
