"""What scorers say about themselves, how they are loaded, and the arguments they share."""

import pickle
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from ma_agiqa_core.compute.devices import resolve_device
from ma_agiqa_core.pictures.prompts import check_score_options, resolve_prompts
from ma_agiqa_core.scorers import lite
from ma_agiqa_core.scorers.callable import CallableScorer
from ma_agiqa_core.scorers.scorer import Scorer, ScorerInfo, load_scorer


def info(**changes: Any) -> ScorerInfo:
    return ScorerInfo(**{"name": "x", "revision": "1", "low": 0, "high": 5, "trained_on": "toys", **changes})


# --- percentiles ---


def test_percentile_is_linear_between_the_quantiles() -> None:
    quantiles = np.cumsum(np.random.default_rng(0).random(101) + 1e-3)
    scorer_info = info(quantiles=tuple(quantiles))
    for score in [*np.linspace(-1, 60, 300), *quantiles, -np.inf, np.inf]:
        expected = np.interp(score, quantiles, np.arange(101))
        assert scorer_info.percentile(score) == pytest.approx(expected, abs=1e-9)


def test_percentile_of_a_score_that_many_pictures_share_is_their_middle() -> None:
    shared = info(quantiles=(0, 1, 1, 1, 2))
    assert [shared.percentile(score) for score in (0, 0.5, 1, 1.5, 2)] == [0, 12.5, 50, 87.5, 100]


@pytest.mark.parametrize("score", [torch.tensor(0.25), np.float32(0.25)])
def test_percentile_of_a_tensor_or_numpy_number_is_a_float(score: Any) -> None:
    percentile = info(quantiles=(0, 1)).percentile(score)
    assert (type(percentile), percentile) == (float, 25)


def test_no_percentile_without_quantiles_or_score() -> None:
    assert info().percentile(3) is None
    assert info(quantiles=(0, 1)).percentile(float("nan")) is None


def test_no_percentile_of_a_relative_scorer() -> None:
    with pytest.raises(ValueError, match="got x, whose scores only compare the pictures of one call"):
        info(relative=True, quantiles=(0, 1)).percentile(1)


@pytest.mark.parametrize("quantiles", [(1,), (2, 1), (0, float("nan")), (0, float("inf"))])
def test_impossible_quantiles_are_refused(quantiles: tuple[float, ...]) -> None:
    with pytest.raises(ValueError, match="ascending finite quantiles"):
        info(quantiles=quantiles)


def test_an_empty_range_is_refused() -> None:
    with pytest.raises(ValueError, match="low < high, got 5 and 5"):
        info(low=5)


def test_protocol_needs_no_base_class() -> None:
    assert isinstance(CallableScorer(lambda images, prompts: [], name="x"), Scorer)
    assert not isinstance(info(), Scorer)


# --- loading ---

LITE_METADATA = {"ma_agiqa.format": "1", "ma_agiqa.kind": "lite"}


class FakeLite(CallableScorer):
    def __init__(self, path: Path, device: torch.device) -> None:
        super().__init__(lambda images, prompts: [0.0] * len(images), name="lite", revision="r1")
        self.path, self.device = path, device

    @classmethod
    def from_file(cls, path: Path, device: torch.device) -> "FakeLite":
        return cls(path, device)


