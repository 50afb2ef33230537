"""Speed, FLOPs and memory of the semantic branch beside the flow of the published extraction.

    python -m benchmarks.semantic                 time and memory at a reduced scale on the CPU; FLOPs at true size
    python -m benchmarks.semantic --true-size     random weights of the 7B model in bfloat16 at batch 8: on a GPU time,
                                                  memory and the full pipeline's pictures per second; else memory

The plain flow is `plain_mplug_owl2`: for each question it encodes the picture and runs the whole prompt twice, once for
logits. Ours has the same random weights, and its features are compared. The reduced model has the proportions of the
true one: 448 px, 1024 patches, 65 image tokens, true prompt lengths, and as large a share of vision and LM head. The
text before the picture, which ours reads once for all pictures, is read before the clock starts; its cost stands apart.
"""

from __future__ import annotations

import json
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import click
import psutil
import torch
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode

from ma_agiqa_core.model import MaAgiqa
from ma_agiqa_core.semantic.mplug_owl2 import MplugOwl2
from ma_agiqa_core.semantic.placement import module_bytes
from ma_agiqa_core.semantic.published_mplug_owl2 import NOT_QUANTIZED

from . import visual
from .machine import machine
from .plain_mplug_owl2 import IMAGE, PlainOwl

FLOPS_BAR, SPEED_BAR = 3.0, 2.5  # times fewer, times faster
MEMORY_BAR, PICTURES_BAR = 18e9, 150  # bytes at batch 8; pictures per second of the full pipeline on an H200
NEEDED_ON_CPU = 18e9  # bytes: 16.1 GB of weights, and what a batch takes

# tokens before and after the picture, with LLaMA's tokenizer: "USER: {question}\n" and " ASSISTANT:"
PROMPT_TOKENS = {"semantic_content": (33, 6), "coherence": (22, 6)}

_VISION = {"image_size": 448, "patch_size": 14, "layer_norm_eps": 1e-6}
_ABSTRACTOR = {"num_learnable_queries": 64, "grid_size": 32, "num_hidden_layers": 6, "layer_norm_eps": 1e-6}


def _config(
    vision: tuple[int, int, int], abstractor: tuple[int, int], language: tuple[int, int, int, int, int]
) -> dict[str, Any]:
    """From width, layers and heads of vision; heads and MLP of the abstractor; all sizes of the language model."""
    width, layers, heads = vision
    owl = dict(
        zip(
            ("hidden_size", "num_hidden_layers", "num_attention_heads", "intermediate_size", "vocab_size"),
            language,
            strict=True,
        )
    )
    see = {
        "hidden_size": width,
        "intermediate_size": 4 * width,
        "num_hidden_layers": layers,
        "num_attention_heads": heads,
    }
    read = {"hidden_size": width, "encoder_hidden_size": width}
    read |= {"num_attention_heads": abstractor[0], "intermediate_size": abstractor[1]}
    parts = {"visual_model": _VISION | see, "visual_abstractor": _ABSTRACTOR | read}
    return owl | {"rms_norm_eps": 1e-5, "visual_config": parts}


REDUCED = _config(vision=(256, 6, 4), abstractor=(4, 704), language=(1024, 12, 8, 2752, 3000))
TRUE = _config(vision=(1024, 24, 16), abstractor=(16, 2816), language=(4096, 32, 32, 11008, 32000))

# dense bfloat16 FLOP/s without sparsity, from NVIDIA's data sheets
PEAKS = {"H200": 989e12, "H100 PCIe": 756e12, "H100": 989e12, "A100": 312e12, "L40S": 362e12, "RTX 4090": 165e12}


@dataclass
class Contender:
    """Something to time on one batch of pictures."""

    name: str
    work: Callable[[], Mapping[str, Tensor]]
    seconds: list[float] = field(default_factory=list)

    def run(self) -> Mapping[str, Tensor]:
        start = time.perf_counter()
        features = self.work()
        if torch.cuda.is_available():
            torch.cuda.synchronize()
        self.seconds.append(time.perf_counter() - start)
        return features

    @property
    def median(self) -> float:
        return statistics.median(self.seconds)

    def faster_than(self, other: Contender) -> float:
        """Median of the turns' ratios: what slows a turn down slows both."""
        return statistics.median(theirs / own for theirs, own in zip(other.seconds, self.seconds, strict=True))


