"""Which keys were seen, 16 bytes each, however many there are."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

import numpy as np

Hashes = np.ndarray
"""(n, 2) uint64: the first 128 bits of the BLAKE2b of each key."""

_RECENT = 2**16  # keys in a set, before they are sorted into an array


class SeenKeys:
    """A set of keys that grows to billions: sorted arrays of hashes, each at least twice as long as the next.

    Two of a billion keys have the same hash with a chance of about 1e-21.

    Example:
        >>> seen = SeenKeys()
        >>> seen.add_new(["a", "b", "a"])
        [True, True, False]
        >>> "b" in seen, "c" in seen, len(seen)
        (True, False, 2)
    """

    def __init__(self, arrays: Sequence[Hashes] = ()) -> None:
        """With the `arrays` of another one it knows the same keys."""
        self._arrays = [array for array in arrays if len(array)]
        self._recent: set[bytes] = set()

    def __contains__(self, key: str) -> bool:
        digest = _digest(key)
        return digest in self._recent or bool(self._in_arrays(_as_hashes([digest]))[0])

    def __len__(self) -> int:
        return len(self._recent) + sum(map(len, self._arrays))

    def add_new(self, keys: Sequence[str]) -> list[bool]:
        """Adds keys, and says of each whether it is new; of equal ones the first is."""
        digests = [_digest(key) for key in keys]
        known = self._in_arrays(_as_hashes(digests)).tolist() if self._arrays and digests else [False] * len(digests)
        is_new = []
        for digest, is_known in zip(digests, known, strict=True):
            is_new.append(not is_known and digest not in self._recent)
            if not is_known:
                self._recent.add(digest)
        if len(self._recent) >= _RECENT:
            self._sort_recent()
        return is_new

    def arrays(self) -> list[Hashes]:
        """All that is known, for a copy in another process."""
        self._sort_recent()
        return list(self._arrays)

    def merged(self) -> SeenKeys:
        """The same keys in one array, which is the fastest to look into."""
        arrays = self.arrays()
        return SeenKeys([_sorted(np.concatenate(arrays))] if arrays else [])

    def _sort_recent(self) -> None:
        if not self._recent:
            return
        newest = _sorted(_as_hashes(list(self._recent)))
        self._recent.clear()
        while self._arrays and len(self._arrays[-1]) < 2 * len(newest):
            newest = _sorted(np.concatenate([self._arrays.pop(), newest]))
        self._arrays.append(newest)

    def _in_arrays(self, hashes: Hashes) -> np.ndarray:
        found = np.zeros(len(hashes), bool)
        for array in self._arrays:
            place = np.searchsorted(array[:, 0], hashes[:, 0])
            while True:  # more than once only where two keys share their first 64 bits
                is_there = place < len(array)
                at = np.minimum(place, len(array) - 1)
                is_equal = is_there & (array[at, 0] == hashes[:, 0])
                found |= is_equal & (array[at, 1] == hashes[:, 1])
                if not (is_equal & ~found).any():
                    break
                place = place + 1
        return found


def _digest(key: str) -> bytes:
    return hashlib.blake2b(key.encode("utf-8", "surrogatepass"), digest_size=16).digest()


def _as_hashes(digests: Sequence[bytes]) -> Hashes:
    return np.frombuffer(b"".join(digests), np.uint64).reshape(-1, 2)


def _sorted(hashes: Hashes) -> Hashes:
    return hashes[np.lexsort((hashes[:, 1], hashes[:, 0]))]
