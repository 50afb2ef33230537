"""A small text-to-image generator of real diffusers parts, trained in a minute on one CPU core, and judges for it.

    python -m benchmarks.small_generator          trains it (or finds it in the cache) and says how good it is

scikit-learn's 1797 handwritten digits, 8 x 8 px. The prompt is the digit ("7"). The parts are those of Stable
Diffusion, only small: a CLIP tokenizer and text encoder, a `UNet2DConditionModel`, DDIM, and an `AutoencoderTiny`
whose hand-set weights pass pixels through; so `StableDiffusionPipeline` runs, saves and loads it like any other.
Training ends early: about one picture in ten is not the digit that was asked for, so choosing matters.

The judge that chooses is the log-probability of the wanted digit under a logistic regression. A second one, which
only watches, is a nearest-neighbour vote: another kind of model that saw the other half of the digits. What the choice
gains by the first and not by the second was gained by pleasing the judge.
"""

from __future__ import annotations

import json
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import click
import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from ma_agiqa_core import CallableScorer

from .machine import machine

SIDE, DIGITS, TOKENS = 8, 10, 4  # px, classes, tokens of a prompt
TRAINING_STEPS, BATCH, RATE = 500, 64, 2e-3
STEPS = 20  # of generation
FLOOR = 0.01  # least probability of the watching judge: a vote can be 0
DEFAULT_CACHE = Path.home() / ".cache" / "ma-agiqa" / "benchmarks"


@click.command()
@click.option("--cache", type=click.Path(path_type=Path), default=DEFAULT_CACHE, show_default=True, help="Its folder.")
@click.option("--count", default=500, show_default=True, type=click.IntRange(min=10), help="Pictures to look at.")
@click.option("--sheet", type=click.Path(path_type=Path), help="Write some pictures as a PNG.")
def main(cache: Path, count: int, sheet: Path | None) -> None:
    torch.set_num_threads(1)
    print(machine(), flush=True)
    pipe = load_or_train(cache)
    prompts = [str(i % DIGITS) for i in range(count)]
    pictures = torch.cat([generate(pipe, prompts[i : i + 50], first_seed=i) for i in range(0, count, 50)])
    chooser, watcher = judges()
    print(
        f"\n{count} pictures, {STEPS} steps.\n\n| judge | digits of its own held out | pictures, right | mean score |"
    )
    print("|---|---|---|---|")
    for judge, held_out in ((chooser, accuracy(chooser, half=1)), (watcher, accuracy(watcher, half=0))):
        right = recognized(judge, pictures, prompts)
        print(f"| {judge.info.name} | {held_out:.3f} | {right:.3f} | {judge.score(pictures, prompts).mean():.3f} |")
    if sheet is not None:
        from torchvision.utils import save_image

        save_image(F.interpolate(pictures[:100], scale_factor=4), sheet, nrow=10)


# ---------------------------------------------------------------------------------------------------------- generator
def load_or_train(cache: Path = DEFAULT_CACHE) -> Any:
    """The pipeline from `cache`, trained and put there where it is not: a StableDiffusionPipeline without guidance."""
    from diffusers import StableDiffusionPipeline

    folder = cache / f"digits-{TRAINING_STEPS}"
    if not folder.is_dir():
        pipe, seconds, loss = train()
        cache.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=cache) as unfinished:
            pipe.save_pretrained(Path(unfinished, "whole"))
            Path(unfinished, "whole").replace(folder)
        print(f"Trained in {seconds:.0f} s on {torch.get_num_threads()} thread(s), loss {loss:.4f}; kept in {folder}.")
    pipe = StableDiffusionPipeline.from_pretrained(folder)
    pipe.set_progress_bar_config(disable=True)
    return pipe


