"""What is known of diffusers' schedulers, one row each: the noise level, the prediction types, when noise is drawn."""

from dataclasses import dataclass
from typing import Any

from ...errors import MaAgiqaError

SEQUENTIAL = "Use strategy='sequential', which runs one candidate at a time and is exact for every pipeline."
"""The way out where rows cannot be dropped."""

_EPSILON_V = frozenset({"epsilon", "v_prediction"})
_EPSILON_V_SAMPLE = _EPSILON_V | {"sample"}
_EPSILON_V_SAMPLE_FLOW = _EPSILON_V_SAMPLE | {"flow_prediction"}


@dataclass(frozen=True)
class KnownScheduler:
    """A scheduler whose state can be cut exactly, and whose x0 is known.

    Attributes:
        noise: Where it keeps its noise level, by which preview/x0.py computes x0. "alphas" looks up alphas_cumprod by
            the timestep; "sigmas" takes sigma by the step's index, latents not rescaled (Karras et al., arXiv
            2206.00364); "alpha_sigma" takes the same sigma with the latents rescaled by the scheduler's
            _sigma_to_alpha_sigma_t; "flow" takes sigma by the step's index on the straight line from x0 to noise;
            "trigonometric" takes its timestep as the angle between x0 and noise (TrigFlow, arXiv 2410.11081).
        predictions: The prediction types that it converts; None if it has no such setting.
        draws_noise: When its `step` draws noise: "never", "always", "eta" where the call's eta is above 0, "sde" where
            its algorithm_type is one of those.
    """

    noise: str
    predictions: frozenset[str] | None
    draws_noise: str = "never"


SCHEDULERS = {
    "DDIMScheduler": KnownScheduler("alphas", _EPSILON_V_SAMPLE, "eta"),
    "DDPMScheduler": KnownScheduler("alphas", _EPSILON_V_SAMPLE, "always"),
    "DEISMultistepScheduler": KnownScheduler("alpha_sigma", _EPSILON_V_SAMPLE_FLOW),
    "DPMSolverMultistepScheduler": KnownScheduler("alpha_sigma", _EPSILON_V_SAMPLE_FLOW, "sde"),
    "EulerAncestralDiscreteScheduler": KnownScheduler("sigmas", _EPSILON_V, "always"),
    "EulerDiscreteScheduler": KnownScheduler("sigmas", _EPSILON_V_SAMPLE | {"original_sample"}),
    "FlowMatchEulerDiscreteScheduler": KnownScheduler("flow", None),
    "FlowMatchHeunDiscreteScheduler": KnownScheduler("flow", None),
    "HeunDiscreteScheduler": KnownScheduler("sigmas", _EPSILON_V_SAMPLE),
    "LCMScheduler": KnownScheduler("alphas", _EPSILON_V_SAMPLE, "always"),
    "PNDMScheduler": KnownScheduler("alphas", _EPSILON_V),
    "SCMScheduler": KnownScheduler("trigonometric", frozenset({"trigflow"}), "always"),
    "UniPCMultistepScheduler": KnownScheduler("alpha_sigma", _EPSILON_V_SAMPLE_FLOW),
}
"""By the exact class of diffusers."""


class UnsupportedPipelineError(MaAgiqaError):
    """A pipeline, scheduler or setting in which rows cannot be dropped without making other pictures."""


def check_scheduler(scheduler: Any) -> None:
    """Refuses a scheduler whose state cannot be shrunk exactly.

    Raises:
        UnsupportedPipelineError: It is not in SCHEDULERS, has a solver of its own inside, or draws noise for the
            whole batch.
    """
    kind = type(scheduler)
    if kind.__name__ == "DPMSolverSDEScheduler":
        raise UnsupportedPipelineError(
            "Expected a scheduler that draws noise row by row, got DPMSolverSDEScheduler, whose Brownian tree is one "
            "for the whole batch. Use DPMSolverMultistepScheduler with algorithm_type='sde-dpmsolver++'. " + SEQUENTIAL
        )
    if kind.__name__ not in SCHEDULERS or kind.__module__.split(".")[0] != "diffusers":
        raise UnsupportedPipelineError(
            f"Expected one of diffusers' schedulers {', '.join(sorted(SCHEDULERS))}, got "
            f"{kind.__module__}.{kind.__name__}, whose state is not known. {SEQUENTIAL}"
        )
    if scheduler.config.get("stochastic_sampling"):
        raise UnsupportedPipelineError(
            f"Expected {kind.__name__} that draws no noise in its steps, got stochastic_sampling=True: not every "
            f"release and pipeline of diffusers draws it row by row. Leave it out. {SEQUENTIAL}"
        )
    if scheduler.config.get("solver_p") is not None:
        raise UnsupportedPipelineError(
            f"Expected {kind.__name__} without solver_p, got {type(scheduler.config.solver_p).__name__} there. Leave "
            f"it out. {SEQUENTIAL}"
        )


def draws_noise(scheduler: Any, eta: float = 0.0) -> bool:
    """Whether `scheduler.step` draws noise, so that every row needs a generator of its own.

    Args:
        scheduler: One of SCHEDULERS.
        eta: The pipeline call's argument, which only DDIM heeds.
    """
    when = SCHEDULERS[type(scheduler).__name__].draws_noise
    if when == "eta":
        return eta > 0
    if when == "sde":
        return str(scheduler.config.algorithm_type).startswith("sde")
    return when == "always"
