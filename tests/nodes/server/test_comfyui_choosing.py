"""Choosing, the gate, the contact sheet and saving in the real ComfyUI."""

import json
import os
from typing import Any

import numpy as np
import pytest

pytestmark = pytest.mark.skipif("COMFYUI_PATH" not in os.environ, reason="COMFYUI_PATH names no checkout of ComfyUI")

COUNT = 4
SCORER = {
    "model": "lite",
    "semantic_model": "from checkpoint",
    "precision": "auto",
    "device": "default",
    "cache_vectors": True,
}
SELECT = {"top_k": 2, "use_min_score": False, "min_score": 5.0, "on_none": "best"}


def node(class_type: str, **inputs: Any) -> dict[str, Any]:
    return {"class_type": class_type, "inputs": inputs}


def graph(nodes: dict[str, Any], kind: str = "batch", numbers: str = "1, 5, 3, 9") -> dict[str, Any]:
    """Pictures, numbers to score them by, the scorer, and what is to be tried."""
    return {
        "scorer": node("MaAgiqaLoadScorer", **SCORER),
        "pictures": node("TestPictures", kind=kind, count=COUNT, side=64),
        "numbers": node("TestNumbers", numbers=numbers),
        **nodes,
    }


def select(**inputs: Any) -> dict[str, Any]:
    return node("MaAgiqaSelectBest", **SELECT | {"images": ["pictures", 0], "scores": ["numbers", 0]} | inputs)


def gate(min_score: float) -> dict[str, Any]:
    return node("MaAgiqaQualityGate", images=["pictures", 0], scorer=["scorer", 0], min_score=min_score)


def shown(source: str, output: int) -> dict[str, Any]:
    return node("PreviewAny", source=[source, output])


def saved(source: str, output: int, name: str = "test") -> dict[str, Any]:
    return node("SaveImage", images=[source, output], filename_prefix=name)


def test_the_best_come_out_first_with_their_latents_and_masks(comfyui: Any) -> None:
    nodes = {
        "model": node("CheckpointLoaderSimple", ckpt_name="tiny.safetensors"),
        "encoded": node("VAEEncode", pixels=["pictures", 0], vae=["model", 2]),
        "masks": node("ImageToMask", image=["pictures", 0], channel="red"),
        "best": select(latent=["encoded", 0], mask=["masks", 0]),
        "indexes": shown("best", 4),
        "best latents": node("VAEDecode", samples=["best", 1], vae=["model", 2]),
        "decoded best": saved("best latents", 0),
        "all latents": node("VAEDecode", samples=["encoded", 0], vae=["model", 2]),
        "decoded all": saved("all latents", 0),
        "best masks": node("MaskToImage", mask=["best", 2]),
        "shown masks": saved("best masks", 0),
        "best pictures": saved("best", 0),
        "rejected": saved("best", 5),
        "all pictures": saved("pictures", 0),
    }
    run = comfyui.run(graph(nodes))
    assert run.ending == "execution_success"
    assert run.text("indexes") == "3,1"
    of = {
        name: [np.asarray(picture).astype(int) for picture in run.pictures(name)]
        for name in run.outputs
        if name != "indexes"
    }
    assert len(of["all pictures"]) == COUNT
    for place, index in enumerate((3, 1)):
        assert np.array_equal(of["best pictures"][place], of["all pictures"][index])
        assert np.array_equal(of["shown masks"][place][..., 0], of["all pictures"][index][..., 0])
        assert abs(of["decoded best"][place] - of["decoded all"][index]).max() <= 1
    assert np.array_equal(of["rejected"][0], of["all pictures"][2])


@pytest.mark.parametrize(("min_score", "passes", "fails"), [(-9999, COUNT, 0), (9999, 0, COUNT)])
def test_an_empty_side_of_the_gate_stops_only_what_hangs_on_it(
    comfyui: Any, min_score: float, passes: int, fails: int
) -> None:
    nodes = {
        "gate": gate(min_score),
        "passed": saved("gate", 0),
        "failed": saved("gate", 1),
        "all": saved("pictures", 0),
    }
    run = comfyui.run(graph(nodes))
    assert run.ending == "execution_success"
    counts = {name: len(output["images"]) for name, output in run.outputs.items()}
    assert counts == {name: n for name, n in (("passed", passes), ("failed", fails), ("all", COUNT)) if n}


