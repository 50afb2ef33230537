"""Cutting rows out of whatever holds them: tensors, scheduler and guider history, caches of keys and values."""

from collections import deque
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor


def indices(rows: Sequence[int], total: int, multiple: int) -> list[int]:
    """These rows in each of `multiple` blocks of `total`."""
    return [block * total + row for block in range(multiple) for row in rows]


def select(tensor: Tensor, rows: Sequence[int], axis: int = 0) -> Tensor:
    """These entries of one dimension, as a tensor of their own: the whole one can be freed."""
    return tensor.index_select(axis, torch.tensor(rows, device=tensor.device))


def cut_history(value: Any, shape: torch.Size, positions: list[int]) -> Any:
    """The value with every tensor of this whole shape cut, the same object where there is none."""
    if isinstance(value, Tensor):
        return select(value, positions) if value.shape == shape else value
    if isinstance(value, list | tuple | deque):
        entries = [cut_history(entry, shape, positions) for entry in value]
        if all(new is old for new, old in zip(entries, value, strict=True)):
            return value
        if isinstance(value, deque):
            return deque(entries, value.maxlen)
        return type(value)(entries)
    if isinstance(value, dict):
        changed = {key: cut_history(entry, shape, positions) for key, entry in value.items()}
        return value if all(changed[key] is value[key] for key in value) else changed
    return value


def cut_state(holder: Any, shape: torch.Size, positions: list[int]) -> None:
    """Cuts the history among an object's attributes, and among those of its momentum buffers (guiders)."""
    state = vars(holder)
    for name, value in list(state.items()):
        if name == "_internal_dict":  # the configuration
            continue
        if hasattr(value, "running_average"):
            value.running_average = cut_history(value.running_average, shape, positions)
            continue
        cut = cut_history(value, shape, positions)
        if cut is not value:
            state[name] = cut


def check_cache(name: str, cache: Any, rows: int) -> None:
    """Refuses a cache that holds another number of rows.

    Raises:
        RuntimeError: Nothing has been changed then.
    """
    for tensor in _tensors(cache):
        if len(tensor) not in (rows, 2 * rows):
            raise RuntimeError(
                f"Expected {name} of the pipeline's loop to hold {rows} or {2 * rows} rows, got {len(tensor)}. "
                "Something else changes the batch: take it out of the call."
            )


def cut_cache(cache: Any, rows: int, positions: list[int]) -> None:
    """Cuts every tensor of a cache in place; its first dimension is the rows, once or twice (guidance)."""
    for holder, key, tensor in _slots(cache):
        holder[key] = select(tensor, indices(positions, rows, len(tensor) // rows))


def _slots(cache: Any) -> list[tuple[Any, Any, Tensor]]:
    """Where the tensors of a cache lie: in attributes, lists and dicts, however deep."""
    if cache is None or isinstance(cache, str | int | float | bool | Tensor):
        return []
    holder = cache if isinstance(cache, dict | list) else vars(cache)
    entries = holder.items() if isinstance(holder, Mapping) else enumerate(holder)
    found: list[tuple[Any, Any, Tensor]] = []
    for key, value in list(entries):
        if isinstance(value, Tensor):
            found.append((holder, key, value))
        elif isinstance(value, dict | list) or hasattr(value, "__dict__"):
            found += _slots(value)
    return found


def _tensors(cache: Any) -> list[Tensor]:
    return [tensor for _, _, tensor in _slots(cache)]
