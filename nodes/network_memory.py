"""Puts a scorer's networks where ComfyUI has room for them, and lets it take them away again.

The networks are ordinary ones of torch and transformers: they know nothing of ComfyUI. Each is wrapped into a
`ModelPatcher`, so that ComfyUI counts it, moves it out when something else needs the room, and unloads it.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import comfy.model_patcher
import torch
from comfy import model_management
from torch import nn


class Held(nn.Module):
    """Carries what `ModelPatcher` writes on a module: some networks have a `device` that cannot be written."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network


class ManagedNetworks:
    """The networks of one scorer.

    Args:
        networks: On the CPU.
        device: Where they compute; None leaves it to ComfyUI.
    """

    def __init__(self, networks: Iterable[nn.Module], device: torch.device | None = None) -> None:
        self.patchers = [_patcher(network, device) for network in networks]

    def load(self, memory_required: float = 0) -> None:
        """Brings the networks to their device; ComfyUI makes room for them and for what computing takes."""
        if self.patchers:
            model_management.load_models_gpu(self.patchers, memory_required=memory_required, force_full_load=True)


def _patcher(network: nn.Module, device: torch.device | None) -> Any:
    # CoreModelPatcher is what newer versions use for their own models
    kind = getattr(comfy.model_patcher, "CoreModelPatcher", comfy.model_patcher.ModelPatcher)
    for module in network.modules():
        module.register_forward_pre_hook(_stop_if_interrupted)
    return kind(
        Held(network),
        load_device=device or model_management.get_torch_device(),
        offload_device=model_management.unet_offload_device(),
    )


def _stop_if_interrupted(*_: Any) -> None:
    model_management.throw_exception_if_processing_interrupted()
