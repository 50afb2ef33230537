"""A harder small text-to-image generator, whose early previews mislead: crops of photographs, 32 x 32 px.

    python -m benchmarks.crop_generator --sheet crops.png      trains it (or finds it in the cache), draws some pictures

Six photographs (two of scikit-learn's samples, four of this package's demo) at three distances: eighteen prompts such
as "cat near". The parts are those of small_generator.py, but latents are the pixels of 4 x 4 cells: some minutes on one
CPU core. A third of the crops is blurred, as pictures on the web are, so that its pictures differ in sharpness.

The network predicts noise, so an early preview, (x - sigma * noise) / alpha, shows the network's errors many times
enlarged: what looks like detail there is none. `judges` has two scorers of finished pictures that take it for detail.
"""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import click
import numpy as np
import torch
import torch.nn.functional as F
from diffusers import ConfigMixin, ModelMixin
from diffusers.configuration_utils import register_to_config
from diffusers.models.autoencoders.vae import DecoderOutput
from PIL import Image
from safetensors.torch import load_file, save_file
from torch import Tensor

import ma_agiqa_core.demo
from ma_agiqa_core import CallableScorer, Scorer, load_scorer
from ma_agiqa_core.atomic_write import atomic_write
from ma_agiqa_core.scorers.lite import degradations

from .machine import machine
from .small_generator import DEFAULT_CACHE, as_tensors, generate, pipeline_of

SIDE, CELL, TOKENS = 32, 4, 4
DISTANCES = {"near": (0.15, 0.25), "middle": (0.35, 0.5), "far": (0.7, 1.0)}  # crops' sides, of the photograph's
SAMPLES = {"temple": "china.jpg", "flower": "flower.jpg"}  # scikit-learn's
DEMO = {"woman": "astronaut", "cat": "chelsea", "cup": "coffee", "rocket": "rocket"}  # this package's
PROMPTS = tuple(f"{thing} {distance}" for thing in (*SAMPLES, *DEMO) for distance in DISTANCES)
CROPS = 200  # of each prompt
BLURRED = 1 / 3
TRAINING_STEPS, BATCH, RATE = 800, 32, 2e-3


@click.command()
@click.option("--cache", type=click.Path(path_type=Path), default=DEFAULT_CACHE, show_default=True, help="Its folder.")
@click.option("--sheet", type=click.Path(path_type=Path), help="Write crops and pictures of each prompt as a PNG.")
def main(cache: Path, sheet: Path | None) -> None:
    torch.set_num_threads(1)
    print(machine(), flush=True)
    pipe = load_or_train(cache)
    if sheet is not None:
        from torchvision.utils import save_image

        pictures, prompts = crops()
        rows = []
        for number, prompt in enumerate(PROMPTS):
            rows += [pictures[prompts == number][:6], generate(pipe, [prompt] * 10, first_seed=0)]
        save_image(F.interpolate(torch.cat(rows), scale_factor=2), sheet, nrow=16)


class Cells(ModelMixin, ConfigMixin):
    """An autoencoder that computes nothing: latents are a cell's pixels, (B, 3 * CELL**2, H / CELL, W / CELL)."""

    @register_to_config
    def __init__(self, latent_channels: int = 3 * CELL**2, scaling_factor: float = 1.0) -> None:
        super().__init__()
        self.register_to_config(block_out_channels=[0] * 3)  # by its length the pipeline knows the scale, 4
        self.nothing = torch.nn.Parameter(torch.zeros(1))  # says device and dtype

    def decode(self, latents: Tensor, return_dict: bool = True, **_: Any) -> Any:
        pictures = F.pixel_shuffle(latents, CELL)
        return DecoderOutput(pictures) if return_dict else (pictures,)


# ---------------------------------------------------------------------------------------------------------- generator
def load_or_train(cache: Path = DEFAULT_CACHE) -> Any:
    """The pipeline, with weights from `cache`, trained and put there where they are not."""
    file = cache / f"crops-{TRAINING_STEPS}.safetensors"
    pipe = untrained()
    both = torch.nn.ModuleDict({"unet": pipe.unet, "text_encoder": pipe.text_encoder})
    if file.is_file():
        both.load_state_dict(load_file(file))
        return pipe
    seconds, loss = train(pipe)
    cache.mkdir(parents=True, exist_ok=True)
    with atomic_write(file) as temporary:
        save_file(both.state_dict(), temporary)
    print(f"Trained in {seconds:.0f} s on {torch.get_num_threads()} thread(s), loss {loss:.4f}; kept in {file}.")
    return pipe


