"""Tiny pipelines of Qwen-Image and its kin."""

from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import torch

from .families import FROM_PICTURE, SIZE, TinyFamily, family
from .making import awaken, pictures, pil, random
from .schedulers import SCHEDULERS
from .texts import lengths_mask, vectors


def qwen_vae() -> Any:
    import diffusers

    autoencoder = diffusers.AutoencoderKLQwenImage(
        base_dim=4,
        z_dim=4,
        dim_mult=[1, 2],
        num_res_blocks=1,
        temperal_downsample=[False],
        latents_mean=[0.1, -0.1, 0.2, 0.0],
        latents_std=[1.0, 1.2, 0.9, 1.1],
    )
    return awaken(autoencoder, 61)


QWEN_NETWORK: dict[str, Any] = {
    "patch_size": 2,
    "in_channels": 16,
    "out_channels": 4,
    "num_layers": 1,
    "attention_head_dim": 8,
    "num_attention_heads": 2,
    "joint_attention_dim": 8,
    "axes_dims_rope": (2, 2, 4),
}


def qwen_image(name: str = "QwenImagePipeline") -> Any:
    import diffusers

    parts = {
        "transformer": awaken(diffusers.QwenImageTransformer2DModel(**QWEN_NETWORK), 60),
        "scheduler": SCHEDULERS["flow_euler"](),
        "vae": qwen_vae(),
        "text_encoder": None,
        "tokenizer": None,
    }
    if "ControlNet" in name:
        extra = {"extra_condition_channels": 4} if "Inpaint" in name else {}
        parts["controlnet"] = awaken(diffusers.QwenImageControlNetModel(**QWEN_NETWORK, **extra), 62)
    if "Edit" in name:
        parts["processor"] = None
        _scale_references_to_16_pixels()
    return getattr(diffusers, name)(**parts)


def _scale_references_to_16_pixels() -> None:
    """Editing pipelines scale every given picture to about 1024 pixels a side, whatever is asked for."""
    from diffusers.pipelines.qwenimage import pipeline_qwenimage_edit as edit
    from diffusers.pipelines.qwenimage import pipeline_qwenimage_edit_inpaint as inpaint
    from diffusers.pipelines.qwenimage import pipeline_qwenimage_edit_plus as plus

    for module in (edit, inpaint):
        vars(module)["calculate_dimensions"] = lambda area, ratio: (16, 16, None)
    vars(plus)["calculate_dimensions"] = lambda area, ratio: (16, 16)


class ChatProcessor:
    """As much of Qwen-Image 2.1's processor as building the pipeline asks for."""

    tokenizer = SimpleNamespace(encode=lambda text: [7])

    def apply_chat_template(self, *_: Any, **__: Any) -> list[list[int]]:
        return [[1, 2]]


def qwen_image_21(name: str = "QwenImage21Pipeline") -> Any:
    import diffusers

    transformer = diffusers.QwenImage21Transformer2DModel(
        in_channels=4,
        out_channels=4,
        num_layers=2,
        attention_head_dim=8,
        num_attention_heads=2,
        context_in_dim=8,
        axes_dims_rope=(2, 2, 4),
    )
    autoencoder = diffusers.AutoencoderKLQwenImage21(
        base_dim=4,
        decoder_base_dim=4,
        z_dim=4,
        dim_mult=[1, 1, 1, 1, 1],
        num_res_blocks=1,
        latents_mean=[0.1, -0.1, 0.2, 0.0],
        latents_std=[1.0, 1.2, 0.9, 1.1],
    )
    pipe = getattr(diffusers, name)(
        transformer=awaken(transformer, 63),
        scheduler=SCHEDULERS["flow_euler"](),
        vae=awaken(autoencoder, 64),
        text_encoder=None,
        processor=ChatProcessor(),
    )
    pipe._get_qwen_prompt_embeds = _read_with_picture
    return pipe


def _read_with_picture(prompt: list[str], image: Any = None, device: Any = None) -> tuple[torch.Tensor, ...]:
    """Stands for Qwen3-VL: two tokens, four that stand for a picture of 64 pixels, and six of the text."""
    texts = torch.stack([random(len(text), 12, 8) for text in prompt])
    mask = torch.cat([torch.ones(len(prompt), 6), lengths_mask(len(prompt))], dim=1).long()
    is_picture = torch.zeros(len(prompt), 12, dtype=torch.bool)
    is_picture[:, 2:6] = True
    return texts, mask, is_picture


def krea2_network(*, text: int = 8) -> Any:
    """For text vectors of this width."""
    import diffusers

    transformer = diffusers.Krea2Transformer2DModel(
        in_channels=16,
        num_layers=1,
        attention_head_dim=8,
        num_attention_heads=2,
        num_key_value_heads=1,
        intermediate_size=16,
        timestep_embed_dim=8,
        text_hidden_dim=text,
        num_text_layers=2,
        text_num_attention_heads=2,
        text_num_key_value_heads=2,
        text_intermediate_size=8,
        num_layerwise_text_blocks=1,
        num_refiner_text_blocks=1,
        axes_dims_rope=(2, 2, 4),
    )
    return awaken(transformer, 65)


