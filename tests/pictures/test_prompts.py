"""Prompts and options that come with pictures."""

from typing import Any

import pytest

from ma_agiqa_core.pictures.prompts import check_score_options, resolve_prompts


def test_prompts() -> None:
    assert resolve_prompts(None, 2, needs_prompt=False) is None
    assert resolve_prompts("a cat", 2, needs_prompt=True) == ["a cat", "a cat"]
    assert resolve_prompts(("a", "b"), 2, needs_prompt=True) == ["a", "b"]
    assert resolve_prompts(["", "b"], 2, needs_prompt=False) == ["", "b"]
    assert resolve_prompts(None, 0, needs_prompt=True) is None


@pytest.mark.parametrize(
    ("prompts", "needs_prompt", "message"),
    [
        (["a"], False, "one for each of 2 pictures, got 1"),
        ([], True, "got 0"),
        (None, True, "Expected prompts, got None"),
        ("", True, "for picture 0, got an empty one"),
        (["a", " "], True, "for picture 1, got an empty one"),
        (["a", None], False, "for picture 1, got None"),
    ],
)
def test_prompts_that_do_not_fit(prompts: Any, needs_prompt: bool, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        resolve_prompts(prompts, 2, needs_prompt)


def test_score_options() -> None:
    check_score_options(None, "raise")
    check_score_options(1, "nan")
    with pytest.raises(ValueError, match="batch_size of at least 1, or None, got 0"):
        check_score_options(0, "nan")
    with pytest.raises(ValueError, match="'raise' or 'nan', got 'skip'"):
        check_score_options(None, "skip")
