import base64
import hashlib
import html
import io
import math
import random
import re
import subprocess
import sys
from collections.abc import Iterable
from html.parser import HTMLParser
from pathlib import Path
from typing import Any
from urllib.parse import unquote

import numpy as np
import pytest
from PIL import Image

from ma_agiqa_core.ranking import Ranking
from ma_agiqa_core.records.record import Record
from ma_agiqa_core.report import write_report
from ma_agiqa_core.report.histogram import make_histogram
from ma_agiqa_core.report.names import file_link, name_within, readable, shared_folder
from ma_agiqa_core.report.thumbnails import make_thumbnail, make_thumbnails, preview_size

MODEL = {
    "name": "lite",
    "revision": "1",
    "low": 0.0,
    "high": 100.0,
    "trained_on": "degraded photographs",
    "description": "A technical-quality scorer. It is not MA-AGIQA.",
    "relative": False,
}


def save_picture(path: Path, size: tuple[int, int] = (40, 30)) -> str:
    Image.new("RGB", size, "crimson").save(path)
    return str(path)


def record(
    path: str | Path, score: float | None, *, percentile: float | None = None, error: str | None = None
) -> Record:
    return Record(str(path), score, percentile, 40, 30, "lite@1", error)


class Page(HTMLParser):
    """The start tags and the text of a report."""

    def __init__(self, path: Path):
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.text = ""
        self.source = path.read_text(encoding="utf-8")
        self.feed(self.source)

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))

    def handle_data(self, data):
        self.text += data

    def all(self, tag: str) -> list[dict[str, str | None]]:
        return [attrs for name, attrs in self.tags if name == tag]

    @property
    def cards(self) -> list[dict[str, str | None]]:
        return [attrs for attrs in self.all("li") if (attrs.get("class") or "").startswith("card")]


def report(folder: Path, pictures: Iterable[Record] | Ranking[Record], model: Any = MODEL, **options: Any) -> Page:
    out = folder / "report.html"
    write_report(out, pictures, model=model, **options)
    return Page(out)


def test_records_in_any_order_are_ranked_best_first(tmp_path):
    path = save_picture(tmp_path / "a.png")
    page = report(tmp_path, [record(path, score) for score in (20.0, 90.0, 55.5)])
    assert [card["data-score"] for card in page.cards] == ["90.0", "55.5", "20.0"]
    assert [card["data-rank"] for card in page.cards] == ["1", "2", "3"]


def test_ties_put_kept_before_rejected_and_otherwise_keep_their_order(tmp_path):
    b, a, d, c = (record(save_picture(tmp_path / f"{name}.png"), 50.0) for name in "badc")
    page = report(tmp_path, Ranking(kept=(b, a), rejected=(d, c), failed=()))
    assert [Path(card["data-path"] or "").name for card in page.cards] == ["b.png", "a.png", "d.png", "c.png"]


def test_the_header_says_what_made_the_scores_and_counts_everything(tmp_path):
    path = save_picture(tmp_path / "a.png")
    kept, rejected = (record(path, 80.0),) * 3, (record(path, 20.0),) * 2
    failed = (record("gone.png", None, error="file is empty"),)
    page = report(tmp_path, Ranking(kept, rejected, failed), threshold=50.0)
    text = " ".join(page.text.split())
    assert "lite@1" in text
    assert "It is not MA-AGIQA." in text
    assert "Kept3" in text.replace(" ", "")
    assert "Rejected2" in text.replace(" ", "")
    assert "Failed1" in text.replace(" ", "")
    assert "Threshold50.0" in text.replace(" ", "")


def test_percentiles_are_rounded_down_and_left_out_when_unknown(tmp_path):
    path = save_picture(tmp_path / "a.png")
    page = report(tmp_path, [record(path, 2.0, percentile=99.97), record(path, 1.0, percentile=None)])
    assert re.findall(r"better than (\d+)\xa0%", page.text) == ["99"]


@pytest.mark.parametrize(
    ("low", "high", "shown"),
    [(0, 1, "0.714"), (1, 5, "0.71"), (0, 100, "0.7"), (-math.inf, math.inf, "0.714")],
)
def test_scores_show_three_digits_of_the_models_range(tmp_path, low, high, shown):
    path = save_picture(tmp_path / "a.png")
    page = report(tmp_path, [record(path, 0.714159)], model={**MODEL, "low": low, "high": high})
    assert f"Score {shown} " in " ".join(page.text.split())


