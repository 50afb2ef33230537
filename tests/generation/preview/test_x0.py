"""x0 after every scheduler call: a perfect model's is the truth, any model's is what the scheduler itself finds."""

import copy
import functools
import inspect
from typing import Any

import diffusers
import pytest
import torch
from torch import Tensor

from ma_agiqa_core.generation.pipelines.schedulers import SCHEDULERS
from ma_agiqa_core.generation.preview.x0 import X0Recorder

# warnings of diffusers' own
pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning")

SHAPE = (3, 4, 6, 6)
STEPS = 6
EPSILON, V, SAMPLE, FLOW = "epsilon", "v_prediction", "sample", "flow_prediction"
FLOW_SETTINGS = {"use_flow_sigmas": True, "flow_shift": 3.0}
NO_CLIP = {"clip_sample": False}

# (class, settings, predictions); unlike settings of one class are rows of their own
SETTINGS: list[tuple[str, dict[str, Any], tuple[str, ...]]] = [
    ("DDIMScheduler", NO_CLIP, (EPSILON, V, SAMPLE)),
    ("DDIMScheduler", {**NO_CLIP, "timestep_spacing": "trailing", "rescale_betas_zero_snr": True}, (V,)),
    ("DDPMScheduler", NO_CLIP, (EPSILON, V, SAMPLE)),
    ("LCMScheduler", {}, (EPSILON, V, SAMPLE)),
    ("PNDMScheduler", {"skip_prk_steps": True}, (EPSILON, V)),
    ("PNDMScheduler", {"skip_prk_steps": False}, (EPSILON, V)),
    ("EulerDiscreteScheduler", {}, (EPSILON, V, SAMPLE)),
    ("EulerDiscreteScheduler", {"use_karras_sigmas": True}, (EPSILON, V)),
    ("EulerAncestralDiscreteScheduler", {}, (EPSILON, V)),
    ("HeunDiscreteScheduler", {}, (EPSILON, V, SAMPLE)),
    ("DPMSolverMultistepScheduler", {"algorithm_type": "dpmsolver++"}, (EPSILON, V, SAMPLE)),
    ("DPMSolverMultistepScheduler", {"algorithm_type": "dpmsolver++", "use_karras_sigmas": True}, (EPSILON,)),
    ("DPMSolverMultistepScheduler", {"algorithm_type": "sde-dpmsolver++"}, (EPSILON, V, SAMPLE)),
    ("DPMSolverMultistepScheduler", {"algorithm_type": "dpmsolver", "final_sigmas_type": "sigma_min"}, (EPSILON, V)),
    ("DPMSolverMultistepScheduler", {"solver_order": 3, **FLOW_SETTINGS}, (FLOW,)),
    ("UniPCMultistepScheduler", {}, (EPSILON, V, SAMPLE)),
    ("UniPCMultistepScheduler", {"predict_x0": False, "final_sigmas_type": "sigma_min"}, (EPSILON, V)),
    ("UniPCMultistepScheduler", FLOW_SETTINGS, (FLOW,)),
    ("DEISMultistepScheduler", {}, (EPSILON, V, SAMPLE)),
    ("DEISMultistepScheduler", FLOW_SETTINGS, (FLOW,)),
    ("FlowMatchEulerDiscreteScheduler", {"shift": 3.0}, (FLOW,)),
    ("FlowMatchEulerDiscreteScheduler", {"stochastic_sampling": True}, (FLOW,)),
    ("FlowMatchHeunDiscreteScheduler", {"shift": 3.0}, (FLOW,)),
]
ENDS_WITH_NOISE = ("DDIMScheduler", "PNDMScheduler", "DDPMScheduler", "DEISMultistepScheduler")  # a little
CASES = [
    pytest.param(name, settings, prediction, id="-".join([name, prediction, *map(str, settings.values())]))
    for name, settings, predictions in SETTINGS
    for prediction in predictions
]


def build(name: str, settings: dict[str, Any], prediction: str) -> Any:
    if not name.startswith("FlowMatch"):
        settings = {"beta_schedule": "scaled_linear", "prediction_type": prediction, **settings}
    scheduler = getattr(diffusers, name)(**settings)
    scheduler.set_timesteps(STEPS)
    return scheduler


