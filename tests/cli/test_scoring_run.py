"""The scoring loop: no picture ends a run."""

import json
import signal
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
import torch

from ma_agiqa_core.cli.scoring_run import ScoringRun, score_pictures
from ma_agiqa_core.cli.terminal import score_with_progress
from ma_agiqa_core.records.record import Record
from ma_agiqa_core.scorers.callable import CallableScorer
from ma_agiqa_core.scorers.lite import LiteScorer

MakePicture = Callable[[Path, int], Path]


def test_prompts_reach_their_pictures_and_missing_ones_are_errors(folder: Path, run: Any) -> None:
    prompts = folder / "prompts.csv"
    prompts.write_text(f'path,prompt\nphotos/a.png,"a, b"\n{folder}/photos/sub/c.png,twelve chars\nphotos/b.png,\n')

    code, out, _ = run("score", "photos", "--model", "needs-prompt", "--prompts", prompts, "--json")
    records = {record["path"]: record for record in json.loads(out)["records"]}

    assert code == 1
    assert records["photos/a.png"]["score"] == 4
    assert records["photos/sub/c.png"]["score"] == 12
    assert records["photos/b.png"]["error"] == "no prompt for this picture"
    assert records["photos/a.png"]["model"] == "needs-prompt@1"
    assert [records[f"photos/{name}.png"]["prompt"] for name in ("a", "b", "sub/c")] == ["a, b", None, "twelve chars"]


def test_a_picture_the_scorer_stumbles_over_does_not_end_the_run(
    folder: Path, run: Any, make_picture: MakePicture
) -> None:
    make_picture(folder / "photos" / "dark.png", 0)

    code, out, _ = run("score", "photos", "--model", "stumbles", "--json")
    records = {record["path"]: record for record in json.loads(out)["records"]}

    assert code == 1
    assert records["photos/dark.png"]["error"] == "cannot be scored: too dark"
    assert [records[f"photos/{name}.png"]["score"] for name in ("a", "b", "sub/c")] == [0.2, 0.8, 0.4]


def test_a_bug_of_ours_ends_the_run_after_what_was_scored(
    folder: Path, make_picture: MakePicture, monkeypatch: pytest.MonkeyPatch
) -> None:
    from ma_agiqa_core import load_scorer

    scorer = load_scorer("lite", device="cpu")
    assert isinstance(scorer, LiteScorer)
    seen: list[int] = []
    network = scorer.network.score

    def score(pixels: torch.Tensor) -> torch.Tensor:
        seen.append(len(pixels))
        if len(seen) == 3:
            raise TypeError("unexpected keyword argument")
        return network(pixels)

    monkeypatch.setattr(scorer.network, "score", score)
    paths = [make_picture(folder / f"{i}.png", i) for i in range(6)]
    done: list[Record] = []

    def write() -> None:
        for records in score_pictures(ScoringRun(scorer, "lite", None, 2), paths):
            done.extend(records)

    with pytest.raises(TypeError, match="unexpected keyword"):
        write()
    assert seen == [2, 2, 2]
    assert [Path(record.path).stem for record in done if record.error is None] == ["0", "1", "2", "3"]


def test_too_little_memory_makes_batches_smaller(folder: Path, run: Any) -> None:
    code, out, _ = run("score", "photos/a.png", "photos/b.png", "photos/sub", "--model", "small-memory", "--json")

    assert code == 0
    assert [record["score"] for record in json.loads(out)["records"]] == [0.2, 0.8, 0.4]


def test_nan_is_an_error(folder: Path, run: Any) -> None:
    code, out, _ = run("score", "photos/a.png", "--model", "nan", "--json")

    assert code == 1
    assert json.loads(out)["records"][0]["error"] == "nan returned nan"


@pytest.mark.parametrize("command", ["score", "rank"])
def test_prompts_that_are_for_none_of_the_pictures_are_told(folder: Path, run: Any, command: str) -> None:
    (folder / "prompts.csv").write_text("path,prompt\na.png,a cat\nb.png,a dog\n")
    code, _, err = run(command, "photos", "--model", "needs-prompt", "--prompts", "prompts.csv")
    assert code == 1
    said = err.splitlines()[0]
    assert (
        f"{folder / 'photos' / 'a.png'}; 2 of its 2 prompts are for none of the pictures, e.g. {folder / 'a.png'}"
        in said
    )
    (folder / "prompts.csv").write_text("path,prompt\nphotos/a.png,a cat\nphotos/b.png,a dog\n")
    assert (
        "none of the pictures"
        not in run(command, "photos/a.png", "--model", "needs-prompt", "--prompts", "prompts.csv")[2]
    )


def test_interrupt_in_the_middle_of_writing_counts_what_was_written(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    scorer = CallableScorer(lambda pictures, _: [0.5] * len(pictures), name="half")
    written: list[Record] = []

    def write(batch: Sequence[Record]) -> None:
        signal.raise_signal(signal.SIGINT)
        written.extend(batch)

    with pytest.raises(KeyboardInterrupt):
        score_with_progress(ScoringRun(scorer, "half@1", None, 2), sorted(folder.rglob("*.png")), [write])

    assert len(written) == 2
    assert "Interrupted: 2 of 4" in capsys.readouterr().err
