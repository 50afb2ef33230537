"""A name becomes features."""

from __future__ import annotations

from pathlib import Path

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


def backbone_of(features: PictureFeatures) -> str:
    """How a model's config names the features that it was trained on."""
    return f"{features.source}@{features.revision}"


def load_described(backbone: str, device: torch.device, path: Path) -> PictureFeatures:
    """The features of a model that takes descriptions.

    Args:
        backbone: As `backbone_of` names them.
        device: Where to compute.
        path: Of the model, for messages; a folder that is no longer where it was is looked for beside it.

    Raises:
        FileNotFoundError: The folder of the features is not there.
        ValueError: The features have another revision than those that the model was trained on.
    """
    source, _, revision = backbone.rpartition("@")
    features = load_features(beside(source, path), device)
    if features.revision != revision:
        raise MaAgiqaError(
            f"Expected the features of {source} in revision {revision!r}, on which {path.name} was trained, got "
            f"{features.revision!r}. Train it again on the same labels."
        )
    return features


def beside(source: str, path: Path) -> str:
    """The features' folder where it was, else one of the same name beside a file: both may have moved together."""
    kind, _, folder = source.partition(":")
    moved = path.parent / Path(folder).name
    return f"{kind}:{moved}" if folder and not Path(folder).is_dir() and moved.is_dir() else source


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
