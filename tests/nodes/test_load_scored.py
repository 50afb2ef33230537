"""Load Scored Images: folders of ComfyUI, scores from files, and the scorer for the others."""

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch


@pytest.fixture
def node(pack_module: Callable[[str], Any]) -> Any:
    return pack_module("nodes.load_scored").LoadScored


@pytest.fixture
def output(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, comfy_modules: str) -> Path:
    """ComfyUI's output folder; the input folder lies beside it."""
    import folder_paths

    for kind in ("output", "input"):
        (tmp_path / kind).mkdir()
        monkeypatch.setattr(folder_paths, f"get_{kind}_directory", lambda kind=kind: str(tmp_path / kind))
    return tmp_path / "output"


@pytest.fixture
def save(pack_module: Callable[[str], Any], run_node: Callable[..., Any], output: Path) -> Callable[..., Any]:
    saver = pack_module("nodes.save_scored").SaveScored
    return lambda **inputs: run_node(saver, hidden={"prompt": None, "extra_pnginfo": None}, **inputs)


@pytest.fixture
def load(node: Any, run_node: Callable[..., Any], output: Path) -> Callable[..., dict[str, Any]]:
    """Runs the node; gives its outputs by id."""
    names = [out.id for out in node.GET_SCHEMA().outputs]
    return lambda **inputs: dict(zip(names, run_node(node, **inputs).args, strict=True))


def test_what_was_saved_comes_back_with_its_scores(save, load, managed, batch, pack_module):
    scores = pack_module("nodes.sockets.scores")
    scorer = managed(quantiles=(0.0, 1.0), revision="1")
    of_candidate = scores.ScoreOf.of(0.9, scores.Origin(12, seed=7))
    save(images=batch[3:5], scores=[of_candidate, 0.5], scorer=scorer, filename_prefix="night/cat")
    out = load(folder="output/night")
    (images,) = out["images"]
    assert torch.allclose(images, batch[3:5], atol=1 / 255)
    assert out["scores"] == [0.9, 0.5]
    assert [score.percentile for score in out["scores"]] == [90, 50]
    assert out["scores"][0].origin == scores.Origin(12, 7)
    assert out["files"] == ["cat_00001_.png", "cat_00002_.png"]
    assert out["report"].splitlines()[0] == "2 pictures, 2 with a score in the file"


def test_the_scorer_scores_only_what_has_no_score_of_it(save, load, managed, batch):
    seen = []

    def score(images, prompts):
        seen.extend(images)
        return [float(image.mean()) for image in images]

    scorer = managed(score)
    save(images=batch[:2], scores=[7.0, 8.0], scorer=scorer, filename_prefix="a")
    save(images=batch[2:4], scores=[70.0, 80.0], scorer=managed(name="other"), filename_prefix="b")
    out = load(folder="output", scorer=scorer, order="best score first")
    assert len(seen) == 2
    assert out["scores"] == pytest.approx([8.0, 7.0, 0.1, 0.9], abs=1e-2)
    assert out["files"] == ["a_00002_.png", "a_00001_.png", "b_00001_.png", "b_00002_.png"]
    with pytest.raises(ValueError, match="got those of mean, other, which are on different scales"):
        load(folder="output")


def test_the_prompt_is_the_files_own_or_that_of_the_node(load, managed, output, pack_module):
    metadata = pack_module("ma_agiqa_core.records.png_metadata")
    known = metadata.PictureMetadata(1.0, None, "other", None, 1, 0, prompt="a cat")
    picture = pack_module("nodes.sockets.images").as_pil(torch.zeros(4, 4, 3))
    metadata.save_picture(picture, output / "a.png", known)
    metadata.save_picture(picture, output / "b.png", None)
    texts = []

    def score(images, prompts):
        texts.extend(prompts)
        return [1.0] * len(images)

    scorer = managed(score, needs_prompt=True)
    load(folder="output", scorer=scorer, prompt="a dog")
    assert texts == ["a cat", "a dog"]
    (output / "a.png").unlink()
    with pytest.raises(ValueError, match="Expected a prompt for mean"):
        load(folder="output", scorer=scorer)


def test_folders_in_output_and_input_are_offered(node, output):
    for path in ("output/night/2", "output/.hidden", "input/mine", "output/1/2/3/4"):
        (output.parent / path).mkdir(parents=True)
    (options,) = (given.options for given in node.GET_SCHEMA().inputs if given.id == "folder")
    assert options == [
        "output",
        "output/1",
        "output/1/2",
        "output/1/2/3",
        "output/night",
        "output/night/2",
        "input",
        "input/mine",
    ]


@pytest.mark.parametrize(
    "name", ["", "temp", "output/gone", "output/../secret", "/etc", "output/..", "..", "output\\..\\x"]
)
def test_no_folder_outside_is_read(node, load, output, name):
    (output.parent / "secret").mkdir()
    assert node.validate_inputs(folder=name).startswith("Expected a folder in ComfyUI's output or input folder")
    with pytest.raises(ValueError, match="Expected a folder in ComfyUI's output or input folder"):
        load(folder=name)


def test_a_folder_too_deep_for_the_list_may_be_typed(node, output):
    (output / "1" / "2" / "3" / "4").mkdir(parents=True)
    assert node.validate_inputs(folder="output/1/2/3/4") is True
    assert node.validate_inputs() is True


def test_a_new_file_is_a_reason_to_run_again(node, save, batch, output):
    save(images=batch[:1], scores=[1.0])
    before = node.fingerprint_inputs(folder="output", order="name")
    assert node.fingerprint_inputs(folder="output", order="name") == before
    save(images=batch[:1], scores=[1.0])
    assert node.fingerprint_inputs(folder="output", order="name") != before
    before = node.fingerprint_inputs(folder="output", order="name")
    os.utime(output / "MA-AGIQA_00001_.png", ns=(1, 1))
    assert node.fingerprint_inputs(folder="output", order="name") != before


def test_a_symlink_that_leads_outside_is_not_followed(node, output):
    (output.parent / "secret").mkdir()
    (output / "link").symlink_to(output.parent / "secret")
    assert node.validate_inputs(folder="output/link") is not True
