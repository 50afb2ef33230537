"""Embeddings of a CLIP, SigLIP or DINOv2 of transformers in a folder: they know what is in a picture.

CLIP and SigLIP give the embedding that they compare with texts (Radford et al. 2021; Zhai et al. 2023), DINOv2 (Oquab
et al. 2023) its class token and the mean of its patches. Each part has length 1.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import PIL.Image
import torch
from torch import Tensor
from torch.nn import functional as F

from ...arguments.options import expanded
from ...compute.batching import run_in_batches
from ...compute.progress import tick
from ...errors import MaAgiqaError, MissingFileError, first_line
from ...model_files.pretrained import load_pretrained
from ...model_files.transformers_folder import fingerprint, read_json, weight_files
from ...pictures.inputs import Picture
from ...preprocess import to_bytes
from .features import PictureFeatures

MODEL_TYPES = {
    "clip": ("clip",),
    "siglip": ("siglip", "siglip2"),
    "dinov2": ("dinov2", "dinov2_with_registers"),
}
"""By the name in `load_features` the model types that it takes."""


class ModelFeatures(PictureFeatures):
    """Embeddings of pictures by a frozen model.

    Args:
        kind: One of `MODEL_TYPES`.
        folder: With config.json, weights and preprocessor_config.json.
        device: Where to compute.

    Raises:
        FileNotFoundError: There is no such folder.
        ValueError: A file is missing or damaged, or it is another kind of model.
    """

    has_common_scale = True

    def __init__(self, kind: str, folder: str | os.PathLike[str], device: torch.device) -> None:
        path = expanded(folder).absolute()
        model_type = _checked_type(kind, path)
        self.source, self.kind = f"{kind}:{path}", kind
        self.revision = fingerprint(path)[:12]
        self._processor = _load_processor(path)
        self.model = _load_model(path, model_type).to(device)
        config = self.model.config
        width = config.hidden_size if kind == "dinov2" else self._embedded(self._blank()).shape[1]
        self.parts = {"class": width, "patches": width} if kind == "dinov2" else {"embedding": width}

    @property
    def networks(self) -> tuple[torch.nn.Module, ...]:
        return (self.model,)

    def describe_group(self, pictures: Sequence[Picture], batch_size: int | None) -> list[Tensor | str]:
        described: list[Tensor | str] = []
        rows: dict[int, Tensor] = {}
        for row, picture in enumerate(pictures):
            try:
                rows[row] = self._pixel_values(picture)
                described.append("")
            except (ValueError, ZeroDivisionError, RuntimeError) as error:  # e.g. 1 pixel high, 5000 wide
                described.append(f"its shape is refused by the model's preprocessing: {error}".rstrip("."))
        if not rows:
            return described
        embedded = run_in_batches(
            list(rows.values()),
            lambda batch: self._embedded(torch.stack(list(batch))),
            device=self._parameter.device,
            what=("picture features", self.source),
            batch_size=batch_size,
        )
        for row, embedding in zip(rows, embedded, strict=True):
            described[row] = embedding if bool(embedding.isfinite().all()) else "its features are not finite"
        return described

    @property
    def _parameter(self) -> Tensor:
        return next(self.model.parameters())

    def _blank(self) -> Tensor:
        return self._values_of(PIL.Image.new("RGB", (64, 64)))[None]

    def _pixel_values(self, picture: Picture) -> Tensor:
        assert picture.pixels is not None  # those that cannot be read are told before
        return self._values_of(PIL.Image.fromarray(to_bytes(picture.pixels).movedim(0, -1).cpu().numpy()))

    def _values_of(self, image: PIL.Image.Image) -> Tensor:
        return self._processor(images=image, return_tensors="pt")["pixel_values"][0]

    def _embedded(self, pixel_values: Tensor) -> Tensor:
        """(B, 3, S, S) -> (B, D) float32 on the CPU."""
        pixels = pixel_values.to(self._parameter.device, self._parameter.dtype)
        with torch.inference_mode():
            if self.kind == "dinov2":
                tokens = self.model(pixel_values=pixels).last_hidden_state.float()
                first = 1 + getattr(self.model.config, "num_register_tokens", 0)
                parts = [tokens[:, 0], tokens[:, first:].mean(1)]
            else:
                found = self.model.get_image_features(pixel_values=pixels)
                parts = [found if isinstance(found, Tensor) else found.pooler_output]  # the latter in transformers 5
            embedded = torch.cat([F.normalize(part.float(), dim=-1) for part in parts], 1).cpu()
        tick(len(pixel_values))
        return embedded


def _checked_type(kind: str, folder: Path) -> str:
    if not folder.is_dir():
        raise MissingFileError(
            f"Expected the folder of a {kind} model for the features, got {str(folder)!r}: no such folder. Put it "
            "back, or learn again with other features."
        )
    found = read_json(folder / "config.json").get("model_type")
    if found not in MODEL_TYPES[kind]:
        other = next((name for name, types in MODEL_TYPES.items() if found in types), None)
        advice = f"Write '{other}:{folder}'." if other else f"Known are {', '.join(MODEL_TYPES)}."
        raise MaAgiqaError(
            f"Expected a model of type {' or '.join(map(repr, MODEL_TYPES[kind]))} in {str(folder)!r}, got {found!r}. "
            f"{advice}"
        )
    weight_files(folder)
    return str(found)


def _load_processor(folder: Path) -> Any:
    from transformers import AutoImageProcessor

    try:
        processor = AutoImageProcessor.from_pretrained(folder, local_files_only=True, trust_remote_code=False)
        processor(images=PIL.Image.new("RGB", (64, 64)), return_tensors="pt")  # wrong settings show only in use
    except Exception as error:  # it raises whatever the first missing file leads to
        raise MaAgiqaError(
            f"Expected picture preprocessing in {str(folder)!r}, got {first_line(error)} Download the model's whole "
            "repository."
        ) from error
    return processor


def _load_model(folder: Path, model_type: str) -> Any:
    from transformers import AutoModel

    return load_pretrained(AutoModel, folder, model_type, torch.float32).eval()
