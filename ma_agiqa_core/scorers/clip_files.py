"""Loads a CLIP or SigLIP of transformers from its folder: weights strictly, tokenizer, picture preprocessing.

Nothing is loaded before `find` has seen that all of it is there and of a known kind. No code from the folder runs.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import PIL.Image
import torch

from ..arguments.options import expanded
from ..errors import MaAgiqaError, MissingFileError, MissingPackageError, first_line
from ..model_files.hub import hub_file, hub_folder, is_hub_id, split_hub_id
from ..model_files.pretrained import load_pretrained
from ..model_files.transformers_folder import TOKENIZER_FILES, has_model, read_json, weight_files

MODEL_CLASSES = {"clip": "CLIPModel", "siglip": "SiglipModel"}  # by model_type; those of transformers 4.51
PICKSCORE = "pickscore"  # in the name of a model, or of the one that it was tuned from
PICKSCORE_PROCESSOR = "laion/CLIP-ViT-H-14-laion2B-s32B-b79K"  # which PickScore v1 is tuned from and used with
_PREPROCESSING = ("preprocessor_config.json", "processor_config.json")
_OF_A_PROCESSOR = ("config.json", "preprocessor_config.json", "tokenizer_config.json", "tokenizer.json")
_FETCH = "Download the model's whole repository."


@dataclass(frozen=True)
class ClipFiles:
    """Where a model lies, and what its files say before they are loaded.

    Attributes:
        folder: With config.json and weights.
        processor: The folder of its tokenizer and preprocessing, mostly the same.
        name: Hub id, or the folder's name.
        model_type: "clip" or "siglip".
        is_pickscore: It is PickScore, or was tuned from it.
    """

    folder: Path
    processor: Path
    name: str
    model_type: str
    is_pickscore: bool


def find_clip(
    model: str | os.PathLike[str], *, revision: str | None = None, local_files_only: bool = False
) -> ClipFiles:
    """Finds the files of a model and checks that they are complete, loading nothing.

    Args:
        model: Folder, or Hub id (`owner/name`, `owner/name@revision`).
        revision: Of a Hub id.
        local_files_only: Never use the network.

    Raises:
        FileNotFoundError: There is no such folder, or the Hub's files are not here and cannot be downloaded.
        ValueError: A file is missing, or it is another kind of model.
    """
    if is_hub_id(model):
        name = split_hub_id(str(model))[0]
        folder = hub_folder(str(model), has_model, revision=revision, local_files_only=local_files_only)
    else:
        folder = expanded(model)
        name = folder.resolve().name
        if not folder.is_dir():
            raise MissingFileError(
                f"Expected the folder of a CLIP model, or a Hub id such as 'openai/clip-vit-base-patch32', got "
                f"{str(model)!r}: no such folder."
            )
    config = read_json(folder / "config.json")
    kind = config.get("model_type")
    if kind not in MODEL_CLASSES:
        raise MaAgiqaError(
            f"Expected a model that compares pictures with texts (model_type {' or '.join(map(repr, MODEL_CLASSES))}) "
            f"in {str(folder)!r}, got {kind!r}. Use CLIP, SigLIP or PickScore."
        )
    weight_files(folder)
    is_pickscore = PICKSCORE in f"{name} {config.get('_name_or_path', '')}".lower()
    return ClipFiles(folder, _processor_folder(folder, is_pickscore, local_files_only), name, kind, is_pickscore)


def load_clip(files: ClipFiles, dtype: torch.dtype, device: torch.device) -> Any:
    """The model in eval mode.

    Raises:
        ValueError: Weights are missing, damaged or of another shape than the config says.
    """
    import transformers

    model_class = getattr(transformers, MODEL_CLASSES[files.model_type])
    model = load_pretrained(model_class, files.folder, files.model_type, dtype)
    return model.to(device).eval()


def load_clip_processor(files: ClipFiles) -> Any:
    """The model's tokenizer and picture preprocessing.

    Raises:
        ImportError: A library that it needs is not installed.
        ValueError: A file is missing or damaged.
    """
    from transformers import AutoProcessor

    wanted = f"Expected a tokenizer and picture preprocessing in {str(files.processor)!r}"
    try:
        processor = AutoProcessor.from_pretrained(files.processor, local_files_only=True, trust_remote_code=False)
        if files.is_pickscore:
            processor.image_processor = _pillow_preprocessing(files.processor)
    except ImportError as error:  # SigLIP's tokenizer in spiece.model
        raise MissingPackageError(
            f"{wanted}, got {first_line(error)} Run `pip install protobuf sentencepiece`."
        ) from error
    except Exception as error:  # it raises whatever the first missing file leads to
        raise MaAgiqaError(f"{wanted}, got {first_line(error)} {_FETCH}") from error
    if missing := [part for part in ("tokenizer", "image_processor") if getattr(processor, part, None) is None]:
        raise MaAgiqaError(f"{wanted}, got no {' and no '.join(missing)}. {_FETCH}")
    try:  # wrong settings show themselves only in use
        processor.image_processor(images=PIL.Image.new("RGB", (64, 64)), return_tensors="pt")
        processor.tokenizer("a cat", truncation=True, max_length=int(processor.tokenizer.model_max_length))
    except Exception as error:
        raise MaAgiqaError(f"{wanted}, got settings that cannot be used: {first_line(error)} {_FETCH}") from error
    return processor


def _pillow_preprocessing(folder: Path) -> Any:
    """Picture preprocessing with Pillow, which PickScore was published with; torchvision's moves its scores by .0003
    to .0008 of their spread."""
    from transformers import AutoImageProcessor

    has_backends = find_spec("transformers.image_processing_backends") is not None  # of transformers 5
    pillow: dict[str, Any] = {"backend": "pil"} if has_backends else {"use_fast": False}
    return AutoImageProcessor.from_pretrained(folder, local_files_only=True, trust_remote_code=False, **pillow)


def _processor_folder(folder: Path, is_pickscore: bool, local_files_only: bool) -> Path:
    """The folder itself; for PickScore without a tokenizer that of the model it is tuned from."""
    if not (lack := _lacks_of_a_processor(folder)):
        return folder
    wanted = f"Expected {' and '.join(lack)} in {str(folder)!r}, got none."
    if not is_pickscore:
        raise MaAgiqaError(f"{wanted} {_FETCH}")
    try:
        paths = [hub_file(PICKSCORE_PROCESSOR, name, local_files_only=local_files_only) for name in _OF_A_PROCESSOR]
    except FileNotFoundError as error:
        raise MissingFileError(
            f"{wanted} PickScore uses those of {PICKSCORE_PROCESSOR}: run `hf download {PICKSCORE_PROCESSOR} "
            f"{' '.join(_OF_A_PROCESSOR)}`, or copy all of them but config.json into the folder."
        ) from error
    return paths[0].parent


def _lacks_of_a_processor(folder: Path) -> list[str]:
    needed = (_PREPROCESSING, TOKENIZER_FILES)
    return [names[0] for names in needed if not any((folder / name).is_file() for name in names)]
