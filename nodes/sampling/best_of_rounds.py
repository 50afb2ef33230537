"""What both best-of-N nodes do: candidates are made, the best are chosen, and again where none is good enough."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch

from ...ma_agiqa_core.comfyui.latents import select_latents
from ...ma_agiqa_core.comfyui.segmented_best_of_n import Chosen, candidate_latents, choose, stages_of
from ...ma_agiqa_core.compute.progress import watching
from ..sockets.scores import Origin, ScoreOf, limit_for, one_scorer
from .candidates import SampledCandidates
from .sampler_runs import SamplerRun


@dataclass(frozen=True)
class BestOf:
    """What is asked for, as on the nodes.

    Attributes:
        n: How many candidates a round starts.
        keep: How many come out.
        prune_at: As "0.4:4, 0.7:2".
        preview: What decodes previews.
        batch_limit: How many go through the model together; 0: all.
        prompt: The text behind the pictures.
        rounds: How many at most.
        min_score: A round whose best has it is the last; used with several rounds only.
    """

    n: int
    keep: int
    prune_at: str
    preview: str
    batch_limit: int
    prompt: str = ""
    rounds: int = 1
    min_score: float = 0.0

    def run(
        self, run_of: Callable[[dict[str, Any]], SamplerRun], vae: Any, scorer: Any, latent: Any, node_id: str
    ) -> tuple[Any, ...]:
        """Makes the candidates.

        Args:
            run_of: Says how a latent with "batch_index" is sampled.
            vae: ComfyUI's VAE.
            scorer: The input 'scorer'.
            latent: The input 'latent image'.
            node_id: Of the node that shows the progress.

        Returns:
            The values of the outputs: latent, images, scores, indexes, log.

        Raises:
            ValueError: What is asked for cannot be done.
        """
        scorer = one_scorer(scorer)
        limit = limit_for(self.min_score, scorer) if self.rounds > 1 else None
        latents, images, scores, logs = [], [], [], []
        for number in range(self.rounds):
            first = number * self.n
            batch = candidate_latents(latent, self.n)
            batch["batch_index"] = [index + first for index in batch["batch_index"]]
            run = run_of(batch)
            candidates, chosen = self._round(run, vae, scorer, batch, node_id)
            latents.append(candidates.latent_of(chosen.rows))
            images.append(candidates.images_of(chosen.rows))
            scores += [
                ScoreOf.of(score, Origin(first + row, run.seed))
                for row, score in zip(chosen.rows, chosen.scores, strict=True)
            ]
            logs.append(candidates.log(chosen, scorer.info.name, first))
            if limit is not None and max(scores) >= limit:
                break
        best = sorted(range(len(scores)), key=lambda place: -scores[place])[: self.keep]
        scores = [scores[place] for place in best]
        if limit is not None:
            met = "met" if scores[0] >= limit else "not met"
            logs.append(f"{len(logs)} of at most {self.rounds} rounds: {met}, best {scores[0]:.4g} for {limit:g}")
        (kept,) = select_latents(latents, best) if len(latents) > 1 else latents
        indexes = ",".join(str(score.origin.index) for score in scores)
        return kept, torch.cat(images)[best], scores, indexes, "\n\n".join(logs)

    def _round(
        self, run: SamplerRun, vae: Any, scorer: Any, batch: dict[str, Any], node_id: str
    ) -> tuple[SampledCandidates, Chosen]:
        candidates = SampledCandidates(run, vae, self.preview, batch, self.batch_limit)
        stages = stages_of(self.prune_at, n=self.n, keep=self.keep, steps=candidates.sampling.steps)
        if stages or 0 < self.batch_limit < self.n:
            candidates.sampling.check_divisible()
        candidates.show_progress(node_id, self.n, stages, getattr(scorer, "passes", 1))
        with watching(candidates.advance):
            return candidates, choose(candidates, scorer, prompt=self.prompt, n=self.n, keep=self.keep, stages=stages)
