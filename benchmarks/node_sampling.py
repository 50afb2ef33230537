"""What the best-of-N sampler node saves, and how near its pictures are to an unpruned run: every sampler of ComfyUI.

    COMFYUI_PATH=/path/to/ComfyUI python -m benchmarks.node_sampling

A small UNet of random numbers goes through ComfyUI's own sampler, in a child process whose folder is ComfyUI's: eight
candidates, 20 steps, of which "0.4:4, 0.7:2" leaves two. The largest difference of these two from the same rows of an
unpruned KSampler is given by the deviation of the latents.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

from .comfyui_child import main_or_child, opened, run_in_comfyui

N, STEPS, CFG, SEED, PRUNE_AT = 8, 20, 5.0, 7, "0.4:4, 0.7:2"
SURVIVORS = ([0, 2, 5, 6], [2, 5])  # the first is rarely kept, and neighbours are not
LATENT = 8  # places a side


@dataclass(frozen=True)
class SamplerRow:
    """One sampler.

    Attributes:
        name: As on the node.
        difference: Of the survivors from an unpruned run, by the deviation of the latents; None: not to be pruned.
        masked_difference: The same with a noise mask.
        calls: Rows times calls of the diffusion model.
        unpruned_calls: The same without pruning, counted.
        comes_again_alone: Whether one latent in a KSampler gives the same picture as in the batch.
    """

    name: str
    difference: float | None
    masked_difference: float | None
    calls: int
    unpruned_calls: int
    comes_again_alone: bool

    @property
    def saved(self) -> float:
        """Of the model calls, 0 to 1."""
        return 1 - self.calls / self.unpruned_calls


def measured(comfyui: Path) -> list[SamplerRow]:
    """Every sampler of this ComfyUI; takes about two minutes on one thread.

    Args:
        comfyui: A checkout of ComfyUI.
    """
    return [SamplerRow(**row) for row in run_in_comfyui("node_sampling", comfyui)]


def table(rows: list[SamplerRow]) -> str:
    """Markdown."""
    lines = [
        "| sampler | difference | with a noise mask | model calls, of unpruned | saved | comes again alone |",
        "|---|---|---|---|---|---|",
    ]
    for row in rows:
        near = [
            "refused" if value is None else f"{value:.0e}" if value else "0"
            for value in (row.difference, row.masked_difference)
        ]
        calls = "-" if row.difference is None else f"{row.calls} of {row.unpruned_calls}"
        saved = "-" if row.difference is None else f"{row.saved:.0%}"
        again = "yes" if row.comes_again_alone else "in its batch"
        lines.append(f"| {row.name} | {' | '.join(near)} | {calls} | {saved} | {again} |")
    return "\n".join(lines)


def _child() -> list[dict[str, Any]]:
    """In a process of its own, where importing ComfyUI is right."""
    tiny, sampling, runs = opened()
    import comfy.samplers  # noqa: TID251
    import torch

    with torch.inference_mode():
        return [asdict(_one(name, sampling, runs, tiny)) for name in comfy.samplers.KSampler.SAMPLERS]


def _one(name: str, sampling: ModuleType, runs: ModuleType, tiny: ModuleType) -> SamplerRow:
    import torch

    numbers = torch.Generator().manual_seed(3)
    empty = {"samples": torch.zeros(N, 4, LATENT, LATENT), "batch_index": list(range(N))}
    mask = (torch.rand(N, 1, LATENT, LATENT, generator=numbers) > 0.5).float()
    given = {**empty, "samples": torch.randn(N, 4, LATENT, LATENT, generator=numbers), "noise_mask": mask}
    text, other = tiny.conditioning(1), tiny.conditioning(2)
    settings = runs.SamplerSettings(name, "normal", STEPS, CFG, 1.0, SEED)
    differences, calls, unpruned = [], 0, 0
    alone = True
    for latent in (empty, given):
        model = tiny.tiny_model()
        unpruned_latents, unpruned_calls = plain(model, settings, text, other, latent)
        pruned = sampling.SegmentedSampling(runs.KSamplerRun(model, settings, text, other, latent))
        alone = alone and (latent is given or pruned.replays_alone)
        try:
            pruned.check_divisible()
        except ValueError:
            differences.append(None)
            continue
        pruned.run(list(range(N)), round(0.4 * pruned.steps))
        pruned.run(SURVIVORS[0], round(0.7 * pruned.steps))
        finished = pruned.run(SURVIVORS[1])
        differences.append(float((finished - unpruned_latents[SURVIVORS[1]]).abs().max() / unpruned_latents.std()))
        calls, unpruned = pruned.calls, unpruned_calls
    return SamplerRow(name, differences[0], differences[1], calls, unpruned, alone)


def plain(model: Any, settings: Any, text: Any, other: Any, latent: dict[str, Any]) -> tuple[Any, int]:
    """ComfyUI's own sampler, and the rows that its model was asked for."""
    import comfy.sample  # noqa: TID251
    from comfy.patcher_extension import WrappersMP  # noqa: TID251

    counted = [0]

    def count(execute: Any, x: Any, *args: Any, **kwargs: Any) -> Any:
        counted[0] += len(x)
        return execute(x, *args, **kwargs)

    model = model.clone()
    model.add_wrapper_with_key(WrappersMP.APPLY_MODEL, "benchmark", count)
    finished = comfy.sample.sample(
        model,
        comfy.sample.prepare_noise(latent["samples"], settings.seed, latent["batch_index"]),
        settings.steps,
        settings.cfg,
        settings.sampler_name,
        settings.scheduler,
        text,
        other,
        latent["samples"],
        denoise=settings.denoise,
        noise_mask=latent.get("noise_mask"),
        disable_pbar=True,
        seed=settings.seed,
    )
    return finished, counted[0]


if __name__ == "__main__":
    main_or_child(lambda comfyui: table(measured(comfyui)), _child)
