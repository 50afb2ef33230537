"""`extract`, `models` and scoring with a language model, from the command line, in this process."""

import json
import shutil
from pathlib import Path

import pytest

from ma_agiqa_core import cli


@pytest.fixture
def command(capsys, tmp_path, monkeypatch, make_picture):
    """Runs a command line in a folder with photos/ of three pictures and a broken one."""
    monkeypatch.chdir(tmp_path)
    for name, brightness in (("a", 51), ("b", 204), ("sub/c", 102)):
        make_picture(tmp_path / "photos" / f"{name}.png", brightness)
    (tmp_path / "photos" / "broken.png").write_bytes(b"no picture")

    def run(*arguments: object) -> tuple[int, str, str]:
        code = cli.run([str(argument) for argument in arguments])
        output = capsys.readouterr()
        return code, output.out, output.err

    return run


def test_extract_then_score_without_the_language_model(command, checkpoint, owl_folder, monkeypatch):
    from ma_agiqa_core.model_files.transformers_folder import fingerprint
    from ma_agiqa_core.semantic.published_mplug_owl2 import PublishedMplugOwl2

    code, out, err = command("extract", "photos", "--semantic", owl_folder, "--cache", "cache", "--device", "cpu")
    assert (code, out) == (cli.SOME_FAILED, "")
    assert "broken.png: not a picture" in err
    assert "3 of 4 pictures have semantic vectors; 1 failed.\nVectors: cache" in err
    assert len([path for path in Path("cache").rglob("*") if path.is_file()]) == 6
    monkeypatch.setattr(PublishedMplugOwl2, "from_folder", None)
    options = ("--model", checkpoint, "--semantic", owl_folder, "--cache", "cache", "--device", "cpu")
    code, out, err = command("score", "photos", *options, "--json")
    assert code == cli.SOME_FAILED
    records = json.loads(out)["records"]
    assert [record["score"] is None for record in records] == [False, False, True, False]
    assert json.loads(out)["model"]["name"] == "tiny"
    assert f";semantic={owl_folder.name}@{fingerprint(owl_folder)[:12]};questions=" in records[0]["model"]


def test_rank_with_a_language_model(command, checkpoint, owl_folder):
    code, out, _ = command("rank", "photos/a.png", "photos/b.png", "--model", checkpoint, "--semantic", owl_folder)
    assert code == 0
    assert out.splitlines()[0].split() == ["RANK", "SCORE", "BETTER", "THAN", "PICTURE"]
    assert len(out.splitlines()) == 3


def test_a_language_model_that_cannot_be_loaded_ends_the_run_at_once(command, checkpoint, owl_folder, tmp_path):
    broken = Path(shutil.copytree(owl_folder, tmp_path / "broken"))
    shard = broken / "pytorch_model-2-of-3.bin"
    shard.write_bytes(shard.read_bytes()[:1000])
    for arguments in (
        ("score", "photos", "--model", checkpoint, "--semantic", broken),
        ("rank", "photos", "--model", checkpoint, "--semantic", broken),
        ("extract", "photos", "--semantic", broken, "--cache", "cache"),
    ):
        code, _, err = command(*arguments)
        assert code == cli.WRONG_USAGE
        assert err.count("pytorch_model-2-of-3.bin") == 1
        assert "Download it again" in err
        assert "Traceback" not in err


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("extract", "photos", "--cache", "cache"), "Missing option '--semantic'"),
        (("extract", "photos", "--semantic", "owl"), "Missing option '--cache'"),
        (("extract", "photos", "--semantic", "nowhere", "--cache", "cache"), "got 'nowhere': no such folder"),
        (("extract", "nothing", "--semantic", "owl", "--cache", "cache"), "nothing"),
        (("convert", "nowhere.pt", "out.safetensors"), "nowhere.pt"),
        (("convert", "photos/a.png", "out.safetensors"), "photos/a.png"),
        (("models", "nowhere"), "got nowhere: no such file or folder"),
    ],
)
def test_mistakes_are_one_line_and_exit_code_2(command, arguments, message):
    code, out, err = command(*arguments)
    assert (code, out) == (cli.WRONG_USAGE, "")
    assert message in err
    assert len(err.strip().splitlines()) == 1


def test_models_shows_the_package_files_and_the_hubs_cache(command, checkpoint, owl_folder, tmp_path, monkeypatch):
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    commit = "b" * 40
    cached = tmp_path / "hub" / "models--MAGAer13--mplug-owl2-llama2-7b"
    shutil.copytree(owl_folder, cached / "snapshots" / commit)
    (cached / "refs").mkdir()
    (cached / "refs" / "main").write_text(commit)
    shutil.copy(checkpoint, tmp_path / "mine.safetensors")
    (tmp_path / "other.safetensors").write_bytes(b"no checkpoint")
    code, out, err = command("models", "--json")
    assert (code, err) == (0, "")
    lite, mine, owl = json.loads(out)["models"]
    assert (lite["name"], lite["source"], lite["licence"]) == ("lite", "package", "Apache-2.0")
    assert (mine["name"], mine["file"], mine["semantic"]) == ("tiny", "mine.safetensors", "owner/owl")
    assert mine["trained_on"] == "random numbers"
    assert (owl["name"], owl["kind"]) == ("MAGAer13/mplug-owl2-llama2-7b", "semantic model")
    assert (owl["source"], owl["revision"]) == ("Hub cache", commit)
    assert "LLaMA 2" in owl["licence"]
    (folder,) = [model for model in _models(command, owl_folder) if model["source"] == "folder"]
    assert (folder["name"], folder["kind"]) == (owl_folder.name, "semantic model")
    code, out, _ = command("models", "mine.safetensors")
    assert code == 0
    assert "name        tiny" in out
    assert "mplug_owl2" in out


def _models(command, *paths):
    code, out, _ = command("models", *paths, "--json")
    assert code == 0
    return json.loads(out)["models"]


def test_models_without_a_hub_cache(command, monkeypatch, tmp_path):
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "none"))
    code, out, _ = command("models", "--json")
    assert code == 0
    assert [model["name"] for model in json.loads(out)["models"]] == ["lite"]