def test_a_scorer_info_object_describes_the_model_as_well(tmp_path):
    class Info:
        name, revision, low, high, relative = "clip", "r7", 0.0, 1.0, True
        trained_on, description = "pairs", ""

    page = report(tmp_path, [record(save_picture(tmp_path / "a.png"), 0.5)], model=Info())
    assert "clip@r7" in page.text
    assert "compare the pictures of this group" in page.text


def test_foreign_text_is_escaped_wherever_it_appears(tmp_path):
    nasty = """</script></style><img src=x onerror=alert(1)>"'&"""
    records = [record(nasty, 3.0), record(tmp_path / "b.png", None, error=nasty)]
    page = report(tmp_path, records, model=dict.fromkeys(MODEL, nasty) | {"low": 0, "high": 9}, title=nasty)
    assert not any("onerror" in attrs for _, attrs in page.tags)
    assert len(page.all("script")) == 1
    assert page.source.count("</script>") == 1
    assert any(card["data-path"] == nasty for card in page.cards)
    assert nasty in html.unescape(page.text)


@pytest.mark.parametrize("name", ["日本語 🖼.png", "مرحبا.png", "$(rm -rf) `x`; 'q' \"d\" & #1%41?.png", " x.png"])
def test_unusual_file_names_are_shown_and_linked(tmp_path, name):
    if sys.platform == "win32" and set(name) & set('"?'):
        pytest.skip("Windows has no such file name")
    page = report(tmp_path, [record(save_picture(tmp_path / name), 1.0)])
    assert page.cards[0]["data-path"] == str(tmp_path / name)
    assert page.all("img")[0]["src"]
    assert tmp_path.joinpath(unquote(page.cards[0]["data-link"] or "")).exists()


def test_the_policy_names_the_only_script_and_style_by_hash(tmp_path):
    page = report(tmp_path, [record(save_picture(tmp_path / "a.png"), 1.0)])
    policy = next(a["content"] for a in page.all("meta") if a.get("http-equiv") == "Content-Security-Policy")
    assert policy is not None
    assert "default-src 'none'" in policy
    assert "img-src data:;" in policy
    assert "unsafe" not in policy
    for tag in ("script", "style"):
        (content,) = re.findall(rf"<{tag}>(.*?)</{tag}>", page.source, re.DOTALL)
        digest = base64.b64encode(hashlib.sha256(content.encode()).digest()).decode()
        assert f"{tag}-src 'sha256-{digest}'" in policy


def test_nothing_points_outside_the_file(tmp_path):
    page = report(tmp_path, [record(save_picture(tmp_path / "a.png"), 1.0)])
    for _, attrs in page.tags:
        assert not {"style", "srcset"} & set(attrs)
        for key in {"src", "href"} & set(attrs):
            assert (attrs[key] or "").startswith(("data:", "#"))
    assert "http://" not in page.source
    assert "https://" not in page.source


def test_failed_pictures_are_listed_with_their_reason(tmp_path):
    records = [
        record(tmp_path / "a.png", None, error="file is empty"),
        record(tmp_path / "b.png", math.nan),
        record(tmp_path / "c.png", math.inf),
    ]
    page = report(tmp_path, records)
    assert page.cards == []
    assert "file is empty" in page.text
    assert page.text.count("The scorer gave no finite score.") == 2


def test_a_picture_that_vanished_keeps_its_score_and_says_why_it_is_missing(tmp_path):
    page = report(tmp_path, [record(tmp_path / "gone.png", 7.0)])
    assert len(page.cards) == 1
    assert "No preview: no such file" in page.text
    assert page.all("img") == []


def test_no_pictures_at_all_still_make_a_page(tmp_path):
    assert "There are no pictures" in report(tmp_path, []).text


