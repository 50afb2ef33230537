"""Puts a scorer's networks where ComfyUI has room for them, and lets ComfyUI move them out again.

The networks are ordinary ones of torch and transformers and know nothing of ComfyUI. Each is wrapped into a
`ModelPatcher`: ComfyUI counts it, moves it out when something else needs the room, and unloads it at the button.

If a network does not fit, ComfyUI leaves some of its large linear layers on the CPU; these move to the device only
while they compute. Everything else is a small part of a network and always moves. ComfyUI's own layers do this
themselves, which its newer `CoreModelPatcher` relies on; for foreign layers the plain `ModelPatcher` is right.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any, NamedTuple

import torch
from comfy import model_management
from comfy.model_patcher import ModelPatcher
from torch import nn

WORTH_LEAVING = 2**20  # bytes of a layer; some small ones are also asked for their weights without being called
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

    def load(self, work: float = 0) -> None:
        """Brings the networks to their device; ComfyUI makes room for them and for `work` bytes of computing."""
        if not self.patchers:
            return
        loaded = [entry for entry in model_management.current_loaded_models if entry.model in self.patchers]
        if sum(entry.model.loaded_size() >= entry.model.model_size() for entry in loaded) < len(self.patchers):
            model_management.load_models_gpu(self.patchers, memory_required=work)
            for patcher in self.patchers:
                patcher.model.complete(patcher.load_device)
        elif self.device.type != "cpu":  # `load_models_gpu` might put them out to load them again
            least = model_management.minimum_inference_memory()
            needed = max(least, work + model_management.extra_reserved_memory())
            model_management.free_memory(needed, self.device, keep_loaded=loaded)

    def make_room(self) -> None:
        """Takes everything off the device, these networks too."""
        model_management.free_memory(1e30, self.device)


class LanguageModelMemory:
    """The core's `DeviceManager` of a language model, which is loaded when the first picture needs it.

    Quantized weights cannot be moved. For them everything else leaves the device, they are read straight to it, and
    when ComfyUI wants the room they are dropped.

    Args:
        networks: The scorer's other networks, which this one joins.
        drop: Lets the language model go.
    """

    def __init__(self, networks: ManagedNetworks, drop: Callable[[], None]) -> None:
        self._networks, self._drop_model = networks, drop
        self._patcher: ModelPatcher | None = None

    @property
    def device(self) -> torch.device:
        return self._networks.device

    def before_loading(self, quantized: bool) -> torch.device:
        if not quantized:
            return torch.device("cpu")
        self._networks.make_room()
        return self.device

    def before_use(self, network: nn.Module, quantized: bool) -> None:
        if self._patcher is None or self._patcher.model.network is not network:
            if quantized:
                self._patcher = DroppedWhenUnloaded(held(network), self.device, self._drop)
            else:
                self._patcher = patcher_of(network, self.device)
            self._networks.patchers.append(self._patcher)
        self._networks.load(LANGUAGE_MODEL_WORK)

    def _drop(self) -> None:
        """The patcher itself must live on: ComfyUI is about to cross it off its list."""
        self._networks.patchers = [patcher for patcher in self._networks.patchers if patcher is not self._patcher]
        self._drop_model()


class Held(nn.Module):
    """Carries what `ModelPatcher` writes on a module: some networks have a `device` that cannot be written."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def complete(self, device: torch.device) -> None:
        """Brings along what has to be there always, in case ComfyUI left some of it."""
        for module in self.modules():
            own = (*module.parameters(recurse=False), *module.buffers(recurse=False))
            if not hasattr(module, "comfy_cast_weights") and any(weight.device != device for weight in own):
                module._apply(lambda weight: weight.to(device), recurse=False)


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
        self.model.network = nn.Identity()
        self._drop()
        return self.model


def held(network: nn.Module) -> Held:
    """A network that stops at the interrupt button before any of its parts; ComfyUI logs it under its own name."""
    for module in network.modules():
        module.register_forward_pre_hook(_stop_if_interrupted)
    return type(type(network).__name__, (Held,), {})(network)


def patcher_of(network: nn.Module, device: torch.device) -> ModelPatcher:
    """What ComfyUI moves; the network is on the CPU."""
    attention = {id(child) for m in network.modules() if isinstance(m, nn.MultiheadAttention) for child in m.children()}
    entry = _Entry.of(network)
    for layer in network.modules():
        # the children of MultiheadAttention are never called: it takes their weights
        if type(layer) is nn.Linear and layer is not entry.module and id(layer) not in attention:
            if layer.weight.nbytes < WORTH_LEAVING:
                continue
            layer.comfy_cast_weights = False  # what tells `ModelPatcher` that it may stay on the CPU
            layer.weight_function, layer.bias_function = [], []
            layer.register_forward_pre_hook(_Bring(entry))
            layer.register_forward_hook(_put_back, always_call=True)
    return ModelPatcher(held(network), load_device=device, offload_device=model_management.unet_offload_device())


class _Entry(NamedTuple):
    """A network's first weights: it computes where they are. Moving may put others in their place."""

    module: nn.Module
    name: str

    @classmethod
    def of(cls, network: nn.Module) -> _Entry:
        named = ((module, name) for module in network.modules() for name, _ in module.named_parameters(recurse=False))
        return cls(*next(named, (network, "")))

    @property
    def device(self) -> torch.device:
        return self.module._parameters[self.name].device


class _Bring:
    """Before a layer computes: its weights come to where the network's first weights are."""

    def __init__(self, entry: _Entry) -> None:
        self._entry = entry

    def __call__(self, layer: nn.Module, _: Any) -> None:
        if layer.weight.device != (device := self._entry.device):
            layer.left_on_cpu = dict(layer._parameters)
            for name, weight in layer.left_on_cpu.items():
                layer._parameters[name] = None if weight is None else weight.to(device)


def _put_back(layer: nn.Module, *_: Any) -> None:
    layer._parameters.update(layer.__dict__.pop("left_on_cpu", {}))


def _stop_if_interrupted(*_: Any) -> None:
    model_management.throw_exception_if_processing_interrupted()
