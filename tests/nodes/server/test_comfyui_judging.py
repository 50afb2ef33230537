"""Several scorers, percentiles, videos, what goes along, and folders with scores, in the real ComfyUI."""

import os
from typing import Any

import pytest

pytestmark = pytest.mark.skipif("COMFYUI_PATH" not in os.environ, reason="COMFYUI_PATH names no checkout of ComfyUI")

COUNT = 4


def node(class_type: str, **inputs: Any) -> dict[str, Any]:
    return {"class_type": class_type, "inputs": inputs}


def scorer(**chosen: Any) -> dict[str, Any]:
    settings = {"semantic_model": "from checkpoint", "precision": "auto", "device": "default", "cache_vectors": True}
    return node("MaAgiqaLoadScorer", **{"model": "lite", **settings, **chosen})


def shown(source: str, output: int) -> dict[str, Any]:
    return node("PreviewAny", source=[source, output])


def saved(source: str, output: int, name: str = "judging") -> dict[str, Any]:
    return node("SaveImage", images=[source, output], filename_prefix=name)


BASE = {
    "lite": scorer(),
    "pictures": node("TestPictures", kind="batch", count=COUNT, side=64),
    "numbers": node("TestNumbers", numbers="1, 5, 3, 9"),
}


def test_two_scorers_side_by_side_and_the_most_disputed(comfyui: Any) -> None:
    nodes = {
        "clip": scorer(model="tiny-clip", target="default"),
        "score": node(
            "MaAgiqaScoreImages", scorer=["lite", 0], scorer_2=["clip", 0], images=["pictures", 0], prompt="a cat"
        ),
        "report": shown("score", 3),
        "disputed": node(
            "MaAgiqaSelectBest",
            images=["score", 0],
            scores=["score", 6],
            top_k=1,
            use_min_score=False,
            min_score=0,
            on_none="best",
        ),
        "picture": saved("disputed", 0),
    }
    run = comfyui.run(BASE | nodes)
    assert run.ending == "execution_success"
    assert "rank correlation of lite and clipscore(tiny-clip)" in run.text("report")
    assert len(run.outputs["score"]["images"]) == 1
    assert len(run.pictures("picture")) == 1


def test_a_device_and_a_target_of_other_machines(comfyui: Any) -> None:
    given = {"device": "gpu:7", "target": "quality"}
    nodes = {
        "elsewhere": scorer(**given),
        "score": node("MaAgiqaScoreImages", scorer=["elsewhere", 0], images=["pictures", 0]),
    }
    assert comfyui.run(BASE | nodes).ending == "execution_success"
    nodes["elsewhere"] = scorer(target="authenticity")
    error = comfyui.run(BASE | nodes).error
    assert "Expected a target of" in error["exception_message"]


def test_the_gate_by_a_percentile_with_latents_scores_and_counts(comfyui: Any) -> None:
    nodes = {
        "model": node("CheckpointLoaderSimple", ckpt_name="tiny.safetensors"),
        "encoded": node("VAEEncode", pixels=["pictures", 0], vae=["model", 2]),
        "gate": node(
            "MaAgiqaQualityGate",
            images=["pictures", 0],
            scorer=["lite", 0],
            latent=["encoded", 0],
            min_score=50.0,
            min_score_as="percentile in this run",
        ),
        "decoded": node("VAEDecode", samples=["gate", 2], vae=["model", 2]),
        "passed": saved("decoded", 0),
        "failed": saved("gate", 1),
        "passed count": shown("gate", 8),
        "failed count": shown("gate", 9),
        "save": node("MaAgiqaSaveScored", images=["gate", 0], scores=["gate", 6], filename_prefix="gate/p%percentile%"),
    }
    run = comfyui.run(BASE | nodes)
    assert run.ending == "execution_success"
    assert (run.text("passed count"), run.text("failed count")) == ("2", "2")
    assert [len(run.pictures(name)) for name in ("passed", "failed", "save")] == [2, 2, 2]
    assert all(path.name[1].isdigit() for path in run.picture_files("save"))


def test_of_videos_the_first_frames_are_scored_and_whole_videos_come_out(comfyui: Any) -> None:
    nodes = {
        "pictures": node("TestPictures", kind="mixed", count=COUNT, side=64),
        "videos": node("CreateVideo", images=["pictures", 0], fps=8.0),
        "score": node("MaAgiqaScoreImages", scorer=["lite", 0], images=["videos", 0]),
        "best": node(
            "MaAgiqaSelectBest",
            images=["videos", 0],
            scores=["numbers", 0],
            anything=["videos", 0],
            top_k=2,
            use_min_score=False,
            min_score=0,
            on_none="best",
        ),
        "indexes": shown("best", 4),
        "parts": node("GetVideoComponents", video=["best", 11]),
        "frames": saved("parts", 0),
        "gate": node(
            "MaAgiqaQualityGate",
            images=["videos", 0],
            scorer=["lite", 0],
            anything=["videos", 0],
            min_score=50.0,
            min_score_as="percentile in this run",
        ),
    }
    for side, output in (("passed", 10), ("failed", 11)):
        nodes[f"{side} parts"] = node("GetVideoComponents", video=["gate", output])
        nodes[side] = saved(f"{side} parts", 0)
    run = comfyui.run(BASE | nodes)
    assert run.ending == "execution_success"
    assert len(run.outputs["score"]["images"]) == 1
    sides = [[picture.width for picture in run.pictures(side)] for side in ("passed", "failed")]
    assert [len(widths) for widths in sides] == [2, 2]
    assert sorted([*sides[0], *sides[1]]) == [64, 72, 80, 88]
    assert run.text("indexes") == "3,1"
    assert [picture.size for picture in run.pictures("frames")] == [(88, 88), (72, 72)]


def test_a_folder_comes_back_with_its_scores(comfyui: Any) -> None:
    save = node(
        "MaAgiqaSaveScored",
        images=["pictures", 0],
        scores=["numbers", 0],
        scorer=["lite", 0],
        filename_prefix="again/%rank%",
    )
    assert comfyui.run(BASE | {"save": save}).ending == "execution_success"
    load = node("MaAgiqaLoadScored", folder="output/again", order="best score first", most=3)
    nodes = {"load": load, "report": shown("load", 3), "pictures again": saved("load", 0)}
    run = comfyui.run(nodes)
    assert run.ending == "execution_success"
    lines = run.text("report").splitlines()
    assert lines[0] == "3 pictures, 3 with a score in the file"
    assert [line.split()[-1] for line in lines[1:]] == ["1_00001_.png", "2_00001_.png", "3_00001_.png"]
    assert len(run.pictures("pictures again")) == 3
    comfyui.run(BASE | {"save": save, "pictures": node("TestPictures", kind="batch", count=COUNT, side=72)})
    assert "load" in comfyui.run(nodes).executed  # new files are a reason to read again


def test_a_folder_that_is_not_there_is_refused_before_the_run(comfyui: Any) -> None:
    from comfyui_server import RefusedPromptError

    load = node("MaAgiqaLoadScored", folder="output/../models", order="name", most=3)
    with pytest.raises(RefusedPromptError, match="Expected a folder in ComfyUI's output or input folder"):
        comfyui.run({"load": load, "report": shown("load", 3)})
