"""The fake of what moves a network between devices."""

import uuid

from . import model_management


class ModelPatcher:
    def __init__(self, model, load_device, offload_device, size=0, weight_inplace_update=False):
        self.model, self.load_device, self.offload_device, self.size = model, load_device, offload_device, size
        self.parent, self.patches, self.patches_uuid = None, {}, uuid.uuid4()
        self.model_options, self.wrappers = {"transformer_options": {}}, {}
        model.device = offload_device  # the true one writes it too, whatever the module makes of it
        model.model_loaded_weight_memory = 0

    def model_size(self):
        self.size = self.size or model_management.module_size(self.model)
        return self.size

    def loaded_size(self):
        return self.model.model_loaded_weight_memory

    def current_loaded_device(self):
        return self.model.device

    def clone(self):
        copied = type(self)(self.model, self.load_device, self.offload_device, self.size)
        copied.parent, copied.patches_uuid = self, self.patches_uuid
        copied.wrappers = {kind: {key: [*each] for key, each in keys.items()} for kind, keys in self.wrappers.items()}
        return copied

    def add_wrapper_with_key(self, wrapper_type, key, wrapper):
        self.wrappers.setdefault(wrapper_type, {}).setdefault(key, []).append(wrapper)

    def is_clone(self, other):
        return self.model is getattr(other, "model", None)

    def model_patches_models(self):
        return []

    def partially_load(self, device_to, extra_memory=0, force_patch_weights=False):
        self.model.to(device_to)
        self.model.device = device_to
        before, self.model.model_loaded_weight_memory = self.loaded_size(), self.model_size()
        return self.loaded_size() - before

    def partially_unload(self, device_to, memory_to_free=0):
        return 0

    def detach(self, unpatch_all=True):
        self.model.to(self.offload_device)
        self.model.device = self.offload_device
        self.model.model_loaded_weight_memory = 0
        return self.model
