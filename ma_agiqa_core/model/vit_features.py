"""Visual features: the patch tokens of a few middle blocks of a timm ViT, side by side."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from ..errors import MaAgiqaError
from .config import MaAgiqaConfig
from .token_linear import use_token_linears


class VitFeatures(nn.Module):
    """Pictures -> patch tokens of the wanted blocks. The ViT ends with the last of them: no later block, norm or head.

    Args:
        config: Its `backbone`, `image_size` and `backbone_blocks` are used.
        pretrained: Load timm's weights, downloading them if they are not there.

    Attributes:
        grid: Patches down and across.
        width: Channels of the output.

    Raises:
        ValueError: timm has no such model, it is no ViT, or it has too few blocks.
    """

    def __init__(self, config: MaAgiqaConfig, pretrained: bool = False) -> None:
        super().__init__()
        self.blocks = list(config.backbone_blocks)
        vit = _create(config.backbone, config.image_size, pretrained)
        if self.blocks[-1] >= len(vit.blocks):
            raise MaAgiqaError(
                f"Expected backbone_blocks below {len(vit.blocks)}, the depth of {config.backbone}, "
                f"got {config.backbone_blocks}."
            )
        vit.prune_intermediate_layers(self.blocks, prune_norm=True, prune_head=True)
        use_token_linears(vit)
        self.vit = vit
        self.grid: tuple[int, int] = tuple(vit.patch_embed.grid_size)
        self.width: int = vit.embed_dim * len(self.blocks)

    def forward(self, pixels: Tensor) -> Tensor:
        """(B, 3, S, S), normalised -> (B, N, width), block by block; class and register tokens are left out."""
        vit: Any = self.vit
        tokens = vit.forward_intermediates(pixels, self.blocks, output_fmt="NLC", intermediates_only=True)
        return torch.cat(tokens, 2)


def _create(name: str, image_size: int, pretrained: bool) -> Any:
    """timm's model, whole; typed Any, as timm's ViTs share attributes but no class."""
    import timm

    advice = "Take a plain ViT from timm.list_models('vit_*')."
    if not timm.is_model(name):
        raise MaAgiqaError(f"Expected the name of a ViT in timm, got {name!r}. {advice}")
    try:
        vit = timm.create_model(name, pretrained=pretrained, img_size=image_size)
    except TypeError:  # networks that take pictures of any size know no img_size
        vit = None
    except RuntimeError as error:  # an unknown tag, or no weights where some are wanted
        raise MaAgiqaError(f"Expected a ViT of timm, got {name!r}: {error}. {advice}") from error
    needs = ("blocks", "embed_dim", "num_prefix_tokens", "forward_intermediates", "prune_intermediate_layers")
    has_grid = getattr(getattr(vit, "patch_embed", None), "grid_size", None) is not None
    if not has_grid or not all(hasattr(vit, need) for need in needs):
        raise MaAgiqaError(f"Expected a ViT, got {name!r}, which has no fixed grid of tokens. {advice}")
    return vit
