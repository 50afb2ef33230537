"""The help panel's pages: one for each node, with a picture that is there and small, naming every input and output."""

import json
import re
from pathlib import Path

import pytest
from PIL import Image

DOCS = Path(__file__).parents[3] / "web" / "docs"
LOCALES = Path(__file__).parents[3] / "locales"
PICTURE = re.compile(r"!\[(.+?)\]\(([^)]+)\)")
LIMIT = 100_000  # bytes of a picture


@pytest.fixture(scope="module")
def schemas(pack_module):
    return {schema.node_id: schema for schema in (node.GET_SCHEMA() for node in pack_module("nodes").node_classes())}


def test_every_node_has_a_page_and_every_page_a_node(schemas, pack):
    assert {page.stem for page in DOCS.glob("*.md")} == set(schemas)
    assert (Path(pack.__file__).parent / pack.WEB_DIRECTORY / "docs").resolve() == DOCS


def test_pages_name_every_input_and_output(schemas):
    texts = json.loads((LOCALES / "en" / "nodeDefs.json").read_text("utf-8"))
    for node_id in schemas:
        text = (DOCS / f"{node_id}.md").read_text("utf-8")
        shown = texts[node_id]
        labels = {part["name"] for part in (*shown["inputs"].values(), *shown["outputs"].values())}
        first_of = {label: re.sub(r" [23]$", " 1", label) for label in labels}  # "scorer 1 ... scorer 4" stands for all
        assert [label for label, first in first_of.items() if label not in text and first not in text] == [], node_id


def test_chinese_pages_name_every_input_and_output_in_chinese(schemas):
    texts = json.loads((LOCALES / "zh" / "nodeDefs.json").read_text("utf-8"))
    assert {page.parent.name for page in DOCS.glob("*/zh.md")} == set(schemas)
    for node_id, shown in texts.items():
        text = (DOCS / node_id / "zh.md").read_text("utf-8")
        labels = {part["name"] for part in (*shown["inputs"].values(), *shown["outputs"].values())}
        assert [label for label in labels if label not in text] == [], node_id
        assert all((DOCS / path).is_file() for _, path in PICTURE.findall(text)), node_id


def test_pictures_lie_beside_the_pages_and_are_small(schemas):
    shown = set()
    for node_id in schemas:
        pictures = PICTURE.findall((DOCS / f"{node_id}.md").read_text("utf-8"))
        assert pictures, node_id
        for alt, path in pictures:
            assert alt
            assert (DOCS / path).stat().st_size < LIMIT, path
            with Image.open(DOCS / path) as picture:
                picture.verify()
            shown.add(DOCS / path)
    assert shown == set((DOCS / "pictures").iterdir())
