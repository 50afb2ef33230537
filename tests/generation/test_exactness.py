"""The matrix: families x schedulers x guidance x survivors, row by row against the call without pruning."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from types import ModuleType
from typing import Any

import pytest
import torch

from ma_agiqa_core.generation.batch_shrink import BatchShrink
from ma_agiqa_core.generation.families import check_exact, family_of

ROWS = 4
LIMIT = 1e-4
SURVIVORS = {"one": (2,), "two": (0, 3), "all but one": (0, 2, 3)}
TEXT_TO_IMAGE = ("sd", "sd_lcm", "sdxl", "kolors", "sd3", "flux", "flux2", "flux2_klein", "qwen_image", "sana", "wan")
OTHERS = (
    "sd_img2img",
    "sd_inpaint",
    "sd_inpaint_9",
    "sd_controlnet",
    "sd_controlnet_img2img",
    "sd_controlnet_inpaint",
    "sdxl_img2img",
    "sdxl_inpaint",
    "sdxl_inpaint_9",
    "sdxl_controlnet",
    "sdxl_controlnet_img2img",
    "sdxl_controlnet_inpaint",
    "kolors_img2img",
    "sd3_img2img",
    "sd3_inpaint",
    "flux_img2img",
    "flux_inpaint",
    "flux2_reference",
    "flux2_klein_reference",
    "qwen_image_img2img",
    "qwen_image_inpaint",
    "wan_two",
    "sd_ip_adapter",
    "sdxl_ip_adapter",
    "flux_ip_adapter",
)
STABLE = (
    "ddim",
    "euler",
    "euler_ancestral",
    "heun",
    "dpm_2m",
    "dpm_sde",
    "unipc",
    "deis",
    "pndm",
    "pndm_prk",
    "lcm",
)
FLOW = ("flow_euler", "flow_heun", "flow_dpm", "flow_unipc")
PAIRS = (
    *(("sd", scheduler) for scheduler in STABLE),
    *(("sdxl", scheduler) for scheduler in STABLE),
    *(("sd_inpaint", scheduler) for scheduler in STABLE),
    *(("sdxl_img2img", scheduler) for scheduler in ("ddim", "heun", "unipc", "lcm")),
    *(("kolors", scheduler) for scheduler in ("ddim", "euler_ancestral", "dpm_sde", "unipc")),
    *(("sd3", scheduler) for scheduler in FLOW),
    *(("sana", scheduler) for scheduler in FLOW),
    *(("wan", scheduler) for scheduler in FLOW),
    ("sd3_img2img", "flow_heun"),
    ("flux", "flow_euler"),
    ("flux", "flow_unipc"),
    ("flux_inpaint", "flow_euler"),
    ("qwen_image", "flow_unipc"),
    ("flux2", "flow_unipc"),
)


@dataclass(frozen=True)
class Run:
    """What a call gave: pictures (n, ...) in [0, 1], the last latents, scheduler calls, network evaluations."""

    pictures: torch.Tensor
    latents: torch.Tensor
    calls: int
    evaluations: int


Call = Callable[..., Run]


@pytest.fixture(scope="module")
def call(tiny_pipelines: ModuleType) -> Call:
    """Calls a tiny pipeline; `prunings` says after how many scheduler calls which of the original rows stay."""

    def call(
        name: str,
        scheduler: str | None = None,
        prunings: Mapping[int, Sequence[int]] | None = None,
        changes: Mapping[str, Any] | None = None,
        **settings: Any,
    ) -> Run:
        try:
            pipe = tiny_pipelines.pipeline(name, scheduler)
        except AttributeError as absent:  # before diffusers 0.36
            pytest.skip(str(absent))
        arguments = tiny_pipelines.FAMILIES[name].arguments(ROWS, **settings) | dict(changes or {})
        generators = list(arguments["generator"])
        family = family_of(pipe)
        check_exact(pipe, family)
        shrink = BatchShrink(pipe, family)
        last = {}

        def on_step_end(pipe: Any, step: int, timestep: Any, tensors: dict[str, Any]) -> dict[str, Any]:
            last["latents"] = tensors["latents"]
            if prunings and step + 1 in prunings:
                tensors = shrink.shrink(prunings[step + 1], tensors)
            return tensors

        shrink.install()
        try:
            output = pipe(
                **arguments,
                output_type="pt",
                callback_on_step_end=on_step_end,
                callback_on_step_end_tensor_inputs=list(pipe._callback_tensor_inputs),
            )
        finally:
            shrink.remove()
        assert arguments["generator"] == generators
        pictures = torch.as_tensor(tiny_pipelines.pictures_of(output))
        return Run(pictures, last["latents"], pipe.num_timesteps, shrink.evaluations)

    return call


@pytest.fixture(scope="module")
def unpruned(call: Call) -> Call:
    """The call without pruning, made once."""
    made: dict[str, Run] = {}

    def unpruned(*arguments: Any, **settings: Any) -> Run:
        key = repr((arguments, sorted(settings.items())))
        if key not in made:
            made[key] = call(*arguments, **settings)
        return made[key]

    return unpruned


def assert_same(pruned: Run, full: Run, rows: Sequence[int]) -> None:
    """The rows of the pruned call are those rows of the full one: pictures, and latents by their own scale."""
    rows = list(rows)
    assert pruned.pictures.shape[0] == pruned.latents.shape[0] == len(rows)
    assert (pruned.pictures - full.pictures[rows]).abs().max() <= LIMIT
    assert (pruned.latents - full.latents[rows]).abs().max() <= LIMIT * max(1.0, float(full.latents.std()))


@pytest.mark.parametrize("guidance", [True, False], ids=["guided", "unguided"])
@pytest.mark.parametrize("name", [*TEXT_TO_IMAGE, *OTHERS])
def test_survivors_are_the_same_pictures_in_every_family(
    call: Call, unpruned: Call, tiny_pipelines: ModuleType, name: str, guidance: bool
) -> None:
    if guidance and tiny_pipelines.FAMILIES[name].guided is None:
        pytest.skip("this family has no guidance")
    full = unpruned(name, guidance=guidance)
    for rows in SURVIVORS.values():
        pruned = call(name, prunings={1: rows}, guidance=guidance)
        assert_same(pruned, full, rows)
        share = (1 + (full.calls - 1) * len(rows) / ROWS) / full.calls
        assert pruned.evaluations == pytest.approx(full.evaluations * share)


@pytest.mark.parametrize(("name", "scheduler"), PAIRS)
def test_survivors_are_the_same_pictures_with_every_scheduler(
    call: Call, unpruned: Call, name: str, scheduler: str
) -> None:
    """After every call at which pruning may happen: Heun, PNDM and the multistep schedulers then keep other history."""
    full = unpruned(name, scheduler)
    for after in range(1, full.calls):
        row = after % ROWS
        assert_same(call(name, scheduler, {after: [row]}), full, [row])
    for rows in (SURVIVORS["two"], SURVIVORS["all but one"]):
        assert_same(call(name, scheduler, {full.calls // 2: rows}), full, rows)


@pytest.mark.parametrize("name", [*TEXT_TO_IMAGE, *OTHERS])
def test_two_prunings_with_two_prompts(call: Call, unpruned: Call, name: str) -> None:
    """The first leaves three rows, another number of each prompt's; the second leaves one."""
    full = unpruned(name, prompts=2, steps=6)
    assert full.calls >= 3
    assert_same(call(name, prunings={1: [1, 3, 6], 2: [6]}, prompts=2, steps=6), full, [6])
    assert_same(call(name, prunings={1: [0, 2, 4, 7], 2: [2, 7]}, prompts=2, steps=6), full, [2, 7])


