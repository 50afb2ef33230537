"""Pictures from latents: by the VAE, or, for previews, by a tiny approximation of it: TAESD, or TAEHV for video."""

from __future__ import annotations

from typing import Any

import comfy.model_management as memory
import comfy.utils
import folder_paths
import latent_preview
import torch
from torch import Tensor

PREVIEWS = ["VAE", "TAESD"]
_FOLDER = "vae_approx"


def decoded(vae: Any, latents: Tensor) -> Tensor:
    """Pictures [B, H, W, C] of finished latents, of a video its first frame; ComfyUI's VAE manages memory itself."""
    images = vae.decode(latents[:, :, :1] if latents.ndim == 5 else latents)
    return images[:, 0] if images.ndim == 5 else images


def decoded_whole(vae: Any, latents: Tensor) -> Tensor:
    """Videos [B, T, H, W, C] of latents (B, C, t, h, w)."""
    frames = vae.decode(latents)
    return frames if frames.ndim == 5 else frames.unflatten(0, (len(latents), -1))


class PreviewDecoder:
    """Decodes x0, the model's estimate of the finished latents.

    Args:
        kind: "VAE" or "TAESD".
        model: ModelPatcher of the diffusion model, which says what its latents are.
        vae: ComfyUI's VAE.

    Raises:
        ValueError: There is no tiny decoder for this model, or an unknown kind.
        FileNotFoundError: It is not in models/vae_approx.
    """

    def __init__(self, kind: str, model: Any, vae: Any) -> None:
        if kind not in PREVIEWS:
            raise ValueError(f"Expected preview {' or '.join(PREVIEWS)}, got {kind!r}. Choose one of them.")
        self._model, self._vae = model, vae
        self._file = _taesd_file(model) if kind == "TAESD" else None
        self._taesd: Any = None

    def __call__(self, x0: Tensor) -> Tensor:
        """x0 (B, C, h, w) or (B, C, T, h, w) as the model sees it -> pictures [B, H, W, C] in 0..1."""
        if self._file is None:
            return decoded(self._vae, self._model.model.process_latent_out(x0))
        decode = self._decode_video if _is_of_video(self._model) else self._decode_picture
        return torch.cat([decode(row[None]) for row in x0]).clamp(0, 1)

    def _decode_picture(self, x0: Tensor) -> Tensor:
        if self._taesd is None:
            from comfy.taesd.taesd import TAESD

            channels = self._model.model.latent_format.latent_channels
            self._taesd = TAESD(None, self._file, latent_channels=channels)
        device = self._model.load_device
        pictures = self._taesd.to(device).decode(x0.to(device)).to(memory.intermediate_device())
        return ((pictures + 1) / 2).movedim(1, -1)

    def _decode_video(self, x0: Tensor) -> Tensor:
        """The first frame: of a picture there is one."""
        if self._taesd is None:
            from comfy.sd import VAE

            self._taesd = VAE(comfy.utils.load_torch_file(self._file))
            self._taesd.first_stage_model.show_progress_bar = False
        return self._taesd.decode(x0[:, :, :1])[:, 0].to(memory.intermediate_device())


def _is_of_video(model: Any) -> bool:
    return getattr(model.model.latent_format, "latent_dimensions", 2) > 2


def _taesd_file(model: Any) -> str:
    name = getattr(model.model.latent_format, "taesd_decoder_name", None)
    videos = getattr(latent_preview, "VIDEO_TAES", ())  # newer versions of ComfyUI
    if name is None or (_is_of_video(model) and name not in videos):
        raise ValueError(
            "Expected a model with a tiny decoder for preview 'TAESD', got one that this ComfyUI knows none for. Set "
            "preview to VAE."
        )
    found = next((file for file in folder_paths.get_filename_list(_FOLDER) if file.startswith(name)), None)
    if found is None:
        source = "madebyollin/taehv, or lightx2v's autoencoders" if name in videos else "madebyollin/taesd"
        raise FileNotFoundError(
            f"Expected {name} in models/{_FOLDER} for preview 'TAESD', got no such file. Put {name}.safetensors there "
            f"(github.com/{source}), or set preview to VAE."
        )
    return folder_paths.get_full_path(_FOLDER, found)
