"""Which family a pipeline belongs to, and whether it is as diffusers makes it."""

from typing import Any

from .family import Family
from .known.flux import FLUX
from .known.qwen import QWEN
from .known.transformers import TRANSFORMERS
from .known.unets import UNETS
from .known.z_image import Z_IMAGE
from .networks import check_network
from .schedulers import SEQUENTIAL, UnsupportedPipelineError, check_scheduler

__all__ = ["FAMILIES", "Family", "check_exact", "family_of"]

FAMILIES: tuple[Family, ...] = (*UNETS, *FLUX, *QWEN, *Z_IMAGE, *TRANSFORMERS)

_OLD_CALLBACK = ("PixArtAlphaPipeline", "PixArtSigmaPipeline")


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
            check_network(attribute, module)