@click.command()
@click.option("--true-size", is_flag=True, help="The 7B model with random weights in bfloat16.")
@click.option("--batch", default=0, help="Pictures at a time.  [default: 4; 8 with --true-size]")
@click.option("--turns", default=7, show_default=True, type=click.IntRange(min=1), help="Of each contender.")
@click.option("--threads", default=1, show_default=True, type=click.IntRange(min=1), help="Of the CPU.")
@click.option("--peak", default="", hidden=True, help="Print the peak memory of one contender.")
def main(true_size: bool, batch: int, turns: int, threads: int, peak: str) -> None:
    torch.set_num_threads(threads)
    if peak:
        print(json.dumps(resident_peak(peak, batch)))
        return
    print(machine(), flush=True)
    if true_size:
        if torch.cuda.is_available():
            true_size_on_gpu(batch or 8, turns)
        else:
            true_size_on_cpu(batch or 8)
        return
    print(speed_table(batch or 4, turns, threads), flush=True)
    print(flops_table())
    print(weights_table())


# ------------------------------------------------------------------------------------------------------ reduced scale
def speed_table(batch: int, turns: int, threads: int) -> str:
    contenders = make_contenders(REDUCED, batch, torch.device("cpu"), torch.float32)
    found = {one.name: one.work() for one in contenders}  # caches are not what is measured
    for _ in range(turns):
        for one in contenders:
            one.run()
    reference = contenders[0]
    lines = [
        f"\nReduced scale, CPU, float32, {threads} thread(s), batch {batch}, medians of {turns} interleaved turns "
        "(of each turn's ratio, where two flows are compared).\n",
        "| flow | s per picture (least–most) | pictures/s | faster than plain | than plain, fused | peak memory beyond "
        "weights, MB | difference |",
        "|---|---|---|---|---|---|---|",
    ]
    for one in contenders:
        spread = f"{min(one.seconds) / batch:.3f}–{max(one.seconds) / batch:.3f}"
        ratios = " | ".join(f"{one.faster_than(other):.2f}" for other in contenders[:2])
        memory = json.loads(
            subprocess.check_output(
                [sys.executable, "-m", "benchmarks.semantic", "--peak", one.name, "--batch", str(batch)], text=True
            )
        )
        lines.append(
            f"| {one.name} | {one.median / batch:.3f} ({spread}) | {batch / one.median:.2f} | {ratios} "
            f"| {memory / 1e6:.0f} | {difference(found[one.name], found[reference.name]):.1e} |"
        )
    ratio = min(contenders[-1].faster_than(other) for other in contenders[:2])
    verdict = "met" if ratio >= SPEED_BAR else "MISSED"
    lines.append(f"\nBar, at least {SPEED_BAR} times faster than either plain flow: {ratio:.2f}, {verdict}.")
    lines.append("Difference: largest from the plain features, in units of their standard deviation.")
    return "\n".join(lines)


def make_contenders(config: dict[str, Any], batch: int, device: torch.device, dtype: torch.dtype) -> list[Contender]:
    """The plain flow, with explicit and with fused attention, and ours, with the same weights and pictures."""
    owl = random_owl(config, device, dtype)
    weights = {f"model.{name}": parameter.data for name, parameter in owl.named_parameters()}
    head = torch.empty(config["vocab_size"], config["hidden_size"], device=device, dtype=dtype)
    weights["lm_head.weight"] = _fill(head)
    pixels = torch.randn(batch, 3, 448, 448, generator=torch.Generator().manual_seed(0)).to(device, dtype)
    prompts = make_prompts(config)
    return [
        Contender("plain", partial(PlainOwl(config, weights).features, pixels, prompts)),
        Contender("plain, fused attention", partial(PlainOwl(config, weights, fused=True).features, pixels, prompts)),
        Contender("ours", partial(owl.features, pixels, prompts)),
    ]


def make_prompts(config: dict[str, Any]) -> dict[str, list[int]]:
    """Random token ids of the true numbers."""
    generator = torch.Generator().manual_seed(0)
    prompts = {}
    for name, (before, after) in PROMPT_TOKENS.items():
        ids = torch.randint(3, config["vocab_size"], (before + after,), generator=generator).tolist()
        prompts[name] = [*ids[:before], IMAGE, *ids[before:]]
    return prompts


def random_owl(config: dict[str, Any], device: torch.device, dtype: torch.dtype) -> MplugOwl2:
    """With random weights whose products neither vanish nor grow."""
    owl = MplugOwl2.empty(config).to(dtype).to_empty(device=device)
    for name, parameter in owl.named_parameters():
        if "norm" in name or "ffn_ln" in name:
            parameter.data.fill_(0.0 if name.endswith("bias") else 1.0)
        else:
            _fill(parameter.data)
    return owl


