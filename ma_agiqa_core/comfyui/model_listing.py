"""What a folder of models offers: scorers to load, and language models for scorers that need one.

Cheap: names and config files are looked at, no weights. A folder with a config.json is one model of transformers, and
the files in it are its parts.
"""

import os
from collections.abc import Iterator
from pathlib import Path

from ..model_files.transformers_folder import complete_kind
from ..scorers.clip_files import MODEL_CLASSES

CHECKPOINT = ".safetensors"


def scorers_in(folder: str | os.PathLike[str]) -> list[str]:
    """Checkpoints, and folders of CLIP models, by their path in the folder with forward slashes, sorted.

    What `load_scorer` takes for them is `scorer_path`.
    """
    return sorted(
        path.relative_to(folder).as_posix()
        for path in _models(Path(folder))
        if path.suffix.lower() == CHECKPOINT or (path.is_dir() and complete_kind(path) in MODEL_CLASSES)
    )


def semantic_models_in(folder: str | os.PathLike[str]) -> list[str]:
    """Folders of language models that see pictures, by their path in the folder with forward slashes, sorted."""
    return sorted(
        path.relative_to(folder).as_posix()
        for path in _models(Path(folder))
        if path.is_dir() and complete_kind(path) not in (None, *MODEL_CLASSES)
    )


def scorer_path(folder: str | os.PathLike[str], name: str) -> str:
    """What `load_scorer` takes for a name of `scorers_in`."""
    path = Path(folder) / name
    return f"clip:{path}" if path.is_dir() else str(path)


def _models(folder: Path) -> Iterator[Path]:
    """Single checkpoints, and folders of one model each."""
    for place, folders, names in os.walk(folder, followlinks=True):
        if "config.json" in names:
            folders.clear()
            yield Path(place)
            continue
        folders[:] = [name for name in folders if not name.startswith(".")]
        yield from (Path(place, name) for name in names if Path(name).suffix.lower() == CHECKPOINT)