def random(seed: int, dtype: torch.dtype = torch.float32) -> Tensor:
    return torch.randn(SHAPE, generator=torch.Generator().manual_seed(seed)).to(dtype)


def takes_generator(scheduler: Any) -> bool:
    return "generator" in inspect.signature(scheduler.step).parameters


def noise_level(scheduler: Any, timestep: Tensor) -> tuple[float, float]:
    """(alpha, sigma) of latents = alpha * x0 + sigma * noise, as the scheduler itself adds noise."""
    one, zero = torch.ones(1, 1, 1, 1), torch.zeros(1, 1, 1, 1)
    if hasattr(scheduler, "scale_noise"):
        return float(scheduler.scale_noise(one, timestep[None], zero)), float(
            scheduler.scale_noise(zero, timestep[None], one)
        )
    return float(scheduler.add_noise(one, zero, timestep[None])), float(scheduler.add_noise(zero, one, timestep[None]))


def perfect(prediction: str, latents: Tensor, x0: Tensor, alpha: float, sigma: float) -> Tensor:
    """What a model that knows x0 predicts."""
    if prediction == SAMPLE:
        return x0
    noise = (latents - alpha * x0) / sigma
    if prediction == EPSILON:
        return noise
    if prediction == FLOW:
        return noise - x0
    size = (alpha**2 + sigma**2) ** 0.5  # 1, except where the scheduler's latents are rescaled
    return (alpha * noise - sigma * x0) / size


def denoise(scheduler: Any, latents: Tensor, model: Any, after: Any) -> Tensor:
    """A pipeline's loop."""
    extra = {"generator": torch.Generator().manual_seed(5)} if takes_generator(scheduler) else {}
    for timestep in scheduler.timesteps:
        if hasattr(scheduler, "scale_model_input"):
            scheduler.scale_model_input(latents, timestep)
        output = model(latents, timestep)
        result = scheduler.step(output, timestep, latents, **extra, return_dict=False)
        after(output, timestep, latents, result)
        latents = result[0]
    return latents


@pytest.mark.parametrize(("name", "settings", "prediction"), CASES)
def test_a_perfect_models_x0_is_the_truth_at_every_step(name: str, settings: dict[str, Any], prediction: str) -> None:
    scheduler = build(name, settings, prediction)
    x0 = random(1)
    recorder = X0Recorder(scheduler)
    recorder.install()
    seen: list[Tensor] = []

    def model(latents: Tensor, timestep: Tensor) -> Tensor:
        if scheduler_index(scheduler) is None:
            scheduler._init_step_index(timestep)
        return perfect(prediction, latents, x0, *noise_level(scheduler, timestep))

    def after(*_: Any) -> None:
        assert recorder.x0 is not None
        seen.append(recorder.x0)

    start = random(2) * float(getattr(scheduler, "init_noise_sigma", 1.0))
    final = denoise(scheduler, start, model, after)

    assert recorder.calls == len(seen) == len(scheduler.timesteps)
    for estimate in seen:
        assert estimate.dtype == torch.float32
        torch.testing.assert_close(estimate, x0, atol=2e-4, rtol=0)
    if settings.get("final_sigmas_type") != "sigma_min" and name not in ENDS_WITH_NOISE:
        torch.testing.assert_close(final, x0, atol=2e-3, rtol=0)


@pytest.mark.parametrize(("name", "settings", "prediction"), CASES)
def test_any_models_x0_is_what_the_scheduler_makes_of_it(name: str, settings: dict[str, Any], prediction: str) -> None:
    """The reference runs in float32 from the very latents and predictions, a copy of the scheduler each time.

    In bfloat16, whose latents differ more from their float32 copies; float32 is the test before this.
    """
    dtype = torch.bfloat16
    scheduler = build(name, settings, prediction)
    recorder = X0Recorder(scheduler)
    before: list[Any] = []

    def model(latents: Tensor, timestep: Tensor) -> Tensor:
        recorder.remove()
        before.append(copy.deepcopy(scheduler))
        recorder.install()
        return random(len(before), dtype)

    def after(output: Tensor, timestep: Tensor, latents: Tensor, result: Any) -> None:
        expected, error = own_x0(before[-1], output.float(), timestep, latents.float())
        assert recorder.x0 is not None
        assert recorder.x0.dtype == torch.float32
        torch.testing.assert_close(recorder.x0, expected, atol=error, rtol=1e-5)

    start = (random(20) * float(getattr(scheduler, "init_noise_sigma", 1.0))).to(dtype)
    denoise(scheduler, start, model, after)
    assert before


