"""What a causal language model computed for the text before a picture, which is the same for every picture."""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from .language import KeysValues


@dataclass(frozen=True)
class Prefix:
    """The text before the picture, of Q questions.

    Attributes:
        lengths: How many tokens each question has there.
        keys_values: Of every layer, padded to the longest question; empty if no question has text there.
        sums: (Q, D) float32, the sum of the last hidden states of that text.
    """

    lengths: tuple[int, ...]
    keys_values: tuple[KeysValues, ...]
    sums: Tensor

    @classmethod
    def join(cls, prefixes: Sequence[Prefix]) -> Prefix:
        """Several prefixes, of one question each, as one."""
        lengths = tuple(prefix.lengths[0] for prefix in prefixes)
        longest = max(prefixes, key=lambda prefix: prefix.lengths).keys_values  # in place of those without text

        def padded(layer: int, part: int) -> Tensor:
            states = [(prefix.keys_values or longest)[layer][part] for prefix in prefixes]
            cut = [one[:, :, :length] for one, length in zip(states, lengths, strict=True)]
            return torch.cat([F.pad(one, (0, 0, 0, 0, 0, max(lengths) - one.shape[2])) for one in cut])

        keys_values = tuple((padded(layer, 0), padded(layer, 1)) for layer in range(len(longest)))
        return cls(lengths, keys_values, torch.cat([prefix.sums for prefix in prefixes]))


class PrefixCache:
    """The latest few results by key, for several threads; each is computed once. A copy of it starts empty.

    Args:
        size: How many are kept at most.
        tokens: How many tokens the kept ones have at most; the latest one is kept however long it is.
    """

    def __init__(self, size: int, tokens: int) -> None:
        self.size, self.tokens = size, tokens
        self._kept: OrderedDict[Hashable, Prefix] = OrderedDict()
        self._lock = threading.RLock()

    def __reduce__(self) -> tuple[type[PrefixCache], tuple[int, int]]:
        return PrefixCache, (self.size, self.tokens)

    def __len__(self) -> int:
        return len(self._kept)

    def get(self, key: Hashable, compute: Callable[[], Prefix]) -> Prefix:
        with self._lock:
            if key not in self._kept:
                self._kept[key] = compute()
            self._kept.move_to_end(key)
            while len(self._kept) > self.size or (len(self._kept) > 1 and self._count_tokens() > self.tokens):
                self._kept.popitem(last=False)
            return self._kept[key]

    def _count_tokens(self) -> int:
        return sum(len(prefix.lengths) * max(prefix.lengths) for prefix in self._kept.values())  # with their padding

    def clear(self) -> None:
        with self._lock:
            self._kept.clear()
