"""Importing is cheap, needs no ComfyUI, and gives what is promised."""

import importlib.metadata
import subprocess
import sys

import pytest

import ma_agiqa_core

HEAVY = {
    "scipy",
    "timm",
    "transformers",
    "diffusers",
    "torchvision",
    "accelerate",
    "jinja2",
    "click",
    "pyarrow",
}


def run(program: str) -> str:
    done = subprocess.run([sys.executable, "-c", program], check=True, capture_output=True, text=True)
    return done.stdout.strip()


def test_load_scorer_imports_nothing_heavy_beside_torch() -> None:
    imported = run("""
import sys, torch
before = set(sys.modules)
from ma_agiqa_core import load_scorer, rank
print(*{name.split('.')[0] for name in set(sys.modules) - before})
""")
    assert "ma_agiqa_core" in imported.split()
    assert not set(imported.split()) & HEAVY


def test_the_package_itself_imports_nothing() -> None:
    imported = run("import sys, ma_agiqa_core; print(*sys.modules)")
    assert not set(imported.split()) & ({"torch", "numpy", "PIL"} | HEAVY)


def test_the_core_never_needs_comfyui() -> None:
    run("""
import importlib, pkgutil, sys
for name in ("comfy", "comfy_api", "folder_paths", "nodes"):
    sys.modules[name] = None  # importing it fails
import ma_agiqa_core
for name in ma_agiqa_core.__all__:
    getattr(ma_agiqa_core, name)
for module in ("pictures.inputs", "scorers.scorer", "scorers.ensemble", "ranking", "metrics"):
    importlib.import_module(f"ma_agiqa_core.{module}")
""")


def test_public_names() -> None:
    for name in ma_agiqa_core.__all__:
        assert getattr(ma_agiqa_core, name) is getattr(ma_agiqa_core, name)
        assert name in dir(ma_agiqa_core)
    assert ma_agiqa_core.rank.__module__ == "ma_agiqa_core.ranking"
    with pytest.raises(AttributeError, match="has no attribute 'nope'"):
        ma_agiqa_core.nope  # noqa: B018


def test_version(monkeypatch: pytest.MonkeyPatch) -> None:
    assert ma_agiqa_core.__version__ == importlib.metadata.version("ma-agiqa")

    def not_installed(name: str) -> str:
        raise importlib.metadata.PackageNotFoundError(name)

    monkeypatch.setattr(importlib.metadata, "version", not_installed)
    monkeypatch.delitem(vars(ma_agiqa_core), "__version__")
    assert ma_agiqa_core.__version__ == "0+unknown"
    monkeypatch.delitem(vars(ma_agiqa_core), "__version__")  # not for the tests that follow


def test_a_bare_clone_under_another_name_works() -> None:
    run("""
import importlib.util, pathlib, sys, types, ma_agiqa_core
path = pathlib.Path(ma_agiqa_core.__file__)
sys.modules["ma_agiqa_core"] = None  # importing it fails
sys.modules["pack"] = types.ModuleType("pack")
spec = importlib.util.spec_from_file_location("pack.core", path, submodule_search_locations=[str(path.parent)])
core = sys.modules["pack.core"] = importlib.util.module_from_spec(spec)
spec.loader.exec_module(core)
for name in core.__all__:
    getattr(core, name)
assert core.rank.__module__ == "pack.core.ranking"
""")
