"""Which vectors of some pictures are known already, and which questions the language model must still be asked."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from ..preprocess import to_bytes
from .cache import SemanticCache


@dataclass(frozen=True, eq=False)
class PendingQuestion:
    """A question that the language model must be asked about a picture.

    Attributes:
        picture: The picture's number.
        name: The question's name.
        question: As it is asked of this picture.
        pixels: uint8 (3, H, W) RGB.
    """

    picture: int
    name: str
    question: str
    pixels: Tensor


class VectorLookup:
    """Collects vectors by key, from the cache where they are in it; what is missing is pending.

    Args:
        cache: Of vectors of pictures already seen, or None.
        identity: All of the model that changes its vectors, by precision.
        precisions: Those whose vectors are taken; the first is the model's own.
        hidden_size: Width of a vector.
    """

    def __init__(
        self,
        cache: SemanticCache | None,
        identity: Callable[[torch.dtype], str],
        precisions: Sequence[torch.dtype],
        hidden_size: int,
    ) -> None:
        self._cache, self._identity, self._precisions = cache, identity, precisions
        self._hidden_size = hidden_size
        self.known: dict[str, Tensor] = {}
        self.pending: dict[str, PendingQuestion] = {}

    def add(self, picture: int, pixels: Tensor, questions: Mapping[str, str]) -> dict[str, str]:
        """Looks up the answers to the questions about one more picture.

        Args:
            picture: Its number.
            pixels: (3, H, W) RGB, uint8 or float in [0, 1].
            questions: By name, as they are asked of this picture.

        Returns:
            By name, the key under which a vector is, or will be, in `known`.
        """
        keys = self._keys(pixels, questions, self._precisions[0])
        new = {name: key for name, key in keys.items() if key not in self.known and key not in self.pending}
        recalled = self._recall(new, pixels, questions)
        self.known |= {new[name]: vector for name, vector in recalled.items()}
        if len(recalled) < len(new):
            rgb = to_bytes(pixels)
            for name, key in new.items():
                if name not in recalled:
                    self.pending[key] = PendingQuestion(picture, name, questions[name], rgb)
        return keys

    def put(self, key: str, vector: Tensor) -> None:
        """Keeps an answer of the language model, in the cache too.

        Raises:
            OSError: The cache cannot be written.
        """
        self.known[key] = vector
        if self._cache is not None:
            self._cache.put(key, vector)

    @property
    def pending_pictures(self) -> set[int]:
        """The numbers of the pictures that the language model must look at."""
        return {question.picture for question in self.pending.values()}

    def _keys(self, pixels: Tensor, questions: Mapping[str, str], precision: torch.dtype) -> dict[str, str]:
        """Without a cache they only tell pictures apart: the model's files need not be read for that."""
        return SemanticCache.keys(pixels, "" if self._cache is None else self._identity(precision), questions)

    def _recall(self, keys: Mapping[str, str], pixels: Tensor, questions: Mapping[str, str]) -> dict[str, Tensor]:
        """Cached vectors of a picture, in the model's own precision or in another one that is taken."""
        found = self._cached(keys)
        for precision in self._precisions[1:] if self._cache is not None else ():
            if missing := {name: questions[name] for name in keys if name not in found}:
                found |= self._cached(self._keys(pixels, missing, precision))
        return found

    def _cached(self, keys: Mapping[str, str]) -> dict[str, Tensor]:
        if self._cache is None:
            return {}
        vectors = {name: self._cache.get(key) for name, key in keys.items()}
        return {name: v for name, v in vectors.items() if v is not None and len(v) == self._hidden_size}


def group_questions(pending: Mapping[str, PendingQuestion]) -> dict[tuple[tuple[str, str], ...], list[list[str]]]:
    """Groups pending questions by the set of questions, as (name, text), that are asked together.

    All questions about a picture are asked together, unless pictures have different prompts: then questions that
    contain one are asked separately, and the others still find all pictures in one batch.

    Args:
        pending: By key.

    Returns:
        For each set of questions, the keys of every picture, in the questions' order.
    """
    texts: dict[str, set[str]] = {}
    for one in pending.values():
        texts.setdefault(one.name, set()).add(one.question)
    of_picture: dict[tuple[int, bool], list[str]] = {}
    for key, one in pending.items():
        of_picture.setdefault((one.picture, len(texts[one.name]) > 1), []).append(key)
    groups: dict[tuple[tuple[str, str], ...], list[list[str]]] = {}
    for keys in of_picture.values():
        groups.setdefault(tuple((pending[key].name, pending[key].question) for key in keys), []).append(keys)
    return groups
