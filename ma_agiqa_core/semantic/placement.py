"""Where a large model's weights go, and whether they fit: counted before they are read."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import torch
from torch import nn

from ..errors import MaAgiqaError
from .quantization import linears, quantized_bytes

if TYPE_CHECKING:
    DeviceMap = Mapping[str, str | int | torch.device]

GB = 1e9
FOR_WEIGHTS = 0.85
"""Of a card's free memory in a device map made here; the rest is for what is computed."""


def module_bytes(
    module: nn.Module, dtype: torch.dtype, quantization: str | None = None, skip: Sequence[str] = ()
) -> int:
    """What a module's parameters and buffers take, each counted once.

    Args:
        module: May be on the meta device.
        dtype: Of its floating-point weights.
        quantization: None, or "int8" or "nf4" for its linear layers.
        skip: Parts that are not quantized, as for `quantization.linears`.
    """
    quantized = {}
    if quantization is not None:
        for name in linears(module, quantization, skip):
            layer = module.get_submodule(name)
            assert isinstance(layer, nn.Linear)
            quantized[layer.weight] = quantized_bytes(layer, quantization)
    total = sum(buffer.numel() * buffer.itemsize for buffer in module.buffers())
    for parameter in module.parameters():  # shared ones come once
        itemsize = dtype.itemsize if parameter.is_floating_point() else parameter.itemsize
        total += quantized.get(parameter, parameter.numel() * itemsize)
    return total


def check_fits(
    module: nn.Module,
    device: torch.device,
    dtype: torch.dtype,
    quantization: str | None = None,
    *,
    what: str,
    skip: Sequence[str] = (),
) -> None:
    """Refuses a model whose weights are larger than the free memory of its device.

    Args:
        module: On the meta device, before its weights are read.
        device: Where all of it is to go.
        dtype: Of its weights.
        quantization: None, "int8" or "nf4".
        what: The model's name.
        skip: Parts that are not quantized.

    Raises:
        ValueError: It does not fit; the message says what would.
    """
    options = []
    if dtype.itemsize > 2:
        half = module_bytes(module, torch.bfloat16, quantization, skip)
        options.append(f"dtype='bfloat16' ({_in_gb(half)})")
    if quantization is None:
        smallest = module_bytes(module, dtype, "nf4", skip)
        options.append(f"quantization='nf4' (about {_in_gb(smallest)})")
    if device.type != "cpu":
        options.append("device_map='auto'")
    advice = f"Use {' or '.join(options)}." if options else "Free some, or use a smaller model."
    precision = f"{str(dtype).removeprefix('torch.')}{f' and {quantization}' if quantization else ''}"
    needed = module_bytes(module, dtype, quantization, skip)
    check_memory(needed, device, f"{what} in {precision}", advice)


def check_memory(needed_bytes: int, device: torch.device, what: str, advice: str) -> None:
    """Refuses what is larger than the free memory of a device.

    Args:
        needed_bytes: For the weights alone.
        device: Devices whose free memory cannot be asked are not checked.
        what: The model and its precision.
        advice: What to do, as sentences.

    Raises:
        ValueError: There is less.
    """
    free = free_bytes(device)
    if free is not None and free < needed_bytes:
        raise MaAgiqaError(f"Expected {_in_gb(needed_bytes)} free on {device} for {what}, got {_in_gb(free)}. {advice}")


def free_bytes(device: torch.device) -> int | None:
    """Memory that a device has left for this process; None if it cannot be asked."""
    if device.type == "cuda":
        reserved, allocated = torch.cuda.memory_reserved(device), torch.cuda.memory_allocated(device)
        return torch.cuda.mem_get_info(device)[0] + reserved - allocated
    if device.type == "mps":
        return torch.mps.recommended_max_memory() - torch.mps.driver_allocated_memory()
    if device.type == "cpu":
        import psutil  # accelerate brings it

        return psutil.virtual_memory().available
    return None


