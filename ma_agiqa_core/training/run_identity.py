"""What a run must have in common with the one that it goes on with."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ..errors import MaAgiqaError, OutputExistsError
from ..labels.labelled_set import LabelledSet
from ..labels.splits import Split
from ..semantic.extractor import SemanticExtractor
from .settings import TrainingSettings, differences
from .state import SavedState, StateFolder

MODEL = "model.safetensors"


def run_identity(
    settings: TrainingSettings, labelled: LabelledSet, split: Split, extractor: SemanticExtractor | None
) -> dict[str, Any]:
    """For JSON: the settings, and digests of labels, prompts and split. Files of pictures may be mended or moved."""
    labels = [[picture.name, dict(picture.scores), picture.prompt] for picture in labelled.pictures]
    return {
        "settings": settings.to_dict(),
        "data": {
            "name": labelled.name,
            "pictures": len(labelled),
            "targets": list(labelled.targets),
            "labels": _digest(labels),
            "split": _digest([split.train, split.val, split.test]),
        },
        "semantic": None if extractor is None else f"{extractor.name} {extractor.revision}",
    }


def check_can_begin(
    state: StateFolder, out: Path, identity: Mapping[str, Any], settings: TrainingSettings, *, resume: bool
) -> SavedState | None:
    """The state to go on from; None to begin anew. Overwrites nothing and mixes no two runs.

    Raises:
        FileExistsError: There is a run in `out`, and `resume` is False; or a model without a state.
        ValueError: The run in `out` has other settings or data, the message names them; or a damaged state.
    """
    saved = state.read()
    if saved is None:
        began = resume and state.folder.is_dir()  # killed before its first state
        if (out / MODEL).exists() and not began:
            raise OutputExistsError(f"Expected a folder without a model, got {str(out)!r}. Choose another.")
        return None
    if not resume:
        raise OutputExistsError(
            f"Expected a folder without a run, got {str(out)!r}. Go on with it by resume (on the command line "
            "--resume), or choose another."
        )
    if others := differences(saved.identity, identity, harmless=[f"settings.{name}" for name in settings.harmless]):
        raise MaAgiqaError(
            f"Expected the settings and data of the run in {str(out)!r}, which has {'; '.join(others)}. "
            "Use the same, or choose another folder."
        )
    return saved


def _digest(values: Any) -> str:
    return hashlib.sha256(json.dumps(values, ensure_ascii=True).encode()).hexdigest()[:12]
