"""The sizes of an mPLUG-Owl2, read from a published config.json.

Names and defaults are the published ones (configuration_mplug_owl2.py). What this implementation does not compute, it
refuses by value: a setting that is passed over silently would change the features.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from typing import Any, TypeVar

from ...errors import MaAgiqaError

_LANGUAGE_FIXED = {
    "model_type": "mplug_owl2",
    "hidden_act": "silu",
    "rope_scaling": None,
    "attention_bias": False,
    "mlp_bias": False,
    "quantization_config": None,
}
_VISION_FIXED = {"hidden_act": "quick_gelu", "use_cls_token": True, "use_post_layernorm": True, "num_channels": 3}
_ABSTRACTOR_FIXED = {"use_cls_token": True, "add_v2t_pos_emb": False}


@dataclass(frozen=True)
class VisionConfig:
    """The vision encoder, ViT-L/14 at 448 px."""

    hidden_size: int = 1024
    intermediate_size: int = 4096
    num_hidden_layers: int = 24
    num_attention_heads: int = 16
    image_size: int = 448
    patch_size: int = 14
    layer_norm_eps: float = 1e-6

    @property
    def grid_size(self) -> int:
        return self.image_size // self.patch_size


@dataclass(frozen=True)
class AbstractorConfig:
    """The visual abstractor, which turns a picture's patches into a fixed number of tokens."""

    hidden_size: int = 1024
    encoder_hidden_size: int = 1024
    intermediate_size: int = 2816
    num_hidden_layers: int = 6
    num_attention_heads: int = 16
    num_learnable_queries: int = 64
    grid_size: int = 32
    layer_norm_eps: float = 1e-6


@dataclass(frozen=True)
class OwlConfig:
    """The language model, LLaMA-2-7B with two ways, and the parts before it."""

    vocab_size: int = 32000
    hidden_size: int = 4096
    intermediate_size: int = 11008
    num_hidden_layers: int = 32
    num_attention_heads: int = 32
    num_key_value_heads: int = 0  # 0 becomes num_attention_heads
    rms_norm_eps: float = 1e-6
    rope_theta: float = 10000.0
    vision: VisionConfig = field(default_factory=VisionConfig)
    abstractor: AbstractorConfig = field(default_factory=AbstractorConfig)

    def __post_init__(self) -> None:
        object.__setattr__(self, "num_key_value_heads", self.num_key_value_heads or self.num_attention_heads)

    @property
    def head_dim(self) -> int:
        return self.hidden_size // self.num_attention_heads

    @classmethod
    def from_published(cls, config: Mapping[str, Any]) -> OwlConfig:
        """Reads a published config; other keys in it are passed over.

        Raises:
            ValueError: A setting that this implementation does not compute, or sizes that do not fit each other.
        """
        visual = _section(config, "visual_config")
        vision = _read(VisionConfig, _section(visual, "visual_model"), _VISION_FIXED, "visual_model.")
        abstractor = _read(
            AbstractorConfig, _section(visual, "visual_abstractor"), _ABSTRACTOR_FIXED, "visual_abstractor."
        )
        owl = _read(cls, config, _LANGUAGE_FIXED, "", vision=vision, abstractor=abstractor)
        _check_fit(owl, config.get("head_dim"))
        return owl


_Config = TypeVar("_Config", VisionConfig, AbstractorConfig, OwlConfig)


def _section(config: Mapping[str, Any], name: str) -> Mapping[str, Any]:
    section = config.get(name)
    if section is None:
        return {}
    if not isinstance(section, Mapping):
        raise MaAgiqaError(f"Expected {name} as a dictionary, got {section!r}. Use the model's own config.json.")
    return section


def _read(
    kind: type[_Config], section: Mapping[str, Any], fixed: Mapping[str, Any], where: str, **parts: Any
) -> _Config:
    for name, value in fixed.items():
        if (got := section.get(name, value)) != value:
            raise MaAgiqaError(
                f"Expected {where}{name} {value!r}, got {got!r}. Use a model of the published form; others would give "
                "other features."
            )
    sizes: dict[str, Any] = {}
    for known in fields(kind):
        value = section.get(known.name)
        if known.name in parts or value is None:  # null in a config stands for the default
            continue
        wanted = (int,) if known.type == "int" else (int, float)
        if not isinstance(value, wanted) or isinstance(value, bool) or not (math.isfinite(value) and value > 0):
            raise MaAgiqaError(f"Expected {where}{known.name} as a positive {known.type}, got {value!r}.")
        sizes[known.name] = value
    return kind(**sizes, **parts)


def _check_fit(owl: OwlConfig, head_dim: int | None) -> None:
    vision, abstractor = owl.vision, owl.abstractor
    heads = owl.num_attention_heads
    fits = [
        (
            owl.hidden_size % (2 * heads) == 0,
            "hidden_size a multiple of twice num_attention_heads",
            (owl.hidden_size, heads),
        ),
        (head_dim in (None, owl.head_dim), "head_dim hidden_size / num_attention_heads", head_dim),
        (
            heads % owl.num_key_value_heads == 0,
            "num_attention_heads a multiple of num_key_value_heads",
            (heads, owl.num_key_value_heads),
        ),
        (
            vision.hidden_size % vision.num_attention_heads == 0,
            "visual_model.hidden_size a multiple of num_attention_heads",
            (vision.hidden_size, vision.num_attention_heads),
        ),
        (
            vision.image_size % vision.patch_size == 0,
            "visual_model.image_size a multiple of patch_size",
            (vision.image_size, vision.patch_size),
        ),
        (
            abstractor.hidden_size == abstractor.encoder_hidden_size == vision.hidden_size,
            "one width in visual_model, visual_abstractor and its encoder_hidden_size",
            (vision.hidden_size, abstractor.hidden_size, abstractor.encoder_hidden_size),
        ),
        (
            abstractor.hidden_size % abstractor.num_attention_heads == 0,
            "visual_abstractor.hidden_size a multiple of num_attention_heads",
            (abstractor.hidden_size, abstractor.num_attention_heads),
        ),
        (abstractor.hidden_size % 4 == 0, "visual_abstractor.hidden_size a multiple of 4", abstractor.hidden_size),
        (
            abstractor.grid_size == vision.grid_size,
            "visual_abstractor.grid_size image_size / patch_size",
            (abstractor.grid_size, vision.grid_size),
        ),
    ]
    for is_met, expected, got in fits:
        if not is_met:
            raise MaAgiqaError(f"Expected {expected}, got {got}. Use the model's own config.json.")
