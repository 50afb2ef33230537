"""Every node of ComfyUI's core that takes a MODEL and gives a MODEL, put on a tiny diffusion model."""

import asyncio
import importlib
import inspect
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

WIDGETS = {"INT", "FLOAT", "STRING", "BOOLEAN", "COMBO"}
STRONGER: dict[str, dict[str, Any]] = {  # values with which a patch is felt on a picture of 8 x 8 latents and few steps
    "EasyCache": {"reuse_threshold": 3.0, "start_percent": 0.0, "end_percent": 1.0},
    "LazyCache": {"reuse_threshold": 3.0, "start_percent": 0.0, "end_percent": 1.0},
    "ContextWindowsManual": {"context_length": 2, "context_overlap": 1, "dim": 0},
    "PatchModelAddDownscale": {"block_number": 1},
    "APG": {"momentum": 0.5},
    "RescaleCFG": {"multiplier": 1.0},
    "CFGOverride": {"cfg": 6.0},
}
NOT_TRIED = {"TorchCompileModel": "compiles, which takes minutes", "TrainLoraNode": "trains"}


class NotHereError(Exception):
    """The node cannot be put on the tiny model; the message says why."""


def patch_nodes() -> dict[str, Any]:
    """Node id -> class; ComfyUI's folder is on the path, and its command line is set."""
    import nodes

    found = dict(nodes.NODE_CLASS_MAPPINGS)
    for file in sorted(Path(os.environ["COMFYUI_PATH"], "comfy_extras").glob("nodes_*.py")):
        found |= dict(_classes(file.stem))
    return {name: node for name, node in sorted(found.items()) if _patches_a_model(node)}


def patched(name: str, node: Any, model: Any, text: Any) -> Any:
    """A copy of a ModelPatcher with the patch of a node on it.

    Args:
        name: Node id.
        node: Its class.
        model: ModelPatcher.
        text: CONDITIONING, for nodes that want one.

    Raises:
        NotHereError: The node wants what is not here, or refuses the model.
    """
    if name in NOT_TRIED:
        raise NotHereError(NOT_TRIED[name])
    given = {}
    for key, (kind, *options) in node.INPUT_TYPES().get("required", {}).items():
        given[key] = _value(str(getattr(kind, "value", kind)), kind, options[0] if options else {}, model, text)
    given |= {key: value for key, value in STRONGER.get(name, {}).items() if key in given}
    try:
        made = node.execute(**given) if hasattr(node, "execute") else getattr(node(), node.FUNCTION)(**given)
    except Exception as error:
        raise NotHereError(f"refuses this model: {type(error).__name__} {error}".strip()) from error
    result = made.args if hasattr(made, "args") else made
    return result[list(node.RETURN_TYPES).index("MODEL")]


def _classes(module_name: str) -> Iterator[tuple[str, Any]]:
    try:
        module = importlib.import_module(f"comfy_extras.{module_name}")
    except ImportError:  # as ComfyUI itself: without the packages that it needs
        return
    if hasattr(module, "NODE_CLASS_MAPPINGS"):
        yield from module.NODE_CLASS_MAPPINGS.items()
    elif hasattr(module, "comfy_entrypoint"):
        for node in asyncio.run(_listed(module.comfy_entrypoint)):
            yield node.GET_SCHEMA().node_id, node


async def _listed(entrypoint: Any) -> list[Any]:
    extension = entrypoint()
    return await (await extension if inspect.isawaitable(extension) else extension).get_node_list()


def _patches_a_model(node: Any) -> bool:
    kinds = [given[0] for given in node.INPUT_TYPES().get("required", {}).values()]
    return "MODEL" in node.RETURN_TYPES and any(kind == "MODEL" for kind in kinds if isinstance(kind, str))


def _value(name: str, kind: Any, options: dict[str, Any], model: Any, text: Any) -> Any:
    if name == "MODEL":
        return model
    if name == "CONDITIONING":
        return text
    if name == "LATENT_OPERATION":
        return lambda latent, **_: latent * 0.9
    choices = kind if isinstance(kind, list) else options.get("options")
    if choices is not None or name in WIDGETS:
        if "default" in options:
            return options["default"]
        if choices:
            return choices[0]
        raise NotHereError("needs a file")
    raise NotHereError(f"needs {name.removeprefix('COMFY_')}")
