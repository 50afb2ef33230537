"""Tiny pipelines around a UNet: Stable Diffusion, SDXL, Kolors; and the VAE that most others share."""

from collections.abc import Callable
from typing import Any

import torch

from .families import FROM_PICTURE, GUIDED, SIZE, UNGUIDED, TinyFamily, family
from .making import LENGTH, SIDE, awaken, pictures, random
from .schedulers import SCHEDULERS
from .texts import KolorsTokenizer, chat_glm, clip, positive, text, tokenizer


def unet(*, channels: int = 4, lcm: bool = False) -> Any:
    from diffusers import UNet2DConditionModel

    return awaken(
        UNet2DConditionModel(
            sample_size=8,
            in_channels=channels,
            out_channels=4,
            block_out_channels=(4, 8),
            layers_per_block=1,
            norm_num_groups=2,
            down_block_types=("DownBlock2D", "CrossAttnDownBlock2D"),
            up_block_types=("CrossAttnUpBlock2D", "UpBlock2D"),
            cross_attention_dim=8,
            attention_head_dim=2,
            time_cond_proj_dim=8 if lcm else None,
        ),
        seed=10,
    )


SDXL_UNET = {
    "sample_size": 8,
    "block_out_channels": (4, 8),
    "layers_per_block": 1,
    "norm_num_groups": 2,
    "down_block_types": ("DownBlock2D", "CrossAttnDownBlock2D"),
    "attention_head_dim": (2, 2),
    "use_linear_projection": True,
    "addition_embed_type": "text_time",
    "addition_time_embed_dim": 4,
    "transformer_layers_per_block": (1, 1),
    "projection_class_embeddings_input_dim": 8 + 6 * 4,
    "cross_attention_dim": 16,
}


def sdxl_unet(*, channels: int = 4, **changes: Any) -> Any:
    from diffusers import UNet2DConditionModel

    shape = SDXL_UNET | {"up_block_types": ("CrossAttnUpBlock2D", "UpBlock2D")} | changes
    return awaken(UNet2DConditionModel(in_channels=channels, out_channels=4, **shape), seed=11)


def controlnet(*, xl: bool = False) -> Any:
    from diffusers import ControlNetModel

    shape: dict[str, Any] = (
        {name: value for name, value in SDXL_UNET.items() if name != "sample_size"}
        if xl
        else {
            "block_out_channels": (4, 8),
            "layers_per_block": 1,
            "norm_num_groups": 2,
            "down_block_types": ("DownBlock2D", "CrossAttnDownBlock2D"),
            "cross_attention_dim": 8,
            "attention_head_dim": 2,
        }
    )
    return awaken(ControlNetModel(conditioning_embedding_out_channels=(4, 8), **shape), seed=12)


def vae(channels: int = 4, **changes: Any) -> Any:
    from diffusers import AutoencoderKL

    return awaken(
        AutoencoderKL(
            block_out_channels=(4, 8),
            down_block_types=("DownEncoderBlock2D",) * 2,
            up_block_types=("UpDecoderBlock2D",) * 2,
            latent_channels=channels,
            norm_num_groups=2,
            sample_size=SIDE,
            **changes,
        ),
        seed=13,
    )


def stable_diffusion(name: str = "StableDiffusionPipeline", *, lcm: bool = False, channels: int = 4) -> Any:
    import diffusers

    parts = {
        "vae": vae(),
        "text_encoder": clip(20),
        "tokenizer": tokenizer(),
        "unet": unet(lcm=lcm, channels=channels),
        "scheduler": SCHEDULERS["ddim"](),
        "safety_checker": None,
        "feature_extractor": None,
        "requires_safety_checker": False,
    }
    if "ControlNet" in name:
        parts["controlnet"] = controlnet()
    return getattr(diffusers, name)(**parts)


def sdxl(name: str = "StableDiffusionXLPipeline", *, channels: int = 4) -> Any:
    import diffusers

    parts = {
        "vae": vae(force_upcast=False),
        "text_encoder": clip(21),
        "tokenizer": tokenizer(),
        "text_encoder_2": clip(22, projected=True),
        "tokenizer_2": tokenizer(),
        "unet": sdxl_unet(channels=channels),
        "scheduler": SCHEDULERS["euler"](),
        "add_watermarker": False,
    }
    if "ControlNet" in name:
        parts["controlnet"] = controlnet(xl=True)
    return getattr(diffusers, name)(**parts)


def kolors(name: str = "KolorsPipeline") -> Any:
    import diffusers

    return getattr(diffusers, name)(
        vae=vae(force_upcast=False),
        text_encoder=chat_glm(23),
        tokenizer=KolorsTokenizer(),
        unet=sdxl_unet(cross_attention_dim=8, encoder_hid_dim=8, encoder_hid_dim_type="text_proj"),
        scheduler=SCHEDULERS["euler"](),
    )


def add_ip_adapter(pipe: Any) -> Any:
    """An IP-Adapter of random weights in the pipeline's denoiser, for picture vectors of width 8."""
    denoiser = pipe.unet if hasattr(pipe, "unet") else pipe.transformer
    width = denoiser.config.get("cross_attention_dim") or denoiser.config.joint_attention_dim
    unet = hasattr(pipe, "unet")
    layers: dict[str, torch.Tensor] = {}
    key = 1 if unet else 0
    for name in denoiser.attn_processors:
        if (unet and name.endswith("attn1.processor")) or name.startswith("single_transformer_blocks"):
            continue
        attention = denoiser.get_submodule(name.removesuffix(".processor"))
        inner = attention.to_q.out_features
        for part, letter in enumerate("kv"):
            layers[f"{key}.to_{letter}_ip.weight"] = random(100 + 2 * key + part, inner, width) * width**-0.5
            if not unet:
                layers[f"{key}.to_{letter}_ip.bias"] = random(200 + 2 * key + part, inner)
        key += 2 if unet else 1
    projection = {
        "proj.weight": random(300, 4 * width, 8),
        "proj.bias": random(301, 4 * width),
        "norm.weight": torch.ones(width),
        "norm.bias": torch.zeros(width),
    }
    denoiser._load_ip_adapter_weights([{"image_proj": projection, "ip_adapter": layers}], low_cpu_mem_usage=False)
    return pipe


