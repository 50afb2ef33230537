"""What our mPLUG-Owl2 leaves out changes nothing: it answers like a plain flow that leaves nothing out."""

import copy
import io
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import ModuleType
from typing import Any

import accelerate
import pytest
import torch
from project_paths import ROOT
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from ma_agiqa_core.semantic.mplug_owl2 import MplugOwl2
from ma_agiqa_core.semantic.mplug_owl2.language import rotation_at

Prompts = Mapping[str, Sequence[int]]

VISION = {
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "image_size": 28,
    "patch_size": 7,
    "layer_norm_eps": 1e-6,
}
ABSTRACTOR = {
    "hidden_size": 32,
    "encoder_hidden_size": 32,
    "intermediate_size": 40,
    "num_learnable_queries": 5,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "grid_size": 4,
    "layer_norm_eps": 1e-6,
}
CONFIG = {
    "vocab_size": 50,
    "hidden_size": 48,
    "intermediate_size": 80,
    "num_hidden_layers": 3,
    "num_attention_heads": 6,
    "num_key_value_heads": 2,
    "rms_norm_eps": 1e-5,
    "visual_config": {"visual_model": VISION, "visual_abstractor": ABSTRACTOR},
}
DIFFERENT: Prompts = {  # texts before and after the picture of different lengths, down to none
    "long": [1, 7, 9, 30, 12, 44, -200, 5, 6],
    "short": [1, 3, -200, 8, 9, 10, 11, 12],
    "nothing before": [-200, 5, 20],
    "nothing after": [1, 2, 3, -200],
}


def random_weights(config: Mapping[str, Any] = CONFIG, seed: int = 0) -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    weights = {}
    for name, parameter in MplugOwl2.empty(config).named_parameters():
        scale = 0.1 if parameter.ndim == 1 else parameter.shape[-1] ** -0.5
        offset = 1.0 if name.endswith("weight") and parameter.ndim == 1 else 0.0
        weights[f"model.{name}"] = offset + scale * torch.randn(parameter.shape, generator=generator)
    weights["lm_head.weight"] = torch.randn(config["vocab_size"], config["hidden_size"], generator=generator)
    return weights


def random_pictures(count: int, seed: int = 1) -> torch.Tensor:
    return torch.randn(count, 3, 28, 28, generator=torch.Generator().manual_seed(seed))


@pytest.fixture
def owl() -> MplugOwl2:
    return MplugOwl2.from_reference(CONFIG, random_weights())


@pytest.fixture(scope="module")
def plain(load_module: Callable[[Path], ModuleType]) -> ModuleType:
    """benchmarks/plain_mplug_owl2.py, which shares no code with the package."""
    return load_module(ROOT / "benchmarks" / "plain_mplug_owl2.py")


class Runs:
    """How many tokens went through each language layer, and how many pictures were encoded, call by call."""

    def __init__(self, owl: MplugOwl2) -> None:
        self.tokens: list[int] = []
        self.pictures: list[int] = []
        owl.layers[0].register_forward_hook(lambda _, inputs, __: self.tokens.append(len(inputs[0])))
        owl.vision_model.register_forward_hook(lambda _, inputs, __: self.pictures.append(len(inputs[0])))


def assert_same(got: Mapping[str, torch.Tensor], expected: Mapping[str, torch.Tensor], atol: float = 1e-5) -> None:
    assert list(got) == list(expected)
    for name, features in expected.items():
        torch.testing.assert_close(got[name], features, rtol=0, atol=atol)


@pytest.mark.parametrize("kept_heads", [2, 6])
@pytest.mark.parametrize("asked", [list(DIFFERENT), ["long", "short"], ["nothing before"], ["nothing after"]])
def test_equal_to_the_plain_flow(plain: ModuleType, kept_heads: int, asked: list[str]) -> None:
    config = CONFIG | {"num_key_value_heads": kept_heads}
    weights = random_weights(config)
    prompts = {name: DIFFERENT[name] for name in asked}
    owl = MplugOwl2.from_reference(config, weights)
    expected = plain.PlainOwl(config, weights).features(random_pictures(3), prompts)

    assert_same(owl.features(random_pictures(3), prompts), expected)
    assert_same(owl.features(random_pictures(3), prompts), expected)  # now with what was kept


def test_neither_other_pictures_nor_other_questions_change_an_answer(owl: MplugOwl2) -> None:
    together = owl.features(random_pictures(4), DIFFERENT)
    for name, ids in DIFFERENT.items():
        for i, picture in enumerate(random_pictures(4)):
            alone = owl.features(picture[None], {name: ids})[name]
            torch.testing.assert_close(alone[0], together[name][i], rtol=0, atol=1e-5)


