"""NIQE (Mittal, Soundararajan & Bovik, 2013), after the authors' MATLAB release, fitted on pictures of one's own.

Blocks of 96 px at full and half resolution, 18 features each: the shape and scale of the MSCN coefficients, and the
asymmetric generalised Gaussians of their products with four neighbours. Pristine blocks are those whose mean local
deviation is above 0.75 of the sharpest in their picture. The only change: shapes are interpolated, not looked up.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
from PIL import Image
from scipy import ndimage, special

BLOCK = 96  # px
SHARPNESS = 0.75
_LUMA = (0.298936, 0.587043, 0.114021)  # MATLAB's rgb2gray
_SHIFTS = ((0, 1), (1, 0), (1, 1), (1, -1))
_SHAPES = np.arange(0.2, 10.0005, 0.001)
_RATIOS = special.gamma(2 / _SHAPES) ** 2 / (special.gamma(1 / _SHAPES) * special.gamma(3 / _SHAPES))


@dataclass(frozen=True)
class Niqe:
    """The multivariate Gaussian of pristine blocks: `mean` (36,), `covariance` (36, 36)."""

    mean: np.ndarray
    covariance: np.ndarray

    @classmethod
    def fit(cls, pictures: Iterable[np.ndarray]) -> Niqe:
        """Fits pristine pictures, each (H, W, 3) uint8 RGB."""
        pristine = []
        for rgb in pictures:
            features, sharpness = block_features(rgb)
            pristine.append(features[sharpness > SHARPNESS * sharpness.max()])
        return cls(*_gaussian(np.concatenate(pristine)))

    def quality(self, rgb: np.ndarray) -> float:
        """Minus the distance from pristine pictures, higher is better; NaN for a constant picture.

        Args:
            rgb: (H, W, 3) uint8, at least 96 px on each side.
        """
        mean, covariance = _gaussian(block_features(rgb)[0])
        if not np.isfinite(mean).all():
            return float("nan")
        away = self.mean - mean
        return -float(np.sqrt(away @ np.linalg.pinv((self.covariance + covariance) / 2) @ away))


def block_features(rgb: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Features (N, 36) and sharpness (N,) of the whole blocks; the rest at the right and lower edge is left out.

    Raises:
        ValueError: The picture is smaller than a block.
    """
    rows, columns = (side // BLOCK for side in rgb.shape[:2])
    if not rows or not columns:
        raise ValueError(f"Expected at least {BLOCK} px on each side, got {rgb.shape[1]} × {rgb.shape[0]}.")
    luma = np.rint(rgb[: rows * BLOCK, : columns * BLOCK] @ np.array(_LUMA))  # MATLAB's grey is 8-bit too
    features = []
    sharpness = np.empty(0)
    for block in (BLOCK, BLOCK // 2):
        mean = _window(luma)
        deviation = np.sqrt(np.abs(_window(luma * luma) - mean * mean))
        features.append(_describe(_blocks((luma - mean) / (deviation + 1), block)))
        if block == BLOCK:
            sharpness = _blocks(deviation, block).mean((1, 2))
            half = (columns * BLOCK // 2, rows * BLOCK // 2)
            small = Image.fromarray(luma.astype(np.float32)).resize(half, Image.Resampling.BICUBIC)
            luma = np.asarray(small, np.float64)
    return np.concatenate(features, 1), sharpness


def fit_asymmetric(values: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Moment fit of asymmetric generalised Gaussians: (N, n) -> shape, left and right scale, each (N,).

    NaN where there are no values on one side of 0.
    """
    with np.errstate(invalid="ignore", divide="ignore"):
        squares = values * values
        left = np.sqrt((squares * (values < 0)).sum(1) / (values < 0).sum(1))
        right = np.sqrt((squares * (values > 0)).sum(1) / (values > 0).sum(1))
        balance = left / right
        ratio = np.abs(values).mean(1) ** 2 / squares.mean(1)
        ratio = ratio * (balance**3 + 1) * (balance + 1) / (balance**2 + 1) ** 2
    shape = np.interp(ratio, _RATIOS, _SHAPES)
    scale = np.sqrt(special.gamma(1 / shape) / special.gamma(3 / shape))
    return shape, left * scale, right * scale


def _describe(mscn: np.ndarray) -> np.ndarray:
    """(N, side, side) -> (N, 18)."""
    shape, left, right = fit_asymmetric(mscn.reshape(len(mscn), -1))
    features = [shape, (left + right) / 2]
    for shift in _SHIFTS:
        pairs = mscn * np.roll(mscn, shift, (1, 2))
        shape, left, right = fit_asymmetric(pairs.reshape(len(mscn), -1))
        mean = (right - left) * special.gamma(2 / shape) / special.gamma(1 / shape)
        features += [shape, mean, left, right]
    return np.stack(features, 1)


def _window(plane: np.ndarray) -> np.ndarray:
    """The 7 × 7 Gaussian window of sigma 7/6, edges repeated."""
    return ndimage.gaussian_filter(plane, 7 / 6, radius=3, mode="nearest")


def _blocks(plane: np.ndarray, side: int) -> np.ndarray:
    """(H, W) -> (N, side, side)."""
    H, W = plane.shape
    return plane.reshape(H // side, side, W // side, side).swapaxes(1, 2).reshape(-1, side, side)


def _gaussian(features: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Mean over the values there are; covariance over the blocks without a gap, 0 of fewer than two of them."""
    D = features.shape[1]
    present = np.isfinite(features)
    with np.errstate(invalid="ignore"):
        mean = np.where(present, features, 0).sum(0) / present.sum(0)
    whole = features[present.all(1)]
    return mean, np.cov(whole, rowvar=False) if len(whole) > 1 else np.zeros((D, D))
