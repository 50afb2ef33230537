"""The report in a real browser: Debian's chromium, driven by playwright, with no network."""

import math
import shutil
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from PIL import Image

from ma_agiqa_core.ranking import Ranking, order_by_score
from ma_agiqa_core.records.record import Record
from ma_agiqa_core.report import write_report

sync_api = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
CHROMIUM = shutil.which("chromium")
pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="chromium is not installed: the report was not opened")

MODEL = {
    "name": "lite",
    "revision": "1",
    "low": 0.0,
    "high": 100.0,
    "trained_on": "",
    "description": "",
    "relative": False,
}
# (name, score, side in pixels); the two scores of 60 are a tie
PICTURES = [
    ("cat 10.png", 60.0, 40),
    ("cat 9.png", 60.0, 20),
    ("Ærø 日本.png", 90.0, 10),
    ("$(dog) & 'co'.png", 30.0, 60),
    ("bird.png", 75.0, 30),
    ("fox.png", 45.0, 50),
]
BY_SCORE = ["Ærø 日本.png", "bird.png", "cat 10.png", "cat 9.png", "fox.png", "$(dog) & 'co'.png"]


def record(
    path: Path | str, score: float | None, width: int = 0, height: int = 0, *, error: str | None = None
) -> Record:
    return Record(str(path), score, None if error else score, width, height, "lite@1", error)


def ranked(records: list[Record], min_score: float) -> Ranking[Record]:
    return order_by_score(
        records, [math.nan if record.score is None else record.score for record in records], min_score=min_score
    )


@pytest.fixture(scope="module")
def browser(chromium_tools: ModuleType) -> Iterator[Any]:
    with chromium_tools.browser() as browser:
        yield browser


@pytest.fixture(scope="module")
def report_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("report")
    records = []
    for i, (name, score, side) in enumerate(PICTURES):
        Image.new("RGB", (side, side), (40 * i, 80, 160)).save(folder / name)
        records.append(record(folder / name, score, side, side))
    records.append(record(folder / "cat broken.png", math.nan, error="file is empty"))
    write_report(folder / "report.html", ranked(records, 50.0), model=MODEL, threshold=50.0)
    return folder / "report.html"


@pytest.fixture
def page(browser, report_file):
    """The report, opened; fails a test whose page asked for anything but itself or logged an error."""
    page = browser.new_page(viewport={"width": 1000, "height": 800})
    page.set_default_timeout(10_000)
    requests, complaints = [], []
    page.on("request", lambda request: requests.append(request.url))
    page.on("console", lambda message: complaints.append(message.text))
    page.on("pageerror", lambda error: complaints.append(str(error)))
    page.goto(report_file.as_uri())
    yield page
    page.close()
    assert [url for url in requests if not url.startswith("data:")] == [report_file.as_uri()]
    assert complaints == []


def names(page: Any) -> list[str]:
    return page.locator(".card .name").all_text_contents()


def focused_name(page: Any) -> str:
    return page.evaluate("document.activeElement.querySelector('.name')?.textContent")


def wait_until_focused(page: Any, name: str) -> None:
    """For the focus that a closing dialog gives back: browsers report `close` in a task of its own, a moment later."""
    page.wait_for_function("name => document.activeElement.querySelector('.name')?.textContent === name", arg=name)


def test_opens_ranked_with_every_picture_decoded(page):
    assert names(page) == BY_SCORE
    assert page.locator("#shown").text_content() == "Showing 7 of 7 pictures"
    assert page.evaluate("[...document.images].every((i) => i.complete && i.naturalWidth > 0)")
    assert page.get_by_role("img", name="Histogram of scores").is_visible()


def test_sorts_by_score_name_and_size_both_ways_and_keeps_ties_in_rank_order(page):
    page.click("#order")
    assert names(page) == [
        "$(dog) & 'co'.png",
        "fox.png",
        "cat 10.png",
        "cat 9.png",
        "bird.png",
        "Ærø 日本.png",
    ]
    page.select_option("#sort", "name")
    ascending = names(page)
    assert ascending.index("cat 9.png") < ascending.index("cat 10.png") < ascending.index("fox.png")
    page.click("#order")
    assert names(page) == ascending[::-1]
    page.select_option("#sort", "size")
    assert names(page)[0] == "$(dog) & 'co'.png"
    page.click("#order")
    assert names(page)[0] == "Ærø 日本.png"
    page.select_option("#sort", "score")
    assert names(page) == BY_SCORE


def test_filters_by_name_and_announces_how_many_are_shown(page):
    page.fill("#filter", "CAT")
    assert names(page) == ["cat 10.png", "cat 9.png"]
    assert page.locator("#failures li").count() == 1
    assert page.locator("#shown").text_content() == "Showing 3 of 7 pictures"
    page.fill("#filter", "no such picture")
    assert page.get_by_text("No picture matches.").is_visible()
    page.get_by_role("button", name="Show all").click()
    assert names(page) == BY_SCORE


def test_filters_by_kept_rejected_and_failed(page):
    page.get_by_label("Kept", exact=True).check()
    assert names(page) == BY_SCORE[:4]
    assert page.locator("#failures").is_hidden()
    page.get_by_label("Rejected", exact=True).check()
    assert names(page) == BY_SCORE[4:]
    page.get_by_label("Failed", exact=True).check()
    assert names(page) == []
    assert page.get_by_text("file is empty").is_visible()
    assert page.locator("#shown").text_content() == "Showing 1 of 7 pictures"


