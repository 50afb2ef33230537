"""Folders of tiny random image-text-to-text models, made when a test asks for them."""

from collections.abc import Callable
from pathlib import Path

import pytest


@pytest.fixture(scope="session")
def chat_folder(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """The folder of a tiny model by its `model_type`, the same one in the whole session: copy it to change it."""
    import tiny_chat_models
    import transformers

    made: dict[str, Path] = {}

    def folder(family: str) -> Path:
        needed, save = tiny_chat_models.FAMILIES[family]
        if not hasattr(transformers, needed):
            pytest.skip(f"transformers {transformers.__version__} has no {needed}")
        if family == "smolvlm":
            pytest.importorskip("num2words", reason="transformers' processor of SmolVLM needs num2words")
        if family not in made:
            made[family] = tmp_path_factory.mktemp("chat") / family
            save(made[family])
        return made[family]

    return folder
