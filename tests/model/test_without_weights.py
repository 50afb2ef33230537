"""A model built without weights and given some is the model that was built with them."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import timm.models.vision_transformer
import torch

from ma_agiqa_core.checkpoint import load_checkpoint, save_checkpoint
from ma_agiqa_core.model import MaAgiqa, MaAgiqaConfig
from ma_agiqa_core.model.without_weights import without_weights

SMALL: dict[str, Any] = {
    "backbone_blocks": (1, 2),
    "stage_widths": (16, 8),
    "swin_mlp_width": 16,
    "window_size": 2,
    "semantic_dim": 12,
}
CONFIGS = {
    "plain": MaAgiqaConfig(backbone="vit_tiny_patch16_224", image_size=64, **SMALL),
    "windows that do not divide": MaAgiqaConfig(backbone="vit_tiny_patch16_224", image_size=80, **SMALL),
    "visual expert, class and register tokens": MaAgiqaConfig(
        backbone="vit_small_patch14_reg4_dinov2", image_size=56, **{**SMALL, "semantic_dim": 0}
    ),
    "three targets": MaAgiqaConfig(
        backbone="vit_tiny_patch16_224", image_size=64, targets=("quality", "alignment", "authenticity"), **SMALL
    ),
    "a backbone with tables of its own": MaAgiqaConfig(backbone="eva02_tiny_patch14_224", image_size=56, **SMALL),
}


@pytest.fixture(params=CONFIGS)
def config(request: pytest.FixtureRequest) -> MaAgiqaConfig:
    return CONFIGS[request.param]


def test_it_is_the_same_model(config: MaAgiqaConfig) -> None:
    torch.manual_seed(0)
    whole = MaAgiqa(config).eval()
    built = without_weights(config).eval()
    built.load_state_dict(whole.state_dict(), assign=True)
    assert _described(built) == _described(whole)
    for name, table in whole.named_buffers():
        assert built.get_buffer(name).equal(table), name
    pixels = torch.rand(2, 3, config.image_size, config.image_size)
    vectors = {name: torch.rand(2, 12) for name in config.vectors}
    with torch.no_grad():
        wanted, found = whole.forward_all(pixels, **vectors), built.forward_all(pixels, **vectors)
    for target, scores in wanted.items():
        torch.testing.assert_close(found[target], scores, atol=1e-5, rtol=1e-5)


def _described(model: MaAgiqa) -> list[tuple[Any, ...]]:
    parameters = [(name, p.shape, p.dtype, p.device, p.requires_grad) for name, p in model.named_parameters()]
    buffers = [(name, b.shape, b.dtype, b.device, False) for name, b in model.named_buffers()]
    modules = [(name, type(module).__name__, module.training) for name, module in model.named_modules()]
    return [*parameters, *buffers, *modules]


def test_no_weights_are_made(config: MaAgiqaConfig, monkeypatch: pytest.MonkeyPatch) -> None:
    if config.backbone.startswith("eva"):
        pytest.skip("its tables need it")
    model = without_weights(config)
    assert all(weights.is_meta for weights in model.state_dict().values())
    state = torch.get_rng_state()
    without_weights(config)
    assert torch.get_rng_state().equal(state)


def test_a_backbone_that_refuses_is_made_whole(monkeypatch: pytest.MonkeyPatch) -> None:
    """timm counts with tensors in places, differently in every release."""
    init: Callable[..., None] = timm.models.vision_transformer.VisionTransformer.__init__

    def looking_at_values(self: Any, *args: Any, **options: Any) -> None:
        init(self, *args, **options)
        self.cls_token.sum().item()

    monkeypatch.setattr(timm.models.vision_transformer.VisionTransformer, "__init__", looking_at_values)
    model = without_weights(CONFIGS["plain"])
    assert not any(weights.is_meta for weights in model.state_dict().values())


def test_a_loaded_model_is_not_the_file(tmp_path: Path) -> None:
    torch.manual_seed(0)
    path = tmp_path / "model.safetensors"
    save_checkpoint(MaAgiqa(CONFIGS["plain"]), path)
    model = load_checkpoint(path)
    before = {name: weights.clone() for name, weights in model.state_dict().items()}
    with path.open("r+b") as file:
        file.write(b"\xff" * path.stat().st_size)
    for name, weights in model.state_dict().items():
        assert weights.equal(before[name]), name


def test_loading_does_not_draw_random_numbers(tmp_path: Path) -> None:
    save_checkpoint(MaAgiqa(CONFIGS["plain"]), tmp_path / "model.safetensors")
    state = torch.get_rng_state()
    load_checkpoint(tmp_path / "model.safetensors")
    assert torch.get_rng_state().equal(state)
