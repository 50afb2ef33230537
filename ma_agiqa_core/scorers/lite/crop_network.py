"""The first stages of EfficientNet-Lite0 (Liu, 2020) on crops at native resolution."""

from __future__ import annotations

import math
from typing import Any, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .statistics import mirror_to

CROP = 192  # px, the size the crop network was trained on
CROP_SPACING = 208  # px of a side for each crop
MOST_CROPS = 3  # along a side

# EfficientNet-Lite0 up to stride 16: kernel, stride, expansion, channels, layers; whether its output is used
_STEM = 32
_STAGES = (
    (3, 1, 1, 16, 1, False),
    (3, 2, 6, 24, 2, True),
    (5, 2, 6, 40, 2, True),
    (3, 2, 6, 80, 3, False),
    (5, 1, 6, 112, 3, True),
)
CROP_FEATURES = 2 * (24 + 40 + 112)

# On a processor the maps of one crop fill its caches until they are small: blocks before _FIRST_SMALL take a crop at a
# time, the others a few, so that weights are read less often.
_FIRST_SMALL = 4
_FEW = 5


class CropNetwork(nn.Module):
    """Mean score of evenly spread crops at native resolution. Batch normalisation is folded into the convolutions.

    Convolutions that stride pad as TensorFlow's "same" does: more below and to the right. Everything is computed turned
    by 180 degrees: the larger margin then lies above and to the left, where a convolution's own padding is enough and
    nothing has to be copied. Means and deviations of the maps do not notice.
    """

    def __init__(self) -> None:
        super().__init__()
        self.stem = _convolution(3, _STEM, 3, 2)
        self.blocks = nn.ModuleList()
        self.outputs: list[int] = []
        channels = _STEM
        for kernel, stride, expansion, out, layers, used in _STAGES:
            for layer in range(layers):
                self.blocks.append(_InvertedResidual(channels, out, kernel, stride if layer == 0 else 1, expansion))
                channels = out
            if used:
                self.outputs.append(len(self.blocks) - 1)
        self.head = nn.Sequential(
            nn.LayerNorm(CROP_FEATURES), nn.Linear(CROP_FEATURES, 64), nn.GELU(), nn.Linear(64, 1)
        )

    def forward(self, rgb: Tensor) -> Tensor:
        return self.head(self.describe(rgb))[..., 0].mean(1)

    def describe(self, rgb: Tensor) -> Tensor:
        """(B, 3, H, W) RGB in [0, 1] -> pooled feature maps of K crops, (B, K, 352)."""
        crops = spread_crops(rgb)  # (B, K, 3, 192, 192)
        if rgb.device.type == "cpu":  # picture by picture: to the last bit the others in the batch change nothing
            return torch.stack([self.describe_crops(of_picture) for of_picture in crops])
        return self.describe_crops(crops.flatten(0, 1)).unflatten(0, crops.shape[:2])

    def describe_crops(self, crops: Tensor) -> Tensor:
        """(N, 3, H, W) RGB in [0, 1], sides that 16 divides -> (N, 352)."""
        first, few = (1, _FEW) if crops.device.type == "cpu" else (len(crops), len(crops))
        early: list[Tensor] = []
        maps = []
        for part in crops.split(first):
            x, pooled = self._through(self.stem(self.prepare(part.flip(-2, -1))), 0, _FIRST_SMALL)
            maps.append(x)
            early.append(pooled)
        late = []
        for part in torch.cat(maps).split(few):
            late.append(self._through(part, _FIRST_SMALL, len(self.blocks))[1])
        return torch.cat([torch.cat(early), torch.cat(late)], 1)

    def _through(self, x: Tensor, start: int, stop: int) -> tuple[Tensor, Tensor]:
        """Maps behind block `stop` - 1, and the pooled ones that are used on the way."""
        pooled = []
        for index in range(start, stop):
            x = self.blocks[index](x)
            if index in self.outputs:
                pooled.append(self.pool([x]))
        return x, torch.cat(pooled, 1)

    @staticmethod
    def prepare(crops: Tensor) -> Tensor:
        """RGB in [0, 1] as the first convolution wants it."""
        return (crops * 2 - 1).contiguous(memory_format=torch.channels_last)

    def score_maps(self, maps: list[Tensor]) -> Tensor:
        """Feature maps (N, C, h, w) of the used stages, in any precision -> (N,)."""
        return self.head(self.pool(maps))[:, 0]

    @staticmethod
    def pool(maps: list[Tensor]) -> Tensor:
        """Mean and deviation of every channel: (N, 352)."""
        parts = []
        for x in maps:
            pixels = x.float().permute(0, 2, 3, 1).flatten(1, 2)  # (N, h * w, C), as they lie in memory
            mean = pixels.mean(1)
            square = (pixels - mean[:, None]).square().sum(1) / (pixels.shape[1] - 1)
            parts += [mean, square.clamp_min(1e-12).sqrt()]
        return torch.cat(parts, 1)


