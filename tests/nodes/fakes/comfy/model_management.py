"""The fake of ComfyUI's memory: what is loaded, what was asked to be freed, and the interrupt button."""

import threading
from enum import Enum

import torch

OOM_EXCEPTION = torch.cuda.OutOfMemoryError


class VRAMState(Enum):
    DISABLED = 0
    NO_VRAM = 1
    LOW_VRAM = 2
    NORMAL_VRAM = 3
    HIGH_VRAM = 4
    SHARED = 5


vram_state = VRAMState.DISABLED


class InterruptProcessingException(Exception):
    pass


interrupt_processing = False
interrupt_processing_mutex = threading.RLock()


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


def text_encoder_offload_device():
    return torch.device("cpu")


def is_device_cpu(device):
    return torch.device(device).type == "cpu"


def get_free_memory(dev=None, torch_free_too=False):
    return (2**40, 2**40) if torch_free_too else 2**40


def module_size(module):
    return sum(tensor.nelement() * tensor.element_size() for tensor in module.state_dict().values())


def extra_reserved_memory():
    return 0


def minimum_inference_memory():
    return 2**30


def soft_empty_cache(force=False):
    pass


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


def load_model_gpu(model):
    return load_models_gpu([model])


def free_memory(memory_required, device, keep_loaded=[]):
    unloaded = [entry for entry in current_loaded_models if entry not in keep_loaded and entry.device == device]
    for entry in unloaded:
        current_loaded_models.remove(entry)
        entry.model.detach()
    return unloaded


def unload_all_models():
    free_memory(1e30, get_torch_device())