def test_what_hangs_on_a_blocked_choice_is_skipped_list_nodes_too(comfyui: Any) -> None:
    nodes = {
        "gate": gate(9999),
        "first": node("MaAgiqaSelectBest", **SELECT, images=["gate", 0], scorer=["scorer", 0]),
        "never": shown("first", 4),
        "best": select(use_min_score=True, min_score=99.0, on_none="block"),
        "neither": saved("best", 0),
        "nor": shown("best", 4),
        "rejected": saved("best", 5),
    }
    run = comfyui.run(graph(nodes))
    assert run.ending == "execution_success"
    assert set(run.outputs) == {"rejected"}
    assert len(run.outputs["rejected"]["images"]) == COUNT


def test_an_output_whose_input_was_forgotten_says_so(comfyui: Any) -> None:
    nodes = {"best": select(), "latents": shown("best", 1), "pictures kept": saved("best", 0)}
    error = comfyui.run(graph(nodes)).error
    assert error["node_id"] == "latents"
    assert "nothing is connected to the input 'latent' of Select Best Images" in error["exception_message"]


def test_sheet_and_saved_pictures(comfyui: Any) -> None:
    scored = {"images": ["pictures", 0], "scores": ["numbers", 0], "scorer": ["scorer", 0]}
    nodes = {
        "sheet": node("MaAgiqaScoreSheet", **scored, columns=2),
        "shown sheet": saved("sheet", 0),
        "save": node("MaAgiqaSaveScored", **scored, filename_prefix="night/best"),
    }
    workflow = {"nodes": [], "links": [], "extra": {"note": "Käfer 虫"}}
    run = comfyui.run(graph(nodes, kind="mixed"), workflow=workflow)
    assert run.ending == "execution_success"
    assert len(run.pictures("shown sheet")) == 1
    assert {path.parent.name for path in run.picture_files("save")} == {"night"}
    chunks = [picture.info for picture in run.pictures("save")]
    assert [json.loads(chunk["workflow"]) for chunk in chunks] == [workflow] * COUNT
    assert set(json.loads(chunks[0]["prompt"])) == {"scorer", "pictures", "numbers", *nodes}
    known = [json.loads(chunk["ma_agiqa"]) for chunk in chunks]
    assert [(entry["score"], entry["rank"], entry["index"], entry["model"]) for entry in known] == [
        (1.0, 4, 0, "lite"),
        (5.0, 2, 1, "lite"),
        (3.0, 3, 2, "lite"),
        (9.0, 1, 3, "lite"),
    ]
    assert all(0 <= entry["percentile"] <= 100 for entry in known)
    again = comfyui.run(graph(nodes, kind="mixed"), workflow=workflow)
    assert again.executed == []  # nothing has changed


@pytest.mark.parametrize(
    ("inputs", "message"),
    [
        ({"kind": "empty"}, "at least one picture, got an empty batch"),
        ({"kind": "nan"}, "got NaN or infinite ones in picture 3"),
        ({"numbers": "1, 2, 3"}, "one score for each of 4 pictures, got 3"),
    ],
)
@pytest.mark.parametrize("tried", ["select", "sheet", "save"])
def test_a_mistake_turns_the_node_red_and_the_queue_goes_on(
    comfyui: Any, inputs: dict[str, str], message: str, tried: str
) -> None:
    given = {"images": ["pictures", 0], "scores": ["numbers", 0]}
    tail = {
        "select": {"red": select(), "end": saved("red", 0)},
        "sheet": {"red": node("MaAgiqaScoreSheet", **given, columns=0), "end": saved("red", 0)},
        "save": {"red": node("MaAgiqaSaveScored", **given, filename_prefix="x")},
    }[tried]
    error = comfyui.run(graph(tail, **inputs)).error
    assert error["node_id"] == "red"
    assert message in error["exception_message"]
    assert comfyui.run(graph({"end": saved("pictures", 0)})).ending == "execution_success"


@pytest.mark.parametrize("kind", ["one", "alpha", "mixed"])
def test_unusual_pictures_go_through(comfyui: Any, kind: str) -> None:
    nodes = {
        "best": node("MaAgiqaSelectBest", **SELECT | {"top_k": 9}, images=["pictures", 0], scorer=["scorer", 0]),
        "save": node("MaAgiqaSaveScored", images=["best", 0], scores=["best", 3], filename_prefix=kind),
    }
    run = comfyui.run(graph(nodes, kind=kind))
    pictures = run.pictures("save")
    assert len(pictures) == (1 if kind == "one" else COUNT)
    assert {picture.mode for picture in pictures} == {"RGBA" if kind == "alpha" else "RGB"}
