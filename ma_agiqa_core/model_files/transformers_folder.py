"""The files of a published language model: config, shards, and a fingerprint of them all.

Weights come as `model.safetensors` or `pytorch_model.bin`, whole or in shards listed by an index file. Pickles
are read with `weights_only=True`: nothing in them is executed.
"""

from __future__ import annotations

import hashlib
import json
import logging
import os
import pickle
import zipfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..arguments.options import expanded
from ..errors import MaAgiqaError, MissingFileError
from .digest import file_digest
from .hub import hub_folder, is_hub_id, split_hub_id
from .refused_pickle import why_refused

if TYPE_CHECKING:
    from torch import Tensor

logger = logging.getLogger(__name__)

MPLUG_OWL2 = "mplug_owl2"  # its model_type
_WEIGHTS = ("model.safetensors", "pytorch_model.bin")  # in order of preference; each may be sharded
TOKENIZER_FILES = ("tokenizer.json", "tokenizer.model", "vocab.json", "vocab.txt", "spiece.model", "tekken.json")
"""One of them is in the folder of any model that reads text."""

DESCRIBING = (  # the small files that, with the weights, decide what a model answers
    "added_tokens.json",
    "chat_template.jinja",
    "chat_template.json",
    "config.json",
    "merges.txt",
    "preprocessor_config.json",
    "processor_config.json",
    "special_tokens_map.json",
    "tokenizer.json",
    "tokenizer.model",
    "tokenizer_config.json",
    "vocab.json",
)


def model_folder(model: str | os.PathLike[str], *, revision: str | None = None, local_files_only: bool = False) -> Path:
    """The folder of a language model, given as a folder or as a Hub id (`owner/name`, `owner/name@revision`).

    Raises:
        FileNotFoundError: There is no such folder, or the Hub's files are not here and cannot be downloaded.
        ValueError: A folder without config.json or weights, or a revision of a local folder.
    """
    if is_hub_id(model):
        return hub_folder(str(model), _is_complete, revision=revision, local_files_only=local_files_only)
    folder = expanded(model)
    if not folder.is_dir():
        raise MissingFileError(
            f"Expected the folder of a language model, or a Hub id such as 'owner/name', got {str(model)!r}: "
            "no such folder."
        )
    if revision is not None:
        raise MaAgiqaError(f"Expected no revision of a local folder, got {revision!r} for {str(model)!r}.")
    read_json(folder / "config.json")
    weight_files(folder)
    return folder


def display_name(model: str | os.PathLike[str]) -> str:
    """A short name for messages: the Hub id, or the folder's name."""
    return split_hub_id(str(model))[0] if is_hub_id(model) else expanded(model).resolve().name


def read_json(path: Path) -> dict[str, Any]:
    """A JSON object.

    Raises:
        ValueError: The file is missing or holds something else; the message names it.
    """
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise MaAgiqaError(
            f"Expected {path.name} in {str(path.parent)!r}, got {error.strerror or error}. "
            "Download the model's whole repository."
        ) from error
    except (ValueError, RecursionError) as error:
        raise MaAgiqaError(f"Expected JSON in {str(path)!r}, got {error}. Download it again.") from error
    if not isinstance(content, dict):
        raise MaAgiqaError(f"Expected a JSON object in {str(path)!r}, got {type(content).__name__}.")
    return content


def model_type(config: Any) -> str:
    """The model_type of a whole model's config: in transformers 4.57 a Qwen2-VL's own attribute is its text part's."""
    return type(config).model_type or config.model_type


def image_text_kind(config: Mapping[str, Any]) -> str | None:
    """The `model_type` of a config.json of a model that sees pictures, else None.

    mPLUG-Owl2's has a `visual_config`, and sometimes no type.
    """
    kind = config.get("model_type", MPLUG_OWL2 if isinstance(config.get("visual_config"), dict) else None)
    return str(kind) if "vision_config" in config or kind == MPLUG_OWL2 else None


def has_model(folder: Path) -> bool:
    """Whether config.json and all files that hold the weights are there."""
    try:
        weight_files(folder)
    except ValueError:
        return False
    return (folder / "config.json").is_file()


def complete_kind(folder: Path) -> str | None:
    """The type of an image-text model whose files are complete, else None."""
    try:
        return image_text_kind(read_json(folder / "config.json")) if has_model(folder) else None
    except ValueError:
        return None


def weight_files(folder: Path) -> list[Path]:
    """The files that hold a model's weights, in the order to read them.

    Raises:
        ValueError: There are none, or shards that the index names are missing.
    """
    for name in _WEIGHTS:
        if (index := folder / f"{name}.index.json").is_file():
            shards = _shards(index)
            if missing := [shard.name for shard in shards if not shard.is_file()]:
                raise MaAgiqaError(
                    f"Expected {len(shards)} shards in {str(folder)!r}, got {len(shards) - len(missing)}: "
                    f"{', '.join(missing[:3])}{' and more' if len(missing) > 3 else ''} missing. Download them again."
                )
            return shards
        if (whole := folder / name).is_file():
            return [whole]
    raise MaAgiqaError(
        f"Expected {' or '.join(_WEIGHTS)}, or an index of shards, in {str(folder)!r}, got neither. "
        "Download the model's whole repository."
    )


def read_shard(path: Path) -> Iterator[tuple[str, Tensor]]:
    """The tensors of one shard by their published names, on the CPU, one at a time.

    Raises:
        ValueError: The shard is damaged, truncated or no plain table of tensors.
    """
    read = _safetensors if path.suffix == ".safetensors" else _pickled
    with _whole(path):
        yield from read(path)


