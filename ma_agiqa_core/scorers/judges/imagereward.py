"""ImageReward (Xu et al. 2023, arXiv 2304.05977): what people like, and whether it is what the prompt asks for.

    score = (head(h) - 0.1672) / 1.0333,  h the text encoder's first token, which looks at the picture in every layer

BLIP-large: a ViT-L/16 sees the picture at 224 pixels, a BERT of 12 layers reads the prompt with cross-attention to it.
Both are transformers' BLIP; names differ, and the layer norms of the ViT have an epsilon of 1e-6. The head's five
linear layers are one affine map. The first token stays [CLS]: the published code never puts BLIP's [ENC] there.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import PIL.Image
import torch
from torch import Tensor

from ...compute.caller_state import as_loaded
from ...errors import MaAgiqaError
from ..family import Request
from ..scorer import ScorerInfo
from .affine_head import AffineHead
from .clip_pixels import centre_crop
from .judge_files import checked_revision, find_weights
from .picture_judge import PictureJudge, place_and_precision
from .prompt_tokens import PromptTokens, check_special_tokens, load_tokenizer
from .published_weights import as_float32, checkpoint_of, filled, read_weights

FILES = ("ImageReward.pt", "ImageReward.safetensors", "model.safetensors")
LIMIT = 35  # tokens
SCORE_MEAN, SCORE_STD = 0.16717362830052426, 1.0333394966054072  # of the head's values, by the published code
_MARKS = 2  # tokens that BLIP adds to BERT's vocabulary: [DEC] and [ENC], which are never fed
_SPECIAL_TOKENS = {"[PAD]": 0, "[CLS]": 101, "[SEP]": 102}  # of bert-base-uncased
_TOKENIZER = "google-bert/bert-base-uncased"
_TOKENIZER_FILES = (("vocab.txt",), ("tokenizer.json",))
_HEAD_WIDTH = 64  # of BERT's attention and of the ViT's, where no config says otherwise
_UNUSED = ("blip.vision_proj.", "blip.text_proj.", "blip.text_encoder.embeddings.position_ids")
"""Layers that scoring never reaches, and a count."""
_HEAD = "mlp.layers."
_RENAMED = {
    "blip.visual_encoder.cls_token": "vision.embeddings.class_embedding",
    "blip.visual_encoder.pos_embed": "vision.embeddings.position_embedding",
    "blip.visual_encoder.patch_embed.proj.": "vision.embeddings.patch_embedding.",
    "blip.visual_encoder.blocks.": "vision.encoder.layers.",
    "blip.visual_encoder.norm.": "vision.post_layernorm.",
    "blip.text_encoder.": "text.",
}
"""By the start of the name."""
_RENAMED_INSIDE = {
    ".norm1.": ".layer_norm1.",
    ".norm2.": ".layer_norm2.",
    ".attn.qkv.": ".self_attn.qkv.",
    ".attn.proj.": ".self_attn.projection.",
}
"""Further on in the names of the vision encoder."""


class ImageRewardNetwork(torch.nn.Module):
    """BLIP's two encoders and the head.

    Args:
        vision: A `BlipVisionModel`.
        text: A `BlipTextModel` with cross-attention.
        head: From its width to a score.
    """

    def __init__(self, vision: torch.nn.Module, text: torch.nn.Module, head: AffineHead) -> None:
        super().__init__()
        self.vision, self.text, self.head = vision, text, head

    def forward(self, pixels: Tensor, ids: Tensor, mask: Tensor) -> Tensor:
        """Scores (B,) of pixels (B, 3, S, S) and prompts: `ids` (B, L), 0 in `mask` (B, L) where they are padded."""
        patches = self.vision(pixel_values=pixels).last_hidden_state
        words = self.text(
            input_ids=ids, attention_mask=mask, encoder_hidden_states=patches, is_decoder=False
        ).last_hidden_state
        return self.head(words[:, 0])


class ImageReward(PictureJudge):
    """The `Scorer`; see `load`."""

    network: ImageRewardNetwork

    def __init__(self, network: ImageRewardNetwork, tokens: PromptTokens, info: ScorerInfo) -> None:
        super().__init__(network, info)
        self.tokens, self.size = tokens, int(network.vision.config.image_size)  # type: ignore[union-attr,arg-type]

    def pixels(self, picture: PIL.Image.Image) -> Tensor:
        return centre_crop(picture, self.size)

    def read(self, prompts: list[str], batch_size: int | None) -> list[list[int]]:
        return self.tokens.ids(prompts)

    def judge(self, pixels: Tensor, prompts: Sequence[list[int]]) -> Tensor:
        longest = max(map(len, prompts))  # the published code pads to 35, and its mask hides what is padded
        ids = torch.zeros(len(prompts), longest, dtype=torch.long, device="cpu")
        mask = torch.zeros_like(ids)
        for row, prompt in enumerate(prompts):
            ids[row, : len(prompt)] = torch.tensor(prompt, dtype=torch.long, device="cpu")
            mask[row, : len(prompt)] = 1
        return self.network(pixels, ids.to(pixels.device), mask.to(pixels.device))


@as_loaded()
def load(request: Request) -> ImageReward:
    """Loads ImageReward.

    `request.model` is ImageReward.pt, the same table as .safetensors, or a folder or repository with one of them.
    Beside it may lie med_config.json (else BLIP's), BERT's vocab.txt or tokenizer.json (else that of
    google-bert/bert-base-uncased), and config.json with {"vision_config": {"num_attention_heads": N}} for a ViT whose
    heads are not 64 wide.

    Raises:
        FileNotFoundError: A file is not on this machine and cannot be downloaded.
        ValueError: It is another family's checkpoint, damaged, or an option does not apply.
    """
    where, precision = place_and_precision(request, f"'imagereward:{request.model}'")
    files = find_weights(request, "imagereward", FILES)
    revision = checked_revision(files)
    vision_config = files.config("config.json").get("vision_config")
    network = make_network(
        read_weights(files.weights),
        files.weights,
        files.config("med_config.json"),
        vision_config if isinstance(vision_config, dict) else {},
    )
    tokenizer = load_tokenizer(
        "BertTokenizerFast",
        (files.folder, files.folder / "bert-base-uncased"),
        _TOKENIZER_FILES,
        _TOKENIZER,
        local_files_only=request.local_files_only,
    )
    rows = len(network.text.embeddings.word_embeddings.weight)  # type: ignore[union-attr,arg-type]
    check_special_tokens(tokenizer, _SPECIAL_TOKENS, rows - _MARKS, str(files.folder))
    network.vision.to(where, precision)
    network.text.to(where, precision)
    network.head.to(where)
    info = ScorerInfo(
        name="imagereward",
        revision=revision,
        low=-math.inf,
        high=math.inf,
        trained_on="ImageRewardDB: 137 000 comparisons of generated pictures by people",
        needs_prompt=True,
        targets=("preference",),
        target="preference",
        description="ImageReward: what people like, and whether it fits its prompt, which is cut at "
        f"{LIMIT} tokens; 0 is the average of its training pictures, 1 a standard deviation above it.",
    )
    return ImageReward(network, PromptTokens(tokenizer, LIMIT, "imagereward"), info)


def make_network(
    published: Mapping[str, Tensor], source: Path, config: Mapping[str, Any], vision_config: Mapping[str, Any]
) -> ImageRewardNetwork:
    """The network of a published table of weights, float32 on the CPU, in eval mode.

    Args:
        published: By their published names.
        source: For messages.
        config: Of the text encoder, as in med_config.json; what it does not say is BLIP's.
        vision_config: Of the ViT: "num_attention_heads".

    Raises:
        ValueError: Other weights than ImageReward's.
    """
    from transformers import BlipTextConfig, BlipTextModel, BlipVisionConfig, BlipVisionModel

    weights = {
        own_name(name): tensor
        for name, tensor in as_float32(published).items()
        if not name.startswith((*_UNUSED, _HEAD))
    }
    with checkpoint_of(source, "ImageReward"):
        head = AffineHead.of_layers(as_float32(published), _HEAD, shift=SCORE_MEAN, scale=SCORE_STD)
        vision = {**_vision_sizes(weights), "hidden_act": "gelu", "layer_norm_eps": 1e-6}
        vision["num_attention_heads"] = _heads(vision_config, vision["hidden_size"], "config.json, vision_config")
        text = {**_text_sizes(weights), "hidden_act": config.get("hidden_act", "gelu")}
        text["layer_norm_eps"] = float(config.get("layer_norm_eps", 1e-12))
        text["num_attention_heads"] = _heads(config, text["hidden_size"], "med_config.json")
        text["encoder_hidden_size"] = vision["hidden_size"]
        if head.width != text["hidden_size"]:
            raise MaAgiqaError(f"a head of {head.width} features for {text['hidden_size']}")

    def make() -> ImageRewardNetwork:
        eyes = BlipVisionModel(BlipVisionConfig(**vision))
        reader = BlipTextModel(BlipTextConfig(**text, is_decoder=True), add_pooling_layer=False)
        return ImageRewardNetwork(eyes, reader, head)

    return filled(make, {**weights, "head.weight": head.weight, "head.bias": head.bias}, source, "ImageReward")


def own_name(published: str) -> str:
    """The name in `ImageRewardNetwork` of a published weight; the same if it is none of ImageReward's."""
    start = next((start for start in _RENAMED if published.startswith(start)), "")
    own = _RENAMED.get(start, "") + published.removeprefix(start)
    if own.startswith("vision."):
        for theirs, ours in _RENAMED_INSIDE.items():
            own = own.replace(theirs, ours)
    return own


def _vision_sizes(weights: Mapping[str, Tensor]) -> dict[str, Any]:
    patches = _shape(weights, "vision.embeddings.patch_embedding.weight", 4)
    places = _shape(weights, "vision.embeddings.position_embedding", 3)[1] - 1
    return {
        "hidden_size": patches[0],
        "intermediate_size": _shape(weights, "vision.encoder.layers.0.mlp.fc1.weight", 2)[0],
        "num_hidden_layers": _layers(weights, "vision.encoder.layers."),
        "patch_size": patches[3],
        "image_size": round(places**0.5) * patches[3],
    }


def _text_sizes(weights: Mapping[str, Tensor]) -> dict[str, Any]:
    words = _shape(weights, "text.embeddings.word_embeddings.weight", 2)
    return {
        "vocab_size": words[0],
        "hidden_size": words[1],
        "intermediate_size": _shape(weights, "text.encoder.layer.0.intermediate.dense.weight", 2)[0],
        "num_hidden_layers": _layers(weights, "text.encoder.layer."),
        "max_position_embeddings": _shape(weights, "text.embeddings.position_embeddings.weight", 2)[0],
    }


def _shape(weights: Mapping[str, Tensor], name: str, rank: int) -> tuple[int, ...]:
    if name not in weights or weights[name].ndim != rank:
        raise MaAgiqaError(f"no {name} of rank {rank}")
    return tuple(weights[name].shape)


def _layers(weights: Mapping[str, Tensor], prefix: str) -> int:
    return 1 + max(int(name.removeprefix(prefix).split(".")[0]) for name in weights if name.startswith(prefix))


def _heads(config: Mapping[str, Any], width: int, where: str) -> int:
    heads = config.get("num_attention_heads", width // _HEAD_WIDTH)
    if not isinstance(heads, int) or heads < 1 or width % heads:
        raise MaAgiqaError(f"{heads!r} heads for a width of {width}: write num_attention_heads into {where}")
    return heads
