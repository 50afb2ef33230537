"""Made-up scenes at 512 px, and tastes that are known: warm colours, much contrast, large faces of one hue."""

from __future__ import annotations

import colorsys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image
from scipy import ndimage

SIDE = 512  # px
SKIN = 0.07  # hue of the faces that are liked


@dataclass(frozen=True)
class Scene:
    """A picture and what is known of it.

    Attributes:
        rgb: uint8 (512, 512, 3).
        face_hue: Of the large oval in it, 0 to 1.
    """

    rgb: np.ndarray
    face_hue: float

    @property
    def warmth(self) -> float:
        """How much more red there is than blue."""
        return float(self.rgb[..., 0].mean() - self.rgb[..., 2].mean())

    @property
    def contrast(self) -> float:
        """Standard deviation of grey."""
        return float(self.rgb.mean(2).std())

    @property
    def face(self) -> float:
        """How near the face's hue is to the liked one, -1 to 1."""
        return float(np.cos(2 * np.pi * (self.face_hue - SKIN)))


TASTES: dict[str, Callable[[Scene], float]] = {
    "warm colours": lambda scene: scene.warmth,
    "much contrast": lambda scene: scene.contrast,
    "large faces of one hue": lambda scene: scene.face,
}


def make_scene(random: np.random.Generator) -> Scene:
    """Gradients, shapes of random colours, a large face, texture and noise; contrast and tint are random."""
    y, x = np.mgrid[:SIDE, :SIDE] / SIDE
    rgb = np.ones((SIDE, SIDE, 3)) * random.uniform(0.3, 0.6, 3)
    for _ in range(random.integers(2, 5)):
        slope = random.standard_normal(2)
        ramp = x * slope[0] + y * slope[1]
        rgb += 0.12 * random.standard_normal(3) * (ramp - ramp.mean())[..., None]
    for _ in range(random.integers(4, 10)):
        rgb[_oval(x, y, *random.uniform(0, 1, 2), *random.uniform(0.03, 0.12, 2))] = random.uniform(0.2, 0.8, 3)
    hue = float(random.uniform())
    size = random.uniform(0.22, 0.32)
    face = _oval(x, y, *random.uniform(0.35, 0.65, 2), size, 1.25 * size)
    rgb[face] = colorsys.hsv_to_rgb(hue, random.uniform(0.35, 0.7), random.uniform(0.5, 0.85))
    texture = ndimage.gaussian_filter(random.standard_normal((SIDE, SIDE)), random.uniform(0.6, 4))
    rgb += random.uniform(0.01, 0.05) * (texture / texture.std())[..., None]
    rgb = ndimage.gaussian_filter(rgb, (*[random.uniform(0, 1.2)] * 2, 0))
    rgb += random.uniform(0, 0.02) * random.standard_normal(rgb.shape)
    mean = rgb.mean((0, 1))
    rgb = (mean + random.uniform(0.5, 1.5) * (rgb - mean)) * (1 + random.uniform(-0.2, 0.2) * np.array([1, 0, -1]))
    return Scene((rgb.clip(0, 1) * 255).round().astype(np.uint8), hue)


def write_scenes(folder: Path, scenes: Sequence[Scene]) -> list[Path]:
    """Writes them as PNG."""
    folder.mkdir(parents=True, exist_ok=True)
    paths = [folder / f"{number:04d}.png" for number in range(len(scenes))]
    for path, scene in zip(paths, scenes, strict=True):
        Image.fromarray(scene.rgb).save(path, compress_level=1)
    return paths


def _oval(x: np.ndarray, y: np.ndarray, left: float, top: float, width: float, height: float) -> np.ndarray:
    return ((x - left) / width) ** 2 + ((y - top) / height) ** 2 < 1
