"""Work done ahead in threads."""

import pytest

from ma_agiqa_core.made_ahead import made_ahead


def test_what_is_made_ahead_comes_in_order_and_fails_in_its_place() -> None:
    def make(number: int) -> int:
        if number == 5:
            raise ValueError("five")
        return number * number

    made = made_ahead(range(9), make, workers=3)
    assert [next(made) for _ in range(5)] == [0, 1, 4, 9, 16]
    with pytest.raises(ValueError, match="five"):
        next(made)
