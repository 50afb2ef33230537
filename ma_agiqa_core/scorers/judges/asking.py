"""What a vision-language judge is asked, and what stands between it and its network."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import torch
from torch import Tensor, nn


@dataclass(frozen=True)
class Question:
    """One question about a picture.

    Attributes:
        text: What the user says after the picture.
        stem: How the answer begins; what the model would say next is the answer.
    """

    text: str
    stem: str = ""


@dataclass(frozen=True, eq=False)
class AskedPicture:
    """A picture with all that is asked of it, so that it is looked at once.

    Attributes:
        pictures: uint8 (3, H, W) RGB: one, or several that the questions are about together.
        questions: At least one.
    """

    pictures: tuple[Tensor, ...]
    questions: tuple[Question, ...]


class Reader(Protocol):
    """A model that reads pictures and questions and gives a few numbers for each question, from which scores are made.

    Attributes:
        network: Holds the weights; computes wherever these are at each call, unless they were spread by a device map.
    """

    @property
    def network(self) -> nn.Module: ...

    def prepare(self, asked: AskedPicture) -> Any:
        """What `read` takes: the picture as the network takes it, on the CPU.

        Raises:
            ValueError: The model does not take this picture; the message says why.
        """
        ...

    def length(self, prepared: Any) -> int:
        """About how many tokens it has: pictures of about the same length are read together."""
        ...

    def read(self, batch: Sequence[Any]) -> Tensor:
        """Numbers (B, Q, K) float32 on the CPU for B prepared pictures with at most Q questions; behind the last
        question of a picture NaN."""
        ...


class AskedModel(Protocol):
    """A reader with what a judge must know of its model; `LazyReader` and `HeldReader` are such.

    Attributes:
        name: Of the model.
        dtype: What it computes in.
        quantization: None, "int8" or "nf4".
        quantized_by: The library that did it.
    """

    name: str
    dtype: torch.dtype
    quantization: str | None
    quantized_by: str | None

    def answers(self, asked: Sequence[AskedPicture], batch_size: int | None) -> list[Tensor | str]:
        """For every picture the numbers (Q, K) of its questions, or why the model does not take it."""
        ...

    def identity(self, dtype: torch.dtype) -> str:
        """What the answers depend on besides picture and question."""
        ...

    def why_not_finite(self) -> str:
        """What to do about an answer that is NaN or infinite."""
        ...