def read_rows(folder: Path, name: str, rows: Sequence[int]) -> Tensor:
    """Some rows of one published tensor, (len(rows), ...); the rest of it stays in its file.

    Raises:
        ValueError: No shard has it, or it has fewer rows; or a shard is damaged.
    """
    for path in _files_with(folder, name):
        with _whole(path):
            if path.suffix == ".safetensors":
                found = _safetensors_rows(path, name, rows)
            else:
                found = next((tensor[list(rows)] for own, tensor in _pickled(path) if own == name), None)
        if found is not None:
            return found
    raise MaAgiqaError(
        f"Expected {name!r} in {str(folder)!r}, got none. Check that all of the model's files are there."
    )


def check_shards(folder: Path) -> None:
    """Looks at the table of contents of every shard: one that was cut short has none, or one that does not fit.

    Raises:
        ValueError: A shard is missing or damaged; the message names it.
    """
    for path in weight_files(folder):
        with _whole(path):
            if path.suffix == ".safetensors":
                from safetensors import safe_open

                with safe_open(path, framework="pt"):
                    pass
            elif not path.stat().st_size:
                raise MaAgiqaError("it is empty")
            elif _is_zip_from_the_start(path):  # torch's older format has no table of contents
                zipfile.ZipFile(path).close()


def fingerprint(folder: Path, weights: Sequence[Path] | None = None) -> str:
    """SHA-256 over all files that decide what a model answers: another fingerprint, another model.

    16 GB are read once and not in every run: see `file_digest`.

    Args:
        folder: Of the model.
        weights: Its files of weights, where they lie elsewhere or have other names.
    """
    digest = hashlib.sha256()
    describing = [folder / name for name in DESCRIBING if (folder / name).is_file()]
    for path in [*describing, *(weight_files(folder) if weights is None else weights)]:
        digest.update(f"{path.name}:{file_digest(path)}\n".encode())
    return digest.hexdigest()


def _is_complete(folder: Path) -> bool:
    has_tokenizer = any((folder / name).is_file() for name in TOKENIZER_FILES)
    return has_tokenizer and has_model(folder)


def _shards(index: Path) -> list[Path]:
    weight_map = read_json(index).get("weight_map")
    if not isinstance(weight_map, dict) or not weight_map or not all(isinstance(v, str) for v in weight_map.values()):
        raise MaAgiqaError(f"Expected a weight_map of file names in {str(index)!r}, got {weight_map!r:.60}.")
    names = sorted(set(weight_map.values()))
    if outside := [name for name in names if Path(name).name != name]:
        raise MaAgiqaError(f"Expected shards beside {str(index)!r}, got {outside[0]!r}.")
    return [index.parent / name for name in names]


@contextmanager
def _whole(path: Path) -> Iterator[None]:
    """Whatever a shard's reader raises becomes one message that names the file."""
    try:
        yield
    except _DAMAGED as error:
        is_refused = isinstance(error, pickle.UnpicklingError)
        reason = why_refused(error) if is_refused else (str(error).strip() or repr(error)).splitlines()[0].rstrip(".")
        raise MaAgiqaError(
            f"Expected a whole shard of weights, got {str(path)!r}: {reason}. Download it again."
        ) from error


def _is_zip_from_the_start(path: Path) -> bool:
    with path.open("rb") as file:
        return file.read(4) == b"PK\x03\x04"


def _files_with(folder: Path, name: str) -> list[Path]:
    """The shard that the index names for a tensor; without an index all there are."""
    for weights in _WEIGHTS:
        if (index := folder / f"{weights}.index.json").is_file():
            weight_map = read_json(index).get("weight_map")
            shard = weight_map.get(name) if isinstance(weight_map, dict) else None
            return [path for path in _shards(index) if path.name == shard]
        if (folder / weights).is_file():
            break
    return weight_files(folder)


def _safetensors_rows(path: Path, name: str, rows: Sequence[int]) -> Tensor | None:
    import torch
    from safetensors import safe_open

    with safe_open(path, framework="pt") as shard:
        if name not in shard.keys():  # noqa: SIM118 - not a dict
            return None
        stored = shard.get_slice(name)
        return torch.cat([stored[row : row + 1] for row in rows])


def _safetensors(path: Path) -> Iterator[tuple[str, Tensor]]:
    from safetensors import safe_open

    with safe_open(path, framework="pt") as shard:
        for name in shard.keys():  # noqa: SIM118 - not a dict
            yield name, shard.get_tensor(name)


def _pickled(path: Path) -> Iterator[tuple[str, Tensor]]:
    import torch

    mapped = zipfile.is_zipfile(path)  # torch's older format cannot be mapped into memory
    table = torch.load(path, map_location="cpu", weights_only=True, mmap=mapped)
    if not isinstance(table, dict) or not all(isinstance(value, torch.Tensor) for value in table.values()):
        raise MaAgiqaError(f"a table of tensors was expected, it holds a {type(table).__name__}")
    for name in list(table):
        yield name, table.pop(name)


def _damaged() -> tuple[type[Exception], ...]:
    from safetensors import SafetensorError

    damage = (OSError, RuntimeError, ValueError, EOFError, KeyError)
    return (SafetensorError, *damage, pickle.UnpicklingError, zipfile.BadZipFile)


_DAMAGED = _damaged()
