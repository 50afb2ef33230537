"""`ma-agiqa evaluate` with a scorer of mean brightness, so that every figure is known."""

import csv
import json
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import pytest

from ma_agiqa_core.metrics import fit_logistic, krcc, plcc, rmse, srcc

Run = Callable[..., tuple[int, str, str]]


@pytest.fixture
def labelled(tmp_path: Path, make_picture: Callable[[Path, int], Path]) -> Path:
    """labels.csv, and photos/: 24 pictures of 8 prompts by two generators; mos follows brightness roughly."""
    random = np.random.default_rng(0)
    rows = []
    for number in range(24):
        brightness = int(random.integers(0, 256))
        make_picture(tmp_path / "photos" / f"{number}.png", brightness)
        mos = round(brightness / 51 + random.normal(), 3)
        rows.append((f"{number}.png", mos, f"prompt {number % 8}", "ab"[number % 2], brightness / 255))
    write_table(tmp_path / "labels.csv", rows)
    return tmp_path


def write_table(file: Path, rows: Sequence[Sequence[object]]) -> None:
    with file.open("w", newline="", encoding="utf-8") as text:
        csv.writer(text).writerows([("name", "mos", "prompt", "generator", "brightness"), *rows])


def arguments(folder: Path, labels: str = "labels.csv") -> list[object]:
    return ["--labels", folder / labels, "--images", folder / "photos", "--score-column", "mos", "--resamples", 60]


def rows_of(folder: Path) -> list[dict[str, str]]:
    with (folder / "labels.csv").open(newline="", encoding="utf-8") as text:
        return list(csv.DictReader(text))


def test_json_has_the_figures_of_metrics_json_with_intervals(run: Run, labelled: Path) -> None:
    code, out, err = run("evaluate", *arguments(labelled), "--json", "--plot", labelled / "scatter.png")
    report = json.loads(out)
    assert (code, report["model"]["name"], report["data"], report["failed"]) == (0, "lite", "labels", 0)
    brightness, mos = (np.array([float(row[name]) for row in rows_of(labelled)]) for name in ("brightness", "mos"))
    overall = report["overall"]
    assert overall["n"] == 24
    assert overall["srcc"] == pytest.approx(srcc(brightness, mos))
    assert overall["krcc"] == pytest.approx(krcc(brightness, mos))
    assert overall["plcc"] == pytest.approx(plcc(fit_logistic(brightness, mos)(brightness), mos), abs=1e-5)
    assert overall["rmse"] == pytest.approx(rmse(brightness, mos, fit=True), abs=1e-5)
    for name in ("srcc", "plcc", "krcc", "rmse"):
        low, high = overall["intervals"][name]
        assert low < overall[name] < high or name == "rmse"  # refitted to each resample, errors are a little less
    assert {name: group["n"] for name, group in report["generators"].items()} == {"a": 12, "b": 12}
    assert (report["within_prompt"]["prompts"], report["within_prompt"]["k"]) == (8, [3, 3])
    assert (labelled / "scatter.png").stat().st_size > 5000
    assert "Plot:" in err


def test_the_table_and_the_rows(run: Run, labelled: Path) -> None:
    code, out, _ = run("evaluate", *arguments(labelled))
    assert code == 0
    assert out.startswith("lite (trained on nothing): labels, 24 pictures\n")
    for word in ("SRCC", "KRCC", "RMSE", "all", "Within 8 prompts of k = 3 pictures each", "best of k picked"):
        assert word in out
    for kind, opening in (("markdown", "| model |"), ("latex", "% model &")):
        code, out, _ = run("evaluate", *arguments(labelled), "--row", kind)
        assert (code, out.startswith(opening)) == (0, True)


def test_what_is_not_measured_or_has_no_interval_is_said(run: Run, labelled: Path) -> None:
    code, out, err = run("evaluate", *arguments(labelled), "--score-column", "alignment=brightness", "--resamples", 0)
    assert code == 0
    assert "In brackets" not in out
    assert "evaluating quality; evaluate alignment" in err


def test_sets_of_one_name_are_told_apart(run: Run, labelled: Path) -> None:
    (labelled / "more").mkdir()
    write_table(labelled / "more" / "labels.csv", [tuple(row.values()) for row in rows_of(labelled)][:10])
    more = ["--labels", labelled / "more" / "labels.csv", "--images", labelled / "photos"]
    code, out, _ = run("evaluate", *arguments(labelled), *more, "--json")
    assert code == 0
    assert [entry["data"] for entry in json.loads(out)["sets"]] == [f"{labelled.name}/labels", "more/labels"]


