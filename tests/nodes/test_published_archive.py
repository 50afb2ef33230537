"""The archive that the ComfyUI registry would get: it holds what runs, and nothing else, and the pack runs from it."""

import ast
import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path, PurePosixPath
from types import ModuleType

import pytest

ROOT = Path(__file__).parents[2]
FAKES = Path(__file__).parent / "fakes"
LIMIT = 4_200_000  # bytes; the weights of lite are 1.7 MB, the pictures of the help pages the next largest
NOT_FOR_USERS = ("test", "benchmark", "/train", "conftest", ".ci/", ".github/", ".yml", ".yaml", ".ipynb")
IMPORT_ALL = """
import asyncio, importlib, importlib.util, json, pkgutil, sys

root, fakes = sys.argv[1:]
sys.path.insert(0, fakes)
sys.modules["ma_agiqa_core"] = None  # an installed one must not help
spec = importlib.util.spec_from_file_location("archive", root + "/__init__.py", submodule_search_locations=[root])
pack = importlib.util.module_from_spec(spec)
sys.modules["archive"] = pack
spec.loader.exec_module(pack)

async def ids():
    extension = await pack.comfy_entrypoint()
    return [node.GET_SCHEMA().node_id for node in await extension.get_node_list()]

nodes = asyncio.run(ids())
modules = [found.name for found in pkgutil.walk_packages([root + "/nodes"], "archive.nodes.")]
for name in modules:
    importlib.import_module(name)
print(json.dumps({"nodes": nodes, "modules": modules}))
"""


@pytest.fixture(scope="module")
def names(published_archive: ModuleType) -> list[str]:
    try:
        return published_archive.published_files()
    except RuntimeError as error:
        pytest.skip(f"the archive's files were not listed: {error}")


@pytest.fixture(scope="module")
def archive(names: list[str], published_archive: ModuleType, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return published_archive.copy_published(tmp_path_factory.mktemp("custom_nodes") / "ma-agiqa")


def test_holds_nothing_that_only_developers_need(names):
    assert [name for name in names if any(part in name.lower() for part in NOT_FOR_USERS)] == []


def test_holds_what_comfyui_reads(names):
    always = {"__init__.py", "nodes/__init__.py", "requirements.txt", "pyproject.toml", "README.md", "LICENSE"}
    assert always <= set(names)
    assert "ma_agiqa_core/scorers/lite/lite.safetensors" in names
    for pattern in ("web/docs/*.md", "locales/*/nodeDefs.json", "example_workflows/*.*", "subgraphs/*.json"):
        assert any(PurePosixPath(name).match(pattern) for name in names), pattern


def test_stays_small(names):
    assert sum((ROOT / name).stat().st_size for name in names) < LIMIT


def test_comfyignore_keeps_to_what_git_and_the_publishing_tool_read_alike():
    lines = (ROOT / ".comfyignore").read_text("utf-8").splitlines()
    assert [line for line in lines if line != line.strip() or not line.startswith(("#", "/"))] == []


def test_pack_runs_from_these_files_alone(archive, pack_module):
    done = subprocess.run(
        [sys.executable, "-c", IMPORT_ALL, str(archive), str(FAKES)],
        cwd=archive.parent,
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-4000:]
    found = json.loads(done.stdout.splitlines()[-1])
    assert found["nodes"] == [node.GET_SCHEMA().node_id for node in pack_module("nodes").node_classes()]
    assert len(found["modules"]) > len(found["nodes"])


def test_every_relative_import_finds_its_file(archive):
    """Also those inside functions, which run long after the pack is imported, and those of core modules it may need."""
    missing = [
        f"{path.relative_to(archive)} imports {wanted.relative_to(archive)}"
        for path in sorted(archive.rglob("*.py"))
        for wanted in _relative_imports(path)
        if not (wanted.is_dir() or wanted.with_suffix(".py").is_file())
    ]
    assert missing == []


def test_runs_no_other_program_and_no_text_as_code(archive):
    """The registry's rules: no eval, exec, pip or subprocess at run time."""
    calls = [
        (str(path.relative_to(archive)), node.lineno)
        for path in sorted(archive.rglob("*.py"))
        for node in ast.walk(ast.parse(path.read_text("utf-8")))
        if (isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id in {"eval", "exec"})
        or (isinstance(node, ast.Import) and any(name.name in {"subprocess", "pip"} for name in node.names))
        or (isinstance(node, ast.ImportFrom) and not node.level and node.module in {"subprocess", "pip"})
    ]
    assert calls == []


def _relative_imports(path: Path) -> Iterator[Path]:
    """Modules that a file imports relatively; `from . import name` counts where `name` is no attribute it defines."""
    for node in ast.walk(ast.parse(path.read_text("utf-8"))):
        if isinstance(node, ast.ImportFrom) and node.level:
            folder = path.parents[node.level - 1]
            if node.module:
                yield folder.joinpath(*node.module.split("."))
            else:
                package = (folder / "__init__.py").read_text("utf-8")
                yield from (folder / name.name for name in node.names if f"{name.name} " not in package)