def own_x0(scheduler: Any, output: Tensor, timestep: Tensor, latents: Tensor) -> tuple[Tensor, float]:
    """x0 out of the scheduler's own code, and how far rounding may lead it astray."""
    name = type(scheduler).__name__
    if name == "PNDMScheduler":  # its formula for the step from t to no noise at all
        scheduler.final_alpha_cumprod = torch.tensor(1.0)
        return scheduler._get_prev_sample(latents, timestep, -1, output), 1e-5
    if scheduler_index(scheduler) is None:
        scheduler._init_step_index(timestep)
    if name.startswith("FlowMatch"):  # a first-order step to sigma 0
        flow: Any = diffusers.FlowMatchEulerDiscreteScheduler()
        flow.set_timesteps(sigmas=[float(scheduler.sigmas[scheduler.step_index])])
        return flow.step(output, flow.timesteps[0], latents, return_dict=False)[0], 1e-5
    if not hasattr(scheduler, "convert_model_output"):
        extra = {"generator": torch.Generator().manual_seed(5)} if takes_generator(scheduler) else {}
        return scheduler.step(output, timestep, latents, **extra, return_dict=False)[1], 1e-5
    converted = scheduler.convert_model_output(output, sample=latents)
    if scheduler.config.get("algorithm_type") not in ("deis", "dpmsolver") and getattr(scheduler, "predict_x0", True):
        return converted, 1e-5
    alpha, sigma = scheduler._sigma_to_alpha_sigma_t(scheduler.sigmas[scheduler.step_index])
    return (latents - sigma * converted) / alpha, 1e-5 + 1e-6 / float(alpha)  # converted to noise and back


def scheduler_index(scheduler: Any) -> int | None:
    """None before the first call of a scheduler that counts its steps."""
    return getattr(scheduler, "step_index", 0)


def test_every_known_scheduler_is_tested() -> None:
    assert {name for name, _, _ in SETTINGS} | {"SCMScheduler"} == set(SCHEDULERS)


@pytest.mark.parametrize(
    ("name", "settings"),
    [
        ("DDIMScheduler", {"clip_sample": True, "clip_sample_range": 0.7}),
        ("DDIMScheduler", {"thresholding": True}),
        ("DDPMScheduler", {"clip_sample": True}),
        ("HeunDiscreteScheduler", {"clip_sample": True}),
        ("LCMScheduler", {"clip_sample": True}),
        ("DPMSolverMultistepScheduler", {"thresholding": True}),
    ],
)
def test_x0_is_clipped_as_the_scheduler_clips_it(name: str, settings: dict[str, Any]) -> None:
    scheduler = build(name, settings, EPSILON)
    before = copy.deepcopy(scheduler)
    recorder = X0Recorder(scheduler)
    recorder.install()
    timestep = scheduler.timesteps[0]
    scheduler.scale_model_input(random(1), timestep)
    scheduler.step(random(1), timestep, random(2))

    assert recorder.x0 is not None
    torch.testing.assert_close(recorder.x0, own_x0(before, random(1), timestep, random(2))[0], atol=1e-5, rtol=1e-5)
    assert float(recorder.x0.abs().max()) <= 1 + 1e-6


def test_a_predicted_variance_is_left_out() -> None:
    scheduler = build("DDPMScheduler", {"variance_type": "learned_range", "clip_sample": False}, EPSILON)
    recorder = X0Recorder(scheduler)
    recorder.install()
    output = torch.cat([random(1), random(2)], dim=1)
    expected = scheduler.step(output, scheduler.timesteps[1], random(3)).pred_original_sample

    assert recorder.x0 is not None
    torch.testing.assert_close(recorder.x0, expected)


