"""A diffusion model of random numbers for ComfyUI's sampler: its own UNet, small."""

from typing import Any

import torch
from torch import Tensor, nn

CONTEXT = 16  # numbers of a text vector
CHANNELS = 4
UNET = {
    "image_size": 32,
    "in_channels": CHANNELS,
    "out_channels": CHANNELS,
    "model_channels": 32,
    "num_res_blocks": [1],
    "channel_mult": [1],
    "num_heads": 2,
    "use_spatial_transformer": True,
    "transformer_depth": [1],
    "transformer_depth_output": [1, 1],
    "transformer_depth_middle": 1,
    "context_dim": CONTEXT,
    "use_linear_in_transformer": False,
    "adm_in_channels": None,
    "use_temporal_attention": False,
    "legacy": False,
    "dtype": torch.float32,
}


def tiny_model(*, flow: bool = False, inpaint: bool = False) -> Any:
    """A ModelPatcher on the CPU, always of the same weights.

    Args:
        flow: Trained by flow matching; else it predicts the noise.
        inpaint: Takes a mask and a masked picture beside its latents.
    """
    from comfy.model_patcher import ModelPatcher

    with torch.random.fork_rng([]):
        torch.manual_seed(0)
        module = _unet(flow, CHANNELS + (1 + CHANNELS) * inpaint)
    if inpaint:
        module.set_inpaint()
    return ModelPatcher(module, torch.device("cpu"), torch.device("cpu"))


def tiny_video_model() -> Any:
    """A ModelPatcher of a small Wan, always of the same weights; its latents are (B, 16, T, h, w)."""
    import comfy.supported_models
    from comfy.model_patcher import ModelPatcher

    sizes = {"dim": 32, "ffn_dim": 64, "freq_dim": 32, "text_dim": CONTEXT, "num_heads": 2, "num_layers": 2}
    config = comfy.supported_models.WAN21_T2V({"image_model": "wan2.1", "model_type": "t2v", **sizes})
    config.set_inference_dtype(torch.float32, None)
    with torch.random.fork_rng([]):
        torch.manual_seed(0)
        module = config.get_model({}, device="cpu")
        fill(module)
    return ModelPatcher(module, torch.device("cpu"), torch.device("cpu"))


def conditioning(seed: int, rows: int = 1) -> list[list[Any]]:
    """What a text encoder would give, of random numbers."""
    numbers = torch.Generator().manual_seed(seed)
    return [[torch.randn(rows, 7, CONTEXT, generator=numbers), {}]]


class TinyVae:
    """Stands for ComfyUI's VAE: a picture of 2 x 2 pixels for each place of the latents."""

    def __init__(self) -> None:
        self.decoded: list[int] = []  # how many at a time

    def decode(self, latents: Tensor) -> Tensor:
        """(B, C, h, w) -> [B, 2h, 2w, 3], or (B, C, T, h, w) -> [B, T, 2h, 2w, 3] as VAEs of video models do."""
        self.decoded.append(len(latents))
        pictures = torch.sigmoid(latents[:, :3] / 50).repeat_interleave(2, -1).repeat_interleave(2, -2)
        return pictures.movedim(1, -1)


def tiny_controlnet() -> Any:
    """ComfyUI's ControlNet for `tiny_model`, always of the same weights; `set_cond_hint(picture)` is left to do."""
    import comfy.cldm.cldm
    import comfy.controlnet
    import comfy.ops

    settings = {name: value for name, value in UNET.items() if name not in ("out_channels", "dtype")}
    with torch.random.fork_rng([]):
        torch.manual_seed(1)
        network = comfy.cldm.cldm.ControlNet(
            **settings, hint_channels=3, dtype=torch.float32, operations=comfy.ops.disable_weight_init
        )
        fill(network)
    cpu = torch.device("cpu")
    return comfy.controlnet.ControlNet(network, load_device=cpu, manual_cast_dtype=None)


def _unet(flow: bool, channels: int) -> Any:
    import comfy.model_base
    import comfy.supported_models

    config = comfy.supported_models.SD15({**UNET, "in_channels": channels})
    config.set_inference_dtype(torch.float32, None)
    kind = comfy.model_base.ModelType.FLOW if flow else comfy.model_base.ModelType.EPS
    model = comfy.model_base.BaseModel(config, model_type=kind, device="cpu")
    fill(model)
    return model


def fill(network: nn.Module) -> None:
    """Random numbers, after which deep networks neither vanish nor explode."""
    for name, weights in network.named_parameters():
        if weights.ndim > 1:
            nn.init.normal_(weights, std=weights[0].numel() ** -0.5)
        else:
            nn.init.constant_(weights, float(name.endswith("weight")))  # of a norm
