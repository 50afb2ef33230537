"""A student of another scorer: lite's features of a picture, and a thumbnail, with new weights on top.

What a small picture of 8 × 8 pixels adds is where things are: light, colour, layout. Every column of this description
is bent to the normal distribution on the pictures it was taught on, since variances and the like are far from it; the
weights are linear, so that a few hundred pictures teach them (`training/distillation/`); a curve brings their sum to
the teacher's scale.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from ...errors import MaAgiqaError
from . import statistics
from .crop_network import CROP_FEATURES
from .network import MEASURES, Features, LiteNetwork
from .pooling import cell_means

THUMBNAIL = 8  # px along a side
MOST = 4.0  # deviations; beyond what it was taught on, a linear scorer would say anything
KNOTS = 33  # of each curve
PARTS = {
    "scores": len(MEASURES),
    "statistics": len(statistics.FEATURES),
    "crops": CROP_FEATURES,
    "thumbnail": 3 * THUMBNAIL**2,
}
"""The columns of a description, part by part."""


class StudentNetwork(nn.Module):
    """RGB pictures of one size -> the teacher's score.

    Args:
        lite: Extracts the features; its weights stay as they are.
    """

    def __init__(self, lite: LiteNetwork) -> None:
        super().__init__()
        D = sum(PARTS.values())
        self.lite = lite
        # Curves by their knots, both ascending; a row for each column, the last one from sums to scores.
        self.knots = nn.Buffer(torch.linspace(-1, 1, KNOTS).repeat(D + 1, 1))
        self.heights = nn.Buffer(torch.linspace(-1, 1, KNOTS).repeat(D + 1, 1))
        self.weight = nn.Buffer(torch.zeros(D))
        self.limits = nn.Buffer(torch.tensor([-torch.inf, torch.inf]))  # of the teacher's scale

    @classmethod
    def from_state_dict(cls, state: dict[str, Tensor]) -> StudentNetwork:
        """Builds the network of a state dict.

        Raises:
            ValueError: The keys or shapes are not those of a student.
        """
        lite = {name.removeprefix("lite."): tensor for name, tensor in state.items() if name.startswith("lite.")}
        own = {name: tensor.float() for name, tensor in state.items() if not name.startswith("lite.")}
        try:
            network = cls(LiteNetwork.from_state_dict(lite)).float()  # whatever the default dtype is
            network.load_state_dict(
                {f"lite.{name}": tensor for name, tensor in network.lite.state_dict().items()} | own
            )
        except (KeyError, RuntimeError) as error:
            reason = str(error).replace("\n", " ")[:300]
            raise MaAgiqaError(f"Expected the tensors of a student, got others: {reason}.") from error
        return network.eval()

    def forward(self, rgb: Tensor) -> Tensor:
        """(B, 3, H, W) float32 RGB in [0, 1] -> (B,)."""
        return self.predict(self.normalise(self.describe(rgb)))

    score = forward

    def describe(self, rgb: Tensor) -> Tensor:
        """lite's features of a batch of pictures of one size, what any linear scorer on top of lite reads.

        Args:
            rgb: (B, 3, H, W) float32, RGB in [0, 1].

        Returns:
            (B, D) float32, part by part as PARTS lists them: lite's measures (`network.MEASURES`, uncentred), the
            statistics (`statistics.FEATURES`), the mean over the crops of the crop network's pooled maps, and the
            picture at 8 × 8 px (red, green, blue planes). A row depends on its own picture only. The columns are the
            same for every picture, and change only with lite's weights file.
        """
        features: Features = self.lite.extract_features(rgb)
        thumbnail = cell_means(rgb, (THUMBNAIL, THUMBNAIL)).flatten(1)
        return torch.cat([self.lite.predict(features), features.statistics, features.crops.mean(1), thumbnail], 1)

    def normalise(self, description: Tensor) -> Tensor:
        """(B, D), each column with the normal distribution where it was taught."""
        return _on_curves(description, self.knots[:-1], self.heights[:-1]).clamp(-MOST, MOST)

    def predict(self, normal: Tensor) -> Tensor:
        """Normalised descriptions (B, D) -> scores on the teacher's scale: (B,)."""
        sums = (normal @ self.weight)[:, None]
        low, high = self.limits
        return _on_curves(sums, self.knots[-1:], self.heights[-1:])[:, 0].maximum(low).minimum(high)


def _on_curves(x: Tensor, knots: Tensor, heights: Tensor) -> Tensor:
    """(B, D) on D curves, each linear between its knots (D, K) and on beyond the last ones: (B, D)."""
    columns = x.T.contiguous()
    right = torch.searchsorted(knots, columns).clamp(1, knots.shape[1] - 1)
    from_x, to_x = knots.gather(1, right - 1), knots.gather(1, right)
    from_y, to_y = heights.gather(1, right - 1), heights.gather(1, right)
    return torch.lerp(from_y, to_y, (columns - from_x) / (to_x - from_x)).T
