"""Pipelines of diffusers in which rows cannot be dropped exactly, and why: read once, so that nobody has to again."""

from dataclasses import dataclass

NO_CALLBACK = (
    "nothing can be dropped or stopped in it, not even with strategy='sequential'. Finish all candidates and choose "
    "among the pictures with ma_agiqa_core.rank."
)
ONE_AT_A_TIME = "Use strategy='sequential', which runs one candidate at a time."


@dataclass(frozen=True)
class Refused:
    """Why one pipeline is refused.

    Attributes:
        reason: What stands in the way, with what to do instead.
        sequential: Whether single candidates can be stopped in it.

    Example:
        >>> from ma_agiqa_core.generation.pipelines.refused import REFUSED
        >>> REFUSED["LongCatImagePipeline"].sequential
        False
    """

    reason: str
    sequential: bool


_OLD_CALLBACK = Refused(f"which only has diffusers' old `callback`: {NO_CALLBACK}", sequential=False)
_NEVER_CALLED = Refused(f"which never calls callback_on_step_end: {NO_CALLBACK}", sequential=False)
_NOT_TAKEN_BACK = Refused(
    f"which throws away what its callback returns, and with guidance gives its network two times for all rows: "
    f"{NO_CALLBACK}",
    sequential=False,
)

REFUSED = {
    "PixArtAlphaPipeline": _OLD_CALLBACK,
    "PixArtSigmaPipeline": _OLD_CALLBACK,
    "LongCatImagePipeline": _NEVER_CALLED,
    "LongCatImageEditPipeline": _NEVER_CALLED,
    "DreamLitePipeline": _NEVER_CALLED,
    "DreamLiteMobilePipeline": _NEVER_CALLED,
    "PRXPipeline": _NOT_TAKEN_BACK,
    "PRXPixelPipeline": _NOT_TAKEN_BACK,
    "QwenImageLayeredPipeline": Refused(
        "which, with several rows, hands out layers of one row as another's (it counts one layer too many): no row "
        f"would be the picture of its seed. {ONE_AT_A_TIME}",
        sequential=True,
    ),
    "GlmImagePipeline": Refused(
        "whose first model draws the plan of all rows with the first row's generator: no candidate but the first "
        f"would be the picture of its seed. {ONE_AT_A_TIME}",
        sequential=True,
    ),
}
"""By exact class name."""
