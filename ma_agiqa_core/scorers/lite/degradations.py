"""Degradations of pictures: what cameras and codecs do, and what image generators do.

`TEST_LADDERS` are the fixed three-step ladders of the ordering test. `FAMILIES` train the lite scorer: functions
`(picture, level, rng) -> picture` on (H, W, 3) float32 RGB in [0, 1], whose `level` goes from 0, just visible, to 1,
ruined. Many mock what generators do: melted texture, patches, blotches of an unfinished latent, checkerboards, seams.
"""

from __future__ import annotations

import io
from collections.abc import Callable
from functools import partial

import numpy as np
from PIL import Image
from scipy import ndimage

_LUMA = np.array([0.299, 0.587, 0.114], np.float32)  # BT.601

Picture = np.ndarray  # (H, W, 3) float32 RGB in [0, 1]
Degradation = Callable[[Picture, float, np.random.Generator], Picture]


def to_bytes(picture: Picture) -> np.ndarray:
    """(H, W, 3) in [0, 1] -> uint8, rounded."""
    return (_clip(picture) * 255 + 0.5).astype(np.uint8)


# ---------------------------------------------------------------------------------------------- plain building blocks
def jpeg(picture: Picture, quality: int) -> Picture:
    return _through_codec(picture, "JPEG", quality=int(quality))


def blur(picture: Picture, sigma: float) -> Picture:
    return ndimage.gaussian_filter(picture, (sigma, sigma, 0), mode="nearest")


def noise(picture: Picture, sigma: float, rng: np.random.Generator) -> Picture:
    """White Gaussian noise; sigma on the 0..255 scale."""
    return _clip(picture + rng.standard_normal(picture.shape, dtype=np.float32) * (sigma / 255))


def upscale(picture: Picture, factor: float, resample: Image.Resampling = Image.Resampling.BICUBIC) -> Picture:
    """Shrink by `factor` and enlarge back: the detail of a canvas `factor` times smaller."""
    H, W = picture.shape[:2]
    small = (max(round(W / factor), 1), max(round(H / factor), 1))
    image = _to_image(picture).resize(small, Image.Resampling.BICUBIC)
    return _from_image(image.resize((W, H), resample))


def _without_rng(degrade: Callable[..., Picture], amount: float, p: Picture, rng: np.random.Generator) -> Picture:
    return degrade(p, amount)


def _noisy(sigma: float, p: Picture, rng: np.random.Generator) -> Picture:
    return noise(p, sigma, rng)


TEST_LADDERS: dict[str, tuple[Callable[[Picture, np.random.Generator], Picture], ...]] = {
    "jpeg": tuple(partial(_without_rng, jpeg, q) for q in (60, 30, 10)),
    "blur": tuple(partial(_without_rng, blur, s) for s in (1.0, 2.0, 4.0)),
    "noise": tuple(partial(_noisy, s) for s in (5.0, 15.0, 35.0)),
    "upscaling": tuple(partial(_without_rng, upscale, f) for f in (2.0, 3.0, 4.0)),
}


# ------------------------------------------------------------------------------------- families, level 0 .. 1, random
def _jpeg(p: Picture, level: float, rng: np.random.Generator) -> Picture:
    return jpeg(p, int(_mix(75, 6, level**0.7)))


def _webp(p: Picture, level: float, rng: np.random.Generator) -> Picture:
    return _through_codec(p, "WEBP", quality=int(_mix(60, 0, level**0.7)))


def _jpeg2000(p: Picture, level: float, rng: np.random.Generator) -> Picture:
    rate = float(_log_mix(15, 200, level))
    return _through_codec(p, "JPEG2000", quality_mode="rates", quality_layers=[rate])


def _blur(p: Picture, level: float, rng: np.random.Generator) -> Picture:
    return blur(p, _log_mix(0.6, 6.0, level))


def _disk_blur(p: Picture, level: float, rng: np.random.Generator) -> Picture:
    radius = _log_mix(1.0, 9.0, level)
    span = np.arange(-int(radius) - 1, int(radius) + 2)
    kernel = np.clip(radius + 0.5 - np.hypot(*np.meshgrid(span, span)), 0, 1)
    return _convolve(p, kernel / kernel.sum())


