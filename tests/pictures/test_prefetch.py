"""Work done ahead in threads."""

import threading

import numpy as np
import pytest

from ma_agiqa_core.pictures import groups
from ma_agiqa_core.pictures.prefetch import prefetch


def test_what_is_made_ahead_comes_in_order_and_fails_in_its_place() -> None:
    def make(number: int) -> int:
        if number == 5:
            raise ValueError("five")
        return number * number

    made = prefetch(range(9), make, workers=3)
    assert [next(made) for _ in range(5)] == [0, 1, 4, 9, 16]
    with pytest.raises(ValueError, match="five"):
        next(made)


@pytest.mark.parametrize("weights", [[3, 3, 3, 3, 3, 3], [100] * 6, [1, 100, 1, 1, 100, 1], [0] * 6])
def test_what_is_held_weighs_no_more_than_allowed_but_for_the_next_one(weights: list[int]) -> None:
    lock = threading.Lock()
    made: set[int] = set()
    asked_for = -1

    def make(place: int) -> int:
        with lock:
            made.add(place)
            beyond_the_next = sum(weights[i] for i in made if i > asked_for + 1)
            assert beyond_the_next <= 6
        return place

    pieces = prefetch(range(6), make, workers=3, ahead=5, weigh=weights.__getitem__, most=6)
    for place in range(6):
        with lock:
            asked_for = place
        assert next(pieces) == place


def test_threads_that_wait_for_room_end_with_the_generator() -> None:
    made = prefetch(range(9), lambda place: place, workers=3, weigh=lambda place: 5, most=5)
    assert next(made) == 0
    made.close()
    for thread in threading.enumerate():
        if thread.name.startswith("prefetch"):
            thread.join(10)
            assert not thread.is_alive()


def test_what_weighing_raises_comes_in_its_place() -> None:
    def weigh(place: int) -> int:
        if place == 2:
            raise ValueError("two")
        return 1

    made = prefetch(range(4), lambda place: place, workers=2, weigh=weigh, most=2)
    assert [next(made), next(made)] == [0, 1]
    with pytest.raises(ValueError, match="two"):
        next(made)


def test_groups_of_large_pictures_are_small(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(groups, "PIXELS_AT_ONCE", 250)
    sizes = [10, 10, 10, 10, 50, 1, 1, 1, 1]
    pictures = [np.zeros((size, size, 3), np.uint8) for size in sizes]
    grouped = list(groups.picture_groups(pictures, size=3))
    assert [[picture.width for picture in group] for group in grouped] == [[10, 10, 10], [10, 50], [1, 1, 1], [1]]
    assert [picture.index for group in grouped for picture in group] == list(range(9))
