"""The fakes have the names and signatures of the newest ComfyUI, read from both sources without importing either."""

import ast
import os
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

FAKES = Path(__file__).parent / "fakes"
FILES = sorted(path.relative_to(FAKES).as_posix() for path in FAKES.rglob("*.py"))

Function = ast.FunctionDef | ast.AsyncFunctionDef
FOLLOWED = "0.33.0"


def _is_older() -> bool:
    file = Path(os.environ.get("COMFYUI_PATH", ""), "comfyui_version.py")
    found = re.search(r'__version__ = "([\d.]+)', file.read_text("utf-8")) if file.is_file() else None
    return found is not None and _parts(found[1]) < _parts(FOLLOWED)


def _parts(version: str) -> list[int]:
    return [int(part) for part in version.split(".")]


def functions(path: Path) -> dict[str, str]:
    """Every public function and method with its parameters: "Int.Input.__init__" -> "self, id, display_name=None"."""
    return dict(_functions(ast.parse(path.read_text("utf-8")), ""))


def classes(path: Path) -> set[str]:
    return {node.name for node in ast.parse(path.read_text("utf-8")).body if isinstance(node, ast.ClassDef)}


def _functions(node: ast.AST, prefix: str) -> Iterator[tuple[str, str]]:
    for child in ast.iter_child_nodes(node):
        if isinstance(child, Function) and (not child.name.startswith("_") or child.name == "__init__"):
            yield prefix + child.name, _parameters(child.args)
        elif isinstance(child, ast.ClassDef) and not child.name.startswith("_"):
            yield from _functions(child, f"{prefix}{child.name}.")
        elif isinstance(child, ast.If | ast.Try):
            yield from _functions(child, prefix)


def _parameters(arguments: ast.arguments) -> str:
    for argument in (*arguments.posonlyargs, *arguments.args, *arguments.kwonlyargs, arguments.vararg, arguments.kwarg):
        if argument is not None:
            argument.annotation = None
    return ast.unparse(arguments)


@pytest.mark.skipif("COMFYUI_PATH" not in os.environ, reason="COMFYUI_PATH names no checkout of ComfyUI")
@pytest.mark.skipif(_is_older(), reason=f"the fakes follow ComfyUI {FOLLOWED}, COMFYUI_PATH names an older one")
@pytest.mark.parametrize("name", [name for name in FILES if functions(FAKES / name)])
def test_the_fake_has_the_true_signatures(name: str) -> None:
    root = Path(os.environ["COMFYUI_PATH"])
    real, fake = functions(root / name), functions(FAKES / name)
    assert not {key: (fake[key], real[key]) for key in fake if key in real and fake[key] != real[key]}
    assert not {key for key in fake if key not in real and "." not in key}  # methods may be inherited there
    assert {key for key in classes(FAKES / name) if not key.startswith("_")} <= classes(root / name)
