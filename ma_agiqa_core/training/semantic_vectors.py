"""Semantic vectors of the training pictures, computed before the first step, or read from the cache."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from ..arguments.options import first_names
from ..errors import MaAgiqaError
from ..labels.labelled_set import ALIGNMENT, LabelledPicture
from ..pictures.groups import picture_groups
from ..semantic.extractor import SemanticExtractor
from ..semantic.questions import names_prompt


def semantic_vectors(
    extractor: SemanticExtractor,
    pictures: Sequence[LabelledPicture],
    *,
    process: int = 0,
    processes: int = 1,
) -> dict[str, Tensor]:
    """One process's share of the vectors; those of all processes add up to all vectors.

    A picture without a score for alignment needs no prompt and gets no vector of the question about it, but 0.

    Args:
        extractor: With a cache.
        pictures: In the order of the rows.
        process: Which of the processes this is, from 0.
        processes: How many there are.

    Returns:
        By question, (N, D) float32 on the CPU, 0 in the other processes' rows.

    Raises:
        OSError: The cache cannot be written.
        UnusableModelError: The language model cannot be loaded.
        ValueError: Pictures have no vectors: the first five, why, and how many.
    """
    vectors = {name: torch.zeros(len(pictures), extractor.hidden_size) for name in extractor.questions}
    failed: list[str] = []
    own = range(process, len(pictures), processes)
    aligned = [row for row in own if ALIGNMENT in pictures[row].scores]
    others = [row for row in own if ALIGNMENT not in pictures[row].scores]
    without_prompt = [name for name, question in extractor.questions.items() if not names_prompt(question)]
    for rows, names in ((aligned, list(extractor.questions)), (others, without_prompt)):
        if not names:
            continue
        for group in picture_groups([pictures[row].path for row in rows]):
            prompts = [pictures[rows[picture.index]].prompt for picture in group]
            semantic = extractor.vectors(group, prompts=prompts, names=names)
            for place, picture in enumerate(group):
                if semantic.errors[place] is not None:
                    failed.append(f"{str(picture.path)!r} ({semantic.errors[place]})")
                    continue
                for name, values in semantic.vectors.items():
                    vectors[name][rows[picture.index]] = values[place]
    if failed:
        raise MaAgiqaError(
            f"Expected semantic vectors of {len(pictures)} pictures, got none of {len(failed)}: {first_names(failed)}. "
            "Fix these pictures or prompts, or remove them from the labels."
        )
    return vectors
