"""A harder small text-to-image generator, taught the drawn scenes, 32 x 32 px: its early previews are blends.

    python -m benchmarks.scene_generator                       trains it (or finds it in the cache), and measures it
    python -m benchmarks.scene_generator --sheet scenes.png    and draws scenes beside its pictures of each prompt

The pipeline is Stable Diffusion's, with a CLIP text encoder and DDIM; autoencoder and network are small ones of our own
(scene_network.py). Where the object lies and how its surface is marked is open in the first steps: previews are blurred
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
from safetensors.torch import load_file, save_file
from torch import Tensor

from ma_agiqa_core.atomic_write import atomic_write

from .machine import machine
from .scene_judges import WATCHER, accuracies, load_or_teach
from .scene_network import Denoiser, PrincipalComponents
from .scenes import COLOURS, KINDS, PROMPTS, SIDE, SURFACES, scenes
from .small_generator import DEFAULT_CACHE, STEPS, generate, pipeline_of

TOKENS = 5
TAUGHT_EACH = 250  # drawings of each prompt; each is seen from the left and from the right
TRAINING_STEPS, BATCH, RATE = 2500, 192, 1e-3
MOMENTS = (100, 300, 500, 700, 900)  # of 1000


@click.command()
@click.option("--cache", type=click.Path(path_type=Path), default=DEFAULT_CACHE, show_default=True, help="Its folder.")
@click.option("--each", default=4, show_default=True, type=click.IntRange(min=1), help="Pictures of each prompt.")
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

        rows = [torch.cat([one[of_fresh == number][:4] for one in (fresh, made)]) for number in range(len(PROMPTS))]
        save_image(F.interpolate(torch.cat(rows), scale_factor=2), sheet, nrow=24)


# ---------------------------------------------------------------------------------------------------------- generator
def load_or_train(cache: Path = DEFAULT_CACHE) -> Any:
    """The pipeline with weights from `cache`, trained and put there where they are not; without guidance."""
    file = cache / f"scenes-{TRAINING_STEPS}.safetensors"
    pipe = untrained()
    parts = torch.nn.ModuleDict({"unet": pipe.unet, "text_encoder": pipe.text_encoder, "vae": pipe.vae})
    if not file.is_file():
        seconds, loss = train(pipe)
        cache.mkdir(parents=True, exist_ok=True)
        with atomic_write(file) as unfinished:
            save_file(parts.state_dict(), unfinished)
        print(f"Trained in {seconds:.0f} s of one core, loss {loss:.4f}; kept in {file}.", flush=True)
    parts.load_state_dict(load_file(file))
    parts.eval()
    return pipe


def train(pipe: Any, steps: int = TRAINING_STEPS, seed: int = 0) -> tuple[float, float]:
    """The processor's seconds that it took, and the mean loss of the last hundred steps."""
    torch.manual_seed(seed)
    start = time.process_time()
    pictures, prompts = scenes(TAUGHT_EACH, seed)
    pictures = torch.cat([pictures, pictures.flip(3)]) * 2 - 1
    prompts = prompts.repeat(2)
    network = pipe.unet
    network.spread.data.copy_(pipe.vae.fit(pictures))
    latents, tokens = pipe.vae.components(pictures).flatten(1), tokens_of(pipe)
    weights = network.spread / network.spread.mean()
    parameters = [one for part in (network, pipe.text_encoder) for one in part.parameters() if one.requires_grad]
    optimizer = torch.optim.AdamW(parameters, lr=RATE, betas=(0.9, 0.99), weight_decay=0.01)
    rate = torch.optim.lr_scheduler.OneCycleLR(optimizer, RATE, total_steps=steps, pct_start=0.1)
    losses = []
    for step in range(steps):
        chosen = torch.randint(len(latents), (BATCH,))
        moments = torch.randint(len(network.alphas), (BATCH,))
        kept, spread, noise = network.preconditioning(moments)
        noisy = (1 - noise).sqrt() * latents[chosen] + noise.sqrt() * torch.randn(BATCH, latents.shape[1])
        wanted = (latents[chosen] - kept * noisy) * spread / (noise.sqrt() * network.spread)
        words = pipe.text_encoder(tokens)[0][prompts[chosen]]
        loss = ((network.perceptron(noisy / spread, moments, words) - wanted).square() * weights).mean()
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(parameters, 1.0)
        optimizer.step()
        rate.step()
        losses.append(loss.item())
        if step % 500 == 499:
            print(f"step {step + 1} of {steps}, loss {sum(losses[-100:]) / 100:.4f}", flush=True)
    return time.process_time() - start, sum(losses[-100:]) / 100


def untrained() -> Any:
    from diffusers import DDIMScheduler

    torch.manual_seed(0)
    pipe = pipeline_of(PrincipalComponents(), tokenizer(), Denoiser())
    pipe.scheduler = DDIMScheduler.from_config(pipe.scheduler.config, prediction_type="sample")
    pipe.unet.alphas.data.copy_(pipe.scheduler.alphas_cumprod)
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
    known, wanted = (pipe.vae.components(pictures * 2 - 1).flatten(1) for pictures in (taught, fresh))
    tokens, network = tokens_of(pipe), pipe.unet
    means = torch.stack([known[of_taught == number].mean(0) for number in range(len(PROMPTS))])
    values, vectors = torch.linalg.eigh(torch.cov((known - means[of_taught]).T))
    lines = [
        "\n| share of noise | network | best linear filter about the prompt's mean | the prompt's mean |",
        "|---|---|---|---|",
    ]
    for moment in MOMENTS:
        alpha = network.alphas[moment]
        noise = torch.randn(wanted.shape, generator=torch.Generator().manual_seed(moment))
        noisy = alpha.sqrt() * wanted + (1 - alpha).sqrt() * noise
        words = pipe.text_encoder(tokens[of_fresh])[0]
        away = (noisy - alpha.sqrt() * means[of_fresh]) @ vectors
        filtered = (away * alpha.sqrt() * values / (alpha * values + 1 - alpha)) @ vectors.T
        said = network(noisy, torch.tensor(moment), words)[0]
        guesses = (said, means[of_fresh] + filtered, means[of_fresh])
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
