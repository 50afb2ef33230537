"""A harder small text-to-image generator, taught the drawn scenes, 32 x 32 px: its early previews are blends.

    python -m benchmarks.scene_generator                       trains it (or finds it in the cache), and measures it
    python -m benchmarks.scene_generator --sheet scenes.png    draws scenes, its pictures and one's previews as well

The pipeline is Stable Diffusion's, of diffusers' own parts: a CLIP text encoder, a `UNet2DConditionModel` that predicts
the velocity, and DDIM. Its latents are the pixels, 4 x 4 of them in a place of their own, so that a network of 8 x 8
places suffices. Where the object lies and how its surface is marked is open in the first steps: previews are blurred
blends, and what a scorer of finished pictures says of them misleads.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import click
import torch
import torch.nn.functional as F
from diffusers import ConfigMixin, ModelMixin
from diffusers.configuration_utils import register_to_config
from diffusers.models.autoencoders.vae import DecoderOutput
from safetensors.torch import load_file, save_file
from torch import Tensor

from .machine import machine
from .scene_judges import WATCHER, accuracies, load_or_teach
from .scenes import COLOURS, KINDS, PROMPTS, SIDE, SURFACES, scenes
from .small_generator import DEFAULT_CACHE, STEPS, generate, pipeline_of

PATCH, TOKENS = 4, 5
SCALE = 1.5  # of latents: their spread is then nearly 1
TAUGHT_EACH = 200  # drawings of each prompt
TRAINING_STEPS, BATCH, RATE = 1400, 24, 2e-3
MOMENTS = (100, 300, 500, 700, 900)  # of 1000


@click.command()
@click.option("--cache", type=click.Path(path_type=Path), default=DEFAULT_CACHE, show_default=True, help="Its folder.")
@click.option("--each", default=6, show_default=True, type=click.IntRange(min=1), help="Pictures of each prompt.")
@click.option("--sheet", type=click.Path(path_type=Path), help="Write drawings beside its pictures as a PNG.")
def main(cache: Path, each: int, sheet: Path | None) -> None:
    torch.set_num_threads(1)
    print(machine(), flush=True)
    pipe = load_or_train(cache)
    taught, of_taught = scenes(TAUGHT_EACH, seed=0)
    fresh, of_fresh = scenes(each, seed=1)
    print(errors_table(pipe, taught, of_taught, fresh, of_fresh), flush=True)
    made = torch.cat(
        [
            generate(pipe, [PROMPTS[int(one)] for one in row], first_seed=number * 48)
            for number, row in enumerate(of_fresh.split(48))
        ]
    )
    print(pictures_table(taught, of_taught, fresh, made, of_fresh, cache), flush=True)
    if sheet is not None:
        from torchvision.utils import save_image

        rows = [torch.cat([one[of_fresh == number][:6] for one in (fresh, made)]) for number in range(len(PROMPTS))]
        save_image(F.interpolate(torch.cat(rows), scale_factor=2), sheet, nrow=24)


class Patches(ModelMixin, ConfigMixin):
    """An autoencoder that only rearranges: latents (B, 48, H / 4, W / 4) are the picture in [-1, 1], times SCALE."""

    @register_to_config
    def __init__(self, latent_channels: int = 3 * PATCH**2, scaling_factor: float = SCALE) -> None:
        super().__init__()
        self.register_to_config(block_out_channels=[0, 0, 0])  # by its length the pipeline knows the scale, 4
        self.nothing = torch.nn.Parameter(torch.zeros(1))  # says device and dtype

    def decode(self, latents: Tensor, return_dict: bool = True, **_: Any) -> Any:
        pictures = F.pixel_shuffle(latents, PATCH)
        return DecoderOutput(pictures) if return_dict else (pictures,)


def latents_of(pictures: Tensor) -> Tensor:
    """(B, 48, 8, 8) of pictures (B, 3, 32, 32) in [0, 1]."""
    return F.pixel_unshuffle(pictures * 2 - 1, PATCH) * SCALE


# ---------------------------------------------------------------------------------------------------------- generator
def load_or_train(cache: Path = DEFAULT_CACHE) -> Any:
    """The pipeline with weights from `cache`, trained and put there where they are not; without guidance."""
    file = cache / f"scenes-{TRAINING_STEPS}.safetensors"
    pipe = untrained()
    parts = torch.nn.ModuleDict({"unet": pipe.unet, "text_encoder": pipe.text_encoder})
    if not file.is_file():
        seconds, loss = train(pipe)
        cache.mkdir(parents=True, exist_ok=True)
        save_file(parts.state_dict(), file.with_suffix(".unfinished"))
        file.with_suffix(".unfinished").replace(file)
        print(f"Trained in {seconds:.0f} s of one core, loss {loss:.4f}; kept in {file}.", flush=True)
    parts.load_state_dict(load_file(file))
    parts.eval()
    return pipe


def train(pipe: Any, steps: int = TRAINING_STEPS, seed: int = 0) -> tuple[float, float]:
    """The processor's seconds that it took, and the mean loss of the last hundred steps."""
    torch.manual_seed(seed)
    pictures, prompts = scenes(TAUGHT_EACH, seed)
    latents = latents_of(pictures)
    tokens = tokens_of(pipe)
    parameters = [*pipe.unet.parameters(), *pipe.text_encoder.parameters()]
    optimizer = torch.optim.AdamW(parameters, lr=RATE, betas=(0.9, 0.99))
    rate = torch.optim.lr_scheduler.OneCycleLR(optimizer, RATE, total_steps=steps, pct_start=0.1)
    losses = []
    start = time.process_time()
    for step in range(steps):
        chosen = torch.randint(len(latents), (BATCH,))
        noise = torch.randn(BATCH, *latents.shape[1:])
        moments = torch.randint(pipe.scheduler.config.num_train_timesteps, (BATCH,))
        noisy = pipe.scheduler.add_noise(latents[chosen], noise, moments)
        wanted = pipe.scheduler.get_velocity(latents[chosen], noise, moments)
        words = pipe.text_encoder(tokens[prompts[chosen]])[0]
        loss = F.mse_loss(pipe.unet(noisy, moments, encoder_hidden_states=words).sample, wanted)
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(parameters, 1.0)
        optimizer.step()
        rate.step()
        losses.append(loss.item())
        if step % 100 == 99:
            print(f"step {step + 1} of {steps}, loss {sum(losses[-100:]) / 100:.4f}", flush=True)
    return time.process_time() - start, sum(losses[-100:]) / 100


