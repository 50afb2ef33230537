"""A core scorer whose networks ComfyUI moves: the value of a SCORER link.

It is a core `Scorer` itself (`info`, `score`), so ensembles, rankings and the sampler take it as it is.
"""

from __future__ import annotations

import logging
import math
from typing import Any

import torch
from torch import Tensor

from ...ma_agiqa_core.compute.caller_state import as_loaded
from ...ma_agiqa_core.compute.progress import tick
from ...ma_agiqa_core.errors import PictureError
from ...ma_agiqa_core.pictures.inputs import as_picture_list
from ...ma_agiqa_core.pictures.prompts import check_score_options, resolve_prompts
from ...ma_agiqa_core.scorers.scorer import Scorer
from ..out_of_memory import is_out_of_memory
from .memory import LanguageModelMemory, ManagedNetworks
from .score_cache import ScoreCache, picture_key

logger = logging.getLogger(__name__)


class ManagedScorer:
    """Scores wherever ComfyUI puts the networks, and remembers what it scored.

    Args:
        scorer: Of the core, with its networks on the CPU; or an ensemble of managed scorers.
        identity: Weights and settings in one string: equal identities give equal scores.
        device: Where to compute; None leaves it to ComfyUI.
        passes: How many networks see each picture, which is how often progress counts it.

    Attributes:
        info: What the scorer says about itself.
    """

    def __init__(self, scorer: Scorer, identity: str, device: torch.device | None = None, passes: int = 1) -> None:
        self.info = scorer.info
        self.identity, self.passes = identity, passes
        self._scorer = scorer
        self._networks = ManagedNetworks(getattr(scorer, "networks", ()), device)
        self._cache = ScoreCache()
        if (extractor := getattr(scorer, "extractor", None)) is not None:
            extractor.hand_over(LanguageModelMemory(self._networks, extractor.drop_model))
            self.passes += 1
        judge = getattr(scorer, "language_model", None)  # of a judge: the only network that sees its pictures
        if judge is not None and hasattr(judge, "hand_over"):
            judge.hand_over(LanguageModelMemory(self._networks, judge.drop))

    def score(self, images: Any, prompts: Any = None, batch_size: int | None = None, on_error: str = "raise") -> Tensor:
        """Scores pictures; see the core's `Scorer.score`. Pictures scored before (with their prompts) are known."""
        check_score_options(batch_size, on_error)
        is_many = isinstance(images, list) or (isinstance(images, Tensor) and images.ndim == 4)
        pictures = list(images) if is_many else as_picture_list(images)  # the core checks what is scored
        texts = resolve_prompts(prompts, len(pictures), self.info.needs_prompt)
        if self.info.relative:  # its members remember
            return self._compute(pictures, texts, batch_size, on_error)
        read = texts if texts and self.info.needs_prompt else [None] * len(pictures)
        keys = [picture_key(picture, text) for picture, text in zip(pictures, read, strict=True)]
        known = self._cache.known(keys)
        first = {key: row for row, key in reversed(list(enumerate(keys)))}  # equal pictures are scored once
        new = [row for row, key in enumerate(keys) if key is None or (key not in known and first[key] == row)]
        tick(self.passes * (len(pictures) - len(new)))
        scores = torch.full((len(pictures),), math.nan, dtype=torch.float32, device="cpu")
        if new:
            try:
                scores[new] = self._compute(
                    [pictures[row] for row in new], [texts[row] for row in new] if texts else None, batch_size, on_error
                )
            except PictureError as error:  # counted among the new ones
                raise PictureError(new[error.index], error.path, error.reason) from error
        fresh = {keys[row]: scores[row].item() for row in new}
        self._cache.remember({key: score for key, score in fresh.items() if key is not None and math.isfinite(score)})
        known.update(fresh)
        every = [scores[row] if key is None else known[key] for row, key in enumerate(keys)]
        return torch.tensor(every, dtype=torch.float32, device="cpu")

    def _compute(self, pictures: list[Any], texts: list[str] | None, batch_size: int | None, on_error: str) -> Tensor:
        sizes = [picture.shape[-2] * picture.shape[-1] for picture in pictures if isinstance(picture, Tensor)]
        work = self._scorer.work_bytes(sizes) if hasattr(self._scorer, "work_bytes") else 0
        # ComfyUI runs nodes in inference mode; weights that are loaded in it are tensors of another kind
        with as_loaded():
            self._networks.load(work)
            try:
                return self._scorer.score(pictures, texts, batch_size, on_error)
            except (MemoryError, RuntimeError) as error:  # with a single picture: before, batches became smaller
                if not is_out_of_memory(error):
                    raise
            logger.warning("out of memory: scoring once more, one by one, with all other models unloaded")
            self._networks.make_room()
            self._networks.load()
            return self._scorer.score(pictures, texts, 1, on_error)