def plan_device_map(
    module: nn.Module,
    device_map: str | DeviceMap,
    dtype: torch.dtype,
    no_split: Sequence[str] = (),
    *,
    quantization: str | None = None,
    max_memory: Mapping[int | str, int] | None = None,
    what: str = "the model",
) -> dict[str, torch.device]:
    """Which part of a module goes to which device.

    Args:
        module: On the meta device.
        device_map: "auto" fills the cards one after the other and leaves the rest in the CPU's memory, from where
            it is brought when it is needed; a dict says it by parts ({"vision": 0, "layers": "cpu", ...}).
        dtype: Of the weights.
        no_split: Class names of modules that stay on one device: those with shortcuts around them.
        quantization: Quantized layers cannot wait in the CPU's memory; it is refused here.
        max_memory: Bytes by device, as accelerate counts them; by default what is free.
        what: The model's name, for messages.

    Returns:
        Names of parts and their devices; every parameter is in exactly one.

    Raises:
        ValueError: It fits nowhere, or a dict that does not cover the module or names no device.
    """
    from accelerate import infer_auto_device_map
    from accelerate.utils import CustomDtype, check_device_map

    if isinstance(device_map, Mapping):
        plan = {name: _device(place) for name, place in device_map.items()}
        try:
            check_device_map(module, plan)
        except ValueError as error:
            raise MaAgiqaError(
                f"Expected a device_map that covers {what}, got {dict(device_map)!r}: {error}"
            ) from error
    elif device_map == "auto":
        limits = dict(max_memory) if max_memory is not None else _free_for_weights()
        weights = {None: dtype, "int8": torch.int8, "nf4": CustomDtype.INT4}[quantization]
        found = infer_auto_device_map(module, limits, no_split_module_classes=list(no_split), dtype=weights)
        if "disk" in found.values():
            available = ", ".join(f"{_in_gb(size)} on {place}" for place, size in limits.items())
            raise MaAgiqaError(
                f"Expected {_in_gb(module_bytes(module, dtype, quantization))} in all for {what}, got {available}. "
                "Use quantization='nf4' or a smaller model."
            )
        plan = {name: _device(place) for name, place in found.items()}
    else:
        raise MaAgiqaError(f"Expected device_map 'auto' or a dict, got {device_map!r}.")
    devices = {place.type for place in plan.values()}
    if quantization is not None and len(devices) > 1 and "cpu" in devices:
        raise MaAgiqaError(
            f"Expected all of {what} on cards for quantization={quantization!r}, got parts of it on the CPU. "
            "Use quantization=None with this device_map, or 'nf4' if that was not it."
        )
    return plan


def device_of(plan: Mapping[str, torch.device], parameter: str) -> torch.device:
    """Where a parameter goes by a plan of `plan_device_map`.

    Raises:
        KeyError: The plan does not cover it.
    """
    part = parameter
    while part not in plan:
        if not part:
            raise KeyError(parameter)
        part = part.rpartition(".")[0]
    return plan[part]


def entry_device(module: nn.Module, otherwise: torch.device) -> torch.device:
    """Where a module's inputs go: to its first weights, so that it may be moved between two calls.

    Args:
        module: With its weights.
        otherwise: For weights that accelerate keeps elsewhere until they are needed, so that they seem to be nowhere.
    """
    first = next(module.parameters())
    return otherwise if first.is_meta else first.device


def dispatch(module: nn.Module, plan: Mapping[str, torch.device]) -> nn.Module:
    """Makes a module with weights compute by a plan: accelerate's hooks move inputs, and weights that wait on the CPU.

    Args:
        module: In eval mode, with its weights.
        plan: Of `plan_device_map`.

    Returns:
        The same module.
    """
    from accelerate import dispatch_model

    cards = [place for place in plan.values() if place.type != "cpu"]
    places = {name: _as_accelerate(place) for name, place in plan.items()}
    return dispatch_model(module, places, main_device=_as_accelerate(cards[0] if cards else torch.device("cpu")))


def _free_for_weights() -> dict[int | str, int]:
    from accelerate.utils import get_max_memory

    free = get_max_memory()
    return {place: size if place == "cpu" else int(size * FOR_WEIGHTS) for place, size in free.items()}


def _device(place: str | int | torch.device) -> torch.device:
    """A device as torch writes it; a bare number is a card."""
    if place == "disk":
        raise MaAgiqaError(
            "Expected devices in device_map, got 'disk'. Reading weights in every step is not supported."
        )
    try:
        return torch.device(place)
    except (RuntimeError, TypeError, ValueError):
        if isinstance(place, int) and place >= 0:  # torch 2.6 knows no number where there is no card
            return torch.device("cuda", place)
        raise MaAgiqaError(f"Expected devices such as 0, 'cuda:0' or 'cpu' in device_map, got {place!r}.") from None


def _as_accelerate(place: torch.device) -> str | int:
    return str(place) if place.index is None or place.type != "cuda" else place.index


def _in_gb(size: int) -> str:
    return f"{size / GB:.3g} GB" if size < 10 * GB else f"{size / GB:.1f} GB"
