"""Tiny pipelines of Flux and what descends from it."""

from collections.abc import Callable
from typing import Any

from .families import FROM_PICTURE, SIZE, TinyFamily, family
from .making import SIDE, awaken, pictures, random
from .schedulers import SCHEDULERS
from .texts import clip, flux_text, t5, tokenizer, vectors
from .unets import add_ip_adapter, vae


def flux(name: str = "FluxPipeline", *, channels: int = 16) -> Any:
    import diffusers

    transformer = diffusers.FluxTransformer2DModel(
        patch_size=1,
        in_channels=channels,
        out_channels=16,
        num_layers=1,
        num_single_layers=1,
        attention_head_dim=8,
        num_attention_heads=2,
        joint_attention_dim=8,
        pooled_projection_dim=8,
        guidance_embeds=True,
        axes_dims_rope=(2, 2, 4),
    )
    return getattr(diffusers, name)(
        transformer=awaken(transformer, 40),
        scheduler=SCHEDULERS["flow_euler"](),
        vae=vae(shift_factor=0.1),
        text_encoder=clip(41),
        tokenizer=tokenizer(),
        text_encoder_2=t5(42),
        tokenizer_2=tokenizer(),
    )


def flux2(name: str = "Flux2Pipeline") -> Any:
    import diffusers

    transformer = diffusers.Flux2Transformer2DModel(
        patch_size=1,
        in_channels=16,
        num_layers=1,
        num_single_layers=1,
        attention_head_dim=8,
        num_attention_heads=2,
        joint_attention_dim=8,
        timestep_guidance_channels=8,
        axes_dims_rope=(2, 2, 2, 2),
        guidance_embeds=name == "Flux2Pipeline",
    )
    autoencoder = diffusers.AutoencoderKLFlux2(
        block_out_channels=(4, 8),
        down_block_types=("DownEncoderBlock2D",) * 2,
        up_block_types=("UpDecoderBlock2D",) * 2,
        latent_channels=4,
        norm_num_groups=2,
        sample_size=SIDE,
    )
    return getattr(diffusers, name)(
        transformer=awaken(transformer, 50),
        scheduler=SCHEDULERS["flow_euler"](),
        vae=awaken(autoencoder, 51),
        text_encoder=None,
        tokenizer=None,
    )


def with_reference(*, negative: bool) -> Callable[[int], dict[str, Any]]:
    """Prompt vectors, and a picture that Flux2 looks at beside the prompt: 64 pixels are the fewest it takes."""

    def inputs(prompts: int) -> dict[str, Any]:
        import PIL.Image

        grey = (pictures(1)[0, 0] * 255).byte().repeat_interleave(4, 0).repeat_interleave(4, 1)
        return {**vectors(negative=negative)(prompts), "image": PIL.Image.fromarray(grey.numpy()).convert("RGB")}

    return inputs


FLUX_CALL: dict[str, Any] = {
    "inputs": flux_text,
    "guided": {"guidance_scale": 3.5, "true_cfg_scale": 3.0},
    "unguided": {"guidance_scale": 3.5},
}
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
}
