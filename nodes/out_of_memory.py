"""Whether an error says that the memory of a device ran out, in the words of any version of ComfyUI."""

from comfy import model_management

from ..ma_agiqa_core.compute.batching import is_out_of_memory as told_in_words


def is_out_of_memory(error: BaseException) -> bool:
    """CUDA may report it late, as an error of the accelerator; newer versions of ComfyUI clear that state here."""
    known = getattr(model_management, "is_oom", None)
    if known is not None and known(error):
        return True
    return isinstance(error, model_management.OOM_EXCEPTION) or told_in_words(error)
