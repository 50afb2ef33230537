"""Where to compute, and how exactly."""

import torch

from ..arguments.numbers import whole_number
from ..arguments.options import dtype_advice, shown
from ..errors import MaAgiqaError


def resolve_device(device: str | torch.device = "auto") -> torch.device:
    """The device to compute on: "auto" is cuda (or ROCm), then mps, then cpu.

    Raises:
        ValueError: No such device on this machine.
    """
    if isinstance(device, str) and device == "auto":
        return torch.device("cuda" if _count("cuda") else "mps" if _count("mps") else "cpu")
    try:
        if not isinstance(device, str | torch.device):  # torch takes a number for a card, and which depends on it
            raise TypeError
        resolved = torch.device(device)
    except (RuntimeError, TypeError):
        number = whole_number(device)
        advice = f" Use 'cuda:{number}' for a card." if number is not None and number >= 0 else ""
        raise MaAgiqaError(
            f"Expected a device such as 'auto', 'cpu' or 'cuda:0', got {shown(device)}.{advice}"
        ) from None
    if (resolved.index or 0) >= (count := _count(resolved.type)):
        raise MaAgiqaError(
            f"Expected a device of this machine, got {str(device)!r}; it has {count} of type {resolved.type!r}. "
            "Use 'auto' or 'cpu'."
        )
    return resolved


def resolve_dtype(dtype: str | torch.dtype, device: torch.device) -> torch.dtype:
    """The precision to compute a large model in.

    "auto" is bfloat16 on cuda (float16 on cards without it), float16 on mps and float32 on the CPU.

    Raises:
        ValueError: None of float32, bfloat16 and float16.
    """
    if isinstance(dtype, str) and dtype == "auto":
        if device.type == "cuda":
            return torch.bfloat16 if torch.cuda.is_bf16_supported() else torch.float16
        return torch.float16 if device.type == "mps" else torch.float32
    known = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}
    resolved = known.get(str(dtype).removeprefix("torch."))
    if resolved is None:
        raise MaAgiqaError(
            f"Expected dtype 'auto', 'float32', 'bfloat16' or 'float16', got {str(dtype)!r}.{dtype_advice(dtype)}"
        )
    return resolved


def precision_setting(dtype: object) -> tuple[str, ...]:
    """A precision among `settings`; float32 goes without saying."""
    name = str(dtype).removeprefix("torch.")
    return () if name == "float32" else (f"dtype={name}",)


def _count(backend: str) -> int:
    if backend == "cpu":
        return 1
    if backend == "mps":
        return int(torch.backends.mps.is_available())
    module = getattr(torch, backend, None)
    return module.device_count() if module and hasattr(module, "device_count") else 0
