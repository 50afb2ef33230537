"""What the filter in the generation loop costs, and what choosing gains.

    python -m benchmarks.generation                 all of it, on one thread
    python -m benchmarks.generation --only curve    one part: overhead, preview, curve or calibration

overhead  random networks whose step takes at least 50 ms, with and without the callback, in turns: a UNet, one whose
          prompts are lists of vectors, one with a K/V cache; and what a pruned call keeps in memory
preview   one preview and its score beside one denoising step: Stable Diffusion 1.5 at its true size with random
          weights, timed; FLOPs for it, SDXL and FLUX.1, counted on the meta device
curve     gain against network evaluations on the small generator, which is trained first where it is not in --cache;
          docs/best_of_n_curve.png. Needs `pip install -e ".[bench]"`.
calibration
          what `calibrate` says of the small generator
"""

from __future__ import annotations

import os

os.environ.update(OMP_NUM_THREADS="1", MKL_NUM_THREADS="1", OPENBLAS_NUM_THREADS="1")  # read by the imports below

import statistics
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import click
import torch
from torch.utils.flop_counter import FlopCounterMode

from ma_agiqa_core import load_scorer
from ma_agiqa_core.generation import calibrate

from . import gain_curve, small_generator
from .loop_overhead import Contender, memory_table, overhead_table
from .machine import machine

PICTURE = Path(__file__).parents[1] / "docs" / "best_of_n_curve.png"


