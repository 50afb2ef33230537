"""Pipelines around a transformer of their own."""

from ..family import CONTROL, INPAINTING, IP_ADAPTER, MASKED_TEXT, TEXT, Family

TRANSFORMERS = (
    Family(
        "sd3",
        (
            "StableDiffusion3Pipeline",
            "StableDiffusion3Img2ImgPipeline",
            "StableDiffusion3InpaintPipeline",
            "StableDiffusion3ControlNetPipeline",
            "StableDiffusion3ControlNetInpaintingPipeline",
        ),
        denoisers=("transformer",),
        companions=("controlnet",),
        batch_arguments=TEXT | CONTROL | {"pooled_projections", IP_ADAPTER},
        blended=INPAINTING,
        unseeded={
            "StableDiffusion3ControlNetPipeline": "the latents of its control picture",
            "StableDiffusion3ControlNetInpaintingPipeline": "the latents of its control picture",
        },
        tiny_decoder="madebyollin/taesd3",
    ),
    Family(
        "sana",
        ("SanaPipeline", "SanaControlNetPipeline", "SanaSprintPipeline", "SanaSprintImg2ImgPipeline"),
        denoisers=("transformer",),
        companions=("controlnet",),
        batch_arguments=MASKED_TEXT | CONTROL | {"guidance"},
        generator_in_step=True,
    ),
    Family(
        "hidream",
        ("HiDreamImagePipeline",),
        denoisers=("transformer",),
        batch_arguments=frozenset(
            {"timesteps", "encoder_hidden_states_t5", "encoder_hidden_states_llama3", "pooled_embeds"}
        ),
        row_axes={"encoder_hidden_states_llama3": 1, "prompt_embeds_llama3": 1},
        tiny_decoder="madebyollin/taef1",
    ),
    Family(
        "lumina2",
        ("Lumina2Pipeline",),
        denoisers=("transformer",),
        batch_arguments=MASKED_TEXT,
        tiny_decoder="madebyollin/taef1",
    ),
    Family(
        "cogview4",
        ("CogView4Pipeline", "CogView4ControlPipeline"),
        denoisers=("transformer",),
        batch_arguments=TEXT | {"original_size", "target_size", "crop_coords"},
        blended=("control_image",),
        unseeded={"CogView4ControlPipeline": "the latents of its control picture"},
    ),
    Family("aura-flow", ("AuraFlowPipeline",), denoisers=("transformer",), batch_arguments=TEXT),
    Family(
        "ernie-image",
        ("ErnieImagePipeline",),
        denoisers=("transformer",),
        batch_arguments=frozenset({"timestep", "text_bth", "text_lens"}),
        layout="ernie",
    ),
    Family(
        "hunyuan-image",
        ("HunyuanImagePipeline",),
        denoisers=("transformer",),
        batch_arguments=MASKED_TEXT | {"timestep_r", "guidance", "encoder_hidden_states_2", "encoder_attention_mask_2"},
    ),
    Family(
        "ideogram4",
        ("Ideogram4Pipeline",),
        denoisers=("transformer", "unconditional_transformer"),
        batch_arguments=TEXT | {"position_ids", "segment_ids", "indicator"},
        blended=("text_z_padding",),
        row_counts=("batch_size", "num_images_per_prompt"),
        layout="ideogram4",
    ),
    Family(
        "wan",
        ("WanPipeline",),
        denoisers=("transformer", "transformer_2"),
        batch_arguments=TEXT,
        layout="video",
    ),
)
