"""The candidates of the best-of-N sampler: sampled in segments, decoded, with progress on the node."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import latent_preview
import PIL.Image
import torch
from comfy.utils import ProgressBar
from comfy_api.latest import ComfyAPISync
from torch import Tensor

from ...ma_agiqa_core.comfyui.latents import latent_rows
from ...ma_agiqa_core.comfyui.run_log import run_log
from ...ma_agiqa_core.comfyui.segmented_best_of_n import Chosen, Stage, outcomes
from ...ma_agiqa_core.scorers.scorer import ScorerInfo
from ..sockets.images import flattened, for_core
from ..sockets.score_strip import ShownCandidate, picture_of, plain, thumbnail
from ..sockets.scores import ScoreOf
from .decoding import PreviewDecoder, decoded, decoded_whole
from .sampler_runs import RATIO, SamplerRun
from .segmented_sampling import SegmentedSampling

_REPLAY_ALONE = (
    "to reproduce one: a batch of <n> latents (Repeat Latent Batch makes it of one), Latent From Batch with the "
    "candidate's number and length 1, then a KSampler with these settings"
)
_REPLAY_TOGETHER = (
    "to reproduce one: a batch of <n> latents (Repeat Latent Batch makes it of one), a KSampler with these settings, "
    "then Latent From Batch with the candidate's number (this sampler draws noise that depends on the whole batch)"
)


class SampledCandidates:
    """What the core's `choose` asks for candidates.

    Args:
        run: What is sampled.
        vae: Decodes the finished pictures.
        preview: "VAE" or "TAESD", which decodes the previews.
        latent: All candidates' "samples" and "batch_index", and optionally "noise_mask".
        batch_limit: How many candidates go through the model together; 0: all.

    Attributes:
        sampling: The sampler.
        thumbnails: Of each candidate as it was last seen: finished, or at the preview at which it was dropped.
    """

    def __init__(self, run: SamplerRun, vae: Any, preview: str, latent: Mapping[str, Any], batch_limit: int) -> None:
        self._run, self._latent, self._preview, self._vae = run, latent, preview, vae
        self.sampling = SegmentedSampling(run, batch_limit, on_step=self._stepped)
        self.thumbnails: dict[int, Any] = {}
        self._latents: dict[int, Tensor] = {}
        self._images: dict[int, Tensor] = {}
        self._clean: dict[int, Tensor] = {}  # what is decoded: of noisy latents the model's estimate
        self._decode_preview = PreviewDecoder(preview, run.model, vae)
        self._previewer = latent_preview.get_previewer(run.model.load_device, run.model.model.latent_format)
        self._bar: Any = None
        self._leader: int | None = None

    def show_progress(self, node_id: str, n: int, stages: Sequence[Stage], passes: int) -> None:
        """Starts one bar for the whole run: a step of a candidate counts 1, and so does a picture that a network sees.

        Args:
            node_id: `cls.hidden.unique_id` of the node.
            n: How many candidates there are.
            stages: When candidates are dropped, and how many.
            passes: How many of the scorer's networks see each picture.
        """
        total, alive, before = 0, n, 0
        for step, keep in [*((stage.step, stage.keep) for stage in stages), (self.sampling.steps, 0)]:
            total += alive * (step - before) + alive * passes
            alive, before = keep, step
        self._bar = ProgressBar(total, node_id=node_id)

    def advance(self, count: int, x0: Tensor | None = None) -> None:
        """Advances the bar, with a picture of the first of some latents if ComfyUI shows previews."""
        if self._bar is not None:
            shown = self._previewer is not None and x0 is not None
            image = self._previewer.decode_latent_to_preview_image("JPEG", x0) if shown else None
            self._bar.update_absolute(self._bar.current + count, preview=image)

    def leads(self, row: int) -> None:
        """Shows the candidate that scored best so far, as its preview was decoded."""
        self._leader = row
        self._show(plain(self.thumbnails[row]))

    def show_at_last(self, ui: Mapping[str, Any]) -> None:
        """Shows the first picture of a node's `ui` as its last preview, since a preview hides what is shown later."""
        for entry in ui.get("images", [])[:1]:
            self._show(picture_of(entry))

    def _show(self, image: PIL.Image.Image) -> None:
        if self._bar is None:
            return
        execution = getattr(ComfyAPISync(), "execution", None)
        if execution is None:  # in ComfyUI 0.3
            self._bar.update_absolute(self._bar.current, preview=("JPEG", image, None))
        else:
            execution.set_progress(
                self._bar.current,
                self._bar.total,
                node_id=self._bar.node_id,
                preview_image=image,
                ignore_size_limit=True,
            )

    def previews(self, rows: Sequence[int], step: int) -> Any:
        """Previews of these rows after a step, as scorers take them."""
        return self._seen(rows, self._decode_preview(self.sampling.run(rows, step)))

    def pictures(self, rows: Sequence[int]) -> Any:
        """The finished pictures of these rows, as scorers take them."""
        finished = self.sampling.run(rows)
        clean = finished
        if self._run.leaves_noise and self.sampling.x0 is not None:  # noisy ones are for the next sampler
            clean = self._run.model.model.process_latent_out(self.sampling.x0)
        images = decoded(self._vae, clean)
        self._latents, self._images = dict(zip(rows, finished, strict=True)), dict(zip(rows, images, strict=True))
        self._clean = dict(zip(rows, clean, strict=True))
        return self._seen(rows, images)

    def _seen(self, rows: Sequence[int], images: Tensor) -> Any:
        """Keeps thumbnails; the pictures as scorers take them."""
        pictures = flattened(images, rows)
        self.thumbnails.update(zip(rows, map(thumbnail, pictures), strict=True))
        return for_core(pictures)

    def latent_of(self, rows: Sequence[int]) -> dict[str, Any]:
        """The latents of finished rows, with what belongs to them."""
        latent = {name: value for name, value in self._latent.items() if not name.startswith(RATIO)}
        return {**latent_rows(latent, rows), "samples": torch.stack([self._latents[row] for row in rows])}

    def images_of(self, rows: Sequence[int]) -> Tensor:
        """The pictures of finished rows, [B, H, W, C]; of videos all frames, [B, T, H, W, C]."""
        if self._clean[rows[0]].ndim == 4 and self._clean[rows[0]].shape[1] > 1:  # (C, t, h, w)
            return decoded_whole(self._vae, torch.stack([self._clean[row] for row in rows]))
        return torch.stack([self._images[row] for row in rows])

    def shown(self, chosen: Chosen, info: ScorerInfo, first: int = 0) -> list[ShownCandidate]:
        """All candidates for the strip on the node, numbered from `first`."""
        return [
            ShownCandidate(
                self.thumbnails[outcome.row],
                first + outcome.row,
                ScoreOf.of(
                    outcome.score, percentile=None if outcome.steps else info.percentile_if_known(outcome.score)
                ),
                outcome.steps,
                self.sampling.steps,
            )
            for outcome in outcomes(chosen)
        ]

    def log(self, chosen: Chosen, scorer_name: str, first: int = 0) -> str:
        """The run as text, with candidates numbered from `first`."""
        n = self._run.count
        return run_log(
            chosen,
            heading=f"{n} candidates, numbered from {first}, with {self._run.description}; scored by {scorer_name}, "
            f"previews by {self._preview}",
            steps=self.sampling.steps,
            n=n,
            first=first,
            calls=self.sampling.calls,
            calls_of_one=self.sampling.calls_of_one,
            replay=_REPLAY_ALONE if self.sampling.replays_alone else _REPLAY_TOGETHER,
        ).replace("<n>", str(first + n))

    def _stepped(self, rows: Sequence[int], x0: Tensor) -> None:
        """Shows the leader; before there is one, the first."""
        place = 0 if self._leader is None else rows.index(self._leader) if self._leader in rows else None
        self.advance(len(rows), None if place is None else x0[place : place + 1])
