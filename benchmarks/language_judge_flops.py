"""FLOPs and memory of the vision-language judges at true size, counted from the shapes of models on the meta device.

A multiply-add counts 2. Counted are the linear layers, for every token that goes through them, and attention; norms,
convolutions of a few taps and the gated delta rule's own products are not.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from ma_agiqa_core.semantic.mplug_owl2 import MplugOwl2
from ma_agiqa_core.semantic.placement import module_bytes

from .random_qwen import random_qwen
from .semantic import TRUE as TRUE_OWL


@dataclass(frozen=True)
class Sizes:
    """What one picture costs.

    Attributes:
        vision: FLOPs of the picture's encoder.
        token: FLOPs of a token in all language layers, attention apart.
        attention: FLOPs of one query looking at one key, in all layers.
        head: FLOPs of the whole head at one position.
        last: FLOPs of a token in what ours leaves out of the last layer, wherever nothing is read.
    """

    vision: float
    token: float
    attention: float
    head: float
    last: float = 0.0

    def tokens(self, count: int, before: int = 0) -> float:
        """FLOPs of so many tokens behind `before` others."""
        return count * self.token + self.attention * (count * before + count * (count + 1) / 2)


@dataclass(frozen=True)
class Prompt:
    """Tokens of a prompt at a picture of 1024 × 1024 pixels (mPLUG-Owl2: 448; HPSv3: about 448).

    Attributes:
        before: Of text before the picture.
        picture: Of the picture.
        shared: Of text after it that all questions share.
        own: Of the rest up to where the answer is read.
        behind: After that, which only the published flow computes.
    """

    before: int
    picture: int
    shared: int
    own: int
    behind: int = 0

    @property
    def whole(self) -> int:
        return self.before + self.picture + self.shared + self.own + self.behind


def flops_table(batch: int) -> str:
    """Per score; ours at a batch, with what is computed once per run left out."""
    lines = [
        "\n### FLOPs at true size\n",
        "| judge | questions a picture | published, TFLOP per score | ours | times fewer |",
        "|---|---|---|---|---|",
    ]
    owl = _owl_sizes()
    judges: list[tuple[str, Sizes, Prompt, bool, int]] = [
        ("DeQA-Score, Q-Align", owl, Prompt(15, 65, 0, 12), True, 5),
        ("Q-ReAlign-Mini", _qwen_sizes("qwen3_5", 1024), Prompt(4, 1024, 0, 24), False, 5),
        ("VQAScore by Qwen2.5-VL-7B", _qwen_sizes("qwen2_5_vl", 1036), Prompt(15, 1369, 5, 25), False, 0),
        ("HPSv3", _qwen_sizes("qwen2_vl", 448, head=False), Prompt(15, 256, 505, 45, 11), False, 0),
    ]
    for name, sizes, prompt, keeps_before, rows in judges:
        for questions in (1, 2):
            if name.startswith("DeQA"):
                published, ours = _owl(sizes, prompt, questions)
            else:
                published = sizes.vision + sizes.tokens(prompt.whole) + prompt.whole * sizes.head
                ours = _ours(sizes, prompt, questions, keeps_before, rows)
            lines.append(
                f"| {name} | {questions} | {published / 1e12:.2f} | {ours / 1e12:.2f} | {published / ours:.2f} |"
            )
    return "\n".join(lines)


def _ours(sizes: Sizes, prompt: Prompt, questions: int, keeps_before: bool, rows: int) -> float:
    """FLOPs per score where so many questions are asked of a picture."""
    start = prompt.before if keeps_before else 0
    together = prompt.picture + (prompt.shared if questions > 1 else 0) + (0 if keeps_before else prompt.before)
    own = prompt.own + (prompt.shared if questions == 1 else 0)
    head = sizes.head if rows == 0 else sizes.head * rows / 248320
    shared = sizes.vision + sizes.tokens(together, start)
    left_out = sizes.last * (together / questions + own - 1)
    return shared / questions + sizes.tokens(own, start + together) - left_out + head


def _owl(sizes: Sizes, prompt: Prompt, questions: int) -> tuple[float, float]:
    """mPLUG-Owl2's questions differ before the picture: only the picture's encoder is shared; its last layer is cut."""
    published = sizes.vision + sizes.tokens(prompt.whole) + prompt.whole * sizes.head
    layers = TRUE_OWL["num_hidden_layers"]
    asked = prompt.picture + prompt.own
    last = 1 - (1 / layers) * 0.8  # keys and values are about a fifth of a layer
    return published, sizes.vision / questions + sizes.tokens(asked, prompt.before) * last


def _owl_sizes() -> Sizes:
    owl = MplugOwl2.empty(TRUE_OWL)
    width, layers = TRUE_OWL["hidden_size"], TRUE_OWL["num_hidden_layers"]
    token = 2 * sum(_one_way(name, layer) for name, layer in _linears(owl.layers))
    seen = owl.config.vision
    patches = seen.grid_size**2 + 1
    vision = 2 * patches * sum(layer.weight.numel() for _, layer in _linears(owl.vision_model))
    vision += 4 * patches**2 * seen.hidden_size * seen.num_hidden_layers
    queries = owl.config.abstractor.num_learnable_queries
    vision += 2 * (patches + queries) * sum(layer.weight.numel() for _, layer in _linears(owl.visual_abstractor))
    return Sizes(vision, token, 4 * width * layers, 2 * TRUE_OWL["vocab_size"] * width)


def _one_way(name: str, layer: nn.Linear) -> int:
    """A token goes through one of the two ways."""
    return layer.weight.numel() // (2 if ".multiway." in f".{name}" else 1)


def _qwen_sizes(kind: str, side: int, *, head: bool = True) -> Sizes:
    model = random_qwen(kind, "true", None)
    text = model.config.get_text_config()
    language, vision = model.model.language_model, model.model.visual
    token = 2 * sum(layer.weight.numel() for _, layer in _linears(language))
    attending = sum(kind == "full_attention" for kind in getattr(text, "layer_types", ["full_attention"]))
    width = text.num_attention_heads * (getattr(text, "head_dim", None) or text.hidden_size // text.num_attention_heads)
    seen = model.config.vision_config
    patches = (side // seen.patch_size) ** 2
    blocks = sum(layer.weight.numel() for name, layer in _linears(vision) if "merger" not in name)
    merger = sum(layer.weight.numel() for name, layer in _linears(vision) if "merger" in name)
    vision_width = getattr(seen, "embed_dim", None) or seen.hidden_size
    window = (getattr(seen, "window_size", 0) or side) // seen.patch_size
    full = len(getattr(seen, "fullatt_block_indexes", None) or range(seen.depth))
    keys = full * patches + (seen.depth - full) * window**2
    flops = 2 * patches * blocks + 2 * patches / 4 * merger + 4 * patches * keys * vision_width
    last = 2 * sum(layer.weight.numel() for _, layer in _linears(language.layers[-1].mlp))
    return Sizes(flops, token, 4 * width * attending, 2 * text.vocab_size * text.hidden_size if head else 0.0, last)


def _linears(module: nn.Module) -> list[tuple[str, nn.Linear]]:
    return [(name, layer) for name, layer in module.named_modules() if isinstance(layer, nn.Linear)]


def weights_table() -> str:
    """What the true sizes take in memory."""
    models: dict[str, Any] = {
        "DeQA-Score, Q-Align": MplugOwl2.empty(TRUE_OWL),
        "Q-ReAlign-Mini": random_qwen("qwen3_5", "true", None),
        "VQAScore by Qwen2.5-VL-7B": random_qwen("qwen2_5_vl", "true", None),
        "HPSv3": random_qwen("qwen2_vl", "true", None),
    }
    lines = ["\n### Weights in memory, GB\n", "| judge | float32 | bfloat16 | int8 | nf4 |", "|---|---|---|---|---|"]
    for name, model in models.items():
        outside = [part for part, _ in model.named_children() if part not in ("layers", "model")]
        outside += ["model.visual", "lm_head"] if hasattr(model, "model") else []
        sizes = [module_bytes(model, torch.float32), module_bytes(model, torch.bfloat16)]
        sizes += [module_bytes(model, torch.bfloat16, quantization, outside) for quantization in ("int8", "nf4")]
        lines.append(f"| {name} | {' | '.join(f'{size / 1e9:.1f}' for size in sizes)} |")
    return "\n".join(lines)
