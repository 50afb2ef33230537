"""A stand-in for a diffusion model in ComfyUI, for the pictures in the docs: it "generates" the demo's photographs.

The denoiser knows a few hundred crops of one photograph, some of them degraded, and nothing else: it is the posterior
mean over them, mixed with their mean while there is much noise. Noise decides which crop comes out, and previews are
blurred at first, so that choosing and pruning have something to do. As a single file in custom_nodes it replaces what
Load Checkpoint loads, and offers the crops as a batch.
"""

import random
import sys

import numpy as np
import torch
from PIL import Image
from torch.nn import functional

import nodes  # ComfyUI's

PHOTOGRAPHS = {"cat": "chelsea", "coffee": "coffee"}  # word of the prompt: name in the core's demo
CROPS, SIDE = 200, 400
SCALE = 5.0  # standard deviation of latents, as that of a real VAE
BLURRED = 12.0  # noise, in the same unit, at which a preview is half a blur
_state = {"photograph": "chelsea"}
_loaded: dict[str, "Crops"] = {}


def _core(name):
    """A module of the pack's core."""
    pack = next(name for name in sys.modules if name.endswith("ma-agiqa"))
    __import__(f"{pack}.ma_agiqa_core.{name}")
    return sys.modules[f"{pack}.ma_agiqa_core.{name}"]


class Crops:
    """Crops of a photograph, half of them degraded."""

    def __init__(self, name):
        path = _core("demo").__file__.replace("__init__.py", f"{name}.jpg")
        self._photograph = Image.open(path).convert("RGB")
        rng = random.Random(1)
        self._places = [(rng.random(), rng.random(), rng.random(), rng.random() < 0.5) for _ in range(CROPS)]
        self._kinds = [rng.choice(("", "", "", "blur", "noise", "jpeg")) for _ in range(CROPS)]
        self._levels = [rng.random() for _ in range(CROPS)]
        self._latents = {}

    def picture(self, i):
        """(3, SIDE, SIDE) in 0..1"""
        x, y, zoom, is_mirrored = self._places[i]
        width, height = self._photograph.size
        side = round(min(width, height) * (0.8 + 0.2 * zoom))
        left, top = round(x * (width - side)), round(y * (height - side))
        crop = self._photograph.resize((SIDE, SIDE), Image.Resampling.LANCZOS, (left, top, left + side, top + side))
        pixels = np.asarray(crop, np.float32) / 255
        pixels = pixels[:, ::-1] if is_mirrored else pixels
        made = _core("scorers.lite.degradations")
        level, rng = self._levels[i], np.random.default_rng(i)
        degrade = {
            "blur": lambda: made.blur(pixels, 0.8 + 2 * level),
            "noise": lambda: made.noise(pixels, 8 + 20 * level, rng),
            "jpeg": lambda: made.jpeg(pixels, round(30 - 22 * level)),
        }.get(self._kinds[i], lambda: pixels)
        return torch.from_numpy(np.ascontiguousarray(degrade())).float().clamp(0, 1).movedim(-1, 0)

    def latents(self, height, width):
        """(CROPS, 4, height, width): small colours, and how rough they are; all of one length."""
        if (height, width) not in self._latents:
            pictures = torch.stack([self.picture(i) for i in range(CROPS)])
            colours = functional.interpolate(pictures, (height, width), mode="area")
            rough = (pictures - functional.avg_pool2d(pictures, 5, 1, 2)).abs().mean(1, keepdim=True)
            latents = torch.cat([colours, functional.interpolate(rough, (height, width), mode="area")], 1)
            latents = (latents - latents.mean((0, 2, 3), True)) / latents.std((0, 2, 3), keepdim=True)
            latents /= latents.square().mean((1, 2, 3), keepdim=True).sqrt()
            self._latents[height, width] = latents * SCALE
        return self._latents[height, width]

    def denoised(self, x, sigma):
        """x0 of latents x (B, 4, h, w) with noise of `sigma` (B,)."""
        known = self.latents(*x.shape[-2:]).to(x)
        sigma = sigma.reshape(-1, 1).to(x)
        weights = torch.softmax(x.flatten(1) @ known.flatten(1).T / sigma**2, dim=1)  # they are all of one length
        blurred = sigma**2 / (sigma**2 + BLURRED**2)
        return torch.einsum("bk,kchw->bchw", (1 - blurred) * weights + blurred / CROPS, known)

    def decode(self, latents):
        """[B, SIDE, SIDE, 3]: the crop that is nearest, the more blurred the less of it there is."""
        known = self.latents(*latents.shape[-2:])
        mean = known.mean(0)
        known, given = (known - mean).flatten(1), (latents.float().cpu() - mean).flatten(1)
        shares, nearest = (given @ known.T / known.square().sum(1)).max(1)
        images = []
        for share, i in zip(shares.tolist(), nearest.tolist(), strict=True):
            picture, radius = self.picture(i), max(0, round(9 * (1 - share)))
            size = 2 * radius + 1
            images.append(functional.avg_pool2d(picture[None], size, 1, radius, count_include_pad=False)[0])
        return torch.stack(images).clamp(0, 1).movedim(1, -1)


def _crops(name=None):
    name = name or _state["photograph"]
    if name not in _loaded:
        _loaded[name] = Crops(name)
    return _loaded[name]


def _load_checkpoint(loader, ckpt_name):
    model, clip, vae = _load_original(loader, ckpt_name)
    latent_format = model.model.latent_format
    model = model.clone()

    def denoise(apply_model, given):
        x, sigma = given["input"], given["timestep"]
        apply_model(x[..., :8, :8], sigma, **given["c"])  # so that calls can be counted
        x0 = _crops().denoised(latent_format.process_out(x), sigma / latent_format.scale_factor)
        return latent_format.process_in(x0)

    model.set_model_unet_function_wrapper(denoise)
    vae.decode = lambda latents: _crops().decode(latents)
    return model, clip, vae


def _encode(encoder, clip, text):
    for word, name in PHOTOGRAPHS.items():
        if word in text:
            _state["photograph"] = name
    return _encode_original(encoder, clip, text)


class DemoPictures:
    """The first crops of a photograph as a batch."""

    @classmethod
    def INPUT_TYPES(cls):  # noqa: N802
        return {"required": {"photograph": (list(PHOTOGRAPHS.values()),), "count": ("INT", {"default": 6})}}

    RETURN_TYPES = ("IMAGE",)
    FUNCTION = "make"
    CATEGORY = "tests"

    def make(self, photograph, count):
        return (torch.stack([_crops(photograph).picture(i) for i in range(count)]).movedim(1, -1),)


_load_original, _encode_original = nodes.CheckpointLoaderSimple.load_checkpoint, nodes.CLIPTextEncode.encode
nodes.CheckpointLoaderSimple.load_checkpoint, nodes.CLIPTextEncode.encode = _load_checkpoint, _encode
NODE_CLASS_MAPPINGS = {"DemoPictures": DemoPictures}
