"""The measures against plain formulas and timm; nothing here needs the trained weights."""

import numpy as np
import pytest
import timm
import torch
from scipy.spatial.distance import mahalanobis
from torch import nn

from ma_agiqa_core.scorers.lite import measures, network, statistics
from ma_agiqa_core.scorers.lite.crop_network import CROP, CROP_SPACING, CropNetwork, spread_crops
from ma_agiqa_core.scorers.lite.recipe.train import fold_normalisation


def random_network(seed: int = 0) -> network.LiteNetwork:
    torch.manual_seed(seed)
    lite = network.LiteNetwork(vectors=5)
    for buffer in (lite.support_vectors.vectors, lite.support_vectors.dual):
        buffer.normal_()
    return lite.eval()


@pytest.fixture(scope="module")
def lite() -> network.LiteNetwork:
    return random_network()


def test_support_vectors_are_a_gaussian_kernel_machine(lite: network.LiteNetwork) -> None:
    machine = lite.support_vectors
    features = torch.rand(3, len(statistics.FEATURES), generator=torch.Generator().manual_seed(0))
    columns = [statistics.FEATURES.index(name) for name in statistics.LUMA_FEATURES]
    x = np.clip(features[:, columns].numpy() * 2 - 1, -1.5, 1.5)  # low 0, high 1
    squared = ((x[:, None] - machine.vectors.numpy()[None]) ** 2).sum(-1)
    np.testing.assert_allclose(machine(features), np.exp(-squared) @ machine.dual.numpy(), rtol=1e-4)


@pytest.mark.parametrize("count", [1, 2, 90])
def test_pristine_distance_is_niqes(count: int) -> None:
    """sqrt(d' ((S1 + S2) / 2)^-1 d) between the pristine Gaussian and that of the blocks, in float64 by scipy."""
    distance = measures.PristineDistance()
    D = len(statistics.BLOCK_FEATURES)
    rng = np.random.default_rng(0)
    root = rng.normal(size=(D, D))
    mean, deviation, covariance = rng.normal(size=D), rng.uniform(0.5, 3, D), root @ root.T / D + np.eye(D)
    for buffer, value in ((distance.mean, mean), (distance.deviation, deviation), (distance.covariance, covariance)):
        buffer.copy_(torch.from_numpy(value))
    blocks = torch.rand(2, count, D, generator=torch.Generator().manual_seed(0))
    columns = [place for place, name in enumerate(statistics.BLOCK_FEATURES) if name.endswith(".contrast")]
    blocks[..., columns] += 5  # colourful
    scale = np.diag(deviation)
    for index in range(2):
        x = blocks[index].double().numpy()
        of_blocks = np.cov(x.T) if count > 1 else np.zeros((D, D))
        inverse = np.linalg.inv((scale @ covariance @ scale + of_blocks) / 2)
        expected = -np.log(mahalanobis(x.mean(0), mean, inverse))
        assert float(distance(blocks)[index]) == pytest.approx(expected, rel=1e-4, abs=1e-4)


def test_chroma_counts_as_much_as_there_is_colour() -> None:
    distance = measures.PristineDistance()
    names = statistics.BLOCK_FEATURES
    blocks = torch.ones(2, 1, len(names))
    blocks[0, 0, [place for place, name in enumerate(names) if name.endswith(".contrast")]] = np.log(0.1)  # none
    blocks[1, 0, [place for place, name in enumerate(names) if name.endswith(".contrast")]] = np.log(0.4)  # faint
    chroma = torch.tensor([name.startswith("chroma") for name in names])
    standard = distance.standardise(blocks)
    assert standard[0, 0, chroma].abs().max() < 1e-6
    assert standard[1, 0, names.index("chroma1.red_green.shape")] == pytest.approx(0.5, abs=0.01)
    assert standard[:, 0, ~chroma].eq(1).all()


def test_far_columns_are_held_back() -> None:
    distance = measures.PristineDistance()
    blocks = torch.zeros(1, 4, len(statistics.BLOCK_FEATURES))
    blocks[..., 0] = 1e6
    assert distance.standardise(blocks).max() == measures.FAR


def test_only_plain_damage_costs(lite: network.LiteNetwork) -> None:
    """Above the threshold the crop network has no say; below it, it costs at most its weight."""
    lite = random_network()
    lite.threshold.fill_(0.5)
    lite.weight.copy_(torch.tensor([0.4, 0.2, 0.1, 0.3]))
    scores = torch.zeros(5, 4)
    scores[:, -1] = torch.tensor([9.0, 0.5, 0.4, -0.5, -1e6])
    got = lite.combine(scores)
    assert got[0] == got[1] == 0
    assert got.diff()[1:].max() < 0
    assert got[3] == pytest.approx(-0.3 * np.tanh(1))
    assert got[4] == pytest.approx(-0.3, abs=1e-4)


