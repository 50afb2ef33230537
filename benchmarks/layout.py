"""The street plan in figures: loose modules, circles of imports, lengths of files, and a picture's way through `rank`.

    python -m benchmarks.layout

Arrows between folders are held by `lint-imports` (pyproject.toml, [tool.importlinter]). A file counts as crossed by the
picture when one of its functions is called with it in any form: its path, its pixels, an object that carries either,
or a list in which one of them is. Files that only ever see its path, as one that lists folders, are named apart.
"""

from __future__ import annotations

import ast
import os
import statistics
import sys
import tempfile
import threading
from collections.abc import Iterator
from dataclasses import dataclass, is_dataclass
from pathlib import Path
from types import FrameType
from typing import Any

import numpy as np
import PIL.Image
import torch

import ma_agiqa_core

CORE = Path(ma_agiqa_core.__file__).parent
SIDE = 97, 61  # of the picture whose way is followed: no other array or tensor in the run has this shape


@dataclass(frozen=True)
class Layout:
    """What the sources alone tell.

    Attributes:
        loose: Modules at the top of the core, beside `__init__.py`.
        circles: Groups of modules that import each other when they are loaded.
        lengths: Lines per file, by its path in the core.
    """

    loose: list[str]
    circles: list[list[str]]
    lengths: dict[str, int]


@dataclass(frozen=True)
class Way:
    """The way of one picture through `ma-agiqa rank --report`.

    Attributes:
        files: Files of the core whose functions were called with its pixels, or an object that carries it, in order.
        only_path: Files whose functions were called with its path alone.
        forms: The classes of the core that carried it.
        decoded: How often its file was decoded.
    """

    files: list[str]
    only_path: list[str]
    forms: list[str]
    decoded: int


def layout() -> Layout:
    sources = {
        path.relative_to(CORE).as_posix(): path.read_text(encoding="utf-8") for path in sorted(CORE.rglob("*.py"))
    }
    loose = [name for name in sources if "/" not in name and name != "__init__.py"]
    imports = {_module(name): set(_imported(name, text)) for name, text in sources.items()}
    known = {module: {_known(target, imports) for target in targets} - {None} for module, targets in imports.items()}
    return Layout(loose, _circles(known), {name: text.count("\n") for name, text in sources.items()})


def _module(name: str) -> str:
    return name.removesuffix(".py").removesuffix("/__init__").replace("/", ".").removesuffix("__init__")


def _imported(name: str, text: str) -> Iterator[str]:
    """Modules of the core that are imported when this one is, by dotted name inside the core."""
    package = name.split("/")[:-1]
    waiting: list[ast.AST] = list(ast.parse(text).body)
    while waiting:
        node = waiting.pop()
        if isinstance(node, ast.ImportFrom) and node.level:
            above = package[: len(package) - node.level + 1]
            base = [*above, *(node.module.split(".") if node.module else [])]
            if node.module:  # else its package, which is loaded before it anyway
                yield ".".join(base)
            yield from (".".join([*base, alias.name]) for alias in node.names)
        elif isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test):
            waiting += node.orelse
        elif not isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            waiting += ast.iter_child_nodes(node)


def _known(target: str, modules: dict[str, set[str]]) -> str | None:
    return target if target in modules and target else None


def _circles(imports: dict[str, set[Any]]) -> list[list[str]]:
    """Strongly connected groups (Tarjan 1972); a package and what its `__init__` re-exports are no circle."""
    reach = {module: _reached(module, imports) for module in imports}
    groups = {
        tuple(sorted(other for other in reach[module] if module in reach[other]))
        for module in imports
        if module in reach[module]
    }
    return [list(group) for group in sorted(groups)]


def _reached(module: str, imports: dict[str, set[Any]]) -> set[str]:
    seen: set[str] = set()
    waiting = list(imports[module] - {module})
    while waiting:
        current = waiting.pop()
        if current not in seen:
            seen.add(current)
            waiting += imports[current] - {current}
    return seen


