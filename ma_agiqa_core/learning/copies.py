"""Which pictures are copies of each other: two files of one picture count once, and no fold may part copies.

Both are told by thumbnails. Two pictures are the same where these differ by less than what another size or compression
does; copies, a wider kind, are also what was blurred, darkened or filtered out of one picture.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

THUMBNAIL = 16  # px along a side
SAME = 0.012  # root mean square difference of thumbnails, of the range
COPIES = 0.97  # correlation of thumbnails

_BLOCK = 512  # rows of the table of distances at a time


def thumbnail(rgb: Tensor) -> np.ndarray:
    """(3, H, W) RGB in [0, 1] -> (768,) float32."""
    return F.adaptive_avg_pool2d(rgb.cpu(), (THUMBNAIL, THUMBNAIL)).flatten().numpy()


def clusters(thumbnails: np.ndarray, *, most: float = SAME, alike: float | None = None) -> np.ndarray:
    """Which pictures belong together, each with those that it is near enough to, and so on.

    Args:
        thumbnails: (N, 768).
        most: Difference up to which two are one.
        alike: Correlation from which two are one as well; None goes by the difference alone.

    Returns:
        (N,) the number of each picture's cluster, from 0 in order of first appearance.
    """
    count = len(thumbnails)
    parent = np.arange(count)

    def root(row: int) -> int:
        while parent[row] != row:
            parent[row] = parent[parent[row]]
            row = int(parent[row])
        return row

    x = torch.from_numpy(np.ascontiguousarray(thumbnails)).double()
    centred = F.normalize(x - x.mean(1, keepdim=True), dim=1)
    for start in range(0, count, _BLOCK):
        block = slice(start, start + _BLOCK)
        near = torch.cdist(x[block], x) / x.shape[1] ** 0.5 < most
        if alike is not None:
            near |= centred[block] @ centred.T > alike
        for left, right in near.nonzero().tolist():
            first, second = sorted((root(start + left), root(right)))
            parent[second] = first
    roots = [root(row) for row in range(count)]
    numbers = {place: number for number, place in enumerate(dict.fromkeys(roots))}
    return np.array([numbers[place] for place in roots], int)


def joined_groups(*labels: np.ndarray) -> np.ndarray:
    """Groups such that pictures which share a label of any kind are in one: (N,) numbers from 0."""
    count = len(labels[0])
    group = np.arange(count)
    while True:
        before = group.copy()
        for label in labels:
            for value in np.unique(label):
                rows = label == value
                group[rows] = group[rows].min()
        if (group == before).all():
            return np.unique(group, return_inverse=True)[1].reshape(count)
