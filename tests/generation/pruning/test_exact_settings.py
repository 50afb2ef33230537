"""Settings and lengths that pruning could trip over, each against the call without pruning."""

import inspect
from collections.abc import Callable
from types import ModuleType
from typing import Any

import pytest
import torch

Call = Callable[..., Any]
Same = Callable[..., None]


def fresh(tiny_pipelines: ModuleType, name: str, scheduler: str | None = None) -> Any:
    """A pipeline of the test's own."""
    family = tiny_pipelines.FAMILIES[name]
    pipe = family.make()
    pipe.scheduler = tiny_pipelines.SCHEDULERS[scheduler or family.usual]()
    pipe.set_progress_bar_config(disable=True)
    return pipe


@pytest.mark.parametrize("rows", [12, 16], ids=["as many rows as text tokens", "as many rows as picture tokens"])
@pytest.mark.parametrize("name", ["flux", "qwen_image", "sd3"])
def test_as_many_rows_as_tokens(call: Call, unpruned: Call, assert_same: Same, name: str, rows: int) -> None:
    """txt_ids (12, 3) and img_ids (16, 3) of Flux have no rows."""
    full = unpruned(name, rows=rows, steps=3)
    keep = [1, 4, rows - 1]
    assert_same(call(name, prunings={1: keep}, rows=rows, steps=3), full, keep)


@pytest.mark.parametrize("scheduler", ["euler", "heun", "dpm_2m", "unipc", "pndm"])
@pytest.mark.parametrize("steps", [3, 4, 8])
def test_scheduler_tables_as_long_as_the_batch(
    call: Call, unpruned: Call, assert_same: Same, scheduler: str, steps: int
) -> None:
    """Sigmas, timesteps and solver tables are left alone."""
    full = unpruned("sd", scheduler, steps=steps)
    assert_same(call("sd", scheduler, {2: [3]}, steps=steps), full, [3])


@pytest.mark.parametrize("kept", [2, 3])
def test_half_of_the_rows_with_guidance(call: Call, unpruned: Call, assert_same: Same, kept: int) -> None:
    """Two survivors with guidance are as many entries as four rows without: nothing is cut twice or not at all."""
    for name in ("sdxl_controlnet_img2img", "sd3_inpaint"):
        full = unpruned(name, rows=2 * kept, steps=6)
        keep = [0, *range(kept + 1, 2 * kept)]
        first = {1: keep, 2: keep[-1:]}
        assert_same(call(name, prunings=first, rows=2 * kept, steps=6), full, keep[-1:])


@pytest.mark.parametrize("name", ["sd", "sdxl", "sd3", "sana", "wan", "kolors", "sd_controlnet"])
def test_only_the_latents_go_through_the_callback(
    tiny_pipelines: ModuleType, run_pruned: Call, unpruned: Call, assert_same: Same, name: str
) -> None:
    """A caller's own tensor inputs may be few: the hook cuts what the callback was not shown."""
    pipe = tiny_pipelines.pipeline(name)
    arguments = tiny_pipelines.FAMILIES[name].arguments(4)
    assert_same(run_pruned(pipe, arguments, {1: [1, 2]}, ["latents"]), unpruned(name), [1, 2])


@pytest.mark.parametrize(
    ("scheduler", "settings"),
    [
        ("dpm_2m", {"solver_order": 3}),
        ("dpm_2m", {"algorithm_type": "dpmsolver", "final_sigmas_type": "sigma_min"}),
        ("dpm_2m", {"solver_type": "heun", "euler_at_final": True}),
        ("dpm_sde", {"solver_order": 2, "algorithm_type": "sde-dpmsolver++", "use_karras_sigmas": True}),
        ("unipc", {"solver_order": 3}),
        ("unipc", {"predict_x0": False, "solver_type": "bh1", "final_sigmas_type": "sigma_min"}),
        ("deis", {"solver_order": 3}),
        ("ddim", {"thresholding": True}),
        ("ddim", {"prediction_type": "v_prediction", "rescale_betas_zero_snr": True, "timestep_spacing": "trailing"}),
        ("euler", {"prediction_type": "v_prediction", "use_karras_sigmas": True}),
        ("heun", {"use_karras_sigmas": True}),
        ("lcm", {"original_inference_steps": 20}),
    ],
    ids=str,
)
def test_settings_of_schedulers(
    tiny_pipelines: ModuleType,
    run_pruned: Call,
    assert_same: Same,
    scheduler: str,
    settings: dict[str, Any],
) -> None:
    pipe = tiny_pipelines.pipeline("sd")
    arguments = tiny_pipelines.FAMILIES["sd"].arguments

    def configured() -> Any:
        made = tiny_pipelines.SCHEDULERS[scheduler]()
        return type(made).from_config(made.config, **settings)

    pipe.scheduler = configured()
    full = run_pruned(pipe, arguments(4), {})
    for after in (1, 2, full.calls - 1):
        pipe.scheduler = configured()
        assert_same(run_pruned(pipe, arguments(4), {after: [0, 3]}), full, [0, 3])


