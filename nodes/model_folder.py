"""The folder models/ma_agiqa, and what else extra_model_paths.yaml adds to it."""

import os

import folder_paths

NAME = "ma_agiqa"
LITE = "lite"
FROM_CHECKPOINT = "from checkpoint"


def register() -> None:
    """Makes models/ma_agiqa known; folders of extra_model_paths.yaml stay."""
    folder_paths.add_model_folder_path(NAME, os.path.join(folder_paths.models_dir, NAME))


def scorer_names() -> list[str]:
    """What Load Image Scorer offers: "lite", checkpoints, and folders of CLIP models."""
    return [LITE]
