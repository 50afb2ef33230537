"""Measurements inside ComfyUI: a module runs once more, as a child process in the folder of a checkout."""

from __future__ import annotations

import importlib
import importlib.util
import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

ROOT = Path(__file__).parents[1]
_CHILD, _RESULT = "--child", "RESULT "


def run_in_comfyui(module: str, comfyui: Path) -> Any:
    """What the child of a module told, on one thread.

    Args:
        module: Its name in this folder; it ends with `main_or_child`.
        comfyui: A checkout of ComfyUI.
    """
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "COMFYUI_PATH": str(comfyui), "PYTHONPATH": str(ROOT)}
    command = [sys.executable, "-m", f"{__package__}.{module}", _CHILD]
    done = subprocess.run(command, cwd=comfyui, env=environment, capture_output=True, text=True, check=False)
    lines = [line for line in done.stdout.splitlines() if line.startswith(_RESULT)]
    if done.returncode or not lines:
        raise RuntimeError(f"Expected a measurement from ComfyUI in {comfyui}, got:\n{done.stderr[-4000:]}")
    return json.loads(lines[-1].removeprefix(_RESULT))


def main_or_child(show: Callable[[Path], str], measure: Callable[[], Any]) -> None:
    """Prints what `show` makes of the checkout at COMFYUI_PATH; in the child, what `measure` gives, for the parent."""
    if _CHILD in sys.argv:
        print(_RESULT + json.dumps(measure()))
    elif "COMFYUI_PATH" in os.environ:
        print(show(Path(os.environ["COMFYUI_PATH"])))
    else:
        raise SystemExit("Expected COMFYUI_PATH with a checkout of ComfyUI, got none. Set it.")


def opened() -> tuple[ModuleType, ModuleType, ModuleType]:
    """ComfyUI in the child, on the CPU: the tests' small models, our sampling, and what it samples."""
    sys.argv = ["main.py", "--cpu"]
    import comfy.options  # noqa: TID251

    comfy.options.enable_args_parsing()
    import comfy.utils  # noqa: TID251
    import torch

    comfy.utils.set_progress_bar_enabled(False)
    torch.set_num_threads(1)
    tiny = loaded("tiny_diffusion", ROOT / "tests" / "support" / "tiny_diffusion.py")
    loaded("ma_agiqa_pack", ROOT / "__init__.py", package=ROOT)
    sampling = importlib.import_module("ma_agiqa_pack.nodes.sampling.segmented_sampling")
    return tiny, sampling, importlib.import_module("ma_agiqa_pack.nodes.sampling.sampler_runs")


def loaded(name: str, file: Path, package: Path | None = None) -> ModuleType:
    """A file as a module of this name."""
    spec = importlib.util.spec_from_file_location(
        name, file, submodule_search_locations=None if package is None else [str(package)]
    )
    if spec is None or spec.loader is None:
        raise ImportError(f"Expected a Python file, got {file}.")
    sys.modules[name] = module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module
