"""The commands as their users meet them: what is printed, written, copied and refused."""

import json
import os
import sys
from collections import Counter
from collections.abc import Callable
from dataclasses import asdict, astuple
from pathlib import Path
from typing import Any

import pytest

from ma_agiqa_core.records.picture_state import PictureState, picture_state
from ma_agiqa_core.records.record import read_records

MakePicture = Callable[[Path, int], Path]


def state_of(path: str) -> PictureState:
    state = picture_state(path)
    assert state is not None
    return state


def test_score_prints_an_aligned_table_and_a_summary(folder: Path, run: Any) -> None:
    code, out, err = run("score", "photos")

    assert code == 1
    assert out.splitlines() == [
        "SCORE  BETTER THAN  PICTURE",
        "0.200         20 %  photos/a.png",
        "0.800         80 %  photos/b.png",
        "    -            -  photos/broken.png  (not a picture Pillow can read)",
        "0.400         40 %  photos/sub/c.png",
    ]
    assert err.startswith("3 of 4 pictures scored by lite (0 to 1, higher is better), ")
    assert err.endswith(" a second; 1 failed.\n")


def test_score_json_is_all_there_is_on_stdout(folder: Path, run: Any) -> None:
    code, out, _ = run("score", "photos", "--json")
    answer = json.loads(out, parse_constant=pytest.fail)

    assert code == 1
    assert set(answer) == {"model", "records"}
    assert set(answer["model"]) == {
        *("name", "revision", "low", "high", "trained_on", "needs_prompt", "relative", "description"),
        *("targets", "target"),
    }
    assert answer["records"][0] == {
        "index": 0,
        "path": "photos/a.png",
        "score": pytest.approx(0.2),
        "percentile": pytest.approx(20),
        "width": 12,
        "height": 8,
        "model": "lite@1",
        "error": None,
        "prompt": None,
        **asdict(state_of("photos/a.png")),
    }
    broken = answer["records"][2]
    assert (broken["score"], broken["percentile"], broken["width"]) == (None, None, None)
    assert broken["error"] == "not a picture Pillow can read"
    assert [record["index"] for record in answer["records"]] == [0, 1, 2, 3]


@pytest.mark.parametrize("suffix", [".csv", ".jsonl", ".parquet"])
def test_score_writes_records(folder: Path, run: Any, suffix: str) -> None:
    out = folder / f"scores{suffix}"
    code, printed, err = run("score", "photos", "--out", out)

    assert (code, printed) == (1, "")
    assert err.splitlines()[0] == "photos/broken.png: not a picture Pillow can read"
    assert err.splitlines()[-1] == f"Records: {out}"
    assert [astuple(record)[:7] for record in read_records(out)] == [
        ("photos/a.png", 0.2, 20.0, 12, 8, "lite@1", None),
        ("photos/b.png", 0.8, 80.0, 12, 8, "lite@1", None),
        ("photos/broken.png", None, None, None, None, "lite@1", "not a picture Pillow can read"),
        ("photos/sub/c.png", 0.4, 40.0, 12, 8, "lite@1", None),
    ]
    assert [(record.prompt, record.modified, record.digest) for record in read_records(out)] == [
        (None, *astuple(state_of(f"photos/{name}.png"))) for name in ("a", "b", "broken", "sub/c")
    ]


def test_score_shows_only_the_first_errors_of_many(folder: Path, run: Any) -> None:
    for i in range(25):
        (folder / "photos" / f"empty{i:02}.png").touch()

    code, _, err = run("score", "photos", "--out", "scores.csv", "--batch-size", 4)

    assert code == 1
    assert err.count("file is empty") == 9  # after the broken one
    assert "Further errors are in the records." in err
    assert "3 of 29 pictures scored" in err


@pytest.mark.parametrize("suffix", [".csv", ".jsonl", ".parquet"])
def test_resume_scores_what_is_missing_and_tries_errors_again(
    folder: Path, run: Any, make_picture: MakePicture, suffix: str
) -> None:
    out = folder / f"scores{suffix}"
    run("score", "photos/a.png", "photos/broken.png", "--out", out)
    make_picture(folder / "photos" / "broken.png", 255)

    code, printed, err = run("score", "photos", "--out", out, "--resume", "--json")

    assert code == 0
    assert [record["path"] for record in json.loads(printed)["records"]] == [
        *("photos/b.png", "photos/broken.png", "photos/sub/c.png")
    ]
    assert "3 of 3 pictures scored" in err
    assert {record.path: record.score for record in read_records(out)} == {
        "photos/a.png": 0.2,
        "photos/b.png": 0.8,
        "photos/broken.png": 1.0,
        "photos/sub/c.png": 0.4,
    }


