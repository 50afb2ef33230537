"""Rows of a batch of latents or masks, with all that belongs to them.

A latent is a mapping as in ComfyUI: "samples" (B, C, H, W) or, with time, (B, C, T, H, W); optionally
"noise_mask", whose rows are repeated in turn if it has fewer than B; optionally "batch_index", which noise of the seed
each row started from.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import torch

from ..errors import MaAgiqaError

Latent = Mapping[str, Any]


def latent_rows(latent: Latent, rows: Sequence[int]) -> dict[str, Any]:
    """Some rows of a latent, in the given order.

    Every other entry with as many rows is cut likewise, and the rest is taken along as it is. "batch_index" is always
    there: without one, a row's index is its place.

    Raises:
        ValueError: "samples" is not a plain tensor with rows, or "batch_index" has another number of them.

    Example:
        >>> rows = latent_rows({"samples": torch.zeros(4, 4, 8, 8)}, [2, 0])
        >>> rows["samples"].shape, rows["batch_index"]
        (torch.Size([2, 4, 8, 8]), [2, 0])
    """
    samples = _samples(latent)
    count = len(samples)
    chosen = {key: _rows_of(value, rows, count) for key, value in latent.items()}
    if (mask := latent.get("noise_mask")) is not None:
        shared = mask.ndim < 3 or len(mask) == 1
        chosen["noise_mask"] = mask.clone() if shared else mask[[row % len(mask) for row in rows]]
    given = latent.get("batch_index")  # a list in ComfyUI, a tensor in some packs
    batch_index = list(range(count)) if given is None or not len(given) else [int(index) for index in given]
    if len(batch_index) != count:
        raise MaAgiqaError(
            f"Expected one batch_index for each of {count} latents, got {len(batch_index)}. "
            "A node before this one has cut the batch without it: connect the latent directly."
        )
    chosen["batch_index"] = [batch_index[row] for row in rows]
    return chosen


def select_latents(latents: Sequence[Latent], indexes: Sequence[int]) -> list[dict[str, Any]]:
    """Rows out of several batches that are counted through.

    Returns:
        One latent with all of them, in the order of `indexes`, where they fit together; else one latent for each.

    Raises:
        ValueError: As for `latent_rows`.

    Example:
        >>> batches = [{"samples": torch.zeros(2, 4, 8, 8)}, {"samples": torch.ones(1, 4, 8, 8)}]
        >>> (chosen,) = select_latents(batches, [2, 0])
        >>> chosen["samples"].mean(dim=(1, 2, 3)).tolist()
        [1.0, 0.0]
    """
    if len(latents) == 1:
        return [latent_rows(latents[0], indexes)]
    places = [(latent, row) for latent in latents for row in range(latent_count(latent))]
    singles = [latent_rows(places[index][0], [places[index][1]]) for index in indexes]
    return [_joined(singles)] if _fit_together(singles) else singles


def latent_count(latent: Latent) -> int:
    """How many rows a latent has.

    Raises:
        ValueError: As for `latent_rows`.
    """
    return len(_samples(latent))


def flattened_masks(masks: Sequence[torch.Tensor]) -> list[torch.Tensor]:
    """Masks (H, W) of all batches (B, H, W) or (B, 1, H, W) and single masks (H, W), in order.

    Raises:
        ValueError: Something else.
    """
    single: list[torch.Tensor] = []
    for batch in masks:
        if isinstance(batch, torch.Tensor) and batch.ndim == 4 and batch.shape[1] == 1:
            batch = batch[:, 0]
        if not isinstance(batch, torch.Tensor) or batch.ndim not in (2, 3):
            got = tuple(batch.shape) if isinstance(batch, torch.Tensor) else type(batch).__name__
            raise MaAgiqaError(f"Expected masks [batch, height, width], got {got}. Connect a MASK output.")
        single.extend(batch if batch.ndim == 3 else [batch])
    return single


def _samples(latent: Latent) -> torch.Tensor:
    samples = latent.get("samples") if isinstance(latent, Mapping) else None
    if getattr(samples, "is_nested", False):
        raise MaAgiqaError(
            "Expected a latent of pictures, got a nested one, which holds a video and its sound together. Separate the "
            "two, and connect the video's."
        )
    if not isinstance(samples, torch.Tensor) or samples.ndim < 3:
        raise MaAgiqaError(
            f"Expected a latent with samples [batch, channels, height, width], got {type(samples).__name__}. "
            "Connect the LATENT that the pictures were decoded from."
        )
    return samples


def _rows_of(value: Any, rows: Sequence[int], count: int) -> Any:
    if isinstance(value, torch.Tensor) and value.ndim > 0 and len(value) == count:
        return value[list(rows)]
    if isinstance(value, list | tuple) and len(value) == count:
        return type(value)(value[row] for row in rows)
    return value


def _fit_together(latents: Sequence[Mapping[str, Any]]) -> bool:
    first = latents[0]
    return all(
        latent.keys() == first.keys() and all(map(_alike, latent.values(), first.values())) for latent in latents
    )


def _alike(one: Any, other: Any) -> bool:
    if isinstance(one, torch.Tensor) and isinstance(other, torch.Tensor):
        same_kind = one.shape == other.shape and one.dtype == other.dtype and one.device == other.device
        return same_kind and (_is_row(one) or torch.equal(one, other))
    return (isinstance(one, list) and isinstance(other, list)) or one is other or bool(one == other)


def _is_row(value: Any) -> bool:
    return isinstance(value, torch.Tensor) and value.ndim > 0 and len(value) == 1


def _joined(latents: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    joined = dict(latents[0])
    for key, value in latents[0].items():
        if _is_row(value):
            joined[key] = torch.cat([latent[key] for latent in latents])
        elif isinstance(value, list):
            joined[key] = [entry for latent in latents for entry in latent[key]]
    return joined
