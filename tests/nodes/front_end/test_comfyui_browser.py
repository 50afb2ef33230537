"""The pack in ComfyUI's own front end: Debian's chromium, driven by playwright, with no network."""

import json
import os
import re
import shutil
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

ROOT = Path(__file__).parents[3]
EXAMPLES = sorted((ROOT / "example_workflows").glob("*.json"))
BLUEPRINTS = sorted((ROOT / "subgraphs").glob("*.json"))
NOT_AT_FIRST = {"more_scorers", "show_columns"}
pytestmark = [
    pytest.mark.skipif("COMFYUI_PATH" not in os.environ, reason="COMFYUI_PATH names no checkout of ComfyUI"),
    pytest.mark.skipif(shutil.which("chromium") is None, reason="chromium is not installed: ComfyUI was not opened"),
]
SMALL = """() => {  // what takes minutes on a processor
  const values = {ckpt_name: "tiny.safetensors", width: 64, height: 64, steps: 2, prune_at: "0.5:2"};
  for (const node of window.app.graph.nodes)
    for (const widget of node.widgets ?? []) {
      if (widget.name in values) widget.value = values[widget.name];
      if (widget.name === "model" && widget.value !== "lite") widget.value = "tiny-clip";
    }
}"""

_ALL_DRAWN = """() => window.app.graph.nodes.every((n) => document.querySelector(`[data-node-id="${n.id}"]`))"""
_UNKNOWN_TYPES = """() => [window.app.graph, ...window.app.graph.subgraphs.values()]
  .flatMap((graph) => graph.nodes.map((n) => n.type))
  .filter((type) => !(type in window.LiteGraph.registered_node_types))"""
_SHOW_FIRST_OUTPUT = """() => {
  const graph = window.app.graph, whole = graph.nodes[0], shown = window.LiteGraph.createNode("PreviewImage");
  shown.pos = [whole.pos[0] + whole.size[0] + 50, whole.pos[1]];  // in sight, else it asks for no picture
  graph.add(shown);
  whole.connect(0, shown, 0);
}"""
_STRIP_DRAWN = """() => {
  const sampler = window.app.graph.nodes.find((n) => n.type === "MaAgiqaBestOfNSampler");
  const pictures = [...document.querySelectorAll(`[data-node-id="${sampler.id}"] img`)];
  return pictures.length === 2 && pictures.every((p) => p.complete && p.naturalWidth);  // the last preview, the strip
}"""
_OUT_OF_GROUPS = """() => {
  const scale = window.app.canvas.ds.scale, out = [];
  for (const node of window.app.graph.nodes) {
    const drawn = document.querySelector(`[data-node-id="${node.id}"]`).getBoundingClientRect();
    const [left, top] = node.pos, right = left + drawn.width / scale, bottom = top - 30 + drawn.height / scale;
    for (const {pos, size, title} of window.app.graph.groups) {
      const isIn = left >= pos[0] && left < pos[0] + size[0] && top >= pos[1] && top < pos[1] + size[1];
      if (isIn && (right > pos[0] + size[0] || bottom > pos[1] + size[1])) out.push([node.type, title]);
    }
  }
  return out;
}"""


@pytest.fixture(scope="module")
def tools(front_end_tools: ModuleType) -> ModuleType:
    pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
    return front_end_tools


@pytest.fixture(scope="module")
def chromium(tools: ModuleType, chromium_tools: ModuleType) -> Iterator[Any]:
    with chromium_tools.browser() as chromium:
        yield chromium


@pytest.fixture
def front_end(chromium: Any, tools: ModuleType, comfyui: Any) -> Iterator[Any]:
    """The front end, opened in English; fails a test in which it threw an error or asked another host."""
    comfyui.post("/settings", **tools.QUIET, **{"Comfy.Locale": "en"})
    front_end = tools.FrontEnd(chromium.new_page(viewport={"width": 1600, "height": 1200}), comfyui.url)
    front_end.start()
    yield front_end
    front_end.page.close()
    assert front_end.complaints == []


def test_scores_and_their_sheet_are_seen_on_the_node(front_end):
    front_end.open_template("ma-agiqa", "score_a_batch")
    front_end.page.evaluate(SMALL)
    assert front_end.run()["kind"] == "execution_success"
    front_end.wait_for_node("MaAgiqaScoreImages", "n.imgs?.length === 1 && n.imgs.every((i) => i.naturalWidth > 0)")
    report = front_end.of_node("PreviewAny", "n.widgets.map((w) => w.value).find((v) => v)")
    scores = [float(score) for score in re.findall(r"\d+\.\d+", report)]
    assert len(scores) == 8
    assert scores == sorted(scores, reverse=True)


