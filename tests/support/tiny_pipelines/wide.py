"""Tiny pipelines of single models: HiDream, Lumina 2, CogView 4, AuraFlow, ERNIE, HunyuanImage, Ideogram 4, Nucleus."""

from typing import Any

import torch

from .families import SIZE, TinyFamily, family, with_given
from .flux import flux2_vae
from .making import LENGTH, awaken, pictures, random
from .qwen import qwen_vae
from .schedulers import SCHEDULERS
from .texts import lengths_mask, text, tokenizer, umt5, vectors
from .unets import vae


def hidream(name: str = "HiDreamImagePipeline") -> Any:
    import diffusers

    transformer = diffusers.HiDreamImageTransformer2DModel(
        patch_size=2,
        in_channels=4,
        out_channels=4,
        num_layers=1,
        num_single_layers=1,
        attention_head_dim=8,
        num_attention_heads=2,
        caption_channels=[8, 8],
        text_emb_dim=8,
        axes_dims_rope=(4, 2, 2),
        max_resolution=(8, 8),
        llama_layers=[0, 1],
        force_inference_output=True,
    )
    parts = {f"{kind}{number}": None for kind in ("text_encoder", "tokenizer") for number in ("", "_2", "_3", "_4")}
    pipe = getattr(diffusers, name)(
        **parts,
        transformer=awaken(transformer, 110),
        scheduler=SCHEDULERS["flow_euler"](),
        vae=vae(shift_factor=0.1),
    )
    pipe.default_sample_size = 8  # it makes pictures of one area, whatever is asked for
    return pipe


def hidream_vectors(prompts: int) -> dict[str, Any]:
    """T5's vectors, and those of two layers of Llama, which come first."""
    made: dict[str, Any] = {}
    for number, prefix in enumerate(("", "negative_")):
        made[f"{prefix}prompt_embeds_t5"] = random(1 + number, prompts, 6, 8)
        made[f"{prefix}prompt_embeds_llama3"] = random(3 + number, 2, prompts, 6, 8)
        made[f"{prefix}pooled_prompt_embeds"] = random(5 + number, prompts, 8)
    return made


def lumina2(name: str = "Lumina2Pipeline") -> Any:
    import diffusers

    transformer = diffusers.Lumina2Transformer2DModel(
        sample_size=8,
        in_channels=4,
        hidden_size=24,
        num_layers=1,
        num_refiner_layers=1,
        num_attention_heads=2,
        num_kv_heads=2,
        multiple_of=8,
        axes_dim_rope=(4, 4, 4),
        axes_lens=(32, 16, 16),
        cap_feat_dim=8,
    )
    pipe = getattr(diffusers, name)(
        transformer=awaken(transformer, 111),
        scheduler=SCHEDULERS["flow_euler"](),
        vae=vae(shift_factor=0.1),
        text_encoder=None,
        tokenizer=None,
    )
    pipe.vae_scale_factor = 2  # the tiny VAE's
    # Stands for Gemma; negative vectors that are given are not repeated for several pictures, in diffusers itself.
    pipe._get_gemma_prompt_embeds = lambda prompt, *_, **__: (
        torch.stack([random(len(text), 6, 8) for text in prompt]),
        torch.stack([torch.arange(6) < 2 + len(text) % 5 for text in prompt]),
    )
    return pipe


def cogview4(name: str = "CogView4Pipeline", *, channels: int = 4) -> Any:
    import diffusers

    transformer = diffusers.CogView4Transformer2DModel(
        in_channels=channels,
        out_channels=4,
        num_layers=1,
        attention_head_dim=8,
        num_attention_heads=2,
        text_embed_dim=8,
        time_embed_dim=8,
        condition_dim=4,
        pos_embed_max_size=8,
        sample_size=8,
        rope_axes_dim=(8, 8),
    )
    pipe = getattr(diffusers, name)(
        transformer=awaken(transformer, 112),
        scheduler=SCHEDULERS["flow_euler"](),
        vae=vae(),
        text_encoder=None,
        tokenizer=None,
    )
    # Stands for GLM; negative vectors that are given are not repeated for several pictures, in diffusers itself.
    pipe._get_glm_embeds = lambda prompt, *_, **__: torch.stack(
        [random(len(text), 6, 8) for text in ([prompt] if isinstance(prompt, str) else prompt)]
    )
    return pipe


