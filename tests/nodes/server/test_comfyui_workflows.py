"""The example workflows in the real ComfyUI, with small random models in place of SDXL and of CLIP."""

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import PIL.Image
import pytest
from scipy.stats import rankdata

from ma_agiqa_core import load_scorer

WIDEST = 2000  # in a window of 1600 pixels ComfyUI opens wider ones so small that it leaves out all their texts
WORKFLOWS = sorted(Path(__file__).parents[3].joinpath("example_workflows").glob("*.json"))
NEEDS_COMFYUI = pytest.mark.skipif("COMFYUI_PATH" not in os.environ, reason="COMFYUI_PATH names no checkout of ComfyUI")
SMALLER = {
    "CheckpointLoaderSimple": {"ckpt_name": "tiny.safetensors"},
    "EmptyLatentImage": {"width": 64, "height": 64},
    "KSampler": {"steps": 4},
    "MaAgiqaBestOfNSampler": {"steps": 5},
}

Workflow = dict[str, Any]


def read(name: str) -> Workflow:
    return json.loads(next(path for path in WORKFLOWS if path.stem == name).read_text(encoding="utf-8"))


class SmallPrompt:
    """The API form of an example workflow, with small models, small pictures and few steps."""

    def __init__(self, name: str, form: Callable[..., dict[str, Any]], info: dict[str, Any]) -> None:
        self.workflow = read(name)
        self.nodes = form(self.workflow, info)
        for given in self.nodes.values():
            given["inputs"] |= SMALLER.get(given["class_type"], {})
            if given["inputs"].get("model") == "clip-vit-base-patch32":
                given["inputs"]["model"] = "tiny-clip"

    def id(self, kind: str, title: str | None = None) -> str:
        """Of the only node of a kind, or of the one with a title."""
        found = [
            str(node["id"])
            for node in self.workflow["nodes"]
            if node["type"] == kind and (title is None or node.get("title") == title)
        ]
        assert len(found) == 1, f"{len(found)} nodes {kind} {title}"
        return found[0]

    def watch(self, name: str, kind: str, **inputs: Any) -> None:
        """Adds a node that shows something."""
        self.nodes[name] = {"class_type": kind, "inputs": inputs}


@pytest.fixture
def small(comfyui: Any, workflow_to_api: Any) -> Callable[[str], SmallPrompt]:
    return lambda name: SmallPrompt(name, workflow_to_api.api_form, comfyui.get("/object_info"))


def floats(run: Any, node: str) -> list[float]:
    return [float(text) for text in run.outputs[node]["text"]]


def pixels(picture: PIL.Image.Image) -> np.ndarray:
    return np.asarray(picture.convert("RGB")).astype(int)


def test_each_workflow_has_a_thumbnail() -> None:
    assert len(WORKFLOWS) == 4
    for path in WORKFLOWS:
        with PIL.Image.open(path.with_suffix(".jpg")) as thumbnail:
            assert max(thumbnail.size) >= 256
            assert thumbnail.format == "JPEG"


@pytest.mark.parametrize("name", [path.stem for path in WORKFLOWS])
def test_workflows_explain_themselves_and_fit_on_the_canvas(name: str) -> None:
    workflow = read(name)
    assert [node for node in workflow["nodes"] if node["type"] == "MarkdownNote"]
    assert len(workflow["groups"]) >= 3
    boxes = [
        (*node["pos"], node["pos"][0] + node["size"][0], node["pos"][1] + node["size"][1]) for node in workflow["nodes"]
    ]
    for i, (left, top, right, bottom) in enumerate(boxes):
        for other_left, other_top, other_right, other_bottom in boxes[:i]:
            apart = right <= other_left or other_right <= left or bottom <= other_top - 30 or other_bottom <= top - 30
            assert apart, f"{workflow['nodes'][i]['type']} lies on another node"
    sides = [(group["bounding"][0], group["bounding"][0] + group["bounding"][2]) for group in workflow["groups"]]
    assert max(right for _, right in sides) - min(left for left, _ in sides) <= WIDEST


