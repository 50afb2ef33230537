"""The demo's pictures: photographs carried in the package, and degraded copies made on the spot."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from PIL import Image

from ..scorers.lite import degradations

PHOTOGRAPHS = ("astronaut", "chelsea", "coffee", "rocket")

_COPIES = {
    "blur": lambda picture, rng: degradations.blur(picture, 2.0),
    "jpeg": lambda picture, rng: degradations.jpeg(picture, 10),
    "noise": lambda picture, rng: degradations.noise(picture, 25.0, rng),
    "upscaled": lambda picture, rng: degradations.upscale(picture, 3.0),
    "melted": lambda picture, rng: degradations.FAMILIES["melted"](picture, 0.5, rng),
}


def write_demo_pictures(folder: Path) -> list[Path]:
    """Writes each photograph and its degraded copies as PNG files, the same ones every time.

    Args:
        folder: Made if it is not there; files of the same names are replaced.

    Returns:
        The files, each photograph before its copies.
    """
    folder.mkdir(parents=True, exist_ok=True)
    written = []
    for name in PHOTOGRAPHS:
        with Image.open(Path(__file__).with_name(f"{name}.jpg")) as image:
            photograph = np.asarray(image.convert("RGB"), np.float32) / 255
        rng = np.random.default_rng(0)
        pictures = {name: photograph} | {f"{name}_{kind}": make(photograph, rng) for kind, make in _COPIES.items()}
        for stem, picture in pictures.items():
            written.append(folder / f"{stem}.png")
            Image.fromarray(degradations.to_bytes(picture)).save(written[-1])
    return written
