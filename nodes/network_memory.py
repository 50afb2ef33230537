"""Puts a scorer's networks where ComfyUI has room for them, and lets it take them away again.

The networks are ordinary ones of torch and transformers and know nothing of ComfyUI. Each is wrapped into a
`ModelPatcher`: ComfyUI counts it, moves it out when something else needs the room, and unloads it at the button.

Where a network does not fit, ComfyUI leaves some of its linear layers on the CPU; these are brought for the moment in
which they compute. Everything else is a small part of a network and always goes along. ComfyUI's own layers do it by
themselves, which is what its newer `CoreModelPatcher` relies on; for foreign layers the plain one is right.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import torch
from comfy import model_management
from comfy.model_patcher import ModelPatcher
from torch import nn

LANGUAGE_MODEL_WORK = 2 * 2**30  # bytes, for what a language model computes with a few pictures; more is found out


class ManagedNetworks:
    """The networks of one scorer.

    Args:
        networks: On the CPU.
        device: Where they compute; None leaves it to ComfyUI.
    """

    def __init__(self, networks: Iterable[nn.Module], device: torch.device | None = None) -> None:
        self.device = device or model_management.get_torch_device()
        self.patchers = [patcher_of(network, self.device) for network in networks]

    def load(self, memory_required: float = 0, also: Iterable[ModelPatcher] = ()) -> None:
        """Brings the networks to their device; ComfyUI makes room for them and for what computing takes."""
        if patchers := [*self.patchers, *also]:
            model_management.load_models_gpu(patchers, memory_required=memory_required)
            for patcher in patchers:
                patcher.model.complete(patcher.load_device)

    def make_room(self) -> None:
        """Takes everything off the device, these networks too."""
        model_management.free_memory(1e30, self.device)


class LanguageModelMemory:
    """The core's `Placement` of a language model, which is loaded when the first picture needs it.

    Quantized weights cannot be moved. For them everything else leaves the device, they are read straight to it, and
    when ComfyUI wants the room they are dropped.

    Args:
        others: The scorer's other networks.
        drop: Lets the language model go.
    """

    def __init__(self, others: ManagedNetworks, drop: Callable[[], None]) -> None:
        self._others, self._drop_model = others, drop
        self._patcher: ModelPatcher | None = None

    @property
    def device(self) -> torch.device:
        return self._others.device

    def before_loading(self, quantized: bool) -> torch.device:
        if not quantized:
            return torch.device("cpu")
        self._others.make_room()
        return self.device

    def before_use(self, network: nn.Module, quantized: bool) -> None:
        if self._patcher is None or self._patcher.model.network is not network:
            self._patcher = (
                DroppedWhenUnloaded(Held(network), self.device, self._drop)
                if quantized
                else patcher_of(network, self.device)
            )
        self._others.load(LANGUAGE_MODEL_WORK, also=[self._patcher])

    def _drop(self) -> None:
        self._patcher = None
        self._drop_model()


class Held(nn.Module):
    """Carries what `ModelPatcher` writes on a module: some networks have a `device` that cannot be written."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network
        for module in network.modules():
            module.register_forward_pre_hook(_stop_if_interrupted)

    def complete(self, device: torch.device) -> None:
        """Brings along what has to be there always, in case ComfyUI left some of it."""
        for module in self.modules():
            if not hasattr(module, "comfy_cast_weights"):
                for own in (*module.parameters(recurse=False), *module.buffers(recurse=False)):
                    if own.device != device:
                        own.data = own.data.to(device)


class DroppedWhenUnloaded(ModelPatcher):
    """Of weights that cannot be moved: they are on their device already, and leave it only for good."""

    def __init__(self, held: Held, device: torch.device, drop: Callable[[], None]) -> None:
        super().__init__(held, load_device=device, offload_device=device)
        self._drop = drop

    def partially_load(self, device_to: torch.device, *_: Any, **__: Any) -> int:
        self.model.device, self.model.model_loaded_weight_memory = device_to, self.model_size()
        return 0

    def partially_unload(self, *_: Any, **__: Any) -> int:
        return 0

    def detach(self, unpatch_all: bool = True) -> nn.Module:
        self.model.model_loaded_weight_memory = 0
        self._drop()
        return self.model


def patcher_of(network: nn.Module, device: torch.device) -> ModelPatcher:
    """What ComfyUI moves; the network is on the CPU."""
    held = Held(network)
    entry = next(network.parameters(), None)  # scorers compute where it is
    attention = {id(child) for m in network.modules() if isinstance(m, nn.MultiheadAttention) for child in m.children()}
    for layer in network.modules():
        # the children of MultiheadAttention are never called: it takes their weights
        if type(layer) is nn.Linear and layer.weight is not entry and id(layer) not in attention:
            layer.comfy_cast_weights = False  # what tells `ModelPatcher` that it may stay on the CPU
            layer.weight_function, layer.bias_function = [], []
            layer.register_forward_pre_hook(_Bring(entry))
            layer.register_forward_hook(_put_back, always_call=True)
    return ModelPatcher(held, load_device=device, offload_device=model_management.unet_offload_device())


class _Bring:
    """Before a layer computes: its weights come to where the network's first weights are."""

    def __init__(self, entry: nn.Parameter) -> None:
        self._entry = entry

    def __call__(self, layer: nn.Module, _: Any) -> None:
        if layer.weight.device != self._entry.device:
            layer.left_on_cpu = dict(layer._parameters)
            for name, weight in layer.left_on_cpu.items():
                layer._parameters[name] = None if weight is None else weight.to(self._entry.device)


def _put_back(layer: nn.Module, *_: Any) -> None:
    layer._parameters.update(layer.__dict__.pop("left_on_cpu", {}))


def _stop_if_interrupted(*_: Any) -> None:
    model_management.throw_exception_if_processing_interrupted()
