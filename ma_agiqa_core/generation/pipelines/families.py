"""Which family a pipeline belongs to, and whether it is as diffusers makes it."""

from typing import Any

from .family import Family
from .known.flux import FLUX
from .known.qwen import QWEN
from .known.transformers import TRANSFORMERS
from .known.unets import UNETS
from .known.z_image import Z_IMAGE
from .networks import check_network
from .refused import REFUSED
from .schedulers import SEQUENTIAL, UnsupportedPipelineError, check_scheduler

__all__ = ["FAMILIES", "Family", "check_exact", "family_of"]

FAMILIES: tuple[Family, ...] = (*UNETS, *FLUX, *QWEN, *Z_IMAGE, *TRANSFORMERS)


def family_of(pipe: Any) -> Family:
    """The family of a pipeline, by its exact class.

    Raises:
        UnsupportedPipelineError: It is not known how rows could be dropped in this pipeline.
    """
    kind = type(pipe)
    if kind.__module__.split(".")[0] == "diffusers":
        if (refused := REFUSED.get(kind.__name__)) is not None:
            raise UnsupportedPipelineError(
                f"Expected a pipeline in which rows can be dropped exactly, got {kind.__name__}, {refused.reason}"
            )
        for family in FAMILIES:
            if kind.__name__ in family.pipelines:
                return family
    raise UnsupportedPipelineError(
        f"Expected a pipeline in which rows can be dropped exactly, got {kind.__module__}.{kind.__name__}, which is "
        f"not in the table (`ma-agiqa families` prints it; subclasses are others). {SEQUENTIAL}"
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
