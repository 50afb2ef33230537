"""`score --resume`: what makes a score another one, and what does not."""

import csv
import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from ma_agiqa_core import cli
from ma_agiqa_core.records.record import COLUMNS, read_records

MakePicture = Callable[[Path, int], Path]
FORMATS = (".csv", ".jsonl", ".parquet")


@pytest.fixture(params=FORMATS)
def out(request: pytest.FixtureRequest, folder: Path) -> Path:
    (folder / "photos" / "broken.png").unlink()
    return folder / f"scores{request.param}"


def scores(out: Path) -> dict[str, float | None]:
    records = list(read_records(out))
    assert len({record.path for record in records}) == len(records)
    return {Path(record.path).stem: record.score for record in records}


def test_a_picture_made_anew_under_the_same_name_is_scored_anew(out: Path, run: Any, make_picture: MakePicture) -> None:
    run("score", "photos", "--out", out)
    picture = make_picture(Path("photos/a.png"), 255)

    code, _, err = run("score", "photos", "--out", out, "--resume")

    assert code == 0
    assert "1 of 1 pictures scored" in err
    assert scores(out) == {"a": 1.0, "b": 0.8, "c": 0.4}
    picture.write_bytes(b"no picture")
    assert run("score", "photos", "--out", out, "--resume")[0] == 1
    assert scores(out) == {"a": None, "b": 0.8, "c": 0.4}


def test_neither_size_nor_time_gives_away_the_old_score(out: Path, run: Any, make_picture: MakePicture) -> None:
    run("score", "photos", "--out", out)
    before = Path("photos/a.png").stat()
    after = make_picture(Path("photos/a.png"), 50).stat()
    os.utime("photos/a.png", ns=(before.st_atime_ns, before.st_mtime_ns))
    assert after.st_size == before.st_size

    run("score", "photos", "--out", out, "--resume")

    assert scores(out)["a"] == pytest.approx(50 / 255, rel=1e-6)


def test_touched_and_copied_pictures_are_not_scored_again(out: Path, run: Any) -> None:
    run("score", "photos", "--out", out)
    os.utime("photos/a.png", (1, 1))
    shutil.copy("photos/b.png", "copy.png")
    Path("copy.png").replace("photos/b.png")

    assert "Nothing left to score" in run("score", "photos", "--out", out, "--resume")[2]


def test_changed_pictures_of_another_folder_keep_their_records(out: Path, run: Any, make_picture: MakePicture) -> None:
    run("score", "photos", "--out", out)
    make_picture(Path("photos/a.png"), 255)

    run("score", "photos/sub", "--out", out, "--resume")

    assert scores(out) == {"a": 0.2, "b": 0.8, "c": 0.4}


def test_only_pictures_whose_prompt_changed_or_came_are_scored_again(out: Path, run: Any) -> None:
    def score(**prompts: str) -> str:
        rows = "".join(f"photos/{name}.png,{prompt}\n" for name, prompt in prompts.items())
        Path("prompts.csv").write_text(f"path,prompt\n{rows}")
        names = [f"photos/{name}.png" for name in prompts]
        options = ("--model", "needs-prompt", "--prompts", "prompts.csv", "--out", out, "--resume")
        code, _, err = run("score", *names, *options)
        assert code == 0, err
        return err

    score(a="one")
    assert "1 of 1 pictures" in score(a="one", b="three")
    assert "1 of 1 pictures" in score(a="seventeen", b="three")
    assert "Nothing left" in score(a="seventeen", b="three")
    assert scores(out) == {"a": 9, "b": 5}


def test_pictures_that_the_prompts_no_longer_name_keep_their_scores(out: Path, run: Any) -> None:
    prompts = Path("prompts.csv")
    prompts.write_text("path,prompt\nphotos/a.png,one\nphotos/b.png,three\n")
    command = ("score", "photos/a.png", "photos/b.png", "--model", "needs-prompt", "--prompts", prompts, "--out", out)
    assert run(*command)[0] == 0
    prompts.write_text("path,prompt\nphotos/b.png,seventeen\n")

    assert run(*command, "--resume")[0] == 0
    assert scores(out) == {"a": 3.0, "b": 9.0}


