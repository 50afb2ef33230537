"""ImageReward, HPSv2, PickScore and the aesthetic predictors: time of a best-of-8 against the published flow.

    python -m benchmarks.clip_judges

Eight pictures of one prompt. The published flow takes one picture at a time, reads its prompt anew each time, padded to
the judge's limit, and runs the head layer by layer; ours is one `score`. Random weights, the same in both; the networks
are the published ones made smaller, since the true sizes take minutes here. Both take turns and their scores are
compared. Operations and memory are those of the true sizes, counted on the meta device.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import click
import PIL.Image
import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from ma_agiqa_core.scorers.judges.aesthetic_predictor import AestheticNetwork
from ma_agiqa_core.scorers.judges.aesthetic_v2_5 import AestheticV25
from ma_agiqa_core.scorers.judges.affine_head import AffineHead
from ma_agiqa_core.scorers.judges.hpsv2 import HPSv2
from ma_agiqa_core.scorers.judges.imagereward import ImageReward, ImageRewardNetwork
from ma_agiqa_core.scorers.judges.laion_aesthetic import LaionAesthetic
from ma_agiqa_core.scorers.judges.picture_judge import PictureJudge
from ma_agiqa_core.scorers.scorer import ScorerInfo

from .machine import machine

PICTURES, SIDE = 8, 512
PROMPT_TOKENS = 20  # of a usual prompt
INFO = ScorerInfo("benchmark", "1", 0, 1, trained_on="")


class FixedTokens:
    """In the place of a tokenizer: any prompt has `PROMPT_TOKENS` tokens."""

    def __init__(self, limit: int, last: int) -> None:
        self.limit, self._last = limit, last

    def ids(self, texts: Sequence[str]) -> list[list[int]]:
        return [[*range(1, PROMPT_TOKENS), self._last] for _ in texts]


@dataclass(frozen=True)
class Contender:
    """A judge, and the published flow with its weights.

    Attributes:
        judge: Ours.
        published: From one made-ready picture (1, 3, S, S) to its score.
        prompt: What ours is given.
        layers: The published head; empty where there is none.
    """

    judge: PictureJudge
    published: Callable[[Tensor], Tensor]
    prompt: str | None
    layers: nn.Sequential


@dataclass(frozen=True)
class Sizes:
    """Of a transformer: width, layers, heads."""

    width: int
    layers: int
    heads: int

    def config(self, ratio: int = 4) -> dict[str, int]:
        return {
            "hidden_size": self.width,
            "num_hidden_layers": self.layers,
            "num_attention_heads": self.heads,
            "intermediate_size": ratio * self.width,
        }


TRUE = {
    "ImageReward": (Sizes(1024, 24, 16), Sizes(768, 12, 12)),
    "HPSv2.1": (Sizes(1280, 32, 16), Sizes(1024, 24, 16)),
    "LAION aesthetic": (Sizes(1024, 24, 16), None),
    "aesthetic V2.5": (Sizes(1152, 27, 16), None),
}
SMALL = {
    "ImageReward": (Sizes(384, 6, 6), Sizes(288, 3, 6)),
    "HPSv2.1": (Sizes(384, 6, 6), Sizes(320, 5, 5)),
    "LAION aesthetic": (Sizes(384, 6, 6), None),
    "aesthetic V2.5": (Sizes(384, 4, 6), None),
}
"""About a third of the width and a quarter of the layers, in the proportion of the true ones."""


def head_layers(width: int) -> nn.Sequential:
    sizes = (width, 1024, 128, 64, 16, 1)
    with torch.device("cpu"):  # one affine map is made of it
        return nn.Sequential(*(nn.Linear(*pair) for pair in pairwise(sizes)))


def with_random_weights(network: nn.Module) -> None:
    """Some of transformers' own are so small that all pictures score alike."""
    for parameter in network.parameters():
        if parameter.ndim > 1:
            nn.init.normal_(parameter, std=parameter[0].numel() ** -0.5)


