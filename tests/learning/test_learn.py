"""From picks to a scorer, with all that may be wrong with picks."""

import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import tiny_models
import torch
from PIL import Image

from ma_agiqa_core import learn, load_scorer
from ma_agiqa_core.errors import MaAgiqaError, MissingFileError
from ma_agiqa_core.learning import learn as learning
from ma_agiqa_core.learning.learn import Learned, learn_from
from ma_agiqa_core.learning.text import learned_text
from ma_agiqa_core.picks.pick import Mark, Pair, PickedPicture, Picks, Rating
from ma_agiqa_core.picks.picks_file import write_picks
from ma_agiqa_core.picks.sources import marks_of_folders
from ma_agiqa_core.records.picture_state import picture_digest
from ma_agiqa_core.scorers.picture_features.features import PictureFeatures
from ma_agiqa_core.scorers.picture_features.load import load_features


@pytest.fixture(scope="module")
def picks(warm_and_cold: Path) -> Picks:
    return marks_of_folders([warm_and_cold / "liked"], [warm_and_cold / "disliked"])


@pytest.fixture
def learned(picks: Picks) -> Learned:
    return learn_from(picks, device="cpu", name="warm")


@pytest.fixture(autouse=True)
def described_once(monkeypatch: pytest.MonkeyPatch, lite_features: PictureFeatures) -> None:
    """All tests here see the same pictures."""
    monkeypatch.setattr(
        learning,
        "load_features",
        lambda source, device: lite_features if source == "lite" else load_features(source, device),
    )


def colour(red: int, blue: int) -> np.ndarray:
    return np.full((64, 64, 3), (red, 100, blue), np.uint8)


def test_the_taste_is_learned_and_measured_beside_lite(learned):
    scores = learned.scorer.score([colour(200, 50), colour(50, 200)])
    assert scores[0] > scores[1]
    assert (learned.gathered.likes, learned.gathered.dislikes) == (12, 12)
    assert learned.held_out.value is not None
    assert learned.held_out.value > 0.8
    assert learned.comparisons > 10
    text = learned_text(learned)
    assert "12 likes, 12 dislikes of 24 pictures" in text
    assert f"{100 * learned.held_out.value:.1f} %" in text
    assert "lite:" in text


def test_what_is_saved_scores_the_same_and_says_what_it_is(learned, tmp_path):
    learned.scorer.save(tmp_path / "mine.safetensors")
    loaded = load_scorer(tmp_path / "mine.safetensors", device="cpu")
    pictures = [colour(200, 50), colour(50, 200), np.asarray(Image.new("RGB", (40, 30), (9, 99, 200)))]
    assert torch.equal(loaded.score(pictures), learned.scorer.score(pictures))
    assert loaded.info == learned.scorer.info
    assert (loaded.info.name, loaded.info.low, loaded.info.high, loaded.info.needs_prompt) == ("warm", 0, 10, False)
    assert loaded.info.percentile(9.9) == 100
    assert "24 picks" in loaded.info.trained_on


def test_files_and_sessions_add_up(picks, tmp_path):
    write_picks(tmp_path / "monday.json", Picks(picks.marks[::2]))
    write_picks(tmp_path / "tuesday.json", Picks(picks.marks[1::2]))
    both = learn([tmp_path / "monday.json", str(tmp_path / "tuesday.json")], device="cpu")
    once = learn(picks, device="cpu")
    pictures = [colour(200, 50), colour(50, 200), colour(100, 120)]
    assert both.facts.evidence["picks"] == 24
    assert torch.allclose(both.score(pictures), once.score(pictures), atol=0.05)


def test_pairs_and_ratings_teach_too(picks):
    liked = [mark.picture for mark in picks.marks if mark.is_liked]
    disliked = [mark.picture for mark in picks.marks if not mark.is_liked]
    pairs = tuple(Pair(*sides) for sides in zip(liked, disliked, strict=True))
    ratings = tuple(Rating(picture, 4.0 + n / 100) for n, picture in enumerate(liked))
    ratings += tuple(Rating(picture, 2.0 + n / 100) for n, picture in enumerate(disliked))
    for given in (Picks(pairs=pairs), Picks(ratings=ratings)):
        scores = learn(given, prior="none", device="cpu").score([colour(200, 50), colour(50, 200)])
        assert scores[0] > scores[1]


def test_prompts_are_left_out_together(picks):
    marks = tuple(
        replace(mark, picture=replace(mark.picture, prompt=f"prompt {number % 6}"))
        for number, mark in enumerate(picks.marks)
    )
    found = learn_from(Picks(marks), device="cpu").gathered
    assert found.grouped_by == "prompts"
    assert len(set(found.groups)) == 6


