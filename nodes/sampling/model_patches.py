"""Patches on a model with which candidates cannot be dropped: found by what they are, before anything is sampled.

Most patches treat each candidate by itself. Some mix all candidates of a batch, some remember earlier steps, and some
fail for more than one. A patch is recognised by where its function was written, so a copy of a model keeps its name.
"""

from __future__ import annotations

import functools
import inspect
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

_MIXING = frozenset({"Mahiro", "PerpNeg", "VideoLinearCFGGuidance", "VideoTriangleCFGGuidance"})
_ONE_ONLY = frozenset({"RenormCFG", "TemporalScoreRescaling"})
_RANDOM = frozenset({"TomePatchModel"})  # draws which tokens it merges, anew in every step
_CACHE = "cache"  # in the name of every patch that answers from memory, of the core and of other packs
_MOMENTUM = "APG"  # remembers the guidance of earlier steps, unless its momentum is 0
_BATCH_DIMENSION = 0
_NODE = "Node"


class _Patch(NamedTuple):
    name: str
    function: Any


def check_patches(model: Any, group: int) -> None:
    """Checks that the candidates of a model can be made independently of each other.

    Args:
        model: ModelPatcher.
        group: How many candidates go through it together at most.

    Raises:
        ValueError: A patch on it does not allow it.
    """
    for patch in _patches(model):
        if _CACHE in patch.name.lower():
            raise ValueError(
                f"Expected a model that computes every step, got {patch.name} on it, which answers some from memory, "
                f"for all candidates together. Bypass {patch.name}, or empty prune_at and set batch_limit to 0."
            )
        if patch.name == _MOMENTUM and inspect.getclosurevars(patch.function).nonlocals.get("momentum"):
            raise ValueError(
                f"Expected a model that takes each step independently, got {_MOMENTUM} with momentum on it. Set its "
                "momentum to 0, or empty prune_at and set batch_limit to 0."
            )
        if patch.name in _RANDOM:
            raise ValueError(
                f"Expected a model that computes the same whenever it is asked, got {titled(patch.name)} on it, which "
                f"draws random numbers. Bypass {patch.name}, or empty prune_at and set batch_limit to 0."
            )
        if group > 1 and patch.name in _MIXING:
            raise ValueError(
                f"Expected candidates that do not depend on each other, got {titled(patch.name)} on the model, which "
                f"mixes all that are sampled together. Bypass {patch.name}, or set batch_limit to 1."
            )
        if group > 1 and patch.name in _ONE_ONLY:
            raise ValueError(
                f"Expected a model that takes several candidates together, got {titled(patch.name)} on it, which takes "
                f"one. Bypass {patch.name}, or set batch_limit to 1."
            )
    windows = model.model_options.get("context_handler")
    if group > 1 and windows is not None and windows.dim == _BATCH_DIMENSION:
        raise ValueError(
            "Expected candidates that do not depend on each other, got context windows over the batch on the model, "
            "which take candidates for frames. Bypass the node, or set batch_limit to 1."
        )


def titled(node_id: str) -> str:
    """A node's id, with the title that users see where it is another."""
    titles = getattr(sys.modules.get("nodes"), "NODE_DISPLAY_NAME_MAPPINGS", {})
    title = titles.get(node_id)
    return node_id if title in (None, node_id) else f"{title} ({node_id})"


def _patches(model: Any) -> Iterator[_Patch]:
    """All functions that a model was given, by the names of the nodes that gave them."""
    for where in (model.model_options, model.wrappers, model.callbacks, model.object_patches):
        for key, function in _functions(where):
            yield _Patch(_node_of(function, key), function)


def _functions(where: Any, key: str = "") -> Iterator[tuple[str, Any]]:
    if isinstance(where, Mapping):
        for name, value in where.items():
            yield from _functions(value, str(name or key))
    elif isinstance(where, list | tuple):
        for value in where:
            yield from _functions(value, key)
    elif callable(where) and not isinstance(where, type):
        yield key, where


def _node_of(function: Any, key: str) -> str:
    """The node that a function was written in; of others the key that they were filed under, or their own name."""
    while isinstance(function, functools.partial):
        function = function.func
    written = function if hasattr(function, "__qualname__") else type(function)
    first = written.__qualname__.partition(".")[0]
    if _file_of(written).parent.name == "comfy":  # ComfyUI's own parts, such as a model's sampling
        return ""
    if not first.islower():  # a method, or a function in one
        return first
    beside = getattr(written, "__globals__", {})  # a function of its own: the node beside it that has its key's name
    nodes = (name.removesuffix(_NODE) for name in beside if name.endswith(_NODE))
    return next((name for name in nodes if name.lower() == key.lower()), key or first)


def _file_of(written: Any) -> Path:
    code = getattr(inspect.unwrap(written), "__code__", None)
    module = sys.modules.get(written.__module__)
    return Path(code.co_filename if code is not None else getattr(module, "__file__", None) or "")
