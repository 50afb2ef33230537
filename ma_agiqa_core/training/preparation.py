"""What happens once before the first step: checks, processes and precision, the semantic model, the pictures."""

from __future__ import annotations

import math
import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import torch
from accelerate import Accelerator
from accelerate.state import AcceleratorState

from ..compute.devices import resolve_device
from ..compute.progress import watching
from ..errors import MaAgiqaError
from ..labels.labelled_set import LabelledSet
from ..labels.splits import Split
from ..pictures.inputs import PictureError
from ..scorers.picture_features.features import PictureFeatures
from ..semantic.extractor import SemanticExtractor
from .batches import TrainingData
from .descriptions import Descriptions
from .picture_cache import PictureCache
from .progress import TrainingProgress
from .semantic_vectors import semantic_vectors
from .settings import TrainingSettings


def check_trainable(labelled: LabelledSet, split: Split) -> None:
    """Refuses what nothing can be learned from.

    Raises:
        ValueError: No training pictures, or for some target no two training labels that differ.
    """
    if not split.train:
        raise MaAgiqaError(f"Expected pictures to train on, got none of {len(labelled)}. Change the split.")
    for target in labelled.targets:
        scores = [labelled.pictures[row].scores.get(target) for row in split.train]
        known = {score for score in scores if score is not None}
        if len(known) < 2:
            found = f"{known.pop():g} for all of them" if known else "none"
            raise MaAgiqaError(
                f"Expected {target} labels that differ among the {len(scores)} training pictures, got {found}: "
                "there is nothing to learn."
            )


@contextmanager
def opened_accelerator(settings: TrainingSettings, device: str, out: Path) -> Iterator[Accelerator]:
    """Accelerate with this precision on this device, made deterministic; all global state is restored afterwards."""
    where = resolve_device(device)
    if where.type == "cuda":
        os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")  # read when cuBLAS starts
        if where.index is not None:
            torch.cuda.set_device(where)
    before = torch.are_deterministic_algorithms_enabled(), torch.is_deterministic_algorithms_warn_only_enabled()
    deterministic: Any = torch.utils.deterministic  # its settings are properties, unknown to mypy
    fills = deterministic.fill_uninitialized_memory
    accelerator = Accelerator(
        mixed_precision=settings.mixed_precision,
        cpu=where.type == "cpu",
        log_with="tensorboard" if find_spec("tensorboard") else None,
        project_dir=out,
    )
    try:
        torch.use_deterministic_algorithms(True, warn_only=True)
        deterministic.fill_uninitialized_memory = False
        accelerator.init_trackers("tensorboard")
        with torch.random.fork_rng(devices=[] if where.type == "cpu" else None):
            yield accelerator
    finally:
        accelerator.end_training()
        torch.use_deterministic_algorithms(before[0], warn_only=before[1])
        deterministic.fill_uninitialized_memory = fills
        AcceleratorState._reset_state(reset_partial_state=accelerator.num_processes == 1)


def opened_extractor(model: str | None, **options: Any) -> SemanticExtractor | None:
    """The extractor of a semantic model; None for "none" or None."""
    return None if model in (None, "none") else SemanticExtractor(str(model), **options)


def training_data(
    labelled: LabelledSet,
    size: int,
    features: PictureFeatures | None,
    extractor: SemanticExtractor | None,
    picture_cache: Path | None,
    accelerator: Accelerator,
    progress: TrainingProgress,
) -> TrainingData:
    """Labels, semantic vectors and pictures of a whole set.

    Raises:
        OSError: A cache cannot be written.
        ValueError: A picture cannot be read.
    """
    paths = [picture.path for picture in labelled.pictures]
    pixels = PictureCache(paths, size) if features is None else Descriptions(paths, features)
    vectors = {}
    if extractor is not None:
        progress.preparing(
            "semantic vectors", len(range(accelerator.process_index, len(labelled), accelerator.num_processes))
        )
        with watching(progress.prepared):
            share = semantic_vectors(
                extractor,
                labelled.pictures,
                process=accelerator.process_index,
                processes=accelerator.num_processes,
            )
        vectors = {name: _summed(values, accelerator) for name, values in share.items()}
    if picture_cache is not None or isinstance(pixels, Descriptions):
        try:
            with accelerator.local_main_process_first(), watching(progress.prepared):
                progress.preparing("pictures", len(labelled))
                if picture_cache is not None:
                    pixels.keep_in(picture_cache)
                elif isinstance(pixels, Descriptions):
                    pixels.make()
        except PictureError as error:
            raise MaAgiqaError(
                f"Expected a picture that can be read, got {error.path!r}: {error.reason}. Fix it."
            ) from error
    return TrainingData(pixels, label_matrix(labelled, labelled.targets), vectors)


def _summed(values: torch.Tensor, accelerator: Accelerator) -> torch.Tensor:
    if accelerator.num_processes == 1:
        return values
    return accelerator.reduce(values.to(accelerator.device), "sum").cpu()


def label_matrix(labelled: LabelledSet, targets: Sequence[str]) -> torch.Tensor:
    """(N, T) float32, NaN where a picture has no score for a target."""
    rows = [[picture.scores.get(target, math.nan) for target in targets] for picture in labelled.pictures]
    return torch.tensor(rows, dtype=torch.float32).view(len(rows), len(targets))