@pytest.mark.parametrize("prompt", ["half an emoji \ud83d", "a NUL\0", "=1+2", "'quoted", "long " * 40_000])
def test_any_prompt_is_recognised(out: Path, run: Any, prompt: str) -> None:
    Path("prompts.jsonl").write_text(json.dumps({"path": "photos/a.png", "prompt": prompt}) + "\n")
    options = ("--model", "needs-prompt", "--prompts", "prompts.jsonl", "--out", out, "--resume")

    assert run("score", "photos/a.png", *options)[0] == 0
    assert "Nothing left" in run("score", "photos/a.png", *options)[2]


@pytest.mark.parametrize("suffix", [".csv", ".jsonl"])
def test_outputs_without_the_newer_columns_are_resumed(folder: Path, run: Any, suffix: str) -> None:
    old = dict(zip(COLUMNS[:7], ("photos/a.png", 0.25, 20.0, 12, 8, "lite@1", None), strict=True))
    out = folder / f"scores{suffix}"
    with out.open("w", newline="", encoding="utf-8") as file:
        if suffix == ".csv":
            rows = csv.writer(file, lineterminator="\n")
            rows.writerows([list(old), ["" if cell is None else cell for cell in old.values()]])
            rows.writerow(["'b.png", 0.75, 75.0, 12, 8, "lite@1", ""])
        else:
            file.writelines(json.dumps({**old, **more}) + "\n" for more in ({}, {"path": "'b.png", "score": 0.75}))

    assert run("score", "photos/a.png", "photos/sub", "--out", out, "--resume")[0] == 0

    assert scores(out) == {"a": 0.25, "'b": 0.75, "c": 0.4}


def test_an_older_output_with_a_digest_of_all_prompts_is_resumed(folder: Path, run: Any) -> None:
    from ma_agiqa_core.cli.scoring_run import ScoringRun
    from ma_agiqa_core.records.prompts import read_prompts
    from ma_agiqa_core.scorers.callable import CallableScorer

    prompts = folder / "prompts.csv"
    prompts.write_text("path,prompt\nphotos/a.png,one\nphotos/b.png,three\n")
    scorer = CallableScorer(lambda pictures, prompts: [], name="needs-prompt", revision="1", needs_prompt=True)
    model = ScoringRun(scorer, "needs-prompt@1", read_prompts(prompts), None).former_identity
    (folder / "scores.csv").write_text(f"{','.join(COLUMNS[:7])}\nphotos/a.png,7.0,,12,8,{model},\n")
    options = ("--model", "needs-prompt", "--prompts", prompts, "--out", "scores.csv", "--resume")

    assert run("score", "photos/a.png", "photos/b.png", *options)[0] == 0
    assert scores(folder / "scores.csv") == {"a": 7, "b": 5}


def test_another_language_model_in_the_same_folder_is_refused(
    folder: Path, capsys: pytest.CaptureFixture[str], checkpoint: Path, owl_folder: Path
) -> None:
    owl = Path(shutil.copytree(owl_folder, folder / "owl"))

    def score(*more: str) -> tuple[int, str]:
        options = ["--model", str(checkpoint), "--semantic", str(owl), "--device", "cpu", "--out", "scores.csv"]
        return cli.run(["score", "photos/a.png", *options, "--resume", *more]), capsys.readouterr().err

    assert score()[0] == 0
    assert score("--dtype", "float32", "--batch-size", "3")[0] == 0  # what it is anyway, and what changes no score
    code, err = score("--dtype", "bfloat16")
    assert (code, "got tiny@" in err) == (2, True), err
    before = Path("scores.csv").read_bytes()
    config = owl / "config.json"
    config.write_text(json.dumps({**json.loads(config.read_text()), "changed": True}))
    code, err = score()

    assert code == 2
    assert "Expected scores.csv to hold scores of tiny@" in err
    assert Path("scores.csv").read_bytes() == before
