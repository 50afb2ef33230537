"""Batches as large as memory allows, found out once."""

import threading
from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import dataclass
from typing import TypeVar, overload

import torch
from torch import Tensor

from ..errors import MaAgiqaError

FIRST_SIZE = {"cuda": 8}
FIRST_SIZE_ELSEWHERE = 4  # larger batches are no faster on a processor
LARGEST_SIZE = {"cuda": 64}  # elsewhere batches do not grow: where memory is swapped, nothing says that it ran out

T = TypeVar("T")


@dataclass
class _Fit:
    """What is known about one kind of work on one device: the batch to try next, and whether it may grow."""

    size: int
    largest: int


_fits: dict[tuple[str, Hashable], _Fit] = {}
_lock = threading.Lock()


def is_out_of_memory(error: BaseException) -> bool:
    """CUDA, MPS and the CPU allocator say it in their own words, most of them in a plain RuntimeError."""
    return isinstance(error, MemoryError) or any(
        words in str(error).lower() for words in ("out of memory", "can't allocate memory", "not enough memory")
    )


@overload
def run_in_batches(
    items: Sequence[T],
    run: Callable[[Sequence[T]], Tensor],
    *,
    device: str | torch.device,
    what: Hashable,
    batch_size: int | None = None,
) -> Tensor: ...
@overload
def run_in_batches(
    items: Sequence[T],
    run: Callable[[Sequence[T]], Mapping[str, Tensor]],
    *,
    device: str | torch.device,
    what: Hashable,
    batch_size: int | None = None,
) -> dict[str, Tensor]: ...
def run_in_batches(
    items: Sequence[T],
    run: Callable[[Sequence[T]], Tensor | Mapping[str, Tensor]],
    *,
    device: str | torch.device,
    what: Hashable,
    batch_size: int | None = None,
) -> Tensor | dict[str, Tensor]:
    """Runs all items through `run`, as many at a time as fit into memory.

    On CUDA full batches double until memory runs out or 64 are reached. Where memory runs out, a batch is halved
    and tried again; what then fits is remembered in this process, and batches of this kind grow no further.

    Args:
        items: At least one.
        run: Makes one row per item, the same whatever else is in the batch.
        device: Where `run` computes.
        what: The kind of work: the same for items that need about the same memory.
        batch_size: Never more than this at a time.

    Returns:
        The rows of all items in order: a tensor, or a dict of tensors, as `run` gives them.

    Raises:
        ValueError: No items, or `run` gave another number of rows than it got items.
        RuntimeError: Out of memory with a single item, or whatever else `run` raises.
    """
    if not items:
        raise MaAgiqaError("Expected at least one item, got none.")
    device = torch.device(device)
    fit = _fit(device, what)
    parts: list[Tensor | Mapping[str, Tensor]] = []
    done = 0
    while done < len(items):
        batch = items[done : done + min(fit.size, batch_size or fit.size)]
        result, size = _largest_that_fits(batch, run, device)
        _remember(fit, tried=len(batch), fitted=size)
        parts.append(result)
        done += size
    return _concatenated(parts)


def _fit(device: torch.device, what: Hashable) -> _Fit:
    first = FIRST_SIZE.get(device.type, FIRST_SIZE_ELSEWHERE)
    with _lock:
        return _fits.setdefault((str(device), what), _Fit(first, LARGEST_SIZE.get(device.type, first)))


def _largest_that_fits(
    batch: Sequence[T], run: Callable[[Sequence[T]], Tensor | Mapping[str, Tensor]], device: torch.device
) -> tuple[Tensor | Mapping[str, Tensor], int]:
    """The result for the first items of a batch, and how many these are."""
    size = len(batch)
    while True:
        try:
            result = run(batch[:size])
        except (MemoryError, RuntimeError) as error:
            if size == 1 or not is_out_of_memory(error):
                raise
        else:
            rows = {len(values) for values in (result.values() if isinstance(result, Mapping) else [result])}
            if rows != {size}:
                raise MaAgiqaError(f"Expected {size} rows for {size} items, got {sorted(rows)}.")
            return result, size
        size //= 2
        if device.type == "cuda":  # out here: the error, and with it the tensors of its frames, is gone
            torch.cuda.empty_cache()


def _remember(fit: _Fit, tried: int, fitted: int) -> None:
    """Learns from what fitted only: one item too large for the device says nothing about batches of others."""
    with _lock:
        if fitted < tried:
            fit.size = fit.largest = min(fit.largest, fitted)
        elif fitted == fit.size:
            fit.size = min(2 * fit.size, fit.largest)


def _concatenated(parts: Sequence[Tensor | Mapping[str, Tensor]]) -> Tensor | dict[str, Tensor]:
    if isinstance(parts[0], Tensor):
        return torch.cat([part for part in parts if isinstance(part, Tensor)])
    return {name: torch.cat([part[name] for part in parts if isinstance(part, Mapping)]) for name in parts[0]}
