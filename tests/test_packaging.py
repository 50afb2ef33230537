"""What an installed copy holds. Tests run from a checkout, which has every file whatever pyproject.toml says."""

import fnmatch
import re
from pathlib import Path
from typing import Any

import pytest

import ma_agiqa_core

PACKAGE = Path(ma_agiqa_core.__file__).parent


@pytest.fixture
def settings() -> dict[str, Any]:
    """What is in pyproject.toml."""
    tomllib = pytest.importorskip("tomllib", reason="Python 3.10 has none")
    pyproject = PACKAGE.parent / "pyproject.toml"
    if not pyproject.is_file():
        pytest.skip("an installed copy")
    return tomllib.loads(pyproject.read_text(encoding="utf-8"))


def test_comfyui_gets_the_same_dependencies(settings: dict[str, Any]) -> None:
    """requirements.txt lacks what ComfyUI brings, and matplotlib: only training and calibration draw, no node does."""
    lines = (PACKAGE.parent / "requirements.txt").read_text(encoding="utf-8").splitlines()
    listed = {line.strip() for line in lines if line.strip() and not line.startswith("#")}
    needed = {re.split("[>=<!~;[ ]", dependency)[0] for dependency in settings["project"]["dependencies"]}
    assert listed == needed - {"torch", "torchvision", "matplotlib"}


def test_every_data_file_is_installed(settings: dict[str, Any]) -> None:
    patterns = settings["tool"]["setuptools"]["package-data"]["ma_agiqa_core"]
    files = [path.relative_to(PACKAGE).as_posix() for path in PACKAGE.rglob("*") if path.is_file()]
    data = [file for file in files if not file.endswith((".py", ".pyc"))]
    assert "checkpoint/agiqa_3k.json" in data
    assert [file for file in data if not any(fnmatch.fnmatch(file, pattern) for pattern in patterns)] == []