@pytest.mark.parametrize("scheduler", ["euler_ancestral", "heun", "dpm_sde", "unipc", "pndm", "lcm"])
def test_pruning_after_every_call(call: Call, unpruned: Call, scheduler: str) -> None:
    full = unpruned("sdxl", scheduler, steps=4)
    prunings = {1: (0, 2, 3), 2: (2, 3), 3: (2,)}
    assert_same(call("sdxl", scheduler, prunings, steps=4), full, [2])


@pytest.mark.parametrize("eta", [0.5, 1.0])
def test_ddim_with_noise(call: Call, unpruned: Call, eta: float) -> None:
    full = unpruned("sd", "ddim", changes={"eta": eta})
    assert_same(call("sd", "ddim", {2: [1, 3]}, changes={"eta": eta}), full, [1, 3])


def test_history_as_long_as_the_batch(call: Call, unpruned: Call) -> None:
    """Sigmas, timesteps and solver tables of as many entries as there are rows are left alone."""
    for scheduler in ("euler", "heun", "dpm_2m", "unipc", "deis"):
        for steps in (ROWS - 1, ROWS, 2 * ROWS):
            full = unpruned("sd", scheduler, steps=steps)
            assert_same(call("sd", scheduler, {2: [3]}, steps=steps), full, [3])


@pytest.mark.parametrize("name", [*TEXT_TO_IMAGE, *OTHERS])
def test_these_pipelines_would_show_a_mix_up(unpruned: Call, tiny_pipelines: ModuleType, name: str) -> None:
    """Rows, prompts and guidance matter in the tiny pipelines, far above the limit."""
    family = tiny_pipelines.FAMILIES[name]
    two = unpruned(name, prompts=2, steps=6)
    for row in range(2 * ROWS):
        others = [other for other in range(2 * ROWS) if other != row]
        assert min((two.pictures[row] - two.pictures[other]).abs().max() for other in others) > 10 * LIMIT
    if family.guided is not None:
        difference = unpruned(name, guidance=True).pictures - unpruned(name, guidance=False).pictures
        assert difference.abs().flatten(1).max(1).values.min() > 10 * LIMIT


def test_every_tiny_family_and_scheduler_is_in_the_matrix(tiny_pipelines: ModuleType) -> None:
    assert {*TEXT_TO_IMAGE, *OTHERS} == set(tiny_pipelines.FAMILIES)
    usual = {family.usual for family in tiny_pipelines.FAMILIES.values()}
    refused = {"flow_euler_stochastic"}
    assert {scheduler for _, scheduler in PAIRS} | usual | refused == set(tiny_pipelines.SCHEDULERS)
