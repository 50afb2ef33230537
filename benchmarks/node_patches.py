"""Which model patches and guiders of ComfyUI's core go with the best-of-N sampler: exact, or refused by name.

    COMFYUI_PATH=/path/to/ComfyUI python -m benchmarks.node_patches

Every node of the core that takes a MODEL and gives one is put on a small UNet of random numbers. Of eight candidates
two are finished, and compared with the same rows of an unpruned KSampler.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from .comfyui_child import ROOT, loaded, main_or_child, opened, run_in_comfyui
from .node_sampling import CFG, SEED, STEPS, SURVIVORS, N, plain

LATENT = 16  # places a side: some patches want more than the samplers' table
EXACT = 1e-4


def measured(comfyui: Path) -> list[tuple[str, str]]:
    """Node id and outcome of every patch of this ComfyUI.

    Args:
        comfyui: A checkout of ComfyUI.
    """
    return [(name, outcome) for name, outcome in run_in_comfyui("node_patches", comfyui)]


def table(rows: list[tuple[str, str]]) -> str:
    """Markdown."""
    lines = ["| model patch | exact (difference, of the latents' deviation) or refused |", "|---|---|"]
    return "\n".join([*lines, *(f"| {name} | {outcome} |" for name, outcome in rows)])


def _child() -> list[tuple[str, str]]:
    """In a process of its own, where importing ComfyUI is right."""
    tiny, sampling, runs = opened()
    patches = loaded("core_patches", ROOT / "tests" / "support" / "core_patches.py")
    import torch

    rows = []
    with torch.inference_mode():
        for name, node in patches.patch_nodes().items():
            try:
                model = patches.patched(name, node, tiny.tiny_model(), tiny.conditioning(4))
            except patches.NotHereError as error:
                rows.append((name, f"not on this UNet: {error}".splitlines()[0][:100]))
            else:
                rows.append((name, _outcome(model, tiny, sampling, runs)))
    return rows


def _outcome(model: Any, tiny: Any, sampling: Any, runs: Any) -> str:
    import torch

    latent = {"samples": torch.zeros(N, 4, LATENT, LATENT), "batch_index": list(range(N))}
    text, other = tiny.conditioning(1), tiny.conditioning(2)
    settings = runs.SamplerSettings("euler", "normal", STEPS, CFG, 1.0, SEED)
    pruned = sampling.SegmentedSampling(runs.KSamplerRun(model, settings, text, other, latent))
    try:
        pruned.check_divisible()
    except ValueError as error:
        return f"refused: {str(error).partition('. ')[2]}"
    unpruned, _ = plain(model, settings, text, other, latent)
    pruned.run(list(range(N)), round(0.4 * pruned.steps))
    pruned.run(SURVIVORS[0], round(0.7 * pruned.steps))
    rest = SURVIVORS[1]
    difference = float((pruned.run(rest) - unpruned[rest]).abs().max() / unpruned.std())
    return f"{'exact' if difference < EXACT else 'OTHER PICTURES'} ({difference:.0e})"


if __name__ == "__main__":
    main_or_child(lambda comfyui: table(measured(comfyui)), _child)