def train(pipe: Any, steps: int = TRAINING_STEPS, seed: int = 0) -> tuple[float, float]:
    """Trains it; gives the seconds it took and the mean loss of the last hundred steps."""
    torch.manual_seed(seed)
    pictures, prompts = crops()
    latents = F.pixel_unshuffle(pictures * 2 - 1, CELL)
    tokens = pipe.tokenizer(
        list(PROMPTS), padding="max_length", max_length=TOKENS, truncation=True, return_tensors="pt"
    ).input_ids
    parameters = [*pipe.unet.parameters(), *pipe.text_encoder.parameters()]
    optimizer = torch.optim.AdamW(parameters, lr=RATE)
    rate = torch.optim.lr_scheduler.OneCycleLR(optimizer, RATE, total_steps=steps)
    losses = []
    start = time.perf_counter()
    for _ in range(steps):
        chosen = torch.randint(len(latents), (BATCH,))
        noise = torch.randn(BATCH, *latents.shape[1:])
        moments = torch.randint(pipe.scheduler.config.num_train_timesteps, (BATCH,))
        noisy = pipe.scheduler.add_noise(latents[chosen], noise, moments)
        words = pipe.text_encoder(tokens)[0][prompts[chosen]]
        loss = F.mse_loss(pipe.unet(noisy, moments, encoder_hidden_states=words).sample, noise)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        rate.step()
        losses.append(loss.item())
    pipe.unet.eval(), pipe.text_encoder.eval()
    return time.perf_counter() - start, float(np.mean(losses[-100:]))


def untrained() -> Any:
    from diffusers import UNet2DConditionModel

    torch.manual_seed(0)
    unet = UNet2DConditionModel(
        sample_size=SIDE // CELL,
        in_channels=3 * CELL**2,
        out_channels=3 * CELL**2,
        block_out_channels=(48, 96),
        layers_per_block=1,
        down_block_types=("DownBlock2D", "CrossAttnDownBlock2D"),
        up_block_types=("CrossAttnUpBlock2D", "UpBlock2D"),
        cross_attention_dim=32,
        attention_head_dim=4,
        norm_num_groups=8,
    )
    pipe = pipeline_of(Cells(), tokenizer(), unet)
    pipe.unet.eval(), pipe.text_encoder.eval()
    return pipe


def tokenizer() -> Any:
    """One token per word between a beginning and an end."""
    from tokenizers import Tokenizer, models, pre_tokenizers, processors
    from transformers import PreTrainedTokenizerFast

    words = ["<begin>", "<end>", *SAMPLES, *DEMO, *DISTANCES]
    fast = Tokenizer(models.WordLevel({word: number for number, word in enumerate(words)}))
    fast.pre_tokenizer = pre_tokenizers.Whitespace()
    fast.post_processor = processors.TemplateProcessing(
        "<begin> $A <end>", special_tokens=[("<begin>", 0), ("<end>", 1)]
    )
    return PreTrainedTokenizerFast(
        tokenizer_object=fast, bos_token="<begin>", eos_token="<end>", pad_token="<end>", model_max_length=TOKENS
    )


def crops(seed: int = 0) -> tuple[Tensor, Tensor]:
    """Pictures (N, 3, 32, 32) in [0, 1], and the number of each one's prompt (N,)."""
    random = np.random.default_rng(seed)
    pictures, prompts = [], []
    for number, prompt in enumerate(PROMPTS):
        thing, distance = prompt.split()
        photograph = _photograph(thing)
        for _ in range(CROPS):
            side = round(min(photograph.size) * random.uniform(*DISTANCES[distance]))
            left, top = (int(random.integers(0, length - side + 1)) for length in photograph.size)
            box = (left, top, left + side, top + side)
            pixels = np.asarray(photograph.resize((SIDE, SIDE), Image.Resampling.LANCZOS, box), np.float32) / 255
            if random.random() < BLURRED:
                pixels = degradations.blur(pixels, random.uniform(0.7, 2.0))
            pictures.append(torch.from_numpy(np.ascontiguousarray(pixels)).float().clamp(0, 1).movedim(-1, 0))
            prompts.append(number)
    return torch.stack(pictures), torch.tensor(prompts)


def _photograph(thing: str) -> Image.Image:
    if thing in SAMPLES:
        from sklearn.datasets import load_sample_image

        return Image.fromarray(load_sample_image(SAMPLES[thing]))
    with Image.open(Path(ma_agiqa_core.demo.__file__).with_name(f"{DEMO[thing]}.jpg")) as image:
        return image.convert("RGB")


# ------------------------------------------------------------------------------------------------------------- judges
def judges() -> dict[str, Scorer]:
    """`lite`, and the contrast of neighbouring pixels: both want detail, and noise looks like it."""
    return {
        "lite": load_scorer("lite", device="cpu"),
        "detail": CallableScorer(_detail, name="detail", low=-10.0, high=0.0),
    }


def _detail(images: Any, prompts: Any) -> np.ndarray:
    """Natural logarithm of the mean absolute difference of neighbouring pixels, of grey in [0, 1]."""
    grey = as_tensors(images).mean(1)
    across, down = (grey.diff(dim=axis).abs().flatten(1).mean(1) for axis in (1, 2))
    return (across + down).clamp(min=1e-4).log().numpy()


if __name__ == "__main__":
    main()
