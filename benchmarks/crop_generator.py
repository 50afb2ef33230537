"""A harder small text-to-image generator, whose early previews are blends: crops of photographs, 32 x 32 px.

    python -m benchmarks.crop_generator --sheet crops.png      draws crops and pictures of each prompt

Six photographs (two of scikit-learn's samples, four of this package's demo) at three distances: eighteen prompts such
as "cat near". The pipeline is Stable Diffusion's; in the place of a trained network stands what a network is trained to
be, the mean of all crops of the prompt that may lie under the noise (a Gaussian around each, exactly). Distances are
divided, so that it decides for one of them late: until then a preview is a blend of many, and has neither detail nor
the noise of any. A third of the crops is blurred, as pictures on the web are, so that its pictures differ in sharpness.

Nothing is trained, so it is there at once; what it cannot show is a network's own faults.
"""

from __future__ import annotations

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
from torch import Tensor

import ma_agiqa_core.demo
from ma_agiqa_core import CallableScorer, Scorer, load_scorer
from ma_agiqa_core.scorers.lite import degradations

from .small_generator import as_tensors, generate, pipeline_of

SIDE, TOKENS = 32, 4
DISTANCES = {"near": (0.15, 0.25), "middle": (0.35, 0.5), "far": (0.7, 1.0)}  # crops' sides, of the photograph's
SAMPLES = {"temple": "china.jpg", "flower": "flower.jpg"}  # scikit-learn's
DEMO = {"woman": "astronaut", "cat": "chelsea", "cup": "coffee", "rocket": "rocket"}  # this package's
PROMPTS = tuple(f"{thing} {distance}" for thing in (*SAMPLES, *DEMO) for distance in DISTANCES)
CROPS = 200  # of each prompt
BLURRED = 1 / 3
WIDTH = 0.08  # of the Gaussian around each crop, in latents from -1 to 1
LATE = 40.0  # by which distances are divided: without it one crop would win within the first steps


@click.command()
@click.option("--sheet", type=click.Path(path_type=Path), required=True, help="The PNG.")
def main(sheet: Path) -> None:
    from torchvision.utils import save_image

    torch.set_num_threads(1)
    pipe = generator()
    pictures, prompts = crops()
    rows = []
    for number, prompt in enumerate(PROMPTS):
        rows += [pictures[prompts == number][:6], generate(pipe, [prompt] * 10, first_seed=0)]
    save_image(F.interpolate(torch.cat(rows), scale_factor=2), sheet, nrow=16)


class Pixels(ModelMixin, ConfigMixin):
    """An autoencoder that computes nothing: latents are the picture in [-1, 1], (B, 3, H, W)."""

    @register_to_config
    def __init__(self, latent_channels: int = 3, scaling_factor: float = 1.0) -> None:
        super().__init__()
        self.register_to_config(block_out_channels=[0])  # by its length the pipeline knows the scale, 1
        self.nothing = torch.nn.Parameter(torch.zeros(1))  # says device and dtype

    def decode(self, latents: Tensor, return_dict: bool = True, **_: Any) -> Any:
        return DecoderOutput(latents) if return_dict else (latents,)


class PosteriorMean(ModelMixin, ConfigMixin):
    """Predicts the noise by the mean of the prompt's crops that may lie under it.

    Args:
        in_channels, sample_size: What the pipeline asks a network for.
    """

    @register_to_config
    def __init__(self, in_channels: int = 3, sample_size: int = SIDE, time_cond_proj_dim: int | None = None) -> None:
        super().__init__()
        self.nothing = torch.nn.Parameter(torch.zeros(1))
        self.crops = torch.zeros(0)  # (prompts, CROPS, 3 * SIDE**2) in [-1, 1]
        self.words = torch.zeros(0)  # (prompts, D): what the text encoder makes of each prompt
        self.alphas = torch.zeros(0)  # (1000,) cumulative

    def forward(
        self, sample: Tensor, timestep: Tensor, encoder_hidden_states: Tensor, return_dict: bool = True, **_: Any
    ) -> Any:
        alpha = self.alphas[int(timestep)]
        rows = sample.flatten(1)  # (B, D)
        prompts = torch.cdist(encoder_hidden_states.flatten(1), self.words).argmin(1)
        known = self.crops[prompts]  # (B, CROPS, D)
        spread = alpha * WIDTH**2 + 1 - alpha
        away = (rows[:, None] - alpha.sqrt() * known).square().sum(2)
        weights = torch.softmax(-away / (2 * spread * LATE), 1)
        crop = torch.einsum("bk,bkd->bd", weights, known)
        x0 = crop + alpha.sqrt() * WIDTH**2 / spread * (rows - alpha.sqrt() * crop)
        noise = (rows - alpha.sqrt() * x0) / (1 - alpha).sqrt()
        return (noise.view_as(sample),)


# ---------------------------------------------------------------------------------------------------------- generator
@torch.no_grad()
def generator() -> Any:
    """The pipeline: a StableDiffusionPipeline without guidance."""
    torch.manual_seed(0)
    network = PosteriorMean()
    pipe = pipeline_of(Pixels(), tokenizer(), network)
    pipe.text_encoder.eval(), network.eval()
    pictures, prompts = crops()
    by_prompt = [(pictures[prompts == number] * 2 - 1).flatten(1) for number in range(len(PROMPTS))]
    tokens = pipe.tokenizer(
        list(PROMPTS), padding="max_length", max_length=TOKENS, truncation=True, return_tensors="pt"
    ).input_ids
    network.crops, network.words = torch.stack(by_prompt), pipe.text_encoder(tokens)[0].flatten(1)
    network.alphas = pipe.scheduler.alphas_cumprod
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
