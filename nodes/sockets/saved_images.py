"""Pictures in ComfyUI's output folder, as Save Image writes them, with our chunk beside its own."""

import json
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import folder_paths
from comfy.cli_args import args
from PIL.PngImagePlugin import PngInfo
from torch import Tensor

from ...ma_agiqa_core.records.png_metadata import PictureMetadata, save_picture
from .images import as_pil

COMPRESS_LEVEL = 4  # as Save Image


def save_in_output(
    pictures: Sequence[Tensor], metadata: Sequence[PictureMetadata | None], prefix: str, hidden: Any
) -> list[dict[str, str]]:
    """Writes one PNG each.

    Args:
        pictures: [H, W, C] as `flattened` gives them.
        metadata: One per picture; None writes no chunk of ours. With `--disable-metadata` no chunk is written at all.
        prefix: As in Save Image: it may name a folder and hold %year%, %width%, %batch_num% and the like; also %score%,
            %percentile%, %rank%, %index% and %seed%, which are "none" where they are not known.
        hidden: `cls.hidden` of the node, with prompt and extra_pnginfo.

    Returns:
        What the node shows: filename, subfolder and type of every file.
    """
    saved = []
    for number, (picture, entry) in enumerate(zip(pictures, metadata, strict=True)):
        height, width = picture.shape[:2]
        # once a picture, since sizes may differ; %batch_num% first, so that the counter is that of the true name
        folder, name, counter, subfolder, _ = folder_paths.get_save_image_path(
            _filled(prefix.replace("%batch_num%", str(number)), entry),
            folder_paths.get_output_directory(),
            width,
            height,
        )
        file = f"{name}_{counter:05}_.png"
        entry, chunks = (None, None) if args.disable_metadata else (entry, _workflow_chunks(hidden))
        save_picture(as_pil(picture), Path(folder, file), entry, chunks, COMPRESS_LEVEL)
        saved.append({"filename": file, "subfolder": subfolder, "type": "output"})
    return saved


def _filled(prefix: str, entry: PictureMetadata | None) -> str:
    known = {} if entry is None else asdict(entry)
    if entry is not None:
        known["score"] = f"{entry.score:.4g}"
        known["percentile"] = None if entry.percentile is None else int(entry.percentile)  # rounded down, as everywhere
    for name in ("score", "percentile", "rank", "index", "seed"):
        value = known.get(name)
        prefix = prefix.replace(f"%{name}%", "none" if value is None else str(value))
    return prefix


def _workflow_chunks(hidden: Any) -> PngInfo:
    """What makes a PNG open its workflow when it is dragged into ComfyUI."""
    chunks = PngInfo()
    if hidden.prompt is not None:
        chunks.add_text("prompt", json.dumps(hidden.prompt))
    for name, value in (hidden.extra_pnginfo or {}).items():
        chunks.add_text(name, json.dumps(value))
    return chunks
