"""Configs, weights, prompts and pixels that do not belong to an mPLUG-Owl2 are refused, with the value."""

import copy
import json
from typing import Any

import pytest
import torch
from project_paths import FIXTURES

from ma_agiqa_core.semantic.mplug_owl2 import MplugOwl2

CONFIG = json.loads((FIXTURES / "mplug_owl2.json").read_text(encoding="utf-8"))["config"]
VISION, ABSTRACTOR = ("visual_config", "visual_model"), ("visual_config", "visual_abstractor")


def changed(path: tuple[str, ...], **values: Any) -> dict[str, Any]:
    config = copy.deepcopy(CONFIG)
    section = config
    for name in path:
        section = section[name]
    section.update(values)
    return config


def zeros() -> dict[str, torch.Tensor]:
    return {f"model.{name}": torch.zeros(p.shape) for name, p in MplugOwl2.empty(CONFIG).named_parameters()}


@pytest.fixture(scope="module")
def owl() -> MplugOwl2:
    return MplugOwl2.from_reference(CONFIG, zeros())


def test_without_sizes_a_config_is_the_published_model() -> None:
    owl = MplugOwl2.empty({"model_type": "mplug_owl2", "architectures": ["MPLUGOwl2LlamaForCausalLM"]})

    assert sum(parameter.numel() for parameter in owl.parameters()) == 8_066_787_328
    assert (owl.hidden_size, len(owl.layers), owl.norm.eps) == (4096, 32, 1e-6)
    assert MplugOwl2.empty({"rms_norm_eps": 1e-5}).norm.eps == 1e-5
    assert {parameter.device.type for parameter in owl.parameters()} == {"meta"}
    assert not list(owl.buffers())
    assert not owl.training
    assert not any(parameter.requires_grad for parameter in owl.parameters())


