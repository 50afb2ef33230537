"""Aesthetic Predictor V2.5 (discus0434 2024): as LAION's, over SigLIP, with more kinds of pictures in mind.

    score = w · e / |e| + b,  e the pooled output of SigLIP so400m at 384 pixels

The head's file is licensed AGPL-3.0: it is neither fetched nor shipped here, its user brings it. This module was
written from its numbers alone.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import PIL.Image
from torch import Tensor

from ...compute.caller_state import as_loaded
from ...errors import MaAgiqaError
from ...model_files.hub import is_hub_id
from ..family import Request
from ..scorer import ScorerInfo
from .aesthetic_predictor import AestheticNetwork, Tower, load_predictor
from .clip_pixels import squeezed
from .judge_files import find_weights
from .picture_judge import PictureJudge

FILES = ("aesthetic_predictor_v2_5.pth", "aesthetic_predictor_v2_5.safetensors")
MEAN = STD = (0.5, 0.5, 0.5)
TOWER = Tower(
    model_class="SiglipVisionModel",
    config_class="SiglipVisionConfig",
    repository="google/siglip-so400m-patch14-384",
    model_types=("siglip", "siglip_vision_model"),
    embedding="pooler_output",
    weights=("vision_model.",),
)


class AestheticV25(PictureJudge):
    """The `Scorer`; see `load`."""

    network: AestheticNetwork

    def pixels(self, picture: PIL.Image.Image) -> Tensor:
        return squeezed(picture, int(self.network.tower.config.image_size), MEAN, STD)  # type: ignore[union-attr,arg-type]

    def judge(self, pixels: Tensor, prompts: Sequence[Any]) -> Tensor:
        return self.network(pixels)


@as_loaded()
def load(request: Request) -> AestheticV25:
    """Loads Aesthetic Predictor V2.5 from a file that the user brings.

    `request.model` is aesthetic_predictor_v2_5.pth, a .safetensors of it, or a folder with one of them. The tower,
    config.json and weights of SigLIP, lies beside it, or is google/siglip-so400m-patch14-384.

    Raises:
        FileNotFoundError: There is no such file, or the tower is not on this machine and cannot be downloaded.
        ValueError: No file, another one, a damaged one, or an option does not apply.
    """
    if not request.model or is_hub_id(request.model):
        raise MaAgiqaError(
            f"Expected the file {FILES[0]} that you bring, got {request.model or 'none'!r}. Its licence is AGPL-3.0, "
            "so it is neither shipped nor fetched here: take it from github.com/discus0434/aesthetic-predictor-v2-5, "
            "folder models, and use 'aesthetic-v2.5:FILE'."
        )
    files = find_weights(request, "aesthetic-v2.5", FILES)
    network, revision = load_predictor(
        request, files, "aesthetic-v2.5", TOWER, ("scoring_head.", "layers.scoring_head.")
    )
    info = ScorerInfo(
        name="aesthetic-v2.5",
        revision=revision,
        low=1.0,
        high=10.0,
        trained_on="ratings of pictures by people, see its page",
        targets=("aesthetics",),
        target="aesthetics",
        description="Aesthetic Predictor V2.5: how much people like a picture, whatever it shows; about 1 to 10, above "
        "5.5 is good.",
    )
    return AestheticV25(network, info)
