"""The training set of the lite scorer: clean pictures, degraded copies, and a target for each.

There are no human ratings in it. The target of a copy is a full-reference quality, 1 for the untouched picture: the
mean of HaarPSI (Reisenhofer et al., 2018), MDSI (Nafchi et al., 2016) and VIF (Sheikh & Bovik, 2006), as `piq` computes
them, each brought to 0..1: they err in different places (VIF is hard on blur, the other two are hard on noise). Where a
degradation moves pixels, so that a full-reference metric would punish what the eye forgives, the level sets the target.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from ....errors import MissingFileError
from ....pictures.reading import read_picture
from ..degradations import FAMILIES, Picture, jpeg, to_bytes

SIDE = 320  # px of a training view
LEVELS = 3  # copies of a view by one family

# Never used for training: their pictures, and whole families. The demo's photographs are among them.
TEST_CONTENTS = frozenset(
    ["astronaut", "chelsea", "coffee", "rocket"]
    + [f"kodim{i:02d}" for i in (3, 7, 12, 16, 20, 23)]
    + ["flux_dev_example", "sd3.5_simple_example", "sdxl_simple_example", "aura_flow_0.2_example"]
    + ["hypernetwork_example_output", "stable_cascade__text_to_image", "qwen_image_basic_example"]
)
UNSEEN_FAMILIES = frozenset(["jpeg2000", "motion_blur", "seams"])

# Pixels move: the target follows the level. (target at level 0, target at level 1)
_MISALIGNED = {"melted": (0.80, 0.10), "warp": (0.85, 0.35), "patches": (0.85, 0.30)}

_SKIMAGE = ("hubble_deep_field.jpg",)
_SKLEARN = ("china.jpg", "flower.jpg")
# CC-BY-4.0 and CC0 pictures of Debian's package lomiri-wallpapers-16.04; the others in it are CC-BY-SA and stay out
_WALLPAPERS = (
    "aitzgorri_by_Aitzol_Berasategi",
    "friends_by_Aitzol_Berasategi",
    "life_by_Aitzol_Berasategi",
    "picosdeeuropa_by_Aitzol_Berasategi",
    "Picture_0B_by_freespace",
    "Picture_1A_by_freespace",
    "seeding_by_Clements_Engelhardt",
    "sunset_by_Aitzol_Berasategi",
    "umang_by_Abhishek_Mudgal",
    "Wine_by_Jakkub_Mede",
)


@dataclass(frozen=True)
class Sample:
    """One training picture: `pixels` (SIDE, SIDE, 3) uint8, and what is known of it."""

    pixels: np.ndarray
    content: str
    view: int
    family: str
    target: float


def find_sources(pictures: Path, wallpapers: Path) -> dict[str, Path]:
    """Clean pictures to train on, by name: all there are but TEST_CONTENTS.

    Args:
        pictures: folder with `photographs/` (Kodak) and `generated/`.
        wallpapers: folder with the JPEG files of Debian's lomiri-wallpapers-16.04.

    Raises:
        FileNotFoundError: a source is missing.
    """
    import skimage
    import sklearn

    packages = {"skimage": Path(skimage.__file__).parent, "sklearn": Path(sklearn.__file__).parent}
    found = sorted((pictures / "photographs").glob("*.png")) + sorted((pictures / "generated").glob("*.png"))
    if not found:
        raise MissingFileError(f"Expected photographs/*.png and generated/*.png in {pictures}, got none.")
    found += [packages["skimage"] / "data" / name for name in _SKIMAGE]
    found += [packages["sklearn"] / "datasets" / "images" / name for name in _SKLEARN]
    found += [wallpapers / f"{name}.jpg" for name in _WALLPAPERS]
    for path in found:
        if not path.is_file():
            raise MissingFileError(
                f"Expected {path}, got nothing there. Wallpapers: `apt-get download lomiri-wallpapers-16.04`, "
                "`dpkg-deb -x *.deb DIR`, then name DIR/usr/share/backgrounds."
            )
    return {path.stem: path for path in found if path.stem not in TEST_CONTENTS}


def make_samples(content: str, path: Path, *, views: int, families: int, seed: int) -> Iterator[Sample]:
    """Views of one clean picture, each with copies by `families` families at LEVELS levels, and by pairs of them."""
    rng = np.random.default_rng([seed, *content.encode()])
    clean = read_picture(path)
    names = sorted(set(FAMILIES) - UNSEEN_FAMILIES)
    for view in range(views):
        original = _random_view(clean, rng)
        yield Sample(to_bytes(original), content, view, "original", 1.0)
        for family in rng.choice(names, families, replace=False):
            state = rng.integers(2**32)
            levels = np.sort((np.arange(LEVELS) + rng.random(LEVELS)) / LEVELS)
            for level in levels:
                copy = FAMILIES[family](original, float(level), np.random.default_rng(state))
                target = quality_target(original, copy, family, level)
                yield Sample(to_bytes(copy), content, view, str(family), target)
        for _ in range(families // 2):
            first, second = rng.choice(names, 2, replace=False)
            strength = rng.random(2)
            copy = FAMILIES[first](original, float(strength[0]), rng)
            middle = quality_target(original, copy, first, strength[0])
            both = FAMILIES[second](copy, float(strength[1]), rng)
            target = min(middle, quality_target(original, both, second, strength[1]))
            if first in _MISALIGNED:
                target = middle * quality_target(copy, both, second, strength[1])
            yield Sample(to_bytes(both), content, view, f"{first}+{second}", target)


def quality_target(original: Picture, copy: Picture, family: str, level: float) -> float:
    """0 (ruined) .. 1 (untouched)."""
    if family in _MISALIGNED:
        best, worst = _MISALIGNED[family]
        return best + (worst - best) * float(level)
    import piq

    a, b = (torch.from_numpy(np.ascontiguousarray(p)).permute(2, 0, 1)[None].clamp(0, 1) for p in (original, copy))
    haarpsi, mdsi, vif = float(piq.haarpsi(a, b)), float(piq.mdsi(a, b)), float(piq.vif_p(a, b))
    # MDSI: 0 is perfect, about .55 is very bad; VIF is steep near 1
    parts = (haarpsi, 1 - mdsi / 0.55, vif**0.5)
    return float(np.mean(np.clip(parts, 0, 1)))


def _random_view(clean: Image.Image, rng: np.random.Generator) -> Picture:
    """A SIDE × SIDE piece at a random scale, sometimes mirrored, sometimes lightly compressed as files on disk are."""
    shortest = min(clean.size)
    smallest = max(SIDE / shortest, 0.35)
    scale = float(np.exp(rng.uniform(np.log(min(smallest, 1.0)), 0))) if smallest < 1 else smallest
    if rng.random() < 0.5 and smallest <= 1:
        scale = 1.0
    size = (max(round(clean.width * scale), SIDE), max(round(clean.height * scale), SIDE))
    view = clean if size == clean.size else clean.resize(size, Image.Resampling.LANCZOS)
    x, y = (int(rng.integers(view.size[axis] - SIDE + 1)) for axis in (0, 1))
    pixels = np.asarray(view.crop((x, y, x + SIDE, y + SIDE)), np.float32) / 255
    if rng.random() < 0.5:
        pixels = pixels[:, ::-1]
    if rng.random() < 0.3:
        pixels = jpeg(pixels, int(rng.integers(90, 98)))
    return np.ascontiguousarray(pixels)