def test_more_pictures_than_allowed_show_both_ends_with_true_ranks(tmp_path):
    path = save_picture(tmp_path / "a.png")
    scores = [float(i) for i in range(1000)]
    random.Random(0).shuffle(scores)
    kept, rejected = (tuple(record(path, s) for s in scores if (s >= 500) is is_good) for is_good in (True, False))
    page = report(tmp_path, Ranking(kept, rejected, ()), max_pictures=7)
    assert [card["data-score"] for card in page.cards] == [
        "999.0",
        "998.0",
        "997.0",
        "996.0",
        "2.0",
        "1.0",
        "0.0",
    ]
    assert [card["data-rank"] for card in page.cards] == ["1", "2", "3", "4", "998", "999", "1000"]
    assert "the best 4 and the worst 3 are shown; 993 between them are left out" in page.text
    assert "Kept500" in "".join(page.text.split())


def test_failed_pictures_beyond_the_limit_are_counted(tmp_path):
    page = report(tmp_path, [record(f"{i}.png", None, error="broken") for i in range(9)], max_pictures=4)
    assert page.text.count("broken") == 4
    assert "and 5 more." in page.text


def test_a_limit_below_two_is_refused(tmp_path):
    with pytest.raises(ValueError, match="max_pictures of at least 2, got 1"):
        write_report(tmp_path / "r.html", [], model=MODEL, max_pictures=1)


def test_a_failed_run_leaves_the_old_report_and_no_partial_file(tmp_path):
    out = tmp_path / "report.html"
    out.write_text("old")

    def broken_records():
        yield record("a.png", 1.0)
        raise RuntimeError("interrupted")

    with pytest.raises(RuntimeError, match="interrupted"):
        write_report(out, broken_records(), model=MODEL)
    assert [path.name for path in tmp_path.iterdir()] == ["report.html"]
    assert out.read_text() == "old"


def test_missing_parent_folders_are_made_and_an_old_report_is_replaced(tmp_path):
    out = tmp_path / "new" / "deep" / "report.html"
    for title in ("first", "second"):
        write_report(out, [], model=MODEL, title=title)
    assert "<h1>second</h1>" in out.read_text(encoding="utf-8")
    assert len(list(out.parent.iterdir())) == 1


def test_importing_the_report_imports_no_torch():
    code = "import sys, ma_agiqa_core.report; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


# --- thumbnails ---------------------------------------------------------------------------------------


def decode(uri: str) -> Image.Image:
    return Image.open(io.BytesIO(base64.b64decode(uri.removeprefix("data:image/jpeg;base64,"))))


def test_a_thumbnail_is_small_upright_and_white_behind_transparency(tmp_path):
    exif = Image.Exif()
    exif[0x0112] = 6  # turn by 90 degrees to see it upright
    Image.new("RGB", (400, 200), "red").save(tmp_path / "turned.jpg", exif=exif)
    turned = make_thumbnail(str(tmp_path / "turned.jpg"), 100, 80)
    assert (turned.width, turned.height) == (50, 100)
    assert decode(turned.uri).size == (50, 100)

    Image.new("RGBA", (30, 20), (0, 0, 0, 0)).save(tmp_path / "clear.png")
    clear = make_thumbnail(str(tmp_path / "clear.png"), 100, 80)
    assert (clear.width, clear.height) == (30, 20)  # never enlarged
    assert np.asarray(decode(clear.uri)).min() > 250


def test_thumbnails_keep_their_order_and_bear_unreadable_files(tmp_path):
    paths = [save_picture(tmp_path / f"{i}.png", size=(10 + i, 10)) for i in range(20)]
    (tmp_path / "7.png").write_bytes(b"no picture")
    made = list(make_thumbnails(paths, workers=3))
    assert [t.width for t in made] == [0 if i == 7 else 10 + i for i in range(20)]
    assert made[7].error == "not a picture Pillow can read"


def test_two_thousand_previews_take_about_eight_kilobytes_each(tmp_path):
    rows, columns = np.mgrid[0:600, 0:800]
    noise = np.random.default_rng(0).normal(0, 12, (600, 800, 3))
    picture = 128 + 60 * np.sin(rows / 23)[..., None] * np.cos(columns / 31)[..., None] + noise
    Image.fromarray(picture.clip(0, 255).astype(np.uint8)).save(tmp_path / "a.png")
    side, quality = preview_size(2000)
    assert len(make_thumbnail(str(tmp_path / "a.png"), side, quality).uri) < 14_000
    assert preview_size(10)[0] > preview_size(300)[0] > side


