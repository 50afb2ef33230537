"""HPSv2 and HPSv2.1 (Wu et al. 2023, arXiv 2306.09341): which of two pictures of a prompt people prefer.

    score = cos(picture's embedding, prompt's embedding)

An open_clip ViT-H-14 tuned on choices of people. The network is transformers' CLIPModel: there open_clip's joint
projection of query, key and value is three, and its projections are transposed. The picture is padded to a square and
not cropped, and its resize is on floats. The published code loads the weights again at every call; here they stay, and
each prompt is read once.
"""

from __future__ import annotations

import html
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import ftfy
import PIL.Image
import torch
from torch import Tensor
from torch.nn import functional as F

from ...compute.batching import run_in_batches
from ...compute.caller_state import as_loaded
from ...errors import MaAgiqaError
from ..family import Request
from ..scorer import ScorerInfo
from .clip_pixels import padded
from .judge_files import checked_revision, find_weights
from .picture_judge import PictureJudge, place_and_precision
from .prompt_tokens import PromptTokens, check_special_tokens, load_tokenizer
from .published_weights import as_float32, checkpoint_of, filled, read_weights

FILES = ("HPS_v2.1_compressed.pt", "HPS_v2.1_compressed.safetensors", "HPS_v2_compressed.pt", "model.safetensors")
CONFIG = "open_clip_config.json"  # as open_clip publishes its models; HPSv2 itself has none
_TOKENIZER = "laion/CLIP-ViT-H-14-laion2B-s32B-b79K"
_TOKENIZER_FILES = (("tokenizer.json",), ("vocab.json", "merges.txt"))
_HEAD_WIDTH = {"vision": 80, "text": 64}  # of ViT-H-14
_VERSIONS = {"HPS_v2_compressed": "2.0", "HPS_v2.1_compressed": "2.1"}  # by the file's name
_RENAMED = {
    "visual.class_embedding": "vision_model.embeddings.class_embedding",
    "visual.positional_embedding": "vision_model.embeddings.position_embedding.weight",
    "visual.conv1.": "vision_model.embeddings.patch_embedding.",
    "visual.ln_pre.": "vision_model.pre_layrnorm.",
    "visual.ln_post.": "vision_model.post_layernorm.",
    "visual.transformer.resblocks.": "vision_model.encoder.layers.",
    "visual.proj": "visual_projection.weight",
    "token_embedding.": "text_model.embeddings.token_embedding.",
    "positional_embedding": "text_model.embeddings.position_embedding.weight",
    "transformer.resblocks.": "text_model.encoder.layers.",
    "ln_final.": "text_model.final_layer_norm.",
    "text_projection": "text_projection.weight",
}
"""By the start of the name: open_clip's to transformers'."""
_RENAMED_INSIDE = {
    ".ln_1.": ".layer_norm1.",
    ".ln_2.": ".layer_norm2.",
    ".mlp.c_fc.": ".mlp.fc1.",
    ".mlp.c_proj.": ".mlp.fc2.",
    ".attn.out_proj.": ".self_attn.out_proj.",
}
_TRANSPOSED = ("visual.proj", "text_projection")
_JOINT = ".attn.in_proj_"
_PARTS = ("q_proj", "k_proj", "v_proj")


class HPSv2(PictureJudge):
    """The `Scorer`; see `load`."""

    def __init__(self, network: Any, tokens: PromptTokens, info: ScorerInfo) -> None:
        super().__init__(network, info)
        self.tokens, self.size = tokens, int(network.config.vision_config.image_size)

    def pixels(self, picture: PIL.Image.Image) -> Tensor:
        return padded(picture, self.size)

    def read(self, prompts: list[str], batch_size: int | None) -> list[Tensor]:
        """The prompts' embeddings (D,), float32 on the CPU."""
        what = ("hpsv2 prompts", self._dtype)
        return list(run_in_batches(prompts, self._embedded, device=self._device, what=what, batch_size=batch_size))

    def judge(self, pixels: Tensor, prompts: Sequence[Tensor]) -> Tensor:
        pictures = _unit_length(self.network.get_image_features(pixel_values=pixels))  # type: ignore[operator]
        return (pictures * torch.stack(list(prompts)).to(pictures.device)).sum(1)

    def _embedded(self, prompts: Sequence[str]) -> Tensor:
        rows = self.tokens.ids([cleaned(prompt) for prompt in prompts])
        ids = torch.zeros(len(rows), max(map(len, rows)), dtype=torch.long, device="cpu")
        for place, row in enumerate(rows):  # what follows the end of the text is never looked at
            ids[place, : len(row)] = torch.tensor(row, dtype=torch.long, device="cpu")
        return _unit_length(self.network.get_text_features(input_ids=ids.to(self._device))).cpu()  # type: ignore[operator]


