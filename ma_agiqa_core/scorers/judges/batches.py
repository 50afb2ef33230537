"""Asks a reader about pictures, as many at a time as fit into memory, those of about one length together."""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from typing import Any

import torch
from torch import Tensor

from ...compute.batching import run_in_batches
from ...compute.progress import tick
from ...errors import MaAgiqaError, first_line
from .asking import AskedPicture, Reader

QUESTIONS_AT_ONCE = 16
"""About one picture: more are asked in several rounds, so that a batch of them has a size that is known."""


def asked_in_batches(
    reader: Reader, asked: Sequence[AskedPicture], batch_size: int | None, *, device: torch.device, kind: Hashable
) -> list[Tensor | str]:
    """For every picture the numbers (Q, K) of its questions, or why the model does not take it.

    Args:
        reader: Where it is to compute.
        asked: Pictures with their questions.
        batch_size: Pictures at a time at most; None finds out how many fit.
        device: Where it computes.
        kind: The model and its precision: what fitted is remembered for it.
    """
    found: list[Tensor | str] = [""] * len(asked)
    prepared: list[tuple[int, Any]] = []
    for place, one in enumerate(asked):
        try:
            prepared.append((place, reader.prepare(one)))
        except MaAgiqaError as error:
            found[place] = first_line(error).rstrip(".")
            tick(1)
        except (ValueError, ZeroDivisionError, RuntimeError) as error:  # e.g. 1 pixel high, 5000 wide
            height, width = one.pictures[0].shape[1:]
            found[place] = f"its shape, {width} × {height}, is refused: {first_line(error).rstrip('.')}"
            tick(1)
    if not prepared:
        return found
    most = max(len(one.questions) for one in asked)
    prepared.sort(key=lambda entry: reader.length(entry[1]))  # little padding

    def read(batch: Sequence[tuple[int, Any]]) -> Tensor:
        numbers = reader.read([entry for _, entry in batch])
        tick(len(batch))
        nothing = numbers.new_full((len(batch), most - numbers.shape[1], numbers.shape[2]), torch.nan)
        return torch.cat([numbers, nothing], 1)

    numbers = run_in_batches(prepared, read, device=device, what=(kind, most), batch_size=batch_size)
    for (place, _), row in zip(prepared, numbers, strict=True):
        found[place] = row[: len(asked[place].questions)].clone()
    return found
