"""What an installed copy holds. Tests run from a checkout, which has every file whatever pyproject.toml says."""

import fnmatch
from pathlib import Path

import pytest

import ma_agiqa_core

PACKAGE = Path(ma_agiqa_core.__file__).parent


def test_every_data_file_is_installed() -> None:
    tomllib = pytest.importorskip("tomllib", reason="Python 3.10 has none")
    pyproject = PACKAGE.parent / "pyproject.toml"
    if not pyproject.is_file():
        pytest.skip("an installed copy")
    settings = tomllib.loads(pyproject.read_text(encoding="utf-8"))
    patterns = settings["tool"]["setuptools"]["package-data"]["ma_agiqa_core"]
    files = [path.relative_to(PACKAGE).as_posix() for path in PACKAGE.rglob("*") if path.is_file()]
    data = [file for file in files if not file.endswith((".py", ".pyc"))]
    assert "agiqa_3k.json" in data
    assert [file for file in data if not any(fnmatch.fnmatch(file, pattern) for pattern in patterns)] == []
