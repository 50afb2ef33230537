"""Decoded pictures as a scorer of somebody else's takes them: what was given, and files as PIL images."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

import PIL.Image
from torch import Tensor

from .inputs import Picture


@dataclass(frozen=True, eq=False)
class BatchRow:
    """One picture of a tensor (B, 3, H, W): `Picture.given` where pictures were given so."""

    batch: Tensor
    row: int


def is_batch(images: object) -> bool:
    """Whether pictures are given as one tensor (B, 3, H, W)."""
    return isinstance(images, Tensor) and images.ndim == 4


def of_batch(pictures: Iterable[Picture], batch: Tensor) -> Iterator[Picture]:
    """The pictures of a tensor (B, 3, H, W), each knowing its row."""
    return (replace(picture, given=BatchRow(batch, picture.index)) for picture in pictures)


def as_given(pictures: Sequence[Picture]) -> list[Any] | Tensor:
    """What a function gets: neighbouring rows of one batch as a batch, files as PIL RGB images, all else as it was."""
    rows = [picture.given for picture in pictures if isinstance(picture.given, BatchRow)]
    if rows and len(rows) == len(pictures):
        return rows[0].batch[rows[0].row : rows[-1].row + 1]
    return [_opened(picture) for picture in pictures]


def _opened(picture: Picture) -> Any:
    if picture.path is None or picture.pixels is None:
        return picture.given
    return PIL.Image.fromarray(picture.pixels.movedim(0, -1).numpy())