def train(steps: int = TRAINING_STEPS, seed: int = 0) -> tuple[Any, float, float]:
    """The pipeline, the seconds it took, and the mean loss of the last hundred steps."""
    torch.manual_seed(seed)
    pipe = untrained()
    pictures, labels = digits()
    latents = pictures * 2 - 1
    tokens = pipe.tokenizer(
        [str(digit) for digit in range(DIGITS)], padding="max_length", max_length=TOKENS, return_tensors="pt"
    ).input_ids
    parameters = [*pipe.unet.parameters(), *pipe.text_encoder.parameters()]
    optimizer = torch.optim.AdamW(parameters, lr=RATE)
    rate = torch.optim.lr_scheduler.OneCycleLR(optimizer, RATE, total_steps=steps)
    losses = []
    start = time.perf_counter()
    for _ in range(steps):
        chosen = torch.randint(len(latents), (BATCH,))
        noise = torch.randn(BATCH, 1, SIDE, SIDE)
        moments = torch.randint(pipe.scheduler.config.num_train_timesteps, (BATCH,))
        noisy = pipe.scheduler.add_noise(latents[chosen], noise, moments)
        words = pipe.text_encoder(tokens)[0][labels[chosen]]
        loss = F.mse_loss(pipe.unet(noisy, moments, encoder_hidden_states=words).sample, noise)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        rate.step()
        losses.append(loss.item())
    pipe.unet.eval(), pipe.text_encoder.eval()
    return pipe, time.perf_counter() - start, float(np.mean(losses[-100:]))


def untrained() -> Any:
    from diffusers import UNet2DConditionModel

    unet = UNet2DConditionModel(
        sample_size=SIDE,
        in_channels=1,
        out_channels=1,
        block_out_channels=(32, 64),
        layers_per_block=1,
        down_block_types=("DownBlock2D", "CrossAttnDownBlock2D"),
        up_block_types=("CrossAttnUpBlock2D", "UpBlock2D"),
        cross_attention_dim=32,
        attention_head_dim=4,
        norm_num_groups=8,
    )
    return pipeline_of(pixels_as_latents(), tokenizer(), unet)


def pipeline_of(vae: Any, tokenizer: Any, unet: Any) -> Any:
    """A StableDiffusionPipeline with DDIM around these and a text encoder; token 0 begins a text, 1 ends it."""
    from diffusers import DDIMScheduler, StableDiffusionPipeline
    from transformers import CLIPTextConfig, CLIPTextModel

    text = CLIPTextConfig(
        vocab_size=len(tokenizer),
        hidden_size=32,
        intermediate_size=64,
        num_hidden_layers=1,
        num_attention_heads=2,
        max_position_embeddings=tokenizer.model_max_length,
        bos_token_id=0,
        eos_token_id=1,
        pad_token_id=1,
    )
    pipe = StableDiffusionPipeline(
        vae=vae,
        text_encoder=CLIPTextModel(text),
        tokenizer=tokenizer,
        unet=unet,
        scheduler=DDIMScheduler(beta_schedule="squaredcos_cap_v2", steps_offset=1, clip_sample=False),
        safety_checker=None,
        feature_extractor=None,
        requires_safety_checker=False,
    )
    pipe.set_progress_bar_config(disable=True)
    return pipe


def tokenizer() -> Any:
    """One token per digit between a beginning and an end."""
    from transformers import CLIPTokenizer

    words = ["<|startoftext|>", "<|endoftext|>", *(f"{digit}</w>" for digit in range(DIGITS))]
    with tempfile.TemporaryDirectory() as folder:
        Path(folder, "vocab.json").write_text(json.dumps({word: i for i, word in enumerate(words)}))
        Path(folder, "merges.txt").write_text("#version: 0.2\n")
        return CLIPTokenizer.from_pretrained(folder, model_max_length=TOKENS)


@torch.no_grad()
def pixels_as_latents() -> Any:
    """An AutoencoderTiny whose latents are the grey picture in [-1, 1], within 0.01; its decoder gives three channels.

    The decoder bends latents by 3 tanh(x / 3): a gain puts 1 back at 1. Its ReLU cuts below black.
    """
    from diffusers import AutoencoderTiny

    one = {"encoder_block_out_channels": (1,), "decoder_block_out_channels": (1,)}
    vae = AutoencoderTiny(**one, num_encoder_blocks=(0,), num_decoder_blocks=(0,), latent_channels=1)
    for parameter in vae.parameters():
        parameter.zero_()
    gain = 1 / (3 * torch.tanh(torch.tensor(1 / 3)))
    grey, back = (layer for layer in vae.decoder.layers if isinstance(layer, torch.nn.Conv2d))
    grey.weight[:, :, 1, 1], back.weight[:, :, 1, 1] = gain / 2, 1.0  # to [0, 1], and once for each colour
    grey.bias.fill_(0.5)
    mean, centred = (layer for layer in vae.encoder.layers if isinstance(layer, torch.nn.Conv2d))
    mean.weight[:, :, 1, 1], centred.weight[:, :, 1, 1] = 1 / 3, 2.0
    centred.bias.fill_(-1.0)
    return vae.eval()


