"""Loads scorers for ComfyUI, each once for all nodes and runs that want the same."""

from __future__ import annotations

from weakref import WeakValueDictionary

from ...ma_agiqa_core import load_scorer
from ...ma_agiqa_core.comfyui.model_listing import place_of
from ..install_advice import install_advice
from .devices import device_of
from .managed_scorer import ManagedScorer
from .model_folder import ITS_OWN, LITE, percentiles_file, scorer_file, semantic_folder, vector_cache

PRECISIONS = ["auto", "float32", "bfloat16", "float16", "int8", "nf4"]
TARGETS = ["default", "quality", "aesthetics", "alignment", "authenticity"]
_QUANTIZED = ("int8", "nf4")

_loaded: WeakValueDictionary[tuple[object, ...], ManagedScorer] = WeakValueDictionary()


def managed_scorer(
    model: str,
    semantic_model: str,
    precision: str,
    device: str,
    cache_vectors: bool,
    target: str = TARGETS[0],
    percentiles: str = ITS_OWN,
) -> ManagedScorer:
    """The scorer of a choice in Load Image Scorer; the one that is loaded already, if its files are still the same.

    Raises:
        FileNotFoundError: The model is not there.
        ValueError: It cannot be loaded, or an option does not apply to it.
    """
    place = device_of(device)
    file, semantic = scorer_file(model), semantic_folder(semantic_model)
    scale = percentiles_file(percentiles)
    asked = (*(() if target == TARGETS[0] else (target,)), *(file_states(scale) if scale else ()))
    settings = (semantic, precision, str(place), cache_vectors, *asked) if model != LITE else (str(place), *asked)
    key = (file, *file_states(file), *(file_states(semantic) if semantic else ()), *settings)
    if (scorer := _loaded.get(key)) is None:
        options = {} if model == LITE else _options(file, semantic, precision, cache_vectors)
        if target != TARGETS[0]:
            options["target"] = target
        if scale:
            options["percentiles"] = scale
        try:
            core = load_scorer(file, device="cpu", **options)
        except ImportError as error:
            raise RuntimeError(f"Expected all packages for {model!r}: {error} {install_advice(error)}") from error
        identity = f"{core.info.name}@{core.info.revision}:{','.join(map(str, settings))}"
        scorer = ManagedScorer(core, identity, place)
        _loaded[key] = scorer
    return scorer


def file_states(model: str) -> list[tuple[str, int, int]]:
    """Name, size and time of change of a model's file, or of all files in its folder; none of published ones."""
    if (path := place_of(model)) is None:
        return []
    files = sorted(path.iterdir()) if path.is_dir() else [path]
    states = [(file.name, file.stat()) for file in files if file.is_file()]
    return [(name, state.st_size, state.st_mtime_ns) for name, state in states]


def _options(file: str, semantic: str | None, precision: str, cache_vectors: bool) -> dict[str, object]:
    quantization = precision if precision in _QUANTIZED else None
    return {
        "semantic": semantic,
        "dtype": "auto" if quantization else precision,
        "quantization": quantization,
        "cache": vector_cache() if cache_vectors else None,
    }