def test_resume_with_nothing_left_is_done(folder: Path, run: Any) -> None:
    run("score", "photos/sub", "--out", "scores.csv")
    before = Path("scores.csv").read_bytes()

    code, _, err = run("score", "photos/sub", "--out", "scores.csv", "--resume")

    assert code == 0
    assert "0 of 0 pictures" not in err
    assert "Nothing left to score" in err
    assert Path("scores.csv").read_bytes() == before


@pytest.mark.parametrize("options", [["--model", "lite@2"], ["--model", "lite@1b"]])
def test_resume_refuses_another_scorer(folder: Path, run: Any, options: list[str]) -> None:
    run("score", "photos", "--out", "scores.csv")
    before = Path("scores.csv").read_bytes()

    code, out, err = run("score", "photos", "--out", "scores.csv", "--resume", *options)

    assert (code, out) == (2, "")
    assert err.startswith("ma-agiqa: Expected scores.csv to hold scores of lite@")
    assert err.count("\n") == 1
    assert Path("scores.csv").read_bytes() == before


def test_rank_prints_best_first(folder: Path, run: Any) -> None:
    code, out, _ = run("rank", "photos")

    assert code == 1
    assert out.splitlines() == [
        "RANK  SCORE  BETTER THAN  PICTURE",
        "   1  0.800         80 %  photos/b.png",
        "   2  0.400         40 %  photos/sub/c.png",
        "   3  0.200         20 %  photos/a.png",
        "   -      -            -  photos/broken.png  (not a picture Pillow can read)",
    ]


def test_rank_says_what_is_kept(folder: Path, run: Any) -> None:
    code, out, _ = run("rank", "photos/a.png", "photos/b.png", "photos/sub", "--top", 1)

    assert code == 0
    assert out.splitlines() == [
        "RANK  VERDICT   SCORE  BETTER THAN  PICTURE",
        "   1  kept      0.800         80 %  photos/b.png",
        "   2  rejected  0.400         40 %  photos/sub/c.png",
        "   3  rejected  0.200         20 %  photos/a.png",
    ]


def test_rank_json(folder: Path, run: Any) -> None:
    code, out, _ = run("rank", "photos", "--min-score", 0.3, "--json")
    answer = json.loads(out, parse_constant=pytest.fail)

    assert code == 1
    assert set(answer) == {"model", "kept", "rejected", "failed"}
    assert [(entry["index"], entry["path"]) for entry in answer["kept"]] == [
        (1, "photos/b.png"),
        (3, "photos/sub/c.png"),
    ]
    assert [entry["score"] for entry in answer["rejected"]] == [0.2]
    assert answer["failed"][0]["error"] == "not a picture Pillow can read"
    assert set(answer["failed"][0]) >= {"index", "path", "score", "percentile", "error", "width", "height"}


def test_rank_keeping_nothing_is_no_failure(folder: Path, run: Any) -> None:
    code, out, _ = run("rank", "photos/sub", "--min-score", 0.9, "--json")

    assert code == 0
    assert json.loads(out)["kept"] == []


def test_rank_copies_the_best_and_leaves_the_sources(folder: Path, run: Any, make_picture: MakePicture) -> None:
    make_picture(folder / "photos" / "sub" / "b.png", 230)
    before = {path: path.read_bytes() for path in (folder / "photos").rglob("*.png")}

    for _ in range(2):
        code, _, err = run("rank", "photos", "--top", 2, "--copy-best", "new/best")

    assert code == 1
    assert "Copied to new/best: 2" in err
    assert {path: path.read_bytes() for path in (folder / "photos").rglob("*.png")} == before
    copies = {path.name: path.read_bytes() for path in (folder / "new" / "best").iterdir()}
    best, second = before[folder / "photos" / "sub" / "b.png"], before[folder / "photos" / "b.png"]
    assert copies == {"b.png": best, "b (2).png": second}
    assert "2 of which were already there" in err


def test_copies_do_not_compete_with_their_originals(folder: Path, run: Any) -> None:
    kept = []
    for _ in range(2):
        _, out, err = run("rank", "photos", "--top", 2, "--copy-best", "photos/best", "--json")
        kept.append([entry["path"] for entry in json.loads(out)["kept"]])

    assert kept[0] == kept[1]
    assert "left out the pictures in photos/best (2): that is where copies go" in err
    assert len(list((folder / "photos" / "best").iterdir())) == 2
    _, _, err = run("rank", "photos", "--top", 1, "--copy-best", "photos/best")
    assert "Copied to photos/best: 1, 1 of which were already there; 1 other files were already there" in err
    code, _, err = run("rank", "photos/best", "--copy-best", "photos/best")
    assert code == 2
    assert "Expected pictures outside of photos/best, got photos/best. Copy into another folder." in err


