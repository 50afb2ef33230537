"""The subgraph blueprints: whole, and of our nodes as they are. ComfyUI itself opens them in the browser's tests."""

import json
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

FILES = sorted((Path(__file__).parents[2] / "subgraphs").glob("*.json"))
SAMPLERS = ("MaAgiqaBestOfNSampler", "MaAgiqaBestOfNCustom")

Subgraph = dict[str, Any]


@pytest.fixture(params=FILES, ids=lambda file: file.stem)
def subgraph(request: pytest.FixtureRequest) -> Subgraph:
    """The definition; checks that the file is one node of it."""
    whole = json.loads(request.param.read_text("utf-8"))
    (definition,), (node,) = whole["definitions"]["subgraphs"], whole["nodes"]
    assert node["type"] == definition["id"]
    assert node["title"] == definition["name"] == request.param.stem
    assert [given["name"] for given in node["inputs"]] == [given["name"] for given in definition["inputs"]]
    assert [given["name"] for given in node["outputs"]] == ["images", "latent", "scores", "log"]
    return definition


def test_there_are_five() -> None:
    assert len(FILES) == 5


def test_every_link_joins_sockets_of_one_type(subgraph: Subgraph) -> None:
    nodes = {node["id"]: node for node in subgraph["nodes"]}
    for link in subgraph["links"]:
        start = subgraph["inputs"] if link["origin_id"] == -10 else nodes[link["origin_id"]]["outputs"]
        end = subgraph["outputs"] if link["target_id"] == -20 else nodes[link["target_id"]]["inputs"]
        given, taken = start[link["origin_slot"]], end[link["target_slot"]]
        assert given["type"] == link["type"] == taken["type"]
        assert link["id"] in given.get("links", given.get("linkIds"))
        assert link["id"] in taken.get("linkIds", [taken.get("link")])
    ends = Counter((link["target_id"], link["target_slot"]) for link in subgraph["links"])
    assert set(ends.values()) == {1}


def test_what_a_node_needs_is_connected_and_the_prompt_reaches_the_scorer(subgraph: Subgraph) -> None:
    for node in subgraph["nodes"]:
        loose = [given["name"] for given in node["inputs"] if given["link"] is None and "widget" not in given]
        assert [name for name in loose if name not in ("latent", "mask")] == [], node["type"]
    (sampler,) = [node for node in subgraph["nodes"] if node["type"] in SAMPLERS]
    links = {given["name"]: given["link"] for given in sampler["inputs"]}
    assert links["prompt"] in next(given["linkIds"] for given in subgraph["inputs"] if given["name"] == "text")


def test_our_nodes_have_these_inputs(subgraph: Subgraph, pack_module: Any) -> None:
    schemas = {node.GET_SCHEMA().node_id: node.GET_SCHEMA() for node in pack_module("nodes").node_classes()}
    ours = [node for node in subgraph["nodes"] if node["type"].startswith("MaAgiqa")]
    assert len(ours) == 2
    for node in ours:
        known = [given.id for given in schemas[node["type"]].inputs]
        assert {given["name"] for given in node["inputs"]} <= set(known)
        outputs = [given.display_name for given in schemas[node["type"]].outputs]
        assert [given["name"] for given in node["outputs"]] == outputs[: len(node["outputs"])]


def test_every_model_file_says_where_it_comes_from(subgraph: Subgraph) -> None:
    for node in subgraph["nodes"]:
        if node["type"] in ("CheckpointLoaderSimple", "UNETLoader", "CLIPLoader", "VAELoader"):
            (model,) = node["properties"]["models"]
            assert model["name"] == node["widgets_values"][0]
            assert model["url"].startswith("https://huggingface.co/")
            assert model["url"].endswith(model["name"])
