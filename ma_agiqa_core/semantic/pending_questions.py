"""Which questions about which pictures the language model is asked in one go."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from torch import Tensor


@dataclass(frozen=True, eq=False)
class OpenQuestion:
    """A question that the language model must be asked about a picture.

    Attributes:
        picture: Its number.
        name: The question's.
        question: As it is asked of this picture.
        pixels: uint8 (3, H, W) RGB.
    """

    picture: int
    name: str
    question: str
    pixels: Tensor


def asked_together(still_open: Mapping[str, OpenQuestion]) -> dict[tuple[tuple[str, str], ...], list[list[str]]]:
    """By questions that are asked in one go: of each picture the keys, in the questions' order.

    All questions about a picture go together, unless pictures have unlike prompts: then questions that hold one are
    asked apart, and the others still find all pictures in one batch.

    Args:
        still_open: By key.
    """
    texts: dict[str, set[str]] = {}
    for one in still_open.values():
        texts.setdefault(one.name, set()).add(one.question)
    of_picture: dict[tuple[int, bool], list[str]] = {}
    for key, one in still_open.items():
        of_picture.setdefault((one.picture, len(texts[one.name]) > 1), []).append(key)
    groups: dict[tuple[tuple[str, str], ...], list[list[str]]] = {}
    for keys in of_picture.values():
        groups.setdefault(tuple((still_open[key].name, still_open[key].question) for key in keys), []).append(keys)
    return groups