def untrained() -> Any:
    from diffusers import DDIMScheduler, UNet2DConditionModel

    torch.manual_seed(0)
    unet = UNet2DConditionModel(
        sample_size=SIDE // PATCH,
        in_channels=3 * PATCH**2,
        out_channels=3 * PATCH**2,
        block_out_channels=(96, 128),
        layers_per_block=1,
        down_block_types=("DownBlock2D", "CrossAttnDownBlock2D"),
        up_block_types=("CrossAttnUpBlock2D", "UpBlock2D"),
        cross_attention_dim=32,
        attention_head_dim=8,
        norm_num_groups=8,
        addition_embed_type="text",  # the words weigh in beside the timestep too
        addition_embed_type_num_heads=4,
    )
    pipe = pipeline_of(Patches(), tokenizer(), unet)
    pipe.scheduler = DDIMScheduler.from_config(pipe.scheduler.config, prediction_type="v_prediction")
    return pipe


def tokenizer() -> Any:
    """One token per word between a beginning and an end."""
    from tokenizers import Tokenizer, models, pre_tokenizers, processors
    from transformers import PreTrainedTokenizerFast

    words = ["<begin>", "<end>", *COLOURS, *SURFACES, *KINDS]
    fast = Tokenizer(models.WordLevel({word: number for number, word in enumerate(words)}))
    fast.pre_tokenizer = pre_tokenizers.Whitespace()
    fast.post_processor = processors.TemplateProcessing(
        "<begin> $A <end>", special_tokens=[("<begin>", 0), ("<end>", 1)]
    )
    return PreTrainedTokenizerFast(
        tokenizer_object=fast, bos_token="<begin>", eos_token="<end>", pad_token="<end>", model_max_length=TOKENS
    )