def _motion_blur(p: Picture, level: float, rng: np.random.Generator) -> Picture:
    length, angle = _log_mix(2.0, 24.0, level), rng.uniform(0, np.pi)
    half = int(length) + 1
    kernel = np.zeros((2 * half + 1, 2 * half + 1), np.float32)
    for t in np.linspace(-length / 2, length / 2, 8 * half):
        kernel[half + round(t * np.sin(angle)), half + round(t * np.cos(angle))] += 1
    return _convolve(p, kernel / kernel.sum())


def _white_noise(p: Picture, level: float, rng: np.random.Generator) -> Picture:
    return noise(p, _log_mix(3, 60, level), rng)


def _shot_noise(p: Picture, level: float, rng: np.random.Generator) -> Picture:
    peak = _log_mix(1500, 12, level)
    return _clip(rng.poisson(np.maximum(p, 0) * peak).astype(np.float32) / peak)


def _impulse_noise(p: Picture, level: float, rng: np.random.Generator) -> Picture:
    hit = rng.random(p.shape[:2])
    share = _log_mix(0.001, 0.08, level)
    out = p.copy()
    out[hit < share / 2] = 0
    out[hit > 1 - share / 2] = 1
    return out


def _grain(p: Picture, level: float, rng: np.random.Generator) -> Picture:
    """Correlated noise: what is left when a sampler stops early."""
    sigma = rng.uniform(0.6, 2.5)
    field = ndimage.gaussian_filter(rng.standard_normal(p.shape, dtype=np.float32), (sigma, sigma, 0), mode="wrap")
    return _clip(p + field / field.std() * _log_mix(0.012, 0.16, level))


def _upscale(p: Picture, level: float, rng: np.random.Generator) -> Picture:
    kinds = (
        Image.Resampling.NEAREST,
        Image.Resampling.BILINEAR,
        Image.Resampling.BICUBIC,
        Image.Resampling.LANCZOS,
    )
    return upscale(p, _log_mix(1.4, 9.0, level), kinds[int(rng.integers(4))])


def _upscale_sharpened(p: Picture, level: float, rng: np.random.Generator) -> Picture:
    """A small canvas enlarged by a generator's decoder: soft detail with hard, haloed edges."""
    out = upscale(p, _log_mix(1.5, 7.0, level), Image.Resampling.BICUBIC)
    return _unsharp(out, rng.uniform(1.0, 2.5), rng.uniform(0.8, 2.5))


def _median(p: Picture, level: float, rng: np.random.Generator) -> Picture:
    """Over-smoothing that keeps edges: plastic skin, painted leaves."""
    size = round(_mix(3, 11, level))
    return np.stack([ndimage.median_filter(p[..., c], size=size, mode="nearest") for c in range(3)], -1)


def _edge_preserving(p: Picture, level: float, rng: np.random.Generator) -> Picture:
    """Guided-filter smoothing (He, Sun & Tang, 2010), each channel guided by itself."""
    size, eps = int(_mix(5, 17, level)), _log_mix(0.0008, 0.04, level)
    mean = ndimage.uniform_filter(p, (size, size, 1), mode="nearest")
    variance = ndimage.uniform_filter(p * p, (size, size, 1), mode="nearest") - mean * mean
    gain = variance / (variance + eps)
    gain_mean = ndimage.uniform_filter(gain, (size, size, 1), mode="nearest")
    offset = ndimage.uniform_filter(mean * (1 - gain), (size, size, 1), mode="nearest")
    return _clip(gain_mean * p + offset)


def _melted(p: Picture, level: float, rng: np.random.Generator) -> Picture:
    """Texture that flows: pixels move within a small radius, then are smoothed together."""
    H, W = p.shape[:2]
    reach = _log_mix(1.0, 7.0, level)
    grain = rng.uniform(0.8, 2.5)
    moved = _displace(p, _smooth_field((H, W), grain, rng) * reach, _smooth_field((H, W), grain, rng) * reach)
    return blur(moved, rng.uniform(0.3, 0.9))


