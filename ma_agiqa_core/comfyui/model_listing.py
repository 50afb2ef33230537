"""What a folder of models offers: scorers to load, and language models for scorers that need one.

Cheap: names and config files are looked at, no weights. A folder with a config.json is one model of transformers, and
the files in it are its parts.
"""

import os
from collections.abc import Iterator
from pathlib import Path

from ..model_files.transformers_folder import complete_kind
from ..scorers.families import FAMILIES, family_of_folder, named_family
from ..scorers.family import Family

CHECKPOINT = ".safetensors"
PERCENTILES = ".json"
PUBLISHED = " (published)"  # ends the name of a family whose published weights are meant


def scorers_in(folder: str | os.PathLike[str]) -> list[str]:
    """Checkpoints, and folders and files of a family, by their path in the folder with forward slashes, sorted.

    What is in a folder with a family's name is of that family: "imagereward/MINE".

    What `load_scorer` takes for them is `scorer_path`.
    """
    return sorted(
        path.relative_to(folder).as_posix()
        for path in _models(Path(folder))
        if path.suffix.lower() == CHECKPOINT or _family(path) is not None
    )


def published_scorers() -> list[str]:
    """The families whose published weights `load_scorer` finds by name; what is not on this machine is fetched."""
    return [f"{family.name}{PUBLISHED}" for family in FAMILIES if family.by_name]


def published_name(name: str) -> str | None:
    """What `load_scorer` takes for a name of `published_scorers`; None for other names."""
    return name.removesuffix(PUBLISHED) if name in published_scorers() else None


def semantic_models_in(folder: str | os.PathLike[str]) -> list[str]:
    """Folders of language models that see pictures, by their path in the folder with forward slashes, sorted."""
    return sorted(
        path.relative_to(folder).as_posix()
        for path in _models(Path(folder))
        if path.is_dir() and complete_kind(path) is not None and _family(path) is None
    )


def percentiles_in(folder: str | os.PathLike[str]) -> list[str]:
    """Files that may hold percentiles, JSON outside of models, by their path in the folder, sorted."""
    return sorted(
        (place / name).relative_to(folder).as_posix()
        for place, names, is_model in _places(Path(folder))
        for name in names
        if not is_model and Path(name).suffix.lower() == PERCENTILES
    )


def scorer_path(folder: str | os.PathLike[str], name: str) -> str:
    """What `load_scorer` takes for a name of `scorers_in`."""
    path = Path(folder) / name
    return str(path) if (family := _family(path)) is None else f"{family.name}:{path}"


def place_of(model: str) -> Path | None:
    """The file or folder in what `scorer_path` gives; None for what `published_name` gives."""
    family = named_family(model)
    if family is not None and model == family.name and family.by_name:
        return None
    return Path(model if family is None else model.removeprefix(f"{family.name}:"))


def _family(path: Path) -> Family | None:
    """Whose scorer it is; None for a language model, and for a checkpoint, which says so itself."""
    if path.is_dir():
        return family_of_folder(path)
    return next((family for family in FAMILIES if path.name in family.files), None)


def _models(folder: Path) -> Iterator[Path]:
    """Single checkpoints, and folders of one model each."""
    published = _published_files()
    for place, names, is_model in _places(folder):
        if is_model:
            yield place
            continue
        yield from (place / name for name in names if Path(name).suffix.lower() == CHECKPOINT or name in published)


def _places(folder: Path) -> Iterator[tuple[Path, list[str], bool]]:
    """Folders with the names of their files, and whether one is a model of several files: in it there are no others."""
    published = _published_files()
    for place, folders, names in os.walk(folder, followlinks=True):
        is_model = Path(place) != folder and ("config.json" in names or not published.isdisjoint(names))
        folders[:] = [] if is_model else [name for name in folders if not name.startswith(".")]
        yield Path(place), names, is_model


def _published_files() -> set[str]:
    return {name for family in FAMILIES for name in family.files}
