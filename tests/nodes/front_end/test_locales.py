"""What users read on the nodes: every input and output has a label and a tooltip, in English and in Chinese.

The English texts stand in locales/en alone: `nodes/schema.py` puts them into the schemas, and ComfyUI 0.3.64 takes the
labels of inputs from there.
"""

import json
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

LOCALES = Path(__file__).parents[3] / "locales"
CHINESE = re.compile("[\u4e00-\u9fff]")
NOT_EVERYWHERE = {"more_scorers", "show_columns"}  # not in every version of ComfyUI
NUMBER = re.compile(r"\d+(?:\.\d+)?")


@pytest.fixture(scope="module")
def schemas(pack_module: Callable[[str], Any]) -> list[Any]:
    return [node.GET_SCHEMA() for node in pack_module("nodes").node_classes()]


@pytest.fixture(scope="module")
def chinese() -> dict[str, Any]:
    return json.loads((LOCALES / "zh" / "nodeDefs.json").read_text("utf-8"))


def test_every_input_and_output_has_a_label_and_a_tooltip(schemas):
    silent = [
        f"{schema.node_id}: {part.id}"
        for schema in schemas
        for part in (*schema.inputs, *(schema.outputs or []))
        if not part.tooltip or (part in (schema.outputs or []) and not part.display_name)
    ]
    assert silent == []
    assert [schema.node_id for schema in schemas if not (schema.display_name and schema.description)] == []
    assert {schema.category for schema in schemas} == {"MA-AGIQA"}


def test_english_file_is_what_the_schemas_say(schemas):
    """It also holds what only newer versions of ComfyUI know."""
    english = _english()
    assert english.keys() == {schema.node_id for schema in schemas}
    for schema in schemas:
        said, given = english[schema.node_id], _texts(schema)
        assert {name: said["inputs"][name] for name in given["inputs"]} == given["inputs"]
        assert {**said, "inputs": None} == {**given, "inputs": None}


def test_english_file_says_nothing_of_inputs_that_are_nowhere(schemas):
    for schema in schemas:
        said = set(_english()[schema.node_id]["inputs"])
        assert said - NOT_EVERYWHERE <= {name for name, _ in _parts(schema)}, schema.node_id


def test_sockets_leave_their_labels_to_the_language(schemas):
    """A display name becomes a label that wins over every locale; of widgets other languages fall back to it."""
    for schema in schemas:
        for part in schema.inputs:
            has_widget = hasattr(part, "widget_type") and not part.force_input
            assert bool(part.display_name) == has_widget, (schema.node_id, part.id)


def test_chinese_says_all_that_english_says(chinese):
    english = dict(_leaves(_english()))
    translated = dict(_leaves(chinese))
    assert translated.keys() == english.keys()
    for key, text in translated.items():
        if key[-1] != "name":
            assert CHINESE.search(text), key
        assert set(NUMBER.findall(text)) == set(NUMBER.findall(english[key])), key


@pytest.mark.parametrize("language", ["en", "zh"])
def test_the_front_ends_message_syntax_is_not_hit_by_accident(language):
    texts = json.loads((LOCALES / language / "nodeDefs.json").read_text("utf-8"))
    assert [key for key, text in _leaves(texts) if set(text) & set("{}@|")] == []


def test_search_aliases_are_set_where_comfyui_knows_them(pack_module, monkeypatch):
    module = pack_module("nodes.schema")
    taken: dict[str, Any] = {}

    class NewerSchema:
        def __init__(self, node_id, search_aliases):
            taken.update(node_id=node_id, search_aliases=search_aliases)

    class OlderSchema:
        def __init__(self, node_id):
            taken.update(node_id=node_id)

    for kind, expected in ((NewerSchema, {"node_id": "X", "search_aliases": ["a"]}), (OlderSchema, {"node_id": "X"})):
        taken.clear()
        monkeypatch.setattr(module.io, "Schema", kind)
        module.schema(node_id="X", search_aliases=["a"])
        assert taken == expected


def _texts(schema: Any) -> dict[str, Any]:
    """A node's entry in nodeDefs.json."""
    english = _english()[schema.node_id]
    return {
        "display_name": schema.display_name,
        "description": schema.description,
        "inputs": {
            name: {
                "name": part.display_name or english["inputs"][name]["name"],  # of sockets only the file has one
                "tooltip": part.tooltip,
            }
            for name, part in _parts(schema)
        },
        "outputs": {
            str(number): {"name": part.display_name, "tooltip": part.tooltip}
            for number, part in enumerate(schema.outputs or [])
        },
    }


def _parts(schema: Any) -> Iterator[tuple[str, Any]]:
    """Inputs and those that depend on a choice, by their keys in the file."""
    for part in schema.inputs:
        yield part.id, part
        for option in getattr(part, "options", None) or []:
            for nested in getattr(option, "inputs", []):
                yield f"{part.id}_{nested.id}", nested


def _english() -> dict[str, Any]:
    return json.loads((LOCALES / "en" / "nodeDefs.json").read_text("utf-8"))


def _leaves(tree: dict[str, Any], key: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], str]]:
    for name, value in tree.items():
        if isinstance(value, dict):
            yield from _leaves(value, (*key, name))
        else:
            yield (*key, name), value
