"""The estimate of the finished latents (x0) after every scheduler call, from what the model predicted.

The callback of a diffusers pipeline does not see the model's prediction, so `scheduler.step` is wrapped on the
instance. The estimate is computed in float32 from the prediction and the noisy latents by the scheduler's own
formula, never from the difference of two latents, which cancels in bfloat16.
"""

import functools
import inspect
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from ...errors import MaAgiqaError
from ..pipelines.schedulers import SCHEDULERS, KnownScheduler

# Arguments of `step` that change the latents before the prediction is used; no pipeline of diffusers gives them.
_UNKNOWN_IF_GIVEN = ("s_churn", "per_token_timesteps")


@dataclass(frozen=True)
class _Call:
    """What one scheduler call was given, and the index of its sigma."""

    model_output: Tensor
    timestep: Any
    sample: Tensor
    index: int | None


class X0Recorder:
    """Remembers what one scheduler was given during pipeline calls, for the estimate of x0.

    It costs next to nothing per step: x0 is computed when it is asked for. Between install() and remove() the
    scheduler must not be copied: the copy's `step` would be this scheduler's.

    Attributes:
        calls: How many scheduler calls there were since install() or reset().
    """

    def __init__(self, scheduler: Any) -> None:
        self.scheduler = scheduler
        self.calls = 0
        self._call: _Call | None = None
        self._x0: Tensor | None = None
        self._wrapper: Callable[..., Any] | None = None
        self._was: Callable[..., Any] | None = None  # an instance's own `step` from before, e.g. of another recorder

    def install(self) -> None:
        """Wraps the scheduler's `step`.

        Raises:
            ValueError: No exact x0 is known for this scheduler or its prediction type.
        """
        if self._wrapper is not None:
            return
        _check_known(self.scheduler)
        self.reset()
        self._was = vars(self.scheduler).get("step")
        step = self.scheduler.step
        signature = inspect.signature(step)

        @functools.wraps(step)  # pipelines look at the signature to see whether it takes eta and generator
        def recorded_step(*args: Any, **kwargs: Any) -> Any:
            result = step(*args, **kwargs)
            if self._wrapper is recorded_step:
                self._record(signature.bind(*args, **kwargs).arguments)
            return result

        self._wrapper = recorded_step
        self.scheduler.step = recorded_step

    def remove(self) -> None:
        """Takes the wrapper off again; any number of times."""
        if self._wrapper is not None and vars(self.scheduler).get("step") is self._wrapper:
            if self._was is None:
                del self.scheduler.step
            else:
                self.scheduler.step = self._was
        # Where something else was wrapped around ours in the meantime, ours stays inside it and only passes on.
        self._wrapper = self._was = None
        self.reset()

    def reset(self) -> None:
        """Forgets all calls: before the next call of the pipeline."""
        self.calls = 0
        self._call = None
        self._x0 = None

    @property
    def x0(self) -> Tensor | None:
        """Estimate of the finished latents after the last call, float32, of the latents' shape; None before it."""
        if self._x0 is None and self._call is not None:
            with torch.no_grad():
                self._x0 = _estimate(self.scheduler, self._call)
            self._call = None
        return self._x0

    def _record(self, arguments: dict[str, Any]) -> None:
        if given := [name for name in _UNKNOWN_IF_GIVEN if arguments.get(name)]:
            raise MaAgiqaError(
                f"Expected {type(self.scheduler).__name__}.step to be called without {given[0]}, got "
                f"{arguments[given[0]]!r}. The estimate of the finished latents is not known then: leave it out."
            )
        index = getattr(self.scheduler, "step_index", None)
        self._call = _Call(
            arguments["model_output"],
            arguments["timestep"],
            arguments["sample"],
            None if index is None else index - 1,  # the call has moved on by one
        )
        self._x0 = None
        self.calls += 1


def _check_known(scheduler: Any) -> None:
    name = type(scheduler).__name__
    kind = SCHEDULERS.get(name)
    if kind is None:
        raise MaAgiqaError(
            f"Expected a scheduler whose estimate of the finished picture is known, got {name}. Use one of "
            f"{', '.join(sorted(SCHEDULERS))}."
        )
    prediction = scheduler.config.get("prediction_type")
    if kind.predictions is not None and prediction not in kind.predictions:
        raise MaAgiqaError(
            f"Expected prediction_type {' or '.join(sorted(kind.predictions))} for {name}, got {prediction!r}. "
            "Use the scheduler that the model was trained for."
        )


def _estimate(scheduler: Any, call: _Call) -> Tensor:
    """x0 by the scheduler's formula, in float32; clipped or thresholded where the scheduler does that."""
    sample = call.sample.float()
    output = call.model_output.float()
    if output.shape[1] == 2 * sample.shape[1]:  # the model predicts the variance as well
        output = output[:, : sample.shape[1]]
    kind = SCHEDULERS[type(scheduler).__name__]
    prediction = scheduler.config.get("prediction_type")
    if kind.noise == "trigonometric":
        angle = scheduler.timesteps[call.index].to(sample)
        return (torch.cos(angle) * sample - torch.sin(angle) * output) / scheduler.config.sigma_data
    if kind.noise == "flow" or prediction == "flow_prediction":
        x0 = sample - _sigma(scheduler, call) * output
    elif prediction in ("sample", "original_sample"):
        x0 = output
    else:
        alpha, sigma = _alpha_and_sigma(scheduler, call, kind)
        if prediction == "epsilon":
            x0 = (sample - sigma * output) / alpha
        elif kind.noise == "sigmas":  # these rescale the latents: sample = x0 + sigma * noise
            x0 = sample / (sigma**2 + 1) - output * sigma / (sigma**2 + 1) ** 0.5
        else:
            x0 = alpha * sample - sigma * output
    return _finish(scheduler, _limit(scheduler, x0), sample, call)


def _sigma(scheduler: Any, call: _Call) -> float:
    return float(scheduler.sigmas[call.index])


def _alpha_and_sigma(scheduler: Any, call: _Call, kind: KnownScheduler) -> tuple[float, float]:
    """With sample = alpha * x0 + sigma * noise."""
    if kind.noise == "sigmas":
        return 1.0, _sigma(scheduler, call)
    if kind.noise == "alpha_sigma":
        alpha, sigma = scheduler._sigma_to_alpha_sigma_t(scheduler.sigmas[call.index])
        return float(alpha), float(sigma)
    squared = scheduler.alphas_cumprod[int(call.timestep)]
    return float(squared**0.5), float((1 - squared) ** 0.5)


def _limit(scheduler: Any, x0: Tensor) -> Tensor:
    if scheduler.config.get("thresholding"):
        return scheduler._threshold_sample(x0)
    if scheduler.config.get("clip_sample"):
        limit = scheduler.config.get("clip_sample_range", 1.0)
        return x0.clamp(-limit, limit)
    return x0


def _finish(scheduler: Any, x0: Tensor, sample: Tensor, call: _Call) -> Tensor:
    """What the scheduler calls denoised: LCM mixes x0 with the latents (boundary condition, arXiv 2303.01469)."""
    if type(scheduler).__name__ != "LCMScheduler":
        return x0
    skip, out = scheduler.get_scalings_for_boundary_condition_discrete(int(call.timestep))
    return float(out) * x0 + float(skip) * sample
