"""Flux and what descends from it: FLUX.1, Chroma, Ovis, FLUX.2."""

from ..family import CONTROL, INPAINTING, IP_ADAPTER, TEXT, Family

# txt_ids and img_ids have no rows; their length could be the number of rows.
_ARGUMENTS = TEXT | {"pooled_projections", "guidance", IP_ADAPTER}

FLUX = (
    Family(
        "flux",
        (
            "FluxPipeline",
            "FluxImg2ImgPipeline",
            "FluxInpaintPipeline",
            "FluxKontextPipeline",
            "FluxKontextInpaintPipeline",
            "FluxFillPipeline",
            "FluxControlPipeline",
            "FluxControlImg2ImgPipeline",
            "FluxControlNetPipeline",
            "FluxControlNetImg2ImgPipeline",
            "FluxControlNetInpaintPipeline",
        ),
        denoisers=("transformer",),
        companions=("controlnet",),
        batch_arguments=_ARGUMENTS | CONTROL | {"controlnet_mode"},
        blended=(*INPAINTING, "control_image", "image_reference_latents"),
        tiny_decoder="madebyollin/taef1",
        layout="flux",
    ),
    Family(
        "flux-control-inpaint",
        ("FluxControlInpaintPipeline",),
        denoisers=("transformer",),
        batch_arguments=_ARGUMENTS,
        blended=(*INPAINTING, "control_image"),
        row_counts=("batch_size", "num_images_per_prompt"),
        tiny_decoder="madebyollin/taef1",
        layout="flux",
    ),
    Family(
        "chroma",
        ("ChromaPipeline", "ChromaImg2ImgPipeline", "ChromaInpaintPipeline"),
        denoisers=("transformer",),
        batch_arguments=TEXT | {"attention_mask", IP_ADAPTER},
        blended=INPAINTING,
        tiny_decoder="madebyollin/taef1",
        layout="flux",
    ),
    Family(
        "ovis-image",
        ("OvisImagePipeline",),
        denoisers=("transformer",),
        batch_arguments=TEXT,
        tiny_decoder="madebyollin/taef1",
        layout="flux",
    ),
    Family(
        "flux2",
        ("Flux2Pipeline", "Flux2KleinPipeline", "Flux2KleinInpaintPipeline", "Flux2KleinKVPipeline"),
        denoisers=("transformer",),
        batch_arguments=TEXT | {"guidance", "txt_ids", "img_ids"},
        blended=("image_latents", "condition_image_latents", "mask", "noise"),
        caches=("kv_cache",),
        layout="flux2",
    ),
)
