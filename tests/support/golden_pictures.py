"""Made-up pictures, the same to the last byte on every machine: integers and NumPy's PCG64 only."""

import hashlib
from collections.abc import Iterator
from pathlib import Path

import numpy as np

TABLE = Path(__file__).parents[1] / "golden" / "scores.json"
TOLERANCE = 1e-3  # between processors; on one machine and with one version of torch they are the same within 1e-4


def golden_pictures() -> Iterator[tuple[str, np.ndarray]]:
    """Names, and (H, W, 3) uint8: plain, stepped, noisy, blocky, woven, of several sizes."""
    for seed, (height, width) in enumerate(((64, 64), (96, 160), (224, 224), (301, 257))):
        random = np.random.default_rng(seed)
        rows, columns = np.mgrid[:height, :width]
        steps = ((rows * 3 + columns * 5) // 8 % 256).astype(np.uint8)
        blocks = random.integers(0, 256, (height // 16 + 1, width // 16 + 1, 3), dtype=np.uint8)
        coarse = blocks.repeat(16, 0).repeat(16, 1)[:height, :width]
        noise = random.integers(-24, 25, (height, width, 3))
        woven = ((rows // 3 + columns // 5) % 2 * 120 + 60).astype(np.uint8)
        made = {
            "plain": np.full((height, width, 3), 40 + 50 * seed, np.uint8),
            "steps": np.stack([steps, steps[::-1], steps[:, ::-1]], -1),
            "noise": random.integers(0, 256, (height, width, 3), dtype=np.uint8),
            "blocks": coarse,
            "grainy blocks": (coarse.astype(np.int64) + noise).clip(0, 255).astype(np.uint8),
            "woven": np.repeat(woven[..., None], 3, -1),
        }
        for name, picture in made.items():
            yield f"{name} {width}x{height}", np.ascontiguousarray(picture)


def digest_of_pictures() -> str:
    """SHA-256 over all of them."""
    digest = hashlib.sha256()
    for name, picture in golden_pictures():
        digest.update(f"{name} {picture.shape}\n".encode())
        digest.update(picture.tobytes())
    return digest.hexdigest()
