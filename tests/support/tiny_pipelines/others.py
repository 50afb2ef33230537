"""Tiny pipelines around a transformer of their own: SD3, Sana, Wan, and PixArt, which is refused."""

from types import SimpleNamespace
from typing import Any

from .families import FROM_PICTURE, SIZE, TinyFamily, family, with_given
from .making import LENGTH, SIDE, awaken, masks
from .schedulers import SCHEDULERS
from .texts import clip, gemma, positive, t5, tokenizer, umt5
from .unets import vae, with_control

SD3_NETWORK: dict[str, Any] = {
    "sample_size": 8,
    "patch_size": 2,
    "in_channels": 16,
    "out_channels": 16,
    "attention_head_dim": 4,
    "num_attention_heads": 2,
    "caption_projection_dim": 8,
    "joint_attention_dim": 16,
    "pooled_projection_dim": 16,
    "pos_embed_max_size": 8,
}


def sd3(name: str = "StableDiffusion3Pipeline") -> Any:
    import diffusers

    transformer = diffusers.SD3Transformer2DModel(**SD3_NETWORK, num_layers=2)
    parts = {
        "transformer": awaken(transformer, 30),
        "scheduler": SCHEDULERS["flow_euler"](),
        "vae": vae(16, shift_factor=0.1),
        "text_encoder": clip(31, projected=True),
        "tokenizer": tokenizer(),
        "text_encoder_2": clip(32, projected=True),
        "tokenizer_2": tokenizer(),
        "text_encoder_3": t5(33, 16),
        "tokenizer_3": tokenizer(),
    }
    if "ControlNet" in name:
        control = diffusers.SD3ControlNetModel(
            **SD3_NETWORK, num_layers=1, extra_conditioning_channels=1 if "Inpaint" in name else 0
        )
        parts["controlnet"] = awaken(control, 34)
    return getattr(diffusers, name)(**parts)


SANA_NETWORK: dict[str, Any] = {
    "patch_size": 1,
    "in_channels": 4,
    "out_channels": 4,
    "num_layers": 2,
    "num_attention_heads": 2,
    "attention_head_dim": 4,
    "num_cross_attention_heads": 2,
    "cross_attention_head_dim": 4,
    "cross_attention_dim": 8,
    "caption_channels": 8,
    "sample_size": 8,
}


def sana(name: str = "SanaPipeline") -> Any:
    import diffusers

    sprint = {"guidance_embeds": True, "qk_norm": "rms_norm_across_heads"} if "Sprint" in name else {}
    transformer = diffusers.SanaTransformer2DModel(**SANA_NETWORK, **sprint)
    autoencoder = diffusers.AutoencoderDC(
        latent_channels=4,
        attention_head_dim=2,
        encoder_block_out_channels=(8, 8),
        decoder_block_out_channels=(8, 8),
        encoder_layers_per_block=(1, 1),
        decoder_layers_per_block=(1, 1),
        encoder_qkv_multiscales=((), ()),
        decoder_qkv_multiscales=((), ()),
        scaling_factor=0.4,
    )
    parts = {
        "transformer": awaken(transformer, 70),
        "scheduler": SCHEDULERS["scm" if sprint else "flow_dpm"](),
        "vae": awaken(autoencoder, 71),
        "text_encoder": gemma(72),
        "tokenizer": tokenizer(),
    }
    if "ControlNet" in name:
        parts["controlnet"] = awaken(diffusers.SanaControlNetModel(**SANA_NETWORK | {"num_layers": 1}), 73)
    return getattr(diffusers, name)(**parts)


def pixart(name: str = "PixArtSigmaPipeline") -> Any:
    import diffusers

    transformer = diffusers.PixArtTransformer2DModel(
        sample_size=8,
        num_layers=1,
        patch_size=2,
        attention_head_dim=4,
        num_attention_heads=2,
        caption_channels=8,
        in_channels=4,
        out_channels=8,
        cross_attention_dim=8,
    )
    return getattr(diffusers, name)(
        transformer=awaken(transformer, 80),
        scheduler=SCHEDULERS["dpm_2m"](),
        vae=vae(),
        text_encoder=t5(81),
        tokenizer=tokenizer(),
    )


