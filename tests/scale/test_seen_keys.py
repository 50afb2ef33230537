"""Keys are seen once, however many there are."""

import random

import numpy as np

from ma_agiqa_core.scale import seen_keys
from ma_agiqa_core.scale.seen_keys import SeenKeys


def test_it_knows_what_a_set_knows(monkeypatch):
    monkeypatch.setattr(seen_keys, "_RECENT", 50)
    random_numbers = random.Random(0)
    keys = [f"k{random_numbers.randrange(3000)}" for _ in range(5000)]
    seen, known = SeenKeys(), set()
    for first in range(0, len(keys), 33):
        chunk = keys[first : first + 33]
        expected = []
        for key in chunk:
            expected.append(key not in known)
            known.add(key)
        assert seen.add_new(chunk) == expected
    assert len(seen) == len(known)
    assert all((f"k{number}" in seen) == (f"k{number}" in known) for number in range(3000))
    copy = SeenKeys(seen.merged().arrays())
    assert all((f"k{number}" in copy) == (f"k{number}" in known) for number in range(3000))


def test_sixteen_bytes_a_key(monkeypatch):
    seen = SeenKeys()
    seen.add_new([str(number) for number in range(200_000)])
    assert sum(array.nbytes for array in seen.arrays()) == 16 * 200_000


def test_keys_whose_hashes_begin_alike(monkeypatch):
    monkeypatch.setattr(seen_keys, "_digest", lambda key: bytes(8) + int(key).to_bytes(8, "big"))
    seen = SeenKeys()
    assert seen.add_new(["5", "3", "9", "3"]) == [True, True, True, False]
    copy = SeenKeys(seen.arrays())
    assert [key in copy for key in ("3", "4", "5", "9", "10")] == [True, False, True, True, False]


def test_nothing_seen():
    assert "a" not in SeenKeys()
    assert SeenKeys().add_new([]) == []
    assert SeenKeys([np.zeros((0, 2), np.uint64)]).arrays() == []