@pytest.fixture(autouse=True)
def carried(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Stands for the weights in the package."""
    path = checkpoint(tmp_path / "carried" / "lite.safetensors", LITE_METADATA)
    monkeypatch.setattr(lite, "LITE_WEIGHTS", path, raising=False)
    monkeypatch.setattr(lite, "LiteScorer", FakeLite, raising=False)
    return path


def checkpoint(path: Path, metadata: dict[str, str]) -> Path:
    path.parent.mkdir(exist_ok=True)
    save_file({"weight": torch.zeros(2)}, path, metadata)
    return path


def test_carried_scorer(carried: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "lite").mkdir()  # a folder of that name does not stand in its way
    scorer = load_scorer("lite", device="cpu", cache="ignored", local_files_only=True, revision="r1")
    assert isinstance(scorer, FakeLite)
    assert (scorer.path, scorer.device) == (carried, torch.device("cpu"))


def test_file_or_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = checkpoint(tmp_path / "my model" / "model.safetensors", LITE_METADATA)
    monkeypatch.chdir(tmp_path)
    for model in (path, str(path), path.parent, "./my model", "my model", "my model/model.safetensors"):
        scorer = load_scorer(model, device="cpu", dtype=torch.float32)
        assert isinstance(scorer, FakeLite)
        assert scorer.path.resolve() == path.resolve()


@pytest.mark.parametrize("model", ["nope", "Lite", ""])
def test_unknown_names_are_refused(model: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ValueError, match=r"got '.*'\. Loadable are 'lite', a") as raised:
        load_scorer(model)
    assert "\n" not in str(raised.value)


def test_hub_ids_that_are_not_here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(FileNotFoundError, match=r"Expected 'some/hub-id'.* on this machine, got none") as raised:
        load_scorer("some/hub-id", local_files_only=True)
    assert "\n" not in str(raised.value)


@pytest.mark.parametrize("model", ["no.safetensors", "./nope", "~/nope-7Q", Path("nope"), "a\\nope", "nope.pt"])
def test_missing_paths(model: str | Path) -> None:
    with pytest.raises(FileNotFoundError, match="no such file or folder"):
        load_scorer(model)


class Bomb:
    def __init__(self, marker: Path) -> None:
        self.marker = marker

    def __reduce__(self) -> tuple[Any, ...]:
        return Path.touch, (self.marker,)


@pytest.mark.parametrize("name", ["m.pt", "m.pth", "m.ckpt", "m.bin", "m.PKL", "m.safetensors", "model"])
@pytest.mark.parametrize("zipped", [False, True])
def test_pickles_are_refused_and_not_executed(tmp_path: Path, name: str, zipped: bool) -> None:
    marker, path = tmp_path / "executed", tmp_path / name
    payload = pickle.dumps(Bomb(marker))
    if zipped:
        with zipfile.ZipFile(path, "w") as archive:
            archive.writestr("archive/data.pkl", payload)
    else:
        path.write_bytes(payload)
    with pytest.raises(
        ValueError, match=r"Expected a safetensors checkpoint, got the pickle '.*', which could run code"
    ):
        load_scorer(path)
    assert not marker.exists()


@pytest.mark.parametrize("damage", ["empty", "text", "header", "tail", "old pickle"])
def test_unreadable_checkpoints(carried: Path, tmp_path: Path, damage: str) -> None:
    whole = carried.read_bytes()
    path = tmp_path / "m.safetensors"
    content = {
        "empty": b"",
        "text": b"version https://git-lfs.github.com/spec/v1\n",
        "header": whole[:20],
        "tail": whole[:-4],
        "old pickle": pickle.dumps(Bomb(tmp_path / "executed"), protocol=0),
    }
    path.write_bytes(content[damage])
    with pytest.raises(ValueError, match=r"Expected a safetensors checkpoint, got '.*m\.safetensors': ") as raised:
        load_scorer(path)
    assert "\n" not in str(raised.value)
    assert not (tmp_path / "executed").exists()


@pytest.mark.parametrize(
    ("metadata", "message"),
    [
        ({}, "format '1' in the metadata of .*, got None"),
        ({"ma_agiqa.format": "2", "ma_agiqa.kind": "lite"}, "got '2'"),
        (
            {"ma_agiqa.format": "1", "ma_agiqa.kind": "ma-agiqa"},
            "ma_agiqa.config in the metadata of .*, got none",
        ),
        ({"ma_agiqa.format": "1"}, "kind 'ma-agiqa' or 'lite' in .*, got ''"),
    ],
)
def test_other_checkpoints_are_refused(tmp_path: Path, metadata: dict[str, str], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        load_scorer(checkpoint(tmp_path / "m.safetensors", metadata))


def test_folder_without_a_checkpoint(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"Expected a folder with model\.safetensors"):
        load_scorer(tmp_path)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"semantic": "some/model"}, "no semantic for a lite scorer, got 'some/model'"),
        ({"quantization": "int8"}, "no quantization for a lite scorer, got 'int8'"),
        ({"device_map": "auto"}, "no device_map for a lite scorer, got 'auto'"),
        ({"dtype": "float16"}, "dtype 'auto' or 'float32' for a lite scorer, got 'float16'"),
        ({"dtype": torch.bfloat16}, "got 'torch.bfloat16'"),
        ({"revision": "r2"}, "Expected revision 'r2', got 'r1'"),
        ({"device": "abacus"}, "got 'abacus'"),
    ],
)
def test_options_that_lite_has_not(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        load_scorer("lite", **options)


# --- devices ---


@pytest.mark.parametrize(
    ("cuda", "mps", "expected"), [(2, True, "cuda"), (0, True, "mps"), (0, False, "cpu"), (1, False, "cuda")]
)
def test_auto_takes_the_best_device(monkeypatch: pytest.MonkeyPatch, cuda: int, mps: bool, expected: str) -> None:
    monkeypatch.setattr(torch.cuda, "device_count", lambda: cuda)
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: mps)
    assert resolve_device() == resolve_device("auto") == torch.device(expected)


def test_named_devices(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: False)
    assert resolve_device("cpu") == resolve_device(torch.device("cpu")) == torch.device("cpu")
    assert resolve_device("cuda:0") == torch.device("cuda", 0)
    for absent in ("cuda:1", "mps", "meta"):
        with pytest.raises(ValueError, match=f"a device of this machine, got '{absent}'"):
            resolve_device(absent)
    with pytest.raises(ValueError, match="got 'gpu'"):
        resolve_device("gpu")


# --- prompts and options ---


def test_prompts() -> None:
    assert resolve_prompts(None, 2, needs_prompt=False) is None
    assert resolve_prompts("a cat", 2, needs_prompt=True) == ["a cat", "a cat"]
    assert resolve_prompts(("a", "b"), 2, needs_prompt=True) == ["a", "b"]
    assert resolve_prompts(["", "b"], 2, needs_prompt=False) == ["", "b"]
    assert resolve_prompts(None, 0, needs_prompt=True) is None


@pytest.mark.parametrize(
    ("prompts", "needs_prompt", "message"),
    [
        (["a"], False, "one for each of 2 pictures, got 1"),
        ([], True, "got 0"),
        (None, True, "Expected prompts, got None"),
        ("", True, "for picture 0, got an empty one"),
        (["a", " "], True, "for picture 1, got an empty one"),
        (["a", None], False, "for picture 1, got None"),
    ],
)
def test_prompts_that_do_not_fit(prompts: Any, needs_prompt: bool, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        resolve_prompts(prompts, 2, needs_prompt)


def test_score_options() -> None:
    check_score_options(None, "raise")
    check_score_options(1, "nan")
    with pytest.raises(ValueError, match="batch_size of at least 1, or None, got 0"):
        check_score_options(0, "nan")
    with pytest.raises(ValueError, match="'raise' or 'nan', got 'skip'"):
        check_score_options(None, "skip")