def test_kept_and_rejected_differ_by_more_than_colour(page):
    badges = page.locator(".card .badge").all_text_contents()
    assert badges == ["Kept"] * 4 + ["Rejected"] * 2


def test_arrows_move_between_cards_and_tab_enters_the_grid_once(page):
    page.focus("#order")
    page.keyboard.press("Tab")
    assert focused_name(page) == BY_SCORE[0]
    page.keyboard.press("ArrowRight")
    page.keyboard.press("ArrowRight")
    assert focused_name(page) == BY_SCORE[2]
    page.keyboard.press("ArrowLeft")
    assert focused_name(page) == BY_SCORE[1]
    page.keyboard.press("End")
    assert focused_name(page) == BY_SCORE[-1]
    page.keyboard.press("ArrowRight")
    assert focused_name(page) == BY_SCORE[-1]
    columns = page.evaluate("getComputedStyle(cards).gridTemplateColumns.split(' ').length")
    page.keyboard.press("ArrowUp")
    assert focused_name(page) == BY_SCORE[len(BY_SCORE) - 1 - columns]
    page.keyboard.press("Home")
    assert focused_name(page) == BY_SCORE[0]
    page.keyboard.press("Shift+Tab")
    assert page.evaluate("document.activeElement.id") == "order"


def test_focus_is_visible(page):
    page.focus("#order")
    page.keyboard.press("Tab")
    assert page.evaluate("getComputedStyle(document.activeElement.closest('.card')).outlineStyle") == "solid"


def test_enter_opens_the_larger_view_and_escape_returns_to_the_card_shown_last(page):
    page.focus(".card button")
    page.keyboard.press("Enter")
    viewer = page.get_by_role("dialog", name=BY_SCORE[0])
    assert viewer.is_visible()
    assert viewer.get_by_text("better than 90").is_visible()
    page.keyboard.press("ArrowRight")
    assert page.locator("#viewer-name").text_content() == BY_SCORE[1]
    assert page.locator("#viewer img").get_attribute("alt") == BY_SCORE[1]
    page.keyboard.press("Escape")
    assert page.locator("#viewer").is_hidden()
    wait_until_focused(page, BY_SCORE[1])


def test_the_larger_view_links_the_file_itself(page, report_file):
    for position, name in enumerate(BY_SCORE):
        page.locator(".card button").nth(position).click()
        link = page.evaluate("document.getElementById('viewer-link').href")
        assert link == page.evaluate("(url) => new URL(url).href", (report_file.parent / name).as_uri())
        page.keyboard.press("Escape")


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_follows_the_systems_theme_and_can_be_switched(browser, report_file, scheme):
    with browser.new_page(color_scheme=scheme) as page:
        page.goto(report_file.as_uri())
        brightness = "Number(getComputedStyle(document.body).backgroundColor.match(/\\d+/)[0])"
        assert (page.evaluate(brightness) > 128) == (scheme == "light")
        page.click("#theme")
        assert (page.evaluate(brightness) > 128) == (scheme == "dark")


def test_a_phone_scrolls_only_downwards(browser, report_file):
    with browser.new_page(viewport={"width": 390, "height": 844}) as page:
        page.goto(report_file.as_uri())
        assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")
        assert page.evaluate("getComputedStyle(cards).gridTemplateColumns.split(' ').length") == 2


def test_readable_without_scripts(browser, report_file):
    with browser.new_page(java_script_enabled=False) as page:
        page.goto(report_file.as_uri())
        assert page.locator(".card .name").all_text_contents() == BY_SCORE
        assert page.locator(".toolbar").is_hidden()


def test_foreign_markup_runs_nothing(browser, tmp_path):
    name = "<img src=x onerror=document.title='owned'>.png"
    records = [
        record(name, 5.0, 1, 1),
        record("</script><script>document.title='owned'</script>", None, error=name),
    ]
    write_report(
        tmp_path / "r.html", ranked(records, 5.0), model={**MODEL, "description": name}, title="</title>" + name
    )
    with browser.new_page() as page:
        page.goto((tmp_path / "r.html").as_uri())
        page.locator(".card button").click()
        assert page.locator("#viewer-name").text_content() == name
        assert page.title() == "</title>" + name


@pytest.mark.long
def test_two_thousand_pictures_filter_and_sort_in_time(browser, tmp_path):
    Image.new("RGB", (64, 48), "teal").save(tmp_path / "a.png")
    records = [record(tmp_path / "a.png", i / 20, 64, 48) for i in range(2000)]
    write_report(tmp_path / "r.html", ranked(records, 900.5 / 20), model=MODEL)
    with browser.new_page() as page:
        page.goto((tmp_path / "r.html").as_uri())
        assert page.locator("#shown").text_content() == "Showing 2,000 of 2,000 pictures"
        page.get_by_label("Rejected", exact=True).check()
        assert page.locator("#shown").text_content() == "Showing 901 of 2,000 pictures"
        page.click("#order")
        assert page.locator(".card .rank").first.text_content() == "Rank 2000"
