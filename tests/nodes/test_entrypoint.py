"""ComfyUI's door: all nodes, and what happens where one, or all, cannot be imported."""

import asyncio
import logging
import re
import sys
from collections.abc import Callable
from types import ModuleType
from typing import Any

import pytest

IDS = {
    "MaAgiqaLoadScorer",
    "MaAgiqaEnsembleScorer",
    "MaAgiqaScoreImages",
    "MaAgiqaSelectBest",
    "MaAgiqaQualityGate",
    "MaAgiqaBestOfNSampler",
    "MaAgiqaBestOfNCustom",
    "MaAgiqaClipJudge",
    "MaAgiqaMarkImages",
    "MaAgiqaScoreSheet",
    "MaAgiqaSaveScored",
    "MaAgiqaLoadScored",
}


def nodes_of(pack: ModuleType) -> list[Any]:
    async def ask() -> list[Any]:
        extension = await pack.comfy_entrypoint()
        return await extension.get_node_list()

    return asyncio.run(ask())


def test_the_frozen_ids(pack: ModuleType) -> None:
    assert {node.GET_SCHEMA().node_id for node in nodes_of(pack)} == IDS
    assert not hasattr(pack, "NODE_CLASS_MAPPINGS")  # it would win over the entrypoint


def test_the_extension_is_comfyuis(pack: ModuleType) -> None:
    from comfy_api.latest import ComfyExtension

    assert isinstance(asyncio.run(pack.comfy_entrypoint()), ComfyExtension)


def test_every_input_and_output_says_what_it_is(pack: ModuleType) -> None:
    for node in nodes_of(pack):
        schema = node.GET_SCHEMA()
        assert schema.display_name
        assert schema.description
        assert schema.category == "MA-AGIQA"
        for given in [*(schema.inputs or []), *(schema.outputs or [])]:
            assert given.tooltip, f"{schema.node_id}.{given.id} has no tooltip"


def test_fields_that_this_comfyui_does_not_know_are_left_out(
    pack_module: Callable[[str], Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    from dataclasses import dataclass

    schema = pack_module("nodes.schema")

    @dataclass
    class Newer:
        node_id: str
        search_aliases: list[str] | None = None

    assert schema.schema(node_id="A", search_aliases=["b"]).node_id == "A"
    monkeypatch.setattr(schema.io, "Schema", Newer)
    assert schema.schema(node_id="A", search_aliases=["b"]) == Newer("A", ["b"])


def test_a_node_that_cannot_be_imported_leaves_the_others(
    pack_module: Callable[[str], Any], monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    nodes = pack_module("nodes")
    monkeypatch.setitem(nodes.NODES, "not_there", "NotThere")
    with caplog.at_level(logging.ERROR):
        assert len(nodes.node_classes()) == len(IDS)
    assert "the node NotThere is missing" in caplog.text
    assert "Traceback" in caplog.text
    assert re.search(r'-m pip install -r ".*requirements\.txt"', caplog.text)


def test_without_the_nodes_comfyui_goes_on_and_reads_what_to_install(
    pack: ModuleType, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setitem(sys.modules, f"{pack.__name__}.nodes", None)  # an import of it now fails
    monkeypatch.delattr(pack, "nodes", raising=False)
    with caplog.at_level(logging.ERROR), pytest.raises(ImportError):  # which ComfyUI catches
        nodes_of(pack)
    assert "Traceback" in caplog.text
    assert f'"{sys.executable}" -m pip install -r' in caplog.text