def wan(name: str = "WanPipeline", *, boundary: float | None = None) -> Any:
    """With `boundary` it has two transformers, as Wan 2.2: the second takes over at that share of the noise."""
    import diffusers
    from diffusers.pipelines.wan import pipeline_wan

    if not hasattr(pipeline_wan, "ftfy"):  # diffusers 0.35 mends prompts with it whether it is installed or not
        vars(pipeline_wan)["ftfy"] = SimpleNamespace(fix_text=str)

    def transformer(seed: int) -> Any:
        return awaken(
            diffusers.WanTransformer3DModel(
                num_attention_heads=2,
                attention_head_dim=12,
                in_channels=4,
                out_channels=4,
                text_dim=8,
                freq_dim=8,
                ffn_dim=8,
                num_layers=1,
                rope_max_seq_len=16,
            ),
            seed,
        )

    autoencoder = diffusers.AutoencoderKLWan(
        base_dim=4,
        z_dim=4,
        dim_mult=[1, 1, 1, 1],
        num_res_blocks=1,
        temperal_downsample=[False, True, True],
        latents_mean=[0.1, -0.1, 0.2, 0.0],
        latents_std=[1.0, 1.2, 0.9, 1.1],
    )
    return getattr(diffusers, name)(
        tokenizer=tokenizer(),
        text_encoder=umt5(90),
        vae=awaken(autoencoder, 91),
        scheduler=SCHEDULERS["flow_unipc"](),
        transformer=transformer(92),
        transformer_2=None if boundary is None else transformer(93),
        boundary_ratio=boundary,
    )


SD3_SETTINGS = {**SIZE, "max_sequence_length": LENGTH}
SANA_SETTINGS = {
    "height": 2 * SIDE,
    "width": 2 * SIDE,
    "use_resolution_binning": False,
    "complex_human_instruction": None,
    "max_sequence_length": LENGTH,
}
OTHERS: dict[str, TinyFamily] = {
    "sd3": family(sd3, "flow_euler", settings=SD3_SETTINGS),
    "sd3_img2img": family(
        sd3,
        "flow_euler",
        "StableDiffusion3Img2ImgPipeline",
        per_row=("image",),
        settings={**SD3_SETTINGS, **FROM_PICTURE},
    ),
    "sd3_inpaint": family(
        sd3,
        "flow_euler",
        "StableDiffusion3InpaintPipeline",
        per_row=("image", "mask_image"),
        settings={**SD3_SETTINGS, **FROM_PICTURE},
    ),
    "sd3_controlnet": family(
        sd3,
        "flow_euler",
        "StableDiffusion3ControlNetPipeline",
        inputs=with_control("control_image"),
        settings=SD3_SETTINGS,
    ),
    "sd3_controlnet_inpaint": family(
        sd3,
        "flow_euler",
        "StableDiffusion3ControlNetInpaintingPipeline",
        inputs=with_given(with_control("control_image"), control_mask=lambda: masks(1)),
        settings=SD3_SETTINGS,
    ),
    "sana": family(sana, "flow_dpm", settings=SANA_SETTINGS),
    "sana_controlnet": family(
        sana,
        "flow_dpm",
        "SanaControlNetPipeline",
        inputs=with_control("control_image"),
        settings=SANA_SETTINGS,
    ),
    "sana_sprint": family(
        sana,
        "scm",
        "SanaSprintPipeline",
        inputs=positive,
        guided=None,
        unguided={"guidance_scale": 4.5},
        settings={**SANA_SETTINGS, "intermediate_timesteps": None},
    ),
    "sana_sprint_img2img": family(
        sana,
        "scm",
        "SanaSprintImg2ImgPipeline",
        inputs=positive,
        per_row=("image",),
        guided=None,
        unguided={"guidance_scale": 4.5},
        settings={**SANA_SETTINGS, "intermediate_timesteps": None, "strength": 0.8},
    ),
    "wan": family(
        wan,
        "flow_unipc",
        settings={**SIZE, "num_frames": 1, "max_sequence_length": LENGTH},
        per_prompt="num_videos_per_prompt",
    ),
    "wan_frames": family(
        wan,
        "flow_unipc",
        settings={**SIZE, "num_frames": 5, "max_sequence_length": LENGTH},
        per_prompt="num_videos_per_prompt",
    ),
    "wan_two": family(
        lambda: wan(boundary=0.8),
        "flow_unipc",
        settings={**SIZE, "num_frames": 1, "max_sequence_length": LENGTH},
        per_prompt="num_videos_per_prompt",
    ),
}
PIXART_SETTINGS = {**SIZE, "use_resolution_binning": False, "clean_caption": False, "max_sequence_length": LENGTH}
REFUSED: dict[str, TinyFamily] = {
    "pixart_sigma": family(pixart, "dpm_2m", settings=PIXART_SETTINGS),
    "pixart_alpha": family(pixart, "dpm_2m", "PixArtAlphaPipeline", settings=PIXART_SETTINGS),
}