def krea2(name: str = "Krea2Pipeline") -> Any:
    import diffusers

    return getattr(diffusers, name)(
        transformer=krea2_network(),
        scheduler=SCHEDULERS["flow_euler"](),
        vae=qwen_vae(),
        text_encoder=None,
        tokenizer=None,
        text_encoder_select_layers=(0, 1),
    )


def layered_vectors(prompts: int) -> dict[str, Any]:
    """Krea 2 reads two layers of its text encoder: (prompts, 6, 2, 8)."""
    return {
        "prompt_embeds": random(1, prompts, 6, 2, 8),
        "negative_prompt_embeds": random(2, prompts, 6, 2, 8),
        "prompt_embeds_mask": lengths_mask(prompts).bool(),
        "negative_prompt_embeds_mask": lengths_mask(prompts, negative=True).bool(),
    }


def with_edited(inputs: Callable[[int], dict[str, Any]], count: int = 1) -> Callable[[int], dict[str, Any]]:
    """The prompts, and pictures that are to be edited, the same for all rows."""
    given = [pil(pictures(1, seed=8 + number)[0]) for number in range(count)]
    return lambda prompts: {**inputs(prompts), "image": given if count > 1 else given[0]}


def read_with_picture(prompts: int) -> dict[str, Any]:
    from .texts import text

    return {**text(prompts), "image": pil(pictures(1, seed=8)[0]).resize((64, 64)), "output_resolution": 64}


def with_qwen_control(*, inpaint: bool = False) -> Callable[[int], dict[str, Any]]:
    from .making import masks

    mask = {"control_mask": masks(1)} if inpaint else {}
    return lambda prompts: {**vectors(mask=True)(prompts), "control_image": pictures(1, seed=8), **mask}


QWEN_CALL: dict[str, Any] = {
    "inputs": vectors(mask=True),
    "guided": {"true_cfg_scale": 3.0},
    "unguided": {"true_cfg_scale": 1.0},
}
KREA2_CALL: dict[str, Any] = {
    "inputs": layered_vectors,
    "guided": {"guidance_scale": 2.0},
    "unguided": {"guidance_scale": 0.0},
}
QWEN21_SIZE = {"height": 64, "width": 64}
QWEN: dict[str, TinyFamily] = {
    "qwen_image_21": family(qwen_image_21, "flow_euler_dynamic", **QWEN_CALL | {"settings": QWEN21_SIZE}),
    "qwen_image_21_uncached": family(
        qwen_image_21, "flow_euler_dynamic", **QWEN_CALL | {"settings": {**QWEN21_SIZE, "use_kv_cache": False}}
    ),
    "qwen_image_21_edit": family(
        qwen_image_21, "flow_euler_dynamic", **QWEN_CALL | {"inputs": read_with_picture, "settings": QWEN21_SIZE}
    ),
    "krea2": family(krea2, "flow_euler_dynamic", **KREA2_CALL),
    "qwen_image_edit": family(
        qwen_image,
        "flow_euler_dynamic",
        "QwenImageEditPipeline",
        **QWEN_CALL | {"inputs": with_edited(vectors(mask=True))},
    ),
    "qwen_image_edit_plus": family(
        qwen_image,
        "flow_euler_dynamic",
        "QwenImageEditPlusPipeline",
        **QWEN_CALL | {"inputs": with_edited(vectors(mask=True), 2), "one_prompt": True},
    ),
    "qwen_image_edit_inpaint": family(
        qwen_image,
        "flow_euler_dynamic",
        "QwenImageEditInpaintPipeline",
        **QWEN_CALL | {"inputs": with_edited(vectors(mask=True)), "per_row": ("mask_image",), "settings": FROM_PICTURE},
    ),
    "qwen_image_controlnet": family(
        qwen_image,
        "flow_euler_dynamic",
        "QwenImageControlNetPipeline",
        **QWEN_CALL | {"inputs": with_qwen_control()},
    ),
    "qwen_image": family(qwen_image, "flow_euler_dynamic", **QWEN_CALL),
    "qwen_image_img2img": family(
        qwen_image,
        "flow_euler_dynamic",
        "QwenImageImg2ImgPipeline",
        **QWEN_CALL | {"per_row": ("image",), "settings": {**SIZE, **FROM_PICTURE}},
    ),
    "qwen_image_inpaint": family(
        qwen_image,
        "flow_euler_dynamic",
        "QwenImageInpaintPipeline",
        **QWEN_CALL
        | {
            "per_row": ("image", "mask_image"),
            "settings": {**SIZE, **FROM_PICTURE},
        },
    ),
    "qwen_image_controlnet_inpaint": family(
        qwen_image,
        "flow_euler_dynamic",
        "QwenImageControlNetInpaintPipeline",
        **QWEN_CALL | {"inputs": with_qwen_control(inpaint=True)},
    ),
}