class _InvertedResidual(nn.Module):
    """MobileNetV2's block, without squeeze-and-excitation and with ReLU6, as EfficientNet-Lite has it."""

    def __init__(self, channels: int, out: int, kernel: int, stride: int, expansion: int) -> None:
        super().__init__()
        wide = channels * expansion
        layers: list[nn.Module] = [_convolution(channels, wide, 1, 1)] if expansion > 1 else []
        layers += [_convolution(wide, wide, kernel, stride, groups=wide), _Pointwise(wide, out, 1)]
        self.layers = nn.Sequential(*layers)
        self.residual = stride == 1 and channels == out

    def forward(self, x: Tensor) -> Tensor:
        return self.layers(x).add_(x) if self.residual else self.layers(x)


class _Turned(nn.Conv2d):
    """A convolution of pictures that are turned by 180 degrees.

    Its weight is kept turned: to turn it at each call takes a third of the time of most of them. State dicts hold it
    upright.
    """

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.register_state_dict_post_hook(_turn_weight)
        self.register_load_state_dict_pre_hook(_turn_weight)


def _turn_weight(_: nn.Module, state: dict[str, Any], prefix: str, *__: Any) -> None:
    weight = state.get(f"{prefix}weight")
    if weight is not None and weight.dim() == 4:  # else it is damaged, which is told where it is loaded
        state[f"{prefix}weight"] = weight.flip(-2, -1)


class _Pointwise(nn.Conv2d):
    """A convolution of single pixels, as one product of matrices: on a processor much faster."""

    def forward(self, x: Tensor) -> Tensor:
        pixels = x.permute(0, 2, 3, 1)  # (N, h, w, C), as they lie in memory
        N, h, w, C = pixels.shape
        out = F.linear(pixels.reshape(-1, C), self.weight.view(-1, C), self.bias)
        return out.view(N, h, w, -1).permute(0, 3, 1, 2)


class _WithRelu6(nn.Module):
    """A convolution and ReLU6. Keys are those of the published layout: padding (0), convolution (1), activation (2)."""

    def __init__(self, convolution: nn.Conv2d) -> None:
        super().__init__()
        self.add_module("1", convolution)

    def forward(self, x: Tensor) -> Tensor:
        convolution = cast(nn.Conv2d, self._modules["1"])
        return F.hardtanh_(convolution(x), 0.0, 6.0)


def _convolution(channels: int, out: int, kernel: int, stride: int, groups: int = 1) -> _WithRelu6:
    if kernel == 1:
        return _WithRelu6(_Pointwise(channels, out, 1))
    return _WithRelu6(_Turned(channels, out, kernel, stride, padding=kernel // 2, groups=groups))


def spread_crops(rgb: Tensor) -> Tensor:
    """(B, 3, H, W) -> (B, K, 3, 192, 192), K of 1 to 9 by the size of the picture: a grid from edge to edge."""
    rgb = mirror_to(rgb, CROP)
    tops, lefts = (spread(side, CROP, min(max(round(side / CROP_SPACING), 1), MOST_CROPS)) for side in rgb.shape[-2:])
    return torch.stack([rgb[..., top : top + CROP, left : left + CROP] for top in tops for left in lefts], 1)


def spread(side: int, length: int, count: int) -> list[int]:
    """Starts of `count` windows from edge to edge; a single one stands in the middle."""
    if count == 1:
        return [(side - length) // 2]
    return [math.floor(i * (side - length) / (count - 1)) for i in range(count)]
