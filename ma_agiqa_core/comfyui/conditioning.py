"""Rows of ComfyUI's conditioning: what belongs to some of the candidates of a batch.

A conditioning is a list of [tensor, options]. Tensors with one row hold for all candidates; with several, row i
belongs to candidate i, and they are repeated in turn where they are fewer, as ComfyUI's sampler does it.
"""

from collections.abc import Mapping, Sequence
from typing import Any

from torch import Tensor

from ..errors import MaAgiqaError

Conditioning = Sequence[Sequence[Any]]

_RESIZED = "concat_"  # these are stretched to the batch instead of repeated


def conditioning_rows(conditioning: Conditioning, rows: Sequence[int], count: int) -> list[list[Any]]:
    """The part of a conditioning for `count` candidates that belongs to some of them.

    Args:
        conditioning: Not changed.
        rows: Places in the batch, from 0.
        count: How many candidates there are in all.

    Raises:
        ValueError: Rows that cannot be taken apart: a ControlNet with several pictures.

    Example:
        >>> import torch
        >>> texts = [[torch.zeros(4, 77, 768), {"pooled_output": torch.zeros(4, 768)}]]
        >>> ((tensor, options),) = conditioning_rows(texts, [1, 3], count=4)
        >>> tensor.shape, options["pooled_output"].shape
        (torch.Size([2, 77, 768]), torch.Size([2, 768]))
    """
    return [
        [_rows_of(tensor, "conditioning", rows, count), {k: _rows_of(v, k, rows, count) for k, v in options.items()}]
        for tensor, options in conditioning
    ]


def converted_rows(conds: Sequence[Mapping[str, Any]], rows: Sequence[int], count: int) -> list[dict[str, Any]]:
    """The same of a conditioning as ComfyUI's guiders hold it: the tensor among the options.

    Args:
        conds: Not changed.
        rows: Places in the batch, from 0.
        count: How many candidates there are in all.

    Raises:
        ValueError: Rows that cannot be taken apart: a ControlNet with several pictures.

    Example:
        >>> import torch
        >>> (cond,) = converted_rows([{"cross_attn": torch.zeros(4, 77, 768)}], [1, 3], count=4)
        >>> cond["cross_attn"].shape
        torch.Size([2, 77, 768])
    """
    return [{name: _rows_of(value, name, rows, count) for name, value in cond.items()} for cond in conds]


def _rows_of(value: Any, name: str, rows: Sequence[int], count: int) -> Any:
    if name == "control":
        _check_one_hint(value)
    if isinstance(value, list) and any(isinstance(entry, Tensor) for entry in value):
        return [_rows_of(entry, name, rows, count) for entry in value]
    if not isinstance(value, Tensor) or value.ndim < 2 or len(value) == 1:
        return value
    if name.startswith(_RESIZED) and len(value) != count:
        raise MaAgiqaError(
            f"Expected {name} of the conditioning for one picture or for each of {count} candidates, got {len(value)}. "
            "Give one picture to inpaint, or as many as candidates."
        )
    return value[[row % len(value) for row in rows]]


def _check_one_hint(control: Any) -> None:
    """A ControlNet takes the first rows of its pictures, whichever candidates are left."""
    while control is not None:
        hints = [getattr(control, "cond_hint_original", None), *getattr(control, "extra_concat_orig", ())]
        if several := [len(hint) for hint in hints if isinstance(hint, Tensor) and len(hint) > 1]:
            raise MaAgiqaError(
                f"Expected a ControlNet with one picture for all candidates, got {several[0]}. Give it a single "
                "picture, or empty prune_at and set batch_limit to 0."
            )
        control = getattr(control, "previous_controlnet", None)