def way_of_a_picture() -> Way:
    """Ranks one picture among three and follows it."""
    from ma_agiqa_core import cli

    with tempfile.TemporaryDirectory() as folder:
        random = np.random.default_rng(0)
        for name, (width, height) in {"a": (64, 48), "b": SIDE, "c": (48, 64)}.items():
            pixels = random.integers(0, 256, (height, width, 3), dtype=np.uint8)
            PIL.Image.fromarray(pixels).save(Path(folder, f"{name}.png"))
        follow = _Follow(str(Path(folder, "b.png")))
        threading.setprofile(follow)
        sys.setprofile(follow)
        before = os.dup(1), os.dup(2)
        quiet = os.open(os.devnull, os.O_WRONLY)
        os.dup2(quiet, 1)
        os.dup2(quiet, 2)
        try:
            cli.run(["rank", folder, "--report", str(Path(folder, "report.html"))])
        finally:
            sys.stdout.flush()
            os.dup2(before[0], 1)
            os.dup2(before[1], 2)
            sys.setprofile(None)
            threading.setprofile(None)  # type: ignore[arg-type]  # typeshed before 3.12 knows no None
    files = [file for file, only_path in follow.only_path.items() if not only_path]
    return Way(files, [file for file in follow.only_path if file not in files], sorted(follow.forms), follow.decoded)


class _Follow:
    """A profile function that notes where one picture goes."""

    def __init__(self, path: str) -> None:
        self.path = path
        self.only_path: dict[str, bool] = {}  # by file
        self.forms: set[str] = set()
        self.decoded = 0

    def __call__(self, frame: FrameType, event: str, argument: object) -> None:
        code = frame.f_code
        if event != "call" or not code.co_filename.startswith(str(CORE)):
            return
        names = code.co_varnames[: code.co_argcount + code.co_kwonlyargcount]
        given = [frame.f_locals[name] for name in names if name in frame.f_locals]
        carried = [value for value in given if self._carries(value)]
        if carried:
            file = Path(code.co_filename).relative_to(CORE).as_posix()
            self.only_path[file] = self.only_path.get(file, True) and all(map(self._is_path, carried))
            self.forms |= {form for value in carried for form in self._forms(value)}
            self.decoded += code.co_name == "read_picture"

    def _is_path(self, value: Any) -> bool:
        if isinstance(value, list | tuple):
            return all(self._is_path(item) for item in value if self._carries(item))
        return isinstance(value, str | Path)

    def _forms(self, value: Any) -> set[str]:
        if isinstance(value, list | tuple):
            return {form for item in value if self._carries(item) for form in self._forms(item)}
        return {type(value).__name__} if is_dataclass(value) else set()

    def _carries(self, value: Any) -> bool:
        if isinstance(value, str | Path):
            return str(value) == self.path
        if isinstance(value, np.ndarray | torch.Tensor):
            return set(SIDE) <= set(value.shape)
        if isinstance(value, PIL.Image.Image):
            return value.size == SIDE
        if isinstance(value, list | tuple):
            return any(map(self._carries, value))
        if is_dataclass(value) and not isinstance(value, type):
            return getattr(value, "path", None) == self.path or str(getattr(value, "path", "")) == self.path
        return False


def main() -> None:
    plan, way = layout(), way_of_a_picture()
    longest = max(plan.lengths, key=lambda name: plan.lengths[name])
    print(f"loose modules at the top of the core: {len(plan.loose)} ({', '.join(plan.loose)})")
    print(f"circles of imports: {len(plan.circles)} {plan.circles or ''}")
    print(f"files: {len(plan.lengths)}, median {statistics.median(plan.lengths.values()):g} lines", end=", ")
    print(f"longest {plan.lengths[longest]} ({longest})")
    print(f"a picture's way through rank: {len(way.files)} files ({', '.join(way.files)})")
    own = sum(file.startswith("scorers/lite/") for file in way.files)
    print(f"(with the scorer's own folder as one: {len(way.files) - own + 1})", end=" ")
    print(f"and {len(way.only_path)} that see only its path ({', '.join(way.only_path)})")
    print(f"in {len(way.forms)} forms ({', '.join(way.forms)}), decoded {way.decoded} times")


if __name__ == "__main__":
    main()
