"""Finished candidates in the forms that pipelines give them: pictures, and videos of several frames."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import PIL.Image
import torch

from ...errors import MaAgiqaError


def pictures_of(output: Any) -> list[Any]:
    """One picture per row of a pipeline's output; of a video pipeline its only frame, or all of its frames."""
    if hasattr(output, "images"):
        return list(output.images)
    return [row[0] if len(row) == 1 else row for row in output.frames]


def is_video(picture: Any) -> bool:
    """Whether this has frames: a list of pictures, or (F, ...) of them."""
    return isinstance(picture, list | tuple) or getattr(picture, "ndim", 0) == 4


def frames_of(picture: Any, wanted: Sequence[int]) -> list[PIL.Image.Image]:
    """What is judged of a finished candidate: the picture, or of a video these frames.

    Raises:
        ValueError: The video is shorter.
    """
    if not is_video(picture):
        return [as_pil(picture)]
    if max(wanted) >= len(picture):
        raise MaAgiqaError(f"Expected frames from 0 to {len(picture) - 1}, got {max(wanted)}. The video has no more.")
    return [as_pil(picture[frame]) for frame in wanted]


def repeated(picture: Any, rows: int) -> Any:
    """One picture, in whatever form a pipeline takes it, as many times."""
    if getattr(picture, "ndim", 0) == 4:
        return picture.repeat(rows, 1, 1, 1) if isinstance(picture, torch.Tensor) else np.repeat(picture, rows, axis=0)
    return (list(picture) if isinstance(picture, list | tuple) else [picture]) * rows


def as_pil(picture: Any) -> PIL.Image.Image:
    """Any picture of a pipeline or a preview as the 8 bits a channel that a file will have.

    Args:
        picture: PIL, (H, W, 3) float in [0, 1] or uint8, or a tensor (3, H, W) in [0, 1].
    """
    if isinstance(picture, PIL.Image.Image):
        return picture
    if isinstance(picture, torch.Tensor):
        picture = picture.float().movedim(0, -1).cpu().numpy()
    if picture.dtype != np.uint8:
        picture = (picture.clip(0, 1) * 255).round().astype(np.uint8)  # as diffusers' numpy_to_pil does
    return PIL.Image.fromarray(picture)
