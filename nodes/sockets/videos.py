"""ComfyUI's VIDEO where pictures are scored: its first frame stands for it."""

from typing import Any

from comfy_api.latest import InputImpl
from torch import Tensor

_SECONDS = 1.0  # so much is read of a file: all of it may take gigabytes


def is_video(value: Any) -> bool:
    """Whether this is what VIDEO links carry."""
    return hasattr(value, "get_components")


def first_frame(video: Any) -> Tensor:
    """A batch of one picture [1, H, W, C] in 0..1.

    Raises:
        ValueError: It has no frame.
    """
    begun = None
    if isinstance(video, InputImpl.VideoFromFile) and hasattr(video, "as_trimmed"):  # of newer versions of ComfyUI
        begun = video.as_trimmed(0, _SECONDS, strict_duration=False)
    frames = (begun or video).get_components().images
    if not len(frames):
        raise ValueError("Expected a video with at least one frame, got an empty one. Check the node that gives it.")
    return frames[:1]
