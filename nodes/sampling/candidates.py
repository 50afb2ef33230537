"""The candidates of the best-of-N sampler: sampled in segments, decoded, with progress on the node."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import latent_preview
import torch
from comfy.utils import ProgressBar
from torch import Tensor

from ...ma_agiqa_core.comfyui.latents import latent_rows
from ...ma_agiqa_core.comfyui.run_log import run_log
from ...ma_agiqa_core.comfyui.segmented_best_of_n import Chosen, Stage
from ..sockets.images import flattened, for_core
from .decoding import PreviewDecoder, decoded
from .segmented_sampling import RATIO, SamplerSettings, SegmentedSampling

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
        model: ModelPatcher of the diffusion model.
        vae: Decodes the finished pictures.
        preview: "VAE" or "TAESD", which decodes the previews.
        settings: As for a KSampler.
        positive: Conditioning for all candidates, or with a row for each.
        negative: Likewise.
        latent: All candidates' "samples" and "batch_index", and optionally "noise_mask".
        batch_limit: How many candidates go through the model together; 0: all.

    Attributes:
        sampling: The sampler.
    """

    def __init__(
        self,
        model: Any,
        vae: Any,
        preview: str,
        settings: SamplerSettings,
        positive: Any,
        negative: Any,
        latent: Mapping[str, Any],
        batch_limit: int,
    ) -> None:
        self.sampling = SegmentedSampling(
            model, settings, positive, negative, latent, batch_limit, on_step=self._stepped
        )
        self._latents: dict[int, Tensor] = {}
        self._images: dict[int, Tensor] = {}
        self._settings, self._latent, self._preview = settings, latent, preview
        self._vae, self._decode_preview = vae, PreviewDecoder(preview, model, vae)
        self._previewer = latent_preview.get_previewer(model.load_device, model.model.latent_format)
        self._bar: Any = None

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
        """Advances the bar, with a picture of the first candidate if ComfyUI shows previews."""
        if self._bar is not None:
            shown = self._previewer is not None and x0 is not None
            image = self._previewer.decode_latent_to_preview_image("JPEG", x0) if shown else None
            self._bar.update_absolute(self._bar.current + count, preview=image)

    def previews(self, rows: Sequence[int], step: int) -> Any:
        """Previews of these rows after a step, as scorers take them."""
        return for_core(flattened(self._decode_preview(self.sampling.run(rows, step)), rows))

    def pictures(self, rows: Sequence[int]) -> Any:
        """The finished pictures of these rows, as scorers take them."""
        finished = self.sampling.run(rows)
        images = flattened(decoded(self._vae, finished), rows)
        self._latents, self._images = dict(zip(rows, finished, strict=True)), dict(zip(rows, images, strict=True))
        return for_core(images)

    def latent_of(self, rows: Sequence[int]) -> dict[str, Any]:
        """The latents of finished rows, with what belongs to them."""
        latent = {name: value for name, value in self._latent.items() if not name.startswith(RATIO)}
        return {**latent_rows(latent, rows), "samples": torch.stack([self._latents[row] for row in rows])}

    def images_of(self, rows: Sequence[int]) -> Tensor:
        """The pictures of finished rows, [B, H, W, C]."""
        return torch.stack([self._images[row] for row in rows])

    def log(self, chosen: Chosen, scorer_name: str) -> str:
        """The run as text."""
        n, own = len(self._latent["samples"]), self._settings
        return run_log(
            chosen,
            heading=f"{n} candidates, numbered from 0, with seed {own.seed}: {own.sampler_name}, {own.scheduler}, "
            f"{own.steps} steps, cfg {own.cfg:g}, denoise {own.denoise:g}; scored by {scorer_name}, previews by "
            f"{self._preview}",
            steps=self.sampling.steps,
            n=n,
            calls=self.sampling.calls,
            calls_of_one=self.sampling.calls_of_one,
            replay=_REPLAY_ALONE if self.sampling.replays_alone else _REPLAY_TOGETHER,
        ).replace("<n>", str(n))

    def _stepped(self, rows: int, x0: Tensor) -> None:
        self.advance(rows, x0)
