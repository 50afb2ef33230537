"""The settings that decide what a training run learns, and the presets.

The preset "ma-agiqa" is the paper's protocol. What later work shows to help is a field of its own, off by default
there. Options that only change speed (device, threads, a cache of pictures) are not here: they are no reason to refuse
a `resume`.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from typing import Any

from ..errors import MaAgiqaError
from ..model.config import MaAgiqaConfig
from ..scorers.picture_features.load import check_source

SCHEDULES = ("published", "cosine", "constant")
FLIPS = ("vertical", "horizontal")
PRECISIONS = ("no", "bf16", "fp16")
PUBLISHED_BATCH = 8


@dataclass(frozen=True)
class TrainingSettings:
    """One protocol; the defaults are the paper's.

    Attributes:
        preset: Where the values come from; a name for people.
        model: Sizes of the network. `semantic_dim` and the targets are set by the data.
        features: What describes pictures in the place of a ViT, as `load_features` takes it: "lite", or "clip:FOLDER",
            "siglip:FOLDER" or "dinov2:FOLDER" with a model's published weights. None for a ViT and pixels.
        pretrained: Start the backbone from timm's weights.
        semantic_model: Whose vectors are used unless another is asked for; None trains the visual expert alone.
        left_out: Semantic vectors that no expert reads, for ablations.
        dct_patch_init: Initialise the backbone's first layer with DCT basis functions, if it is not pretrained.
        epochs: Passes over the training pictures.
        batch: Pictures of one step of the optimizer, on all processes together.
        accumulate: Parts that each process computes its share of a step in, for memory.
        learning_rate: Adam's learning rate.
        weight_decay: Adam's weight decay, an L2 penalty.
        schedule: "published": half a cosine down over `period` steps, and up again, endlessly (the authors step a
            cosine schedule once a batch); "cosine": once down over all epochs; "constant".
        period: Steps, for "published".
        warmup: Steps in which the rate rises from 0 first.
        seed: Seed of all random draws: initial weights, order, augmentation, dropout.
        rotate: Probability of a turn by 90, 180 or 270 degrees.
        flip: Probability of a flip.
        flip_axis: "vertical", as published (it was meant to be horizontal), or "horizontal".
        drop_last: Leave out what is left of an epoch after the last whole batch.
        published_validation: Leave out the last pictures of the validation set that fill no batch, as published.
        normalise_labels: Measure errors in standard deviations of the labels, and start the heads at their mean:
            for sets of any scale. The paper learns raw scores.
        score_bias: Added to the initial bias of the patches' scores. 0 is the paper's; a small network may then start
            with a ReLU that is dead for all patches, and stay so.
        rank_loss: Weight of a loss on the order of pairs, beside the mean squared error.
        ema: Decay of a moving average of the weights, which is then what is validated and written; 0 for none.
        layer_decay: Each backbone block's rate is this times the next one's; 1 for one rate.
        freeze_backbone: Keep the backbone's weights as they are.
        scale_rate: Multiply the rate by batch / 8.
        mixed_precision: "no", "bf16" or "fp16".
        save_every: Steps between two saved states; one is saved at each epoch's end in any case.

    Raises:
        ValueError: A value out of its range; the message names it.
    """

    preset: str = "ma-agiqa"
    model: MaAgiqaConfig = field(
        default_factory=lambda: MaAgiqaConfig(backbone="vit_base_patch8_224.augreg_in21k_ft_in1k")
    )
    features: str | None = None
    pretrained: bool = True
    semantic_model: str | None = "MAGAer13/mplug-owl2-llama2-7b"
    left_out: tuple[str, ...] = ()
    dct_patch_init: bool = False
    epochs: int = 30
    batch: int = PUBLISHED_BATCH
    accumulate: int = 1
    learning_rate: float = 1e-5
    weight_decay: float = 1e-5
    schedule: str = "published"
    period: int = 50
    warmup: int = 0
    seed: int = 20
    rotate: float = 0.7
    flip: float = 0.7
    flip_axis: str = "vertical"
    drop_last: bool = True
    published_validation: bool = False
    normalise_labels: bool = False
    score_bias: float = 0.0
    rank_loss: float = 0.0
    ema: float = 0.0
    layer_decay: float = 1.0
    freeze_backbone: bool = False
    scale_rate: bool = False
    mixed_precision: str = "no"
    save_every: int = 500

    def __post_init__(self) -> None:
        for name in ("epochs", "batch", "accumulate", "period", "save_every"):
            if getattr(self, name) < 1:
                raise MaAgiqaError(f"Expected {name} of at least 1, got {getattr(self, name)}.")
        for name in ("seed", "warmup", "weight_decay", "rank_loss"):
            if not 0 <= getattr(self, name) < math.inf:
                raise MaAgiqaError(f"Expected {name} of at least 0, got {getattr(self, name)}.")
        if not 0 < self.learning_rate < math.inf:
            raise MaAgiqaError(f"Expected a learning_rate above 0, got {self.learning_rate}.")
        for name in ("rotate", "flip"):
            if not 0 <= getattr(self, name) <= 1:
                raise MaAgiqaError(f"Expected {name} from 0 to 1, got {getattr(self, name)}.")
        if self.dct_patch_init and self.pretrained:
            raise MaAgiqaError("Expected dct_patch_init or pretrained, got both. They start the same layer.")
        if not 0 <= self.ema < 1:
            raise MaAgiqaError(f"Expected ema from 0 to below 1, got {self.ema}.")
        if not 0 < self.layer_decay <= 1:
            raise MaAgiqaError(f"Expected layer_decay above 0 and up to 1, got {self.layer_decay}.")
        if self.features is not None:
            check_source(self.features)
        for name, known in (("schedule", SCHEDULES), ("flip_axis", FLIPS), ("mixed_precision", PRECISIONS)):
            if getattr(self, name) not in known:
                raise MaAgiqaError(f"Expected {name} {', '.join(known)}, got {getattr(self, name)!r}.")

    @property
    def rate(self) -> float:
        """The highest learning rate."""
        return self.learning_rate * (self.batch / PUBLISHED_BATCH if self.scale_rate else 1)

    def rate_factor(self, step: int, steps: int) -> float:
        """What the rate is multiplied by, 0..1.

        Args:
            step: Counted from 0 over all epochs.
            steps: Of all epochs.
        """
        warm = min(1.0, (step + 1) / (self.warmup + 1))
        if self.schedule == "constant":
            return warm
        period = self.period if self.schedule == "published" else steps
        return warm * (1 + math.cos(math.pi * step / period)) / 2

    def to_dict(self) -> dict[str, Any]:
        """All fields, for JSON."""
        values = {entry.name: getattr(self, entry.name) for entry in dataclasses.fields(self)}
        return {**values, "model": self.model.to_dict(), "left_out": list(self.left_out)}

    @property
    def harmless(self) -> frozenset[str]:
        """Settings that may differ when a run is resumed: the number of epochs, unless the schedule depends on it."""
        return frozenset(
            {"preset", "semantic_model", "save_every"} | ({"epochs"} if self.schedule != "cosine" else set())
        )


PRESETS: dict[str, TrainingSettings] = {
    "ma-agiqa": TrainingSettings(),
    "tiny": TrainingSettings(
        preset="tiny",
        model=MaAgiqaConfig(
            backbone="vit_tiny_patch16_224",  # with features=None
            image_size=64,  # 4 x 4 patches
            backbone_blocks=(1, 3),
            stage_widths=(32, 16),
            channel_attention_blocks=1,
            window_size=2,
            swin_mlp_width=32,
            semantic_dim=0,
        ),
        features="lite",
        pretrained=False,
        semantic_model=None,
        dct_patch_init=True,
        epochs=20,
        batch=16,
        learning_rate=5e-4,
        schedule="cosine",
        warmup=30,
        flip_axis="horizontal",
        drop_last=False,
        normalise_labels=True,
        score_bias=0.5,
    ),
}


def preset(name: str, **changes: Any) -> TrainingSettings:
    """A preset's settings; `changes` that are None are not made.

    Raises:
        ValueError: There is no such preset, or a value is out of its range.
    """
    if name not in PRESETS:
        raise MaAgiqaError(f"Expected a preset, {' or '.join(PRESETS)}, got {name!r}.")
    return dataclasses.replace(PRESETS[name], **{key: value for key, value in changes.items() if value is not None})


def differences(before: Mapping[str, Any], now: Mapping[str, Any], harmless: Collection[str] = ()) -> list[str]:
    """The differences of two nested mappings, one text for each entry; keys in `harmless` are ignored."""
    old, new = _flattened(before), _flattened(now)
    return [
        f"{name} {old.get(name)!r}, got {new.get(name)!r}"
        for name in dict.fromkeys([*new, *old])
        if old.get(name) != new.get(name) and name not in harmless
    ]


def _flattened(values: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for key, value in values.items():
        flat |= _flattened(value, f"{prefix}{key}.") if isinstance(value, Mapping) else {f"{prefix}{key}": value}
    return flat
