"""Candidates that are left over are the pictures that they would have been beside all the others."""

import math
from collections.abc import Callable, Sequence
from typing import Any

import pytest
import torch

pytestmark = pytest.mark.comfyui_only

N, STEPS, CFG, SEED = 4, 7, 3.0, 5
COUPLED = "dpm_adaptive"
EQUAL = 1e-4  # of the latents' deviation; what is measured is 0, or a few roundings where the batch changes kernels


@pytest.fixture
def samplers(comfy_modules: str) -> list[str]:
    import comfy.samplers

    return list(comfy.samplers.KSampler.SAMPLERS)


@pytest.fixture
def case(pack_module: Callable[[str], Any], tiny_diffusion: Any) -> Callable[..., Any]:
    return lambda *args, **options: Case(pack_module, tiny_diffusion, *args, **options)


class Case:
    """One batch of candidates, for ComfyUI's own sampler and for ours."""

    def __init__(
        self,
        pack_module: Callable[[str], Any],
        tiny_diffusion: Any,
        sampler: str = "euler",
        *,
        masked: bool = False,
        flow: bool = False,
        texts: int = 1,
        denoise: float = 1.0,
        scheduler: str = "normal",
        steps: int = STEPS,
    ) -> None:
        self.module = pack_module("nodes.sampling.segmented_sampling")
        self.model = tiny_diffusion.tiny_model(flow=flow)
        self.positive, self.negative = tiny_diffusion.conditioning(1, texts), tiny_diffusion.conditioning(2)
        self.runs = pack_module("nodes.sampling.sampler_runs")
        self.settings = self.runs.SamplerSettings(sampler, scheduler, steps, CFG, denoise, SEED)
        numbers = torch.Generator().manual_seed(3)
        self.latent: dict[str, Any] = {"samples": torch.zeros(N, 4, 8, 8), "batch_index": [0, 1, 2, 3]}
        if masked or denoise < 1:
            self.latent["samples"] = torch.randn(N, 4, 8, 8, generator=numbers)
        if masked:
            self.latent["noise_mask"] = (torch.rand(N, 1, 8, 8, generator=numbers) > 0.5).float()

    def plain(self, rows: Any = range(N)) -> torch.Tensor:
        """What a KSampler makes of these rows together."""
        import comfy.sample

        rows = list(rows)
        latents = self.latent["samples"][rows]
        own = self.settings
        with torch.inference_mode():
            noise = comfy.sample.prepare_noise(latents, own.seed, rows)
            return comfy.sample.sample(
                self.model,
                noise,
                own.steps,
                own.cfg,
                own.sampler_name,
                own.scheduler,
                self.positive,
                self.negative,
                latents,
                denoise=own.denoise,
                noise_mask=self.latent["noise_mask"][rows] if "noise_mask" in self.latent else None,
                seed=own.seed,
                disable_pbar=True,
            )

    def ours(self, **options: Any) -> Any:
        run = self.runs.KSamplerRun(self.model, self.settings, self.positive, self.negative, self.latent)
        return self.module.SegmentedSampling(run, **options)

    def pruned(self, **options: Any) -> tuple[torch.Tensor, Any]:
        """Rows 1 and 3, after two stops."""
        sampling = self.ours(**options)
        with torch.inference_mode():
            sampling.run([0, 1, 2, 3], 2)
            sampling.run([0, 1, 3], 2 if sampling.steps < 4 else 4)
            return sampling.run([1, 3]), sampling


def difference(one: torch.Tensor, other: torch.Tensor) -> float:
    return float((one - other).abs().max() / other.std())


@pytest.mark.parametrize("masked", [False, True], ids=["empty", "masked"])
def test_every_sampler_is_exact(case: Any, samplers: list[str], masked: bool) -> None:
    differences = {}
    for sampler in samplers:
        if sampler != COUPLED:
            one = case(sampler, masked=masked)
            differences[sampler] = difference(one.pruned()[0], one.plain()[[1, 3]])

    assert {sampler: value for sampler, value in differences.items() if not value < EQUAL} == {}


