"""Which model patches and guiders of ComfyUI's core go with the best-of-N sampler: exact, or refused by name.

    COMFYUI_PATH=/path/to/ComfyUI python -m benchmarks.node_patches

Every node of the core that takes a MODEL and gives one is put on a small UNet of random numbers. Of eight candidates
two are finished, and compared with the same rows of an unpruned KSampler.
"""

from __future__ import annotations

import importlib
import importlib.util
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[1]
LATENT = 16  # places a side: some patches want more than the samplers' table
EXACT = 1e-4
_RESULT = "RESULT "


def measured(comfyui: Path) -> list[tuple[str, str]]:
    """Node id and outcome of every patch of this ComfyUI.

    Args:
        comfyui: A checkout of ComfyUI.
    """
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "COMFYUI_PATH": str(comfyui)}
    done = subprocess.run(
        [sys.executable, __file__, "--child"], cwd=comfyui, env=environment, capture_output=True, text=True, check=False
    )
    lines = [line for line in done.stdout.splitlines() if line.startswith(_RESULT)]
    if done.returncode or not lines:
        raise RuntimeError(f"Expected a measurement from ComfyUI in {comfyui}, got:\n{done.stderr[-4000:]}")
    return [(name, outcome) for name, outcome in json.loads(lines[-1].removeprefix(_RESULT))]


def table(rows: list[tuple[str, str]]) -> str:
    """Markdown."""
    lines = ["| model patch | exact (difference, of the latents' deviation) or refused |", "|---|---|"]
    return "\n".join([*lines, *(f"| {name} | {outcome} |" for name, outcome in rows)])


def main() -> None:
    """Prints the table."""
    if "COMFYUI_PATH" not in os.environ:
        raise SystemExit("Expected COMFYUI_PATH with a checkout of ComfyUI, got none. Set it.")
    print(table(measured(Path(os.environ["COMFYUI_PATH"]))))


def _child() -> None:
    """In a process of its own, where importing ComfyUI is right."""
    spec = importlib.util.spec_from_file_location("node_sampling", Path(__file__).with_name("node_sampling.py"))
    assert spec is not None
    assert spec.loader is not None
    base = sys.modules["node_sampling"] = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(base)
    tiny, sampling, runs = base.opened()
    patches = base.loaded("core_patches", ROOT / "tests" / "support" / "core_patches.py")
    import torch

    rows = []
    with torch.inference_mode():
        for name, node in patches.patch_nodes().items():
            try:
                model = patches.patched(name, node, tiny.tiny_model(), tiny.conditioning(4))
            except patches.NotHereError as error:
                rows.append((name, f"not on this UNet: {error}".splitlines()[0][:100]))
            else:
                rows.append((name, _outcome(model, base, tiny, sampling, runs)))
    print(_RESULT + json.dumps(rows))


def _outcome(model: Any, base: Any, tiny: Any, sampling: Any, runs: Any) -> str:
    import torch

    latent = {"samples": torch.zeros(base.N, 4, LATENT, LATENT), "batch_index": list(range(base.N))}
    text, other = tiny.conditioning(1), tiny.conditioning(2)
    settings = runs.SamplerSettings("euler", "normal", base.STEPS, base.CFG, 1.0, base.SEED)
    pruned = sampling.SegmentedSampling(runs.KSamplerRun(model, settings, text, other, latent))
    try:
        pruned.check_divisible()
    except ValueError as error:
        return f"refused: {str(error).partition('. ')[2]}"
    plain, _ = base.plain(model, settings, text, other, latent)
    pruned.run(list(range(base.N)), round(0.4 * pruned.steps))
    pruned.run(base.SURVIVORS[0], round(0.7 * pruned.steps))
    rest = base.SURVIVORS[1]
    difference = float((pruned.run(rest) - plain[rest]).abs().max() / plain.std())
    return f"{'exact' if difference < EXACT else 'OTHER PICTURES'} ({difference:.0e})"


if __name__ == "__main__":
    _child() if "--child" in sys.argv else main()
