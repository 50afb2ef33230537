"""What the callback adds to a step, and what memory of dropped rows is left; see `benchmarks/generation.py`.

Three networks of the tests' tiny pipelines, made so wide that a step takes at least 50 ms: Stable Diffusion's UNet,
Z-Image, whose prompts are lists of vectors, and Qwen-Image 2.1, whose loop caches keys and values.
"""

from __future__ import annotations

import gc
import statistics
import sys
import time
from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import torch

from ma_agiqa_core import CallableScorer
from ma_agiqa_core.generation import QualityFilterCallback

from . import small_generator

SUPPORT = Path(__file__).parents[1] / "tests" / "support"
OVERHEAD_BAR, STEP_BAR = 0.02, 0.050  # of the time without; seconds
ROWS, LEFT, STEPS = 4, 2, 20
MANY = 8  # rows of the memory table
CONSTANT = CallableScorer(lambda pictures, prompts: [0.0] * len(pictures), name="constant")


@dataclass
class Contender:
    """Something to time, by the clock and by this process's own time."""

    name: str
    work: Callable[[], object]
    wall: list[float] = field(default_factory=list)
    own: list[float] = field(default_factory=list)

    def run(self) -> None:
        wall, own = time.perf_counter(), time.process_time()
        self.work()
        self.wall.append(time.perf_counter() - wall)
        self.own.append(time.process_time() - own)


@dataclass(frozen=True)
class Network:
    """A pipeline, and the arguments of a call of it with so many rows."""

    name: str
    pipe: Any
    arguments: Callable[[int], dict[str, Any]]


def networks() -> list[Network]:
    return [
        Network("UNet", slow_pipeline(), _digit),
        _of_the_tests("z_image", "Z-Image, lists of vectors", _z_image_network, 32),
        _of_the_tests("qwen_image_21", "Qwen-Image 2.1, K/V cache", _qwen_network, 128),
    ]


# ----------------------------------------------------------------------------------------------------------- overhead
def overhead_table(turns: int) -> str:
    lines = [
        f"\n{ROWS} rows, {STEPS} steps, one thread, {turns} interleaved turns; entering and leaving the callback "
        f"included. Pruned: {LEFT} rows go on after half of the steps, beside the mean of calls with {ROWS} and with "
        f"{LEFT} rows; its previews cost nothing.\n",
        "| network | step, ms | a callback that does nothing | ours, nothing to prune: clock | process time "
        "| ours, pruned: clock | process time |",
        "|---|---|---|---|---|---|---|",
    ]
    verdicts = []
    for network in networks():
        plain, fewer, nothing, ours, pruned = contenders = [
            Contender("", partial(_generate, network)),
            Contender("", partial(_generate, network, rows=LEFT)),
            Contender("", partial(_generate, network, callback=_nothing)),
            Contender("", partial(_generate, network, prune_at={})),
            Contender("", partial(_generate, network, prune_at={0.5: LEFT})),
        ]
        for one in contenders:
            one.work()  # caches are not what is measured
        for turn in range(turns):
            for one in contenders[turn % 5 :] + contenders[: turn % 5]:  # nobody is always the last
                one.run()
        step = statistics.median(plain.wall) / STEPS
        expected = Contender("", _generate)
        expected.wall = [(a + b) / 2 for a, b in zip(plain.wall, fewer.wall, strict=True)]
        expected.own = [(a + b) / 2 for a, b in zip(plain.own, fewer.own, strict=True)]
        figures = [_overhead(nothing, plain)[0], *_overhead(ours, plain), *_overhead(pruned, expected)]
        lines.append(f"| {network.name} | {1e3 * step:.0f} | " + " | ".join(f"{one:+.2%}" for one in figures) + " |")
        verdicts.append(max(figures[2], figures[4]) < OVERHEAD_BAR and step >= STEP_BAR)
    inside = seconds_inside()
    return "\n".join(
        [
            *lines,
            f"\nWhat ours adds on a UNet of a few milliseconds, process time, median of 21 pairs: {1e3 * inside:.2f} "
            "ms per step.",
            f"Overhead: medians of the turns' ratios. Bar, under {OVERHEAD_BAR:.0%} of the process time at steps of at "
            f"least {1e3 * STEP_BAR:.0f} ms: {'met' if all(verdicts) else 'MISSED'}.",
        ]
    )


def seconds_inside(calls: int = 21) -> float:
    """Per step, on the small generator's own UNet: the median difference of process time with and without."""
    network = Network("", small_generator.untrained(), _digit)
    differences = []
    for _ in range(calls):
        plain, ours = (
            Contender("", partial(_generate, network)),
            Contender("", partial(_generate, network, prune_at={})),
        )
        plain.run(), ours.run()
        differences.append((ours.own[0] - plain.own[0]) / STEPS)
    return statistics.median(differences)


