"""The fake of ComfyUI's node API, third version."""

from abc import ABC, abstractmethod

from . import _io as io
from . import _ui as ui

__all__ = ["ComfyExtension", "InputImpl", "io", "ui"]


class ComfyExtension(ABC):
    async def on_load(self) -> None:
        pass

    @abstractmethod
    async def get_node_list(self): ...


class InputImpl:
    class VideoFromFile:
        pass
