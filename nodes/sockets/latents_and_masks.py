"""The LATENT and MASK that belong to chosen pictures: counted on the way in, put together on the way out."""

from collections.abc import Sequence
from typing import Any

import torch
from comfy_execution.graph_utils import ExecutionBlocker

from ...ma_agiqa_core.comfyui.latents import flattened_masks, latent_count, select_latents
from .images import as_image_output


def latents_for(latents: Any, count: int) -> list[dict[str, Any]] | None:
    """What is connected to 'latent', None if nothing.

    Raises:
        ValueError: Not as many latents as there are pictures.
    """
    if latents is None:
        return None
    _check("latents", "LATENT that these pictures were decoded from", sum(map(latent_count, latents)), count)
    return latents


def masks_for(masks: Any, count: int) -> list[torch.Tensor] | None:
    """What is connected to 'mask' as single masks (H, W), None if nothing.

    Raises:
        ValueError: Not as many masks as there are pictures.
    """
    if masks is None:
        return None
    single = flattened_masks(masks)
    _check("masks", "MASK with one entry for each picture", len(single), count)
    return single


def as_latent_output(latents: list[dict[str, Any]] | None, kept: Sequence[int]) -> list[Any] | ExecutionBlocker:
    """The kept latents: one LATENT where they fit together, else one each."""
    if latents is None:
        return _unconnected("latent")
    return skipped_if_empty(select_latents(latents, kept) if kept else None)


def as_mask_output(masks: list[torch.Tensor] | None, kept: Sequence[int]) -> list[Any] | ExecutionBlocker:
    """The kept masks: one MASK [B, H, W] where their sizes are equal, else one each."""
    if masks is None:
        return _unconnected("mask")
    return as_image_output([masks[index] for index in kept])


def skipped_if_empty(value: Any) -> Any:
    """The value of an output; without one, the nodes connected to it are skipped silently."""
    return value or ExecutionBlocker(None)


def _check(name: str, what: str, got: int, count: int) -> None:
    if got != count:
        raise ValueError(f"Expected as many {name} as pictures, {count}, got {got}. Connect the {what}.")


def _unconnected(name: str) -> ExecutionBlocker:
    """Not silent: the output is used although the input was forgotten."""
    return ExecutionBlocker(f"nothing is connected to the input '{name}' of Select Best Images. Connect it.")
