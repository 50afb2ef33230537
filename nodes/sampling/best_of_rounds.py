"""What both best-of-N nodes do: candidates are made, the best are chosen, and again where none is good enough."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from comfy_api.latest import io

from ...ma_agiqa_core.comfyui.latents import select_latents
from ...ma_agiqa_core.comfyui.limits import OWN_SCALE, lowest_passing
from ...ma_agiqa_core.comfyui.segmented_best_of_n import Chosen, candidate_latents, choose, stages_of
from ...ma_agiqa_core.compute.progress import watching
from ..sockets.score_strip import candidates_strip
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
        min_score_as: Whether that is a score or a percentile.
        overlay: Whether the node shows the scores on the candidates.
    """

    n: int
    keep: int
    prune_at: str
    preview: str
    batch_limit: int
    prompt: str = ""
    rounds: int = 1
    min_score: float = 0.0
    min_score_as: str = OWN_SCALE
    overlay: bool = True

    def run(
        self, run_of: Callable[[dict[str, Any]], SamplerRun], vae: Any, scorer: Any, latent: Any, node_id: str
    ) -> io.NodeOutput:
        """Makes the candidates.

        Args:
            run_of: Says how a latent with "batch_index" is sampled.
            vae: ComfyUI's VAE.
            scorer: The input 'scorer'.
            latent: The input 'latent image'.
            node_id: Of the node that shows the progress.

        Returns:
            Latent, images, scores, indexes, log; and all candidates to be shown.

        Raises:
            ValueError: What is asked for cannot be done.
        """
        scorer = one_scorer(scorer)
        limit = limit_for(self.min_score, scorer, self.min_score_as) if self.rounds > 1 else None
        latents, images, scores, logs, shown = [], [], [], [], []
        for number in range(self.rounds):
            first = number * self.n
            batch = candidate_latents(latent, self.n)
            batch["batch_index"] = [index + first for index in batch["batch_index"]]
            run = run_of(batch)
            candidates, chosen = self._round(run, vae, scorer, batch, node_id)
            latents.append(candidates.latent_of(chosen.rows))
            images.append(candidates.images_of(chosen.rows))
            scores += [
                ScoreOf.of(score, Origin(first + row, run.seed), scorer.info.percentile_if_known(score))
                for row, score in zip(chosen.rows, chosen.scores, strict=True)
            ]
            logs.append(candidates.log(chosen, scorer.info.name, first))
            shown += candidates.shown(chosen, scorer.info, first)
            if limit is not None and max(scores) >= self._passing(scores, limit):
                break
        best = sorted(range(len(scores)), key=lambda place: -scores[place])[: self.keep]
        scores = [scores[place] for place in best]
        if limit is not None:
            met = "met" if scores[0] >= self._passing(scores, limit) else "not met"
            reached = scores[0] if self.min_score_as == OWN_SCALE else scores[0].percentile
            logs.append(f"{len(logs)} of at most {self.rounds} rounds: {met}, best {reached:.4g} for {limit:g}")
        (kept,) = select_latents(latents, best) if len(latents) > 1 else latents
        pictures = torch.cat(images)[best]
        pictures = pictures.flatten(0, 1) if pictures.ndim == 5 else pictures
        indexes = ",".join(str(score.origin.index) for score in scores)
        ui = candidates_strip(shown, self.overlay)
        candidates.show_at_last(ui)
        return io.NodeOutput(kept, pictures, scores, indexes, "\n\n".join(logs), ui=ui)

    def _passing(self, scores: list[ScoreOf], limit: float) -> float:
        return lowest_passing(scores, limit, self.min_score_as, [score.percentile for score in scores])

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
