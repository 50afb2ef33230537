"""What a large multimodal model says about a picture: the two questions and who answers them."""

import importlib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from .cache import SemanticCache
    from .chat_model import ChatModel
    from .extractor import SemanticExtractor
    from .mplug_owl2 import MplugOwl2
    from .questions import QUESTIONS

__all__ = ["QUESTIONS", "ChatModel", "MplugOwl2", "SemanticCache", "SemanticExtractor"]

_MODULE_OF = {
    "QUESTIONS": "questions",
    "ChatModel": "chat_model",
    "MplugOwl2": "mplug_owl2",
    "SemanticCache": "cache",
    "SemanticExtractor": "extractor",
}


def __getattr__(name: str) -> object:
    if name not in _MODULE_OF:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(importlib.import_module(f".{_MODULE_OF[name]}", __name__), name)
    globals()[name] = value
    return value