def test_text_before_the_picture_runs_once_and_the_picture_once_for_all_questions(owl: MplugOwl2) -> None:
    runs = Runs(owl)
    prompts = {name: DIFFERENT[name] for name in ("long", "short")}
    image, longest_after = 6, 5
    batch = 2 * 3 * (image + longest_after)

    owl.features(random_pictures(3), prompts)
    assert runs.tokens == [6, 2, batch]
    owl.features(random_pictures(3), prompts)
    owl.features(random_pictures(1), {"again": DIFFERENT["short"]})
    assert runs.tokens[3:] == [batch, image + longest_after]
    assert runs.pictures == [3, 3, 1]


def test_what_is_kept_is_bounded(owl: MplugOwl2) -> None:
    for first in range(1, 40):
        owl.features(random_pictures(1), {"prompt": [first, -200, 1], "other": [first, 2, -200]})
    assert len(owl._prefix_cache) == 16


def test_more_questions_than_are_kept(owl: MplugOwl2) -> None:
    many = {str(first): [first, 2, -200, 4] for first in range(1, 40)}
    together = owl.features(random_pictures(1), many)
    assert_same({"39": together["39"]}, owl.features(random_pictures(1), {"39": many["39"]}))


def test_kept_text_is_dropped_when_the_weights_change(owl: MplugOwl2) -> None:
    owl.features(random_pictures(2), DIFFERENT)
    others = random_weights(seed=5)
    expected = MplugOwl2.from_reference(CONFIG, others).features(random_pictures(2), DIFFERENT)

    owl.load_state_dict({key.removeprefix("model."): value for key, value in others.items() if "lm_head" not in key})
    assert_same(owl.features(random_pictures(2), DIFFERENT), expected)

    rounded = MplugOwl2.from_reference(CONFIG, {key: value.bfloat16().float() for key, value in others.items()})
    assert_same(
        owl.bfloat16().float().features(random_pictures(2), DIFFERENT), rounded.features(random_pictures(2), DIFFERENT)
    )

    with torch.no_grad():
        owl.norm.weight.mul_(2)
    owl.clear_prefix_cache()
    doubled = {name: 2 * features for name, features in rounded.features(random_pictures(2), DIFFERENT).items()}
    assert_same(owl.features(random_pictures(2), DIFFERENT), doubled)


def test_kept_text_is_of_the_type_it_was_computed_in(owl: MplugOwl2) -> None:
    expected = owl.features(random_pictures(2), DIFFERENT)
    for part in owl.children():
        part.bfloat16()  # the model itself is not told
    assert_same(owl.features(random_pictures(2), DIFFERENT), expected, atol=0.1)


def test_threads_may_ask_at_once(owl: MplugOwl2) -> None:
    asked = [{name: ids} for name, ids in DIFFERENT.items()] + [dict(DIFFERENT)]
    expected = [copy.deepcopy(owl).features(random_pictures(2), prompts) for prompts in asked]
    runs = Runs(owl)

    with ThreadPoolExecutor(8) as pool:
        answers = list(pool.map(lambda prompts: owl.features(random_pictures(2), prompts), asked * 6))

    for i, answer in enumerate(answers):
        assert_same(answer, expected[i % len(asked)])
    assert len(runs.tokens) == len(asked) * 6 + 3  # each text before a picture once


def test_a_copy_answers_alike_and_starts_with_nothing_kept(owl: MplugOwl2) -> None:
    expected = owl.features(random_pictures(2), DIFFERENT)
    file = io.BytesIO()
    torch.save(owl, file)
    file.seek(0)
    for same in (copy.deepcopy(owl), torch.load(file, weights_only=False)):
        assert len(same._prefix_cache) == 0
        assert_same(same.features(random_pictures(2), DIFFERENT), expected)


@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.bfloat16, 0.1), (torch.float16, 0.01)])
def test_half_precision(owl: MplugOwl2, dtype: torch.dtype, tolerance: float) -> None:
    expected = owl.features(random_pictures(2), DIFFERENT)
    got = owl.to(dtype).features(random_pictures(2), DIFFERENT)
    assert {features.dtype for features in got.values()} == {torch.float32}
    assert_same(got, expected, atol=tolerance)