def aura_flow(name: str = "AuraFlowPipeline") -> Any:
    import diffusers

    transformer = diffusers.AuraFlowTransformer2DModel(
        sample_size=8,
        num_mmdit_layers=1,
        num_single_dit_layers=1,
        attention_head_dim=8,
        num_attention_heads=2,
        joint_attention_dim=8,
        caption_projection_dim=16,
        pos_embed_max_size=64,
    )
    return getattr(diffusers, name)(
        transformer=awaken(transformer, 113),
        scheduler=SCHEDULERS["flow_euler"](),
        vae=vae(),
        text_encoder=umt5(114),
        tokenizer=tokenizer(),
    )


def ernie(name: str = "ErnieImagePipeline") -> Any:
    import diffusers

    transformer = diffusers.ErnieImageTransformer2DModel(
        hidden_size=16,
        num_attention_heads=2,
        num_layers=1,
        ffn_hidden_size=16,
        in_channels=16,
        out_channels=16,
        text_in_dim=8,
        rope_axes_dim=(4, 2, 2),
    )
    pipe = getattr(diffusers, name)(
        transformer=awaken(transformer, 115),
        scheduler=SCHEDULERS["flow_euler"](),
        vae=flux2_vae(),
        text_encoder=None,
        tokenizer=None,
        pe=None,
        pe_tokenizer=None,
    )
    pipe.vae_scale_factor = 4  # the tiny VAE's, and patches of two
    return pipe


def listed_vectors(prompts: int) -> dict[str, Any]:
    return {
        "prompt_embeds": [random(1 + row, length, 8) for row, length in enumerate((6, 4, 3)[:prompts])],
        "negative_prompt_embeds": [random(11 + row, length, 8) for row, length in enumerate((5, 3, 6)[:prompts])],
    }


def hunyuan_image(name: str = "HunyuanImagePipeline", *, guided: bool = True) -> Any:
    """The guider is a part of the pipeline, with momentum from step to step; the distilled one has none."""
    import diffusers
    from diffusers.guiders import AdaptiveProjectedMixGuidance

    transformer = diffusers.HunyuanImageTransformer2DModel(
        in_channels=4,
        out_channels=4,
        num_attention_heads=2,
        attention_head_dim=8,
        num_layers=1,
        num_single_layers=1,
        num_refiner_layers=1,
        guidance_embeds=not guided,
        use_meanflow=not guided,
        text_embed_dim=8,
        text_embed_2_dim=8,
        rope_axes_dim=(4, 4),
    )
    autoencoder = diffusers.AutoencoderKLHunyuanImage(
        in_channels=3,
        out_channels=3,
        latent_channels=4,
        block_out_channels=(32, 32),
        layers_per_block=1,
        spatial_compression_ratio=2,
        sample_size=16,
        scaling_factor=0.5,
    )
    guider = AdaptiveProjectedMixGuidance(
        guidance_scale=3.0,
        adaptive_projected_guidance_scale=4.0,
        adaptive_projected_guidance_momentum=-0.5,
        adaptive_projected_guidance_start_step=1,
    )
    return getattr(diffusers, name)(
        transformer=awaken(transformer, 116),
        scheduler=SCHEDULERS["flow_euler"](),
        vae=awaken(autoencoder, 117),
        text_encoder=None,
        tokenizer=None,
        text_encoder_2=None,
        tokenizer_2=None,
        guider=guider if guided else None,
        ocr_guider=None,
    )


