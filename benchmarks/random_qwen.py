"""Qwen vision-language models with random weights, and a processor with as many tokens a word as real ones about have.

Sizes: those of the parity fixtures; a larger scale with the proportions of the published models (share of vision and of
the LM head); and the published ones, from the models' cards, on the meta device.
"""

from __future__ import annotations

import re
from typing import Any

import torch

SPECIAL = ("<|vision_start|>", "<|vision_end|>", "<|image_pad|>", "<|video_pad|>", "<|im_start|>", "<|im_end|>")
_PIECES = re.compile(r" ?\w+|[^\w\s]|\s")
CHAT = (
    "{% for message in messages %}<|im_start|>SYSTEM<|im_end|>\n<|im_start|>{{ message['role'] }}\n"
    "{% for part in message['content'] %}{% if part['type'] == 'image' %}<|vision_start|><|image_pad|><|vision_end|>"
    "{% else %}{{ part['text'] }}{% endif %}{% endfor %}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
SYSTEM = "system\nYou are a helpful assistant."

# width, layers, heads, key heads, MLP, vocabulary; then of vision width, layers, heads, MLP
SIZES = {
    ("qwen2_5_vl", "fixture"): ((64, 3, 4, 2, 112, 288), (32, 3, 4, 64)),
    ("qwen2_5_vl", "reduced"): ((256, 6, 4, 2, 704, 1450), (96, 6, 4, 264)),
    ("qwen2_5_vl", "true"): ((3584, 28, 28, 4, 18944, 152064), (1280, 32, 16, 3420)),
    ("qwen2_vl", "fixture"): ((64, 3, 4, 2, 112, 288), (32, 2, 4, 64)),
    ("qwen2_vl", "reduced"): ((256, 6, 4, 2, 704, 1450), (96, 6, 4, 384)),
    ("qwen2_vl", "true"): ((3584, 28, 28, 4, 18944, 151658), (1280, 32, 16, 5120)),
    ("qwen3_5", "fixture"): ((64, 4, 2, 1, 112, 288), (32, 2, 4, 64)),
    ("qwen3_5", "reduced"): ((256, 8, 4, 2, 704, 8600), (96, 4, 4, 384)),
    ("qwen3_5", "true"): ((1024, 24, 8, 2, 3584, 248320), (768, 12, 12, 3072)),
}


def random_qwen(kind: str, scale: str, tokenizer: Any | None) -> Any:
    """A model with random weights in eval mode; without a tokenizer on the meta device."""
    import transformers

    names = {"qwen2_5_vl": "Qwen2_5_VL", "qwen2_vl": "Qwen2VL", "qwen3_5": "Qwen3_5"}
    model_class = getattr(transformers, f"{names[kind]}ForConditionalGeneration")
    config = _config(getattr(transformers, f"{names[kind]}Config"), kind, scale, tokenizer)
    if tokenizer is None:
        with torch.device("meta"):
            return model_class(config)
    torch.manual_seed(0)
    model = model_class(config).eval().requires_grad_(False)
    for parameter in model.parameters():
        if parameter.ndim > 1:
            parameter.normal_(0, parameter[0].numel() ** -0.5)
    return model


def _config(config_class: Any, kind: str, scale: str, tokenizer: Any | None) -> Any:
    (width, layers, heads, key_heads, mlp, vocabulary), (v_width, v_layers, v_heads, v_mlp) = SIZES[kind, scale]
    vocabulary = vocabulary if tokenizer is None else max(vocabulary, len(tokenizer))
    head_width = max(width // heads, 32) if kind == "qwen3_5" else width // heads
    pairs = head_width // 2
    sections = [pairs - 2 * (3 * pairs // 8), 3 * pairs // 8, 3 * pairs // 8]
    text: dict[str, Any] = {
        "hidden_size": width,
        "intermediate_size": mlp,
        "num_hidden_layers": layers,
        "num_attention_heads": heads,
        "num_key_value_heads": key_heads,
        "vocab_size": vocabulary,
        "max_position_embeddings": 32768,
        "rope_parameters": {"rope_type": "default", "rope_theta": 1e6, "mrope_section": sections},
    }
    vision: dict[str, Any] = {
        "depth": v_layers,
        "num_heads": v_heads,
        "spatial_merge_size": 2,
        "temporal_patch_size": 2,
    }
    if kind == "qwen2_vl":
        vision |= {"embed_dim": v_width, "hidden_size": width, "mlp_ratio": v_mlp // v_width, "patch_size": 14}
    else:
        vision |= {"hidden_size": v_width, "intermediate_size": v_mlp, "out_hidden_size": width, "patch_size": 14}
    if kind == "qwen2_5_vl":
        vision |= {"window_size": 112, "fullatt_block_indexes": [v_layers - 1]}
    if kind == "qwen3_5":
        vision |= {"patch_size": 16, "num_position_embeddings": 2304}
        rotated = head_width // 8
        sections = [rotated - 2 * (rotated // 3), rotated // 3, rotated // 3]
        rope = text["rope_parameters"] | {"partial_rotary_factor": 0.25, "mrope_section": sections}
        key_width = 16 if scale == "fixture" else 64 if scale == "reduced" else 128
        text |= {
            "head_dim": head_width,
            "layer_types": ["full_attention" if n % 4 == 3 else "linear_attention" for n in range(layers)],
            "linear_key_head_dim": key_width,
            "linear_value_head_dim": key_width,
            "linear_num_key_heads": 2 if scale == "fixture" else width // key_width * 2,
            "linear_num_value_heads": 4 if scale == "fixture" else width // key_width * 2,
            "rope_parameters": rope | {"mrope_interleaved": True},
        }
    special = {} if tokenizer is None else _special_ids(tokenizer)
    is_tied = (kind, scale) == ("qwen3_5", "true")  # or it would have 1.1 billion weights, not 0.8
    text["tie_word_embeddings"] = is_tied
    return config_class(text_config=text, vision_config=vision, tie_word_embeddings=is_tied, **special)


def _special_ids(tokenizer: Any) -> dict[str, int]:
    names = ("vision_start_token_id", "vision_end_token_id", "image_token_id", "video_token_id")
    return {name: tokenizer.convert_tokens_to_ids(token) for name, token in zip(names, SPECIAL, strict=False)}


def word_tokenizer(texts: list[str]) -> Any:
    """One token for each word or sign of the texts, about as many as a real tokenizer makes."""
    import transformers
    from tokenizers import Regex, Tokenizer, models, pre_tokenizers

    pieces = dict.fromkeys(piece for text in texts for piece in _PIECES.findall(text))
    vocabulary = {token: number for number, token in enumerate(["<unk>", *pieces])}
    tokenizer = Tokenizer(models.WordLevel(vocabulary, unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.Split(Regex(_PIECES.pattern), "isolated")
    tokenizer.add_special_tokens(list(SPECIAL))
    return transformers.PreTrainedTokenizerFast(tokenizer_object=tokenizer, unk_token="<unk>", pad_token="<unk>")


def processor(kind: str, tokenizer: Any) -> Any:
    """With the published limits of a picture's size."""
    import transformers

    patch = 16 if kind == "qwen3_5" else 14
    size = {"shortest_edge": 65536 if kind == "qwen3_5" else 3136, "longest_edge": 12845056}
    images = transformers.Qwen2VLImageProcessor(patch_size=patch, size=size)
    name = "Qwen3VL" if kind == "qwen3_5" else "Qwen2_5_VL" if kind == "qwen2_5_vl" else "Qwen2VL"
    videos = transformers.Qwen3VLVideoProcessor() if kind == "qwen3_5" else transformers.Qwen2VLVideoProcessor()
    template = CHAT.replace(
        "<|im_start|>SYSTEM<|im_end|>\n", "" if kind == "qwen3_5" else f"<|im_start|>{SYSTEM}<|im_end|>\n"
    )
    return getattr(transformers, f"{name}Processor")(images, tokenizer, videos, chat_template=template)