@pytest.mark.parametrize("eta", [0.5, 1.0])
def test_ddim_with_noise(call: Call, unpruned: Call, assert_same: Same, eta: float) -> None:
    full = unpruned("sd", "ddim", changes={"eta": eta})
    assert_same(call("sd", "ddim", {2: [1, 3]}, changes={"eta": eta}), full, [1, 3])


def test_rescaled_guidance(call: Call, unpruned: Call, assert_same: Same) -> None:
    changes = {"guidance_rescale": 0.7}
    assert_same(call("sdxl", prunings={2: [1, 3]}, changes=changes), unpruned("sdxl", changes=changes), [1, 3])


def test_negative_sizes(call: Call, unpruned: Call, assert_same: Same) -> None:
    """Kolors' img2img interleaves its time ids where SDXL keeps them in halves."""
    changes = {"negative_original_size": (8, 8), "negative_target_size": (32, 32)}
    for name in ("sdxl", "sdxl_img2img", "kolors", "kolors_img2img"):
        full = unpruned(name, changes=changes)
        assert_same(call(name, prunings={1: [1, 3]}, changes=changes), full, [1, 3])


def test_skip_layer_guidance(tiny_pipelines: ModuleType, call: Call, unpruned: Call, assert_same: Same) -> None:
    """SD3 asks the transformer a second time, without the negative half."""
    if "skip_guidance_layers" not in inspect.signature(type(tiny_pipelines.pipeline("sd3")).__call__).parameters:
        pytest.skip("not in this diffusers")
    changes = {"skip_guidance_layers": [0], "skip_layer_guidance_start": 0.0, "skip_layer_guidance_stop": 1.0}
    full = unpruned("sd3", changes=changes)
    assert (full.pictures - unpruned("sd3").pictures).abs().max() > 1e-2
    for rows in ([2], [0, 3]):
        assert_same(call("sd3", prunings={1: rows}, changes=changes), full, rows)
        assert_same(call("sd3", prunings={3: rows}, changes=changes), full, rows)


@pytest.mark.parametrize("name", ["sd_controlnet", "sdxl_controlnet"])
@pytest.mark.parametrize("guidance", [True, False])
def test_controlnet_in_guess_mode(call: Call, unpruned: Call, assert_same: Same, name: str, guidance: bool) -> None:
    changes = {"guess_mode": True}
    full = unpruned(name, changes=changes, guidance=guidance)
    for rows in ([2], [0, 1]):
        assert_same(call(name, prunings={1: rows}, changes=changes, guidance=guidance), full, rows)


def test_two_controlnets(tiny_pipelines: ModuleType, run_pruned: Call, assert_same: Same) -> None:
    for name in ("sd_controlnet", "sdxl_controlnet"):
        pipe = fresh(tiny_pipelines, name)
        parts = {part: value for part, value in pipe.components.items() if part != "controlnet"}
        control = [tiny_pipelines.pictures(1, seed=8), tiny_pipelines.pictures(1, seed=9)]
        extra = {"requires_safety_checker": False} if name == "sd_controlnet" else {"add_watermarker": False}
        pipe = type(pipe)(**parts, **extra, controlnet=[pipe.controlnet, tiny_pipelines.controlnet(xl="xl" in name)])
        pipe.set_progress_bar_config(disable=True)

        def arguments(name: str = name, control: list[Any] = control) -> dict[str, Any]:
            scales = {"controlnet_conditioning_scale": [1.0, 0.5]}
            return tiny_pipelines.FAMILIES[name].arguments(4) | {"image": control} | scales

        full = run_pruned(pipe, arguments(), {})
        for rows in ([2], [0, 3]):
            assert_same(run_pruned(pipe, arguments(), {1: rows}), full, rows)


def test_wan_with_a_time_per_token(tiny_pipelines: ModuleType, run_pruned: Call, assert_same: Same) -> None:
    """Wan 2.2 5B."""
    pipe = fresh(tiny_pipelines, "wan")
    pipe.register_to_config(expand_timesteps=True)
    full = run_pruned(pipe, tiny_pipelines.FAMILIES["wan"].arguments(4), {})
    assert_same(run_pruned(pipe, tiny_pipelines.FAMILIES["wan"].arguments(4), {1: [3]}), full, [3])


@pytest.mark.parametrize("name", ["sd", "sdxl_inpaint", "flux_inpaint"])
def test_the_callers_tensors_come_back_whole(
    tiny_pipelines: ModuleType, run_pruned: Call, assert_same: Same, name: str
) -> None:
    """diffusers may use the caller's own tensors as they are; whatever is cut in place is restored."""
    pipe = tiny_pipelines.pipeline(name)
    given = tiny_pipelines.FAMILIES[name].arguments(4)
    shape = (4, 16, 16) if name == "flux_inpaint" else (4, 4, 8, 8)
    given["latents"] = tiny_pipelines.random(5, *shape)
    if name == "sdxl_inpaint":
        # already at the size of the latents, so that nothing has to be resized or copied
        given |= {"image": tiny_pipelines.random(6, 4, 4, 8, 8), "mask_image": tiny_pipelines.masks(4)}
    before = {key: value.clone() for key, value in given.items() if isinstance(value, torch.Tensor)}
    full = run_pruned(pipe, given, {})
    again = given | {"generator": tiny_pipelines.generators(4)}
    assert_same(run_pruned(pipe, again, {1: [1, 2], 2: [1]}), full, [1])
    for key, value in before.items():
        assert torch.equal(given[key], value)


