"""Marking in the report, in a real browser: keys, buttons, pairs, what survives a reload, and what is exported."""

import math
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from PIL import Image

from ma_agiqa_core.picks.finding import find_picked
from ma_agiqa_core.picks.pick import Picks
from ma_agiqa_core.picks.picks_file import read_picks
from ma_agiqa_core.ranking import order_by_score
from ma_agiqa_core.records.picture_state import picture_digest
from ma_agiqa_core.records.record import Record
from ma_agiqa_core.report import write_report

pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
pytestmark = pytest.mark.skipif(shutil.which("chromium") is None, reason="chromium is not installed")

MODEL = {"name": "lite", "revision": "1", "low": 0.0, "high": 100.0}
NAMES = ["a & b.png", '"c".png', "日本.png", "d.png"]  # best first
PROMPTS = {"a & b.png": "cats", '"c".png': "dogs", "日本.png": "cats", "d.png": "dogs"}


@pytest.fixture(scope="module")
def browser(chromium_tools: ModuleType) -> Iterator[Any]:
    with chromium_tools.browser() as browser:
        yield browser


@pytest.fixture
def report(tmp_path: Path) -> Path:
    records = []
    for number, name in enumerate(NAMES):
        path = tmp_path / name
        Image.new("RGB", (20, 20), (60 * number, 80, 160)).save(path)
        score = 90.0 - 20 * number
        records.append(
            Record(str(path), score, score, 20, 20, "lite@1", None, PROMPTS[name], digest=picture_digest(path))
        )
    ranking = order_by_score(records, [record.score or math.nan for record in records])
    write_report(tmp_path / "report.html", ranking, model=MODEL)
    return tmp_path / "report.html"


@pytest.fixture
def page(browser: Any, report: Path) -> Iterator[Any]:
    page = browser.new_page(viewport={"width": 1000, "height": 800})
    page.set_default_timeout(10_000)
    complaints: list[str] = []
    page.on("console", lambda message: complaints.append(message.text))
    page.on("pageerror", lambda error: complaints.append(str(error)))
    page.goto(report.as_uri())
    yield page
    page.close()
    assert complaints == []


@pytest.fixture
def export(page: Any, tmp_path: Path) -> Callable[[], Picks]:
    def exported() -> Picks:
        with page.expect_download() as download:
            page.click("#export")
        assert download.value.suggested_filename == "picks.json"
        download.value.save_as(tmp_path / "picks.json")
        return read_picks(tmp_path / "picks.json")

    return exported


def names(page: Any) -> list[str]:
    return page.locator(".card .name").all_text_contents()


def counted(page: Any) -> str:
    return page.locator("#mark-count").text_content()


def said(picks: Picks) -> dict[str, bool]:
    return {Path(mark.picture.path).name: mark.is_liked for mark in picks.marks}


def test_keys_like_dislike_take_back_and_undo(page, export):
    assert page.locator("#export").is_disabled()
    page.locator(".card button").first.focus()
    page.keyboard.press("l")
    page.keyboard.press("ArrowRight")
    page.keyboard.press("d")
    assert counted(page) == "1 liked, 1 disliked, 0 pairs"
    page.keyboard.press("l")  # a change of mind
    assert counted(page) == "2 liked, 0 disliked, 0 pairs"
    page.keyboard.press("u")
    assert counted(page) == "1 liked, 1 disliked, 0 pairs"
    page.keyboard.press("d")  # the same key takes it back
    assert counted(page) == "1 liked, 0 disliked, 0 pairs"
    page.keyboard.press("Control+z")
    assert counted(page) == "1 liked, 1 disliked, 0 pairs"
    assert said(export()) == {NAMES[0]: True, NAMES[1]: False}


def test_the_export_finds_its_pictures_and_knows_their_prompts(page, export, tmp_path):
    page.locator(".card button").first.focus()
    page.keyboard.press("l")
    (mark,) = export().marks
    assert (mark.picture.prompt, mark.scorer) == ("cats", "lite@1")
    assert mark.picture.digest == picture_digest(tmp_path / NAMES[0])
    assert find_picked([mark.picture]).paths == {mark.picture: tmp_path / NAMES[0]}