def _generate(network: Network, rows: int = ROWS, callback: Any = None, prune_at: Any = None) -> Any:
    pipe = network.pipe
    filtered = (
        nullcontext()
        if prune_at is None
        else QualityFilterCallback(pipe, CONSTANT, prune_at=prune_at, preview=_no_picture)
    )
    with filtered as ours:
        extra = {} if ours is None else {"callback_on_step_end_tensor_inputs": ours.tensor_inputs}
        return pipe(**network.arguments(rows), callback_on_step_end=ours or callback, output_type="pt", **extra).images


def _no_picture(latents: torch.Tensor) -> torch.Tensor:
    return torch.zeros(len(latents), 3, 8, 8)


def _nothing(pipe: Any, step: int, timestep: Any, callback_kwargs: dict[str, Any]) -> dict[str, Any]:
    return callback_kwargs


def _overhead(one: Contender, plain: Contender) -> tuple[float, float]:
    """By the clock and by process time: medians of the turns' ratios, so that what slows a turn down hits both."""
    pairs = ((one.wall, plain.wall), (one.own, plain.own))
    wall, own = (statistics.median(a / b for a, b in zip(ours, theirs, strict=True)) - 1 for ours, theirs in pairs)
    return wall, own


# ------------------------------------------------------------------------------------------------------------- memory
def memory_table() -> str:
    """Bytes of all living tensors but the weights, inside the network of the last step."""
    lines = [
        f"\nTensors that live inside the network's last call, weights left out, kB: {MANY} rows finished; one row; "
        f"{MANY} rows of which one goes on after a quarter of the steps.\n",
        f"| network | {MANY} rows | 1 row | {MANY} pruned to 1 | given back of the difference |",
        "|---|---|---|---|---|",
    ]
    for network in networks():
        many, one = (_living(network, rows, None) for rows in (MANY, 1))
        pruned = _living(network, MANY, {0.25: 1})
        cells = " | ".join(f"{number / 1e3:.0f}" for number in (many, one, pruned))
        lines.append(f"| {network.name} | {cells} | {(many - pruned) / (many - one):.0%} |")
    return "\n".join(lines)


def _living(network: Network, rows: int, prune_at: Any) -> int:
    denoiser = getattr(network.pipe, "unet", None) or network.pipe.transformer
    weights = {tensor.untyped_storage().data_ptr() for tensor in denoiser.state_dict().values()}
    gc.collect()
    before = {one.untyped_storage().data_ptr() for one in gc.get_objects() if isinstance(one, torch.Tensor)}
    calls: list[int] = []

    def look(*_: Any) -> None:
        gc.collect()
        storages = [one.untyped_storage() for one in gc.get_objects() if type(one) is torch.Tensor]
        found = {one.data_ptr(): one.nbytes() for one in storages}
        calls.append(sum(size for place, size in found.items() if place not in weights | before))

    hook = denoiser.register_forward_pre_hook(look)
    try:
        _generate(network, rows, prune_at=prune_at)
    finally:
        hook.remove()
    return calls[-1]


# ---------------------------------------------------------------------------------------------------------- networks
def slow_pipeline() -> Any:
    """The small generator's pipeline around a random UNet of Stable Diffusion's layout, far narrower."""
    from diffusers import UNet2DConditionModel

    torch.manual_seed(0)
    pipe = small_generator.untrained()
    pipe.unet = UNet2DConditionModel(
        sample_size=16,
        in_channels=1,
        out_channels=1,
        block_out_channels=(64, 128, 128, 128),
        cross_attention_dim=32,
        attention_head_dim=8,
    ).eval()
    return pipe


def _digit(rows: int) -> dict[str, Any]:
    return {
        "prompt": "7",
        "num_images_per_prompt": rows,
        "num_inference_steps": STEPS,
        "guidance_scale": 1.0,
        "generator": [torch.Generator().manual_seed(row) for row in range(rows)],
    }


def _of_the_tests(name: str, title: str, make: Callable[[], Any], side: int) -> Network:
    """A tiny pipeline of the tests with another network; pictures of `side` px."""
    sys.path.insert(0, str(SUPPORT))
    try:
        import tiny_pipelines
    finally:
        sys.path.remove(str(SUPPORT))
    torch.manual_seed(0)
    pipe = tiny_pipelines.pipeline(name)
    pipe.transformer = make().eval().requires_grad_(False)
    given = tiny_pipelines.FAMILIES[name].arguments

    def arguments(rows: int) -> dict[str, Any]:
        return {**given(rows, steps=STEPS, guidance=False), "height": side, "width": side}

    return Network(title, pipe, arguments)


def _z_image_network() -> Any:
    from diffusers import ZImageTransformer2DModel

    return ZImageTransformer2DModel(
        dim=512,
        n_layers=6,
        n_refiner_layers=1,
        n_heads=8,
        n_kv_heads=8,
        in_channels=4,
        cap_feat_dim=8,
        axes_dims=[16, 24, 24],
        axes_lens=[512, 64, 64],
    )


def _qwen_network() -> Any:
    from diffusers import QwenImage21Transformer2DModel

    return QwenImage21Transformer2DModel(
        in_channels=4,
        out_channels=4,
        num_layers=6,
        attention_head_dim=64,
        num_attention_heads=8,
        context_in_dim=8,
        axes_dims_rope=(16, 24, 24),
    )
