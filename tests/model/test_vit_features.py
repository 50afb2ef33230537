"""Features of timm's ViTs against the outputs of the whole network's blocks."""

import dataclasses
import socket
from typing import Any

import pytest
import timm
import torch
from torch import Tensor

from ma_agiqa_core.model import MaAgiqa, MaAgiqaConfig
from ma_agiqa_core.model.vit_features import VitFeatures

BACKBONES = [
    "vit_tiny_patch16_224",
    "vit_tiny_patch16_224.augreg_in21k",
    "deit_tiny_distilled_patch16_224",  # class and distillation token
    "vit_small_patch14_reg4_dinov2",  # class and register tokens, layer scale
    "eva02_tiny_patch14_224",  # rotary positions, SwiGLU
]


@pytest.mark.parametrize("backbone", BACKBONES)
def test_features_are_the_blocks_patch_tokens(tiny_config: MaAgiqaConfig, backbone: str) -> None:
    side = 56 if "patch14" in backbone else 64
    config = dataclasses.replace(tiny_config, backbone=backbone, image_size=side, backbone_blocks=(1, 3))
    torch.manual_seed(0)
    features = VitFeatures(config).eval()
    whole: Any = timm.create_model(backbone, img_size=side).eval()
    whole.load_state_dict(features.vit.state_dict(), strict=False)
    outputs: list[Tensor] = []
    for block in (whole.blocks[1], whole.blocks[3]):
        block.register_forward_hook(lambda module, inputs, output: outputs.append(output))
    pixels = torch.randn(2, 3, side, side)

    with torch.inference_mode():
        found = features(pixels)
        whole(pixels)

    assert features.grid == (4, 4)
    assert found.shape == (2, 16, features.width)
    expected = torch.cat([output[:, whole.num_prefix_tokens :] for output in outputs], 2)
    assert torch.allclose(found, expected, atol=1e-5)


def test_the_vit_ends_with_the_last_wanted_block(tiny_config: MaAgiqaConfig) -> None:
    names = VitFeatures(tiny_config).state_dict().keys()

    assert {name.split(".")[2] for name in names if ".blocks." in name} == {"0", "1", "2"}
    assert {name.split(".")[1] for name in names} == {"cls_token", "pos_embed", "patch_embed", "blocks"}


def test_no_weights_are_downloaded(tiny_config: MaAgiqaConfig, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*arguments: object) -> None:
        raise AssertionError("the network was asked for")

    monkeypatch.setattr(socket.socket, "connect", refuse)
    VitFeatures(dataclasses.replace(tiny_config, backbone="vit_tiny_patch16_224.augreg_in21k_ft_in1k"))


@pytest.mark.parametrize("pretrained", [False, True])
def test_pretrained_weights_are_asked_for_only_when_wanted(
    tiny_config: MaAgiqaConfig, monkeypatch: pytest.MonkeyPatch, pretrained: bool
) -> None:
    asked, create = [], timm.create_model

    def record(name: str, *, pretrained: bool, img_size: int) -> Any:
        asked.append(pretrained)
        return create(name, img_size=img_size)

    monkeypatch.setattr(timm, "create_model", record)
    MaAgiqa(tiny_config, pretrained_backbone=pretrained)

    assert asked == [pretrained]


@pytest.mark.parametrize(
    ("backbone", "message"),
    [
        ("resnet18", "Expected a ViT, got 'resnet18', which has no fixed grid of tokens"),
        ("swin_tiny_patch4_window7_224", "Expected a ViT, got 'swin_tiny_patch4_window7_224'"),
        ("vit_huge_patch3", "Expected the name of a ViT in timm, got 'vit_huge_patch3'"),
        ("hf-hub:timm/vit_tiny_patch16_224", "Expected the name of a ViT in timm, got 'hf-hub:timm"),
        ("vit_tiny_patch16_224.nobody", "Expected a ViT of timm, got 'vit_tiny_patch16_224.nobody'"),
    ],
)
def test_other_networks_are_refused_by_name(tiny_config: MaAgiqaConfig, backbone: str, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        VitFeatures(dataclasses.replace(tiny_config, backbone=backbone))


def test_too_few_blocks_are_refused(tiny_config: MaAgiqaConfig) -> None:
    with pytest.raises(ValueError, match=r"below 12, the depth of vit_tiny_patch16_224, got \(2, 12\)"):
        VitFeatures(dataclasses.replace(tiny_config, backbone_blocks=(2, 12)))