def _fill(values: Tensor) -> Tensor:
    """A million random numbers over and over: billions of fresh ones would take longer than the benchmark."""
    block = torch.randn(min(values.numel(), 1_000_003), generator=torch.Generator().manual_seed(values.numel() % 1009))
    block = (block * values.shape[-1] ** -0.5).to(values)
    flat = values.view(-1)
    for start in range(0, len(flat), len(block)):
        piece = flat[start : start + len(block)]
        piece.copy_(block[: len(piece)])
    return values


def difference(got: Mapping[str, Tensor], expected: Mapping[str, Tensor]) -> float:
    return max(float((got[name] - expected[name]).abs().max() / expected[name].std()) for name in expected)


def resident_peak(name: str, batch: int) -> int:
    """Bytes that one contender needs at most beyond its weights; for a process of its own."""
    one = {one.name: one for one in make_contenders(REDUCED, batch, torch.device("cpu"), torch.float32)}[name]
    before = psutil.Process().memory_info().rss
    one.work()
    return _highest_resident() - before


def _highest_resident() -> int:
    """Bytes. Not getrusage's on Linux: a child there starts with the peak of its parent."""
    status = Path("/proc/self/status")
    if status.is_file():
        line = next(line for line in status.read_text().splitlines() if line.startswith("VmHWM"))
        return 1024 * int(line.split()[1])
    try:
        import resource
    except ImportError:  # Windows
        return psutil.Process().memory_info().peak_wset
    highest = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return highest if sys.platform == "darwin" else 1024 * highest


# -------------------------------------------------------------------------------------------------------------- FLOPs
def flops_table() -> str:
    lines = [
        "\nFLOPs of one picture, two questions, counted by torch's FlopCounterMode; a multiply-add counts 2. The "
        "language model at true size is counted on the meta device.\n",
        "| what | plain, GFLOP | ours, GFLOP | times fewer | once per prompt, GFLOP |",
        "|---|---|---|---|---|",
    ]
    reduced, true = semantic_flops(REDUCED), semantic_flops(TRUE)
    branch = visual_flops()
    rows = {
        "semantic branch, reduced scale": reduced,
        "semantic branch, true size": true,
        "visual branch": (*branch, 0.0),
        "whole pipeline, true size": (true[0] + branch[0], true[1] + branch[1], true[2]),
    }
    for what, (plain, ours, once) in rows.items():
        lines.append(f"| {what} | {plain / 1e9:.0f} | {ours / 1e9:.0f} | {plain / ours:.2f} | {once / 1e9:.0f} |")
    ratio = true[0] / true[1]
    verdict = "met" if ratio >= FLOPS_BAR else "MISSED"
    lines.append(f"\nBar, semantic branch at true size at least {FLOPS_BAR} times fewer: {ratio:.2f}, {verdict}.")
    return "\n".join(lines)


def weights_table() -> str:
    """What the true size takes in memory, counted on the meta device."""
    lines = ["\nWeights of the true size in memory.\n", "| precision | GB |", "|---|---|"]
    owl = MplugOwl2.empty(TRUE)
    for what, dtype, quantization in (
        ("float32", torch.float32, None),
        ("bfloat16 or float16", torch.bfloat16, None),
        ("int8, the rest bfloat16", torch.bfloat16, "int8"),
        ("nf4, the rest bfloat16", torch.bfloat16, "nf4"),
    ):
        lines.append(f"| {what} | {module_bytes(owl, dtype, quantization, NOT_QUANTIZED) / 1e9:.1f} |")
    return "\n".join(lines)


def semantic_flops(config: dict[str, Any]) -> tuple[float, float, float]:
    """Of the plain flow and of ours for one picture, and what ours spends once on the text before pictures."""
    owl = MplugOwl2.empty(config)
    weights = {f"model.{name}": parameter for name, parameter in owl.named_parameters()}
    weights["lm_head.weight"] = torch.empty(config["vocab_size"], config["hidden_size"], device="meta")
    pixels, prompts = torch.empty(1, 3, 448, 448, device="meta"), make_prompts(config)
    first = _flops(partial(owl.features, pixels, prompts))
    ours = _flops(partial(owl.features, pixels, prompts))
    return _flops(partial(PlainOwl(config, weights).features, pixels, prompts)), ours, first - ours


@torch.no_grad()
def visual_flops() -> tuple[float, float]:
    """Of the visual branch as published and ours, with neither's semantic experts (0.01 GFLOP)."""
    model = MaAgiqa(visual.MaAgiqaConfig(semantic_dim=0)).eval()
    return visual.count_flops(visual.PlainBranch(model).eval()), visual.count_flops(model)


