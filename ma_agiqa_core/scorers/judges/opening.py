"""From what `load_scorer` was asked for to a judge's folder and the reader of it; nothing large is loaded here."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from ...arguments.options import expanded
from ...compute.devices import resolve_device, resolve_dtype
from ...errors import MaAgiqaError, MissingFileError
from ...model_files.hub import hub_folder, is_hub_id
from ...model_files.transformers_folder import TOKENIZER_FILES, display_name, has_model
from ...semantic.cache import SemanticCache
from ..family import Request
from .asking import Reader
from .lazy_reader import LazyReader


def open_reader(
    request: Request,
    family: str,
    repository: str,
    make: Callable[..., Reader],
    check: Callable[[Path], object],
    *,
    is_complete: Callable[[Path], bool] | None = None,
    depends_on_transformers: bool = True,
    lazy: Callable[..., LazyReader] = LazyReader,
) -> LazyReader:
    """Finds the model and checks its files and the options.

    Args:
        request: Of `load_scorer`.
        family: Its name there.
        repository: The published one, taken if the request names none.
        make: Loads the reader: see `LazyReader`.
        check: Looks at everything but the weights.
        is_complete: Whether a folder of the Hub's cache has all that is needed.
        depends_on_transformers: See `LazyReader`.
        lazy: Another class of readers.

    Raises:
        FileNotFoundError: There is no such folder, or the Hub's files are not here and cannot be downloaded.
        ImportError: The library for the quantization is not installed.
        ValueError: Another kind of model, missing or damaged files, or an option that does not apply.
    """
    for option in ("semantic", "without"):
        if (value := getattr(request, option)) not in (None, ()):
            raise MaAgiqaError(f"Expected no {option}= for '{family}', got {value!r}. It is a language model itself.")
    model, revision = split_revision(request.model or repository, request.revision)
    place = resolve_device(request.device)
    is_remote = is_hub_id(model)
    if is_remote:
        folder = hub_folder(
            model, is_complete or _has_tokenizer_too, revision=revision, local_files_only=request.local_files_only
        )
    elif not (folder := expanded(model)).is_dir():
        raise MissingFileError(
            f"Expected the folder of a {family} model, or a Hub id such as {repository!r}, got {model!r}: "
            "no such folder."
        )
    reader = lazy(
        folder,
        display_name(model),
        make,
        check,
        depends_on_transformers=depends_on_transformers,
        device=place,
        dtype=resolve_dtype(request.dtype, place),
        quantization=request.quantization,
        device_map=request.device_map,
        asked_dtype=request.dtype,
    )
    if revision is not None and not is_remote and not reader.fingerprint.startswith(revision):
        raise MaAgiqaError(f"Expected revision {revision!r}, got {reader.fingerprint[:12]!r} in {str(folder)!r}.")
    return reader


def open_cache(request: Request) -> SemanticCache | None:
    """Of answers to pictures already seen."""
    return None if request.cache is None else SemanticCache(request.cache)


def split_revision(model: str, revision: str | None) -> tuple[str, str | None]:
    """A model without the "@revision" behind it, and that revision.

    Raises:
        ValueError: Two revisions that contradict each other.
    """
    name, at, pinned = model.rpartition("@")
    if not at or expanded(model).exists():
        return model, revision
    if revision is not None and revision != pinned:
        raise MaAgiqaError(f"Expected one revision of {name!r}, got {pinned!r} and {revision!r}.")
    return name, pinned


def _has_tokenizer_too(folder: Path) -> bool:
    return has_model(folder) and any((folder / name).is_file() for name in TOKENIZER_FILES)
