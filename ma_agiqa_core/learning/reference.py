"""Ordinary pictures to standardise features by: a handful of picks knows little of how much features vary.

The package's four photographs in parts, and each part warmer, colder, greyer, flatter, stronger, darker, brighter,
blurred and noisy. Made on the spot, so that they follow whatever features there are.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import PIL.Image
import PIL.ImageFilter

_PHOTOGRAPHS = Path(__file__).parent.parent / "demo"
_SIDE = 256  # px


def reference_pictures() -> Iterator[np.ndarray]:
    """72 pictures, uint8 (256, 256, 3) RGB, the same ones every time."""
    rng = np.random.default_rng(0)
    for file in sorted(_PHOTOGRAPHS.glob("*.jpg")):
        with PIL.Image.open(file) as image:
            whole = image.convert("RGB")
        width, height = whole.size
        for left, top in ((0, 0), (width - _SIDE, height - _SIDE)):
            part = whole.crop((left, top, left + _SIDE, top + _SIDE))
            yield from _variants(part, rng)


def _variants(part: PIL.Image.Image, rng: np.random.Generator) -> Iterator[np.ndarray]:
    rgb = np.asarray(part, np.float32) / 255
    grey = rgb.mean(2, keepdims=True)
    mean = rgb.mean((0, 1))
    yield _bytes(rgb)
    yield _bytes(rgb * [1.25, 1.0, 0.7])
    yield _bytes(rgb * [0.75, 1.0, 1.25])
    yield _bytes(grey + 0.3 * (rgb - grey))
    yield _bytes(mean + 0.5 * (rgb - mean))
    yield _bytes(mean + 1.8 * (rgb - mean))
    yield _bytes(rgb**1.8)
    yield _bytes(rgb**0.55)
    blurred = np.asarray(part.filter(PIL.ImageFilter.GaussianBlur(1.5)), np.float32) / 255
    yield _bytes(blurred + 0.03 * rng.standard_normal(rgb.shape) * (rng.random() < 0.5))


def _bytes(rgb: np.ndarray) -> np.ndarray:
    return (rgb.clip(0, 1) * 255).round().astype(np.uint8)
