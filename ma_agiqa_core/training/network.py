"""The network as it is trained: initial weights, the optimizer with its learning rates, and all targets at once."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import Adam
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from ..errors import MaAgiqaError
from ..model import MaAgiqa, MaAgiqaConfig
from ..model.vit_features import VitFeatures
from ..model_files.hub import hub_file
from ..preprocess import normalised
from ..scorers.picture_features.features import PictureFeatures
from ..scorers.picture_features.load import backbone_of
from .augmentation import torch_seed
from .dct_patch_init import init_dct_patches
from .settings import TrainingSettings

_WEIGHTS = 3  # which of the seed's streams of random numbers


class TrainedNetwork(nn.Module):
    """`MaAgiqa` with one output column for each target.

    Args:
        model: Of any targets.
    """

    def __init__(self, model: MaAgiqa) -> None:
        super().__init__()
        self.model = model

    def forward(self, pixels: Tensor, vectors: dict[str, Tensor]) -> Tensor:
        """Pixels (B, 3, S, S) uint8, or descriptions (B, D), and the semantic vectors by name -> (B, T) float32.

        The targets are in the order of the config.
        """
        seen = pixels if self.model.config.description_columns else normalised(pixels)
        scores = self.model.forward_all(seen, **vectors)
        return torch.stack([scores[target] for target in self.model.config.targets], 1).float()


def network_config(
    settings: TrainingSettings, targets: tuple[str, ...], semantic_dim: int, features: PictureFeatures | None = None
) -> MaAgiqaConfig:
    """The sizes of the network that these settings and data make, and `features`, if they describe the pictures.

    Raises:
        ValueError: Experts are left out of a network that has none.
    """
    if settings.left_out and not semantic_dim:
        raise MaAgiqaError(
            f"Expected a semantic model to train without {', '.join(settings.left_out)}, got none: the visual expert "
            "is already alone. Name one (on the command line --semantic), or leave nothing out."
        )
    config = dataclasses.replace(settings.model, semantic_dim=semantic_dim, targets=targets, left_out=settings.left_out)
    if features is None:
        return config
    return dataclasses.replace(config, backbone=backbone_of(features), description_columns=sum(features.parts.values()))


def new_network(
    settings: TrainingSettings,
    *,
    targets: tuple[str, ...],
    semantic_dim: int,
    mean: Tensor,
    deviation: Tensor,
    features: PictureFeatures | None = None,
    local_files_only: bool = False,
) -> TrainedNetwork:
    """A network to train, its first weights drawn from the seed.

    Args:
        settings: Of the training.
        targets: What it predicts.
        semantic_dim: Width of the semantic vectors, 0 for the visual expert alone.
        mean: (T,) of the training labels; used if labels are normalised.
        deviation: (T,) their standard deviations.
        features: What describes the pictures; None for pixels.
        local_files_only: Never use the network.

    Raises:
        FileNotFoundError: The backbone's weights are not here and cannot be downloaded.
        ValueError: The backbone is no ViT.
    """
    config = network_config(settings, targets, semantic_dim, features)
    torch.manual_seed(torch_seed(settings.seed, _WEIGHTS))
    model = MaAgiqa(config)
    if settings.pretrained and features is None:
        _load_backbone(model, local_files_only)
    with torch.no_grad():
        # Drawn around 0, the last layer of a small network is below it for all patches of all pictures as often as
        # not: then the ReLU behind it passes no gradient, and the visual expert never learns.
        last_of_patches: Any = model.patch_quality.score[-2]
        last_of_patches.bias += settings.score_bias
        if settings.normalise_labels:
            heads: list[Any] = [model.fusion, *model.heads.values()]
            for head, centre, width in zip(heads, mean.tolist(), deviation.tolist(), strict=True):
                head.score.weight.mul_(width)
                head.score.bias.fill_(centre)
        if settings.dct_patch_init and isinstance(model.features, VitFeatures):
            init_dct_patches(model.features.vit.patch_embed.proj)
    model.features.requires_grad_(not settings.freeze_backbone)
    return TrainedNetwork(model)


def _load_backbone(model: MaAgiqa, local_files_only: bool) -> None:
    """timm's weights, from the Hub's local cache first: timm itself asks the network first, and for half a minute."""
    import timm

    name = model.config.backbone
    published = timm.get_pretrained_cfg(name)
    if published is None or not published.hf_hub_id:
        raise MaAgiqaError(f"Expected a backbone with weights on the Hub, got {name!r}. Name its tag.")
    file = hub_file(published.hf_hub_id, "model.safetensors", local_files_only=local_files_only)
    size, overlay = model.config.image_size, {"file": str(file), "custom_load": False}
    whole = timm.create_model(name, pretrained=True, img_size=size, pretrained_cfg_overlay=overlay).state_dict()
    vit: Any = model.features.vit
    vit.load_state_dict({key: whole[key] for key in vit.state_dict()})


def new_optimizer(network: TrainedNetwork, settings: TrainingSettings, device: torch.device) -> Adam:
    """Adam over all that learns; each group has its highest rate as "highest"."""
    groups: dict[float, list[nn.Parameter]] = {}
    for scale, parameter in _scaled_parameters(network.model, settings.layer_decay):
        groups.setdefault(scale, []).append(parameter)
    return Adam(
        [{"params": parameters, "highest": settings.rate * scale} for scale, parameters in groups.items()],
        lr=settings.rate,
        weight_decay=settings.weight_decay,
        fused=device.type in ("cpu", "cuda"),
    )


def _scaled_parameters(model: MaAgiqa, decay: float) -> Iterator[tuple[float, nn.Parameter]]:
    """What learns, with what its rate is multiplied by: the earlier in the backbone, the slower."""
    depth = model.config.backbone_blocks[-1] + 1
    for name, parameter in model.named_parameters():
        if not parameter.requires_grad:
            continue
        layer = depth + 1  # the heads
        if name.startswith("features."):
            _, is_block, rest = name.partition(".blocks.")
            layer = int(rest.partition(".")[0]) + 1 if is_block else 0
        yield decay ** (depth + 1 - layer), parameter


def new_average(network: TrainedNetwork, decay: float) -> AveragedModel | None:
    """The moving average of the weights, if there is to be one."""
    return AveragedModel(network, multi_avg_fn=get_ema_multi_avg_fn(decay)) if decay else None
