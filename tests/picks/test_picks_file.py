"""picks.json: what is written is read again, and what is none is refused by name."""

import json
from pathlib import Path
from typing import Any

import pytest

from ma_agiqa_core.errors import MaAgiqaError, MissingFileError, OutputExistsError
from ma_agiqa_core.picks.pick import Mark, Pair, PickedPicture, Picks, Rating
from ma_agiqa_core.picks.picks_file import add_picks, read_picks, write_picks
from ma_agiqa_core.records.output_lock import only_writer

CAT = PickedPicture("/renders/cät \n1.png", "0123456789abcdef", "a cat")
DOG = PickedPicture("dog.png")
PICKS = Picks(
    (Mark(CAT, is_liked=True, scorer="lite@1", date="2026-01-02T03:04:05Z"), Mark(DOG, is_liked=False)),
    (Pair(CAT, DOG, scorer="lite@1"), Pair(DOG, CAT)),
)


def written(folder: Path, content: Any) -> Path:
    file = folder / "picks.json"
    file.write_text(content if isinstance(content, str) else json.dumps(content), encoding="utf-8")
    return file


def test_reads_what_it_wrote(tmp_path):
    write_picks(tmp_path / "picks.json", PICKS)
    assert read_picks(tmp_path / "picks.json") == PICKS


def test_the_file_is_as_the_contract_says(tmp_path):
    write_picks(tmp_path / "picks.json", PICKS)
    whole = json.loads((tmp_path / "picks.json").read_text(encoding="utf-8"))
    assert whole["format"] == 1
    assert whole["picks"][0] == {
        "path": CAT.path,
        "digest": CAT.digest,
        "prompt": "a cat",
        "mark": "like",
        "scorer": "lite@1",
        "date": "2026-01-02T03:04:05Z",
    }
    assert whole["picks"][1] == {"path": "dog.png", "mark": "dislike"}
    assert whole["picks"][3]["worse"]["path"] == CAT.path


def test_no_picks_are_picks(tmp_path):
    write_picks(tmp_path / "picks.json", Picks())
    assert len(read_picks(tmp_path / "picks.json")) == 0


def test_picks_by_hand_need_little_and_may_say_more(tmp_path):
    entries = [{"path": "a.png", "mark": "like", "mood": "fine"}, {"better": {"path": "a"}, "worse": {"path": "b"}}]
    picks = read_picks(written(tmp_path, {"format": 1, "picks": entries, "by": "me"}))
    assert picks.marks == (Mark(PickedPicture("a.png"), is_liked=True),)
    assert picks.pairs == (Pair(PickedPicture("a"), PickedPicture("b")),)


def test_a_byte_order_mark_is_no_harm(tmp_path):
    assert len(read_picks(written(tmp_path, '\ufeff{"format": 1, "picks": []}'))) == 0


def test_sessions_add_up(tmp_path):
    file = tmp_path / "picks.json"
    add_picks(file, PICKS)
    add_picks(file, Picks((Mark(DOG, is_liked=True),)))
    assert read_picks(file) == PICKS + Picks((Mark(DOG, is_liked=True),))
    assert [path.name for path in tmp_path.iterdir()] == ["picks.json"]


def test_what_is_no_picks_is_neither_read_nor_added_to(tmp_path):
    file = written(tmp_path, {"format": 2, "picks": []})
    with pytest.raises(MaAgiqaError, match=r"format 1.*got 2"):
        add_picks(file, PICKS)
    assert json.loads(file.read_text()) == {"format": 2, "picks": []}


def test_two_writers_at_once_are_refused(tmp_path):
    with only_writer(tmp_path / "picks.json"), pytest.raises(OutputExistsError):
        add_picks(tmp_path / "picks.json", PICKS)


def test_ratings_have_no_place_in_it(tmp_path):
    with pytest.raises(MaAgiqaError, match="got 1 ratings"):
        write_picks(tmp_path / "picks.json", Picks(ratings=(Rating(DOG, 3.0),)))


def test_a_missing_file_and_a_folder_are_named(tmp_path):
    with pytest.raises(MissingFileError, match="no such file"):
        read_picks(tmp_path / "none.json")
    with pytest.raises(MaAgiqaError, match="got the folder"):
        read_picks(tmp_path)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("not json", "as JSON"),
        ("[" * 100_000, "as JSON"),
        ([], r"got \[\]"),
        ({"format": 1}, r"got \{'format': 1\}"),
        ({"picks": []}, "got None"),
        ({"format": True, "picks": []}, "got True"),
        ({"format": "1", "picks": []}, "got '1'"),
        ({"format": 1, "picks": {}}, r"list of picks.*got \{\}"),
        ({"format": 1, "picks": ["a.png"]}, "pick 1 of .*got 'a.png'"),
        ({"format": 1, "picks": [{"path": "a.png"}]}, "pick 1 of"),
        ({"format": 1, "picks": [{"path": "a", "mark": "like", "better": {"path": "a"}}]}, "pick 1 of"),
        ({"format": 1, "picks": [{"path": "a", "mark": "love"}]}, "mark of pick 1.*got 'love'"),
        ({"format": 1, "picks": [{"path": "a", "mark": ["like"]}]}, "mark of pick 1"),
        ({"format": 1, "picks": [{"path": "", "mark": "like"}]}, "with a path as pick 1"),
        ({"format": 1, "picks": [{"path": 3, "mark": "like"}]}, "with a path as pick 1"),
        ({"format": 1, "picks": [{"path": "a", "mark": "like", "digest": "xyz"}]}, "digest of pick 1.*got 'xyz'"),
        ({"format": 1, "picks": [{"path": "a", "mark": "like", "prompt": 1}]}, "prompt of pick 1.*got 1"),
        ({"format": 1, "picks": [{"better": {"path": "a"}}]}, "worse of pick 1.*got None"),
    ],
)
def test_what_is_wrong_is_said(tmp_path, content, message):
    with pytest.raises(MaAgiqaError, match=message):
        read_picks(written(tmp_path, content))
