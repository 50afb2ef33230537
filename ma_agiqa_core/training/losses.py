"""The losses: squared error over the labels there are, and optionally one on the order of pairs."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor


def squared_error(predictions: Tensor, labels: Tensor, counts: Tensor) -> Tensor:
    """This part's share of the mean squared error of a step, summed over the targets.

    Args:
        predictions: (B, T) float.
        labels: (B, T), NaN where a picture has no score for a target.
        counts: (T,): how many labels the whole step has, in all its parts; a target without any counts nothing.

    Returns:
        (), such that the parts of a step add up to the mean.
    """
    has = labels.isfinite()
    errors = torch.where(has, predictions - labels.nan_to_num(), 0)  # 0, not NaN times 0: that is still NaN
    return (errors.square().sum(0) / counts.clamp(min=1)).sum()


def rank_loss(predictions: Tensor, labels: Tensor) -> Tensor:
    """How far pairs are from the order of their labels, by at least the distance of their labels.

    The mean over the pairs with different labels of max(0, |difference of labels| - difference of predictions in
    the labels' direction), summed over the targets: a pairwise hinge loss whose margin is the labels' own distance.

    Args:
        predictions: (B, T) float.
        labels: (B, T), NaN where a picture has no score for a target.

    Returns:
        (), 0 if there are no such pairs.
    """
    wanted = (labels[:, None] - labels[None]).nan_to_num(0)  # (B, B, T)
    found = predictions[:, None] - predictions[None]
    is_pair = wanted > 0
    hinge = torch.where(is_pair, F.relu(wanted - found), 0)
    return (hinge.sum((0, 1)) / is_pair.sum((0, 1)).clamp(min=1)).sum()
