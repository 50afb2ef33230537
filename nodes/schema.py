"""What the nodes' schemas share: the SCORER link, and fields that only newer versions of ComfyUI know."""

import inspect
from typing import Any

from comfy_api.latest import io

Scorer = io.Custom("SCORER")

_NEWER = frozenset({"search_aliases"})  # since ComfyUI 0.12; a TypeError before


def schema(**fields: Any) -> io.Schema:
    """An `io.Schema`, without the fields that the running ComfyUI does not know yet."""
    known = inspect.signature(io.Schema).parameters
    return io.Schema(**{name: value for name, value in fields.items() if name in known or name not in _NEWER})
