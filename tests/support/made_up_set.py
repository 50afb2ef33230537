"""Pictures whose score is known: random scenes, the worse the more noise and blur they were given."""

from __future__ import annotations

import csv
from pathlib import Path

import numpy as np
import PIL.Image
from scipy import ndimage

LOW, HIGH = 1.0, 5.0


def scene(random: np.random.Generator, side: int) -> np.ndarray:
    """(side, side, 3) float in 0..255: a soft background with sharp shapes."""
    noise = random.standard_normal((side, side, 3))
    soft = ndimage.gaussian_filter(noise, (side / 8, side / 8, 0))
    picture = 128 + 45 * soft / soft.std()
    rows, columns = np.mgrid[:side, :side]
    for _ in range(8):
        y, x = random.uniform(0, side, 2)
        height, width = random.uniform(side / 12, side / 4, 2)
        colour = random.uniform(0, 255, 3)
        if random.random() < 0.5:
            inside = (abs(rows - y) < height) & (abs(columns - x) < width)
        else:
            inside = ((rows - y) / height) ** 2 + ((columns - x) / width) ** 2 < 1
        picture[inside] = colour
    return picture


def degraded(picture: np.ndarray, strength: float, random: np.random.Generator) -> np.ndarray:
    """uint8: blurred and then noisy, both in proportion to a strength in 0..1."""
    blurred = ndimage.gaussian_filter(picture, (2.5 * strength, 2.5 * strength, 0))
    noisy = blurred + random.normal(0, 40 * strength, picture.shape)
    return np.rint(noisy.clip(0, 255)).astype(np.uint8)


def write(folder: Path, pictures: int, *, side: int = 64, seed: int = 0) -> Path:
    """Writes folder/pictures/*.png and folder/labels.csv (name, mos, generator, prompt); gives the table's path."""
    random = np.random.default_rng(seed)
    (folder / "pictures").mkdir(parents=True)
    table = folder / "labels.csv"
    with table.open("w", newline="", encoding="utf-8") as file:
        rows = csv.writer(file)
        rows.writerow(["name", "mos", "generator", "prompt"])
        for number in range(pictures):
            strength = random.uniform()
            name = f"{number:04d}.png"
            pixels = degraded(scene(random, side), strength, random)
            PIL.Image.fromarray(pixels).save(folder / "pictures" / name)
            rows.writerow([name, f"{HIGH - (HIGH - LOW) * strength:.4f}", "ab"[number % 2], f"prompt {number // 4}"])
    return table
