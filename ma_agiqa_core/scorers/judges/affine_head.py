"""Heads of linear layers with nothing between them: one affine map, whatever they are called."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from ...errors import MaAgiqaError

if TYPE_CHECKING:
    from typing import Self

_LAYER = re.compile(r"(\d+)\.(weight|bias)")


class AffineHead(torch.nn.Module):
    """weight · features + bias, in float32 whatever the precision of the rest.

    ImageReward's head and the aesthetic predictors' are five linear layers without activations (dropout is none in
    scoring): their product is one row of weights, computed here in float64.

    Args:
        weight: (D,).
        bias: ().
    """

    def __init__(self, weight: Tensor, bias: Tensor) -> None:
        super().__init__()
        self.weight = torch.nn.Parameter(weight.float(), requires_grad=False)
        self.bias = torch.nn.Parameter(bias.float(), requires_grad=False)

    @classmethod
    def of_layers(cls, layers: Mapping[str, Tensor], prefix: str, *, shift: float = 0.0, scale: float = 1.0) -> Self:
        """The map of all linear layers PREFIX{i}.weight and .bias, in the order of i, then (y - shift) / scale.

        Raises:
            ValueError: There are none, one lacks a part, or they do not fit together to one number.
        """
        numbers = sorted({int(found[1]) for name in layers if (found := _LAYER.fullmatch(name.removeprefix(prefix)))})
        if not numbers:
            raise MaAgiqaError(f"no layers {prefix}0.weight, {prefix}0.bias and so on")
        product: Tensor | None = None
        offset = torch.zeros(1, dtype=torch.float64)
        for number in numbers:
            weight, bias = (layers.get(f"{prefix}{number}.{part}") for part in ("weight", "bias"))
            if weight is None or bias is None or weight.ndim != 2 or bias.shape != weight.shape[:1]:
                raise MaAgiqaError(f"no whole layer {prefix}{number}")
            width = weight.shape[1] if product is None else len(product)
            if weight.shape[1] != width:
                raise MaAgiqaError(f"{tuple(weight.shape)} after {width} features in {prefix}{number}.weight")
            offset = bias.double() if product is None else weight.double() @ offset + bias.double()
            product = weight.double() if product is None else weight.double() @ product
        assert product is not None  # there are numbers
        if len(product) != 1:
            raise MaAgiqaError(f"{len(product)} numbers at the end in the place of 1")
        if not (product.isfinite().all() and offset.isfinite().all()):
            raise MaAgiqaError(f"numbers that are not finite in {prefix}")
        return cls(product[0] / scale, (offset[0] - shift) / scale)

    @property
    def width(self) -> int:
        """How many features it takes."""
        return len(self.weight)

    def forward(self, features: Tensor) -> Tensor:
        """(B, D) -> (B,) float32."""
        return features.float() @ self.weight + self.bias
