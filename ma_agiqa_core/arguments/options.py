"""What users pass for options: checked for its kind, and said in messages."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from ..errors import MaAgiqaError

_DTYPES_ELSEWHERE = {
    **dict.fromkeys(("half", "fp16", "f16"), "float16"),
    **dict.fromkeys(("bf16", "bfloat"), "bfloat16"),
    **dict.fromkeys(("float", "full", "single", "fp32", "f32", "double", "fp64", "float64"), "float32"),
}
"""What other programs call a precision, or the nearest there is."""


def shown(value: object, most: int = 60) -> str:
    """For messages, on one line: what it is where that takes at most so many characters, else of what type."""
    text = repr(value)
    return text if len(text) <= most and "\n" not in text else f"a {type(value).__name__}"


def first_names(names: Iterable[str], most: int = 5) -> str:
    """For messages: "a, b, c, d, e and 2 more"."""
    listed = list(names)
    return ", ".join(listed[:most]) + (f" and {len(listed) - most} more" if len(listed) > most else "")


def check_paths(**options: object) -> None:
    """Refuses what is neither text nor a path, nor None.

    Raises:
        ValueError: The message names the option.
    """
    for name, value in options.items():
        if value is not None and not isinstance(value, str | os.PathLike):
            raise MaAgiqaError(f"Expected {name} as text or a path, or None, got {shown(value)}.")


def expanded(path: str | os.PathLike[str]) -> Path:
    """With the home folder in place of "~".

    Raises:
        ValueError: There is no such user.
    """
    try:
        return Path(path).expanduser()
    except RuntimeError as error:
        raise MaAgiqaError(f"Expected a path, got {str(path)!r}: {str(error).rstrip('.')}.") from error


def dtype_advice(dtype: object) -> str:
    """A sentence, after a space, for who writes a precision as other programs do; else nothing."""
    meant = _DTYPES_ELSEWHERE.get(str(dtype).lower().removeprefix("torch."))
    return "" if meant is None else f" Use '{meant}'."


def listed_prompts(prompts: Any) -> list[Any]:
    """Prompts of several pictures, in order, from any iterable that has one; each is still to be checked.

    Raises:
        ValueError: Bytes, a mapping, a set, or nothing that can be gone through.
    """
    wanted = f"Expected prompts as a string, or a list of strings, got {shown(prompts)}"
    if isinstance(prompts, bytes | bytearray):
        raise MaAgiqaError(f"{wanted}. Use prompts.decode().")
    if isinstance(prompts, Mapping):
        raise MaAgiqaError(f"{wanted}. Put them in the order of the pictures: [prompts[path] for path in paths].")
    if isinstance(prompts, set | frozenset):
        raise MaAgiqaError(f"{wanted}, which has no order. Pass them in the order of the pictures.")
    if not isinstance(prompts, Iterable):
        raise MaAgiqaError(f"{wanted}.")
    return [prompts.item()] if getattr(prompts, "ndim", 1) == 0 else list(prompts)  # type: ignore[attr-defined]
