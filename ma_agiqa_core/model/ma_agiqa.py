"""MA-AGIQA (Wang et al., 2024, arXiv 2404.17762): a visual branch and a language model's two answers, mixed by a gate.

Written from the paper and from what the authors' code (wangpuyi/MA-AGIQA) computes: the same scores from the same
weights. Layers that it never uses are left out, and the semantic vectors are named by meaning, not by number.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

from torch import Tensor, nn

from ..errors import MaAgiqaError
from .channel_attention import ChannelAttention
from .config import ALIGNMENT, MaAgiqaConfig
from .description_tokens import DescriptionTokens
from .expert_fusion import VISUAL, ExpertFusion, PatchQuality
from .swin import SwinStage
from .token_linear import TokenLinear
from .vit_features import VitFeatures


class MaAgiqa(nn.Module):
    """Pictures and semantic vectors -> predicted mean opinion scores, of quality or another target, higher is better.

    All targets share the network up to the patches' quality; `fusion` is the head of the first one.

    Args:
        config: All sizes.
        pretrained_backbone: Start from timm's weights of the backbone, for training; downloads them if need be.

    Raises:
        ValueError: The backbone is not a ViT of timm, or has too few blocks.

    Example:
        >>> import torch
        >>> from ma_agiqa_core.model import MaAgiqa, MaAgiqaConfig
        >>> config = MaAgiqaConfig(
        ...     backbone="test_vit", image_size=32, backbone_blocks=(0, 1), stage_widths=(16, 8),
        ...     swin_heads=(2, 2), window_size=2, swin_mlp_width=16, semantic_dim=4,
        ... )
        >>> model = MaAgiqa(config).eval()
        >>> pixels, vectors = torch.zeros(3, 3, 32, 32), torch.zeros(3, 4)
        >>> model(pixels, semantic_content=vectors, coherence=vectors).shape
        torch.Size([3])
    """

    def __init__(self, config: MaAgiqaConfig | None = None, *, pretrained_backbone: bool = False) -> None:
        super().__init__()
        self.config = config = config or MaAgiqaConfig()
        is_described = config.description_columns > 0
        self.features: VitFeatures | DescriptionTokens = (
            DescriptionTokens(config) if is_described else VitFeatures(config, pretrained_backbone)
        )
        grid, widths = self.features.grid, config.stage_widths
        self.stage1 = Stage(config, self.features.width, widths[0], grid)
        self.stage2 = Stage(config, widths[0], widths[1], grid)
        self.patch_quality = PatchQuality(widths[1], config.dropout)
        first, *others = (
            ExpertFusion(grid[0] * grid[1], config.semantic_dim, config.dropout, config.vectors_for([target]))
            for target in config.targets
        )
        self.fusion = first
        self.heads = nn.ModuleDict(dict(zip(config.targets[1:], others, strict=True)))

    def forward(
        self,
        pixels: Tensor,
        *,
        semantic_content: Tensor | None = None,
        coherence: Tensor | None = None,
        alignment: Tensor | None = None,
        target: str | None = None,
    ) -> Tensor:
        """Scores pictures; AGIQA-3K's scale is about 0 to 5.

        Args:
            pixels: (B, 3, S, S) RGB, any float dtype, normalised to [-1, 1]: see `preprocess.visual_pixels`. With
                `config.description_columns` descriptions (B, D) in their place.
            semantic_content: (B, D) or (B, 1, D), any float dtype: the mean last hidden state of the semantic model
                when it is asked about meaningful content. None if `config.semantic_dim` is 0.
            coherence: The same when it is asked about coherence.
            alignment: The same when it is asked whether the picture is what the generator's prompt says. Only the
                target "alignment" needs it.
            target: One of `config.targets`; None takes the first.

        Returns:
            (B,), of the model's dtype.

        Raises:
            ValueError: Another shape of pixels or vectors, vectors that this model needs or does not take, or a
                target that it does not have.
        """
        target = self.config.targets[0] if target is None else target
        given = {"semantic_content": semantic_content, "coherence": coherence, ALIGNMENT: alignment}
        return self._scores(pixels, given, [target])[target]

    def forward_all(
        self,
        pixels: Tensor,
        *,
        semantic_content: Tensor | None = None,
        coherence: Tensor | None = None,
        alignment: Tensor | None = None,
    ) -> dict[str, Tensor]:
        """The scores for all targets by name, each as `forward` gives them; what they share is computed once."""
        given = {"semantic_content": semantic_content, "coherence": coherence, ALIGNMENT: alignment}
        return self._scores(pixels, given, self.config.targets)

    def switch_off(self, experts: Iterable[str]) -> None:
        """Silences experts: their vectors are zeros from then on, in the gate's input and in the mixture.

        This measures what each expert contributes to a trained model. With `config.left_out` an expert does not exist,
        and the others learn its part in training.

        Args:
            experts: "visual", or names of semantic vectors.

        Raises:
            ValueError: An expert that this model does not have, or all of them.
        """
        silent, known = frozenset(experts), (*self.config.vectors, VISUAL)
        if not silent < set(known):
            raise MaAgiqaError(f"Expected some of the experts {', '.join(known)}, got {', '.join(sorted(silent))}.")
        for target in self.config.targets:
            self._head(target).switched_off = silent

    def _scores(self, pixels: Tensor, given: Mapping[str, Tensor | None], targets: Sequence[str]) -> dict[str, Tensor]:
        heads = {target: self._head(target) for target in targets}
        self._check_pixels(pixels)
        pixels = pixels.to(self.fusion.score.weight)
        needed = {name for head in heads.values() for name in head.reads}
        vectors = {name: self._vectors(name, given[name], pixels) for name in given if name in needed}
        known = (*self.config.vectors, *self.config.left_out)
        self._refuse_vectors({name: value for name, value in given.items() if name not in known})
        x = self.features(pixels)  # (B, N, 3072)
        x = self.stage1(x)  # (B, N, 768)
        x = self.stage2(x)  # (B, N, 384)
        quality = self.patch_quality(x)  # (B, N)
        return {target: head(quality, vectors) for target, head in heads.items()}  # (B,) each

    def _head(self, target: str) -> ExpertFusion:
        if target not in self.config.targets:
            raise MaAgiqaError(f"Expected a target of this model, {', '.join(self.config.targets)}, got {target!r}.")
        head = self.fusion if target == self.config.targets[0] else self.heads[target]
        assert isinstance(head, ExpertFusion)
        return head

    def _refuse_vectors(self, given: Mapping[str, Tensor | None]) -> None:
        for name, vectors in given.items():
            if vectors is not None:
                reason = "has no alignment head" if self.config.semantic_dim else "is the visual expert alone"
                raise MaAgiqaError(f"Expected no {name}, got {tuple(vectors.shape)}: this model {reason}.")

    def _check_pixels(self, pixels: Tensor) -> None:
        if D := self.config.description_columns:
            if pixels.ndim != 2 or pixels.shape[1] != D or not pixels.is_floating_point():
                raise MaAgiqaError(
                    f"Expected float descriptions (B, {D}), got {pixels.dtype} {tuple(pixels.shape)}. Use "
                    f"the features of {self.config.backbone}."
                )
            return
        S = self.config.image_size
        if pixels.ndim != 4 or pixels.shape[1:] != (3, S, S) or not pixels.is_floating_point():
            raise MaAgiqaError(
                f"Expected float pixels (B, 3, {S}, {S}), got {pixels.dtype} {tuple(pixels.shape)}. "
                "Use preprocess.visual_pixels."
            )

    def _vectors(self, name: str, vectors: Tensor | None, pixels: Tensor) -> Tensor:
        """(B, D) on the pixels' device and in their dtype."""
        D = self.config.semantic_dim
        if vectors is None:
            raise MaAgiqaError(f"Expected {name} {(len(pixels), D)}, got None. Use the semantic model's features.")
        if vectors.shape not in ((len(pixels), D), (len(pixels), 1, D)) or not vectors.is_floating_point():
            found = tuple(vectors.shape) if vectors.is_floating_point() else vectors.dtype
            raise MaAgiqaError(
                f"Expected {name} {(len(pixels), D)}, got {found}. "
                "Use the semantic model that this checkpoint was trained with."
            )
        return vectors.reshape(len(pixels), D).to(pixels)


class Stage(nn.Module):
    """Channel attention, a narrower width, and a Swin stage at that width."""

    def __init__(self, config: MaAgiqaConfig, width: int, narrow: int, grid: tuple[int, int]) -> None:
        super().__init__()
        patches = grid[0] * grid[1]
        attention = [ChannelAttention(patches, config.dropout) for _ in range(config.channel_attention_blocks)]
        self.channel_attention = nn.Sequential(*attention)
        self.reduce = TokenLinear(width, narrow)
        self.swin = SwinStage(config, narrow, grid)

    def forward(self, x: Tensor) -> Tensor:
        """(B, N, C) -> (B, N, narrow)."""
        channels = self.channel_attention(x.mT.contiguous())  # (B, C, N)
        return self.swin(self.reduce(channels.mT))