def test_a_few_picks_leave_lite_as_it_is_and_it_says_so(picks):
    few = learn_from(Picks(picks.marks[:2] + picks.marks[-2:]), device="cpu")
    assert few.held_out.value is None
    assert "so few picks" in learned_text(few)
    assert not few.beats_lite


def test_copies_count_once(picks, tmp_path):
    first = picks.marks[0]
    with Image.open(first.picture.path) as image:
        image.resize((40, 40), Image.Resampling.LANCZOS).save(tmp_path / "copy.png")
    copy = Mark(PickedPicture(str(tmp_path / "copy.png")), first.is_liked)
    found = learn_from(Picks((*picks.marks, copy)), device="cpu")
    assert found.gathered.copies == 1
    assert found.gathered.evidence.weight == 24
    assert "1 picture counted once with others" in learned_text(found)


def test_contradictions_are_counted_and_the_last_mark_counts(picks):
    turned = Mark(picks.marks[0].picture, not picks.marks[0].is_liked)
    one, other = picks.marks[1].picture, picks.marks[2].picture
    given = picks + Picks((turned,), (Pair(one, other), Pair(other, one)))
    found = learn_from(given, device="cpu").gathered
    assert found.contradictions == 2
    assert (found.likes, found.dislikes) == (11, 13)


def test_moved_missing_and_broken_pictures_are_told(picks, tmp_path):
    moved = tmp_path / "moved" / "a.png"
    moved.parent.mkdir()
    shutil.copy(picks.marks[0].picture.path, moved)
    (tmp_path / "broken.png").write_bytes(b"no picture")
    extra = (
        Mark(PickedPicture("/gone/a.png", picture_digest(moved)), is_liked=True),
        Mark(PickedPicture("/gone/b.png", "0" * 16), is_liked=True),
        Mark(PickedPicture(str(tmp_path / "broken.png")), is_liked=False),
    )
    found = learn_from(Picks((*picks.marks, *extra)), search=[tmp_path / "moved"], device="cpu")
    text = learned_text(found)
    assert found.gathered.missing == ("/gone/b.png",)
    assert found.gathered.moved == ("/gone/a.png",)
    assert list(found.gathered.unreadable) == [str(tmp_path / "broken.png")]
    assert "/gone/b.png" in text
    assert "broken.png" in text


def test_one_kind_of_mark_alone_teaches_nothing(picks):
    likes = Picks(tuple(mark for mark in picks.marks if mark.is_liked))
    with pytest.raises(MaAgiqaError, match="got 12 likes and no dislikes"):
        learn(likes, device="cpu")
    equal = Picks(ratings=tuple(Rating(mark.picture, 3.0) for mark in likes.marks))
    with pytest.raises(MaAgiqaError, match="got 12 that are all alike"):
        learn(equal, device="cpu")


def test_other_mistakes(picks, tmp_path):
    with pytest.raises(MaAgiqaError, match="got none"):
        learn(Picks(), device="cpu")
    with pytest.raises(MaAgiqaError, match=r"got none of them: /gone/a\.png"):
        learn(Picks((Mark(PickedPicture("/gone/a.png"), is_liked=True),)), device="cpu")
    with pytest.raises(MissingFileError, match="no such file"):
        learn(tmp_path / "none.json")
    with pytest.raises(MissingFileError, match="no such folder"):
        learn(picks, features=f"clip:{tmp_path / 'none'}")
    with pytest.raises(MaAgiqaError, match="as prior, got 'pickscore'"):
        learn(picks, prior="pickscore")
    with pytest.raises(MaAgiqaError, match="features by their name, got 'vgg'"):
        learn(picks, features="vgg")
    with pytest.raises(MaAgiqaError, match="got 3"):
        learn([3])  # type: ignore[list-item]


def test_a_models_features_and_a_folder_that_moved_with_the_file(picks, tmp_path):
    tiny_models.write_clip(tmp_path / "tiny-clip", seed=4)
    scorer = learn(picks, features=f"clip:{tmp_path / 'tiny-clip'}", device="cpu")
    scorer.save(tmp_path / "mine.safetensors")
    expected = scorer.score([colour(200, 50)])
    shutil.move(tmp_path / "tiny-clip", tmp_path / "hidden")
    with pytest.raises(MissingFileError, match="tiny-clip"):
        load_scorer(tmp_path / "mine.safetensors", device="cpu")
    (tmp_path / "elsewhere").mkdir()
    shutil.move(tmp_path / "hidden", tmp_path / "elsewhere" / "tiny-clip")
    shutil.move(tmp_path / "mine.safetensors", tmp_path / "elsewhere")
    loaded = load_scorer(tmp_path / "elsewhere" / "mine.safetensors", device="cpu")
    assert torch.equal(loaded.score([colour(200, 50)]), expected)
