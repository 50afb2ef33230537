"""The fake of what moves a network between devices."""

import uuid

from . import model_management


class ModelPatcher:
    def __init__(self, model, load_device, offload_device, size=0, weight_inplace_update=False):
        self.model, self.load_device, self.offload_device, self.size = model, load_device, offload_device, size
        self.parent, self.patches, self.patches_uuid = None, {}, uuid.uuid4()
        model.device = offload_device  # the true one writes it too, whatever the module makes of it
        model.model_loaded_weight_memory = 0

    def model_size(self):
        self.size = self.size or model_management.module_size(self.model)
        return self.size

    def loaded_size(self):
        return self.model.model_loaded_weight_memory

    def partially_load(self, device_to, extra_memory=0, force_patch_weights=False):
        before = self.loaded_size()
        if before + extra_memory > self.model_size():
            self.model.to(device_to)
            loaded = self.model_size()
        else:
            loaded = self._load_some(device_to, before + extra_memory)
        self.model.device, self.model.model_loaded_weight_memory = device_to, loaded
        return loaded - before

    def _load_some(self, device_to, budget):
        """Largest layers first, as many as fit; one that says it can be cast is told so where it stays."""
        loaded = 0
        for size, layer in sorted(self._layers(), key=lambda entry: -entry[0]):
            if loaded + size < budget:
                layer.to(device_to)
                loaded += size
            elif hasattr(layer, "comfy_cast_weights"):
                layer.prev_comfy_cast_weights, layer.comfy_cast_weights = layer.comfy_cast_weights, True
        return loaded

    def _layers(self):
        """Layers with weights of their own and none further down: what the true one moves one by one."""
        for layer in self.model.modules():
            own = list(layer.parameters(recurse=False))
            if own and len(own) == len(list(layer.parameters())):
                yield model_management.module_size(layer), layer

    def partially_unload(self, device_to, memory_to_free=0, force_patch_weights=False):
        return 0

    def detach(self, unpatch_all=True):
        self.model.to(self.offload_device)
        self.model.device = self.offload_device
        self.model.model_loaded_weight_memory = 0
        return self.model
