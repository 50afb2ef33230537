"""A chat about pictures as tokens, for the processors of Qwen's vision-language models.

The picture's placeholder is a special token, at which any tokenizer cuts a text: so what stands before and after it can
be tokenized apart, once for all pictures.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import PIL.Image
import torch
from torch import Tensor

from ...compute.own_lock import OwnLock
from ...errors import MaAgiqaError, first_line
from .asking import Question

_KEPT = 4096  # questions whose tokens are remembered


@dataclass(frozen=True)
class PromptTokens:
    """The text of a chat around its pictures.

    Attributes:
        texts: Token ids before the first picture, between the pictures, and after the last one.
    """

    texts: tuple[tuple[int, ...], ...]


@dataclass(frozen=True, eq=False)
class PatchedPictures:
    """Pictures as the network takes them.

    Attributes:
        pixel_values: (patches, values) float32, of all pictures.
        grid: (pictures, 3) time, rows and columns of patches.
    """

    pixel_values: Tensor
    grid: Tensor


class QwenPrompts:
    """Renders a processor's chat template and tokenizes what comes out.

    Args:
        processor: Of a Qwen vision-language model.

    Raises:
        ValueError: It is another kind of processor, or its template takes no picture and question.
    """

    def __init__(self, processor: Any) -> None:
        self._processor = processor
        self._kept: dict[tuple[Question, int], PromptTokens] = {}
        self._tokenizing = OwnLock()
        self.merge: int = getattr(processor.image_processor, "merge_size", 0)
        self.image_token: str = getattr(processor, "image_token", "")
        tokenizer = processor.tokenizer
        found = tokenizer.convert_tokens_to_ids(self.image_token) if self.image_token else None
        if not self.merge or found is None or found == tokenizer.unk_token_id:
            raise MaAgiqaError(
                f"Expected the processor of a Qwen vision-language model, got {type(processor).__name__}. "
                "Check that all files of the model's repository are of one revision."
            )
        self.image_token_id: int = found
        self._check_against_processor()

    def tokens(self, question: Question, pictures: int = 1) -> PromptTokens:
        """One user turn, pictures first, then the text; the assistant's turn begins with the stem, tokenized apart."""
        key = question, pictures
        if key not in self._kept:
            if len(self._kept) >= _KEPT:
                self._kept.clear()
            texts = self._rendered(question.text, pictures).split(self.image_token)
            if len(texts) != pictures + 1:
                raise MaAgiqaError(
                    f"Expected no {self.image_token!r} in a prompt, got {question.text[:200]!r}. Leave it out."
                )
            ids = [self._ids(text, special=place == 0) for place, text in enumerate(texts)]
            if question.stem:
                ids[-1] += self._ids(question.stem)
            self._kept[key] = PromptTokens(tuple(map(tuple, ids)))
        return self._kept[key]

    def patches(self, images: list[PIL.Image.Image]) -> PatchedPictures:
        """Resized, normalised and cut into patches, as the processor's settings say."""
        inputs = self._processor.image_processor(images=images, return_tensors="pt")
        return PatchedPictures(inputs["pixel_values"], inputs["image_grid_thw"])

    def token_count(self, height: int, width: int) -> int:
        """How many tokens a picture becomes.

        Raises:
            ValueError: The processor refuses the shape.
        """
        patches = self._processor.image_processor.get_number_of_image_patches(height, width, {})
        return patches // self.merge**2

    def _rendered(self, text: str, pictures: int) -> str:
        content = [*({"type": "image"} for _ in range(pictures)), {"type": "text", "text": text}]
        return self._processor.apply_chat_template(
            [{"role": "user", "content": content}], add_generation_prompt=True, tokenize=False
        )

    def _ids(self, text: str, *, special: bool = False) -> list[int]:
        with self._tokenizing:
            return list(self._processor.tokenizer(text, add_special_tokens=special)["input_ids"])

    def _check_against_processor(self) -> None:
        """Our way of building a prompt must be the processor's."""
        picture, text = PIL.Image.new("RGB", (56, 84)), "Is it?"
        try:
            whole = self._processor(images=[picture], text=[self._rendered(text, 1)], return_tensors="pt")["input_ids"]
            patched = self.patches([picture])
            before, after = self.tokens(Question(text)).texts
        except Exception as error:  # a template or a processor may raise anything
            raise MaAgiqaError(
                f"Expected a processor and chat template that take a picture and a question, got {first_line(error)} "
                "Check that all files of the model's repository are of one revision."
            ) from error
        pads = [self.image_token_id] * int(patched.grid[0].prod() // self.merge**2)
        if whole[0].tolist() != [*before, *pads, *after]:
            raise MaAgiqaError(
                f"Expected a chat template with the picture as one {self.image_token!r}, got other tokens from "
                f"{type(self._processor).__name__}. Check that all files of the repository are of one revision."
            )


def as_image(pixels: Tensor) -> PIL.Image.Image:
    """uint8 (3, H, W) RGB as Pillow has it."""
    return PIL.Image.fromarray(pixels.movedim(0, -1).contiguous().cpu().numpy())


def resized_by_pillow(image: PIL.Image.Image, *, factor: int, least: int, most: int) -> PIL.Image.Image:
    """As qwen-vl-utils resizes before the processor does: sides in multiples of `factor`, bicubic, 8 bits between.

    Args:
        image: RGB.
        factor: Pixels of a token's side.
        least: Pixels of the result at least.
        most: Pixels of the result at most.

    Raises:
        ValueError: A side is more than 200 times the other.
    """
    from transformers.models.qwen2_vl.image_processing_qwen2_vl import smart_resize

    height, width = smart_resize(image.height, image.width, factor=factor, min_pixels=least, max_pixels=most)
    return image.resize((width, height), PIL.Image.Resampling.BICUBIC)


def padded(rows: list[list[int]], *, left: bool, value: int = 0) -> tuple[Tensor, Tensor]:
    """Rows of ids as one (B, L), and a mask (B, L) of what is no padding."""
    length = max(map(len, rows))
    ids = torch.full((len(rows), length), value, dtype=torch.long)
    mask = torch.zeros((len(rows), length), dtype=torch.long)
    for place, row in enumerate(rows):
        where = slice(length - len(row), length) if left else slice(0, len(row))
        ids[place, where] = torch.tensor(row, dtype=torch.long)
        mask[place, where] = 1
    return ids, mask