def imagereward(vision: Sizes, text: Sizes) -> Contender:
    from transformers import BlipTextConfig, BlipTextModel, BlipVisionConfig, BlipVisionModel

    eyes = BlipVisionModel(BlipVisionConfig(**vision.config(), image_size=224, layer_norm_eps=1e-6))
    config = BlipTextConfig(**text.config(), encoder_hidden_size=vision.width, is_decoder=True)
    reader = BlipTextModel(config, add_pooling_layer=False)
    layers = head_layers(text.width)
    network = ImageRewardNetwork(eyes, reader, AffineHead.of_layers(layers.state_dict(), "")).eval()
    judge = ImageReward(network, FixedTokens(35, 102), INFO_WITH_PROMPT)  # type: ignore[arg-type]

    def published(pixels: Tensor) -> Tensor:
        ids = torch.zeros(1, 35, dtype=torch.long, device=pixels.device)
        ids[0, :PROMPT_TOKENS] = torch.tensor(judge.tokens.ids([""])[0], device=pixels.device)
        mask = (torch.arange(35, device=pixels.device) < PROMPT_TOKENS).long()[None]
        patches = eyes(pixel_values=pixels).last_hidden_state
        words = reader(input_ids=ids, attention_mask=mask, encoder_hidden_states=patches, is_decoder=False)
        return layers(words.last_hidden_state[:, 0])[:, 0]

    return Contender(judge, published, "any", layers)


def hpsv2(vision: Sizes, text: Sizes) -> Contender:
    from transformers import CLIPConfig, CLIPModel

    common = {"hidden_act": "gelu", "projection_dim": text.width}
    config = CLIPConfig(
        text_config={**text.config(), **common, "vocab_size": 49408, "eos_token_id": 49407},
        vision_config={**vision.config(), **common, "patch_size": 14},
        projection_dim=text.width,
    )
    network = CLIPModel(config).eval()
    judge = HPSv2(network, FixedTokens(77, 49407), INFO_WITH_PROMPT)  # type: ignore[arg-type]

    def published(pixels: Tensor) -> Tensor:
        ids = torch.zeros(1, 77, dtype=torch.long, device=pixels.device)
        ids[0, :PROMPT_TOKENS] = torch.tensor(judge.tokens.ids([""])[0], device=pixels.device)
        picture, prompt = (
            nn.functional.normalize(getattr(found, "pooler_output", found), dim=-1)
            for found in (network.get_image_features(pixel_values=pixels), network.get_text_features(input_ids=ids))
        )
        return (picture * prompt).sum(1)

    return Contender(judge, published, "any", nn.Sequential())


def laion(vision: Sizes, text: Sizes | None) -> Contender:
    from transformers import CLIPVisionConfig, CLIPVisionModelWithProjection

    width = vision.width * 3 // 4
    config = CLIPVisionConfig(**vision.config(), projection_dim=width, patch_size=14, hidden_act="quick_gelu")
    tower, layers = CLIPVisionModelWithProjection(config), head_layers(width)
    head = AffineHead.of_layers(layers.state_dict(), "")
    judge = LaionAesthetic(AestheticNetwork(tower, head, "image_embeds").eval(), INFO)

    def published(pixels: Tensor) -> Tensor:
        return layers(nn.functional.normalize(tower(pixel_values=pixels).image_embeds, dim=-1))[:, 0]

    return Contender(judge, published, None, layers)


def aesthetic_v2_5(vision: Sizes, text: Sizes | None) -> Contender:
    from transformers import SiglipVisionConfig, SiglipVisionModel

    config = SiglipVisionConfig(**vision.config(), image_size=384, patch_size=14)
    tower, layers = SiglipVisionModel(config), head_layers(vision.width)
    head = AffineHead.of_layers(layers.state_dict(), "")
    judge = AestheticV25(AestheticNetwork(tower, head, "pooler_output").eval(), INFO)

    def published(pixels: Tensor) -> Tensor:
        return layers(nn.functional.normalize(tower(pixel_values=pixels).pooler_output, dim=-1))[:, 0]

    return Contender(judge, published, None, layers)


INFO_WITH_PROMPT = ScorerInfo("benchmark", "1", 0, 1, trained_on="", needs_prompt=True)
MAKERS: dict[str, Callable[..., Contender]] = {
    "ImageReward": imagereward,
    "HPSv2.1": hpsv2,
    "LAION aesthetic": laion,
    "aesthetic V2.5": aesthetic_v2_5,
}


def noise() -> list[PIL.Image.Image]:
    generator = torch.Generator().manual_seed(0)
    made = torch.randint(0, 256, (PICTURES, SIDE, SIDE, 3), generator=generator, dtype=torch.uint8)
    return [PIL.Image.fromarray(picture.numpy()) for picture in made]