def generate(pipe: Any, prompts: Sequence[str], first_seed: int, **kwargs: Any) -> Tensor:
    """(B, 3, 8, 8) in [0, 1]: one picture per prompt, seeds counted on from the first."""
    generator = [torch.Generator().manual_seed(first_seed + i) for i in range(len(prompts))]
    settings = {"num_inference_steps": STEPS, "guidance_scale": 1.0, "output_type": "pt"} | kwargs
    return pipe(list(prompts), generator=generator, **settings).images


# ------------------------------------------------------------------------------------------------------------- judges
def digits() -> tuple[Tensor, Tensor]:
    """Pictures (1797, 1, 8, 8) in [0, 1] and labels (1797,)."""
    from sklearn.datasets import load_digits

    bunch = load_digits()
    return torch.tensor(bunch.images / 16, dtype=torch.float32)[:, None], torch.tensor(bunch.target)


def judges() -> tuple[CallableScorer, CallableScorer]:
    """The one that chooses and the one that watches; each learnt from its own half of the digits."""
    from sklearn.linear_model import LogisticRegression
    from sklearn.neighbors import KNeighborsClassifier

    pictures, labels = digits()
    features = flat(pictures)
    chooser = LogisticRegression(C=1.0, max_iter=2000).fit(features[0::2], labels[0::2])
    watcher = KNeighborsClassifier(15, weights="distance").fit(features[1::2], labels[1::2])
    return log_probability(chooser, "chooser"), log_probability(watcher, "watcher")


def log_probability(classifier: Any, name: str) -> CallableScorer:
    """Scores are natural logarithms of the probability of the digit in the prompt, at most 0."""

    def score(images: Any, prompts: list[str] | None) -> np.ndarray:
        wanted = np.array([int(prompt) for prompt in prompts or ()])
        probabilities = classifier.predict_proba(flat(images))
        return np.log(probabilities[np.arange(len(wanted)), wanted].clip(FLOOR if name == "watcher" else 1e-12))

    return CallableScorer(score, name=name, low=-30.0, high=0.0, needs_prompt=True)


def flat(images: Any) -> np.ndarray:
    """(B, 64) in [0, 1] from a batch (B, C, H, W) in [0, 1] or a sequence of PIL pictures or tensors (C, H, W)."""
    grey = as_tensors(images).mean(1, keepdim=True)
    return F.adaptive_avg_pool2d(grey, SIDE).flatten(1).clamp(0, 1).numpy()


def as_tensors(images: Any) -> Tensor:
    """(B, C, H, W) float32 in [0, 1] from a batch of that form or a sequence of PIL pictures or tensors (C, H, W)."""
    if not isinstance(images, Tensor):
        images = torch.stack([one if isinstance(one, Tensor) else _pil_as_tensor(one) for one in images])
    return images.float().cpu()


def _pil_as_tensor(picture: Any) -> Tensor:
    return torch.from_numpy(np.array(picture.convert("RGB"))).permute(2, 0, 1) / 255


def recognized(judge: CallableScorer, pictures: Tensor, prompts: Sequence[str]) -> float:
    """Share of pictures whose likeliest digit is the wanted one."""
    scores = torch.stack([judge.score(pictures, [str(digit)] * len(pictures)) for digit in range(DIGITS)])
    return (scores.argmax(0) == torch.tensor([int(prompt) for prompt in prompts])).float().mean().item()


def accuracy(judge: CallableScorer, half: int) -> float:
    pictures, labels = digits()
    return recognized(judge, pictures[half::2].expand(-1, 3, -1, -1), [str(int(label)) for label in labels[half::2]])


if __name__ == "__main__":
    main()
