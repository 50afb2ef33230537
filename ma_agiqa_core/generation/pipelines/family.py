"""What has to be known of a pipeline of diffusers before rows can be dropped in the middle of its loop."""

from collections.abc import Mapping
from dataclasses import dataclass, field


@dataclass(frozen=True)
class Family:
    """One family of pipelines.

    Attributes:
        name: Short name.
        pipelines: Exact class names.
        denoisers: Attributes of the networks whose calls are the cost.
        batch_arguments: Arguments of a denoiser with one entry per row: tensors, or lists of one tensor for each
            adapter. "a.b" is entry b of the dict a.
        row_lists: Arguments of a denoiser that are lists with one entry per row.
        row_axes: The dimension that counts the rows, of those arguments and tensors of the callback where it is not
            the first.
        companions: Further networks with such arguments, whose calls are not counted.
        blended: Local variables of the loop with one row per picture that are used outside the denoiser and that
            not every pipeline takes back from its callback.
        kept_mask: The local variable that is 0 where inpainting keeps `image_latents`.
        caches: Local variables of the loop that hold keys and values of every row from step to step.
        row_counts: Local variables of the loop whose product is the number of rows.
        unseeded: What a pipeline draws from torch's global random numbers, by class name: two calls with the same
            generator are not the same pictures then, pruned or not.
        generator_in_step: The pipeline gives its generators to `scheduler.step`.
        tiny_decoder: Hub id of a small decoder for previews.
        layout: How the latents lie, a name in `latents.py`.

    Example:
        >>> from ma_agiqa_core.generation.pipelines.family import Family
        >>> Family("mine", ("MyPipeline",), denoisers=("transformer",), batch_arguments=frozenset({"timestep"})).layout
        'plain'
    """

    name: str
    pipelines: tuple[str, ...]
    denoisers: tuple[str, ...]
    batch_arguments: frozenset[str]
    row_lists: frozenset[str] = frozenset()
    row_axes: Mapping[str, int] = field(default_factory=dict)
    companions: tuple[str, ...] = ()
    blended: tuple[str, ...] = ()
    kept_mask: str = "init_mask"
    caches: tuple[str, ...] = ()
    row_counts: tuple[str, ...] = ()
    unseeded: Mapping[str, str] = field(default_factory=dict)
    generator_in_step: bool = False
    tiny_decoder: str | None = None
    layout: str = "plain"


TEXT = frozenset({"encoder_hidden_states", "timestep"})
MASKED_TEXT = TEXT | {"encoder_attention_mask"}
IP_ADAPTER = "joint_attention_kwargs.ip_adapter_image_embeds"
INPAINTING = ("mask", "masked_image_latents", "image_latents", "noise")
CONTROL = frozenset({"controlnet_cond"})
