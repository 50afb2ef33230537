"""Folders of tiny random image-text-to-text models, one for each family, as they are on the Hub: no downloads."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers
from packaging.version import Version
from tokenizers import Tokenizer, decoders, models, pre_tokenizers

IS_V5 = Version(transformers.__version__) >= Version("5")
PICTURE_TOKENS = {
    "gemma3": "<start_of_image>",
    "internvl": "<IMG_CONTEXT>\n",
    "llava_onevision": "<image>\n",
    "mistral3": "[IMG]",
    "qwen": "<|vision_start|><|image_pad|><|vision_end|>",
    "smolvlm": "<image>",
}
CHAT = (
    "{{% for message in messages %}}{start}{{{{ message['role'] }}}}\n{{% for part in message['content'] %}}"
    "{{% if part['type'] == 'image' %}}{picture}{{% else %}}{{{{ part['text'] }}}}{{% endif %}}{{% endfor %}}{end}\n"
    "{{% endfor %}}{{% if add_generation_prompt %}}{start}assistant\n{{% endif %}}"
)
TEXT = {
    "hidden_size": 64,
    "intermediate_size": 128,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "vocab_size": 320,
    "max_position_embeddings": 2048,
    "pad_token_id": 0,
    "bos_token_id": 1,
    "eos_token_id": 2,
}


def needed(name: str) -> None:
    """Skips a test of a family that the oldest transformers does not have."""
    if not hasattr(transformers, name):
        pytest.skip(f"transformers {transformers.__version__} has no {name}")


def save_qwen2_5_vl(folder: Path) -> None:
    _save_qwen(folder, "Qwen2_5_VL", "Qwen2_5_VL")


def save_qwen2_vl(folder: Path) -> None:
    _save_qwen(folder, "Qwen2VL", "Qwen2VL")


def save_qwen3_vl(folder: Path) -> None:
    _save_qwen(folder, "Qwen3VL", "Qwen3VL")


def save_internvl(folder: Path) -> None:
    picture = {"start_image_token": "<img>", "end_image_token": "</img>", "context_image_token": "<IMG_CONTEXT>"}
    tokenizer = _tokenizer({**picture, "video_token": "<video>"})
    image_processor = _new(
        "GotOcr2ImageProcessor", size={"height": 28, "width": 28}, crop_to_patches=True, min_patches=1, max_patches=4
    )
    processor = transformers.InternVLProcessor(
        image_processor,
        tokenizer,
        transformers.InternVLVideoProcessor(),
        image_seq_length=4,
        chat_template=_chat("internvl"),
    )
    config = transformers.InternVLConfig(
        vision_config={
            "hidden_size": 32,
            "intermediate_size": 48,
            "num_hidden_layers": 2,
            "num_attention_heads": 4,
            "image_size": (28, 28),
            "patch_size": (7, 7),
        },
        text_config={"model_type": "qwen2", **TEXT},
        image_token_id=_id(tokenizer, "<IMG_CONTEXT>"),
        image_seq_length=4,
        tie_word_embeddings=False,
    )
    _save(folder, transformers.InternVLForConditionalGeneration, config, processor)


def save_llava_onevision(folder: Path) -> None:
    tokenizer = _tokenizer({"image_token": "<image>", "video_token": "<video>"})
    pinpoints = [[28, 28], [28, 56], [56, 28], [56, 56]]
    image_processor = _new(
        "LlavaOnevisionImageProcessor", size={"height": 28, "width": 28}, image_grid_pinpoints=pinpoints
    )
    processor = transformers.LlavaOnevisionProcessor(
        image_processor,
        tokenizer,
        transformers.LlavaOnevisionVideoProcessor(),
        num_image_tokens=16,
        vision_feature_select_strategy="full",
        chat_template=_chat("llava_onevision"),
    )
    config = transformers.LlavaOnevisionConfig(
        vision_config=_siglip(),
        text_config={"model_type": "qwen2", **TEXT},
        image_token_index=_id(tokenizer, "<image>"),
        video_token_index=_id(tokenizer, "<video>"),
        image_grid_pinpoints=pinpoints,
    )
    _save(folder, transformers.LlavaOnevisionForConditionalGeneration, config, processor)


def save_idefics3(folder: Path) -> None:
    _save_tiled(folder, "Idefics3")


def save_smolvlm(folder: Path) -> None:
    _save_tiled(folder, "SmolVLM")


def _save_tiled(folder: Path, family: str) -> None:
    rows = [f"<row_{row}_col_{column}>" for row in range(1, 5) for column in range(1, 5)]
    tokenizer = _tokenizer(
        {
            "image_token": "<image>",
            "fake_image_token": "<fake_token_around_image>",
            "global_image_token": "<global-img>",
            "end_of_utterance_token": "<end_of_utterance>",
        },
        *rows,
    )
    options: dict[str, Any] = {"size": {"longest_edge": 84}, "max_image_size": {"longest_edge": 28}}
    if family == "SmolVLM" and not _has_video(family):
        options["video_sampling"] = {"fps": 1, "max_frames": 8, "video_size": {"longest_edge": 28}}
    image_processor = _new(f"{family}ImageProcessor", **options, do_image_splitting=True)
    parts = [image_processor, tokenizer, *_video(family)]
    processor = getattr(transformers, f"{family}Processor")(*parts, image_seq_len=4, chat_template=_chat("smolvlm"))
    vision = {**_siglip(), "image_size": 28}
    del vision["model_type"]
    config = getattr(transformers, f"{family}Config")(
        vision_config=vision,
        text_config={"model_type": "llama", **TEXT},
        image_token_id=_id(tokenizer, "<image>"),
        scale_factor=2,
        pad_token_id=0,
    )
    _save(folder, getattr(transformers, f"{family}ForConditionalGeneration"), config, processor)


def save_gemma3(folder: Path) -> None:
    picture = {"boi_token": "<start_of_image>", "eoi_token": "<end_of_image>", "image_token": "<image_soft_token>"}
    tokenizer = _tokenizer(picture)
    image_processor = _new("Gemma3ImageProcessor", size={"height": 28, "width": 28})
    processor = transformers.Gemma3Processor(
        image_processor, tokenizer, chat_template="<bos>" + _chat("gemma3"), image_seq_length=4
    )
    config = transformers.Gemma3Config(
        vision_config=_siglip(),
        text_config={**TEXT, "head_dim": 16, "query_pre_attn_scalar": 16, "sliding_window": 12, "num_hidden_layers": 7},
        mm_tokens_per_image=4,
        boi_token_index=_id(tokenizer, "<start_of_image>"),
        eoi_token_index=_id(tokenizer, "<end_of_image>"),
        image_token_index=_id(tokenizer, "<image_soft_token>"),
    )
    _save(folder, transformers.Gemma3ForConditionalGeneration, config, processor)


def save_mistral3(folder: Path) -> None:
    """FLUX.2's text encoder, Mistral Small 3, with Pixtral's eyes."""
    breaks = {"image_token": "[IMG]", "image_break_token": "[IMG_BREAK]", "image_end_token": "[IMG_END]"}
    tokenizer = _tokenizer({}, *breaks.values())
    image_processor = _new("PixtralImageProcessor", size={"longest_edge": 56}, patch_size={"height": 14, "width": 14})
    processor = transformers.PixtralProcessor(
        image_processor, tokenizer, patch_size=14, spatial_merge_size=2, chat_template=_chat("mistral3"), **breaks
    )
    config = transformers.Mistral3Config(
        vision_config={
            "model_type": "pixtral",
            "hidden_size": 32,
            "intermediate_size": 48,
            "num_hidden_layers": 2,
            "num_attention_heads": 2,
            "head_dim": 16,
            "image_size": 56,
            "patch_size": 14,
        },
        text_config={"model_type": "mistral", **TEXT, "head_dim": 16, "sliding_window": None},
        image_token_index=_id(tokenizer, "[IMG]"),
        spatial_merge_size=2,
        vision_feature_layer=-1,
    )
    _save(folder, transformers.Mistral3ForConditionalGeneration, config, processor)


FAMILIES: dict[str, tuple[str, Callable[[Path], None]]] = {
    "gemma3": ("Gemma3ForConditionalGeneration", save_gemma3),
    "idefics3": ("Idefics3ForConditionalGeneration", save_idefics3),
    "internvl": ("InternVLForConditionalGeneration", save_internvl),
    "llava_onevision": ("LlavaOnevisionForConditionalGeneration", save_llava_onevision),
    "qwen2_5_vl": ("Qwen2_5_VLForConditionalGeneration", save_qwen2_5_vl),
    "qwen2_vl": ("Qwen2VLForConditionalGeneration", save_qwen2_vl),
    "qwen3_vl": ("Qwen3VLForConditionalGeneration", save_qwen3_vl),
    "smolvlm": ("SmolVLMForConditionalGeneration", save_smolvlm),
}
"""By `model_type`: the class that transformers must have, and what saves a tiny one."""


def _save_qwen(folder: Path, model: str, processor: str) -> None:
    needed(f"{model}Config")
    tokens = ("<|image_pad|>", "<|video_pad|>", "<|vision_start|>", "<|vision_end|>")
    tokenizer = _tokenizer({}, *tokens)
    is_third = model == "Qwen3VL"
    sizes = {"min_pixels": 28 * 28, "max_pixels": 84 * 84, "patch_size": 14, "merge_size": 2}
    image_processor = _new("Qwen2VLImageProcessor", **sizes)
    parts = [image_processor, tokenizer, *_video("Qwen3VL" if is_third else "Qwen2VL")]
    vision: dict[str, Any] = {
        "depth": 3,
        "patch_size": 14,
        "spatial_merge_size": 2,
        "num_heads": 4,
        "intermediate_size": 48,
    }
    if is_third:
        vision |= {"hidden_size": 32, "out_hidden_size": 64, "deepstack_visual_indexes": [0, 1]}
        vision |= {"num_position_embeddings": 36}
    elif model == "Qwen2VL":
        vision |= {"embed_dim": 32, "hidden_size": 64, "mlp_ratio": 2}
    else:
        vision |= {"hidden_size": 32, "out_hidden_size": 64, "window_size": 56, "fullatt_block_indexes": [1]}
    rope = {"rope_type": "default", "mrope_section": [4, 2, 2]}
    text: dict[str, Any]
    if IS_V5:
        text = {"text_config": {**TEXT, "head_dim": 16, "rope_parameters": {**rope, "rope_theta": 1e4}}}
    elif is_third:
        text = {"text_config": {**TEXT, "head_dim": 16, "rope_scaling": rope}}
    else:
        text = {**TEXT, "rope_scaling": {"type": "mrope", "mrope_section": [4, 2, 2]}}
    config = getattr(transformers, f"{model}Config")(
        vision_config=vision,
        **text,
        image_token_id=_id(tokenizer, "<|image_pad|>"),
        video_token_id=_id(tokenizer, "<|video_pad|>"),
        vision_start_token_id=_id(tokenizer, "<|vision_start|>"),
        vision_end_token_id=_id(tokenizer, "<|vision_end|>"),
    )
    made = getattr(transformers, f"{processor}Processor")(*parts, chat_template=_chat("qwen"))
    _save(folder, getattr(transformers, f"{model}ForConditionalGeneration"), config, made)


def _save(folder: Path, kind: Any, config: Any, processor: Any) -> None:
    torch.manual_seed(0)
    model = kind(config)
    with torch.no_grad():
        for parameter in model.parameters():  # so that a wrong position or mask shows
            parameter.normal_(0, 0.3) if parameter.ndim > 1 else parameter.add_(torch.randn_like(parameter) * 0.1)
    model.save_pretrained(folder)
    processor.save_pretrained(folder)


def _tokenizer(named: dict[str, str], *special: str) -> Any:
    """Bytes as tokens, after the special ones; `named` become attributes."""
    first = ["<pad>", "<bos>", "<eos>", "<start_of_turn>", "<end_of_turn>", *named.values(), *special]
    vocabulary = {token: i for i, token in enumerate([*first, *sorted(pre_tokenizers.ByteLevel.alphabet())])}
    tokenizer = Tokenizer(models.BPE(vocab=vocabulary, merges=[]))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    turns = ["<start_of_turn>", "<end_of_turn>", *special]
    extra: dict[str, Any]
    if IS_V5:
        extra = {"extra_special_tokens": turns, "model_specific_special_tokens": named}
    else:
        extra = {"additional_special_tokens": turns, "extra_special_tokens": named}
    return _new(
        "PreTrainedTokenizerFast" if IS_V5 else "Qwen2TokenizerFast",
        tokenizer_object=tokenizer,
        pad_token="<pad>",
        bos_token="<bos>",
        eos_token="<eos>",
        **extra,
    )


def _new(name: str, **options: Any) -> Any:
    return getattr(transformers, name)(**options)


def _has_video(family: str) -> bool:
    return hasattr(transformers, f"{family}VideoProcessor")


def _video(family: str) -> list[Any]:
    """A processor for videos, where this transformers has one of its own: for pictures it only must be there."""
    return [_new(f"{family}VideoProcessor")] if _has_video(family) else []


def _chat(family: str) -> str:
    return CHAT.format(start="<start_of_turn>", end="<end_of_turn>", picture=PICTURE_TOKENS[family])


def _siglip() -> dict[str, Any]:
    return {
        "model_type": "siglip_vision_model",
        "hidden_size": 32,
        "intermediate_size": 48,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "image_size": 28,
        "patch_size": 7,
        "vision_use_head": False,
    }


def _id(tokenizer: Any, token: str) -> int:
    return tokenizer.convert_tokens_to_ids(token)
