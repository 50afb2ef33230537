"""Which candidates may share a pipeline call.

A candidate is to be the picture of its seed alone. Most pipelines compute each row as if it were alone; where one does
not, or where this was not checked, every candidate gets a call of its own, which is right everywhere and only slower.
"""

import inspect
from collections.abc import Mapping
from typing import Any

from .families import family_of
from .schedulers import UnsupportedPipelineError

ROWS_ARGUMENTS = ("num_images_per_prompt", "num_videos_per_prompt")
PICTURES = ("image", "mask_image", "control_image")
ONE_PICTURE_ARGUMENTS = ("masked_image_latents", "padding_mask_crop")
"""With these diffusers takes no list of pictures."""
# SDXL, its ControlNet and Kolors join negative and positive time ids before they repeat them, so that the rows of a
# batch get each other's halves. Their offspring do the same; only the negative sizes make the halves unlike.
_UNLIKE_HALVES = ("negative_original_size", "negative_target_size")
# These do not repeat the vectors of a prompt, or not all of them, for several pictures.
_WITHOUT_REPEATED_VECTORS = ("StableDiffusion3", "Kolors", "Chroma", "CogView4", "Lumina2")


# It repeats the picture itself; only the masks are to be as many as the rows.
_ONE_PICTURE = ("ZImageControlNetInpaintPipeline",)
# It shows the picture to its text encoder, which takes one for each prompt, and encodes it by the first generator.
_ONE_ROW = ("QwenImageEditInpaintPipeline",)


def rows_argument(pipe: Any, arguments: Mapping[str, Any]) -> str | None:
    """The pipeline's argument for the number of pictures per prompt; None to make one picture a call."""
    if apart(pipe, arguments):
        return None
    known = inspect.signature(type(pipe).__call__).parameters
    return next((name for name in ROWS_ARGUMENTS if name in known), None)


def apart(pipe: Any, arguments: Mapping[str, Any]) -> tuple[str, ...]:
    """The arguments because of which every candidate needs a call of its own."""
    given = [name for name, value in arguments.items() if value is not None]
    names = [name for name in ONE_PICTURE_ARGUMENTS if name in given]
    if all(name in given for name in _UNLIKE_HALVES):
        names += _UNLIKE_HALVES
    is_known = _is_known(pipe)
    if not is_known or type(pipe).__name__.startswith(_WITHOUT_REPEATED_VECTORS):
        names += [name for name in given if name.endswith("prompt_embeds")]
    if not is_known or type(pipe).__name__ in _ONE_ROW:
        names += [name for name in PICTURES if name in given]
    return tuple(names)


def pictures_per_row(pipe: Any, arguments: Mapping[str, Any]) -> tuple[str, ...]:
    """Names of the pictures that candidates begin with; they are to be given once for every row."""
    kind = type(pipe).__name__
    if not any(word in kind for word in ("Img2Img", "Inpaint", "Fill")):
        return ()
    if arguments.get("padding_mask_crop") is not None:  # takes no list; then there is only one row a call
        return ()
    names = ("mask_image",) if kind in _ONE_PICTURE else ("image", "mask_image")
    return tuple(name for name in names if arguments.get(name) is not None)


def _is_known(pipe: Any) -> bool:
    try:
        family_of(pipe)
    except UnsupportedPipelineError:
        return False
    return True
