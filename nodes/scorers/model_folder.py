"""The folder models/ma_agiqa, and what extra_model_paths.yaml adds to it under `ma_agiqa`."""

from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import folder_paths

from ...ma_agiqa_core.comfyui.model_listing import (
    percentiles_in,
    published_name,
    published_scorers,
    scorer_path,
    scorers_in,
    semantic_models_in,
)

NAME = "ma_agiqa"
LITE = "lite"
FROM_CHECKPOINT = "from checkpoint"
ITS_OWN = "none"


def register() -> None:
    """Makes the folder, and makes it known; those of extra_model_paths.yaml, which came before, stay."""
    own = Path(folder_paths.models_dir, NAME)
    folder_paths.add_model_folder_path(NAME, str(own))
    with suppress(OSError):
        own.mkdir(parents=True, exist_ok=True)


def scorer_names() -> list[str]:
    """What Load Image Scorer offers: "lite", what is in the folders, and at the end what can be fetched."""
    return [LITE, *_listed(scorers_in), *published_scorers()]


def semantic_names() -> list[str]:
    return [FROM_CHECKPOINT, *_listed(semantic_models_in)]


def scorer_file(name: str) -> str:
    """What the core loads for a name of `scorer_names`.

    Raises:
        FileNotFoundError: It is not there, or no longer there.
    """
    if name == LITE:
        return LITE
    if (published := published_name(name)) is not None:
        return published
    # ComfyUI 0.3.64 accepts names that are not on the list: from other machines, and paths outside the folder
    return scorer_path(_root_of(name, scorers_in), name)


def semantic_folder(name: str) -> str | None:
    """The folder of a name of `semantic_names`; None leaves it to the checkpoint.

    Raises:
        FileNotFoundError: It is no longer there.
    """
    return None if name == FROM_CHECKPOINT else str(_root_of(name, semantic_models_in) / name)


def percentile_names() -> list[str]:
    return [ITS_OWN, *_listed(percentiles_in)]


def percentiles_file(name: str) -> str | None:
    """The file of a name of `percentile_names`; None leaves the scorer its own percentiles.

    Raises:
        FileNotFoundError: It is no longer there.
    """
    return None if name == ITS_OWN else str(_root_of(name, percentiles_in) / name)


def vector_cache() -> str:
    """Where vectors of pictures seen before are kept."""
    return str(Path(folder_paths.get_user_directory(), NAME, "vectors"))


def picks_file(name: str) -> Path:
    """Where marks are kept, for `ma-agiqa learn`.

    Args:
        name: Of the file, with or without .json.

    Raises:
        ValueError: A path.
    """
    stem = name.strip().removesuffix(".json")
    if not stem or stem.startswith(".") or any(sign in stem for sign in '/\\:*?"<>|'):
        raise ValueError(f"Expected a plain file name, got {name!r:.80}. Name it like 'picks'.")
    return Path(folder_paths.get_user_directory(), NAME, f"{stem}.json")


def _roots() -> list[Path]:
    return [Path(root) for root in folder_paths.get_folder_paths(NAME)]


def _listed(names_in: Callable[[Path], list[str]]) -> list[str]:
    """What is in all the folders; what several have, once."""
    return list(dict.fromkeys(name for root in _roots() for name in names_in(root)))


def _root_of(name: str, names_in: Callable[[Path], list[str]]) -> Path:
    """The first folder that lists the name.

    Raises:
        FileNotFoundError: None does.
    """
    roots = _roots()
    for root in roots:
        if name in names_in(root):
            return root
    where = " or ".join(map(str, roots))
    raise FileNotFoundError(f"Expected '{name}' in {where}, got nothing there. Put it back, or choose another model.")
