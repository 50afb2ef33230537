"""Pictures with a label that is known, and has nothing to do with the rest of the picture: what a training must find.

Smooth coloured patches with noise, each with one property drawn at random: the radius of a Gaussian blur (0 to 4 px),
contrast, JPEG quality, hue.
"""

from __future__ import annotations

import colorsys
import csv
import io
from collections.abc import Callable
from pathlib import Path

import numpy as np
from PIL import Image, ImageFilter
from scipy import ndimage

SIDE = 256  # px


def _blurred(picture: np.ndarray, share: float) -> Image.Image:
    return _image(picture).filter(ImageFilter.GaussianBlur(4 * share))


def _contrasted(picture: np.ndarray, share: float) -> Image.Image:
    mean = picture.mean((0, 1))
    return _image(mean + (0.3 + 1.2 * share) * (picture - mean))


def _compressed(picture: np.ndarray, share: float) -> Image.Image:
    content = io.BytesIO()
    _image(picture).save(content, "JPEG", quality=round(5 + 90 * share))
    return Image.open(content).convert("RGB")


def _coloured(picture: np.ndarray, share: float) -> Image.Image:
    tint = np.array(colorsys.hsv_to_rgb(0.7 * share, 0.5, 0.8))  # red to blue, no full circle
    return _image(0.6 * picture + 0.4 * tint)


LABELS: dict[str, Callable[[np.ndarray, float], Image.Image]] = {
    "blur": _blurred,
    "contrast": _contrasted,
    "jpeg": _compressed,
    "hue": _coloured,
}


def patches(random: np.random.Generator) -> np.ndarray:
    """(256, 256, 3) in about 0..1: smooth patches of colour, and noise."""
    soft = ndimage.gaussian_filter(random.standard_normal((SIDE, SIDE, 3)), (SIDE / 16, SIDE / 16, 0))
    return 0.5 + 0.18 * soft / soft.std() + 0.05 * random.standard_normal((SIDE, SIDE, 3))


def write_labelled(folder: Path, label: str, pictures: int, seed: int = 0) -> Path:
    """Writes folder/pictures/*.png and folder/labels.csv (name, value); gives the table's path."""
    random = np.random.default_rng(seed)
    (folder / "pictures").mkdir(parents=True)
    table = folder / "labels.csv"
    with table.open("w", newline="", encoding="utf-8") as file:
        rows = csv.writer(file)
        rows.writerow(["name", "value"])
        for number in range(pictures):
            share = random.uniform()
            name = f"{number:04d}.png"
            LABELS[label](patches(random), share).save(folder / "pictures" / name)
            rows.writerow([name, f"{-share if label == 'blur' else share:.4f}"])
    return table


def _image(picture: np.ndarray) -> Image.Image:
    return Image.fromarray((picture.clip(0, 1) * 255).round().astype(np.uint8))
