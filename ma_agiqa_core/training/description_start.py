"""The first weights of a network that takes descriptions: it starts from what ridge regression already knows.

One channel of every token is a ridge regression of each target, the others mix the descriptions' principal components;
then each head's last layer is fitted in closed form to what comes before it. Training goes on from there.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ..model import MaAgiqa
from ..model.description_tokens import GRID, WIDTH, DescriptionTokens
from ..scorers.picture_features.features import PictureFeatures
from .ridge_fit import fit_ridge_on, standardising

COMPONENTS = 32  # principal ones, which the other channels mix
HEAD_PENALTY = 0.1  # of a head's last layer, by picture


@torch.no_grad()
def start_from_descriptions(
    model: MaAgiqa, descriptions: Tensor, labels: Tensor, vectors: Mapping[str, Tensor], features: PictureFeatures
) -> None:
    """Sets the first weights of a model, by the training pictures alone.

    Args:
        model: Takes descriptions; draws the mixture from torch's generator.
        descriptions: (n, D).
        labels: (n, T), NaN for none.
        vectors: Semantic vectors (n, E) by name.
        features: That made the descriptions.
    """
    tokens = model.features
    assert isinstance(tokens, DescriptionTokens)  # a model that takes descriptions
    x, y = descriptions.cpu().double().numpy(), labels.cpu().double().numpy()
    standard = standardising(x, common_scale=features.has_common_scale)
    z = standard.standardise(x)
    offset = z.mean(0)
    rows = []
    for column in y.T:
        has = np.isfinite(column)
        ridge = fit_ridge_on(x[has], column[has], features.parts, common_scale=features.has_common_scale)
        rows.append(ridge.weight / ridge.deviation * standard.deviation)
    tokens.mean.copy_(torch.from_numpy(standard.mean))
    tokens.deviation.copy_(torch.from_numpy(standard.deviation))
    known = np.stack([row / max((z @ row).std(), 1e-6) for row in rows])  # (T, D), unit deviation on the pictures
    mixed = _mixtures(z - offset, GRID[0] * GRID[1] * (WIDTH - len(known)))
    weight = np.zeros((GRID[0] * GRID[1], WIDTH, z.shape[1]))
    weight[:, : len(known)] = known[:WIDTH]
    weight[:, len(known) :] = mixed.reshape(GRID[0] * GRID[1], -1, z.shape[1])
    flat = weight.reshape(-1, z.shape[1])
    tokens.project.weight.copy_(torch.from_numpy(flat))
    tokens.project.bias.copy_(torch.from_numpy(-flat @ offset))
    _fit_heads(model, descriptions, labels, vectors)


def _mixtures(centred: np.ndarray, count: int) -> np.ndarray:
    """(count, D): random mixtures of the principal components, of unit deviation on the pictures."""
    _, values, right = np.linalg.svd(centred, full_matrices=False)
    most = min(COMPONENTS, int((values > 1e-6 * max(values[0], 1e-6)).sum()))
    components = right[:most] / (values[:most, None] / np.sqrt(len(centred)))
    return torch.randn(count, most).double().numpy() / np.sqrt(max(most, 1)) @ components


def _fit_heads(model: MaAgiqa, descriptions: Tensor, labels: Tensor, vectors: Mapping[str, Tensor]) -> None:
    heads: list[Any] = [model.fusion, *model.heads.values()]
    seen: dict[int, Tensor] = {}
    hooks = [
        head.score.register_forward_pre_hook(lambda _, given, place=place: seen.__setitem__(place, given[0]))
        for place, head in enumerate(heads)
    ]
    was_training = model.training
    model.eval().forward_all(descriptions, **vectors)
    model.train(was_training)
    for hook in hooks:
        hook.remove()
    for place, head in enumerate(heads):
        has = labels[:, place].isfinite()
        x, y = seen[place][has].double(), labels[has, place].double()
        mean, deviation = x.mean(0), x.std(0, correction=0).clamp_min(1e-6)
        z = (x - mean) / deviation
        gram = z.T @ z + HEAD_PENALTY * len(z) * torch.eye(z.shape[1], dtype=z.dtype, device=z.device)
        weight = torch.linalg.solve(gram, z.T @ (y - y.mean())) / deviation
        head.score.weight.copy_(weight[None])
        head.score.bias.fill_(float(y.mean() - mean @ weight))
