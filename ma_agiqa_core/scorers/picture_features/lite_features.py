"""lite's description of a picture, with colour: what needs no model from elsewhere.

This is the only place of learning that knows lite's network. Its columns are the four parts that a student is taught on
(`scorers/lite/student.py`) and `colour_statistics`.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from safetensors.torch import load_file
from torch import Tensor

from ...compute.progress import tick
from ...model_files.digest import file_digest
from ...pictures.inputs import Picture
from ..lite import LITE_WEIGHTS
from ..lite.network import LiteNetwork, on_scale
from ..lite.student import PARTS, StudentNetwork
from .colour_statistics import COLOUR_PARTS, describe_colours
from .features import PictureFeatures, unit_range

LITE = "lite"
_FORMULAS = "1"  # to be raised where columns change, and the weights of lite do not


class LiteFeatures(PictureFeatures):
    """Statistics of texture, noise, light and colour, the crop network's maps, and a thumbnail.

    Args:
        device: Where to compute.
    """

    source = LITE
    has_common_scale = False

    def __init__(self, device: torch.device) -> None:
        self.network = StudentNetwork(LiteNetwork.from_state_dict(load_file(LITE_WEIGHTS))).eval().to(device)
        self.revision = f"{_FORMULAS}-{file_digest(LITE_WEIGHTS)[:12]}"
        self.parts = {**PARTS, **COLOUR_PARTS}

    @property
    def networks(self) -> tuple[torch.nn.Module, ...]:
        return (self.network,)

    def describe_group(self, pictures: Sequence[Picture], batch_size: int | None) -> list[Tensor | str]:
        """One by one: larger batches are no faster on a processor, and sizes differ."""
        return [self._described(picture) for picture in pictures]

    def quality(self, descriptions: Tensor) -> Tensor:
        """What lite itself scores pictures of these descriptions (N, D), 0 to 10: (N,)."""
        with torch.inference_mode():
            scores = descriptions[:, : self.parts["scores"]].to(self.network.weight.device)
            return on_scale(self.network.lite.combine(scores)).cpu()

    def _described(self, picture: Picture) -> Tensor | str:
        with torch.inference_mode():
            rgb = unit_range(picture, self.network.weight.device)[None]
            description = torch.cat([self.network.describe(rgb), describe_colours(rgb)], 1)[0].float().cpu()
        tick(1)
        return description if bool(description.isfinite().all()) else "its features are not finite"
