"""Drawn scenes, 32 x 32 px: an object on the ground under the sky, by a prompt such as "red striped ball".

What the prompt does not say differs from picture to picture: where and how large the object is, how it is turned, where
the light comes from, the colours of ground and sky, the grain of the ground, how wide the stripes are and whether they
are bright or dark, and how sharp the picture is (a third is blurred, as pictures on the web are).
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from ma_agiqa_core.scorers.lite import degradations

SIDE = 32
FINE = 2  # drawn so many times larger, and averaged
COLOURS = {
    "red": (0.80, 0.18, 0.15),
    "yellow": (0.92, 0.78, 0.20),
    "green": (0.20, 0.60, 0.25),
    "blue": (0.2, 0.35, 0.8),
}
SURFACES = ("plain", "striped", "spotted")
KINDS = ("ball", "box", "ring", "cross")
PROMPTS = tuple(f"{colour} {surface} {kind}" for colour in COLOURS for surface in SURFACES for kind in KINDS)
SKY, GROUND = np.array([0.62, 0.74, 0.88]), np.array([0.52, 0.47, 0.38])
BLURRED = 1 / 3

_AXIS = (np.arange(SIDE * FINE) + 0.5) / (SIDE * FINE / 2) - 1
_Y, _X = np.meshgrid(_AXIS, _AXIS, indexing="ij")  # from -1 to 1, y downwards


def scenes(each: int, seed: int) -> tuple[Tensor, Tensor]:
    """Pictures (N, 3, 32, 32) in [0, 1], `each` of every prompt, and the number of each one's prompt (N,)."""
    random = np.random.default_rng(seed)
    numbers = [number for number in range(len(PROMPTS)) for _ in range(each)]
    pictures = [torch.from_numpy(draw(PROMPTS[number], random)).movedim(-1, 0) for number in numbers]
    return torch.stack(pictures), torch.tensor(numbers)


def draw(prompt: str, random: np.random.Generator) -> np.ndarray:
    """(32, 32, 3) float32 in [0, 1]."""
    colour, surface, kind = prompt.split()
    radius, centre = random.uniform(0.5, 0.7), (random.uniform(-0.15, 0.15), random.uniform(-0.1, 0.15))
    light = random.uniform(-1, 1)  # from the left to from the right
    picture = _surroundings(random)
    picture *= 1 - 0.5 * _shadow(centre, radius, light)[..., None]
    tilt = random.uniform(-0.3, 0.3)
    x, y = (_X - centre[0]) / radius, (_Y - centre[1]) / radius
    u, v = x * np.cos(tilt) + y * np.sin(tilt), y * np.cos(tilt) - x * np.sin(tilt)
    depth = np.sqrt((1 - u**2 - v**2).clip(0)) if kind == "ball" else 0.7
    shade = (0.55 + 0.25 * light * x - 0.25 * y + 0.25 * depth).clip(0.25, 1.25)
    paint = np.array(COLOURS[colour]) * random.uniform(0.85, 1.1)
    other = paint * 0.25 if random.random() < 0.5 else np.full(3, 0.95)
    marks = _marks(surface, u * radius, v * radius, random)[..., None]
    picture = np.where(_inside(kind, u, v)[..., None], (paint + marks * (other - paint)) * shade[..., None], picture)
    picture = picture.clip(0, 1).reshape(SIDE, FINE, SIDE, FINE, 3).mean((1, 3)).astype(np.float32)
    if random.random() < BLURRED:
        picture = np.ascontiguousarray(degradations.blur(picture, random.uniform(0.5, 1.5)), np.float32).clip(0, 1)
    return picture


def _surroundings(random: np.random.Generator) -> np.ndarray:
    horizon = random.uniform(-0.3, 0.3)
    sky, ground = (
        colour * random.uniform(0.6, 1.2) + random.normal(0, 0.05, 3) - tone * (_Y - horizon)[..., None]
        for colour, tone in ((SKY, 0.2), (GROUND, -0.15))
    )
    grain = random.normal(0, 1, (SIDE, SIDE)).repeat(FINE, 0).repeat(FINE, 1) * random.choice([0, 0.04, 0.08])
    return np.where((horizon > _Y)[..., None], sky, ground + grain[..., None])


def _shadow(centre: tuple[float, float], radius: float, light: float) -> np.ndarray:
    across = (_X - centre[0] + light * radius / 2) / (1.1 * radius)
    along = (_Y - centre[1] - 0.95 * radius) / (0.3 * radius)
    return np.exp(-((across**2 + along**2) ** 2))


def _inside(kind: str, u: np.ndarray, v: np.ndarray) -> np.ndarray:
    distance = np.hypot(u, v)
    if kind == "ball":
        return distance < 1
    if kind == "ring":
        return (distance < 1) & (distance > 0.5)
    wide, narrow = np.maximum(abs(u), abs(v)), np.minimum(abs(u), abs(v))
    return wide < 0.85 if kind == "box" else (narrow < 0.32) & (wide < 1)


def _marks(surface: str, u: np.ndarray, v: np.ndarray, random: np.random.Generator) -> np.ndarray:
    """1 where the surface has the other colour."""
    width, turn, start = random.uniform(0.34, 0.42), random.uniform(0, np.pi), random.uniform(0, 2 * np.pi)
    if surface == "plain":
        return np.zeros_like(u)
    across, along = u * np.cos(turn) + v * np.sin(turn), v * np.cos(turn) - u * np.sin(turn)
    waves = np.sin(np.pi * across / width + start)
    if surface == "spotted":
        waves = abs(waves * np.sin(np.pi * along / width)) - 0.35
    return (waves > 0).astype(float)
