"""Every size of the network; the published one by default."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, get_args, get_type_hints

from ..arguments.options import first_names
from ..errors import MaAgiqaError

ALIGNMENT = "alignment"
"""The target, and the semantic vector that only it reads."""


@dataclass(frozen=True)
class MaAgiqaConfig:
    """Describes a `MaAgiqa` completely: equal configs have state dicts of equal keys and shapes.

    Attributes:
        backbone: Name of a ViT in timm, with or without the tag of its weights. Training the published model
            starts from "vit_base_patch8_224.augreg_in21k_ft_in1k". With `description_columns` the features that
            describe pictures, and their revision: "lite@1-0123456789ab", "dinov2:FOLDER@0123456789ab".
        image_size: Side of the square picture, px.
        backbone_blocks: Blocks whose outputs are used, counted from 0, ascending; later ones do not exist.
        stage_widths: Channels after either stage.
        channel_attention_blocks: In each stage.
        swin_depths: Blocks of each Swin layer, the same in both stages.
        swin_heads: Attention heads of each Swin layer; each divides both widths.
        window_size: Side of an attention window, in patches.
        swin_mlp_width: Hidden width of the Swin blocks' MLP.
        swin_scale: What a Swin layer's output is multiplied by before it is added to its input.
        semantic_dim: Width of the semantic vectors; 0 leaves the visual expert alone.
        dropout: In training, in channel attention, before each Swin stage and in the experts' perceptrons.
        drop_path: In training, stochastic depth of the last Swin block of each stage; 0 at the first, linear between.
        targets: What is predicted, each by a head of its own; the first is what the model predicts if not asked
            for another. "alignment" reads a third semantic vector, of a question about the generator's prompt.
        left_out: Semantic vectors that no expert reads, for ablations.
        description_columns: Of a description of the picture, which the model then takes in the place of pixels; 0 for
            pixels and a ViT.

    Raises:
        ValueError: Sizes that do not fit together; the message names them.

    Example:
        >>> from ma_agiqa_core.model import MaAgiqaConfig
        >>> MaAgiqaConfig().vectors
        ('semantic_content', 'coherence')
        >>> MaAgiqaConfig(semantic_dim=0).vectors  # the visual expert alone
        ()
    """

    backbone: str = "vit_base_patch8_224"
    image_size: int = 224
    backbone_blocks: tuple[int, ...] = (6, 7, 8, 9)
    stage_widths: tuple[int, int] = (768, 384)
    channel_attention_blocks: int = 2
    swin_depths: tuple[int, ...] = (2, 2)
    swin_heads: tuple[int, ...] = (4, 4)
    window_size: int = 4
    swin_mlp_width: int = 768
    swin_scale: float = 0.8
    semantic_dim: int = 4096
    dropout: float = 0.1
    drop_path: float = 0.1
    targets: tuple[str, ...] = ("quality",)
    left_out: tuple[str, ...] = ()
    description_columns: int = 0

    def __post_init__(self) -> None:
        self._check_types()
        for name in ("image_size", "window_size", "swin_mlp_width"):
            if getattr(self, name) < 1:
                raise MaAgiqaError(f"Expected {name} of at least 1, got {getattr(self, name)}.")
        for name in ("channel_attention_blocks", "semantic_dim", "description_columns"):
            if getattr(self, name) < 0:
                raise MaAgiqaError(f"Expected {name} of at least 0, got {getattr(self, name)}.")
        for name in ("stage_widths", "swin_depths", "swin_heads"):
            if not getattr(self, name) or min(getattr(self, name)) < 1:
                raise MaAgiqaError(f"Expected {name} of at least 1, got {getattr(self, name)}.")
        for name in ("dropout", "drop_path"):
            if not 0 <= getattr(self, name) < 1:
                raise MaAgiqaError(f"Expected {name} from 0 to below 1, got {getattr(self, name)}.")
        if not math.isfinite(self.swin_scale):
            raise MaAgiqaError(f"Expected a finite swin_scale, got {self.swin_scale}.")
        blocks = self.backbone_blocks
        if not blocks or blocks[0] < 0 or list(blocks) != sorted(set(blocks)):
            raise MaAgiqaError(f"Expected ascending backbone_blocks counted from 0, got {blocks}.")
        if len(self.stage_widths) != 2:
            raise MaAgiqaError(f"Expected two stage_widths, got {self.stage_widths}.")
        if len(self.swin_heads) != len(self.swin_depths):
            raise MaAgiqaError(f"Expected swin_heads for {len(self.swin_depths)} layers, got {self.swin_heads}.")
        if any(width % heads for width in self.stage_widths for heads in self.swin_heads):
            raise MaAgiqaError(f"Expected swin_heads that divide {self.stage_widths}, got {self.swin_heads}.")
        named = all(target.isidentifier() for target in self.targets)
        if not (self.targets and named and len(set(self.targets)) == len(self.targets)):
            raise MaAgiqaError(f"Expected targets with distinct names such as 'quality', got {self.targets}.")
        known = vectors_of(self.targets)
        if self.left_out and (not set(self.left_out) < set(known) or not self.semantic_dim):
            raise MaAgiqaError(
                f"Expected some of {', '.join(known)} as left_out, got {self.left_out} and semantic_dim "
                f"{self.semantic_dim}. For none of them set semantic_dim to 0."
            )

    @property
    def vectors(self) -> tuple[str, ...]:
        """Names of the semantic vectors that the model reads for all of its targets."""
        return self.vectors_for(self.targets)

    def vectors_for(self, targets: Iterable[str]) -> tuple[str, ...]:
        """Of these targets alone."""
        return tuple(n for n in vectors_of(targets) if n not in self.left_out) if self.semantic_dim else ()

    def _check_types(self) -> None:
        """Refuses values of another type than the default's; lists, as JSON has them, become tuples."""
        hints = get_type_hints(type(self))
        for field in dataclasses.fields(self):
            value, default = getattr(self, field.name), field.default
            if isinstance(default, float) and type(value) is int:
                value = float(value)
            elif isinstance(default, tuple) and isinstance(value, list):
                value = tuple(value)
            kind = get_args(hints[field.name])[0] if isinstance(default, tuple) else None  # of a tuple's elements
            elements = value if isinstance(value, tuple) else ()
            if type(value) is not type(default) or any(type(element) is not kind for element in elements):
                expected = type(default).__name__ if kind is None else f"a tuple of {kind.__name__}"
                raise MaAgiqaError(f"Expected {expected} as {field.name}, got {value!r}.")
            object.__setattr__(self, field.name, value)

    def to_dict(self) -> dict[str, Any]:
        """All fields, tuples as lists, for JSON."""
        values = dataclasses.asdict(self)
        return {name: list(value) if isinstance(value, tuple) else value for name, value in values.items()}

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> MaAgiqaConfig:
        """The config of what `to_dict` gave; the last three may be missing, as in the first files.

        Raises:
            ValueError: Fields are unknown, missing, or have wrong values; the message names them.
        """
        known = {field.name for field in dataclasses.fields(cls)}
        if not isinstance(values, Mapping):
            raise MaAgiqaError(f"Expected the fields of a config, got {values!r}.")
        if unknown := sorted(map(str, set(values) - known)):
            raise MaAgiqaError(f"Expected the fields of a config, got the unknown {first_names(unknown)}.")
        if missing := sorted(known - set(values) - {"targets", "left_out", "description_columns"}):
            raise MaAgiqaError(f"Expected all fields of a config, got none of {first_names(missing)}.")
        return cls(**values)


def vectors_of(targets: Iterable[str]) -> tuple[str, ...]:
    """Names of the semantic vectors that the heads of these targets read."""
    return ("semantic_content", "coherence", *([ALIGNMENT] if ALIGNMENT in targets else []))