@pytest.mark.parametrize("sampler", ["euler", "euler_ancestral", "dpmpp_2m", "ddim"])
@pytest.mark.parametrize("limit", [1, 3])
def test_the_batch_limit_changes_nothing(case: Any, sampler: str, limit: int) -> None:
    one = case(sampler, masked=True)

    finished, sampling = one.pruned(batch_limit=limit)

    assert difference(finished, one.plain()[[1, 3]]) < EQUAL
    assert sampling.calls == one.pruned()[1].calls


def test_every_candidate_has_its_own_text(case: Any) -> None:
    one = case(texts=N)

    assert difference(one.pruned()[0], one.plain()[[1, 3]]) < EQUAL
    assert difference(one.pruned(batch_limit=1)[0], one.plain()[[1, 3]]) < EQUAL


@pytest.mark.parametrize("sampler", ["euler", "euler_cfg_pp"])
def test_patches_of_guidance_are_respected(case: Any, sampler: str) -> None:
    one = case(sampler)
    one.model.model_options["sampler_post_cfg_function"] = [lambda state: 0.9 * state["denoised"]]

    assert difference(one.pruned()[0], one.plain()[[1, 3]]) < EQUAL
    assert difference(one.plain(), case(sampler).plain()) > 0.01


def test_a_patch_that_remembers_steps_is_named(case: Any) -> None:
    one = case()
    before: list[torch.Tensor] = []

    def blend(state: dict[str, Any]) -> torch.Tensor:
        before.append(state["denoised"])
        return (state["denoised"] + before[-2]) / 2 if len(before) > 1 else state["denoised"]

    one.model.model_options["sampler_post_cfg_function"] = [blend]

    with pytest.raises(RuntimeError, match=r"a patch on it that remembers earlier steps.*Bypass the patch"):
        one.pruned()


@pytest.mark.parametrize("denoise", [0.6, 0.0])
def test_denoise(case: Any, denoise: float) -> None:
    one = case(denoise=denoise)

    assert one.ours().steps == (STEPS if denoise else 0)
    assert difference(one.pruned()[0], one.plain()[[1, 3]]) < EQUAL


def test_a_flow_model(case: Any) -> None:
    one = case("dpmpp_2m", flow=True)

    assert difference(one.pruned()[0], one.plain()[[1, 3]]) < EQUAL


def test_what_a_stop_shows_is_what_ksampler_shows_then(case: Any) -> None:
    import comfy.sample

    one = case("dpmpp_2m")
    shown: list[torch.Tensor] = []
    own = one.settings
    with torch.inference_mode():
        comfy.sample.sample(
            one.model,
            comfy.sample.prepare_noise(one.latent["samples"], own.seed, one.latent["batch_index"]),
            own.steps,
            own.cfg,
            own.sampler_name,
            own.scheduler,
            one.positive,
            one.negative,
            one.latent["samples"],
            callback=lambda step, x0, x, total: shown.append(x0.clone()),
            seed=own.seed,
            disable_pbar=True,
        )
        sampling = one.ours()
        first = sampling.run([0, 1, 2, 3], 3)
        second = sampling.run([0, 2], 5)

    assert difference(first, shown[2]) < EQUAL
    assert difference(second, shown[4][[0, 2]]) < EQUAL


def test_only_candidates_that_are_left_go_through_the_model(case: Any) -> None:
    _, sampling = case().pruned()

    assert sampling.calls == 2 * (4 * 2 + 3 * 2 + 2 * (STEPS - 4))  # with guidance
    assert sampling.calls_of_one == 2 * STEPS


def test_calls_of_a_sampler_with_two_a_step(case: Any) -> None:
    _, sampling = case("heun").pruned()

    # a stop falls after the first call of its step; the last step has only one
    assert sampling.calls == 2 * (4 * 3 + 3 * 4 + 2 * (2 * STEPS - 1 - 7))
    assert sampling.calls_of_one == 2 * (2 * STEPS - 1)


def test_steps_are_shown_once(case: Any) -> None:
    seen: list[tuple[list[int], int]] = []

    case().pruned(on_step=lambda rows, x0: seen.append((list(rows), len(x0))))

    assert seen == [([0, 1, 2, 3], 4)] * 2 + [([0, 1, 3], 3)] * 2 + [([1, 3], 2)] * (STEPS - 4)