@as_loaded()
def load(request: Request) -> HPSv2:
    """Loads HPSv2.1, or HPSv2.0 where only that is found.

    `request.model` is HPS_v2.1_compressed.pt, a .safetensors of it, or a folder or repository with one of them. Beside
    it may lie the tokenizer (tokenizer.json, or vocab.json and merges.txt; else that of
    laion/CLIP-ViT-H-14-laion2B-s32B-b79K), and open_clip_config.json for another network than ViT-H-14.

    Raises:
        FileNotFoundError: A file is not on this machine and cannot be downloaded.
        ValueError: It is another family's checkpoint, damaged, or an option does not apply.
    """
    where, precision = place_and_precision(request, f"'hpsv2:{request.model}'")
    files = find_weights(request, "hpsv2", FILES)
    config = files.config(CONFIG)
    revision = checked_revision(files)
    network = make_network(read_weights(files.weights), files.weights, config.get("model_cfg", config))
    tokenizer = load_tokenizer(
        "CLIPTokenizerFast", (files.folder,), _TOKENIZER_FILES, _TOKENIZER, local_files_only=request.local_files_only
    )
    text = network.config.text_config
    special = {"<|startoftext|>": text.vocab_size - 2, "<|endoftext|>": text.vocab_size - 1}
    check_special_tokens(tokenizer, special, text.vocab_size, str(files.folder))
    version = next((version for name, version in _VERSIONS.items() if files.weights.stem == name), None)
    name = "hpsv2" if version is None else f"hpsv{version}"
    limit = int(text.max_position_embeddings)
    info = ScorerInfo(
        name=name,
        revision=revision,
        low=-1.0,
        high=1.0,
        trained_on="HPDv2: 798 000 choices among generated pictures by people",
        needs_prompt=True,
        targets=("preference",),
        target="preference",
        description="HPSv2: which picture of a prompt people prefer, the cosine of its embedding and the "
        f"prompt's, which is cut at {limit} tokens.",
    )
    return HPSv2(network.to(where, precision), PromptTokens(tokenizer, limit, name), info)


def cleaned(prompt: str) -> str:
    """A prompt as open_clip cleans it: broken encodings mended, HTML's entities and white space made plain."""
    return " ".join(html.unescape(html.unescape(ftfy.fix_text(prompt))).split()).lower()


def make_network(published: Mapping[str, Tensor], source: Path, config: Mapping[str, Any]) -> Any:
    """A CLIPModel of open_clip's table of weights, float32 on the CPU, in eval mode.

    Args:
        published: By open_clip's names.
        source: For messages.
        config: Of open_clip, with vision_cfg and text_cfg; what it does not say is ViT-H-14's.

    Raises:
        ValueError: Other weights than those of an open_clip model with a ViT.
    """
    from transformers import CLIPConfig, CLIPModel

    with checkpoint_of(source, "HPSv2"):
        weights = own_weights(as_float32(published))
        vision, text = _sizes(weights, "vision", config), _sizes(weights, "text", config)
        width = _shape(weights, "visual_projection.weight")[0]
    activation = "quick_gelu" if config.get("quick_gelu") else "gelu"
    common = {"hidden_act": activation, "layer_norm_eps": 1e-5, "projection_dim": width}
    last = text["vocab_size"] - 1
    text |= {"bos_token_id": last - 1, "eos_token_id": last, "pad_token_id": 0}
    own = CLIPConfig(text_config={**text, **common}, vision_config={**vision, **common}, projection_dim=width)
    return filled(lambda: CLIPModel(own), weights, source, "HPSv2")


def own_weights(published: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """open_clip's weights under transformers' names; those that are none of its keep theirs."""
    own: dict[str, Tensor] = {}
    for name, tensor in published.items():
        start = next((start for start in _RENAMED if name.startswith(start)), "")
        new = _RENAMED.get(start, "") + name.removeprefix(start)
        for theirs, ours in _RENAMED_INSIDE.items():
            new = new.replace(theirs, ours)
        if _JOINT in new:
            layer, kind = new.split(_JOINT)
            own |= {
                f"{layer}.self_attn.{part}.{kind}": rows for part, rows in zip(_PARTS, tensor.chunk(3), strict=True)
            }
        else:
            own[new] = tensor.T.contiguous() if name in _TRANSPOSED else tensor
    return own


def _sizes(weights: Mapping[str, Tensor], part: str, config: Mapping[str, Any]) -> dict[str, Any]:
    """Of the vision or text model, as transformers' config says it."""
    start = f"{part}_model."
    places = _shape(weights, f"{start}embeddings.position_embedding.weight")
    layers = [int(name.split(".")[3]) for name in weights if name.startswith(f"{start}encoder.layers.")]
    sizes: dict[str, Any] = {
        "hidden_size": places[1],
        "intermediate_size": _shape(weights, f"{start}encoder.layers.0.mlp.fc1.weight")[0],
        "num_hidden_layers": 1 + max(layers),
        "num_attention_heads": _heads(config.get(f"{part}_cfg", {}), part, places[1]),
    }
    if part == "text":
        words = _shape(weights, f"{start}embeddings.token_embedding.weight")
        return {**sizes, "vocab_size": words[0], "max_position_embeddings": places[0]}
    patch = _shape(weights, f"{start}embeddings.patch_embedding.weight")[3]
    return {**sizes, "patch_size": patch, "image_size": round((places[0] - 1) ** 0.5) * patch}


def _heads(config: Mapping[str, Any], part: str, width: int) -> int:
    heads = config.get("heads", width // config.get("head_width", _HEAD_WIDTH[part]))
    if not isinstance(heads, int) or heads < 1 or width % heads:
        raise MaAgiqaError(f"{heads!r} heads for a width of {width}: put {CONFIG} of its {part}_cfg beside it")
    return heads


def _shape(weights: Mapping[str, Tensor], name: str) -> tuple[int, ...]:
    if name not in weights or weights[name].ndim < 2:
        raise MaAgiqaError(f"no {name}")
    return tuple(weights[name].shape)


def _unit_length(features: Any) -> Tensor:
    """Features (B, D), in transformers 5 inside an output object, as float32, of length 1."""
    embeddings = features if isinstance(features, Tensor) else features.pooler_output
    return F.normalize(embeddings.float(), dim=-1)
