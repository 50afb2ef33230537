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
from collections.abc import Callable, Sequence
from typing import Any

import comfy.model_management as memory
import comfy.samplers
import comfy.utils
import torch
from comfy.patcher_extension import WrappersMP
from torch import Tensor

from ..out_of_memory import is_out_of_memory
from .brownian_noise import BrownianNoise
from .sampler_runs import SamplerRun
from .segment import Segment

_KEY = "ma_agiqa.best_of_n"
_LARGER_STEPS = "dpm_fast"  # three model calls a step, and as many calls as others have steps
_COUPLED = "dpm_adaptive"  # the size of its steps follows from all candidates together
_OTHER_SIZE = "must match the size of tensor"  # torch's words if a patch remembered rows that were dropped
# These take a noise_sampler, but add no noise.
_ADD_NO_NOISE = frozenset({"res_multistep", "res_multistep_cfg_pp"})


class SegmentedSampling:
    """Makes the candidates of one run.

    Args:
        run: What is sampled.
        batch_limit: How many candidates go through the model together; 0: all.
        on_step: Called with the candidates that have just taken a step, and their x0.

    Attributes:
        steps: How many there are: a KSampler's `steps`, or what denoise 0 and some samplers make of it.
        calls_of_one: How many calls a candidate took that got as far as the last segment.
        x0: The model's last estimate of the candidates that ran last, before the VAE's scale.
    """

    def __init__(
        self,
        run: SamplerRun,
        batch_limit: int = 0,
        on_step: Callable[[Sequence[int], Tensor], object] = lambda rows, x0: None,
    ) -> None:
        self.calls_of_one = 0.0
        self.x0: Tensor | None = None
        self._run, self._on_step, self._calls = run, on_step, _Calls()
        self._brownian = BrownianNoise(run.sampler_name)
        self._model = run.model.clone()
        self._model.add_wrapper_with_key(WrappersMP.APPLY_MODEL, _KEY, self._calls)
        self._limit = batch_limit or run.count
        self.steps = max(len(run.sigmas) - 1, 0)
        if run.sampler_name == _LARGER_STEPS:
            self.steps = self.steps // 3 + 1
        self._answers: dict[int, list[Any]] = {row: [] for row in range(run.count)}

    @property
    def calls(self) -> int:
        """Rows times calls of the diffusion model so far; guidance makes two rows of one."""
        return self._calls.rows

    def check_divisible(self) -> None:
        """Checks that candidates can be made independently of each other.

        Raises:
            ValueError: The sampler, a patch on the model or the conditioning does not allow it.
        """
        name = self._run.sampler_name
        if name == _COUPLED or not isinstance(self._run.sampler(), comfy.samplers.KSAMPLER):
            raise ValueError(
                f"Expected a sampler that makes each candidate independently, got {name!r}, whose steps depend on all "
                "of them. Choose another sampler, or empty prune_at and set batch_limit to 0."
            )
        self._run.check_divisible(min(self._limit, self._run.count))

    @property
    def replays_alone(self) -> bool:
        """Whether one latent alone in a KSampler comes out as it did in the batch.

        Noise that is drawn during the steps depends on the size of the batch.
        """
        name, sampler = self._run.sampler_name, self._run.sampler()
        if not isinstance(sampler, comfy.samplers.KSAMPLER):
            return False
        arguments = inspect.signature(sampler.sampler_function).parameters
        draws = "noise_sampler" in arguments and name not in _ADD_NO_NOISE
        draws_masked = self._run.is_masked and bool(sampler.inpaint_options.get("random"))
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
        estimates: list[Tensor | None] = []
        while rest:
            group = rest[: self._limit]
            try:
                part, x0 = self._run_together(group, until)
                parts.append(part)
                estimates.append(x0)
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
        known = [x0 for x0 in estimates if x0 is not None]
        self.x0 = torch.cat(known) if len(known) == len(estimates) else None
        return torch.cat(parts)

    def _can_be_divided(self) -> bool:
        try:
            self.check_divisible()
        except ValueError:
            return False
        return True

    def _run_together(self, rows: list[int], until: int | None) -> tuple[Tensor, Tensor | None]:
        run = self._run
        if self.steps == 0:  # denoise 0: a KSampler gives its latent back
            return run.latents[rows], None
        sampler = run.sampler()
        segment = Segment(sampler, rows, until, self._answers, run.noise.shape, self._brownian, self._on_step)
        if isinstance(sampler, comfy.samplers.KSAMPLER):  # others run to the end
            sampler.sampler_function = segment.sample
        finished = run.guider(self._model, rows).sample(
            run.noise[rows],
            run.latents[rows],
            sampler,
            run.sigmas.clone(),  # uni_pc writes into them
            denoise_mask=run.masks_of(rows),
            callback=segment.show,
            disable_pbar=not comfy.utils.PROGRESS_BAR_ENABLED,
            seed=run.seed,
        )
        finished = run.finished(finished)
        x0 = None if segment.x0 is None else segment.x0.to(finished.device)
        return (finished if until is None else x0), x0


class _Calls:
    """Counts what goes through the model; an interrupt is noticed before each call."""

    def __init__(self) -> None:
        self.rows = 0

    def __call__(self, execute: Callable[..., Tensor], x: Tensor, *args: Any, **kwargs: Any) -> Tensor:
        memory.throw_exception_if_processing_interrupted()
        answer = execute(x, *args, **kwargs)
        self.rows += len(x)
        return answer
