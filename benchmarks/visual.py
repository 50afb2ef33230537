"""Speed of the visual branch against a plain one that does what the published code does.

    python -m benchmarks.visual                 on the CPU, float32, batch 4; where there is a GPU also there, bfloat16

The plain branch runs all 12 ViT blocks and takes the outputs of four by hooks, multiplies out every attention and its
softmax, and cuts windows by views and copies. Both use the same random weights; their scores are compared. A third
contender is this project's branch without `TokenLinear`, whose gain depends on the processor. They take turns, so that
whatever else the machine does hits all of them.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from functools import partial

import click
import timm
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from ma_agiqa_core.model import MaAgiqa, MaAgiqaConfig, token_linear
from ma_agiqa_core.model.channel_attention import ChannelAttention
from ma_agiqa_core.model.swin import SwinBlock, SwinStage

from .machine import machine

BAR = 1.4


class PlainBranch(nn.Module):
    """The published computation, written straightforwardly, with the weights of `model`."""

    def __init__(self, model: MaAgiqa) -> None:
        super().__init__()
        self.model = model
        self.grid = model.features.grid
        self.outputs: list[Tensor] = []
        self.vit = timm.create_model(
            model.config.backbone, img_size=model.config.image_size
        )  # the blocks that nobody needs are random
        self.vit.load_state_dict(model.features.vit.state_dict(), strict=False)
        for block in self.vit.blocks:
            block.attn.fused_attn = False
            block.register_forward_hook(lambda module, inputs, output: self.outputs.append(output))

    def forward(self, pixels: Tensor, vectors: Mapping[str, Tensor] | None = None) -> Tensor:
        """(B, 3, S, S), and the semantic vectors of a model that has some -> (B,)."""
        model = self.model
        self.vit(pixels)
        tokens = torch.cat([self.outputs[block][:, 1:] for block in model.config.backbone_blocks], 2)
        self.outputs.clear()
        x = tokens.transpose(1, 2).reshape(len(pixels), -1, *self.grid)  # (B, C, H, W)
        for stage in (model.stage1, model.stage2):
            maps = x.flatten(2)
            for attention in stage.channel_attention:
                maps = plain_channel_attention(attention, maps)
            x = F.conv2d(maps.unflatten(2, self.grid), stage.reduce.weight[:, :, None, None], stage.reduce.bias)
            x = plain_swin(stage.swin, x)
        tokens = x.flatten(2).transpose(1, 2)
        score = _linear(model.patch_quality.score[3], _linear(model.patch_quality.score[0], tokens).relu()).relu()
        weight = _linear(model.patch_quality.weight[3], _linear(model.patch_quality.weight[0], tokens).relu()).sigmoid()
        return model.fusion((score * weight).squeeze(2), vectors or {})


def plain_channel_attention(block: ChannelAttention, x: Tensor) -> Tensor:
    """(B, C, N) -> (B, C, N)."""
    q, k, v = (_linear(part, x) for part in (block.query, block.key, block.value))
    weights = (q @ k.transpose(1, 2) * x.shape[2] ** -0.5).softmax(2)
    return (weights @ v).transpose(1, 2).reshape(x.shape) + x


def plain_swin(stage: SwinStage, x: Tensor) -> Tensor:
    """(B, C, H, W) -> (B, C, H, W)."""
    H, W = x.shape[2:]
    x = x.flatten(2).transpose(1, 2)
    for layer in stage.layers:
        before = x
        for block in layer.blocks:
            x = plain_swin_block(block, x, H, W)
        maps = F.relu(layer.conv(x.unflatten(1, (H, W)).permute(0, 3, 1, 2)))
        x = stage.scale * maps.flatten(2).transpose(1, 2) + before
    return x.transpose(1, 2).unflatten(2, (H, W))


def plain_swin_block(block: SwinBlock, x: Tensor, H: int, W: int) -> Tensor:  # noqa: N803
    attention, before = block.attention, x
    side, heads = int(attention.order.shape[1] ** 0.5), attention.heads
    B, _, C = x.shape
    shift = side // 2 if attention.is_masked else 0
    x = block.norm1(x).view(B, H, W, C)
    if shift:
        x = x.roll((-shift, -shift), (1, 2))
    x = x.view(B, H // side, side, W // side, side, C).permute(0, 1, 3, 2, 4, 5).reshape(-1, side * side, C)
    q, k, v = _linear(attention.qkv, x).unflatten(2, (3, heads, C // heads)).permute(2, 0, 3, 1, 4)
    logits = q * (C // heads) ** -0.5 @ k.transpose(2, 3)
    logits = logits + attention.position_bias[attention.relative].permute(2, 0, 1)
    if shift:
        logits = (logits.unflatten(0, (B, -1)) + attention.apart[:, None]).flatten(0, 1)
    x = _linear(attention.proj, (logits.softmax(3) @ v).transpose(1, 2).reshape(x.shape))
    x = x.view(B, H // side, W // side, side, side, C).permute(0, 1, 3, 2, 4, 5).reshape(B, H, W, C)
    if shift:
        x = x.roll((shift, shift), (1, 2))
    x = before + x.reshape(B, H * W, C)
    return x + _linear(block.mlp[2], F.gelu(_linear(block.mlp[0], block.norm2(x))))


def _linear(layer: nn.Linear, x: Tensor) -> Tensor:
    return F.linear(x, layer.weight, layer.bias)


@contextmanager
def _without_token_linear() -> Iterator[None]:
    original = token_linear._convolution_batch
    token_linear._convolution_batch = lambda x: 0
    try:
        yield
    finally:
        token_linear._convolution_batch = original


@torch.no_grad()
def compare(device: str, dtype: torch.dtype, batch: int, turns: int) -> None:
    """Prints the table of one device."""
    torch.manual_seed(0)
    model = MaAgiqa(MaAgiqaConfig(semantic_dim=0)).eval()
    spread_out(model)
    pixels = torch.rand(batch, 3, 224, 224) * 2 - 1
    plain = PlainBranch(model).eval()
    flops = {"plain": count_flops(plain), "ours": count_flops(model)}
    reference = plain(pixels)
    model, plain, pixels = model.to(device, dtype), plain.to(device, dtype), pixels.to(device, dtype)
    contenders: dict[str, Callable[[], Tensor]] = {"plain": partial(plain, pixels), "ours": partial(model, pixels)}
    if device == "cpu":
        contenders["ours, nn.Linear"] = partial(_run_without_token_linear, model, pixels)
    seconds: dict[str, list[float]] = {name: [] for name in contenders}
    difference: dict[str, float] = {}
    for turn in range(-1, turns):  # the first warms up
        for name, work in contenders.items():
            start = time.perf_counter()
            scores = work().float().cpu()
            if turn >= 0:
                seconds[name].append(time.perf_counter() - start)
            difference[name] = float((scores - reference).abs().max() / reference.std())
    medians = {name: statistics.median(times) for name, times in seconds.items()}
    where = f"CPU, {torch.get_num_threads()} thread(s)" if device == "cpu" else torch.cuda.get_device_name()
    print(f"\n{where}, {str(dtype).removeprefix('torch.')}, batch {batch}, {turns} turns\n")
    print(
        "| branch | s per batch: median (spread) | pictures/s | faster than plain | GFLOPs per picture | difference |"
    )
    print("|---|---|---|---|---|---|")
    for name, times in seconds.items():
        giga = flops[name.partition(",")[0]] / 1e9
        print(
            f"| {name} | {medians[name]:.3f} ({min(times):.3f}–{max(times):.3f}) | {batch / medians[name]:.2f} | "
            f"{medians['plain'] / medians[name]:.2f} | {giga:.0f} | {difference[name]:.1e} |"
        )
    if device == "cpu":
        ratio = medians["plain"] / medians["ours"]
        print(f"\nBar, at least {BAR} times faster: {ratio:.2f}, {'met' if ratio >= BAR else 'MISSED'}.")
    print("Difference: largest from the plain scores in float32 on the CPU, in units of their standard deviation.")


def _run_without_token_linear(model: MaAgiqa, pixels: Tensor) -> Tensor:
    with _without_token_linear():
        return model(pixels)


def spread_out(model: MaAgiqa) -> None:
    """Scales the heads up, so that random weights give pictures different scores and differences show."""
    for linear in (model.fusion.visual, model.fusion.score):
        linear.weight.mul_(10)


def count_flops(module: nn.Module) -> float:
    """FLOPs of one picture; a multiply-add counts 2."""
    with FlopCounterMode(display=False) as counter:
        module(torch.zeros(1, 3, 224, 224))
    return counter.get_total_flops()


@click.command()
@click.option("--batch", default=4, show_default=True)
@click.option("--turns", default=7, show_default=True)
@click.option("--threads", default=0, help="Of the CPU; default: torch's choice.")
def main(batch: int, turns: int, threads: int) -> None:
    if threads:
        torch.set_num_threads(threads)
    print(machine())
    compare("cpu", torch.float32, batch, turns)
    if torch.cuda.is_available():
        compare("cuda", torch.bfloat16, 64, 30)


if __name__ == "__main__":
    main()