def test_inference_mode(tiny_pipelines: ModuleType, run_pruned: Call, unpruned: Call, assert_same: Same) -> None:
    for name in ("sd_inpaint", "flux_inpaint", "sd_controlnet_inpaint"):
        with torch.inference_mode():
            pruned = run_pruned(tiny_pipelines.pipeline(name), tiny_pipelines.FAMILIES[name].arguments(4), {1: [1, 2]})
        assert_same(pruned, unpruned(name), [1, 2])


def test_an_error_in_the_loop_leaves_the_pipeline_usable(
    tiny_pipelines: ModuleType, run_pruned: Call, unpruned: Call, assert_same: Same
) -> None:
    for name in ("sd_inpaint", "flux"):
        pipe = tiny_pipelines.pipeline(name)
        arguments = tiny_pipelines.FAMILIES[name].arguments(4)
        generators = list(arguments["generator"])
        with pytest.raises(ValueError, match=r"Expected ascending rows out of \[1, 2\] to keep, got \[0\]"):
            run_pruned(pipe, arguments, {1: [1, 2], 2: [0]})
        assert arguments["generator"] == generators
        denoiser = getattr(pipe, "unet", None) or pipe.transformer
        assert not denoiser._forward_pre_hooks
        again = run_pruned(pipe, tiny_pipelines.FAMILIES[name].arguments(4), {1: [1, 2]})
        assert_same(again, unpruned(name), [1, 2])


@pytest.mark.parametrize(
    ("name", "in_place"),
    [
        ("flux", False),
        ("flux", True),
        pytest.param("sd", False, marks=pytest.mark.long),
        pytest.param("sd", True, marks=pytest.mark.long),
    ],
)
def test_compiled_denoiser(
    tiny_pipelines: ModuleType, run_pruned: Call, unpruned: Call, assert_same: Same, name: str, in_place: bool
) -> None:
    """Both ways to compile; the hook stays outside of the graph."""
    part = "unet" if name == "sd" else "transformer"
    pipe = fresh(tiny_pipelines, name)
    if in_place:
        getattr(pipe, part).compile(backend="eager")
    else:
        setattr(pipe, part, torch.compile(getattr(pipe, part), backend="eager"))
    arguments = tiny_pipelines.FAMILIES[name].arguments
    assert_same(run_pruned(pipe, arguments(4), {2: [3]}), unpruned(name), [3])


def test_offloading_and_slices(tiny_pipelines: ModuleType, run_pruned: Call, unpruned: Call, assert_same: Same) -> None:
    pipe = fresh(tiny_pipelines, "sd")
    pipe.enable_attention_slicing(1)
    pipe.vae.enable_slicing()
    pipe.vae.enable_tiling()
    pipe.unet.enable_layerwise_casting(storage_dtype=torch.float32, compute_dtype=torch.float32)
    arguments = tiny_pipelines.FAMILIES["sd"].arguments(4)
    assert_same(run_pruned(pipe, arguments, {2: [0, 1, 3]}), unpruned("sd"), [0, 1, 3])


@pytest.mark.parametrize("name", ["sd", "flux"])
def test_weights_that_come_and_go(
    tiny_pipelines: ModuleType, run_pruned: Call, unpruned: Call, assert_same: Same, name: str
) -> None:
    """Group offloading of diffusers, and accelerate's hooks: also after they were taken off."""
    from accelerate.hooks import AlignDevicesHook, add_hook_to_module, remove_hook_from_module

    arguments = tiny_pipelines.FAMILIES[name].arguments
    cpu = torch.device("cpu")
    pipe = fresh(tiny_pipelines, name)
    denoiser = getattr(pipe, "unet", None) or pipe.transformer
    denoiser.enable_group_offload(onload_device=cpu, offload_device=cpu, offload_type="leaf_level")
    assert_same(run_pruned(pipe, arguments(4), {2: [3]}), unpruned(name), [3])
    pipe = fresh(tiny_pipelines, name)
    denoiser = getattr(pipe, "unet", None) or pipe.transformer
    add_hook_to_module(denoiser, AlignDevicesHook(execution_device="cpu", io_same_device=True))
    assert_same(run_pruned(pipe, arguments(4), {2: [3]}), unpruned(name), [3])
    remove_hook_from_module(denoiser, recurse=True)
    assert_same(run_pruned(pipe, arguments(4), {2: [3]}), unpruned(name), [3])