def test_marks_and_pairs_survive_a_reload_and_can_still_be_undone(page):
    page.locator(".card button").first.focus()
    page.keyboard.press("d")
    page.click("#compare")
    page.keyboard.press("ArrowRight")
    page.keyboard.press("Escape")
    page.reload()
    assert counted(page) == "0 liked, 1 disliked, 1 pair"
    pressed = page.locator('.card [data-mark="dislike"][aria-pressed="true"]')
    assert pressed.count() == 1
    page.click("#undo")
    assert counted(page) == "0 liked, 1 disliked, 0 pairs"
    page.click("#undo")
    assert counted(page) == "0 liked, 0 disliked, 0 pairs"
    assert page.locator("#undo").is_disabled()


def test_buttons_mark_without_opening_the_picture(page):
    card = page.locator(".card").nth(2)
    card.hover()
    card.locator('[data-mark="like"]').click()
    assert counted(page) == "1 liked, 0 disliked, 0 pairs"
    assert not page.locator("#viewer").is_visible()


def test_the_larger_view_marks_too(page):
    page.locator(".card button").nth(1).click()
    page.keyboard.press("l")
    assert page.locator('#viewer [data-mark="like"]').get_attribute("aria-pressed") == "true"
    page.keyboard.press("ArrowRight")
    assert page.locator('#viewer [data-mark="like"]').get_attribute("aria-pressed") == "false"
    page.locator('#viewer [data-mark="dislike"]').click()
    page.keyboard.press("Escape")
    assert counted(page) == "1 liked, 1 disliked, 0 pairs"


def test_filters_by_mark_and_goes_on_to_the_next_picture(page):
    page.locator(".card button").first.focus()
    page.keyboard.press("l")
    page.select_option("#mark-filter", "like")
    assert names(page) == NAMES[:1]
    page.select_option("#mark-filter", "none")
    assert names(page) == NAMES[1:]
    page.locator(".card button").first.focus()
    page.keyboard.press("d")
    assert names(page) == NAMES[2:]
    assert page.evaluate("document.activeElement.querySelector('.name')?.textContent") == NAMES[2]
    page.select_option("#mark-filter", "dislike")
    assert names(page) == [NAMES[1]]
    page.select_option("#mark-filter", "any")
    assert names(page) == NAMES


def test_pairs_are_of_one_prompt_each_once_until_none_is_left(page, export):
    page.click("#compare")
    left, right = (page.locator(f"#{side}-name").text_content() for side in ("left", "right"))
    assert PROMPTS[left] == PROMPTS[right]
    page.click("#right")
    other_left, other_right = (page.locator(f"#{side}-name").text_content() for side in ("left", "right"))
    assert PROMPTS[other_left] == PROMPTS[other_right] != PROMPTS[left]
    page.keyboard.press("1")
    assert page.locator("#two-up-done").is_visible()
    page.keyboard.press("u")
    assert {page.locator(f"#{side}-name").text_content() for side in ("left", "right")} == {other_left, other_right}
    page.keyboard.press("s")
    assert page.locator("#two-up-done").is_visible()
    page.click("#two-up-close")
    assert counted(page) == "0 liked, 0 disliked, 1 pair"
    (pair,) = export().pairs
    assert (Path(pair.better.path).name, Path(pair.worse.path).name) == (right, left)


def test_letters_typed_into_the_name_filter_mark_nothing(page):
    page.locator("#filter").press_sequentially("dl")
    assert counted(page) == "0 liked, 0 disliked, 0 pairs"
    assert page.locator("#filter").input_value() == "dl"


def test_a_report_of_nothing_but_failures_has_no_marking(browser, tmp_path):
    write_report(tmp_path / "report.html", [Record("a.png", None, None, None, None, "lite@1", "empty")], model=MODEL)
    page = browser.new_page()
    page.goto((tmp_path / "report.html").as_uri())
    assert not page.locator("#marking").is_visible()
    page.keyboard.press("l")
    page.close()