def hunyuan_vectors(prompts: int) -> dict[str, Any]:
    made: dict[str, Any] = {}
    for number, prefix in enumerate(("", "negative_")):
        for other, ending in enumerate(("", "_2")):
            made[f"{prefix}prompt_embeds{ending}"] = random(1 + number + 2 * other, prompts, 6, 8)
            made[f"{prefix}prompt_embeds_mask{ending}"] = lengths_mask(prompts, negative=number == 1)
    return made


def ideogram4(name: str = "Ideogram4Pipeline") -> Any:
    import diffusers

    def transformer(seed: int) -> Any:
        network = diffusers.Ideogram4Transformer2DModel(
            in_channels=16,
            num_layers=1,
            attention_head_dim=8,
            num_attention_heads=2,
            intermediate_size=16,
            adaln_dim=8,
            llm_features_dim=8,
            mrope_section=(2, 1, 1),
        )
        return awaken(network, seed)

    pipe = getattr(diffusers, name)(
        transformer=transformer(118),
        unconditional_transformer=transformer(119),
        scheduler=SCHEDULERS["flow_euler"](),
        vae=flux2_vae(),
        text_encoder=None,
        tokenizer=None,
    )

    def encode_prompt(
        prompt: Any, grid_h: int, grid_w: int, max_sequence_length: int, device: Any
    ) -> tuple[torch.Tensor, ...]:
        """Stands for Qwen3-VL: texts of unlike lengths, filled up on the left; the ids are the pipeline's own."""
        texts = [prompt] if isinstance(prompt, str) else prompt
        features = torch.stack([random(len(text), max_sequence_length + grid_h * grid_w, 8) for text in texts])
        return (
            features,
            *pipe._prepare_ids([len(text) for text in texts], grid_h, grid_w, max_sequence_length, device),
        )

    pipe.encode_prompt = encode_prompt
    return pipe


def nucleus(name: str = "NucleusMoEImagePipeline") -> Any:
    import diffusers

    transformer = diffusers.NucleusMoEImageTransformer2DModel(
        in_channels=16,
        out_channels=4,
        num_layers=5,  # the first three and the last have no experts
        attention_head_dim=8,
        num_attention_heads=6,
        joint_attention_dim=8,
        axes_dims_rope=(2, 2, 4),
        num_experts=4,
        moe_intermediate_dim=8,
        capacity_factors=2.0,
    )
    return getattr(diffusers, name)(
        transformer=awaken(transformer, 120),
        scheduler=SCHEDULERS["flow_euler"](),
        vae=qwen_vae(),
        text_encoder=None,
        processor=None,
    )


WIDE: dict[str, TinyFamily] = {
    "hidream": family(hidream, "flow_unipc", inputs=hidream_vectors),
    "lumina2": family(lumina2, "flow_euler"),
    "cogview4": family(cogview4, "flow_euler"),
    "cogview4_control": family(
        lambda: cogview4("CogView4ControlPipeline", channels=8),
        "flow_euler",
        inputs=with_given(text, control_image=lambda: pictures(1, seed=8)),
    ),
    "aura_flow": family(aura_flow, "flow_euler", inputs=text, settings={**SIZE, "max_sequence_length": LENGTH}),
    "ernie": family(ernie, "flow_euler", inputs=listed_vectors),
    "hunyuan_image": family(hunyuan_image, "flow_euler", inputs=hunyuan_vectors, guided=None, unguided={}),
    "hunyuan_image_distilled": family(
        lambda: hunyuan_image(guided=False), "flow_euler", inputs=hunyuan_vectors, guided=None, unguided={}
    ),
    "ideogram4": family(
        ideogram4,
        "flow_euler",
        inputs=lambda prompts: {"prompt": text(prompts)["prompt"]},
        guided={"guidance_scale": 3.0, "guidance_schedule": None},
        unguided={"guidance_scale": 1.0, "guidance_schedule": None},
        settings={**SIZE, "max_sequence_length": LENGTH},
    ),
    "nucleus": family(nucleus, "flow_euler_dynamic", inputs=vectors(mask=True)),
}
