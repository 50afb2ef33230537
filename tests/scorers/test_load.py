"""Names, files and folders become scorers, by one table of families."""

import json
import pickle
import zipfile
from pathlib import Path
from types import ModuleType
from typing import Any

import click.testing
import pytest
import torch
from safetensors.torch import save_file

from ma_agiqa_core.cli.models import models
from ma_agiqa_core.comfyui import model_listing
from ma_agiqa_core.scorers import families, lite
from ma_agiqa_core.scorers.callable import CallableScorer
from ma_agiqa_core.scorers.families import FAMILIES
from ma_agiqa_core.scorers.family import Family, Request
from ma_agiqa_core.scorers.installed import installed_models
from ma_agiqa_core.scorers.load import load_scorer

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
    monkeypatch.setattr(lite, "LITE_WEIGHTS", path)
    monkeypatch.setattr(lite.scorer, "LiteScorer", FakeLite)
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
        ({"ma_agiqa.format": "1"}, "in .*, got the kind ''"),
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
        ({"semantic": "some/model"}, "no semantic= for a lite scorer, got 'some/model'"),
        ({"quantization": "int8"}, "no quantization= for a lite scorer, got 'int8'"),
        ({"device_map": "auto"}, "no device_map= for a lite scorer, got 'auto'"),
        ({"dtype": "float16"}, "dtype 'auto' or 'float32' for a lite scorer, got 'float16'"),
        ({"dtype": torch.bfloat16}, "got 'torch.bfloat16'"),
        ({"revision": "r2"}, "Expected revision 'r2', got 'r1'"),
        ({"device": "abacus"}, "got 'abacus'"),
    ],
)
def test_options_that_lite_has_not(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        load_scorer("lite", **options)


# --- the table ---


def made_up(request: Request) -> CallableScorer:
    return CallableScorer(lambda images, prompts: [0.0] * len(images), name=f"made-up({request.model})")


MADE_UP = Family(
    name="made-up",
    model="made-up:FOLDER",
    scores="nothing at all",
    needs_prompt=False,
    licence="MIT",
    size="0 MB",
    detects=lambda facts: facts.get("model_type") == "siglip" or facts.get("ma_agiqa.kind") == "made-up",
    load=made_up,
    by_name=True,
)


def test_a_row_is_all_that_a_new_family_needs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, tiny_models: ModuleType
) -> None:
    folder = tiny_models.write_clip(tmp_path / "models" / "mine", model_type="siglip")
    file = checkpoint(tmp_path / "models" / "m.safetensors", {"ma_agiqa.format": "1", "ma_agiqa.kind": "made-up"})
    with pytest.raises(ValueError, match="got the kind 'made-up'"):
        load_scorer(file)
    monkeypatch.setattr(families, "FAMILIES", (MADE_UP, *FAMILIES))
    monkeypatch.setattr("ma_agiqa_core.scorers.installed.FAMILIES", ())  # the carried ones, which are stand-ins here

    assert load_scorer(f"made-up:{folder}").info.name == f"made-up({folder})"
    assert load_scorer(Path("made-up:gone")).info.name == "made-up(gone)"
    assert load_scorer(file).info.name == f"made-up({file})"
    with pytest.raises(ValueError, match=r"'made-up:' or 'clip:' or .* with a folder"):
        load_scorer("nope")
    with pytest.raises(ValueError, match="Did you mean 'made-up:x'"):
        load_scorer("Made-up: x")

    listed = json.loads(click.testing.CliRunner().invoke(models, ["--all", "--json"]).stdout)["families"]
    assert [family["name"] for family in listed] == ["made-up", *(family.name for family in FAMILIES)]
    assert listed[0]["scores"] == "nothing at all"

    assert model_listing.scorers_in(tmp_path / "models") == ["m.safetensors", "mine"]
    offered = model_listing.scorer_path(tmp_path / "models", "mine")
    assert offered == f"made-up:{folder}"
    assert model_listing.place_of(offered) == folder
    (found,) = [model for model in installed_models([folder]) if model.source == "folder"]
    assert (found.kind, found.description) == ("scorer", f"Scores nothing at all. Use --model {offered}")


def test_every_family_in_words() -> None:
    shown = click.testing.CliRunner().invoke(models, ["--all"]).stdout
    for family in FAMILIES:
        assert f"name           {family.name}\n" in shown
        assert family.licence in shown
    assert len({family.name for family in FAMILIES}) == len(FAMILIES)


def test_all_families_are_not_of_a_path() -> None:
    result = click.testing.CliRunner().invoke(models, ["--all", "somewhere"])
    assert result.exit_code == 2
    assert "got somewhere" in result.output