def test_an_interrupt_ends_it(case: Any) -> None:
    import comfy.model_management as memory

    sampling = case().ours(on_step=lambda rows, x0: memory.interrupt_current_processing())

    with torch.inference_mode(), pytest.raises(memory.InterruptProcessingException):
        sampling.run([0, 1, 2, 3], 3)
    assert sampling.calls == 2 * 4


def _errors_of_memory() -> list[Exception]:
    """As CUDA says it at once, and later, from a kernel that had been queued."""
    late = getattr(torch, "AcceleratorError", RuntimeError)
    return [torch.cuda.OutOfMemoryError("CUDA out of memory"), late("CUDA error: out of memory")]


@pytest.mark.parametrize("error", _errors_of_memory(), ids=lambda error: type(error).__name__)
def test_memory_running_out_halves_the_group(case: Any, error: Exception) -> None:
    seen: list[int] = []

    def run_out_once(rows: Sequence[int], x0: torch.Tensor) -> None:
        seen.append(len(rows))
        if len(seen) == 3:
            raise error

    one = case("euler_ancestral")
    finished, _ = one.pruned(on_step=run_out_once)

    assert difference(finished, one.plain()[[1, 3]]) < EQUAL
    assert seen[:3] == [4, 4, 3]
    assert set(seen[3:]) == {1}


def test_memory_running_out_with_one_candidate_is_said(case: Any) -> None:
    import comfy.model_management as memory

    def run_out(rows: int, x0: torch.Tensor) -> None:
        raise memory.OOM_EXCEPTION("CUDA out of memory")

    with torch.inference_mode(), pytest.raises(memory.OOM_EXCEPTION, match="out of memory"):
        case().ours(on_step=run_out).run([0, 1, 2, 3])


def test_the_model_is_left_as_it_was(case: Any) -> None:
    one = case("euler_cfg_pp")
    before = one.plain()

    one.pruned()

    assert not any(one.model.wrappers.get("apply_model", {}).values())
    assert torch.equal(one.plain(), before)


@pytest.mark.parametrize("sampler", ["euler", "euler_ancestral", "dpmpp_2m", "ddim"])
@pytest.mark.parametrize("masked", [False, True], ids=["empty", "masked"])
def test_what_is_said_of_a_candidate_alone_is_so(case: Any, sampler: str, masked: bool) -> None:
    one = case(sampler, masked=masked)

    is_same = difference(one.plain([2]), one.plain()[[2]]) < EQUAL

    assert one.ours().replays_alone == is_same
    assert is_same == (sampler in ("euler", "dpmpp_2m") or (sampler == "ddim" and not masked))


def test_every_sampler_says_rightly_whether_a_candidate_comes_again_alone(case: Any, samplers: list[str]) -> None:
    wrong = {}
    for sampler in samplers:
        one = case(sampler)
        apart = difference(one.plain([2]), one.plain()[[2]])
        if one.ours().replays_alone != (apart < 1e-3):
            wrong[sampler] = apart

    assert set(wrong) <= {COUPLED}  # near, and never to be relied on


def test_a_sampler_whose_steps_depend_on_all_is_refused(case: Any) -> None:
    case().ours().check_divisible()

    with pytest.raises(ValueError, match=r"got 'dpm_adaptive', whose steps depend on all of them\. Choose another"):
        case(COUPLED).ours().check_divisible()


def test_without_pruning_even_that_one_works(case: Any) -> None:
    one = case(COUPLED)

    with torch.inference_mode():
        assert difference(one.ours().run([0, 1, 2, 3]), one.plain()) < EQUAL


def test_a_controlnet_with_a_picture_for_each_is_refused(case: Any) -> None:
    one = case()
    one.positive[0][1]["control"] = _Control(1, _Control(4))

    with pytest.raises(ValueError, match=r"one picture for all candidates, got 4\. Give it a single"):
        one.ours().check_divisible()


class _Control:
    def __init__(self, hints: int, previous: Any = None) -> None:
        self.cond_hint_original = torch.zeros(hints, 3, 8, 8)
        self.previous_controlnet = previous


def test_differences_are_measured_against_something(case: Any) -> None:
    """Neither all zeros nor all the same."""
    plain = case().plain()

    assert math.isfinite(plain.std())
    assert difference(plain[[0]], plain[[1]]) > 0.1
