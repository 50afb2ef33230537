"""The fake of ComfyUI's memory: what is loaded, what was asked to be freed, and the interrupt button."""

import torch

OOM_EXCEPTION = torch.cuda.OutOfMemoryError
ACCELERATOR_ERROR = getattr(torch, "AcceleratorError", RuntimeError)


def is_oom(e):
    return isinstance(e, OOM_EXCEPTION) or (isinstance(e, ACCELERATOR_ERROR) and "out of memory" in str(e).lower())


class InterruptProcessingException(Exception):
    pass


interrupt_processing = False


def interrupt_current_processing(value=True):
    global interrupt_processing
    interrupt_processing = value


def processing_interrupted():
    return interrupt_processing


def throw_exception_if_processing_interrupted():
    global interrupt_processing
    if interrupt_processing:
        interrupt_processing = False
        raise InterruptProcessingException


def get_torch_device():
    return torch.device("cpu")


def intermediate_device():
    return torch.device("cpu")


def unet_offload_device():
    return torch.device("cpu")


def module_size(module):
    return sum(tensor.nelement() * tensor.element_size() for tensor in module.state_dict().values())


def extra_reserved_memory():
    return 0


def minimum_inference_memory():
    return 2**30


class LoadedModel:
    def __init__(self, model):
        self.model, self.device, self.currently_used = model, model.load_device, True


current_loaded_models = []


def loaded_models(only_currently_used=False):
    return [entry.model for entry in current_loaded_models]


def load_models_gpu(
    models, memory_required=0, force_patch_weights=False, minimum_memory_required=None, force_full_load=False
):
    for patcher in models:
        if all(entry.model is not patcher for entry in current_loaded_models):
            current_loaded_models.insert(0, LoadedModel(patcher))
        patcher.partially_load(patcher.load_device, 1e32)


def free_memory(memory_required, device, keep_loaded=[], for_dynamic=False, pins_required=0, ram_required=0):
    unloaded = [entry for entry in current_loaded_models if entry not in keep_loaded and entry.device == device]
    for entry in unloaded:
        current_loaded_models.remove(entry)
        entry.model.detach()
    return unloaded


def unload_all_models():
    free_memory(1e30, get_torch_device())
