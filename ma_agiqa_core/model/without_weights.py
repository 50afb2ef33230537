"""A model whose weights are still to come: none are made only to be thrown away."""

from __future__ import annotations

from typing import Any

import torch
from torch.overrides import TorchFunctionMode

from .config import MaAgiqaConfig
from .ma_agiqa import MaAgiqa

_OF_WEIGHTS = (torch.empty, torch.zeros, torch.ones, torch.full, torch.rand, torch.randn)


def without_weights(config: MaAgiqaConfig) -> MaAgiqa:
    """The model of a config for `load_state_dict(..., assign=True)`.

    All that its state dict names is on the meta device. The tables that it computes from the sizes are there; should a
    backbone of timm have tables that are not, or refuse to be made so, all of the model is made.

    Raises:
        ValueError: As for `MaAgiqa`.
    """
    try:
        with _Weightless():
            model = MaAgiqa(config)
    except (RuntimeError, ValueError):
        return MaAgiqa(config)
    weights = model.state_dict()
    is_whole = all(name in weights or not table.is_meta for name, table in model.named_buffers())
    return model if is_whole else MaAgiqa(config)


class _Weightless(TorchFunctionMode):
    """Puts what becomes weights on the meta device. `torch.device("meta")` would put there what older timm counts with
    as well (`torch.linspace`)."""

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        if func in _OF_WEIGHTS and kwargs.get("device") is None:
            kwargs = {**kwargs, "device": "meta"}
        return func(*args, **kwargs)
