"""From latents as a scheduler has them to what a decoder takes, as each pipeline of diffusers does it at its end."""

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from ...errors import MaAgiqaError

# These forget the VAE's shift_factor in decoding (diffusers 0.35 to 0.42): so must previews, to show what comes out.
_WITHOUT_SHIFT = frozenset({"StableDiffusion3InpaintPipeline"})
# Only these undo latents_mean and latents_std of SDXL variants (Playground v2.5).
_WITHOUT_MEAN = frozenset(
    {
        "StableDiffusionXLControlNetInpaintPipeline",
        "StableDiffusionXLControlNetUnionInpaintPipeline",
        "KolorsPipeline",
        "KolorsImg2ImgPipeline",
    }
)


_DIMENSIONS = {
    "plain": 4,
    "ernie": 4,
    "video": 5,
    "flux": 3,
    "flux2": 3,
    "ideogram4": 3,
    "qwen": 3,
    "qwen21": 3,
    "krea2": 3,
}
# Their autoencoders take videos and are scaled by mean and std alone.
_WITH_FRAMES = ("video", "qwen", "qwen21", "krea2")
# Their autoencoder keeps the scaling in a batch norm of 2 × 2 patches.
_UNSCALED_FIRST = ("flux2", "ideogram4")


def unpacked(x0: Tensor, layout: str, arguments: Mapping[str, Any]) -> Tensor:
    """Latents with height and width of their own, values unchanged.

    Args:
        x0: (B, C, H, W) for layout "plain" and "ernie", (B, C, F, H, W) for "video", (B, tokens, channels) for the
            packed layouts, which are all others.
        layout: The family's.
        arguments: Of the denoiser's last call.

    Returns:
        (B, C, H, W), or (B, C, F, H, W) for "video" and the packed layouts of Qwen's autoencoders.

    Raises:
        ValueError: Another shape than the layout has, or sizes that cannot be found out.
    """
    if layout not in _DIMENSIONS:
        raise MaAgiqaError(f"Expected a layout of {', '.join(_DIMENSIONS)}, got {layout!r}. Use one of these.")
    if x0.ndim != _DIMENSIONS[layout]:
        raise MaAgiqaError(
            f"Expected {layout} latents of {_DIMENSIONS[layout]} dimensions, got shape {tuple(x0.shape)}. Give a "
            "callable as preview that knows this layout."
        )
    if layout in ("plain", "video", "ernie"):
        return x0
    height, width = _grid(x0, layout, arguments)
    B, _, channels = x0.shape
    if layout in _UNSCALED_FIRST:  # channels hold 2 × 2 pixels; undone after the batch norm, see scaled_for_vae
        return x0.view(B, height, width, channels).permute(0, 3, 1, 2)
    if layout == "qwen21":
        return x0.view(B, height, width, channels).permute(0, 3, 1, 2).unsqueeze(2)
    latents = x0.view(B, height, width, channels // 4, 2, 2).permute(0, 3, 1, 4, 2, 5)
    latents = latents.reshape(B, channels // 4, 2 * height, 2 * width)
    return latents.unsqueeze(2) if layout in _WITH_FRAMES else latents


def scaled_for_vae(latents: Tensor, vae: Any, layout: str, pipeline: str) -> Tensor:
    """What the VAE decodes: unpacked latents freed of the scaling that the diffusion model works in.

    Args:
        latents: From unpacked().
        vae: Its config (and for Flux2 its batch norm) has the scaling.
        layout: The family's.
        pipeline: Class name of the pipeline.
    """
    if layout in (*_UNSCALED_FIRST, "ernie") and hasattr(vae, "bn"):
        eps = 1e-5 if layout == "ernie" else vae.config.batch_norm_eps  # as its pipeline has it
        return _two_by_two(_without_batch_norm(latents, vae, eps), channels_first=layout != "ideogram4")
    config = getattr(vae, "config", None) or {}
    mean, std = (
        None if values is None else latents.new_tensor(values).view(1, -1, *[1] * (latents.ndim - 2))
        for values in (config.get("latents_mean"), config.get("latents_std"))
    )
    if layout in _WITH_FRAMES:
        return latents if mean is None or std is None else latents * std + mean
    factor = config.get("scaling_factor") or 1.0
    if mean is not None and std is not None and pipeline not in _WITHOUT_MEAN:
        return latents * std / factor + mean
    shift = 0.0 if pipeline in _WITHOUT_SHIFT else config.get("shift_factor") or 0.0
    return latents / factor + shift


def scaled_for_another(latents: Tensor, decoder: Any, vae: Any, layout: str, pipeline: str) -> Tensor:
    """What another decoder than the pipeline's VAE takes: the scheduler's latents, scaled as its own config says.

    An AutoencoderTiny has a scaling factor of 1 and a shift of 0. Two models first need their VAE's numbers: SDXL
    variants with mean and std (Playground v2.5) share SDXL's VAE, whose tiny decoder knows its latents multiplied
    with the scaling factor; and Flux2's VAE keeps the scaling in a batch norm.

    Args:
        latents: From unpacked().
        decoder: With or without a config.
        vae: The pipeline's own, or None.
        layout: The family's.
        pipeline: Class name of the pipeline.
    """
    config = getattr(vae, "config", None) or {}
    if layout in (*_UNSCALED_FIRST, "ernie"):
        return _scaled(scaled_for_vae(latents, vae, layout, pipeline), decoder)
    if layout in _WITH_FRAMES:
        if type(decoder).__name__ == "AutoencoderTiny":  # for pictures only
            return _scaled(latents[:, :, 0], decoder)
        return scaled_for_vae(latents, decoder, layout, pipeline)
    if layout == "plain" and config.get("latents_mean") is not None and config.get("latents_std") is not None:
        latents = scaled_for_vae(latents, vae, layout, pipeline) * (config.get("scaling_factor") or 1.0)
    return _scaled(latents, decoder)


def _scaled(latents: Tensor, decoder: Any) -> Tensor:
    config = getattr(decoder, "config", None) or {}
    return latents / (config.get("scaling_factor") or 1.0) + (config.get("shift_factor") or 0.0)


def _grid(x0: Tensor, layout: str, arguments: Mapping[str, Any]) -> tuple[int, int]:
    """Rows and columns of tokens; pictures to edit may lie before or after the tokens of the new one."""
    tokens = x0.shape[1]
    if layout in ("qwen", "qwen21"):
        name = "img_shapes"
        if shapes := arguments.get(name):
            own = shapes[0] if isinstance(shapes[0], list) else shapes
            _, height, width = own[0] if layout == "qwen" else own[-1]
            if height * width == tokens:
                return int(height), int(width)
    else:
        name = "position_ids" if layout in ("krea2", "ideogram4") else "img_ids"
        ids = arguments.get(name)
        if isinstance(ids, Tensor):
            places = ids[0] if ids.ndim == 3 else ids
            before = int(arguments.get("num_ref_tokens") or 0)
            own = places[-tokens:] if name == "position_ids" else places[before : before + tokens]
            height, width = (len(own[:, column].unique()) for column in (1, 2))
            if height * width == tokens:
                return height, width
    raise MaAgiqaError(
        f"Expected {name} of the denoiser's call to tell height and width of {tokens} packed tokens, got "
        f"{'none' if arguments.get(name) is None else 'others'}. Give a callable as preview."
    )


def _without_batch_norm(latents: Tensor, vae: Any, eps: float) -> Tensor:
    mean = vae.bn.running_mean.view(1, -1, 1, 1).to(latents)
    std = torch.sqrt(vae.bn.running_var.view(1, -1, 1, 1) + eps).to(latents)
    return latents * std + mean


def _two_by_two(latents: Tensor, *, channels_first: bool) -> Tensor:
    """(B, 4C, H, W) to (B, C, 2H, 2W); a token's channels are C × 2 × 2, or 2 × 2 × C."""
    B, channels, height, width = latents.shape
    if channels_first:
        latents = latents.reshape(B, channels // 4, 2, 2, height, width).permute(0, 1, 4, 2, 5, 3)
    else:
        latents = latents.reshape(B, 2, 2, channels // 4, height, width).permute(0, 3, 4, 1, 5, 2)
    return latents.reshape(B, channels // 4, 2 * height, 2 * width)
