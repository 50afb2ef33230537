"""LAION's aesthetic predictor v2 (Schuhmann 2022): how much people like a picture, whatever it shows.

    score = w · e / |e| + b,  e the picture's embedding by CLIP ViT-L/14

The head's five linear layers have nothing between them (sac+logos+ava1-l14-linearMSE.pth), so they are w and b. Many
ports differ in the crop: CLIP's own transform is torchvision's.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import PIL.Image
from torch import Tensor

from ...compute.caller_state import as_loaded
from ..family import Request
from ..scorer import ScorerInfo
from .aesthetic_predictor import AestheticNetwork, Tower, load_predictor
from .clip_pixels import centre_crop
from .judge_files import find_weights
from .picture_judge import PictureJudge

FILES = ("sac+logos+ava1-l14-linearMSE.pth", "sac+logos+ava1-l14-linearMSE.safetensors", "aesthetic-model.pth")
WHOLE = "model.safetensors"  # of tower and head in one table
TOWER = Tower(
    model_class="CLIPVisionModelWithProjection",
    config_class="CLIPVisionConfig",
    repository="openai/clip-vit-large-patch14",
    model_types=("clip", "clip_vision_model"),
    embedding="image_embeds",
    weights=("vision_model.", "visual_projection."),
)


class LaionAesthetic(PictureJudge):
    """The `Scorer`; see `load`."""

    network: AestheticNetwork

    def pixels(self, picture: PIL.Image.Image) -> Tensor:
        return centre_crop(picture, int(self.network.tower.config.image_size))  # type: ignore[union-attr,arg-type]

    def judge(self, pixels: Tensor, prompts: Sequence[Any]) -> Tensor:
        return self.network(pixels)


@as_loaded()
def load(request: Request) -> LaionAesthetic:
    """Loads LAION's aesthetic predictor.

    `request.model` is sac+logos+ava1-l14-linearMSE.pth, a .safetensors of it, or a folder or repository with one of
    them. The tower, config.json and weights of CLIP ViT-L/14, lies beside it, or is openai/clip-vit-large-patch14.

    Raises:
        FileNotFoundError: A file is not on this machine and cannot be downloaded.
        ValueError: It is another family's checkpoint, damaged, or an option does not apply.
    """
    files = find_weights(request, "laion-aesthetic", (*FILES, WHOLE))
    network, revision = load_predictor(request, files, "laion-aesthetic", TOWER, ("layers.",))
    info = ScorerInfo(
        name="laion-aesthetic",
        revision=revision,
        low=1.0,
        high=10.0,
        trained_on="SAC, LAION-Logos and AVA: ratings of pictures by people, 1 to 10",
        targets=("aesthetics",),
        target="aesthetics",
        description="LAION's aesthetic predictor v2: how much people like a picture, whatever it shows; about 1 to 10.",
    )
    return LaionAesthetic(network, info)