@NEEDS_COMFYUI
@pytest.mark.parametrize("name", [path.stem for path in WORKFLOWS])
def test_widgets_agree_with_object_info(name: str, comfyui: Any, workflow_to_api: Any) -> None:
    info = comfyui.get("/object_info")
    workflow = read(name)
    types = {link: kind for link, *_, kind in workflow["links"]}
    for node in workflow["nodes"]:
        if node["type"] in workflow_to_api.TEXT_ONLY:
            continue
        known = workflow_to_api.inputs_of(info[node["type"]])
        for key, value in workflow_to_api.widget_values(node, info[node["type"]]).items():
            kind, options = known.get(key, (None, {}))  # none: of what depends on a choice
            choices = kind if isinstance(kind, list) else options.get("options")
            if kind == "COMFY_DYNAMICCOMBO_V3":
                choices = [option["key"] for option in choices]
            if choices is not None:
                assert value in choices or key in ("ckpt_name", "model"), (node["type"], key, value)
            elif kind in ("INT", "FLOAT"):
                assert options.get("min", value) <= value <= options.get("max", value), (node["type"], key, value)
            elif kind in ("STRING", "BOOLEAN"):
                assert isinstance(value, {"STRING": str, "BOOLEAN": bool}[kind])
        assert {given["name"] for given in node["inputs"]} <= set(known)
        for given in node["inputs"]:
            if given.get("link") is not None:
                assert types[given["link"]] in known[given["name"]][0].split(",") or known[given["name"]][0] == "*"
        kinds = [given["type"] for given in node["outputs"]]
        assert kinds == info[node["type"]]["output"][: len(kinds)]  # newer core nodes have further ones
        if node["type"].startswith("MaAgiqa"):  # a node may have got further outputs since
            names = [given["name"] for given in node["outputs"]]
            assert names == info[node["type"]]["output_name"][: len(names)]


@NEEDS_COMFYUI
def test_score_a_batch(comfyui: Any, small: Any) -> None:
    prompt = small("score_a_batch")
    score, best = prompt.id("MaAgiqaScoreImages"), prompt.id("MaAgiqaSelectBest")
    prompt.watch("all", "PreviewImage", images=prompt.nodes[score]["inputs"]["images"])
    prompt.watch("scores", "PreviewAny", source=[score, 1])
    run = comfyui.run(prompt.nodes, prompt.workflow)
    assert run.ending == "execution_success"
    scores = floats(run, "scores")
    assert (len(scores), len(run.pictures(score))) == (8, 1)
    made = run.pictures("all")
    assert scores == pytest.approx(load_scorer("lite").score(run.picture_files("all")).tolist(), abs=0.1)
    best_first = np.argsort([-score for score in scores])
    for row, picture in zip(best_first[:3], run.pictures(prompt.id("PreviewImage", "The best 3")), strict=True):
        np.testing.assert_array_equal(pixels(picture), pixels(made[row]))
    (sheet,) = run.pictures(prompt.id("PreviewImage", "Ranked sheet"))
    assert sheet.width > 4 * 64
    assert run.text(prompt.id("PreviewAny")).splitlines()[2].split()[1] == str(best_first[0])
    # what the note promises: another top_k costs nothing
    prompt.nodes[best]["inputs"]["top_k"] = 2
    assert set(comfyui.run(prompt.nodes).executed) == {best, prompt.id("PreviewImage", "The best 3")}


@NEEDS_COMFYUI
def test_best_of_8_then_upscale_only_the_winner(comfyui: Any, small: Any) -> None:
    prompt = small("best_of_8_then_upscale")
    sampler = prompt.id("MaAgiqaBestOfNSampler")
    prompt.watch("index", "PreviewAny", source=[sampler, 3])
    # the log's own advice: the same seed in an ordinary KSampler, all eight in one batch
    inputs = {
        k: v for k, v in prompt.nodes[sampler]["inputs"].items() if k in ("model", "positive", "negative", "seed")
    }
    inputs |= {k: prompt.nodes[sampler]["inputs"][k] for k in ("steps", "cfg", "sampler_name", "scheduler", "denoise")}
    prompt.watch("eight", "EmptyLatentImage", width=64, height=64, batch_size=8)
    prompt.watch("plain", "KSampler", latent_image=["eight", 0], **inputs)
    prompt.watch("decoded", "VAEDecode", samples=["plain", 0], vae=prompt.nodes[sampler]["inputs"]["vae"])
    prompt.watch("all", "PreviewImage", images=["decoded", 0])
    run = comfyui.run(prompt.nodes, prompt.workflow)
    assert run.ending == "execution_success"
    (winner,) = run.pictures(prompt.id("PreviewImage", "The winner"))
    replayed = run.pictures("all")[int(run.text("index"))]
    np.testing.assert_allclose(pixels(winner), pixels(replayed), atol=1)
    log = run.text(prompt.id("PreviewAny"))
    assert "after 2 of 5 steps (0.4): 4 of 8 kept" in log
    assert "after 4 of 5 steps (0.7): 2 of 4 kept" in log
    (upscaled,) = run.pictures(prompt.id("SaveImage"))
    assert upscaled.size == (96, 96)