def tokens_of(pipe: Any, prompts: Sequence[str] = PROMPTS) -> Tensor:
    return pipe.tokenizer(
        list(prompts), padding="max_length", max_length=TOKENS, truncation=True, return_tensors="pt"
    ).input_ids


# --------------------------------------------------------------------------------------------------- what it has learnt
@torch.no_grad()
def errors_table(pipe: Any, taught: Tensor, of_taught: Tensor, fresh: Tensor, of_fresh: Tensor) -> str:
    """Mean squared errors of finding new drawings, in latents, under noise: the network, and what needs no network."""
    known, wanted, tokens = latents_of(taught), latents_of(fresh), tokens_of(pipe)
    means = torch.stack([known[of_taught == number].mean(0) for number in range(len(PROMPTS))])
    values, vectors = torch.linalg.eigh(torch.cov((known - means[of_taught]).flatten(1).T))
    values = values.clamp(min=0)
    lines = [
        "\n| share of noise | network | best linear filter about the prompt's mean | the prompt's mean |",
        "|---|---|---|---|",
    ]
    for moment in MOMENTS:
        alpha = pipe.scheduler.alphas_cumprod[moment]
        noise = torch.randn(wanted.shape, generator=torch.Generator().manual_seed(moment))
        noisy = alpha.sqrt() * wanted + (1 - alpha).sqrt() * noise
        words = pipe.text_encoder(tokens[of_fresh])[0]
        velocity = torch.cat(
            [
                pipe.unet(rows, torch.tensor(moment), encoder_hidden_states=some).sample
                for rows, some in zip(noisy.split(48), words.split(48), strict=True)
            ]
        )
        away = (noisy - alpha.sqrt() * means[of_fresh]).flatten(1) @ vectors
        filtered = (away * alpha.sqrt() * values / (alpha * values + 1 - alpha)) @ vectors.T
        guesses = (
            alpha.sqrt() * noisy - (1 - alpha).sqrt() * velocity,
            means[of_fresh] + filtered.view_as(wanted),
            means[of_fresh],
        )
        errors = [f"{F.mse_loss(guess, wanted).item():.4f}" for guess in guesses]
        lines.append(f"| {(1 - alpha).item():.2f} | {' | '.join(errors)} |")
    return "\n".join(lines)


def pictures_table(taught: Tensor, of_taught: Tensor, fresh: Tensor, made: Tensor, prompts: Tensor, cache: Path) -> str:
    """Whether its pictures show what was asked for, and how near they are to drawings that it was taught."""
    watcher = load_or_teach(WATCHER, cache)
    lines = [
        f"\n{len(made)} pictures, {STEPS} steps.\n",
        "| pictures | right colour | surface | kind | root mean square distance to the nearest drawing taught |",
        "|---|---|---|---|---|",
    ]
    mean = torch.stack([taught[of_taught == number].mean(0) for number in range(len(PROMPTS))])
    for name, pictures in (("generated", made), ("new drawings", fresh), ("the prompt's mean", mean[prompts])):
        right = " | ".join(f"{share:.2f}" for share in accuracies(watcher, pictures, prompts))
        near = [
            torch.cdist(pictures[prompts == number].flatten(1), taught[of_taught == number].flatten(1)).amin(1)
            for number in range(len(PROMPTS))
        ]
        distance = torch.cat(near).mean().item() / (3 * SIDE**2) ** 0.5
        lines.append(f"| {name} | {right} | {distance:.3f} |")
    return "\n".join(lines)


if __name__ == "__main__":
    main()