@pytest.mark.parametrize(
    ("path", "values", "message"),
    [
        (
            (),
            {"rope_scaling": {"type": "linear", "factor": 2.0}},
            r"Expected rope_scaling None, got \{'type': 'linear'",
        ),
        ((), {"attention_bias": True}, "Expected attention_bias False, got True"),
        ((), {"hidden_act": "gelu"}, "Expected hidden_act 'silu', got 'gelu'"),
        ((), {"model_type": "llama"}, "Expected model_type 'mplug_owl2', got 'llama'"),
        ((), {"hidden_size": "64"}, "Expected hidden_size as a positive int, got '64'"),
        ((), {"hidden_size": 0}, "Expected hidden_size as a positive int, got 0"),
        ((), {"num_hidden_layers": True}, "Expected num_hidden_layers as a positive int, got True"),
        ((), {"rms_norm_eps": float("nan")}, "Expected rms_norm_eps as a positive float, got nan"),
        ((), {"hidden_size": 68}, r"Expected hidden_size a multiple of twice num_attention_heads, got \(68, 4\)"),
        ((), {"num_key_value_heads": 3}, r"num_attention_heads a multiple of num_key_value_heads, got \(4, 3\)"),
        ((), {"head_dim": 32}, "Expected head_dim hidden_size / num_attention_heads, got 32"),
        ((), {"visual_config": 3}, "Expected visual_config as a dictionary, got 3"),
        (VISION, {"hidden_act": "gelu"}, "Expected visual_model.hidden_act 'quick_gelu', got 'gelu'"),
        (VISION, {"use_cls_token": False}, "Expected visual_model.use_cls_token True, got False"),
        (VISION, {"use_post_layernorm": False}, "Expected visual_model.use_post_layernorm True, got False"),
        (VISION, {"image_size": 60}, r"image_size a multiple of patch_size, got \(60, 14\)"),
        (VISION, {"image_size": 70}, r"grid_size image_size / patch_size, got \(4, 5\)"),
        (VISION, {"hidden_size": 64}, r"Expected one width .*, got \(64, 32, 32\)"),
        (
            VISION,
            {"num_attention_heads": 5},
            r"visual_model.hidden_size a multiple of num_attention_heads, got \(32, 5\)",
        ),
        (ABSTRACTOR, {"add_v2t_pos_emb": True}, "visual_abstractor.add_v2t_pos_emb False, got True"),
        (ABSTRACTOR, {"num_attention_heads": 5}, r"visual_abstractor.hidden_size a multiple .*, got \(32, 5\)"),
    ],
)
def test_configs_that_would_change_the_features(path: tuple[str, ...], values: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        MplugOwl2.empty(changed(path, **values))


def test_null_in_a_config_stands_for_the_default() -> None:
    config = changed((), num_key_value_heads=None, rope_theta=None, head_dim=None, quantization_config=None)
    assert MplugOwl2.empty(config).config == MplugOwl2.empty(CONFIG).config


@pytest.mark.parametrize(
    ("published", "own"),
    [
        ("model.layers.3.self_attn.k_proj.multiway.1.weight", "layers.3.self_attn.k_proj.multiway.1.weight"),
        ("model.vision_model.embeddings.cls_token", "vision_model.embeddings.cls_token"),
        ("lm_head.weight", None),
        ("model.layers.0.self_attn.rotary_emb.inv_freq", None),
        ("model.visual_abstractor.encoder.layers.5.crossattention.attention.k_pos_embed", None),
        ("model.visual_abstractor.encoder.layers.5.crossattention.attention.q_pos_embed", None),
    ],
)
def test_own_name(published: str, own: str | None) -> None:
    assert MplugOwl2.own_name(published) == own


def test_computed_tables_may_come_along() -> None:
    tables = {
        "model.layers.0.self_attn.rotary_emb.inv_freq": torch.ones(8),
        "model.visual_abstractor.encoder.layers.0.crossattention.attention.q_pos_embed": torch.ones(8, 32),
        "lm_head.weight": torch.ones(96, 64),
    }
    assert not list(MplugOwl2.from_reference(CONFIG, zeros() | tables).buffers())


def test_weights_are_taken_over_without_a_copy() -> None:
    weights = zeros()
    owl = MplugOwl2.from_reference(CONFIG, weights)
    assert owl.norm.weight.data_ptr() == weights["model.norm.weight"].data_ptr()


def test_unknown_keys_are_named() -> None:
    few = {"model.vision_model.head.weight": torch.zeros(1), "stray": torch.zeros(1)}
    with pytest.raises(ValueError, match=r"no unknown keys, got 2: model\.vision_model\.head\.weight, stray\. Use"):
        MplugOwl2.from_reference(CONFIG, zeros() | few)
    many = {f"model.layers.{i}.norm3.weight": torch.zeros(1) for i in range(7)}
    with pytest.raises(ValueError, match=r"got 7: model.layers.0.*, model.layers.4.norm3.weight and 2 more. Use"):
        MplugOwl2.from_reference(CONFIG, zeros() | many)


def test_missing_keys_are_named() -> None:
    weights = zeros()
    del weights["model.norm.weight"], weights["model.visual_abstractor.vit_eos"]
    named = "got 2: model.visual_abstractor.vit_eos, model.norm.weight. Use"
    with pytest.raises(ValueError, match=f"Expected no missing keys, {named}"):
        MplugOwl2.from_reference(CONFIG, weights)


def test_another_shape_is_named() -> None:
    weights = zeros() | {"model.embed_tokens.weight": torch.zeros(97, 64)}
    with pytest.raises(ValueError, match=r"Expected model.embed_tokens.weight \(96, 64\), got \(97, 64\)"):
        MplugOwl2.from_reference(CONFIG, weights)


@pytest.mark.parametrize(
    ("ids", "message"),
    [
        ([1, 2, 3], r"exactly one image token \(-200\) in prompt 'q', got 0"),
        ([], r"exactly one image token \(-200\) in prompt 'q', got 0"),
        ([1, -200, 2, -200], r"exactly one image token \(-200\) in prompt 'q', got 2"),
        ([1, -200, 96], "Expected token ids below 96 in prompt 'q', got 96"),
        ([-1, -200], "Expected token ids below 96 in prompt 'q', got -1"),
        (torch.tensor([[1, -200], [1, -200]]), r"Expected token ids \(L,\) in prompt 'q', got torch.int64 \(2, 2\)"),
        (torch.tensor([1.0, -200.0]), r"Expected token ids \(L,\) in prompt 'q', got torch.float32 \(2,\)"),
    ],
)
def test_prompts_that_are_none(owl: MplugOwl2, ids: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        owl.features(torch.zeros(1, 3, 56, 56), {"q": ids})


def test_prompts_may_be_tensors() -> None:
    torch.manual_seed(0)
    owl = MplugOwl2.from_reference(CONFIG, {name: torch.randn(value.shape) for name, value in zeros().items()})
    pixels = torch.randn(1, 3, 56, 56)
    flat = torch.tensor([1, 5, -200, 7])
    answers = owl.features(
        pixels, {"list": flat.tolist(), "flat": flat, "batch of one": flat[None], "int32": flat.int()}
    )
    assert all(torch.equal(answer, answers["list"]) for answer in answers.values())


@pytest.mark.parametrize(
    ("pixels", "got"),
    [
        (torch.zeros(3, 56, 56), r"torch.float32 \(3, 56, 56\)"),
        (torch.zeros(1, 3, 42, 42), r"torch.float32 \(1, 3, 42, 42\)"),
        (torch.zeros(1, 3, 56, 56, dtype=torch.uint8), r"torch.uint8 \(1, 3, 56, 56\)"),
    ],
)
def test_pixels_of_another_kind(owl: MplugOwl2, pixels: torch.Tensor, got: str) -> None:
    with pytest.raises(ValueError, match=rf"Expected float pixel_values \(B, 3, 56, 56\), got {got}"):
        owl.features(pixels, {"q": [1, -200]})


def test_nothing_to_look_at_or_to_ask(owl: MplugOwl2) -> None:
    none = owl.features(torch.zeros(0, 3, 56, 56), {"q": [1, -200]})
    assert none["q"].shape == (0, 64)
    assert none["q"].dtype == torch.float32
    assert owl.features(torch.zeros(2, 3, 56, 56), {}) == {}
