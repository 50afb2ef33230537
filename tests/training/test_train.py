"""The training loop: what it writes, what it repeats to the bit, and what stops it without losing anything."""

import csv
import json
import os
import pickle
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pytest
import torch
from project_paths import ROOT, SUPPORT
from safetensors.torch import load_file
from torch import Tensor

from ma_agiqa_core import load_scorer, metrics
from ma_agiqa_core.checkpoint import read_facts
from ma_agiqa_core.labels.labelled_set import LabelledSet, read_labels
from ma_agiqa_core.labels.splits import make_split
from ma_agiqa_core.training import picture_cache as pixels
from ma_agiqa_core.training import state as training_state
from ma_agiqa_core.training.progress import TrainingProgress
from ma_agiqa_core.training.settings import TrainingSettings
from ma_agiqa_core.training.state import StateFolder
from ma_agiqa_core.training.train import TrainingResult

Run = Callable[..., TrainingResult]
SCRIPT = SUPPORT / "killed_runs.py"
needs_fork = pytest.mark.skipif(not hasattr(os, "fork"), reason="a child that is killed is forked")


def weights(out: Path) -> dict[str, Tensor]:
    return load_file(out / "model.safetensors")


def assert_same_run(one: Path, other: Path) -> None:
    ours, theirs = weights(one), weights(other)
    assert ours.keys() == theirs.keys()
    assert [name for name in ours if not torch.equal(ours[name], theirs[name])] == []
    for name in ("predictions.csv", "settings.json"):
        assert (one / name).read_text() == (other / name).read_text()
    figures, others = (json.loads((out / "metrics.json").read_text()) for out in (one, other))
    for part in ("val", "test"):  # a fit of 4 parameters to so few pictures hangs on the last bits of sums in BLAS
        for measured in (figures, others):
            del measured["targets"]["quality"][part]
        for name in ("plcc", "rmse"):
            assert figures[part].pop(name) == pytest.approx(others[part].pop(name), rel=1e-3)
    assert figures == others