def test_template_browser_shows_every_example_with_its_thumbnail(front_end):
    front_end.page.get_by_role("button", name="Templates").first.click()
    front_end.page.get_by_text("ma-agiqa", exact=True).click()
    for example in EXAMPLES:
        card = front_end.page.get_by_test_id(f"template-workflow-{example.stem}")
        card.scroll_into_view_if_needed()
        card.locator("img").first.wait_for()
        front_end.page.wait_for_function("(image) => image.naturalWidth > 0", arg=card.locator("img").element_handle())


@pytest.mark.parametrize("example", EXAMPLES, ids=lambda example: example.stem)
def test_examples_open_whole_and_are_queued_as_the_other_tests_queue_them(front_end, comfyui, workflow_to_api, example):
    workflow = json.loads(example.read_text("utf-8"))
    front_end.open_workflow(workflow)
    sent = front_end.page.evaluate("async () => (await window.app.graphToPrompt()).output")
    for node in sent.values():
        del node["_meta"]
        if node["class_type"] == "PreviewAny":
            node["inputs"].pop("preview", None)  # what older front ends show, and no input
    assert sent == workflow_to_api.api_form(workflow, comfyui.get("/object_info"))
    known = "window.app.graph.nodes.every((n) => n.type in window.LiteGraph.registered_node_types)"
    assert front_end.page.evaluate(f"() => {known}")


def test_examples_keep_to_their_groups_in_nodes_2(front_end, comfyui):
    """Vue draws nodes larger than the canvas does; what hangs out of a group hides what lies below."""
    if "EmptyFlux2LatentImage" not in comfyui.get("/object_info"):
        pytest.skip("the front end of this ComfyUI has no such nodes yet")
    comfyui.post("/settings", **{"Comfy.VueNodes.Enabled": True})
    try:
        front_end.start()
        for example in EXAMPLES:
            front_end.open_workflow(json.loads(example.read_text("utf-8")))
            front_end.page.wait_for_function(_ALL_DRAWN)
            assert front_end.page.evaluate(_OUT_OF_GROUPS) == [], example.stem
        grows_most = next(example for example in EXAMPLES if example.stem == "best_of_8_then_upscale")
        front_end.open_workflow(json.loads(grows_most.read_text("utf-8")))
        front_end.page.evaluate(SMALL)
        assert front_end.run()["kind"] == "execution_success"
        front_end.page.wait_for_function(_STRIP_DRAWN)
        assert front_end.page.evaluate(_OUT_OF_GROUPS) == []
    finally:
        comfyui.post("/settings", **{"Comfy.VueNodes.Enabled": False})


def test_help_page_opens_with_its_picture(front_end):
    front_end.open_template("ma-agiqa", "score_a_batch")
    panel = front_end.open_help("MaAgiqaScoreImages")
    text = (ROOT / "web" / "docs" / "MaAgiqaScoreImages.md").read_text("utf-8")
    assert text.splitlines()[0] in panel.inner_text()
    picture = panel.locator("img").element_handle()
    front_end.page.wait_for_function("(image) => image.naturalWidth > 0", arg=picture)


def test_every_help_page_and_picture_is_where_the_front_end_asks(comfyui):
    for path in sorted((ROOT / "web" / "docs").rglob("*.*")):
        name = path.relative_to(ROOT / "web" / "docs").as_posix()
        with urllib.request.urlopen(f"{comfyui.url}/extensions/ma-agiqa/docs/{name}", timeout=60) as answer:
            assert answer.read() == path.read_bytes()


@pytest.mark.parametrize("language", ["en", "zh"])
def test_nodes_speak_the_users_language(front_end, comfyui, language):
    comfyui.post("/settings", **{"Comfy.Locale": language})
    front_end.start()
    texts = json.loads((ROOT / "locales" / language / "nodeDefs.json").read_text("utf-8"))
    for node_type, text in texts.items():
        labels = front_end.page.evaluate(
            """(type) => {
              const n = window.LiteGraph.createNode(type), shown = (s) => s.label || s.localized_name || s.name,
                    slot = (s) => [s.name, shown(s)];
              return {title: n.title, inputs: Object.fromEntries(n.inputs.map(slot)), outputs: n.outputs.map(slot),
                      widgets: Object.fromEntries((n.widgets ?? []).map((w) => [w.name, w.label]))};
            }""",
            node_type,
        )
        names = {name: entry["name"] for name, entry in text["inputs"].items()}
        keys = {name: name.replace(".", "_") for name in (*labels["inputs"], *labels["widgets"])}  # of what depends
        assert labels["title"] == text["display_name"]
        assert labels["inputs"] == {
            name: name.removeprefix("more_scorers.") if name.startswith("more_scorers.") else names[keys[name]]
            for name in labels["inputs"]
        }
        assert {name: label for name, label in labels["widgets"].items() if keys[name] in names} == {
            name: names[keys[name]] for name in labels["widgets"] if keys[name] in names
        }
        seen = {keys[name] for name in labels["inputs"]}
        assert {name for name in names if name not in seen} <= NOT_AT_FIRST, node_type
        assert [label for _, label in labels["outputs"]] == [entry["name"] for entry in text["outputs"].values()]


