"""Tiny pipelines of Flux and what descends from it."""

from collections.abc import Callable
from typing import Any

import torch

from .families import FROM_PICTURE, SIZE, TinyFamily, family, with_given
from .making import LENGTH, SIDE, awaken, pictures, pil, random
from .schedulers import SCHEDULERS
from .texts import clip, flux_text, positive, t5, tokenizer, vectors
from .unets import add_ip_adapter, vae

FLUX_NETWORK: dict[str, Any] = {
    "patch_size": 1,
    "num_layers": 1,
    "num_single_layers": 1,
    "attention_head_dim": 8,
    "num_attention_heads": 2,
    "joint_attention_dim": 8,
    "axes_dims_rope": (2, 2, 4),
}


def flux(name: str = "FluxPipeline", *, channels: int = 16) -> Any:
    import diffusers

    more = {"pooled_projection_dim": 8, "guidance_embeds": True}
    transformer = diffusers.FluxTransformer2DModel(in_channels=channels, out_channels=16, **FLUX_NETWORK, **more)
    parts = {
        "transformer": awaken(transformer, 40),
        "scheduler": SCHEDULERS["flow_euler"](),
        "vae": vae(shift_factor=0.1),
        "text_encoder": clip(41),
        "tokenizer": tokenizer(),
        "text_encoder_2": t5(42),
        "tokenizer_2": tokenizer(),
    }
    if "ControlNet" in name:
        parts["controlnet"] = awaken(diffusers.FluxControlNetModel(in_channels=16, **FLUX_NETWORK, **more), 43)
    return getattr(diffusers, name)(**parts)


def chroma(name: str = "ChromaPipeline") -> Any:
    import diffusers

    transformer: Any = diffusers.ChromaTransformer2DModel(
        in_channels=16,
        **FLUX_NETWORK,
        approximator_num_channels=8,
        approximator_hidden_dim=8,
        approximator_layers=1,
    )
    transformer.register_to_config(guidance_embeds=False)  # which ChromaInpaintPipeline asks for
    return getattr(diffusers, name)(
        transformer=awaken(transformer, 44),
        scheduler=SCHEDULERS["flow_euler"](),
        vae=vae(shift_factor=0.1),
        text_encoder=t5(45),
        tokenizer=tokenizer(),
    )


def ovis(name: str = "OvisImagePipeline") -> Any:
    import diffusers

    transformer = diffusers.OvisImageTransformer2DModel(in_channels=16, out_channels=16, **FLUX_NETWORK)
    return getattr(diffusers, name)(
        transformer=awaken(transformer, 46),
        scheduler=SCHEDULERS["flow_euler"](),
        vae=vae(shift_factor=0.1),
        text_encoder=None,
        tokenizer=None,
    )


def flux2_vae() -> Any:
    import diffusers

    autoencoder = diffusers.AutoencoderKLFlux2(
        block_out_channels=(4, 8),
        down_block_types=("DownEncoderBlock2D",) * 2,
        up_block_types=("UpDecoderBlock2D",) * 2,
        latent_channels=4,
        norm_num_groups=2,
        sample_size=SIDE,
    )
    return awaken(autoencoder, 51)


def flux2_network(*, text: int = 8, guidance: bool = True) -> Any:
    """For text vectors of this width."""
    import diffusers

    transformer = diffusers.Flux2Transformer2DModel(
        patch_size=1,
        in_channels=16,
        num_layers=1,
        num_single_layers=1,
        attention_head_dim=8,
        num_attention_heads=2,
        joint_attention_dim=text,
        timestep_guidance_channels=8,
        axes_dims_rope=(2, 2, 2, 2),
        guidance_embeds=guidance,
    )
    return awaken(transformer, 50)


def flux2(name: str = "Flux2Pipeline") -> Any:
    import diffusers

    return getattr(diffusers, name)(
        transformer=flux2_network(guidance=name == "Flux2Pipeline"),
        scheduler=SCHEDULERS["flow_euler"](),
        vae=flux2_vae(),
        text_encoder=None,
        tokenizer=None,
    )


