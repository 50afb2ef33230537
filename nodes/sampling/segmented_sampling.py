"""ComfyUI's sampler in segments: stopped after any step, and continued with some of the candidates.

A sampler keeps more than its latents from step to step: the model's earlier answers, how many random numbers it has
drawn. Continued from latents alone, most samplers make other pictures. So nothing is continued here. Every segment
runs the sampler from its first step, always on all candidates, but the model's answers of earlier segments are
replayed from memory, and after that only the candidates that are left go through the model; the rows of the others
hold zeros. The sampler's own arithmetic costs next to nothing, and everything it remembers or draws is the same as if
no candidate had been dropped. This needs no list of samplers, only one that computes each row independently.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import comfy.model_management as memory
import comfy.sample
import comfy.samplers
import comfy.utils
import torch
from comfy.patcher_extension import WrappersMP
from torch import Tensor

from ...ma_agiqa_core.comfyui.conditioning import conditioning_rows
from ..out_of_memory import is_out_of_memory
from .brownian_noise import BrownianNoise
from .model_patches import check_patches
from .segment import Segment

RATIO = "downscale_ratio_"  # begins what newer versions of ComfyUI write on an empty latent: how large it was made

_KEY = "ma_agiqa.best_of_n"
_LARGER_STEPS = "dpm_fast"  # three model calls a step, and as many calls as others have steps
_COUPLED = "dpm_adaptive"  # the size of its steps follows from all candidates together
_OTHER_SIZE = "must match the size of tensor"  # torch's words if a patch remembered rows that were dropped
# These take a noise_sampler, but add no noise.
_ADD_NO_NOISE = frozenset({"res_multistep", "res_multistep_cfg_pp"})


@dataclass(frozen=True)
class SamplerSettings:
    """As on the KSampler node."""

    sampler_name: str
    scheduler: str
    steps: int
    cfg: float
    denoise: float
    seed: int


class SegmentedSampling:
    """Makes the candidates of one run.

    Args:
        model: ModelPatcher of the diffusion model; not changed.
        settings: As for a KSampler.
        positive: Conditioning for all candidates, or with a row for each.
        negative: Likewise.
        latent: All candidates' "samples" and "batch_index", and optionally "noise_mask".
        batch_limit: How many candidates go through the model together; 0: all.
        on_step: Called with the number of candidates that have just taken a step, and their x0.

    Attributes:
        steps: How many there are: a KSampler's `steps`, or what denoise 0 and some samplers make of it.
        calls_of_one: How many calls a candidate took that got as far as the last segment.
    """

    def __init__(
        self,
        model: Any,
        settings: SamplerSettings,
        positive: Any,
        negative: Any,
        latent: Mapping[str, Any],
        batch_limit: int = 0,
        on_step: Callable[[int, Tensor], object] = lambda rows, x0: None,
    ) -> None:
        self.calls_of_one = 0.0
        self._settings, self._positive, self._negative = settings, positive, negative
        self._on_step, self._calls, self._brownian = on_step, _Calls(), BrownianNoise(settings.sampler_name)
        self._patched, self._model = model, model.clone()
        self._model.add_wrapper_with_key(WrappersMP.APPLY_MODEL, _KEY, self._calls)
        fit = comfy.sample.fix_empty_latent_channels  # newer ones also make it as small as models like Flux.2 want it
        known = inspect.signature(fit).parameters
        ratios = {name: latent[name] for name in known if name.startswith(RATIO) and name in latent}
        self._latents = fit(model, latent["samples"], **ratios)
        self._noise = comfy.sample.prepare_noise(self._latents, settings.seed, latent["batch_index"])
        self._mask, self._masks = _shared_or_each(latent.get("noise_mask"), self._latents)
        self._limit = batch_limit or len(self._latents)
        _check_known("sampler", settings.sampler_name, comfy.samplers.KSampler.SAMPLERS)
        _check_known("scheduler", settings.scheduler, comfy.samplers.KSampler.SCHEDULERS)
        schedule = comfy.samplers.KSampler(
            model, settings.steps, model.load_device, settings.sampler_name, settings.scheduler, settings.denoise
        )
        self._sigmas = schedule.sigmas
        self.steps = max(len(self._sigmas) - 1, 0)
        if settings.sampler_name == _LARGER_STEPS:
            self.steps = self.steps // 3 + 1
        self._answers: dict[int, list[Any]] = {row: [] for row in range(len(self._latents))}

    @property
    def calls(self) -> int:
        """Rows times calls of the diffusion model so far; guidance makes two rows of one."""
        return self._calls.rows

    def check_divisible(self) -> None:
        """Checks that candidates can be made independently of each other.

        Raises:
            ValueError: The sampler, a patch on the model or the conditioning does not allow it.
        """
        name = self._settings.sampler_name
        sampler = comfy.samplers.sampler_object(name)
        if name == _COUPLED or not isinstance(sampler, comfy.samplers.KSAMPLER):
            raise ValueError(
                f"Expected a sampler that makes each candidate independently, got {name!r}, whose steps depend on all "
                "of them. Choose another sampler, or empty prune_at and set batch_limit to 0."
            )
        check_patches(self._patched, min(self._limit, len(self._latents)))
        for conditioning in (self._positive, self._negative):
            conditioning_rows(conditioning, [0], len(self._latents))

    @property
    def replays_alone(self) -> bool:
        """Whether one latent alone in a KSampler comes out as it did in the batch.

        Noise that is drawn during the steps depends on the size of the batch.
        """
        name = self._settings.sampler_name
        sampler = comfy.samplers.sampler_object(name)
        arguments = inspect.signature(sampler.sampler_function).parameters
        draws = "noise_sampler" in arguments and name not in _ADD_NO_NOISE
        is_masked = self._mask is not None or self._masks is not None
        draws_masked = is_masked and bool(sampler.inpaint_options.get("random"))
        return not (draws or draws_masked or name == _COUPLED)

    def run(self, rows: Sequence[int], until: int | None = None) -> Tensor:
        """Continues with these candidates; the others are dropped for good.

        Args:
            rows: Ascending places in the batch.
            until: After how many steps to stop; None: run to the end.

        Returns:
            The candidates' estimate of the finished latents as the model sees them (x0); at the end the latents
            that a KSampler gives.

        Raises:
            RuntimeError: A patch on the model remembers candidates that were dropped.
        """
        is_first = not self._answers[rows[0]]
        self._answers = {row: self._answers[row] for row in rows}
        before, parts, rest = self.calls, [], list(rows)
        while rest:
            group = rest[: self._limit]
            try:
                parts.append(self._run_together(group, until))
            except Exception as error:
                if is_out_of_memory(error):
                    if len(group) == 1 or not self._can_be_divided():
                        raise
                    self._limit = len(group) // 2
                elif not is_first and isinstance(error, RuntimeError) and _OTHER_SIZE in str(error):
                    raise RuntimeError(
                        "Expected a model that takes each step independently, got a patch on it that remembers earlier "
                        "steps: it fails when candidates are dropped. Bypass the patch, or empty prune_at."
                    ) from error
                else:
                    raise
            else:
                rest = rest[len(group) :]
                continue
            memory.soft_empty_cache()  # out here: the error, and with it the tensors of its frames, is gone
        self.calls_of_one += (self.calls - before) / len(rows)
        return torch.cat(parts)

    def _can_be_divided(self) -> bool:
        try:
            self.check_divisible()
        except ValueError:
            return False
        return True

    def _run_together(self, rows: list[int], until: int | None) -> Tensor:
        settings, count = self._settings, len(self._latents)
        if self.steps == 0:  # denoise 0: a KSampler gives its latent back
            return self._latents[rows]
        sampler = comfy.samplers.sampler_object(settings.sampler_name)
        segment = Segment(sampler, rows, until, self._answers, self._noise.shape, self._brownian, self._on_step)
        sampler.sampler_function = segment.sample
        is_part = len(rows) < count
        finished = comfy.sample.sample_custom(
            self._model,
            self._noise[rows],
            settings.cfg,
            sampler,
            self._sigmas.clone(),  # uni_pc writes into them
            conditioning_rows(self._positive, rows, count) if is_part else self._positive,
            conditioning_rows(self._negative, rows, count) if is_part else self._negative,
            self._latents[rows],
            noise_mask=self._mask if self._masks is None else self._masks[rows],
            callback=segment.show,
            disable_pbar=not comfy.utils.PROGRESS_BAR_ENABLED,
            seed=settings.seed,
        )
        return finished if until is None else segment.x0.to(finished.device)


class _Calls:
    """Counts what goes through the model; an interrupt is noticed before each call."""

    def __init__(self) -> None:
        self.rows = 0

    def __call__(self, execute: Callable[..., Tensor], x: Tensor, *args: Any, **kwargs: Any) -> Tensor:
        memory.throw_exception_if_processing_interrupted()
        answer = execute(x, *args, **kwargs)
        self.rows += len(x)
        return answer


def _check_known(what: str, name: str, known: Sequence[str]) -> None:
    """ComfyUI 0.3.64 accepts names that are not on the list, and uses the first scheduler for them."""
    if name not in known:
        raise ValueError(
            f"Expected a {what} that this ComfyUI has, got {name!r}. Choose another, or install the pack with it."
        )


def _shared_or_each(mask: Tensor | None, latents: Tensor) -> tuple[Tensor | None, Tensor | None]:
    """A mask for all candidates, or one mask for each, as ComfyUI's sampler reads a noise mask of several."""
    if mask is None:
        return None, None
    if latents.ndim == 4:
        mask = mask.reshape(-1, 1, *mask.shape[-2:])
    if mask.ndim != latents.ndim or len(mask) == 1:
        return mask, None
    return None, comfy.utils.repeat_to_batch_size(mask, len(latents))