def test_crop_network_is_timms_with_its_normalisation_folded() -> None:
    torch.manual_seed(0)
    body = timm.create_model("tf_efficientnet_lite0", features_only=True, out_indices=(1, 2, 3))
    body.blocks = nn.Sequential(*list(body.get_submodule("blocks").children())[:5])
    for module in body.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.running_mean.normal_(std=0.1)  # type: ignore[union-attr]
            module.running_var.uniform_(0.5, 1.5)  # type: ignore[union-attr]
            nn.init.uniform_(module.weight, 0.5, 1.5)
    crop_network = CropNetwork().eval()
    fold_normalisation(body.eval(), crop_network)
    crops = torch.rand(2, 3, CROP, CROP)
    with torch.inference_mode():
        maps = body(crops * 2 - 1)
        pooled = torch.cat([part for m in maps for part in (m.mean((2, 3)), m.flatten(2).std(2))], 1)
        torch.testing.assert_close(crop_network.describe_crops(crops), pooled, rtol=1e-4, atol=1e-4)
        scores = crop_network.head(pooled)[:, 0]
        torch.testing.assert_close(crop_network(crops), scores, rtol=1e-4, atol=1e-4)


def test_crops_are_described_alike_alone_and_together() -> None:
    torch.manual_seed(0)
    crop_network = CropNetwork().eval()
    crops = torch.rand(7, 3, 32, 48)
    with torch.inference_mode():
        alone = torch.cat([crop_network.describe_crops(crop) for crop in crops.split(1)])
        torch.testing.assert_close(crop_network.describe_crops(crops), alone, rtol=1e-4, atol=1e-5)


def test_on_the_cpu_the_batch_changes_no_bit_of_a_pictures_crops() -> None:
    """Their features are trained on; a run that was killed ends the same, whatever batches it reads them in."""
    torch.manual_seed(0)
    crop_network = CropNetwork().eval()
    pictures = torch.rand(3, 3, 200, 400)
    with torch.inference_mode():
        together = crop_network.describe(pictures)
        for picture, described in zip(pictures, together, strict=True):
            assert crop_network.describe(picture[None])[0].equal(described)


@pytest.mark.parametrize(
    ("size", "count"), [((512, 512), 4), ((1024, 1024), 9), ((100, 100), 1), ((192, 1024), 3), ((4000, 400), 6)]
)
def test_crops_reach_from_edge_to_edge(size: tuple[int, int], count: int) -> None:
    H, W = size
    rows, columns = torch.arange(H).view(-1, 1).expand(H, W), torch.arange(W).expand(H, W)
    crops = spread_crops(torch.stack([rows, columns, columns])[None].float())
    assert crops.shape == (1, count, 3, CROP, CROP)
    for axis, side in ((0, H), (1, W)):
        seen = crops[0, :, axis]
        if side >= 1.5 * CROP_SPACING:
            assert (seen.min(), seen.max()) == (0, side - 1)


def test_describing_by_tiles_is_close_to_describing_the_whole(monkeypatch: pytest.MonkeyPatch) -> None:
    picture = torch.rand(1, 3, 400, 500, generator=torch.Generator().manual_seed(0))
    whole, _ = network.describe(picture)
    monkeypatch.setattr(network, "WHOLE", 100_000)
    monkeypatch.setattr(network, "TILE", 250)
    tiled, blocks = network.describe(picture)
    assert blocks.shape[1] == 4 * 9
    assert (whole - tiled).abs().median() < 0.02


def test_no_measure_outweighs_the_others(lite: network.LiteNetwork) -> None:
    """Each adds at most its weight, however far out it is."""
    with torch.inference_mode():
        quality = lite(torch.rand(2, 3, 64, 64) * 0 + torch.rand(2, 1, 1, 1))
    assert quality.abs().max() < 1


def test_round_trip_through_a_state_dict(lite: network.LiteNetwork) -> None:
    again = network.LiteNetwork.from_state_dict(lite.state_dict())
    pixels = torch.rand(1, 3, 200, 200)
    with torch.inference_mode():
        torch.testing.assert_close(again(pixels), lite(pixels))


def test_foreign_tensors_are_refused(lite: network.LiteNetwork) -> None:
    state = lite.state_dict()
    with pytest.raises(ValueError, match=r"lite scorer.*support_vectors.vectors"):
        network.LiteNetwork.from_state_dict({"weight": torch.zeros(3)})
    with pytest.raises(ValueError, match=r"lite 2, got those of lite 1.*distil the student again"):
        network.LiteNetwork.from_state_dict(state | {"statistics_head.hidden.weight": torch.zeros(1)})
    with pytest.raises(ValueError, match=r"lite scorer.*stray"):
        network.LiteNetwork.from_state_dict(state | {"stray": torch.zeros(1)})
    with pytest.raises(ValueError, match=r"lite scorer.*mean"):
        network.LiteNetwork.from_state_dict({k: v for k, v in state.items() if k != "mean"})