def reference() -> torch.Tensor:
    """One picture for all rows."""
    return pictures(1, seed=8)


def large_reference() -> Any:
    """One of 64 pixels, the fewest that Flux2 takes."""
    return pil(pictures(1, seed=8)[0]).resize((64, 64))


def positive_flux_text(prompts: int) -> dict[str, Any]:
    return {**positive(prompts), "max_sequence_length": LENGTH}


def with_reference(*, negative: bool) -> Callable[[int], dict[str, Any]]:
    """Prompt vectors, and a picture that Flux2 looks at beside the prompt: 64 pixels are the fewest it takes."""

    def inputs(prompts: int) -> dict[str, Any]:
        import PIL.Image

        grey = (pictures(1)[0, 0] * 255).byte().repeat_interleave(4, 0).repeat_interleave(4, 1)
        return {**vectors(negative=negative)(prompts), "image": PIL.Image.fromarray(grey.numpy()).convert("RGB")}

    return inputs


KONTEXT_SIZE: dict[str, Any] = {**SIZE, "max_area": SIDE * SIDE, "_auto_resize": False}
FLUX_CALL: dict[str, Any] = {
    "inputs": flux_text,
    "guided": {"guidance_scale": 3.5, "true_cfg_scale": 3.0},
    "unguided": {"guidance_scale": 3.5},
}
CHROMA_CALL: dict[str, Any] = {
    "inputs": flux_text,
    "guided": {"guidance_scale": 3.0},
    "unguided": {"guidance_scale": 1.0},
}
ONE_SCALE: dict[str, Any] = {"guided": None, "unguided": {"guidance_scale": 3.5}}
FLUX: dict[str, TinyFamily] = {
    "flux": family(flux, "flow_euler_dynamic", **FLUX_CALL),
    "flux_img2img": family(
        flux,
        "flow_euler_dynamic",
        "FluxImg2ImgPipeline",
        **FLUX_CALL | {"per_row": ("image",), "settings": {**SIZE, **FROM_PICTURE}},
    ),
    "flux_inpaint": family(
        flux,
        "flow_euler_dynamic",
        "FluxInpaintPipeline",
        **FLUX_CALL
        | {
            "per_row": ("image", "mask_image"),
            "settings": {**SIZE, **FROM_PICTURE},
        },
    ),
    "flux_ip_adapter": family(
        lambda: add_ip_adapter(flux()),
        "flow_euler_dynamic",
        **FLUX_CALL
        | {
            "guided": {
                **FLUX_CALL["guided"],
                "ip_adapter_image_embeds": [random(400, 1, 1, 8)],
                "negative_ip_adapter_image_embeds": [random(401, 1, 1, 8)],
            },
            "unguided": {
                **FLUX_CALL["unguided"],
                "ip_adapter_image_embeds": [random(400, 1, 1, 8)],
                "negative_ip_adapter_image_embeds": [random(401, 1, 1, 8)],
            },
        },
    ),
    "flux2": family(
        flux2,
        "flow_euler_dynamic",
        inputs=vectors(negative=False),
        guided=None,
        unguided={"guidance_scale": 4.0},
    ),
    "flux2_klein": family(
        flux2,
        "flow_euler_dynamic",
        "Flux2KleinPipeline",
        inputs=vectors(negative=True),
    ),
    "flux2_reference": family(
        flux2,
        "flow_euler_dynamic",
        inputs=with_reference(negative=False),
        guided=None,
        unguided={"guidance_scale": 4.0},
    ),
    "flux2_klein_reference": family(
        flux2,
        "flow_euler_dynamic",
        "Flux2KleinPipeline",
        inputs=with_reference(negative=True),
    ),
    "flux_kontext": family(
        flux,
        "flow_euler_dynamic",
        "FluxKontextPipeline",
        **FLUX_CALL | {"inputs": with_given(flux_text, image=reference), "settings": KONTEXT_SIZE},
    ),
    "flux_kontext_inpaint": family(
        flux,
        "flow_euler_dynamic",
        "FluxKontextInpaintPipeline",
        **FLUX_CALL
        | {
            "inputs": with_given(flux_text, image_reference=reference),
            "per_row": ("image", "mask_image"),
            "settings": {**KONTEXT_SIZE, **FROM_PICTURE},
        },
    ),
    "flux_fill": family(
        lambda: flux("FluxFillPipeline", channels=48),
        "flow_euler_dynamic",
        inputs=positive_flux_text,
        per_row=("image", "mask_image"),
        settings={**SIZE, "strength": 0.9},
        **ONE_SCALE,
    ),
    "flux_control": family(
        lambda: flux("FluxControlPipeline", channels=32),
        "flow_euler_dynamic",
        inputs=with_given(positive_flux_text, control_image=reference),
        **ONE_SCALE,
    ),
    "flux_control_img2img": family(
        lambda: flux("FluxControlImg2ImgPipeline", channels=32),
        "flow_euler_dynamic",
        inputs=with_given(positive_flux_text, control_image=reference),
        per_row=("image",),
        settings={**SIZE, **FROM_PICTURE},
        **ONE_SCALE,
    ),
    "flux_control_inpaint": family(
        lambda: flux("FluxControlInpaintPipeline", channels=32),
        "flow_euler_dynamic",
        inputs=with_given(positive_flux_text, control_image=reference),
        per_row=("image", "mask_image"),
        settings={**SIZE, **FROM_PICTURE},
        **ONE_SCALE,
    ),
    "flux_controlnet": family(
        flux,
        "flow_euler_dynamic",
        "FluxControlNetPipeline",
        **FLUX_CALL | {"inputs": with_given(flux_text, control_image=reference)},
    ),
    "flux_controlnet_img2img": family(
        flux,
        "flow_euler_dynamic",
        "FluxControlNetImg2ImgPipeline",
        inputs=with_given(positive_flux_text, control_image=reference),
        per_row=("image",),
        settings={**SIZE, **FROM_PICTURE},
        **ONE_SCALE,
    ),
    "flux_controlnet_inpaint": family(
        flux,
        "flow_euler_dynamic",
        "FluxControlNetInpaintPipeline",
        inputs=with_given(positive_flux_text, control_image=reference),
        per_row=("image", "mask_image"),
        settings={**SIZE, **FROM_PICTURE},
        **ONE_SCALE,
    ),
    "chroma": family(chroma, "flow_euler_dynamic", **CHROMA_CALL),
    "chroma_img2img": family(
        chroma,
        "flow_euler_dynamic",
        "ChromaImg2ImgPipeline",
        **CHROMA_CALL | {"per_row": ("image",), "settings": {**SIZE, "strength": 0.6}},
    ),
    "chroma_inpaint": family(
        chroma,
        "flow_euler_dynamic",
        "ChromaInpaintPipeline",
        **CHROMA_CALL | {"per_row": ("image", "mask_image"), "settings": {**SIZE, "strength": 0.6}},
    ),
    "ovis": family(ovis, "flow_euler_dynamic", inputs=with_given(vectors(), negative_prompt=lambda: None)),
    "flux2_klein_inpaint": family(
        flux2,
        "flow_euler_dynamic",
        "Flux2KleinInpaintPipeline",
        inputs=with_given(vectors(), image_reference=large_reference),
        per_row=("image", "mask_image"),
        settings={**SIZE, "strength": 0.6},
    ),
    "flux2_klein_kv": family(
        flux2,
        "flow_euler_dynamic",
        "Flux2KleinKVPipeline",
        inputs=with_given(vectors(negative=False), image=large_reference),
        guided=None,
        unguided={},
    ),
}
