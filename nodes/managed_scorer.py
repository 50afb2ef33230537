"""A core scorer whose networks ComfyUI moves: what travels along SCORER links.

It is a core `Scorer` itself (`info`, `score`), so ensembles, rankings and the sampler take it as it is.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from ..ma_agiqa_core.images import PictureError, as_picture_list
from ..ma_agiqa_core.score_progress import tick, watching
from ..ma_agiqa_core.scorer import Scorer, check_score_options, resolve_prompts
from .network_memory import ManagedNetworks
from .pictures import for_core
from .score_memo import ScoreMemo, picture_key


class ManagedScorer:
    """Scores wherever ComfyUI puts the networks, and remembers what it scored.

    Args:
        scorer: Of the core, with its networks on the CPU; or an ensemble of managed scorers.
        identity: Weights and settings in one string: equal identities give equal scores.
        device: Where to compute; None leaves it to ComfyUI.
        passes: How many networks see each picture, which is how often `tick` counts it.

    Attributes:
        info: What the scorer says about itself.
    """

    def __init__(self, scorer: Scorer, identity: str, device: torch.device | None = None, passes: int = 1) -> None:
        self.info = scorer.info
        self.identity, self.passes = identity, passes
        self._scorer = scorer
        self._networks = ManagedNetworks(getattr(scorer, "networks", ()), device)
        self._memo = ScoreMemo()

    def score(self, images: Any, prompts: Any = None, batch_size: int | None = None, on_error: str = "raise") -> Tensor:
        """Scores pictures; see the core's `Scorer.score`. A picture scored before, with its prompt, is not again."""
        check_score_options(batch_size, on_error)
        pictures = as_picture_list(images)
        texts = resolve_prompts(prompts, len(pictures), self.info.needs_prompt)
        if self.info.relative:  # its members remember
            return self._compute(pictures, texts, batch_size, on_error)
        keys = [
            picture_key(p, texts[row] if texts and self.info.needs_prompt else None) for row, p in enumerate(pictures)
        ]
        known = self._memo.known(keys)
        first = {key: row for row, key in reversed(list(enumerate(keys)))}  # equal pictures are scored once
        new = [row for row, key in enumerate(keys) if key is None or (key not in known and first[key] == row)]
        tick(self.passes * (len(pictures) - len(new)))
        scores = torch.tensor([known.get(key, torch.nan) for key in keys])
        if new:
            try:
                scores[new] = self._compute(
                    [pictures[row] for row in new], [texts[row] for row in new] if texts else None, batch_size, on_error
                )
            except PictureError as error:  # counted among the new ones
                raise PictureError(new[error.index], error.path, error.reason) from error
            fresh = {keys[row]: scores[row].item() for row in new if keys[row] is not None}
            self._memo.remember({key: score for key, score in fresh.items() if math.isfinite(score)})
            for row, key in enumerate(keys):
                if key in fresh:
                    scores[row] = fresh[key]
        return scores

    def _compute(self, pictures: list[Any], texts: list[str] | None, batch_size: int | None, on_error: str) -> Tensor:
        # ComfyUI runs nodes in inference mode: weights loaded in it could not be moved outside
        with torch.inference_mode(False), torch.no_grad():
            self._networks.load()
            return self._scorer.score(pictures, texts, batch_size, on_error)


def scores_of(
    scorer: Scorer, pictures: Sequence[Tensor], prompt: str | list[str] | None = None, node_id: str | None = None
) -> list[float]:
    """The score of every picture, with progress on the node.

    Args:
        scorer: From a SCORER link.
        pictures: [H, W, C] as `flattened` gives them.
        prompt: As `prompts_for` gives it.
        node_id: `cls.hidden.unique_id` of the node that shows the progress.

    Raises:
        ValueError: The scorer needs a prompt, or a picture has no score.
    """
    from comfy.utils import ProgressBar

    if scorer.info.needs_prompt and not prompt:
        raise ValueError(
            f"Expected a prompt for {scorer.info.name}, which compares pictures with their text, got none. "
            "Connect the text that the pictures were made from to 'prompt'."
        )
    total = len(pictures) * getattr(scorer, "passes", 1)
    bar = ProgressBar(total, node_id=node_id)
    with watching(bar.update):
        scores = scorer.score(for_core(pictures), prompt)
    bar.update_absolute(total)
    return scores.tolist()
