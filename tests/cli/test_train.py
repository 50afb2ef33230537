"""The command `train`: the tiny preset learns, two processes compute what one does, mistakes are one line."""

import csv
import json
import os
import socket
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import made_up_set
import numpy as np
import pytest
import torch

import ma_agiqa_core
from ma_agiqa_core import cli, load_scorer

RunCommand = Callable[..., tuple[int, str, str]]


@pytest.fixture
def command(capsys: pytest.CaptureFixture[str], one_thread: None) -> RunCommand:
    def run(*arguments: object) -> tuple[int, str, str]:
        code = cli.run([str(argument) for argument in arguments])
        output = capsys.readouterr()
        return code, output.out, output.err

    return run


def labels(table: Path) -> list[object]:
    return ["--labels", table, "--images", table.with_name("pictures"), "--score-column", "mos", "--device", "cpu"]


@pytest.mark.long
def test_the_tiny_preset_learns_a_made_up_set(command: RunCommand, tmp_path: Path) -> None:
    table = made_up_set.write(tmp_path / "set", 200)

    code, out, err = command("train", *labels(table), "--preset", "tiny", "--out", tmp_path / "run")

    test = json.loads((tmp_path / "run" / "metrics.json").read_text())["test"]
    assert code == 0
    assert test["n"] == 40
    assert test["srcc"] >= 0.9
    assert f"quality       test     40  {test['srcc']:7.4f}" in out
    assert "Epoch 20 of 20" in err


def test_several_tables_train_one_model(command: RunCommand, tmp_path: Path) -> None:
    one, two = (made_up_set.write(tmp_path / name, 20, side=32, seed=seed) for name, seed in (("one", 1), ("two", 2)))
    options = [*labels(one), *labels(two)[:4], "--score-column", "authenticity=mos"]

    code, out, _ = command("train", *options, "--preset", "tiny", "--epochs", 1, "--out", tmp_path / "run")

    assert code == 0
    assert "authenticity  test      4" in out
    assert load_scorer(tmp_path / "run" / "model.safetensors", device="cpu").info.trained_on == "one/labels+two/labels"


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--split", "70/10"], "Expected the shares of train, val and test"),
        (["--without", "coherence"], "Expected a semantic model to train without coherence, got none"),
        (["--learning-rate", "0"], "Expected a learning_rate above 0, got 0.0"),
        (["--ema", "1"], "Expected ema from 0 to below 1, got 1.0"),
        (["--semantic", "no/such-folder", "--local-files-only"], "no/such-folder"),
        (["--preset", "ma-agiqa", "--semantic", "none", "--local-files-only"], "vit_base_patch8_224"),
    ],
)
def test_mistakes_are_one_line(
    options: list[str], message: str, command: RunCommand, made_up_table: Path, tmp_path: Path
) -> None:
    preset = [] if "--preset" in options else ["--preset", "tiny"]

    code, out, err = command("train", *labels(made_up_table), *preset, "--out", tmp_path / "run", *options)

    assert (code, out) == (2, "")
    assert message in err
    assert len(err.splitlines()) == 1


def test_without_validation_the_last_epoch_is_taken_and_said(
    command: RunCommand, made_up_table: Path, tmp_path: Path
) -> None:
    arguments = [*labels(made_up_table), "--preset", "tiny", "--epochs", 2, "--split", "80/0/20"]
    code, out, _ = command("train", *arguments, "--out", tmp_path / "run")

    assert code == 0
    assert "Last of 2 epochs: validation SRCC and PLCC are undefined." in out
    written = json.loads((tmp_path / "run" / "metrics.json").read_text())
    assert (written["best_epoch"], written["val"]["n"]) == (2, 0)
    assert written["chosen_by"] == "the last epoch, since SRCC and PLCC of validation are undefined"


def test_a_run_is_refused_without_resume_and_goes_on_with_it(
    command: RunCommand, made_up_table: Path, tmp_path: Path
) -> None:
    arguments = ["train", *labels(made_up_table), "--preset", "tiny", "--epochs", 1, "--out", tmp_path / "run"]
    assert command(*arguments, "--resume")[0] == 0  # nothing there to go on with: it begins

    code, _, err = command(*arguments)
    assert code == 2
    assert "--resume" in err
    code, _, err = command(*arguments, "--seed", 5, "--resume")
    assert code == 2
    assert "settings.seed 20, got 5" in err
    code, out, _ = command(*arguments, "--resume")
    assert code == 0
    assert "Best of 1 epochs" in out


@pytest.mark.skipif(not torch.distributed.is_available(), reason="torch without torch.distributed")
def test_two_processes_score_every_picture_once(made_up_table: Path, tmp_path: Path) -> None:
    """Through accelerate's own launcher (gloo): what was predicted in shares is what the model predicts."""
    out = tmp_path / "run"
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = str(probe.getsockname()[1])  # accelerate 1.0 hangs where it is to find one itself
    launch = [sys.executable, "-m", "accelerate.commands.launch", "--multi_gpu", "--num_processes", "2"]
    launch += ["--num_machines", "1", "--mixed_precision", "no", "--dynamo_backend", "no", "--main_process_port", port]
    train = ["-m", "ma_agiqa_core.cli", "train", *map(str, labels(made_up_table)), "--preset", "tiny"]
    train += ["--epochs", "1", "--out", str(out), "--batch-size", "5"]  # no multiple of two
    package = str(Path(ma_agiqa_core.__file__).parents[1])
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": package}

    done = subprocess.run([*launch, *train], env=environment, capture_output=True, text=True, timeout=240, check=False)

    assert done.returncode == 0, done.stderr[-3000:]
    assert json.loads((out / "settings.json").read_text())["processes"] == 2
    assert done.stdout.count("Best of 1 epochs") == 1
    with (out / "predictions.csv").open(encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    pictures = [made_up_table.with_name("pictures") / row["name"] for row in rows]
    scores = load_scorer(out / "model.safetensors", device="cpu").score(pictures)
    assert len(rows) == len({row["name"] for row in rows}) == 12
    np.testing.assert_allclose([float(row["quality_prediction"]) for row in rows], scores.numpy(), atol=1e-5)