def compare(name: str, turns: int) -> str:
    """A row: milliseconds a picture of both, and the ratio."""
    torch.manual_seed(0)
    contender, pictures = MAKERS[name](*SMALL[name]), noise()
    with_random_weights(contender.judge.network)
    ours: list[float] = []
    theirs: list[float] = []
    for turn in range(turns + 1):
        started = time.perf_counter()
        scores = contender.judge.score(pictures, contender.prompt, batch_size=PICTURES)
        middle = time.perf_counter()
        with torch.inference_mode():
            found = [float(contender.published(contender.judge.pixels(picture)[None])) for picture in pictures]
        if turn:  # the first warms up
            ours.append(middle - started)
            theirs.append(time.perf_counter() - middle)
    apart = float((scores - torch.tensor(found)).abs().max() / torch.tensor(found).std())
    mine, published = (1000 * statistics.median(times) / PICTURES for times in (ours, theirs))
    ratios = sorted(b / a for a, b in zip(ours, theirs, strict=True))
    return (
        f"| {name} | {published:.1f} | {mine:.1f} | {published / mine:.2f} ({ratios[0]:.2f}–{ratios[-1]:.2f}) "
        f"| {apart:.0e} |"
    )


def true_size(name: str) -> str:
    """A row: operations of a best-of-8 in both flows, parameters."""
    with torch.device("meta"):
        contender = MAKERS[name](*TRUE[name])
    judge, network = contender.judge, contender.judge.network.to("meta")
    contender.layers.to("meta")
    config: Any = network.config.vision_config if isinstance(judge, HPSv2) else getattr(network, "tower", None)
    side = 224 if config is None else getattr(config, "image_size", None) or config.config.image_size
    pixels = torch.zeros(PICTURES, 3, side, side, device="meta")
    published = PICTURES * operations(judge, network, contender.layers, pixels[:1], padded=True)
    total = operations(judge, network, nn.Sequential(), pixels, padded=False)
    parameters = sum(parameter.numel() for parameter in network.parameters())
    return (
        f"| {name} | {parameters / 1e9:.2f} | {4 * parameters / 1e9:.1f} | {published / 1e12:.2f} | {total / 1e12:.2f} "
        f"| {published / total:.2f} |"
    )


def operations(judge: PictureJudge, network: Any, layers: nn.Sequential, pixels: Tensor, *, padded: bool) -> int:
    """Of one call, without the masks of padded tokens, which need real numbers."""
    if isinstance(judge, HPSv2):
        ids = torch.zeros(1, 77 if padded else PROMPT_TOKENS, dtype=torch.long, device="meta")
        return flops(
            lambda: (network.get_text_features(input_ids=ids), network.get_image_features(pixel_values=pixels))
        )
    if isinstance(judge, ImageReward):
        ids = torch.zeros(len(pixels), 35 if padded else PROMPT_TOKENS, dtype=torch.long, device="meta")

        def read() -> None:
            patches = network.vision(pixel_values=pixels).last_hidden_state
            words = network.text(input_ids=ids, encoder_hidden_states=patches, is_decoder=False).last_hidden_state
            layers(words[:, 0])

        return flops(read)
    return flops(
        lambda: (network.tower(pixel_values=pixels), layers(torch.zeros(1, network.head.width, device="meta")))
    )


def flops(run: Callable[[], object]) -> int:
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        run()
    return counter.get_total_flops()


@click.command()
@click.option("--turns", default=7, show_default=True)
@click.option("--threads", default=1, show_default=True)
def main(turns: int, threads: int) -> None:
    torch.set_num_threads(threads)
    print(f"{machine()}\n")
    print(
        f"{threads} thread, {PICTURES} pictures of {SIDE} px and a prompt of {PROMPT_TOKENS} tokens, medians of {turns}"
    )
    print("interleaved turns; networks about a third as wide and a quarter as deep as the published ones.\n")
    print("| judge | published flow, ms a picture | ours, ms | ratio (least–most) | scores apart, of their spread |")
    print("|---|---|---|---|---|")
    for name in MAKERS:
        print(compare(name, turns), flush=True)
    print("\nTrue sizes, on the meta device: eight pictures of one prompt.\n")
    print("| judge | parameters, 1e9 | float32, GB | published flow, TFLOP | ours, TFLOP | ratio |")
    print("|---|---|---|---|---|---|")
    for name in MAKERS:
        print(true_size(name), flush=True)


if __name__ == "__main__":
    main()
