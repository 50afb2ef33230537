"""Qwen-Image and its kin: Qwen-Image 1.x and 2.1, the editing pipelines, Krea 2, Nucleus."""

from ..family import CONTROL, INPAINTING, MASKED_TEXT, TEXT, Family

_ARGUMENTS = TEXT | {"encoder_hidden_states_mask", "guidance"}

QWEN = (
    Family(
        "qwen-image",
        (
            "QwenImagePipeline",
            "QwenImageImg2ImgPipeline",
            "QwenImageInpaintPipeline",
            "QwenImageControlNetPipeline",
            "QwenImageControlNetInpaintPipeline",
            "QwenImageEditPipeline",
            "QwenImageEditPlusPipeline",
            "QwenImageEditInpaintPipeline",
        ),
        denoisers=("transformer",),
        companions=("controlnet",),
        batch_arguments=_ARGUMENTS | CONTROL,
        row_lists=frozenset({"img_shapes"}),
        blended=INPAINTING,
        unseeded={"QwenImageControlNetInpaintPipeline": "the latents of its control picture"},
        layout="qwen",
    ),
    Family(
        "qwen-image-2.1",
        ("QwenImage21Pipeline",),
        denoisers=("transformer",),
        # img_mask and img_shapes have one entry per prompt, and the network reads only the first.
        batch_arguments=_ARGUMENTS,
        blended=("input_images_latents",),
        caches=("cond_cache", "neg_cache"),
        layout="qwen21",
    ),
    Family(
        "krea2",
        ("Krea2Pipeline",),
        denoisers=("transformer",),
        batch_arguments=MASKED_TEXT,
        layout="krea2",
    ),
    Family(
        "nucleus",
        ("NucleusMoEImagePipeline",),
        denoisers=("transformer",),
        batch_arguments=TEXT | {"encoder_hidden_states_mask"},
        row_lists=frozenset({"img_shapes"}),
        layout="qwen",
    ),
)
