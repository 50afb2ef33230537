"""A name becomes features."""

from __future__ import annotations

import torch

from ...arguments.options import shown
from ...errors import MaAgiqaError
from .features import PictureFeatures
from .lite_features import LITE

KINDS = (LITE, "clip", "siglip", "dinov2")
_KNOWN = f"Use {LITE!r}, or 'clip:FOLDER', 'siglip:FOLDER' or 'dinov2:FOLDER' with the folder of a model."


def load_features(source: str, device: torch.device) -> PictureFeatures:
    """Loads what pictures are described by.

    Args:
        source: "lite", or "clip:FOLDER", "siglip:FOLDER" or "dinov2:FOLDER" with the folder of a model of transformers.
        device: Where to compute.

    Raises:
        FileNotFoundError: There is no such folder.
        ValueError: Another name, or a folder with another model or parts of one.
    """
    check_source(source)
    kind, _, folder = source.partition(":")
    if kind == LITE:
        from .lite_features import LiteFeatures

        return LiteFeatures(device)
    from .model_features import ModelFeatures

    return ModelFeatures(kind, folder.strip(), device)


def check_source(source: object) -> None:
    """Refuses what names no features, before anything is loaded.

    Raises:
        ValueError: Not one of `KINDS`, or no folder where there must be one.
    """
    if not isinstance(source, str) or (kind := source.partition(":"))[0] not in KINDS:
        raise MaAgiqaError(f"Expected features by their name, got {shown(source)}. {_KNOWN}")
    if kind[0] == LITE and source != LITE:
        raise MaAgiqaError(f"Expected no folder after {LITE!r}, got {source!r}. {_KNOWN}")
    if kind[0] != LITE and not kind[2].strip():
        raise MaAgiqaError(f"Expected a folder after '{kind[0]}:', got none. {_KNOWN}")
