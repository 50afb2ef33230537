"""Whether a network computes every row alone and keeps nothing from step to step."""

from collections.abc import Iterator
from typing import Any

import torch

from .schedulers import SEQUENTIAL, UnsupportedPipelineError

# Parts of diffusers hang these on modules; they change where weights lie, and nothing that depends on the batch.
_HARMLESS_HOOKS = (
    "layerwise_casting",
    "peft_autocast_disable",
    "group_offloading",
    "lazy_prefetch_group_offloading",
    "layer_execution_tracker",
)


# What these keep is computed again from the same prompt without a difference: it may be forgotten at any step.
_EXACT_CACHES = ("TextKVCacheConfig",)
_EXACT_HOOKS = ("text_kv_cache_transformer", "text_kv_cache_block")


def forget_keys_and_values(module: Any) -> None:
    """Empties the exact caches of a network, which are filled again by its next call."""
    if not isinstance(module, torch.nn.Module) or not getattr(module, "is_cache_enabled", False):
        return
    for part in module.modules():
        registry = getattr(part, "_diffusers_hook", None)
        for name in _EXACT_HOOKS:
            if registry is not None and (hook := registry.get_hook(name)) is not None:
                hook.reset_state(part)


def check_network(attribute: str, module: Any) -> None:
    """Refuses hooks that keep features, a replaced `forward`, and attention that is not diffusers' own."""
    if (hook := _feature_hook(module)) is not None:
        raise UnsupportedPipelineError(
            f"Expected a {attribute} without hooks that keep features between steps, got {hook!r}: what it keeps "
            f"has the rows of the step before. Call {attribute}.disable_cache(). {SEQUENTIAL}"
        )
    if (part := _patched_part(module)) is not None:
        raise UnsupportedPipelineError(
            f"Expected a {attribute} as diffusers makes it, got {part or attribute} with another forward, such as "
            f"DeepCache's, which may keep features of rows that are gone. Take it off. {SEQUENTIAL}"
        )
    processors = getattr(module, "attn_processors", {})
    if foreign := [kind for kind in map(type, processors.values()) if kind.__module__.split(".")[0] != "diffusers"]:
        raise UnsupportedPipelineError(
            f"Expected attention processors of diffusers in {attribute}, got {foreign[0].__module__}."
            f"{foreign[0].__name__}, under which rows may look at each other. Take it off. {SEQUENTIAL}"
        )


def _patched_part(module: Any) -> str | None:
    """Name of a part whose `forward` was replaced; accelerate's offloading, diffusers' hooks and torch.compile may."""
    for name, part in module.named_modules():
        forward = vars(part).get("forward")
        is_own = getattr(forward, "__func__", None) is type(part).forward  # put back by what had replaced it
        is_known = hasattr(part, "_hf_hook") or hasattr(part, "_diffusers_hook") or hasattr(part, "_orig_mod")
        if forward is not None and not is_own and not is_known:
            return str(name)
    return None


def _feature_hook(module: Any) -> str | None:
    """Name of a hook that keeps features from step to step, e.g. of FirstBlockCache."""
    if getattr(module, "is_cache_enabled", False):
        kind = type(getattr(module, "_cache_config", None)).__name__
        if kind not in _EXACT_CACHES:
            return kind
    for registry in _hook_registries(module):
        for name in registry.hooks:
            if name not in (*_HARMLESS_HOOKS, *_EXACT_HOOKS):
                return str(name)
    return None


def _hook_registries(module: Any) -> Iterator[Any]:
    for part in module.modules():
        registry = getattr(part, "_diffusers_hook", None)
        if registry is not None:
            yield registry
