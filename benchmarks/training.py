"""Speed of training against a plain loop, its memory over the epochs, and where there is a GPU its share of the peak.

    python -m benchmarks.training                 CPU: a small ViT; a GPU, where there is one: the true size

The plain loop does what the published code does, straightforwardly: for every picture it decodes and resizes the file
and reads two vectors with torch.load, runs all 12 ViT blocks and takes the outputs of some by hooks, multiplies out
every attention and its softmax, and steps Adam in float32. A second plain loop reads in a process of its own, since
ours reads in threads. All see the same files, start from the same weights and take turns, an epoch each, so that
whatever else the machine does hits all of them.
"""

from __future__ import annotations

import statistics
import tempfile
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import click
import numpy as np
import psutil
import torch
from PIL import Image
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset
from torch.utils.flop_counter import FlopCounterMode

from ma_agiqa_core.labels.labelled_set import LabelledPicture, LabelledSet
from ma_agiqa_core.labels.splits import Split
from ma_agiqa_core.training.augmentation import augmented, generator
from ma_agiqa_core.training.batches import Batches, TrainingData
from ma_agiqa_core.training.losses import squared_error
from ma_agiqa_core.training.network import TrainedNetwork, new_network, new_optimizer
from ma_agiqa_core.training.picture_cache import PictureCache
from ma_agiqa_core.training.progress import TrainingProgress
from ma_agiqa_core.training.settings import PRESETS, TrainingSettings
from ma_agiqa_core.training.train import train

from .machine import machine
from .visual import PlainBranch

BAR = 1.5  # times the plain loop, CPU, a small ViT
PEAK_BAR = 0.4  # of the GPU's dense bfloat16 peak
MINUTES_BAR = 30  # AGIQA-3K's 30 epochs
AGIQA_3K, EPOCHS = 2087, 30  # training pictures of the published split
PICTURES, SIDE = 128, 512  # of AGIQA-3K's usual size
DIM = 4096
VECTORS = ("semantic_content", "coherence")
# A small ViT that is trained from scratch: the tiny preset without its features, wider.
SMALL = replace(
    PRESETS["tiny"],
    features=None,
    model=replace(PRESETS["tiny"].model, stage_widths=(96, 48), swin_mlp_width=96),
)
# Dense bfloat16 tensor peaks in FLOP/s, from NVIDIA's data sheets.
PEAKS = {"H200": 989e12, "H100": 989e12, "A100": 312e12, "L40S": 362e12, "4090": 165e12}


class PlainNetwork(nn.Module):
    """The published computation with the weights of `network`, dropout left out: in the plain loop's favour."""

    def __init__(self, network: TrainedNetwork) -> None:
        super().__init__()
        self.branch = PlainBranch(network.model)

    def forward(self, pixels: Tensor, vectors: dict[str, Tensor]) -> Tensor:
        """As `TrainedNetwork.forward`, from normalised pixels."""
        return self.branch(pixels, vectors)[:, None]


class PlainSet(Dataset):
    """A picture at a time: decoded, resized, augmented, its vectors from two files."""

    def __init__(self, paths: list[Path], vectors: Path, labels: Tensor, settings: TrainingSettings) -> None:
        self.paths, self.vectors, self.labels, self.settings = paths, vectors, labels, settings

    def __len__(self) -> int:
        return len(self.paths)

    def __getitem__(self, row: int) -> tuple[Tensor, dict[str, Tensor], Tensor]:
        side = self.settings.model.image_size
        with Image.open(self.paths[row]) as image:
            resized = image.convert("RGB").resize((side, side), Image.Resampling.BICUBIC)
        pixels = torch.from_numpy(np.array(resized)).permute(2, 0, 1).float().div(127.5).sub(1)
        pixels = augmented(pixels, self.settings, generator(0, row))
        vectors = {name: torch.load(self.vectors / f"{row}-{name}.pt", weights_only=True) for name in VECTORS}
        return pixels, vectors, self.labels[row]