def test_a_mistake_is_told_in_a_sentence_on_the_red_node(front_end):
    front_end.open_template("ma-agiqa", "best_of_8_then_upscale")
    front_end.page.evaluate(SMALL)
    front_end.of_node("MaAgiqaBestOfNSampler", "n.widgets.find((w) => w.name === 'prune_at').value = 'half'")
    ended = front_end.run()
    assert (ended["kind"], ended["node_type"]) == ("execution_error", "MaAgiqaBestOfNSampler")
    front_end.wait_for_error(ended["exception_message"].strip())
    assert "'half'" in ended["exception_message"]


def test_a_saved_picture_dropped_on_the_canvas_opens_its_workflow(front_end, comfyui):
    front_end.open_template("ma-agiqa", "two_scorers")
    front_end.page.evaluate(SMALL)
    assert front_end.run()["kind"] == "execution_success"
    saved = max((comfyui.base / "output").glob("two_scorers*.png"), key=lambda file: file.stat().st_mtime_ns)
    types = front_end.page.evaluate("() => window.app.graph.nodes.map((n) => n.type).sort()")
    front_end.open_template("ma-agiqa", "score_a_batch")
    front_end.drop_file(saved.name, saved.read_bytes())
    front_end.wait_for_node("MaAgiqaEnsembleScorer", "true")
    assert front_end.page.evaluate("() => window.app.graph.nodes.map((n) => n.type).sort()") == types


@pytest.fixture
def knows_blueprints(comfyui: Any) -> None:
    if "EmptyFlux2LatentImage" not in comfyui.get("/object_info"):
        pytest.skip("this ComfyUI knows none of these models, and no blueprints")


@pytest.mark.parametrize("blueprint", BLUEPRINTS, ids=lambda blueprint: blueprint.stem)
def test_a_blueprint_lacks_nothing_but_the_files_that_it_links(front_end, comfyui, knows_blueprints, blueprint):
    """ComfyUI's own check before it queues: nodes, links, and every value, numbers and choices too."""
    from comfyui_server import RefusedPromptError

    assert blueprint.stem in {entry["name"] for entry in comfyui.get("/global_subgraphs").values()}
    whole = json.loads(blueprint.read_text("utf-8"))
    front_end.open_workflow(whole)
    assert front_end.page.evaluate(_UNKNOWN_TYPES) == []
    front_end.page.evaluate(_SHOW_FIRST_OUTPUT)
    sent = front_end.page.evaluate("async () => (await window.app.graphToPrompt()).output")
    with pytest.raises(RefusedPromptError) as refused:
        comfyui.post("/prompt", prompt=sent, client_id="tests")
    nodes = whole["definitions"]["subgraphs"][0]["nodes"]
    linked = {model["name"] for node in nodes for model in node["properties"].get("models", [])}
    missing = {
        (error["type"], error["extra_info"]["received_value"])
        for node in refused.value.answer["node_errors"].values()
        for error in node["errors"]
    }
    assert missing == {("value_not_in_list", name) for name in linked}


def test_a_blueprint_runs(front_end, knows_blueprints):
    front_end.open_workflow(json.loads((ROOT / "subgraphs" / "Best of N (SDXL).json").read_text("utf-8")))
    front_end.page.evaluate(
        """() => {
          const small = {ckpt_name: "tiny.safetensors", text: "a cat", width: 64, height: 64, steps: 4, n: 5};
          for (const widget of window.app.graph.nodes[0].widgets)
            if (widget.name in small) widget.value = small[widget.name];
        }"""
    )
    front_end.page.evaluate(_SHOW_FIRST_OUTPUT)
    assert front_end.run()["kind"] == "execution_success"
    front_end.wait_for_pictures()
    assert front_end.of_node("PreviewImage", "n.imgs.length") == 1