def test_removing_leaves_no_trace() -> None:
    scheduler = build("DDIMScheduler", NO_CLIP, EPSILON)
    signature = inspect.signature(scheduler.step)
    recorder = X0Recorder(scheduler)
    recorder.install()
    recorder.install()
    assert inspect.signature(scheduler.step) == signature  # pipelines ask it for eta and generator
    scheduler.step(random(1), scheduler.timesteps[0], random(2))
    assert recorder.calls == 1
    recorder.remove()
    recorder.remove()
    assert "step" not in vars(scheduler)
    scheduler.step(random(1), scheduler.timesteps[1], random(2))
    assert (recorder.calls, recorder.x0) == (0, None)


@pytest.mark.parametrize("inner_first", [True, False])
def test_two_recorders_on_one_scheduler(inner_first: bool) -> None:
    scheduler = build("DDIMScheduler", NO_CLIP, EPSILON)
    inner, outer = X0Recorder(scheduler), X0Recorder(scheduler)
    inner.install()
    outer.install()
    scheduler.step(random(1), scheduler.timesteps[0], random(2))
    assert inner.calls == outer.calls == 1
    first, second = (inner, outer) if inner_first else (outer, inner)
    first.remove()
    scheduler.step(random(1), scheduler.timesteps[1], random(2))
    assert (first.calls, second.calls) == (0, 2)
    second.remove()
    scheduler.step(random(1), scheduler.timesteps[2], random(2))
    assert (first.calls, second.calls) == (0, 0)


def test_a_failing_step_counts_for_nothing() -> None:
    scheduler: Any = diffusers.DDIMScheduler()
    recorder = X0Recorder(scheduler)
    recorder.install()
    with pytest.raises(ValueError, match="set_timesteps"):
        scheduler.step(random(1), 10, random(2))
    assert (recorder.calls, recorder.x0) == (0, None)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (diffusers.DPMSolverSinglestepScheduler, "got DPMSolverSinglestepScheduler. Use one of DDIMScheduler, "),
        (functools.partial(diffusers.PNDMScheduler, prediction_type="sample"), "for PNDMScheduler, got 'sample'"),
    ],
)
def test_unknown_schedulers_are_refused_by_name(make: Any, message: str) -> None:
    scheduler = make()
    with pytest.raises(ValueError, match=message):
        X0Recorder(scheduler).install()
    assert "step" not in vars(scheduler)


def test_subclasses_are_not_assumed_to_compute_alike() -> None:
    class Mine(diffusers.DDIMScheduler):
        pass

    with pytest.raises(ValueError, match="got Mine"):
        X0Recorder(Mine()).install()


def test_churn_is_refused() -> None:
    scheduler = build("EulerDiscreteScheduler", {}, EPSILON)
    recorder = X0Recorder(scheduler)
    recorder.install()
    scheduler.scale_model_input(random(2), scheduler.timesteps[0])
    with pytest.raises(ValueError, match=r"without s_churn, got 0\.5"):
        scheduler.step(random(1), scheduler.timesteps[0], random(2), s_churn=0.5)


def test_trigonometric_flow() -> None:
    """SANA-Sprint's scheduler tells its own x0, times sigma_data."""
    scheduler: Any = diffusers.SCMScheduler(sigma_data=0.5)
    scheduler.set_timesteps(4, max_timesteps=1.5708, intermediate_timesteps=None)
    recorder = X0Recorder(scheduler)
    recorder.install()
    latents = torch.randn(SHAPE, generator=torch.Generator().manual_seed(0))
    for step, time in enumerate(scheduler.timesteps[:-1]):
        output = torch.randn(SHAPE, generator=torch.Generator().manual_seed(step + 1))
        latents, denoised = scheduler.step(output, time, latents, return_dict=False)
        assert recorder.x0 is not None
        assert torch.allclose(recorder.x0, denoised / 0.5, atol=1e-6)
    recorder.remove()
