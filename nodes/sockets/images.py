"""ComfyUI's IMAGE in and out: batches [B, H, W, C] and lists of them, float in 0..1, as single pictures.

A picture's number is its place among all pictures in the order they came, from 0. Pictures travel through a node
unchanged, alpha included; only what a scorer sees is made RGB in 0..1 (`for_core`).
"""

from collections.abc import Sequence
from typing import Any

import PIL.Image
import torch
from comfy_execution.graph_utils import ExecutionBlocker
from torch import Tensor

from .videos import first_frame, is_video


def one(values: Any, name: str) -> Any:
    """The single value of an input of a node that gets every input as a list; None where nothing is connected.

    Raises:
        ValueError: A list of several different values is connected.
    """
    if not isinstance(values, list | tuple):
        return values
    if not values:
        return None
    if any(value is not values[0] and value != values[0] for value in values[1:]):
        raise ValueError(f"Expected one value for '{name}', got a list of {len(values)}. Connect a single one.")
    return values[0]


def prompts_for(values: Any, count: int, batches: Sequence[int] = ()) -> str | list[str] | None:
    """The prompt of all pictures, or one for each; None where there is none.

    Args:
        values: The input 'prompt' of a node that gets every input as a list.
        count: How many pictures there are.
        batches: How many pictures each of their batches has: a prompt for each batch is one for all its pictures.

    Raises:
        ValueError: Neither one prompt nor one for each picture or batch.
    """
    texts = [text or "" for text in values] if isinstance(values, list | tuple) else [values or ""]
    if not any(text.strip() for text in texts):
        return None
    if len(texts) == len(batches) and len(texts) not in (1, count):
        return [text for text, size in zip(texts, batches, strict=True) for _ in range(size)]
    if len(texts) not in (1, count):
        raise ValueError(
            f"Expected one prompt, or one for each of {count} pictures, got {len(texts)}. "
            "Connect a single text, or a list as long as the list of images."
        )
    return texts if len(texts) == count and count > 1 else texts[0]


def batch_sizes(images: Any) -> list[int]:
    """How many pictures each item of an IMAGE input has, which `flattened` has accepted."""
    batches = [batch for batch in (images if isinstance(images, list | tuple) else [images]) if batch is not None]
    return [len(batch) if isinstance(batch, Tensor) and batch.ndim == 4 else 1 for batch in batches]


def flattened(images: Any, numbers: Sequence[int] | None = None) -> list[Tensor]:
    """All pictures of an IMAGE input, in input order.

    Args:
        images: A batch [B, H, W, C], or a list of batches, which may differ in size. Of a video the first frame.
        numbers: What the pictures are called; None counts them from 0.

    Returns:
        Pictures [H, W, C] with 1, 3 or 4 channels, as they came.

    Raises:
        ValueError: No picture at all, something that is not a batch of pictures, or pixels that are NaN or infinite.
    """
    batches = [batch for batch in (images if isinstance(images, list | tuple) else [images]) if batch is not None]
    batches = [first_frame(batch) if is_video(batch) else batch for batch in batches]
    pictures: list[Tensor] = []
    for batch in batches:
        if not isinstance(batch, Tensor) or batch.ndim not in (3, 4) or batch.shape[-1] not in (1, 3, 4):
            got = f"a tensor {tuple(batch.shape)}" if isinstance(batch, Tensor) else type(batch).__name__
            raise ValueError(f"Expected images [batch, height, width, 3], got {got}. Connect an IMAGE output.")
        pictures.extend(batch if batch.ndim == 4 else [batch])
    if not pictures:
        raise ValueError("Expected at least one picture, got an empty batch. Check the node that makes the images.")
    for number, picture in zip(numbers or range(len(pictures)), pictures, strict=True):
        if 0 in picture.shape:
            raise ValueError(f"Expected pictures with a height and a width, got {tuple(picture.shape)} as {number}.")
        # a sum is NaN or infinite if any pixel is; in float32, since a half overflows
        if not torch.isfinite(picture.sum(dtype=torch.float32)):
            raise ValueError(
                f"Expected pixels between 0 and 1, got NaN or infinite ones in picture {number} (the first is 0). "
                "Often a VAE in half precision makes them: use another VAE, or start ComfyUI with --fp32-vae."
            )
    return pictures


def for_core(pictures: Sequence[Tensor]) -> list[Tensor]:
    """Pictures as scorers take them: RGB in 0..1, alpha over white, values outside clipped as in a saved file.

    Returns:
        (3, H, W) float32 each, views of what came where that is so already: copies of a batch at 1024 px would take
        longer than all the rest here.
    """
    return [_as_rgb(picture) for picture in pictures]


def as_image_output(pictures: Sequence[Tensor]) -> list[Tensor] | ExecutionBlocker:
    """Pictures [H, W, C] as the value of an output with `is_output_list=True`.

    Returns:
        One batch [B, H, W, C] where all have one size, else a batch of one for each. Without pictures a single blocker
        for the whole output: the nodes connected to it are skipped silently, and the rest of the graph runs.
    """
    if not pictures:
        return ExecutionBlocker(None)
    if len({picture.shape for picture in pictures}) == 1:
        return [torch.stack(list(pictures))]
    return [picture[None] for picture in pictures]


def unchanged(images: Any, pictures: Sequence[Tensor]) -> list[Tensor] | ExecutionBlocker:
    """`as_image_output` of all pictures of an IMAGE input; a single batch is passed on without a copy."""
    batches = images if isinstance(images, list | tuple) else [images]
    is_batch = len(batches) == 1 and isinstance(batches[0], Tensor) and batches[0].ndim == 4
    return [batches[0]] if is_batch else as_image_output(pictures)


def as_pil(picture: Tensor) -> PIL.Image.Image:
    """One picture [H, W, C] as ComfyUI saves it, alpha included."""
    pixels = (picture.float() * 255).clamp_(0, 255).byte().cpu()  # another copy would take as long as all the rest
    return PIL.Image.fromarray((pixels if pixels.shape[-1] > 1 else pixels.expand(-1, -1, 3)).numpy())


def _as_rgb(picture: Tensor) -> Tensor:
    """[H, W, C] -> (3, H, W) float32 in 0..1."""
    pixels = picture.float()
    low, high = pixels.aminmax()
    if low < 0 or high > 1:
        pixels = pixels.clamp(0, 1)
    if pixels.shape[-1] == 4:
        alpha = pixels[..., 3:]
        pixels = pixels[..., :3] * alpha + (1 - alpha)
    return pixels.expand(*pixels.shape[:-1], 3).movedim(-1, 0)