# --- histogram ----------------------------------------------------------------------------------------


def test_every_score_is_in_exactly_one_bar():
    scores = np.random.default_rng(3).normal(60, 12, 997)
    rejected = scores < 50
    histogram = make_histogram(scores.tolist(), rejected.tolist(), 50.0)
    assert sum(bar.kept for bar in histogram.bars) == int((~rejected).sum())
    assert sum(bar.rejected for bar in histogram.bars) == int(rejected.sum())
    for bar in histogram.bars:
        inside = (scores >= float(bar.low)) & (scores < float(bar.high))
        assert bar.kept + bar.rejected == int(inside.sum())


@pytest.mark.parametrize(
    "scores",
    [[5.0], [0.0, 0.0], [-3.0] * 40, [1e9, 1e9 + 1], [1e-9, 2e-9], [-1e6, 1e6], [0.1 * i for i in range(11)]],
)
def test_any_scores_give_a_histogram_that_fits(scores):
    histogram = make_histogram(scores, [False] * len(scores))
    assert sum(bar.kept for bar in histogram.bars) == len(scores)
    assert all(bar.kept_height + bar.rejected_height <= 100 + 1e-9 for bar in histogram.bars)
    assert histogram.bars[-1].left + histogram.bars[-1].width == pytest.approx(100)
    for tick in histogram.score_ticks + histogram.count_ticks:
        assert -1e-6 <= tick.position <= 100 + 1e-6
    assert len(histogram.score_ticks) <= 7
    assert histogram.threshold is None


def test_the_threshold_stands_where_its_score_is():
    histogram = make_histogram([40.0, 60.0, 80.0], [True, False, False], 50.0)
    below = [tick for tick in histogram.score_ticks if tick.label == "50"]
    assert histogram.threshold == pytest.approx(below[0].position)
    assert histogram.threshold_side == ""


def test_nearly_equal_scores_are_not_spread_over_the_whole_axis():
    histogram = make_histogram([50.0, 50.01], [False, False], least_span=10.0)
    assert [bar.kept for bar in histogram.bars if bar.kept] == [2]
    assert float(histogram.bars[-1].high) - float(histogram.bars[0].low) >= 10


@pytest.mark.parametrize(("threshold", "position", "side"), [(900.0, 100.0, "above"), (-900.0, 0.0, "below")])
def test_a_threshold_far_from_all_scores_does_not_squeeze_them(threshold, position, side):
    histogram = make_histogram([40.0, 60.0, 80.0], [False] * 3, threshold)
    assert (histogram.threshold, histogram.threshold_side) == (position, side)


# --- names --------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("plain name.png", "plain name.png"),
        ("two\nlines\t.png", r"two\nlines\t.png"),
        ("gpj.\u202eevil.png", r"gpj.\u202eevil.png"),
        ("می\u200cخواهم.png", "می\u200cخواهم.png"),
    ],
)
def test_names_are_one_readable_line(text, shown):
    assert readable(text) == shown


@pytest.mark.skipif(sys.platform == "win32", reason="Windows file names are Unicode")
def test_undecodable_bytes_become_escapes():
    assert readable(b"a\xff.png".decode("utf-8", "surrogateescape")) == r"a\xff.png"


def test_links_are_relative_to_the_report_and_quoted(tmp_path):
    picture = tmp_path / "pictures" / "a b#1.png"
    assert file_link(str(picture), tmp_path) == "pictures/a%20b%231.png"
    assert file_link(str(picture), tmp_path / "reports") == "../pictures/a%20b%231.png"
    assert file_link(str(tmp_path / "javascript:alert(1)"), tmp_path) == "javascript%3Aalert%281%29"


def test_names_lose_only_the_folder_all_share():
    paths = [str(Path("x", "y", "a.png")), str(Path("x", "z", "b.png"))]
    assert shared_folder(paths) == "x"
    assert name_within(paths[0], "x") == str(Path("y", "a.png"))
    assert shared_folder([]) == ""
    assert shared_folder([str(Path("a.png").resolve()), "b.png"]) == ""
