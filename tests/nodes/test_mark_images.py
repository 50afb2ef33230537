"""Mark Images: what is kept is liked, the rest is not."""

from pathlib import Path

import pytest

from ma_agiqa_core.picks.picks_file import read_picks


@pytest.fixture
def user(comfy_modules, tmp_path, monkeypatch):
    import folder_paths

    monkeypatch.setattr(folder_paths, "get_user_directory", lambda: str(tmp_path))
    return tmp_path


@pytest.fixture
def mark(pack_module, run_node, user):
    node = pack_module("nodes.mark_images").MarkImages
    return lambda **inputs: run_node(node, **inputs)


def test_kept_are_liked_and_the_others_not(mark, user, batch):
    done = mark(images=batch, indexes="3, 0", prompt="a cat")

    marks = read_picks(user / "ma_agiqa" / "picks.json").marks
    assert [entry.is_liked for entry in marks] == [True, True, False, False, False]
    assert {entry.picture.prompt for entry in marks} == {"a cat"}
    assert all(Path(entry.picture.path).is_file() for entry in marks)
    assert done.args[0][0] is batch
    assert done.ui["text"] == [f"2 liked, 3 disliked, in {user / 'ma_agiqa' / 'picks.json'}"]
    mark(images=batch[:1], indexes="", file_name="picks.json")
    assert len(read_picks(user / "ma_agiqa" / "picks.json").marks) == 6


def test_marks_of_one_prompt_belong_together(mark, user, batch):
    mark(images=batch[:3], indexes="1", prompt=["a cat", "a dog", "a cat"], file_name="mine")

    marks = read_picks(user / "ma_agiqa" / "mine.json").marks
    assert [(entry.picture.prompt, entry.is_liked) for entry in marks] == [
        ("a cat", False),
        ("a cat", False),
        ("a dog", True),
    ]


@pytest.mark.parametrize(
    ("inputs", "message"),
    [
        ({"indexes": "5"}, "Expected numbers of pictures from 0 to 4, separated by commas, got '5'"),
        ({"indexes": "best"}, "got 'best'"),
        ({"indexes": "-1"}, "got '-1'"),
        ({"indexes": "0", "file_name": "../elsewhere"}, "Expected a plain file name"),
        ({"indexes": "0", "prompt": ["a", "b"]}, "one for each of 5 pictures, got 2"),
    ],
)
def test_mistakes_are_told(mark, batch, inputs, message):
    with pytest.raises(ValueError, match=message):
        mark(images=batch, **inputs)