@click.command()
@click.option("--only", type=click.Choice(["overhead", "preview", "curve", "calibration"]), help="One part.")
@click.option("--turns", default=5, show_default=True, type=click.IntRange(min=1), help="Of each contender.")
@click.option("--prompts", default=200, show_default=True, type=click.IntRange(min=2), help="Of the curve.")
@click.option("--cache", type=click.Path(path_type=Path), default=small_generator.DEFAULT_CACHE, show_default=True)
@click.option(
    "--picture", type=click.Path(path_type=Path), default=PICTURE, show_default=True, help="The curve's file."
)
def main(only: str | None, turns: int, prompts: int, cache: Path, picture: Path) -> None:
    torch.set_num_threads(1)
    print(machine(), flush=True)
    if only in (None, "overhead"):
        print(overhead_table(turns), flush=True)
        print(memory_table(), flush=True)
    if only in (None, "preview"):
        print(flops_table(), flush=True)
        print(preview_table(turns), flush=True)
    if only in (None, "curve"):
        pipe = small_generator.load_or_train(cache)
        start = time.perf_counter()
        measured = gain_curve.measure(pipe, *small_generator.judges(), prompts)
        print(gain_curve.report(measured, time.perf_counter() - start))
        gain_curve.draw(measured, picture)
    if only in (None, "calibration"):
        print(calibration(small_generator.load_or_train(cache), prompts // 2))


def calibration(pipe: Any, prompts: int) -> str:
    chooser, watcher = small_generator.judges()
    words = [str(i % small_generator.DIGITS) for i in range(prompts)]
    settings = {name: value for name, value in gain_curve.CALL.items() if name != "output_type"}
    return str(calibrate(pipe, chooser, words, observe=watcher, batch_size=8, **settings))


# ------------------------------------------------------------------------------------------------------------ preview
def flops_table() -> str:
    lines = [
        "\nFLOPs of one picture at true size, counted by torch's FlopCounterMode on the meta device; a multiply-add "
        "counts 2.\n",
        "| model | one network evaluation, GFLOP | evaluations a step | preview by the tiny decoder, GFLOP "
        "| of a step | preview by the own VAE, GFLOP | of a step |",
        "|---|---|---|---|---|---|---|",
    ]
    for name, (evaluate, per_step, channels, side) in models().items():
        with torch.device("meta"):
            latents = torch.empty(1, channels, side, side)
            tiny, own = tiny_decoder(channels), own_decoder(channels)
        network, fast, slow = (_flops(work) for work in (evaluate, partial(tiny, latents), partial(own, latents)))
        step = network * per_step
        lines.append(
            f"| {name} | {network / 1e9:.0f} | {per_step} | {fast / 1e9:.0f} | {fast / step:.1%} "
            f"| {slow / 1e9:.0f} | {slow / step:.1%} |"
        )
    return "\n".join(lines)


def models() -> dict[str, tuple[Callable[[], object], int, int, int]]:
    """By name: one network evaluation of one row, how many a step has, latent channels and side."""
    from diffusers import FluxTransformer2DModel, UNet2DConditionModel

    with torch.device("meta"):
        sd, sdxl = UNet2DConditionModel(sample_size=64, cross_attention_dim=768), UNet2DConditionModel(**SDXL_UNET)
        flux = FluxTransformer2DModel(guidance_embeds=True)
        moment = torch.empty(1)
        added = {"text_embeds": torch.empty(1, 1280), "time_ids": torch.empty(1, 6)}
        return {
            "Stable Diffusion 1.5, 512 px": (
                partial(sd, torch.empty(1, 4, 64, 64), moment, torch.empty(1, 77, 768)),
                2,
                4,
                64,
            ),
            "SDXL, 1024 px": (
                partial(
                    sdxl,
                    torch.empty(1, 4, 128, 128),
                    moment,
                    torch.empty(1, 77, 2048),
                    added_cond_kwargs=added,
                ),
                2,
                4,
                128,
            ),
            "FLUX.1-dev, 1024 px": (
                partial(
                    flux,
                    torch.empty(1, 4096, 64),
                    torch.empty(1, 512, 4096),
                    torch.empty(1, 768),
                    moment,
                    torch.empty(4096, 3),
                    torch.empty(512, 3),
                    moment,
                ),
                1,
                16,
                128,
            ),
        }


SDXL_UNET: dict[str, Any] = {  # stabilityai/stable-diffusion-xl-base-1.0, unet/config.json
    "sample_size": 128,
    "block_out_channels": (320, 640, 1280),
    "down_block_types": ("DownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D"),
    "up_block_types": ("CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "UpBlock2D"),
    "attention_head_dim": (5, 10, 20),
    "transformer_layers_per_block": (1, 2, 10),
    "cross_attention_dim": 2048,
    "use_linear_projection": True,
    "addition_embed_type": "text_time",
    "addition_time_embed_dim": 256,
    "projection_class_embeddings_input_dim": 2816,
}


def tiny_decoder(channels: int) -> Callable[[Any], Any]:
    """TAESD's layout."""
    from diffusers import AutoencoderTiny

    return AutoencoderTiny(latent_channels=channels).eval().decode


def own_decoder(channels: int) -> Callable[[Any], Any]:
    """The layout of the VAE of Stable Diffusion, SDXL and FLUX.1."""
    from diffusers import AutoencoderKL

    width = (128, 256, 512, 512)
    blocks = {"down_block_types": ("DownEncoderBlock2D",) * 4, "up_block_types": ("UpDecoderBlock2D",) * 4}
    return AutoencoderKL(block_out_channels=width, layers_per_block=2, latent_channels=channels, **blocks).eval().decode


@torch.no_grad()
def preview_table(turns: int) -> str:
    from diffusers import UNet2DConditionModel

    torch.manual_seed(0)
    latents, words = torch.randn(1, 4, 64, 64), torch.randn(1, 77, 768)
    unet = UNet2DConditionModel(sample_size=64, cross_attention_dim=768).eval()
    scorer, picture = load_scorer("lite", device="cpu"), torch.rand(3, 512, 512)
    contenders = [
        Contender("one network evaluation", partial(unet, latents, torch.tensor([500]), words)),
        Contender("preview, tiny decoder", partial(tiny_decoder(4), latents)),
        Contender("preview, own VAE", partial(own_decoder(4), latents)),
        Contender("score, lite", partial(scorer.score, [picture])),
    ]
    for _ in range(turns):
        for one in contenders:
            one.run()
    median = {one.name: statistics.median(one.wall) for one in contenders}
    step = 2 * median["one network evaluation"]
    lines = [
        f"\nStable Diffusion 1.5 at 512 px, random weights, float32, one thread, one picture, medians of {turns} "
        "interleaved turns. A step with guidance is two network evaluations.\n",
        "| what | s (least–most) | of a step with guidance |",
        "|---|---|---|",
    ]
    for one in contenders:
        spread = f"{median[one.name]:.3f} ({min(one.wall):.3f}–{max(one.wall):.3f})"
        lines.append(f"| {one.name} | {spread} | {median[one.name] / step:.1%} |")
    for decoder in ("tiny decoder", "own VAE"):
        both = median[f"preview, {decoder}"] + median["score, lite"]
        lines.append(f"| **one preview and its score, {decoder}** | {both:.3f} | {both / step:.1%} |")
    return "\n".join(lines)


@torch.no_grad()
def _flops(work: Callable[[], object]) -> float:
    with FlopCounterMode(display=False) as counter:
        work()
    return float(counter.get_total_flops())


def _verdict(is_met: bool) -> str:
    return "met" if is_met else "MISSED"


if __name__ == "__main__":
    main()
