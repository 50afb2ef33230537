"""Pictures from latents: by the VAE, or, for previews, by its tiny approximation TAESD."""

from __future__ import annotations

from typing import Any

import comfy.model_management as memory
import folder_paths
import torch
from torch import Tensor

PREVIEWS = ["VAE", "TAESD"]
_FOLDER = "vae_approx"


def decoded(vae: Any, latents: Tensor) -> Tensor:
    """Pictures [B, H, W, C] of finished latents; ComfyUI's VAE manages memory itself."""
    images = vae.decode(latents)
    return images.flatten(0, 1) if images.ndim == 5 else images  # a video of one frame


class PreviewDecoder:
    """Decodes x0, the model's estimate of the finished latents.

    Args:
        kind: "VAE" or "TAESD".
        model: ModelPatcher of the diffusion model, which says what its latents are.
        vae: ComfyUI's VAE.

    Raises:
        ValueError: There is no TAESD for this model, or an unknown kind.
        FileNotFoundError: It is not in models/vae_approx.
    """

    def __init__(self, kind: str, model: Any, vae: Any) -> None:
        if kind not in PREVIEWS:
            raise ValueError(f"Expected preview {' or '.join(PREVIEWS)}, got {kind!r}. Choose one of them.")
        self._model, self._vae = model, vae
        self._file = _taesd_file(model) if kind == "TAESD" else None
        self._taesd: Any = None

    def __call__(self, x0: Tensor) -> Tensor:
        """x0 (B, C, h, w) as the model sees it -> pictures [B, H, W, C] in 0..1."""
        if self._file is None:
            return decoded(self._vae, self._model.model.process_latent_out(x0))
        if self._taesd is None:
            from comfy.taesd.taesd import TAESD

            channels = self._model.model.latent_format.latent_channels
            self._taesd = TAESD(None, self._file, latent_channels=channels)
        device = self._model.load_device
        taesd = self._taesd.to(device)
        pictures = [taesd.decode(row[None].to(device)).to(memory.intermediate_device()) for row in x0]
        return ((torch.cat(pictures) + 1) / 2).clamp(0, 1).movedim(1, -1)


def _taesd_file(model: Any) -> str:
    latent_format = model.model.latent_format
    name = getattr(latent_format, "taesd_decoder_name", None)
    is_of_video = getattr(latent_format, "latent_dimensions", 2) > 2  # newer versions of ComfyUI name a TAEHV there
    if name is None or is_of_video:
        raise ValueError(
            "Expected a model with a TAESD for preview 'TAESD', got one that ComfyUI knows none for. Set preview to "
            "VAE."
        )
    found = next((file for file in folder_paths.get_filename_list(_FOLDER) if file.startswith(name)), None)
    if found is None:
        raise FileNotFoundError(
            f"Expected {name} in models/{_FOLDER} for preview 'TAESD', got no such file. Put {name}.safetensors there "
            "(github.com/madebyollin/taesd), or set preview to VAE."
        )
    return folder_paths.get_full_path(_FOLDER, found)