@NEEDS_COMFYUI
def test_overnight_filter(comfyui: Any, small: Any) -> None:
    prompt = small("overnight_filter")
    gate, save = prompt.id("MaAgiqaQualityGate"), prompt.id("MaAgiqaSaveScored")
    rejected = prompt.id("PreviewImage", "Not saved")
    scorer = prompt.nodes[gate]["inputs"]["scorer"]
    prompt.watch("every", "MaAgiqaScoreImages", scorer=scorer, images=prompt.nodes[gate]["inputs"]["images"])
    prompt.watch("scores", "PreviewAny", source=["every", 1])
    scores = floats(comfyui.run(prompt.nodes), "scores")
    limits = {-1.0: 4, float(np.mean(sorted(scores)[1:3])): 2, 10.0: 0}
    for limit, count in limits.items():
        prompt.nodes[gate]["inputs"]["min_score"] = limit
        run = comfyui.run(prompt.nodes, prompt.workflow)
        assert run.ending == "execution_success"
        files = run.picture_files(save) if save in run.outputs else []
        assert len(files) == count
        assert len(run.outputs[rejected]["images"] if rejected in run.outputs else []) == 4 - count
        for path in files:
            assert path.parent == comfyui.base / "output" / "overnight"
            with PIL.Image.open(path) as picture:
                assert json.loads(picture.info["workflow"]) == prompt.workflow
                assert json.loads(picture.info["ma_agiqa"])["score"] >= limit
    # with a queue of many and a new seed each, as the note says
    prompt.nodes[gate]["inputs"]["min_score"] = 10.0
    for seed in range(2):
        prompt.nodes[prompt.id("KSampler")]["inputs"]["seed"] = 100 + seed
        run = comfyui.run(prompt.nodes)
        assert run.ending == "execution_success"
        assert save not in run.outputs


@NEEDS_COMFYUI
def test_two_scorers(comfyui: Any, small: Any) -> None:
    prompt = small("two_scorers")
    both = prompt.id("MaAgiqaScoreImages", "Scores of both")
    made = prompt.nodes[both]["inputs"]["images"]
    prompt.watch("both", "PreviewAny", source=[both, 1])
    for name, title in (("quality", "Scorer of quality"), ("meaning", "Scorer that reads the prompt")):
        scorer = [prompt.id("MaAgiqaLoadScorer", title), 0]
        text = prompt.nodes[both]["inputs"]["prompt"]
        prompt.watch(f"{name} score", "MaAgiqaScoreImages", scorer=scorer, images=made, prompt=text)
        prompt.watch(name, "PreviewAny", source=[f"{name} score", 1])
    prompt.watch("all", "PreviewImage", images=made)
    run = comfyui.run(prompt.nodes, prompt.workflow)
    assert run.ending == "execution_success"
    ranks = [(rankdata(floats(run, name)) - 1) / 7 for name in ("quality", "meaning")]
    combined = np.mean(ranks, axis=0)
    assert floats(run, "both") == pytest.approx(combined.tolist(), abs=1e-6)
    (winner,) = run.picture_files(prompt.id("MaAgiqaSaveScored"))
    with PIL.Image.open(winner) as picture:
        np.testing.assert_array_equal(pixels(picture), pixels(run.pictures("all")[int(np.argmax(combined))]))
        said = json.loads(picture.info["ma_agiqa"])
    assert said["score"] == pytest.approx(combined.max())
    assert said["percentile"] is None
