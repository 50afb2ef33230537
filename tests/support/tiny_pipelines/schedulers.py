"""Every scheduler that pruning knows."""

from collections.abc import Callable
from typing import Any


def scheduler(name: str, **settings: Any) -> Callable[[], Any]:
    def make() -> Any:
        import diffusers

        return getattr(diffusers, name)(**settings)

    return make


STABLE = {"beta_start": 0.00085, "beta_end": 0.012, "beta_schedule": "scaled_linear"}
FLOW = {"prediction_type": "flow_prediction", "use_flow_sigmas": True, "flow_shift": 3.0}
SCHEDULERS: dict[str, Callable[[], Any]] = {
    "ddim": scheduler("DDIMScheduler", **STABLE, clip_sample=False, set_alpha_to_one=False, steps_offset=1),
    "euler": scheduler("EulerDiscreteScheduler", **STABLE, steps_offset=1, timestep_spacing="leading"),
    "euler_ancestral": scheduler("EulerAncestralDiscreteScheduler", **STABLE, steps_offset=1),
    "heun": scheduler("HeunDiscreteScheduler", **STABLE, steps_offset=1),
    "dpm_2m": scheduler("DPMSolverMultistepScheduler", **STABLE, use_karras_sigmas=True),
    "dpm_sde": scheduler("DPMSolverMultistepScheduler", **STABLE, algorithm_type="sde-dpmsolver++"),
    "unipc": scheduler("UniPCMultistepScheduler", **STABLE),
    "deis": scheduler("DEISMultistepScheduler", **STABLE),
    "pndm": scheduler("PNDMScheduler", **STABLE, skip_prk_steps=True, set_alpha_to_one=False, steps_offset=1),
    "pndm_prk": scheduler("PNDMScheduler", **STABLE, skip_prk_steps=False, set_alpha_to_one=False, steps_offset=1),
    "lcm": scheduler("LCMScheduler", **STABLE),
    "flow_euler": scheduler("FlowMatchEulerDiscreteScheduler", shift=3.0),
    "flow_euler_dynamic": scheduler("FlowMatchEulerDiscreteScheduler", shift=3.0, use_dynamic_shifting=True),
    "flow_euler_stochastic": scheduler("FlowMatchEulerDiscreteScheduler", shift=3.0, stochastic_sampling=True),
    "flow_heun": scheduler("FlowMatchHeunDiscreteScheduler", shift=3.0),
    "flow_dpm": scheduler("DPMSolverMultistepScheduler", **FLOW),
    "scm": scheduler("SCMScheduler"),
    "flow_unipc": scheduler("UniPCMultistepScheduler", **FLOW),
}
STABLE_SCHEDULERS = tuple(name for name in SCHEDULERS if not name.startswith("flow_"))
FLOW_SCHEDULERS = tuple(name for name in SCHEDULERS if name.startswith("flow_"))
