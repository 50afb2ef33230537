"""Z-Image: its network takes and gives lists with one tensor per row."""

from ..family import INPAINTING, Family

Z_IMAGE = (
    Family(
        "z-image",
        (
            "ZImagePipeline",
            "ZImageImg2ImgPipeline",
            "ZImageInpaintPipeline",
            "ZImageControlNetPipeline",
            "ZImageControlNetInpaintPipeline",
            "ZImageOmniPipeline",
        ),
        denoisers=("transformer",),
        companions=("controlnet",),
        batch_arguments=frozenset({"t", "control_context"}),
        row_lists=frozenset({"cap_feats", "siglip_feats"}),
        blended=INPAINTING,
        kept_mask="mask",
        row_counts=("actual_batch_size",),
        tiny_decoder="madebyollin/taef1",
    ),
)
