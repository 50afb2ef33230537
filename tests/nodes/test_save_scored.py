"""Save Scored Images."""

import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import PIL.Image
import pytest
import torch

SCORES = [0.7, 0.3, 0.1, 0.9, 0.5]
HIDDEN = {"prompt": {"1": {"class_type": "X", "inputs": {}}}, "extra_pnginfo": {"workflow": {"nodes": []}, "more": "ö"}}


@pytest.fixture
def output(comfy_modules: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An output folder of this test's own."""
    import folder_paths

    monkeypatch.setattr(folder_paths, "output_directory", str(tmp_path))
    return tmp_path


@pytest.fixture
def save(pack_module: Callable[[str], Any], run_node: Callable[..., Any], output: Path) -> Callable[..., list[Path]]:
    """Runs the node; gives the files that it shows."""
    node = pack_module("nodes.save_scored").SaveScored

    def run(**inputs: Any) -> list[Path]:
        shown = run_node(node, **inputs).ui["images"]
        assert all(entry["type"] == "output" for entry in shown)
        return [output / entry["subfolder"] / entry["filename"] for entry in shown]

    return run


def chunks(path: Path) -> dict[str, Any]:
    with PIL.Image.open(path) as picture:
        picture.load()
        return {str(name): json.loads(text) for name, text in picture.info.items()}


def test_files_are_named_and_look_as_save_image_makes_them(save, batch):
    batch += torch.rand(batch.shape, generator=torch.Generator().manual_seed(0)) * 0.3
    paths = save(images=batch, scores=SCORES, filename_prefix="some/fox")
    assert [path.name for path in paths] == [f"fox_{number:05}_.png" for number in range(1, 6)]
    assert {path.parent.name for path in paths} == {"some"}
    for path, picture in zip(paths, batch, strict=True):
        with PIL.Image.open(path) as saved:
            assert np.array_equal(np.asarray(saved), np.clip(255.0 * picture.numpy(), 0, 255).astype(np.uint8))
    assert save(images=batch[:1], scores=[1.0], filename_prefix="some/fox")[0].name == "fox_00006_.png"


def test_the_chunk_stands_beside_the_workflow(save, batch, managed):
    scorer = managed(quantiles=(0.0, 1.0))
    paths = save(images=batch, scores=SCORES, scorer=scorer, hidden=HIDDEN)
    for index, (path, rank) in enumerate(zip(paths, [2, 4, 5, 1, 3], strict=True)):
        written = chunks(path)
        assert list(written) == ["prompt", "workflow", "more", "ma_agiqa"]
        assert {name: written[name] for name in ("workflow", "more")} == HIDDEN["extra_pnginfo"]
        assert written["prompt"] == HIDDEN["prompt"]
        assert written["ma_agiqa"] == {
            "format": 1,
            "score": SCORES[index],
            "percentile": pytest.approx(100 * SCORES[index]),
            "model": "mean",
            "revision": scorer.info.revision,
            "rank": rank,
            "index": index,
        }


def test_without_a_scorer_model_and_percentile_are_not_known(save, batch):
    (path,) = save(images=batch[:1], scores=[0.5])
    known = {"format": 1, "score": 0.5, "percentile": None, "model": None, "revision": None, "rank": 1, "index": 0}
    assert chunks(path) == {"ma_agiqa": known}


def test_disable_metadata_is_respected(save, batch, monkeypatch):
    from comfy.cli_args import args

    monkeypatch.setattr(args, "disable_metadata", True)
    (path,) = save(images=batch[:1], scores=[0.5], hidden=HIDDEN)
    assert chunks(path) == {}


def test_a_picture_without_a_score_is_saved_without_the_chunk(save, batch):
    first, second = save(images=batch[:2], scores=[math.nan, 1.0], hidden=HIDDEN)
    assert set(chunks(first)) == {"prompt", "workflow", "more"}
    assert chunks(second)["ma_agiqa"]["rank"] == 1


def test_mixed_sizes_alpha_and_grey(save, batch):
    clear = torch.full((1, 6, 4, 4), 0.5)
    grey = torch.full((1, 5, 7, 1), 0.5)
    paths = save(images=[batch[:1], clear, grey], scores=[1.0, 2.0, 3.0], filename_prefix="%width%x%height%")
    assert [path.name for path in paths] == ["32x24_00001_.png", "4x6_00001_.png", "7x5_00001_.png"]
    modes = [PIL.Image.open(path).mode for path in paths]
    assert modes == ["RGB", "RGBA", "RGB"]


def test_a_number_within_the_batch_never_overwrites(save, batch):
    names = [
        path.name for _ in range(2) for path in save(images=batch[:2], scores=[1, 2], filename_prefix="a%batch_num%")
    ]
    assert names == ["a0_00001_.png", "a1_00001_.png", "a0_00002_.png", "a1_00002_.png"]


def test_mistakes_are_told_in_a_sentence_and_leave_no_file(save, batch, output):
    with pytest.raises(ValueError, match="one score for each of 5 pictures, got 1"):
        save(images=batch, scores=[1.0])
    with pytest.raises(ValueError, match="at least one picture, got an empty batch"):
        save(images=batch[:0], scores=[])
    with pytest.raises(Exception, match="outside the output folder"):
        save(images=batch[:1], scores=[1.0], filename_prefix="../elsewhere")
    assert list(output.rglob("*.png")) == []


def test_a_score_that_knows_its_candidate_names_it_in_the_file(save, batch, pack_module):
    scores = pack_module("nodes.sockets.scores")
    known = [scores.ScoreOf.of(0.7, scores.Origin(5, 12)), scores.ScoreOf.of(0.3, scores.Origin(2, 12))]

    said = [chunks(path)["ma_agiqa"] for path in save(images=batch[:2], scores=known)]

    assert [(entry["index"], entry["seed"], entry["rank"]) for entry in said] == [(5, 12, 1), (2, 12, 2)]
    assert "seed" not in chunks(save(images=batch[:1], scores=[1.0])[0])["ma_agiqa"]


def test_scores_come_out_of_select_best_with_the_numbers_of_their_pictures(save, batch, pack_module, run_node, managed):
    best = run_node(pack_module("nodes.select_best").SelectBest, images=batch, scores=SCORES, top_k=2)
    again = run_node(pack_module("nodes.select_best").SelectBest, images=best.args[0], scores=best.args[3], top_k=1)

    saved = [*save(images=best.args[0], scores=best.args[3]), *save(images=again.args[0], scores=again.args[3])]

    assert [chunks(path)["ma_agiqa"]["index"] for path in saved] == [3, 0, 3]


def test_scores_ranks_and_numbers_in_file_names(save, batch):
    paths = save(images=batch[:3], scores=[0.7, 0.3456, math.nan], filename_prefix="all/%rank%_%index%_%score%")

    assert [path.name for path in paths] == ["1_0_0.7_00001_.png", "2_1_0.3456_00001_.png", "none_none_none_00001_.png"]


def test_percentiles_and_seeds_in_file_names(save, batch, managed, pack_module):
    scores = pack_module("nodes.sockets.scores")
    of_candidate = scores.ScoreOf.of(0.7, scores.Origin(6, seed=42), percentile=98.7)
    paths = save(images=batch[:2], scores=[of_candidate, 0.3], filename_prefix="p%percentile%_s%seed%_%index%")
    assert [path.name for path in paths] == ["p98_s42_6_00001_.png", "pnone_snone_1_00001_.png"]
    assert [chunks(path)["ma_agiqa"]["percentile"] for path in paths] == [98.7, None]
    scorer = managed(quantiles=(0.0, 1.0))
    (path,) = save(images=batch[:1], scores=[0.7], scorer=scorer, filename_prefix="by%percentile%")
    assert path.name == "by70_00001_.png"
