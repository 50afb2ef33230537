"""Tiny pipelines of Z-Image, whose prompt vectors are lists with one tensor per row."""

from typing import Any

import torch

from .families import FROM_PICTURE, SIZE, TinyFamily, family, with_given
from .making import awaken, pictures, pil, random
from .schedulers import SCHEDULERS
from .unets import vae

NETWORK: dict[str, Any] = {
    "dim": 16,
    "n_refiner_layers": 1,
    "n_heads": 2,
    "n_kv_heads": 2,
}


def z_image(name: str = "ZImagePipeline") -> Any:
    import diffusers

    omni = "Omni" in name
    transformer = diffusers.ZImageTransformer2DModel(
        **NETWORK,
        in_channels=4,
        n_layers=2,
        cap_feat_dim=8,
        siglip_feat_dim=8 if omni else None,
        axes_dims=[2, 2, 4],
        axes_lens=[512, 64, 64],
    )
    parts = {
        "scheduler": SCHEDULERS["flow_euler"](),
        "vae": vae(shift_factor=0.1),
        "text_encoder": None,
        "tokenizer": None,
        "transformer": awaken(transformer, 66),
    }
    if "ControlNet" in name:
        control = diffusers.ZImageControlNetModel(
            **NETWORK,
            control_layers_places=[0],
            control_refiner_layers_places=[0],
            control_in_dim=9 if "Inpaint" in name else 4,
            add_control_noise_refiner="control_noise_refiner",
        )
        parts["controlnet"] = awaken(control, 67)
    if omni:
        parts |= {"siglip": None, "siglip_processor": None}
    pipe = getattr(diffusers, name)(**parts)
    if omni:
        encode = pipe.vae.encode
        pipe.vae.encode = lambda given: encode(given.float())  # it is given bfloat16 whatever it computes in
        pipe.prepare_siglip_embeds = lambda images, batch_size, device, dtype: (
            [[random(3 + number, 2, 2, 8) for number, _ in enumerate(images)]] * batch_size
        )
    return pipe


def row_vectors(prompts: int) -> dict[str, Any]:
    """Prompts of unlike lengths: a list of (length, 8)."""
    return {
        "prompt_embeds": [random(1 + row, length, 8) for row, length in enumerate((6, 4, 3)[:prompts])],
        "negative_prompt_embeds": [random(11 + row, length, 8) for row, length in enumerate((5, 3, 6)[:prompts])],
    }


def joined_vectors(prompts: int) -> dict[str, Any]:
    """Omni reads a text before and after the picture."""
    one = row_vectors(prompts)
    return {name: [[vector, vector.flip(0), vector[:2]] for vector in vectors] for name, vectors in one.items()}


def control() -> torch.Tensor:
    return pictures(1, seed=8)


CALL: dict[str, Any] = {
    "inputs": row_vectors,
    "guided": {"guidance_scale": 2.0},
    "unguided": {"guidance_scale": 0.0},
}
Z_IMAGE: dict[str, TinyFamily] = {
    "z_image": family(z_image, "flow_euler_dynamic", **CALL),
    "z_image_img2img": family(
        z_image,
        "flow_euler_dynamic",
        "ZImageImg2ImgPipeline",
        **CALL | {"per_row": ("image",), "settings": {**SIZE, **FROM_PICTURE}},
    ),
    "z_image_inpaint": family(
        z_image,
        "flow_euler_dynamic",
        "ZImageInpaintPipeline",
        **CALL | {"per_row": ("image", "mask_image"), "settings": {**SIZE, **FROM_PICTURE}},
    ),
    "z_image_controlnet": family(
        z_image,
        "flow_euler_dynamic",
        "ZImageControlNetPipeline",
        **CALL | {"inputs": with_given(row_vectors, control_image=control)},
    ),
    "z_image_controlnet_inpaint": family(
        z_image,
        "flow_euler_dynamic",
        "ZImageControlNetInpaintPipeline",
        **CALL
        | {
            "inputs": with_given(row_vectors, control_image=control, image=lambda: pictures(1)),
            "per_row": ("mask_image",),
        },
    ),
    "z_image_omni": family(
        z_image,
        "flow_euler_dynamic",
        "ZImageOmniPipeline",
        **CALL
        | {
            "inputs": lambda prompts: {
                **joined_vectors(prompts),
                "image": [pil(pictures(1, seed=8)[0]).resize((64, 64))],
            }
        },
    ),
}
