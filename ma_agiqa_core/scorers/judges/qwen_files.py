"""The files of a Qwen vision-language model, looked at before they are loaded."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from ...errors import MaAgiqaError
from ...model_files.transformers_folder import TOKENIZER_FILES, check_shards, read_json

FETCH = "Download the model's whole repository."


def check_qwen(folder: Path, *, family: str, types: Sequence[str]) -> None:
    """Finds missing, truncated and foreign files.

    Args:
        folder: Of the model.
        family: Of judges, for messages.
        types: The `model_type`s that it may have.

    Raises:
        ValueError: A file is missing or damaged, or it is another kind of model.
    """
    kind = read_json(folder / "config.json").get("model_type")
    if kind not in types:
        raise MaAgiqaError(
            f"Expected model_type {' or '.join(map(repr, types))} for '{family}' in {str(folder)!r}, got {kind!r}. "
            "Use a model of this family: see `ma-agiqa models --all`."
        )
    check_processor_files(folder)
    check_shards(folder)


def check_processor_files(folder: Path) -> None:
    """A tokenizer and a picture preprocessing must be there.

    Raises:
        ValueError: One is missing; the message names the file.
    """
    for names in (TOKENIZER_FILES, ("preprocessor_config.json", "processor_config.json")):
        if not any((folder / name).is_file() for name in names):
            raise MaAgiqaError(f"Expected {names[0]} in {str(folder)!r}, got none. {FETCH}")