def _flops(work: Callable[[], object]) -> float:
    with FlopCounterMode(display=False) as counter:
        work()
    return float(counter.get_total_flops())


# ---------------------------------------------------------------------------------------------------------- true size
def true_size_on_cpu(batch: int) -> None:
    """Memory alone: two cores would take minutes a batch."""
    free = psutil.virtual_memory().available
    if free < NEEDED_ON_CPU:
        raise click.ClickException(
            f"Expected {NEEDED_ON_CPU / 1e9:.0f} GB of free memory for the 7B model, got {free / 1e9:.1f} GB."
        )
    owl = random_owl(TRUE, torch.device("cpu"), torch.bfloat16)
    loaded = psutil.Process().memory_info().rss
    start = time.perf_counter()
    features = owl.features(torch.randn(batch, 3, 448, 448), make_prompts(TRUE))
    seconds = time.perf_counter() - start
    if not all(answer.isfinite().all() for answer in features.values()):
        raise click.ClickException("Expected finite features, got others.")
    peak = _highest_resident()
    print(f"\nTrue size, CPU, bfloat16, batch {batch}: {seconds:.0f} s with the text before the pictures.")
    print(
        f"Resident memory: {loaded / 1e9:.2f} GB with the weights, {peak / 1e9:.2f} GB at most. {_memory_verdict(peak)}"
    )


@torch.no_grad()
def true_size_on_gpu(batch: int, turns: int) -> None:
    device, dtype = torch.device("cuda"), torch.bfloat16
    name = torch.cuda.get_device_name()
    flops, (_, visual_ours) = semantic_flops(TRUE), visual_flops()
    peak_rate = next((rate for known, rate in PEAKS.items() if known in name), None)
    plain, fused, ours = make_contenders(TRUE, batch, device, dtype)
    expert = MaAgiqa().eval().to(device, dtype)

    torch.cuda.reset_peak_memory_stats()
    ours.work()
    peak = torch.cuda.max_memory_allocated()
    print(f"\nTrue size, {name}, bfloat16, medians of {turns} interleaved turns.")
    print(
        f"Allocated at most at batch {batch}, LM head and visual branch included: {peak / 1e9:.2f} GB. "
        + _memory_verdict(peak)
    )

    found = {one.name: one.work() for one in (plain, fused, ours)}
    for _ in range(turns):
        for one in (plain, fused, ours):
            one.run()
    print(
        f"\n| flow, batch {batch} | s per batch | pictures/s | faster than plain | difference |\n|---|---|---|---|---|"
    )
    for one in (plain, fused, ours):
        spread = f"{min(one.seconds):.3f}–{max(one.seconds):.3f}"
        apart = difference(found[one.name], found["plain"])
        print(
            f"| {one.name} | {one.median:.3f} ({spread}) | {batch / one.median:.1f} "
            f"| {one.faster_than(plain):.2f} | {apart:.1e} |"
        )

    owl = ours.work.func.__self__
    prompts = make_prompts(TRUE)
    print("\n| full pipeline, pictures at a time | pictures/s | TFLOP/s | share of peak |\n|---|---|---|---|")
    best = 0.0
    for count in (8, 16, 32, 64, 128):
        pixels = torch.randn(count, 3, 448, 448, device=device, dtype=dtype)
        small = torch.randn(count, 3, 224, 224, device=device, dtype=dtype)
        whole = Contender(str(count), lambda p=pixels, s=small: {"score": expert(s, **owl.features(p, prompts))})
        for _ in range(2):
            whole.work()
        torch.cuda.synchronize()
        for _ in range(turns):
            whole.run()
        rate = count / whole.median
        best = max(best, rate)
        achieved = rate * (flops[1] + visual_ours)
        share = f"{achieved / peak_rate:.0%}" if peak_rate else "unknown peak"
        print(f"| {count} | {rate:.1f} | {achieved / 1e12:.0f} | {share} |", flush=True)
    verdict = "met" if best >= PICTURES_BAR else "MISSED"
    print(f"\nBar on an H200, at least {PICTURES_BAR} pictures/s: {best:.1f}, {verdict}.")
    print("Reading and resizing the pictures is not included.")


def _memory_verdict(peak: float) -> str:
    return f"Bar, at most {MEMORY_BAR / 1e9:.0f} GB: {'met' if peak <= MEMORY_BAR else 'MISSED'}."


if __name__ == "__main__":
    main()
