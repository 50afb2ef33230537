"""Pipelines around a UNet: Stable Diffusion, SDXL, Kolors."""

from ..family import CONTROL, INPAINTING, Family

_ARGUMENTS = frozenset({"encoder_hidden_states", "timestep", "timestep_cond", "added_cond_kwargs.image_embeds"})
_SDXL_ARGUMENTS = _ARGUMENTS | {"added_cond_kwargs.text_embeds", "added_cond_kwargs.time_ids"}

UNETS = (
    Family(
        "stable-diffusion",
        (
            "StableDiffusionPipeline",
            "StableDiffusionImg2ImgPipeline",
            "StableDiffusionInpaintPipeline",
            "StableDiffusionControlNetPipeline",
            "StableDiffusionControlNetImg2ImgPipeline",
            "StableDiffusionControlNetInpaintPipeline",
            "LatentConsistencyModelPipeline",
            "LatentConsistencyModelImg2ImgPipeline",
        ),
        denoisers=("unet",),
        companions=("controlnet",),
        batch_arguments=_ARGUMENTS | CONTROL,
        blended=INPAINTING,
        generator_in_step=True,
        tiny_decoder="madebyollin/taesd",
    ),
    Family(
        "sdxl",
        (
            "StableDiffusionXLPipeline",
            "StableDiffusionXLImg2ImgPipeline",
            "StableDiffusionXLInpaintPipeline",
            "StableDiffusionXLControlNetPipeline",
            "StableDiffusionXLControlNetImg2ImgPipeline",
            "StableDiffusionXLControlNetInpaintPipeline",
            "KolorsPipeline",
            "KolorsImg2ImgPipeline",
        ),
        denoisers=("unet",),
        companions=("controlnet",),
        batch_arguments=_SDXL_ARGUMENTS | CONTROL,
        blended=INPAINTING,
        generator_in_step=True,
        tiny_decoder="madebyollin/taesdxl",
    ),
)
