"""`score` and `rank` with several --model: a column each, pictures decoded once, none lost because of another."""

import csv
import json
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from ma_agiqa_core.pictures import inputs
from ma_agiqa_core.records.record import COLUMNS, Judged, Record, as_row, columns_of, read_records, record_of
from ma_agiqa_core.scorers.scaled_scorer import read_percentiles

Run = Callable[..., tuple[int, str, str]]
BOTH = ("--model", "lite", "--model", "stumbles@7")


@pytest.fixture
def dark(folder: Path, make_picture: Callable[[Path, int], Path]) -> Path:
    """Beside the pictures of `folder` one that "stumbles" has no score for."""
    (folder / "photos" / "broken.png").unlink()
    return make_picture(folder / "photos" / "dark.png", 5)


@pytest.mark.parametrize("suffix", [".csv", ".jsonl", ".parquet"])
def test_each_has_its_columns_and_none_loses_the_others(dark: Path, run: Run, suffix: str) -> None:
    out = dark.parent.parent / f"scores{suffix}"
    code, printed, err = run("score", "photos", *BOTH, "--out", out)

    assert (code, printed) == (1, "")
    assert "photos/dark.png: stumbles: cannot be scored: too dark" in err
    records = {record.path: record for record in read_records(out)}
    assert records["photos/a.png"].judges == (Judged("lite", 0.2, 20.0, None), Judged("stumbles", 0.2, 20.0, None))
    lost = records["photos/dark.png"]
    assert (lost.score, lost.error) == (pytest.approx(5 / 255), None)
    assert lost.judges[1] == Judged("stumbles", None, None, "cannot be scored: too dark")
    assert {record.model for record in records.values()} == {"lite@1 + stumbles@7"}
    if suffix == ".csv":
        header = next(csv.reader(out.read_text(encoding="utf-8").splitlines()))
        assert tuple(header) == columns_of(["lite", "stumbles"])
        assert header[len(COLUMNS) :][:3] == ["lite score", "lite percentile", "lite error"]