def make_files(folder: Path) -> tuple[list[Path], dict[str, Tensor], Tensor]:
    """Pictures (PNG), a file a vector as the published code keeps them, and labels."""
    random = np.random.default_rng(0)
    paths = []
    for row in range(PICTURES):
        coarse = Image.fromarray(random.integers(0, 256, (SIDE // 8, SIDE // 8, 3), dtype=np.uint8))
        paths.append(folder / f"{row}.png")
        coarse.resize((SIDE, SIDE), Image.Resampling.BICUBIC).save(paths[-1])
    vectors = {name: torch.randn(PICTURES, DIM, generator=torch.Generator().manual_seed(1)) for name in VECTORS}
    for name, values in vectors.items():
        for row in range(PICTURES):
            torch.save(values[row].clone(), folder / f"{row}-{name}.pt")
    return paths, vectors, torch.from_numpy(random.uniform(1, 5, (PICTURES, 1))).float()


def plain_epochs(
    settings: TrainingSettings, paths: list[Path], folder: Path, labels: Tensor, workers: int
) -> Iterator[None]:
    """An epoch each time it is asked."""
    plain = PlainNetwork(start(settings)).train()
    optimizer = torch.optim.Adam(plain.parameters(), lr=settings.rate, weight_decay=settings.weight_decay)
    rows = PlainSet(paths, folder, labels, settings)
    loader = DataLoader(rows, settings.batch, shuffle=True, num_workers=workers, persistent_workers=workers > 0)
    while True:
        for pixels, vectors, batch_labels in loader:
            loss = nn.functional.mse_loss(plain(pixels, vectors), batch_labels)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
        yield


def our_epochs(settings: TrainingSettings, data: TrainingData, device: str = "cpu") -> Iterator[None]:
    """An epoch each time it is asked: the loop of `training_run`, without validation and states on disk."""
    where = torch.device(device)
    network = start(settings).to(where).train()
    optimizer = new_optimizer(network, settings, where)
    batches = Batches(data, settings)
    precision = torch.autocast(where.type, torch.bfloat16, enabled=settings.mixed_precision == "bf16")
    epoch = 0
    while True:
        for batch in (made.to(where) for made in batches.epoch(range(len(data.labels)), epoch)):
            with precision:
                predictions = network(batch.pixels, batch.vectors)
            squared_error(predictions, batch.labels, batch.counts).backward()
            optimizer.step()
            optimizer.zero_grad()
        if where.type == "cuda":
            torch.cuda.synchronize()
        epoch += 1
        yield


def start(settings: TrainingSettings) -> TrainedNetwork:
    """The same weights for all."""
    mean, deviation = torch.tensor([3.0]), torch.tensor([1.0])
    return new_network(settings, targets=("quality",), semantic_dim=DIM, mean=mean, deviation=deviation)


def compare(turns: int) -> None:
    """Prints the CPU's table."""
    settings = replace(SMALL, drop_last=False)
    with tempfile.TemporaryDirectory() as folder:
        paths, vectors, labels = make_files(Path(folder))
        kept = PictureCache(paths, settings.model.image_size)
        kept.keep_in(Path(folder) / "cache")
        pictures = TrainingData(PictureCache(paths, settings.model.image_size), labels, vectors)
        cached = TrainingData(kept, labels, vectors)
        decoding = PictureCache(paths, settings.model.image_size)
        decoding._memory = None  # as for a set that is too large
        decoded = TrainingData(decoding, labels, vectors)
        half = replace(settings, mixed_precision="bf16")
        contenders = {
            "plain": plain_epochs(settings, paths, Path(folder), labels, 0),
            "plain, read by a worker process": plain_epochs(settings, paths, Path(folder), labels, 1),
            "ours": our_epochs(settings, pictures),
            "ours, --mixed-precision bf16": our_epochs(half, pictures),
            "ours, a set too large for memory": our_epochs(settings, decoded),
            "ours, the same with --picture-cache": our_epochs(settings, cached),
        }
        seconds: dict[str, list[float]] = {name: [] for name in contenders}
        for turn in range(-1, turns):  # the first warms up
            for name, epochs in contenders.items():
                began = time.perf_counter()
                next(epochs)
                if turn >= 0:
                    seconds[name].append(time.perf_counter() - began)
    print(
        f"\nCPU, {torch.get_num_threads()} thread(s), preset tiny with semantic vectors, batch {settings.batch}, ",
        end="",
    )
    print(f"{PICTURES} pictures of {SIDE} px, {turns} turns of an epoch\n")
    print("| loop | s per epoch: median (spread) | pictures/s | faster than plain |")
    print("|---|---|---|---|")
    medians = {name: statistics.median(times) for name, times in seconds.items()}
    for name, times in seconds.items():
        spread = f"{medians[name]:.2f} ({min(times):.2f}–{max(times):.2f})"
        print(f"| {name} | {spread} | {PICTURES / medians[name]:.1f} | {medians['plain'] / medians[name]:.2f} |")
    print(
        "\nOurs keeps a small set's resized pictures in memory: its first epoch, left out here, is as with a large set."
    )
    ratio = medians["plain"] / medians["ours"]
    print(f"\nBar, at least {BAR} times the plain loop: {ratio:.2f}, {'met' if ratio >= BAR else 'MISSED'}.")


def memory(epochs: int) -> None:
    """Prints what the process holds after some epochs of `train` itself, states and validation included."""

    class Resident(TrainingProgress):
        megabytes: list[float]

        def epoch_ends(self, figures: dict[str, object]) -> None:
            self.megabytes.append(psutil.Process().memory_info().rss / 1e6)

    resident = Resident()
    resident.megabytes = []
    with tempfile.TemporaryDirectory() as folder:
        paths, _, labels = make_files(Path(folder))
        pictures = tuple(
            LabelledPicture(path, path.name, {"quality": score})
            for path, score in zip(paths, labels[:, 0].tolist(), strict=True)
        )
        settings = replace(SMALL, epochs=epochs)
        rows = range(PICTURES)
        split = Split(tuple(rows[:96]), tuple(rows[96:112]), tuple(rows[112:]))
        train(
            settings, LabelledSet("made", pictures, 1, 5), split, Path(folder) / "run", device="cpu", progress=resident
        )
    shown = sorted({1, 2, *range(5, epochs + 1, 5)})
    print("\n| epoch | " + " | ".join(map(str, shown)) + " |")
    print("|---" * (len(shown) + 1) + "|")
    print("| resident, MB | " + " | ".join(f"{resident.megabytes[epoch - 1]:.0f}" for epoch in shown) + " |")


def on_gpu(batch: int) -> None:
    """Prints the share of the peak at true size, and what AGIQA-3K's 30 epochs take."""
    if not torch.cuda.is_available():
        print("\nGPU, true size: skipped, this machine has no GPU.")
        return
    settings = replace(PRESETS["ma-agiqa"], pretrained=False, batch=batch, mixed_precision="bf16")
    rows, size = 16 * batch, settings.model.image_size

    class Made(PictureCache):
        def __getitem__(self, row: int) -> Tensor:
            return pixels[row % len(pixels)]

    pixels = torch.randint(0, 256, (batch, 3, size, size), dtype=torch.uint8)
    labels = torch.rand(rows, 1) * 5
    data = TrainingData(Made([], size), labels, {name: torch.randn(rows, DIM) for name in VECTORS})
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        start(settings)(pixels[:1], {name: torch.zeros(1, DIM) for name in VECTORS})
    flops = 3 * counter.get_total_flops()  # of a picture; backward is twice the forward
    epochs = our_epochs(settings, data, "cuda")
    next(epochs)
    times = []
    for _ in range(3):
        began = time.perf_counter()
        next(epochs)
        times.append(time.perf_counter() - began)
    pace = rows / statistics.median(times)
    name = torch.cuda.get_device_name()
    peak = next((value for part, value in PEAKS.items() if part in name), None)
    minutes = AGIQA_3K * EPOCHS / pace / 60
    print(f"\n{name}, bfloat16, true size, batch {batch}: {pace:.0f} pictures/s, {pace * flops / 1e12:.0f} TFLOP/s")
    share = "peak unknown" if peak is None else f"{pace * flops / peak:.0%} of {peak / 1e12:.0f} TFLOP/s"
    print(f"Share of the peak: {share} (bar {PEAK_BAR:.0%}). AGIQA-3K's {EPOCHS} epochs: {minutes:.1f} min ", end="")
    print(f"of steps (bar {MINUTES_BAR}); pictures from memory, without validation.")


@click.command()
@click.option("--turns", default=5, show_default=True)
@click.option("--threads", default=1, show_default=True, help="Of the CPU.")
@click.option("--epochs", default=20, show_default=True, help="Of the memory's table.")
@click.option("--gpu-batch", default=64, show_default=True)
def main(turns: int, threads: int, epochs: int, gpu_batch: int) -> None:
    torch.set_num_threads(threads)
    print(machine())
    compare(turns)
    memory(epochs)
    on_gpu(gpu_batch)


if __name__ == "__main__":
    main()
