"""Splits: the published shuffle against the published code's own words, and what keeps pictures apart."""

import random
from collections import Counter
from pathlib import Path

import pytest

from ma_agiqa_core.labels.labelled_set import LabelledPicture, LabelledSet
from ma_agiqa_core.labels.splits import (
    Split,
    make_split,
    split_by_column,
    split_by_generator,
    split_by_prompt,
    split_by_ratio,
    split_column,
)


def made_set(count: int, prompts: int = 1, generators: int = 1, splits: str = "") -> LabelledSet:
    pictures = tuple(
        LabelledPicture(
            Path(f"{row}.png"),
            f"{row}.png",
            {"quality": float(row)},
            prompt=f"prompt {row % prompts}" if prompts else None,
            generator=f"g{row % generators}" if generators else None,
            split={"t": "train", "v": "val", "e": "test"}.get(splits[row]) if splits else None,
        )
        for row in range(count)
    )
    return LabelledSet("made", pictures, 0.0, float(count))


@pytest.mark.parametrize("count", [10, 70, 299, 2982, 14000])
def test_the_default_is_pythons_shuffle_of_the_rows_seeded_with_20(count: int) -> None:
    random.seed(20)
    rows = list(range(count))
    random.shuffle(rows)

    split = split_by_ratio(made_set(count))

    assert list(split.train) == rows[: int(count * 0.7)]
    assert list(split.val) == rows[int(count * 0.7) : int(count * 0.8)]
    assert list(split.test) == rows[int(count * 0.8) :]


def test_the_published_split_of_agiqa_3k() -> None:
    """Its first and last rows, made once with Python 3.11: 2982 rows, seed 20."""
    split = make_split(made_set(2982))

    assert (len(split.train), len(split.val), len(split.test)) == (2087, 298, 597)
    assert (split.train[:3], split.val[:3], split.test[-3:]) == (
        (423, 624, 1482),
        (2488, 1181, 2785),
        (619, 2810, 2960),
    )


def test_the_global_random_numbers_are_left_alone() -> None:
    random.seed(5)
    expected = random.random()
    random.seed(5)
    make_split(made_set(30))
    assert random.random() == expected


def test_ratios_are_shares_of_their_sum_and_another_seed_is_another_split() -> None:
    labelled = made_set(100)

    assert split_by_ratio(labelled, "7/1/2") == split_by_ratio(labelled, "70/10/20")
    assert len(split_by_ratio(labelled, "60/20/20").val) == 20
    assert split_by_ratio(labelled, "80/20/0").test == ()
    assert split_by_ratio(labelled, seed=21) != split_by_ratio(labelled)


@pytest.mark.parametrize("ratio", ["70/30", "0/50/50", "70/-10/40", "70/ten/20", "inf/1/1", "nan/1/1", ""])
def test_impossible_ratios_are_refused(ratio: str) -> None:
    with pytest.raises(ValueError, match="shares of train, val and test as 70/10/20, got"):
        split_by_ratio(made_set(100), ratio)


def test_too_few_pictures_for_a_part_are_said() -> None:
    with pytest.raises(ValueError, match="Expected pictures for val, got none: made has 3 pictures"):
        split_by_ratio(made_set(3))


def test_a_picture_is_in_one_part() -> None:
    with pytest.raises(ValueError, match="each picture in one part, got picture 2 in train and test"):
        Split((1, 2), (3,), (2,))
    with pytest.raises(ValueError, match="picture 1 in train and train"):
        Split((1, 1), (), ())


def test_by_column() -> None:
    assert split_by_column(made_set(6, splits="tvettt")) == Split((0, 3, 4, 5), (1,), (2,))
    with pytest.raises(ValueError, match=r"a split for each picture of made, got none for 2: 1.png, 4.png\."):
        split_by_column(made_set(5, splits="t-ve-"))


@pytest.mark.parametrize("prompts", [20, 40, 300])
def test_by_prompt_no_prompt_is_in_two_parts_and_the_shares_are_near(prompts: int) -> None:
    labelled = made_set(3000, prompts=prompts)

    split = split_by_prompt(labelled)

    of_part = [{labelled.pictures[row].prompt for row in rows} for rows in (split.train, split.val, split.test)]
    assert sum(map(len, of_part)) == prompts
    assert sorted([*split.train, *split.val, *split.test]) == list(range(3000))
    if prompts > 20:
        assert len(split.train) == pytest.approx(2100, abs=3000 / prompts)
        assert len(split.test) == pytest.approx(600, abs=3000 / prompts)
    assert split_by_prompt(labelled, seed=21) != split


def test_by_prompt_needs_prompts_and_enough_of_them() -> None:
    with pytest.raises(ValueError, match=r"a prompt for each picture of made, got none for '0.png'"):
        split_by_prompt(made_set(10, prompts=0))
    with pytest.raises(ValueError, match=r"pictures for (val|test), got none: made has 1 prompt\."):
        split_by_prompt(made_set(10, prompts=1))


def test_by_generator_one_is_left_out() -> None:
    labelled = made_set(90, generators=3)

    split = split_by_generator(labelled, "g1")

    assert {labelled.pictures[row].generator for row in split.test} == {"g1"}
    assert len(split.test) == 30
    assert Counter(labelled.pictures[row].generator for row in split.train + split.val) == {"g0": 30, "g2": 30}
    assert (len(split.train), len(split.val)) == (52, 8)
    assert split.train != tuple(sorted(split.train)), "shuffled"
    with pytest.raises(ValueError, match="one of several generators of made, g0, g1, g2, got 'g3'"):
        split_by_generator(labelled, "g3")
    with pytest.raises(ValueError, match="none, got 'g3'"):
        split_by_generator(made_set(9, generators=0), "g3")


def test_the_option_names_all_of_them() -> None:
    labelled = made_set(60, prompts=20, generators=3, splits="tttttv" * 8 + "e" * 12)

    assert make_split(labelled, "60/20/20", 4) == split_by_ratio(labelled, "60/20/20", 4)
    assert make_split(labelled, "prompt:60/20/20", 4) == split_by_prompt(labelled, "60/20/20", 4)
    assert make_split(labelled, "prompt") == split_by_prompt(labelled)
    assert make_split(labelled, "generator:g2", 4) == split_by_generator(labelled, "g2", 4)
    assert make_split(labelled, "part") == split_by_column(labelled)
    assert [split_column(text) for text in ("70/10/20", "prompt:1/1/1", "generator:x", "part")] == [None] * 3 + ["part"]
