"""The fake of ComfyUI's node API, third version."""

from abc import ABC, abstractmethod

from . import _io as io
from . import _ui as ui

__all__ = ["ComfyAPISync", "ComfyExtension", "InputImpl", "io", "ui"]


class _ApiSync:
    """Its `execution` alone."""

    class execution:  # noqa: N801 - the true name
        @staticmethod
        def set_progress(value, max_value, node_id=None, preview_image=None, ignore_size_limit=False):
            pass


ComfyAPISync = _ApiSync


class ComfyExtension(ABC):
    async def on_load(self) -> None:
        pass

    @abstractmethod
    async def get_node_list(self): ...


class InputImpl:
    class VideoFromFile:
        pass
