"""Loads the folder of a chat model strictly: what would make it another model is refused by name."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import nn

from ..errors import MaAgiqaError, first_line
from ..model_files.pretrained import load_pretrained
from ..model_files.transformers_folder import TOKENIZER_FILES, model_type
from .placement import check_fits
from .quantization import linears, quantization_library, transformers_config

if TYPE_CHECKING:
    from .placement import DeviceMap

_FETCH = "Download the model's whole repository."


def load_config(folder: Path) -> Any:
    """The config of an image-text-to-text model that is a decoder.

    Raises:
        ValueError: There is none, or it is another kind of model, or too new for this transformers.
    """
    import transformers

    version = transformers.__version__
    try:
        config = transformers.AutoConfig.from_pretrained(folder, local_files_only=True, trust_remote_code=False)
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise MaAgiqaError(
            f"Expected a model of transformers {version} in {str(folder)!r}, got {first_line(error)} {_FETCH}"
        ) from error
    if type(config) not in transformers.MODEL_FOR_IMAGE_TEXT_TO_TEXT_MAPPING or config.is_encoder_decoder:
        raise MaAgiqaError(
            f"Expected an image-text-to-text model in {str(folder)!r}, got model_type {model_type(config)!r}. "
            "Use a chat model that sees pictures, such as Qwen2.5-VL."
        )
    return config


def load_processor(folder: Path) -> Any:
    """A model's tokenizer, image processor and chat template in one.

    Raises:
        ImportError: A library that it needs is not installed.
        ValueError: A file is missing or damaged.
    """
    from transformers import AutoProcessor

    wanted = f"Expected a tokenizer, an image processor and a chat template in {str(folder)!r}"
    if not any((folder / name).is_file() for name in TOKENIZER_FILES):  # transformers 4 asks for other packages instead
        raise MaAgiqaError(f"{wanted}, got no {TOKENIZER_FILES[0]}. {_FETCH}")
    try:
        processor = AutoProcessor.from_pretrained(folder, local_files_only=True, trust_remote_code=False)
    except ImportError:
        raise
    except Exception as error:  # it raises whatever the first missing file leads to
        raise MaAgiqaError(f"{wanted}, got {first_line(error)} {_FETCH}") from error
    parts = ("tokenizer", "image_processor", "chat_template")
    if missing := [part for part in parts if getattr(processor, part, None) is None]:
        raise MaAgiqaError(f"{wanted}, got no {' and no '.join(missing)}. {_FETCH}")
    return processor


def load_model(
    folder: Path,
    config: Any,
    *,
    device: torch.device,
    dtype: torch.dtype,
    quantization: str | None = None,
    device_map: str | DeviceMap | None = None,
    needs_head: bool = False,
) -> Any:
    """The model with its weights, in eval mode.

    Args:
        folder: Its files.
        config: Its config.
        device: For all of it, unless there is a `device_map`.
        dtype: Of its weights.
        quantization: None, or "int8" or "nf4" for the language model's linear layers.
        device_map: None, "auto" or a dict, as accelerate takes it.
        needs_head: The LM head must be in the files.

    Raises:
        ImportError: Quantization without its library.
        ValueError: Weights are missing, damaged, or another model's; too little memory.
    """
    import transformers

    with torch.device("meta"):
        empty = transformers.AutoModelForImageTextToText.from_config(config)
    outside = not_in_language_model(empty)
    if device_map is None:
        check_fits(empty, device, dtype, quantization, what=folder.name, skip=outside)
    options: dict[str, Any] = {}
    quantized: list[str] = []
    places: Any = {"": str(device)} if device_map is None else device_map
    if quantization is not None:
        quantized = linears(empty, quantization, outside)
        keep = [name for name, layer in empty.named_modules() if isinstance(layer, nn.Linear) and name not in quantized]
        options["quantization_config"] = transformers_config(quantization, dtype, keep)
        if quantization_library(quantization) == "torchao" and places == {"": "cpu"}:
            places = None  # transformers 4 takes it for weights that only wait on the CPU
    model = load_pretrained(
        transformers.AutoModelForImageTextToText,
        folder,
        model_type(config),
        dtype,
        unneeded=[] if needs_head else [f"{name}.weight" for name in _names_of(empty, empty.get_output_embeddings())],
        config=config,
        trust_remote_code=False,
        use_safetensors=True,
        device_map=places,
        **options,
    )
    if plain := [name for name in quantized if _is_plain(model.get_submodule(name))]:
        raise MaAgiqaError(
            f"Expected {len(quantized)} layers in {quantization}, got {len(plain)} that transformers "
            f"{transformers.__version__} left as they are. Use quantization=None, or no parts on the CPU in device_map."
        )
    return model.eval()


def first_place(model: Any) -> torch.device:
    """Where the inputs of a model go that was loaded with a device map: to its first card."""
    places = [torch.device(place) for place in (getattr(model, "hf_device_map", None) or {}).values()]
    return next((place for place in places if place.type != "cpu"), torch.device("cpu"))


def not_in_language_model(model: Any) -> list[str]:
    """The linear layers outside the language model: vision, what connects the two, and the LM head."""
    embeddings = _names_of(model, model.get_input_embeddings())
    language = [f"{name.rpartition('.')[0]}." for name in embeddings]
    layers = [name for name, layer in model.named_modules() if isinstance(layer, nn.Linear)]
    return [name for name in layers if not name.startswith(tuple(language))]


def _names_of(model: Any, module: Any) -> list[str]:
    return [name for name, candidate in model.named_modules() if candidate is module]


def _is_plain(layer: nn.Module) -> bool:
    return type(layer) is nn.Linear and type(layer.weight.data) is torch.Tensor