def with_control(name: str) -> Callable[[int], dict[str, Any]]:
    """Text, and one control picture for all rows."""
    return lambda prompts: {**text(prompts), name: pictures(1, seed=8)}


KOLORS_CALL: dict[str, Any] = {"settings": {**SIZE, "max_sequence_length": LENGTH}}
UNETS: dict[str, TinyFamily] = {
    "sd": family(stable_diffusion, "ddim"),
    "sd_lcm": family(lambda: stable_diffusion(lcm=True), "lcm", guided=None, unguided={"guidance_scale": 4.0}),
    "lcm": family(
        lambda: stable_diffusion("LatentConsistencyModelPipeline", lcm=True),
        "lcm",
        inputs=positive,
        guided=None,
        unguided={"guidance_scale": 4.0},
    ),
    "lcm_img2img": family(
        lambda: stable_diffusion("LatentConsistencyModelImg2ImgPipeline", lcm=True),
        "lcm",
        inputs=positive,
        per_row=("image",),
        guided=None,
        unguided={"guidance_scale": 4.0},
        settings={"strength": 0.6},
    ),
    "sd_img2img": family(
        stable_diffusion,
        "ddim",
        "StableDiffusionImg2ImgPipeline",
        per_row=("image",),
        settings=FROM_PICTURE,
    ),
    "sd_inpaint": family(
        stable_diffusion,
        "ddim",
        "StableDiffusionInpaintPipeline",
        per_row=("image", "mask_image"),
        settings={**SIZE, **FROM_PICTURE},
    ),
    "sd_inpaint_9": family(
        lambda: stable_diffusion("StableDiffusionInpaintPipeline", channels=9),
        "pndm",
        per_row=("image", "mask_image"),
        settings={**SIZE, "strength": 1.0},
    ),
    "sd_controlnet": family(
        stable_diffusion,
        "unipc",
        "StableDiffusionControlNetPipeline",
        inputs=with_control("image"),
    ),
    "sd_controlnet_img2img": family(
        stable_diffusion,
        "euler",
        "StableDiffusionControlNetImg2ImgPipeline",
        inputs=with_control("control_image"),
        per_row=("image",),
        settings={**SIZE, **FROM_PICTURE},
    ),
    "sd_controlnet_inpaint": family(
        stable_diffusion,
        "ddim",
        "StableDiffusionControlNetInpaintPipeline",
        inputs=with_control("control_image"),
        per_row=("image", "mask_image"),
        settings={**SIZE, **FROM_PICTURE},
    ),
    "sdxl": family(sdxl, "euler"),
    "sdxl_img2img": family(
        sdxl,
        "euler",
        "StableDiffusionXLImg2ImgPipeline",
        per_row=("image",),
        settings=FROM_PICTURE,
    ),
    "sdxl_inpaint": family(
        sdxl,
        "euler_ancestral",
        "StableDiffusionXLInpaintPipeline",
        per_row=("image", "mask_image"),
        settings={**SIZE, **FROM_PICTURE},
    ),
    "sdxl_inpaint_9": family(
        lambda: sdxl("StableDiffusionXLInpaintPipeline", channels=9),
        "euler",
        per_row=("image", "mask_image"),
        settings={**SIZE, "strength": 1.0},
    ),
    "sdxl_controlnet": family(
        sdxl,
        "dpm_2m",
        "StableDiffusionXLControlNetPipeline",
        inputs=with_control("image"),
    ),
    "sdxl_controlnet_img2img": family(
        sdxl,
        "euler",
        "StableDiffusionXLControlNetImg2ImgPipeline",
        inputs=with_control("control_image"),
        per_row=("image",),
        settings={**SIZE, **FROM_PICTURE},
    ),
    "sdxl_controlnet_inpaint": family(
        sdxl,
        "euler",
        "StableDiffusionXLControlNetInpaintPipeline",
        inputs=with_control("control_image"),
        per_row=("image", "mask_image"),
        settings={**SIZE, **FROM_PICTURE},
    ),
    "kolors": family(kolors, "euler", **KOLORS_CALL),
    "kolors_img2img": family(
        kolors,
        "euler",
        "KolorsImg2ImgPipeline",
        per_row=("image",),
        settings=FROM_PICTURE,
    ),
    "sd_ip_adapter": family(
        lambda: add_ip_adapter(stable_diffusion()),
        "ddim",
        guided={**GUIDED, "ip_adapter_image_embeds": [random(400, 2, 1, 8)]},
        unguided={**UNGUIDED, "ip_adapter_image_embeds": [random(400, 1, 1, 8)]},
    ),
    "sdxl_ip_adapter": family(
        lambda: add_ip_adapter(sdxl()),
        "euler",
        guided={**GUIDED, "ip_adapter_image_embeds": [random(400, 2, 1, 8)]},
        unguided={**UNGUIDED, "ip_adapter_image_embeds": [random(400, 1, 1, 8)]},
    ),
}
