"""Where a scorer computes: where ComfyUI would, on the CPU, or on one of several cards."""

import logging
import re

import torch
from comfy import model_management

DEFAULT, CPU = "default", "cpu"
_CARD = re.compile(r"gpu:(\d+)")

logger = logging.getLogger(__name__)


def device_options() -> list[str]:
    """As newer nodes of ComfyUI offer them: cards have numbers where there are several."""
    count = len(_cards())
    return [DEFAULT, CPU, *(f"gpu:{number}" for number in range(count) if count > 1)]


def is_device(option: str) -> bool:
    """Whether this is a device of some machine."""
    return option in (DEFAULT, CPU) or _CARD.fullmatch(option) is not None


def device_of(option: str) -> torch.device | None:
    """The device of an option; None leaves it to ComfyUI, as does a card that this machine does not have.

    Raises:
        ValueError: Something else.
    """
    if not is_device(option):
        raise ValueError(f"Expected the device default or cpu, or gpu:0 and so on, got {option!r}. Choose one of them.")
    if option in (DEFAULT, CPU):
        return None if option == DEFAULT else torch.device("cpu")
    number, cards = int(option.removeprefix("gpu:")), _cards()
    if number < len(cards):
        return cards[number]
    logger.warning(
        "[ma-agiqa] %s is not there; ComfyUI's own device is taken. This machine has %d.", option, len(cards)
    )
    return None


def _cards() -> list[torch.device]:
    known = getattr(model_management, "get_all_torch_devices", None)  # of newer versions of ComfyUI
    if known is not None:
        return [device for device in known() if device.type != "cpu"]
    if model_management.get_torch_device().type != "cuda":
        return []
    return [torch.device("cuda", number) for number in range(torch.cuda.device_count())]