def test_several_sets_each_have_their_figures(run: Run, labelled: Path) -> None:
    rows = [tuple(row.values()) for row in rows_of(labelled)]
    write_table(labelled / "other.csv", [(name, 3.0, *rest) for name, _, *rest in rows[:10]])
    both = [*arguments(labelled), "--labels", labelled / "other.csv", "--images", labelled / "photos"]
    code, out, err = run("evaluate", *both, "--json")
    first, second = json.loads(out)["sets"]
    assert (code, first["data"], second["data"]) == (0, "labels", "other")
    assert second["overall"]["srcc"] is None
    assert second["overall"]["undefined"] == "all 10 labels are 3: correlation is undefined"
    assert "other: 14 pictures without a score" in err
    code, out, _ = run("evaluate", *both)
    assert (code, out.count("\nall ")) == (0, 2)
    assert "nan" not in out.lower()


def test_a_part_is_measured_alone(run: Run, labelled: Path) -> None:
    code, out, _ = run("evaluate", *arguments(labelled), "--split", "70/10/20", "--json")
    report = json.loads(out)
    assert (code, report["data"], report["overall"]["n"]) == (0, "labels test", 24 - int(24 * 0.8))
    code, out, _ = run("evaluate", *arguments(labelled), "--split", "generator:b", "--json")
    assert json.loads(out)["overall"]["n"] == 12
    code, _, err = run("evaluate", *arguments(labelled), "--split", "50/50/0")
    assert (code, "got none with --split 50/50/0" in err) == (2, True)


def test_a_broken_picture_is_left_out_and_said(run: Run, labelled: Path) -> None:
    (labelled / "photos/5.png").write_bytes(b"no picture")
    code, out, err = run("evaluate", *arguments(labelled), "--json")
    report = json.loads(out)
    assert (code, report["failed"], report["overall"]["n"]) == (1, 1, 23)
    assert "5.png" in err


def test_prompts_come_from_the_table_or_a_file(run: Run, labelled: Path) -> None:
    code, out, _ = run("evaluate", *arguments(labelled), "--model", "needs-prompt", "--json")
    report = json.loads(out)
    assert (code, report["failed"]) == (0, 0)
    assert report["overall"]["undefined"].startswith("all 24 predictions are 8")  # the length of "prompt 0"
    (labelled / "bare.csv").write_text("name,mos\n" + "\n".join(f"{i}.png,{i}" for i in range(6)) + "\n")
    code, _, err = run("evaluate", *arguments(labelled, "bare.csv"), "--model", "needs-prompt")
    assert (code, "Give --prompts FILE" in err) == (2, True)
    prompts = "path,prompt\n" + "\n".join(f"photos/{i}.png,{'x' * (1 + i // 2)}" for i in range(6)) + "\n"
    (labelled / "prompts.csv").write_text(prompts)
    given = [*arguments(labelled, "bare.csv"), "--prompts", labelled / "prompts.csv", "--json"]
    code, out, _ = run("evaluate", *given, "--model", "needs-prompt")
    assert (code, json.loads(out)["overall"]["srcc"] > 0.9) == (0, True)
    code, out, _ = run("evaluate", *given)  # needs no prompts, but they say which pictures compete
    assert (code, json.loads(out)["within_prompt"]["prompts"]) == (0, 3)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (["--row", "latex", "--json"], "Expected --row or --json, got both"),
        (["--plot", "scatter.jpg"], "ending in .png or .svg or .pdf, got scatter.jpg"),
        (["--plot", "nowhere/scatter.png"], "Expected an existing folder for scatter.png, got nowhere"),
        (["--labels", "other.csv"], "Expected one --images per --labels, got 1 for 2"),
        (["--score-column", "alignment=mos"], "got 'mos' and 'mos' for"),
        (["--dataset", "imagenet"], "got 'imagenet'"),
        (["--generator-column", "maker"], "maker"),
        (["--model", "relative"], "scale of its own to be compared with labels, got relative"),
        (["--model", "missing"], "got 'missing'"),
    ],
)
def test_mistakes_are_one_line(run: Run, labelled: Path, changes: list[str], message: str) -> None:
    if changes[0] == "--score-column":
        changes = [*changes, "--score-column", "alignment=mos"]
    code, out, err = run("evaluate", *arguments(labelled), *changes)
    assert (code, out) == (2, "")
    assert message in err
    assert "Traceback" not in err
