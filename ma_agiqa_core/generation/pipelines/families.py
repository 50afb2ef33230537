"""What is known of each pipeline family of diffusers: all that dropping rows in mid-loop depends on.

Read from the `__call__` of diffusers 0.35 to 0.42 and checked picture by picture in tests/generation. A pipeline is
known by its exact class, never by a base class: one line added in a subclass's loop can make other pictures.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from .schedulers import SEQUENTIAL, UnsupportedPipelineError, check_scheduler

_UNET_ARGUMENTS = frozenset({"encoder_hidden_states", "timestep", "timestep_cond", "added_cond_kwargs.image_embeds"})
_SDXL_ARGUMENTS = _UNET_ARGUMENTS | {"added_cond_kwargs.text_embeds", "added_cond_kwargs.time_ids"}
_IP_ADAPTER = "joint_attention_kwargs.ip_adapter_image_embeds"
_INPAINTING = ("mask", "masked_image_latents", "image_latents", "noise")


@dataclass(frozen=True)
class Family:
    """One family of pipelines.

    Attributes:
        name: Short name.
        pipelines: Exact class names.
        denoisers: Attributes of the networks whose calls are the cost.
        batch_arguments: Keyword arguments of a denoiser with one entry per row. "a.b" is entry b of the dict a.
        companions: Further networks with such arguments, whose calls are not counted.
        blended: Local variables of the loop with one row per picture that are used outside the denoiser and that
            not every pipeline takes back from its callback.
        generator_in_step: The pipeline gives its generators to `scheduler.step`.
        tiny_decoder: Hub id of a small decoder for previews.
        layout: How the latents lie: "plain" (B, C, H, W), "video" (B, C, F, H, W), or packed as tokens: "flux",
            "flux2", "qwen".
    """

    name: str
    pipelines: tuple[str, ...]
    denoisers: tuple[str, ...]
    batch_arguments: frozenset[str]
    companions: tuple[str, ...] = ()
    blended: tuple[str, ...] = ()
    generator_in_step: bool = False
    tiny_decoder: str | None = None
    layout: str = "plain"


FAMILIES = (
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
        batch_arguments=_UNET_ARGUMENTS | {"controlnet_cond"},
        blended=_INPAINTING,
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
        batch_arguments=_SDXL_ARGUMENTS | {"controlnet_cond"},
        blended=_INPAINTING,
        generator_in_step=True,
        tiny_decoder="madebyollin/taesdxl",
    ),
    Family(
        "sd3",
        ("StableDiffusion3Pipeline", "StableDiffusion3Img2ImgPipeline", "StableDiffusion3InpaintPipeline"),
        denoisers=("transformer",),
        batch_arguments=frozenset({"encoder_hidden_states", "pooled_projections", "timestep", _IP_ADAPTER}),
        blended=_INPAINTING,
        tiny_decoder="madebyollin/taesd3",
    ),
    Family(
        "flux",
        ("FluxPipeline", "FluxImg2ImgPipeline", "FluxInpaintPipeline"),
        denoisers=("transformer",),
        # txt_ids and img_ids have no rows; their length could be the number of rows.
        batch_arguments=frozenset({"encoder_hidden_states", "pooled_projections", "guidance", "timestep", _IP_ADAPTER}),
        blended=_INPAINTING,
        tiny_decoder="madebyollin/taef1",
        layout="flux",
    ),
    Family(
        "flux2",
        ("Flux2Pipeline", "Flux2KleinPipeline"),
        denoisers=("transformer",),
        batch_arguments=frozenset({"encoder_hidden_states", "guidance", "timestep", "txt_ids", "img_ids"}),
        blended=("image_latents",),
        layout="flux2",
    ),
    Family(
        "qwen-image",
        ("QwenImagePipeline", "QwenImageImg2ImgPipeline", "QwenImageInpaintPipeline"),
        denoisers=("transformer",),
        batch_arguments=frozenset(
            {"encoder_hidden_states", "encoder_hidden_states_mask", "guidance", "timestep", "img_shapes"}
        ),
        blended=_INPAINTING,
        layout="qwen",
    ),
    Family(
        "sana",
        ("SanaPipeline",),
        denoisers=("transformer",),
        batch_arguments=frozenset({"encoder_hidden_states", "encoder_attention_mask", "timestep"}),
        generator_in_step=True,
    ),
    Family(
        "wan",
        ("WanPipeline",),
        denoisers=("transformer", "transformer_2"),
        batch_arguments=frozenset({"encoder_hidden_states", "timestep"}),
        layout="video",
    ),
)

_OLD_CALLBACK = ("PixArtAlphaPipeline", "PixArtSigmaPipeline")

# Parts of diffusers hang these on modules; they change where weights lie, and nothing that depends on the batch.
_HARMLESS_HOOKS = (
    "layerwise_casting",
    "peft_autocast_disable",
    "group_offloading",
    "lazy_prefetch_group_offloading",
    "layer_execution_tracker",
)


def family_of(pipe: Any) -> Family:
    """The family of a pipeline, by its exact class.

    Raises:
        UnsupportedPipelineError: It is not known how rows could be dropped in this pipeline.
    """
    kind = type(pipe)
    if kind.__name__ in _OLD_CALLBACK:
        raise UnsupportedPipelineError(
            f"Expected a pipeline with callback_on_step_end, got {kind.__name__}, which only has diffusers' old "
            "`callback`: nothing can be dropped or stopped in it, not even with strategy='sequential'. Finish all "
            "candidates and choose among the pictures with ma_agiqa_core.rank."
        )
    if kind.__module__.split(".")[0] == "diffusers":
        for family in FAMILIES:
            if kind.__name__ in family.pipelines:
                return family
    known = ", ".join(name for family in FAMILIES for name in family.pipelines)
    raise UnsupportedPipelineError(
        f"Expected a pipeline in which rows can be dropped exactly, got {kind.__module__}.{kind.__name__}. Known are "
        f"{known} of diffusers, and no subclasses. {SEQUENTIAL}"
    )


def check_exact(pipe: Any, family: Family) -> None:
    """Refuses what is not known to leave the survivors as they are.

    Raises:
        UnsupportedPipelineError: A scheduler that is not in SCHEDULERS, hooks that keep features from step to step, a
            network whose `forward` was replaced, or attention that is not diffusers' own.
    """
    check_scheduler(pipe.scheduler)
    for attribute in (*family.denoisers, *family.companions):
        module = getattr(pipe, attribute, None)
        if module is not None:
            _check_network(attribute, module)


def _check_network(attribute: str, module: Any) -> None:
    if (hook := _feature_hook(module)) is not None:
        raise UnsupportedPipelineError(
            f"Expected a {attribute} without hooks that keep features between steps, got {hook!r}: what it keeps "
            f"has the rows of the step before. Call {attribute}.disable_cache(). {SEQUENTIAL}"
        )
    if (part := _patched_part(module)) is not None:
        raise UnsupportedPipelineError(
            f"Expected a {attribute} as diffusers makes it, got {part or attribute} with another forward, such as "
            f"DeepCache's, which may keep features of rows that are gone. Take it off. {SEQUENTIAL}"
        )
    processors = getattr(module, "attn_processors", {})
    if foreign := [kind for kind in map(type, processors.values()) if kind.__module__.split(".")[0] != "diffusers"]:
        raise UnsupportedPipelineError(
            f"Expected attention processors of diffusers in {attribute}, got {foreign[0].__module__}."
            f"{foreign[0].__name__}, under which rows may look at each other. Take it off. {SEQUENTIAL}"
        )


def _patched_part(module: Any) -> str | None:
    """Name of a part whose `forward` was replaced; accelerate's offloading, diffusers' hooks and torch.compile may."""
    for name, part in module.named_modules():
        forward = vars(part).get("forward")
        is_own = getattr(forward, "__func__", None) is type(part).forward  # put back by what had replaced it
        is_known = hasattr(part, "_hf_hook") or hasattr(part, "_diffusers_hook") or hasattr(part, "_orig_mod")
        if forward is not None and not is_own and not is_known:
            return str(name)
    return None


def _feature_hook(module: Any) -> str | None:
    """Name of a hook that keeps features from step to step, e.g. of FirstBlockCache."""
    if getattr(module, "is_cache_enabled", False):
        return type(getattr(module, "_cache_config", None)).__name__
    for registry in _hook_registries(module):
        for name in registry.hooks:
            if name not in _HARMLESS_HOOKS:
                return str(name)
    return None


def _hook_registries(module: Any) -> Iterator[Any]:
    for part in module.modules():
        registry = getattr(part, "_diffusers_hook", None)
        if registry is not None:
            yield registry
