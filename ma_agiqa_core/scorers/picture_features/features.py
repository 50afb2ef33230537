"""What all kinds of picture features have in common."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator, Mapping, Sequence

import torch
from torch import Tensor

from ...pictures.groups import grouped
from ...pictures.inputs import Picture


class PictureFeatures(ABC):
    """Describes pictures by columns of numbers that stay as they are while something is learned on them.

    Attributes:
        source: As `load_features` takes it, e.g. "lite" or "clip:/models/clip"; the files by their absolute path.
        revision: Which weights and formulas; another revision gives other numbers.
        parts: Widths of the parts of a description, by name and in order. Each has the same say, however wide it is.
        has_common_scale: All columns have one scale, as embeddings do; else each has its own.
    """

    source: str
    revision: str
    parts: Mapping[str, int]
    has_common_scale: bool

    @abstractmethod
    def describe_group(self, pictures: Sequence[Picture], batch_size: int | None) -> list[Tensor | str]:
        """For each decoded picture (D,) float32 on the CPU, whatever else is in the group; or why there is none."""
        ...

    @property
    @abstractmethod
    def networks(self) -> tuple[torch.nn.Module, ...]:
        """What holds the weights; it computes wherever these are."""
        ...

    def describe(self, pictures: Iterable[Picture], batch_size: int | None = None) -> Iterator[Tensor | str]:
        """For every picture in order its description, or why there is none."""
        for group in grouped(pictures):
            described = iter(self.describe_group([picture for picture in group if picture.error is None], batch_size))
            yield from (next(described) if picture.error is None else picture.error for picture in group)


def unit_range(picture: Picture, device: torch.device) -> Tensor:
    """The pixels of a decoded picture: (3, H, W) float32 in [0, 1]."""
    assert picture.pixels is not None  # those that cannot be read are told before
    pixels = picture.pixels.to(device)
    return pixels if pixels.is_floating_point() else pixels.float() / 255