def test_a_folder_without_pictures_says_what_is_there(folder: Path, run: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pillow_heif", None)
    (folder / "phone").mkdir()
    for name in ("1.heic", "2.HEIC", "3.NEF", "film.mp4", "list.txt"):
        (folder / "phone" / name).write_bytes(b"x")

    code, _, err = run("score", "phone")

    assert code == 2
    assert "Expected pictures in phone, got 2 .heic (to read them: pip install pillow-heif)" in err
    for part in ("1 .nef (camera raw, not read: develop them first)", "1 .mp4 (video, not read", "1 .txt"):
        assert part in err


def test_files_that_a_plug_in_would_read_are_not_passed_over_in_silence(folder: Path, run: Any) -> None:
    for name in ("1.heic", "2.HEIC", "list.txt"):
        (folder / "photos" / name).write_bytes(b"x")

    _, out, err = run("rank", "photos", "--top", 1)

    assert "left out 2 .heic (to read them: pip install pillow-heif)" in err
    assert ".txt" not in out + err


def test_rank_compares_the_whole_group_for_a_relative_scorer(folder: Path, run: Any) -> None:
    code, out, _ = run("rank", "photos", "--model", "relative", "--batch-size", 1, "--json")

    assert code == 1
    assert [(entry["score"], entry["percentile"]) for entry in json.loads(out)["kept"]] == [
        *((0.8, None), (0.4, None), (0.2, None))
    ]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["score", "--model", "relative"], "scale of its own to score pictures one by one, got relative"),
        (["rank", "--model", "relative", "--min-score", "1"], "for --min-score, got relative"),
    ],
)
def test_relative_scorer_has_no_scale(folder: Path, run: Any, arguments: list[str], message: str) -> None:
    code, out, err = run(*arguments, "photos")

    assert (code, out) == (2, "")
    assert message in err


@pytest.mark.parametrize("options", [[], ["--out", "scores.csv"], ["--json"]])
def test_score_report_shows_every_picture(folder: Path, run: Any, options: list[str]) -> None:
    code, _, err = run("score", "photos", "--report", "report.html", *options)

    assert code == 1
    assert "Report: report.html" in err
    page = Path("report.html").read_text(encoding="utf-8")
    assert all(name in page for name in ("a.png", "b.png", "c.png", "broken.png", "not a picture Pillow can read"))


def test_resumed_report_shows_the_whole_output(folder: Path, run: Any) -> None:
    run("score", "photos/a.png", "--out", "scores.parquet")
    run("score", "photos", "--out", "scores.parquet", "--resume", "--report", "report.html")

    page = Path("report.html").read_text(encoding="utf-8")
    assert all(name in page for name in ("a.png", "b.png", "c.png", "broken.png"))


@pytest.mark.parametrize(
    "command",
    [
        ["score", "photos", "--out", "scores.csv", "--resume"],
        ["rank", "photos"],
        ["rank", "photos", "--top", "1", "--copy-best", "photos/best"],
    ],
    ids=" ".join,
)
def test_every_folder_is_listed_once(folder: Path, run: Any, monkeypatch: Any, command: list[str]) -> None:
    run(*command)  # so that there is something to resume, or to leave out
    scandir, listed = os.scandir, Counter[str]()

    def counting(path: Any) -> Any:
        listed[Path(path).name] += 1
        return scandir(path)

    monkeypatch.setattr(os, "scandir", counting)
    run(*command)
    assert listed["photos"] == listed["sub"] == 1
    assert set(listed.values()) == {1}


def test_rank_report_marks_kept_and_rejected(folder: Path, run: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    from ma_agiqa_core import report

    written: list[Any] = []
    monkeypatch.setattr(report, "write_report", lambda out, pictures, **rest: written.append((pictures, rest)))
    run("rank", "photos", "--min-score", 0.3, "--report", "report.html")
    run("rank", "photos", "--report", "report.html")

    ranking, rest = written[0]
    states = ("kept", "rejected", "failed")
    names = {state: {Path(record.path).name for record in getattr(ranking, state)} for state in states}
    assert names == {"kept": {"b.png", "c.png"}, "rejected": {"a.png"}, "failed": {"broken.png"}}
    assert rest["threshold"] == 0.3
    assert {Path(record.path).name for record in written[1][0]} == {"a.png", "b.png", "c.png", "broken.png"}


def test_demo_ranks_what_the_package_carries(
    tmp_path: Path, run: Any, make_picture: MakePicture, monkeypatch: pytest.MonkeyPatch
) -> None:
    from ma_agiqa_core import demo

    def write_demo_pictures(folder: Path) -> list[Path]:
        return [make_picture(folder / f"{name}.png", value) for name, value in (("blurred", 51), ("sharp", 204))]

    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(demo, "write_demo_pictures", write_demo_pictures, raising=False)
    code, out, _ = run("demo")
    report = tmp_path / "ma-agiqa-demo" / "report.html"

    assert code == 0
    assert [Path(line.split()[-1]).name for line in out.splitlines()[1:3]] == ["sharp.png", "blurred.png"]
    assert f"Report: {report}" in out
    assert "blurred.png" in report.read_text(encoding="utf-8")