def test_pictures_are_decoded_once(folder: Path, run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    decoded: Counter[str] = Counter()
    read = inputs.read_picture

    def counted(path: Any) -> Any:
        decoded[Path(path).name] += 1
        return read(path)

    monkeypatch.setattr(inputs, "read_picture", counted)
    run("score", "photos", *BOTH, "--model", "slow", "--json")
    assert decoded == {"a.png": 1, "b.png": 1, "c.png": 1, "broken.png": 1}


def test_resume_scores_again_what_one_of_them_missed(dark: Path, run: Run, make_picture: Any) -> None:
    run("score", "photos", *BOTH, "--out", "scores.csv")
    make_picture(dark, 255)

    code, out, err = run("score", "photos", *BOTH, "--out", "scores.csv", "--resume", "--json")
    assert code == 0
    assert [record["path"] for record in json.loads(out)["records"]] == ["photos/dark.png"]
    assert all(record.is_whole for record in read_records(Path("scores.csv")))
    assert run("score", "photos", *BOTH, "--out", "scores.csv", "--resume")[0] == 0

    for others in (
        ("--model", "lite"),
        ("--model", "stumbles@7", "--model", "lite"),
        ("--model", "lite", *BOTH[2:3], "nan"),
    ):
        code, _, err = run("score", "photos", *others, "--out", "scores.csv", "--resume")
        assert code == 2
        assert "got lite@1 + stumbles@7" in err


def test_json_names_all_models(folder: Path, run: Run) -> None:
    answer = json.loads(run("score", "photos", *BOTH, "--json")[1])
    assert [model["name"] for model in answer["models"]] == ["lite", "stumbles"]
    assert answer["model"] == answer["models"][0]
    first = answer["records"][0]
    assert (first["score"], first["lite score"], first["stumbles percentile"]) == (0.2, 0.2, 20.0)
    ranked = json.loads(run("rank", "photos", *BOTH, "--json", "--top", 1)[1])
    assert [model["name"] for model in ranked["models"]] == ["lite", "stumbles"]
    assert ranked["kept"][0]["stumbles score"] == 0.8


def test_the_table_has_a_column_each(dark: Path, run: Run) -> None:
    lines = run("rank", "photos", *BOTH)[1].splitlines()
    assert lines[0].split() == ["RANK", "lite", "stumbles", "PICTURE"]
    assert lines[1].split() == ["1", "0.800", "(80", "%)", "0.800", "(80", "%)", "photos/b.png"]
    assert lines[4].endswith("-  photos/dark.png  (stumbles: cannot be scored: too dark)")


def test_only_those_that_read_prompts_need_them(folder: Path, run: Run) -> None:
    (folder / "prompts.csv").write_text("path,prompt\nphotos/a.png,four\n", encoding="utf-8")
    models = ("--model", "lite", "--model", "needs-prompt")
    assert "Expected prompts for needs-prompt, got none" in run("score", "photos", *models)[2]
    code, out, _ = run("score", "photos", *models, "--prompts", "prompts.csv", "--json")
    assert code == 1
    records = {record["path"]: record for record in json.loads(out)["records"]}
    assert records["photos/a.png"]["needs-prompt score"] == 4
    assert records["photos/b.png"]["lite score"] == 0.8
    assert records["photos/b.png"]["needs-prompt error"] == "no prompt for this picture"


def test_equal_names_are_told_apart(folder: Path, run: Run) -> None:
    out = run("score", "photos/a.png", "--model", "lite@1", "--model", "lite@2", "--model", "lite@2", "--json")[1]
    columns = [name for name in json.loads(out)["records"][0] if name.endswith(" score")]
    assert columns == ["lite@1 score", "lite@2 (1) score", "lite@2 (2) score"]


def test_a_target_is_of_one_model(folder: Path, run: Run) -> None:
    code, _, err = run("score", "photos", *BOTH, "--target", "quality")
    assert code == 2
    assert "Expected --target beside one --model" in err


def test_the_report_sorts_by_any(folder: Path, run: Run) -> None:
    run("rank", "photos", *BOTH, "--report", "report.html")
    page = (folder / "report.html").read_text(encoding="utf-8")
    assert '<option value="judge0">lite</option><option value="judge1">stumbles</option>' in page
    assert 'data-judges="[0.8,0.8]"' in page
    assert "Also judged by" in page
    assert "stumbles, which only watched, gets 100%" in page
    run("rank", "photos", "--report", "report.html")
    assert "data-judges" not in (folder / "report.html").read_text(encoding="utf-8").split("<script>")[0]


def test_percentiles_make_a_scale(folder: Path, run: Run) -> None:
    code, out, err = run("percentiles", "photos", "--model", "relativeless", "--out", "mine.json")
    assert code == 1
    assert "of 3 pictures" in out
    assert "percentiles are coarse" in err
    assert read_percentiles("mine.json").pictures == 3
    models = ("--model", "lite", "--model", "relativeless", "--percentiles", "mine.json")
    records = json.loads(run("score", "photos", *models, "--json")[1])["records"]
    found = [record["relativeless percentile"] for record in records]
    assert found.pop(2) is None
    assert found == pytest.approx([0, 100, 50], abs=1e-4)
    assert [record["lite percentile"] for record in records] == [20.0, 80.0, None, 40.0]
    for model, message in (("other", "Expected percentiles of other@1, got those of scorer 'relativeless'"),):
        code, _, err = run("score", "photos", "--model", model, "--percentiles", "mine.json")
        assert code == 2
        assert message in err
    code, _, err = run("score", "photos", "--model", "lite", "--model", "x", "--percentiles", "mine.json")
    assert "Expected percentiles of one of lite, x, got those of relativeless@1" in err


def test_a_record_is_its_row() -> None:
    judges = (Judged("a b", 1.0, None, None), Judged("=c, d", None, None, "why"))
    record = Record("p", 1.0, None, 1, 2, "m", None, judges=judges)
    assert record_of(as_row(record)) == record
    with pytest.raises(ValueError, match="another set of columns, by 'x y'"):
        record_of({**as_row(record), "x y": 1})
