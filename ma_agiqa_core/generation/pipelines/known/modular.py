"""The denoising loops of diffusers' modular pipelines, by the class of the loop.

What the network is given is cut as in the pipelines of its family; here is what the blocks of the loop use besides.
Only loops that a test compares with the unpruned run stand here: others, such as that of layered pictures, are refused.
"""

from dataclasses import dataclass, replace

from ..family import TEXT, Family
from .flux import FLUX
from .qwen import QWEN
from .transformers import TRANSFORMERS
from .unets import UNETS
from .z_image import Z_IMAGE

FLUX3 = Family(
    "flux3",
    (),
    denoisers=("transformer",),
    batch_arguments=TEXT | {"target_timestep", "image_cond_hidden_states"},  # the ids have no rows
    layout="flux2",
)
ANIMA = Family("anima", (), denoisers=("transformer",), batch_arguments=TEXT, layout="video")


@dataclass(frozen=True)
class Loops:
    """The loops of one family's modular pipelines.

    Attributes:
        family: Name of the family whose network they call.
        loops: Their exact classes.
        blended: Fields of the block state with one row per picture that blocks use outside the network.
        caches: Fields that hold keys and values of every row.
        row_counts: Fields whose product is the number of rows.
    """

    family: str
    loops: tuple[str, ...]
    blended: tuple[str, ...] = ()
    caches: tuple[str, ...] = ()
    row_counts: tuple[str, ...] = ()


MODULAR = (
    Loops(
        "sdxl",
        (
            "StableDiffusionXLDenoiseStep",
            "StableDiffusionXLInpaintDenoiseStep",
            "StableDiffusionXLControlNetDenoiseStep",
            "StableDiffusionXLInpaintControlNetDenoiseStep",
        ),
        blended=("mask", "masked_image_latents", "image_latents", "noise"),
    ),
    Loops("sd3", ("StableDiffusion3DenoiseStep",)),
    Loops("flux", ("FluxDenoiseStep", "FluxKontextDenoiseStep"), blended=("image_latents",)),
    Loops(
        "flux2", ("Flux2DenoiseStep", "Flux2KleinDenoiseStep", "Flux2KleinBaseDenoiseStep"), blended=("image_latents",)
    ),
    Loops("flux3", ("Flux3DenoiseStep", "Flux3DistilledDenoiseStep")),
    Loops("anima", ("AnimaDenoiseStep",)),
    Loops("krea2", ("Krea2DenoiseStep", "Krea2TurboDenoiseStep"), row_counts=("batch_size",)),
    Loops(
        "qwen-image",
        (
            "QwenImageDenoiseStep",
            "QwenImageInpaintDenoiseStep",
            "QwenImageControlNetDenoiseStep",
            "QwenImageInpaintControlNetDenoiseStep",
            "QwenImageEditDenoiseStep",
            "QwenImageEditInpaintDenoiseStep",
        ),
        blended=("mask", "image_latents", "initial_noise"),
    ),
    Loops(
        "qwen-image-2.1",
        (
            "QwenImage21DenoiseStep",
            "QwenImage21TurboDenoiseStep",
            "QwenImage21ImageConditionedDenoiseStep",
            "QwenImage21TurboImageConditionedDenoiseStep",
        ),
        blended=("image_latents",),
        caches=("kv_caches",),
    ),
    Loops("z-image", ("ZImageDenoiseStep",)),
    Loops("ernie-image", ("ErnieImageDenoiseStep",)),
    Loops("ideogram4", ("Ideogram4DenoiseStep",), row_counts=("batch_size",)),
)

GUIDERS = (
    "ClassifierFreeGuidance",
    "ClassifierFreeZeroStarGuidance",
    "AdaptiveProjectedGuidance",
    "AdaptiveProjectedMixGuidance",
    "AutoGuidance",
    "MagnitudeAwareGuidance",
    "PerturbedAttentionGuidance",
    "SkipLayerGuidance",
    "SmoothedEnergyGuidance",
    "TangentialClassifierFreeGuidance",
)
"""Guiders of diffusers that give the network the rows once more for each condition; what they keep is cut."""

_FAMILIES = {family.name: family for family in (*UNETS, *FLUX, *QWEN, *Z_IMAGE, *TRANSFORMERS, FLUX3, ANIMA)}


def family_of_loop(loop: str) -> Family | None:
    """The family of a loop, with what its blocks use; None if the loop is not known.

    Args:
        loop: Its class.
    """
    for loops in MODULAR:
        if loop in loops.loops:
            return replace(
                _FAMILIES[loops.family],
                blended=loops.blended,
                caches=loops.caches,
                row_counts=loops.row_counts,
                kept_mask="mask",
            )
    return None
