"""What the ComfyUI registry reads from pyproject.toml."""

import sys
from pathlib import Path

import pytest
from PIL import Image

ROOT = Path(__file__).parents[2]
RAW = "https://raw.githubusercontent.com/ma-agiqa/ma-agiqa/main/"

if sys.version_info >= (3, 11):
    import tomllib
else:
    tomllib = pytest.importorskip("tomllib", reason="Python 3.10 has none")


@pytest.fixture(scope="module")
def pyproject():
    return tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))


def test_card_is_whole(pyproject):
    card = pyproject["tool"]["comfy"]
    assert card["PublisherId"]
    assert card["DisplayName"]
    assert card["requires-comfyui"] == ">=0.3.64"
    assert (ROOT / card["web"] / "docs").is_dir()
    assert pyproject["project"]["urls"]["Repository"]
    assert "comfyui" not in pyproject["project"]["name"].lower()  # the registry's rule


def test_icon_is_square_and_at_most_400_pixels(pyproject):
    link = pyproject["tool"]["comfy"]["Icon"]
    assert link.startswith(RAW)
    with Image.open(ROOT / link.removeprefix(RAW)) as icon:
        assert icon.width == icon.height <= 400


def test_folder_name_of_the_pack_is_the_same_in_all_places(pyproject, pack):
    assert pyproject["tool"]["comfy"]["web"] == pack.WEB_DIRECTORY