def test_norms_compute_in_float32() -> None:
    weights = random_weights()
    weights["model.embed_tokens.weight"] *= 1000  # their squares are infinite in float16
    weights["model.visual_abstractor.visual_fc.weight"] *= 1000
    expected = MplugOwl2.from_reference(CONFIG, weights).features(random_pictures(2), DIFFERENT)
    got = MplugOwl2.from_reference(CONFIG, weights).half().features(random_pictures(2), DIFFERENT)
    assert_same(got, expected, atol=0.01)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_positions_are_exact_in_half_precision(dtype: torch.dtype) -> None:
    places = torch.tensor([0, 1, 257, 2047])  # bfloat16 has neither 257 nor 2047
    angles = places.double()[:, None] * 10000.0 ** -(torch.arange(4) / 4).double()
    for got, expected in zip(rotation_at(places, 8, 10000.0, dtype), (angles.cos(), angles.sin()), strict=True):
        assert got.dtype == dtype
        torch.testing.assert_close(got[:, 0].double(), expected, rtol=torch.finfo(dtype).eps, atol=2e-4)


class OnlyForward(nn.Module):
    """A linear layer without a weight to be touched, as quantized ones are."""

    def __init__(self, linear: nn.Linear) -> None:
        super().__init__()
        self._call = [linear]

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self._call[0](x)


def test_linear_layers_can_be_swapped(owl: MplugOwl2) -> None:
    expected = owl.features(random_pictures(2), DIFFERENT)
    linears = [(name, module) for name, module in owl.named_modules() if isinstance(module, nn.Linear)]
    for name, linear in linears:
        owl.set_submodule(name, OnlyForward(linear))
    owl.clear_prefix_cache()

    assert not any("proj" in name for name, _ in owl.named_parameters())
    assert_same(owl.features(random_pictures(2), DIFFERENT), expected)


@pytest.mark.parametrize("how", ["cpu_offload", "disk_offload", "dispatch"])
def test_accelerate_may_hold_the_weights(owl: MplugOwl2, how: str, tmp_path: Path) -> None:
    expected = owl.features(random_pictures(2), DIFFERENT)
    if how == "cpu_offload":
        accelerate.cpu_offload(owl, execution_device=torch.device("cpu"))
    elif how == "disk_offload":
        accelerate.disk_offload(owl, str(tmp_path), execution_device=torch.device("cpu"))
    else:
        plan = accelerate.infer_auto_device_map(
            owl, max_memory={"cpu": 120_000, "disk": 10**9}, no_split_module_classes=list(owl.no_split_modules)
        )
        assert set(plan.values()) == {"cpu", "disk"}
        accelerate.dispatch_model(owl, plan, main_device="cpu", offload_dir=str(tmp_path), force_hooks=True)

    assert any(parameter.is_meta for parameter in owl.parameters())
    assert_same(owl.features(random_pictures(2), DIFFERENT), expected)
    owl.clear_prefix_cache()
    assert_same(owl.features(random_pictures(2), DIFFERENT), expected)


@pytest.mark.long
def test_a_picture_costs_a_third_of_the_plain_flow_at_true_size(plain: ModuleType) -> None:
    vision = {"num_hidden_layers": 24, "num_attention_heads": 16, "patch_size": 14, "layer_norm_eps": 1e-6}
    abstractor = {"num_hidden_layers": 6, "num_attention_heads": 16, "hidden_size": 1024, "layer_norm_eps": 1e-6}
    abstractor |= {"num_learnable_queries": 64, "grid_size": 32}
    config: dict[str, Any] = {"num_hidden_layers": 32, "num_attention_heads": 32, "rms_norm_eps": 1e-5}
    config |= {"visual_config": {"visual_model": vision, "visual_abstractor": abstractor}}
    owl = MplugOwl2.empty(config)
    weights = {f"model.{name}": parameter.data for name, parameter in owl.named_parameters()}
    weights["lm_head.weight"] = torch.empty(32000, 4096, device="meta")
    pixels = torch.empty(1, 3, 448, 448, device="meta")
    prompts = {"semantic_content": [1] * 33 + [-200] + [1] * 6, "coherence": [1] * 22 + [-200] + [1] * 6}
    owl.features(pixels, prompts)  # the text before the picture

    with FlopCounterMode(display=False) as ours:
        owl.features(pixels, prompts)
    with FlopCounterMode(display=False) as published:
        plain.PlainOwl(config, weights).features(pixels, prompts)

    assert published.get_total_flops() == pytest.approx(8.27e12, rel=0.01)
    assert published.get_total_flops() / ours.get_total_flops() > 3.0