def _warp(p: Picture, level: float, rng: np.random.Generator) -> Picture:
    """Shapes bent in places: the anatomy of a failed generation, as far as a filter can mock it."""
    H, W = p.shape[:2]
    wave, reach = rng.uniform(6, 24), _log_mix(1.5, 12, level)
    where = np.clip(_smooth_field((H, W), 40, rng), 0, 1.5)
    return _displace(
        p, _smooth_field((H, W), wave, rng) * reach * where, _smooth_field((H, W), wave, rng) * reach * where
    )


def _patches(p: Picture, level: float, rng: np.random.Generator) -> Picture:
    """Pieces of the picture pasted elsewhere, with soft or hard borders."""
    H, W = p.shape[:2]
    out = p.copy()
    for _ in range(int(_log_mix(2, 40, level))):
        h, w = rng.integers(min(12, H), max(min(H // 4, 72), 13), 2)
        h, w = min(h, H), min(w, W)
        y, x, v, u = (
            rng.integers(H - h + 1),
            rng.integers(W - w + 1),
            rng.integers(H - h + 1),
            rng.integers(W - w + 1),
        )
        mask = np.ones((h, w, 1), np.float32)
        if rng.random() < 0.5:
            mask = np.minimum(1, 4 * np.outer(np.hanning(h + 2)[1:-1], np.hanning(w + 2)[1:-1]))[..., None]
        out[y : y + h, x : x + w] = mask * p[v : v + h, u : u + w] + (1 - mask) * out[y : y + h, x : x + w]
    return out.astype(np.float32)


def _blotches(p: Picture, level: float, rng: np.random.Generator) -> Picture:
    """Colour clouds of a latent that was not finished: noise on a grid 8 px wide, enlarged."""
    H, W = p.shape[:2]
    cells = rng.standard_normal((H // 8 + 2, W // 8 + 2, 3), dtype=np.float32)
    cells = ndimage.gaussian_filter(cells, (rng.uniform(0.3, 1.5),) * 2 + (0,))
    field = ndimage.zoom(cells / cells.std(), (8, 8, 1), order=int(rng.integers(1, 4)))[:H, :W]
    return _clip(p + field * _log_mix(0.02, 0.25, level))


def _unfinished(p: Picture, level: float, rng: np.random.Generator) -> Picture:
    """An early preview: smooth, with blotches and grain."""
    out = blur(p, _log_mix(0.5, 3.5, level))
    return _grain(_blotches(out, level * 0.7, rng), level * 0.5, rng)


def _oversaturated(p: Picture, level: float, rng: np.random.Generator) -> Picture:
    """High guidance: colours and contrast pushed into clipping."""
    grey = p @ _LUMA
    out = grey[..., None] + (p - grey[..., None]) * _mix(1.4, 4.0, level)
    return _clip((out - out.mean()) * _mix(1.1, 2.2, level) + out.mean())


def _washed_out(p: Picture, level: float, rng: np.random.Generator) -> Picture:
    grey = p @ _LUMA
    out = grey[..., None] + (p - grey[..., None]) * _mix(0.7, 0.15, level)
    return _clip((out - 0.5) * _mix(0.75, 0.2, level) + rng.uniform(0.4, 0.65))


def _posterised(p: Picture, level: float, rng: np.random.Generator) -> Picture:
    steps = _log_mix(24, 3, level)
    return _clip(np.round(p * steps) / steps)


def _oversharpened(p: Picture, level: float, rng: np.random.Generator) -> Picture:
    return _unsharp(p, rng.uniform(0.7, 3.0), _log_mix(0.8, 8.0, level))


def _ringing(p: Picture, level: float, rng: np.random.Generator) -> Picture:
    """An ideal low-pass, blended in: ripples beside edges."""
    H, W = p.shape[:2]
    radius = np.hypot(np.fft.fftfreq(H)[:, None], np.fft.rfftfreq(W)[None])
    keep = (radius < _log_mix(0.30, 0.06, level))[..., None]
    return _clip(np.fft.irfft2(np.fft.rfft2(p, axes=(0, 1)) * keep, s=(H, W), axes=(0, 1)).astype(np.float32))


def _checkerboard(p: Picture, level: float, rng: np.random.Generator) -> Picture:
    """The grid that strided transposed convolutions leave."""
    H, W = p.shape[:2]
    period = int(rng.choice([2, 4, 8]))
    tile = rng.standard_normal((period, period, 3), dtype=np.float32)
    tile -= tile.mean((0, 1))
    field = np.tile(tile / tile.std(), (H // period + 1, W // period + 1, 1))[:H, :W]
    strength = (
        ndimage.gaussian_filter(np.abs(p - blur(p, 2.0)).mean(-1), 4)[..., None] / 0.03 if rng.random() < 0.5 else 1
    )
    return _clip(p + field * strength * _log_mix(0.008, 0.09, level))


def _seams(p: Picture, level: float, rng: np.random.Generator) -> Picture:
    """Tiles decoded apart: each has its own offset in colour and place."""
    H, W = p.shape[:2]
    side, out = int(rng.choice([32, 48, 64, 96])), p.copy()
    for y in range(0, H, side):
        for x in range(0, W, side):
            shift = rng.integers(-2, 3, 2) * (rng.random() < level)
            tile = np.roll(p, shift, (0, 1))[y : y + side, x : x + side]
            out[y : y + side, x : x + side] = tile + rng.standard_normal(3, dtype=np.float32) * _log_mix(
                0.01, 0.10, level
            )
    return _clip(out)


FAMILIES: dict[str, Degradation] = {
    "jpeg": _jpeg,
    "webp": _webp,
    "jpeg2000": _jpeg2000,
    "blur": _blur,
    "disk_blur": _disk_blur,
    "motion_blur": _motion_blur,
    "white_noise": _white_noise,
    "shot_noise": _shot_noise,
    "impulse_noise": _impulse_noise,
    "grain": _grain,
    "upscale": _upscale,
    "upscale_sharpened": _upscale_sharpened,
    "median": _median,
    "edge_preserving": _edge_preserving,
    "melted": _melted,
    "warp": _warp,
    "patches": _patches,
    "blotches": _blotches,
    "unfinished": _unfinished,
    "oversaturated": _oversaturated,
    "washed_out": _washed_out,
    "posterised": _posterised,
    "oversharpened": _oversharpened,
    "ringing": _ringing,
    "checkerboard": _checkerboard,
    "seams": _seams,
}


# ------------------------------------------------------------------------------------------------------------ details
def _mix(low: float, high: float, level: float) -> float:
    return low + (high - low) * level


def _log_mix(low: float, high: float, level: float) -> float:
    return low * (high / low) ** level


def _clip(picture: np.ndarray) -> Picture:
    return np.clip(picture, 0, 1).astype(np.float32, copy=False)


def _to_image(picture: Picture) -> Image.Image:
    return Image.fromarray(to_bytes(picture))


def _from_image(image: Image.Image) -> Picture:
    return np.asarray(image.convert("RGB"), np.float32) / 255


def _through_codec(picture: Picture, codec: str, **options: object) -> Picture:
    buffer = io.BytesIO()
    _to_image(picture).save(buffer, codec, **options)
    return _from_image(Image.open(buffer))


def _convolve(picture: Picture, kernel: np.ndarray) -> Picture:
    return np.stack([ndimage.convolve(picture[..., c], kernel, mode="nearest") for c in range(3)], -1)


def _unsharp(picture: Picture, sigma: float, amount: float) -> Picture:
    return _clip(picture + (picture - blur(picture, sigma)) * amount)


def _smooth_field(shape: tuple[int, int], sigma: float, rng: np.random.Generator) -> np.ndarray:
    """Smooth random field of deviation 1."""
    coarse = max(sigma / 3, 1)
    small = (int(shape[0] / coarse) + 2, int(shape[1] / coarse) + 2)
    field = ndimage.gaussian_filter(rng.standard_normal(small, dtype=np.float32), sigma / coarse)
    field = ndimage.zoom(field, (shape[0] / small[0], shape[1] / small[1]), order=1)
    return field / (field.std() + 1e-6)


def _displace(picture: Picture, dy: np.ndarray, dx: np.ndarray) -> Picture:
    y, x = np.mgrid[0 : picture.shape[0], 0 : picture.shape[1]].astype(np.float32)
    where = np.stack([y + dy, x + dx])
    moved = [ndimage.map_coordinates(picture[..., c], where, order=1, mode="nearest") for c in range(3)]
    return np.stack(moved, -1).astype(np.float32)
