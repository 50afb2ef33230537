"""The local variables of a pipeline's running `__call__`, which nothing else gives access to."""

import ctypes
import sys
from collections.abc import Mapping
from types import FrameType
from typing import Any

# From Python 3.13 on a frame's variables can be written through f_locals (PEP 667); before, f_locals is a copy that the
# frame keeps, and this function of CPython writes it back.
_IS_COPY = sys.version_info < (3, 13)


def pipeline_frame(pipe: Any) -> FrameType | None:
    """The frame of this pipeline's running `__call__`, looked for outwards from here; None if it is not running."""
    frame: FrameType | None = sys._getframe(1)
    while frame is not None:
        if frame.f_code.co_name == "__call__" and frame.f_locals.get("self") is pipe:
            return frame
        _drop_copy(frame)
        frame = frame.f_back
    return None


class PipelineLoop:
    """The variables of a pipeline's running loop, as `RowSurgery` reads and changes them."""

    def __init__(self, pipe: Any) -> None:
        self._pipe = pipe

    def read(self) -> dict[str, Any]:
        """By name; empty if the pipeline is not running."""
        return loop_variables(self._pipe)

    def write(self, values: Mapping[str, Any]) -> None:
        """Gives some of them other values."""
        set_loop_variables(self._pipe, values)


def loop_variables(pipe: Any) -> dict[str, Any]:
    """The variables by name; empty if the pipeline is not running."""
    frame = pipeline_frame(pipe)
    if frame is None:
        return {}
    variables = dict(frame.f_locals)
    _drop_copy(frame)  # it would keep every tensor of the call alive, also those that the loop replaces
    return variables


def set_loop_variables(pipe: Any, values: Mapping[str, Any]) -> None:
    """Gives variables of the running loop other values.

    Args:
        values: By name; the others stay as they are.
    """
    frame = pipeline_frame(pipe)
    if frame is None or not values:
        return
    if not _IS_COPY:
        frame.f_locals.update(values)
        return
    copy = frame.f_locals
    copy.clear()
    copy.update(values)
    ctypes.pythonapi.PyFrame_LocalsToFast(ctypes.py_object(frame), ctypes.c_int(0))  # 0: what is missing stays
    copy.clear()


def _drop_copy(frame: FrameType) -> None:
    if _IS_COPY and frame.f_code.co_name == "__call__":
        frame.f_locals.clear()