@pytest.fixture(scope="session")
def finished(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    return {}


@pytest.fixture
def whole(finished: dict[str, Path], run_training: Run, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run that nothing happened to, with a moving average; made once."""
    if "run" not in finished:
        out = tmp_path_factory.mktemp("whole") / "run"
        run_training(out, ema=0.9, draws=True)
        finished["run"] = out
    return finished["run"]


@pytest.fixture(scope="module")
def killed_runs() -> Iterator["subprocess.Popen[str]"]:
    """The process whose children train and are killed: see killed_runs.py."""
    paths = os.pathsep.join(filter(None, [str(ROOT), os.environ.get("PYTHONPATH", "")]))
    command = [sys.executable, str(SCRIPT)]
    environment = {**os.environ, "PYTHONPATH": paths}
    with subprocess.Popen(
        command, env=environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as process:
        yield process
        assert process.stdin is not None
        process.stdin.close()


@pytest.fixture
def signal_of(
    killed_runs: "subprocess.Popen[str]", made_up: LabelledSet, small_settings: TrainingSettings, tmp_path: Path
) -> Callable[..., int]:
    """Trains in a child that is killed; gives the signal that ended it, 0 for none."""
    inputs = tmp_path / "inputs.pickle"
    inputs.write_bytes(pickle.dumps((small_settings, made_up)))

    def run(out: Path, fields: dict[str, Any], **moment: Any) -> int:
        job = {"inputs": str(inputs), "out": str(out), "fields": fields, **moment}
        assert killed_runs.stdin is not None
        assert killed_runs.stdout is not None
        killed_runs.stdin.write(json.dumps(job) + "\n")
        killed_runs.stdin.flush()
        return int(killed_runs.stdout.readline())

    return run


# ------------------------------------------------------------------------------------------------- what it writes
def test_writes_a_model_that_scores_what_the_predictions_say(whole: Path, made_up: LabelledSet) -> None:
    with (whole / "predictions.csv").open(encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    path_of = {picture.name: picture.path for picture in made_up.pictures}

    scorer = load_scorer(whole / "model.safetensors", device="cpu")
    scores = scorer.score([path_of[row["name"]] for row in rows])

    assert [row["split"] for row in rows] == ["val"] * 4 + ["test"] * 8
    np.testing.assert_allclose([float(row["quality_prediction"]) for row in rows], scores.numpy(), atol=1e-5)
    facts = read_facts(whole / "model.safetensors")
    assert (facts.low, facts.high) == (made_up.low, made_up.high)
    assert len(facts.quantiles) == 101


def test_metrics_are_those_of_the_predictions(whole: Path, made_up: LabelledSet) -> None:
    with (whole / "predictions.csv").open(encoding="utf-8") as file:
        test = [row for row in csv.DictReader(file) if row["split"] == "test"]
    predictions, labels = ([float(row[f"quality_{name}"]) for row in test] for name in ("prediction", "label"))
    written = json.loads((whole / "metrics.json").read_text())

    assert written["test"]["n"] == 8
    assert written["test"]["srcc"] == pytest.approx(metrics.srcc(predictions, labels))
    assert written["test"]["plcc"] == pytest.approx(metrics.plcc(predictions, labels, fit=True), abs=1e-4)
    assert written["test"] == written["targets"]["quality"]["test"]
    assert [entry["epoch"] for entry in written["history"]] == [1, 2, 3]
    values = [entry["val"]["quality"]["srcc"] + entry["val"]["quality"]["plcc"] for entry in written["history"]]
    assert written["best_epoch"] == 1 + int(np.argmax(values))
    assert (whole / "curves.png").read_bytes().startswith(b"\x89PNG")


def test_two_runs_with_the_same_seed_are_the_same_and_another_seed_is_not(run_training: Run, tmp_path: Path) -> None:
    run_training(tmp_path / "a", epochs=1)
    before = torch.random.get_rng_state()
    run_training(tmp_path / "b", epochs=1)
    assert torch.equal(torch.random.get_rng_state(), before)
    run_training(tmp_path / "c", epochs=1, seed=3)

    assert_same_run(tmp_path / "a", tmp_path / "b")
    assert any(not torch.equal(a, b) for a, b in zip(*(weights(tmp_path / n).values() for n in "ac"), strict=True))


def test_a_step_in_parts_learns_what_the_step_in_one_does(
    run_training: Run, small_settings: TrainingSettings, tmp_path: Path
) -> None:
    no_dropout = replace(small_settings.model, dropout=0.0, drop_path=0.0)
    options: dict[str, Any] = {"epochs": 1, "model": no_dropout}
    one = run_training(tmp_path / "one", **options)
    parts = run_training(tmp_path / "parts", **options, accumulate=3)

    assert parts.history[0]["loss"] == pytest.approx(one.history[0]["loss"], rel=1e-5)


@pytest.mark.parametrize(
    "options",
    [
        {"rank_loss": 0.5},
        {"ema": 0.5},
        {"layer_decay": 0.7},
        {"scale_rate": True, "batch": 14},
        {"mixed_precision": "bf16"},
        {"published_validation": True, "batch": 3},
        {"schedule": "published", "period": 3},
        {"drop_last": True},
        {"workers": 1},
    ],
    ids=lambda options: ",".join(options),
)
def test_options_train(options: dict[str, Any], run_training: Run, tmp_path: Path) -> None:
    result = run_training(tmp_path, epochs=1, **options)

    assert np.isfinite(result.history[0]["loss"])
    assert all(tensor.isfinite().all() for tensor in weights(tmp_path).values())


def test_a_frozen_backbone_stays_as_it_began(run_training: Run, tmp_path: Path) -> None:
    run_training(tmp_path / "frozen", epochs=2, freeze_backbone=True, learning_rate=1e-2)
    run_training(tmp_path / "start", epochs=1, freeze_backbone=True, learning_rate=1e-9)
    frozen, start = weights(tmp_path / "frozen"), weights(tmp_path / "start")

    backbone = [name for name in frozen if name.startswith("features.")]
    assert backbone
    assert all(torch.equal(frozen[name], start[name]) for name in backbone)
    assert not torch.equal(frozen["fusion.visual.weight"], start["fusion.visual.weight"])


def test_pictures_from_the_cache_are_the_same_pictures(run_training: Run, tmp_path: Path, whole: Path) -> None:
    run_training(tmp_path / "run", ema=0.9, picture_cache=tmp_path / "pixels")

    assert_same_run(tmp_path / "run", whole)
    assert [path.stat().st_size for path in (tmp_path / "pixels").glob("*.npy")] == [
        pytest.approx(40 * 3 * 32 * 32, abs=128)
    ]


def test_several_targets_are_trained_together_where_they_have_labels(
    run_training: Run, made_up: LabelledSet, tmp_path: Path
) -> None:
    pictures = [
        replace(
            picture,
            scores={**picture.scores, "authenticity": 6 - picture.scores["quality"]} if row % 2 else picture.scores,
        )
        for row, picture in enumerate(made_up.pictures)
    ]
    both = replace(made_up, pictures=tuple(pictures), ranges={})

    result = run_training(tmp_path, labelled=both, epochs=1)

    n = {target: parts["test"]["n"] for target, parts in result.figures.items()}
    with (tmp_path / "predictions.csv").open(encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    assert all((row["authenticity_label"] == "") == (row["authenticity_prediction"] == "") for row in rows)
    assert n["quality"] == 8
    assert 0 < n["authenticity"] < 8
    scorer = load_scorer(result.model, target="authenticity", device="cpu")
    assert scorer.score([made_up.pictures[0].path]).isfinite().all()


def test_semantic_vectors_come_from_the_cache_and_cost_the_language_model_once(
    run_training: Run, owl_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    options: dict[str, Any] = {"semantic": str(owl_folder), "cache": tmp_path / "vectors", "epochs": 1}
    run_training(tmp_path / "one", **options)
    from ma_agiqa_core.semantic.lazy_model import LazyModel

    monkeypatch.setattr(LazyModel, "_load", lambda self: pytest.fail("loaded again"))
    run_training(tmp_path / "two", **options)

    assert_same_run(tmp_path / "one", tmp_path / "two")
    facts = read_facts(tmp_path / "one" / "model.safetensors")
    assert facts.semantic_model == owl_folder.name
    assert weights(tmp_path / "one")["fusion.coherence.0.weight"].shape[1] == 64


def test_constant_validation_labels_are_said_and_no_nan_is_written(
    run_training: Run, made_up: LabelledSet, tmp_path: Path
) -> None:
    held_out = {row for part in ("val", "test") for row in getattr(make_split(made_up), part)}
    pictures = [
        replace(picture, scores={"quality": 3.0}) if row in held_out else picture
        for row, picture in enumerate(made_up.pictures)
    ]

    result = run_training(tmp_path, labelled=replace(made_up, pictures=tuple(pictures)), epochs=2)

    assert result.figures["quality"]["test"]["srcc"] is None
    assert "all 8 labels are 3" in result.figures["quality"]["test"]["undefined"]
    assert "NaN" not in (tmp_path / "metrics.json").read_text()
    assert result.best_epoch == 2  # of epochs that cannot be told apart the last


def test_constant_training_labels_are_refused(run_training: Run, made_up: LabelledSet, tmp_path: Path) -> None:
    constant = tuple(replace(picture, scores={"quality": 3.0}) for picture in made_up.pictures)
    with pytest.raises(ValueError, match="quality labels that differ among the 28 training pictures, got 3 for all"):
        run_training(tmp_path, labelled=replace(made_up, pictures=constant))


# ---------------------------------------------------------------------------------------------- interrupted runs
@needs_fork
@pytest.mark.parametrize("step", [pytest.param(1, marks=pytest.mark.long), 11])
def test_killed_between_steps_it_goes_on_to_the_same_weights(
    step: int, signal_of: Callable[..., int], run_training: Run, whole: Path, tmp_path: Path
) -> None:
    options: dict[str, Any] = {"ema": 0.9, "save_every": 3}
    assert signal_of(tmp_path / "run", options, step=step) == signal.SIGKILL
    run_training(tmp_path / "run", **options, resume=True)

    (tmp_path / "run" / "settings.json").write_bytes((whole / "settings.json").read_bytes())  # but for save_every
    assert_same_run(tmp_path / "run", whole)


@needs_fork
@pytest.mark.parametrize(
    ("moment", "call"),
    [
        ("half written", 3),
        pytest.param("before the move", 3, marks=pytest.mark.long),
        pytest.param("after the move", 1, marks=pytest.mark.long),
    ],
)
def test_killed_while_a_state_is_written_it_goes_on_to_the_same_weights(
    moment: str, call: int, signal_of: Callable[..., int], run_training: Run, whole: Path, tmp_path: Path
) -> None:
    assert signal_of(tmp_path / "run", {"ema": 0.9}, moment=moment, call=call) == signal.SIGKILL
    run_training(tmp_path / "run", ema=0.9, resume=True)

    assert_same_run(tmp_path / "run", whole)
    left = {path.name for path in (tmp_path / "run" / "state").iterdir()} - {"lock"}
    assert left == {
        "state.safetensors",
        f"best-{json.loads((whole / 'metrics.json').read_text())['best_epoch']:04d}.safetensors",
    }


def test_a_finished_run_resumed_gives_the_same_again(run_training: Run, whole: Path, tmp_path: Path) -> None:
    shutil.copytree(whole, tmp_path / "run")
    (tmp_path / "run" / "metrics.json").unlink()  # as if killed while the results were written

    run_training(tmp_path / "run", ema=0.9, resume=True)

    assert_same_run(tmp_path / "run", whole)


def test_more_epochs_go_on_where_the_schedule_does_not_depend_on_them(run_training: Run, tmp_path: Path) -> None:
    run_training(tmp_path / "long", schedule="published", epochs=3)
    run_training(tmp_path / "run", schedule="published", epochs=2)
    run_training(tmp_path / "run", schedule="published", epochs=3, resume=True)

    ours, theirs = weights(tmp_path / "run"), weights(tmp_path / "long")
    assert all(torch.equal(ours[name], theirs[name]) for name in ours)


@pytest.mark.parametrize(
    ("changes", "named"),
    [
        ({"seed": 3}, "seed 20, got 3"),
        ({"epochs": 9}, "epochs 3, got 9"),
        ({"learning_rate": 0.1, "batch": 4}, "batch 8, got 4; settings.learning_rate 0.0005, got 0.1"),
        ({"mixed_precision": "bf16"}, "mixed_precision 'no', got 'bf16'"),
    ],
)
def test_resume_with_other_settings_names_them(
    changes: dict[str, Any], named: str, run_training: Run, whole: Path
) -> None:
    before = (whole / "state" / "state.safetensors").read_bytes()

    with pytest.raises(ValueError, match=named):
        run_training(whole, **{"ema": 0.9, **changes}, resume=True)

    assert (whole / "state" / "state.safetensors").read_bytes() == before


def test_resume_with_other_labels_or_another_split_is_refused(
    run_training: Run, whole: Path, made_up: LabelledSet
) -> None:
    pictures = list(made_up.pictures)
    pictures[5] = replace(pictures[5], scores={"quality": 1.5})
    with pytest.raises(ValueError, match=r"data\.labels"):
        run_training(whole, labelled=replace(made_up, pictures=tuple(pictures)), ema=0.9, resume=True)


def test_a_run_is_never_overwritten(run_training: Run, whole: Path, tmp_path: Path) -> None:
    with pytest.raises(FileExistsError, match="Expected a folder without a run"):
        run_training(whole, ema=0.9)
    (tmp_path / "model.safetensors").write_bytes(b"somebody's")
    with pytest.raises(FileExistsError, match="Expected a folder without a model"):
        run_training(tmp_path)
    assert (tmp_path / "model.safetensors").read_bytes() == b"somebody's"


def test_two_runs_at_once_do_not_share_a_folder(run_training: Run, tmp_path: Path) -> None:
    with (
        StateFolder(tmp_path / "run" / "state").held(),
        pytest.raises(FileExistsError, match=r"that no other run is writing to, got .* choose another"),
    ):
        run_training(tmp_path / "run", epochs=1)

    run_training(tmp_path / "run", epochs=1, resume=True)  # it let go


def test_files_may_be_read_by_others(whole: Path, tmp_path: Path) -> None:
    (tmp_path / "plain").touch()
    usual = (tmp_path / "plain").stat().st_mode
    files = [path for path in whole.rglob("*") if path.is_file() and path.name != "lock"]
    assert {path.name for path in files if path.stat().st_mode != usual} == set()


def test_a_damaged_state_is_named(run_training: Run, whole: Path, tmp_path: Path) -> None:
    shutil.copytree(whole, tmp_path / "run")
    os.truncate(tmp_path / "run" / "state" / "state.safetensors", 1000)

    with pytest.raises(ValueError, match=r"Expected a state of training, got .*state\.safetensors"):
        run_training(tmp_path / "run", ema=0.9, resume=True)


# ------------------------------------------------------------------------------------------------- what goes wrong
@pytest.mark.parametrize("part", ["train", "val"])
def test_a_picture_broken_in_the_third_epoch_stops_it_and_mended_it_goes_on_the_same(
    part: str,
    made_up_table: Path,
    run_training: Run,
    whole: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(pixels, "KEPT_IN_MEMORY", 0)
    shutil.copytree(made_up_table.parent, tmp_path / "set")
    own = read_labels(tmp_path / "set" / "labels.csv", tmp_path / "set" / "pictures", score_column="mos")
    broken = own.pictures[getattr(make_split(own), part)[-1]].path
    content = broken.read_bytes()

    class Breaks(TrainingProgress):
        def epoch_ends(self, figures: dict[str, Any]) -> None:
            if figures["epoch"] == 2:
                broken.write_bytes(content[:200])

    with pytest.raises(ValueError, match=rf"{broken.name}.* in epoch 3: .*\. All steps before it are saved") as stopped:
        run_training(tmp_path / "run", labelled=own, ema=0.9, progress=Breaks(), workers=1)
    assert "--resume" in str(stopped.value)
    assert (tmp_path / "run" / "model.safetensors").exists()

    saved = StateFolder(tmp_path / "run" / "state").read()
    assert saved is not None
    assert saved.loop.epoch == 2
    assert part == "train" or saved.loop.step == 4
    broken.write_bytes(content)
    run_training(tmp_path / "run", labelled=own, ema=0.9, resume=True)
    assert_same_run(tmp_path / "run", whole)


def test_a_small_set_is_decoded_once(
    run_training: Run, whole: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    decoded: list[int] = []
    real = pixels.decode

    def decode(path: Any, row: int) -> Any:
        decoded.append(row)
        return real(path, row)

    monkeypatch.setattr(pixels, "decode", decode)
    run_training(tmp_path / "run", ema=0.9)

    assert sorted(decoded) == list(range(40))
    assert_same_run(tmp_path / "run", whole)


def test_a_full_disk_keeps_the_last_state_and_the_last_model(
    run_training: Run, whole: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real, calls = training_state.save_file, 0

    def full(tensors: Any, path: Path, metadata: Any) -> None:
        nonlocal calls
        calls += 1
        if calls == 2:
            path.write_bytes(b"as far as it went")
            raise OSError(28, "No space left on device")
        real(tensors, path, metadata)

    with monkeypatch.context() as patched:
        patched.setattr(training_state, "save_file", full)
        with pytest.raises(OSError, match=r"No space left on device.*The last state and the last model stay"):
            run_training(tmp_path / "run", ema=0.9)

    saved = StateFolder(tmp_path / "run" / "state").read()
    assert saved is not None
    assert saved.loop.epoch == 1
    load_scorer(tmp_path / "run" / "model.safetensors", device="cpu")
    run_training(tmp_path / "run", ema=0.9, resume=True)
    assert_same_run(tmp_path / "run", whole)


def test_a_file_that_may_not_grow_keeps_the_last_state(run_training: Run, whole: Path, tmp_path: Path) -> None:
    """The system's own limit on the size of a file, which safetensors meets as it meets a full disk."""
    resource = pytest.importorskip("resource")
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)

    class Limited(TrainingProgress):
        def epoch_ends(self, figures: dict[str, Any]) -> None:
            if figures["epoch"] == 1:
                resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, limits[1]))

    try:
        with pytest.raises(OSError, match="Expected room for what training writes"):
            run_training(tmp_path / "run", ema=0.9, progress=Limited())
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)

    run_training(tmp_path / "run", ema=0.9, resume=True)
    assert_same_run(tmp_path / "run", whole)


def test_a_loss_that_is_not_finite_stops_it(run_training: Run, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="Expected a finite loss, got nan in epoch 1"):
        run_training(tmp_path, learning_rate=1e30)
    assert not (tmp_path / "model.safetensors").exists()


def test_memory_is_flat_over_epochs(run_training: Run, tmp_path: Path) -> None:
    class Measured(TrainingProgress):
        resident: list[int] = []  # noqa: RUF012 - read after the run

        def epoch_ends(self, figures: dict[str, Any]) -> None:
            self.resident.append(psutil.Process().memory_info().rss)

    run_training(tmp_path, epochs=14, progress=Measured())

    assert max(Measured.resident[8:]) < 1.03 * max(Measured.resident[2:8])


# --------------------------------------------------------------------------------- what the calling program has set
@pytest.mark.parametrize(
    "state",
    [
        lambda: torch.autocast("cpu", dtype=torch.bfloat16),
        pytest.param(torch.inference_mode, marks=pytest.mark.long),
        pytest.param(torch.no_grad, marks=pytest.mark.long),
        pytest.param(lambda: torch.device("meta"), marks=pytest.mark.long),
    ],
    ids=["autocast", "inference mode", "no grad", "default device meta"],
)
def test_trains_the_same_whatever_the_caller_has_set(
    whole: Path, run_training: Run, tmp_path: Path, state: Callable[[], Any]
) -> None:
    with state():
        run_training(tmp_path / "run", ema=0.9)
    assert_same_run(tmp_path / "run", whole)


def test_trains_the_same_with_another_default_dtype(whole: Path, run_training: Run, tmp_path: Path) -> None:
    torch.set_default_dtype(torch.float64)
    try:
        run_training(tmp_path / "run", ema=0.9)
        assert torch.get_default_dtype() == torch.float64
    finally:
        torch.set_default_dtype(torch.float32)
    assert_same_run(tmp_path / "run", whole)


def test_mixed_precision_is_its_own_and_not_the_callers(run_training: Run, tmp_path: Path) -> None:
    run_training(tmp_path / "plain", epochs=1, mixed_precision="bf16")
    with torch.autocast("cpu", dtype=torch.float16):
        run_training(tmp_path / "inside", epochs=1, mixed_precision="bf16")
    run_training(tmp_path / "exact", epochs=1)
    plain, inside, exact = (weights(tmp_path / name) for name in ("plain", "inside", "exact"))
    assert all(torch.equal(plain[name], inside[name]) for name in plain)
    assert not all(torch.equal(plain[name], exact[name]) for name in plain)
