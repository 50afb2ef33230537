"""The matrix: families x schedulers x guidance x survivors, row by row against the call without pruning."""

from collections.abc import Callable
from typing import Any

import pytest
import tiny_pipelines

ROWS = 4
LIMIT = 1e-4
SURVIVORS = {"one": (2,), "two": (0, 3), "all but one": (0, 2, 3)}
# One of each way in which rows are kept: halves, packed tokens, lists, caches, counts, another dimension, momentum.
KINDS = ("sd", "sdxl", "flux", "z_image", "qwen_image_21", "flux2_klein_kv", "ideogram4", "hidream", "hunyuan_image")
Call = Callable[..., Any]
Same = Callable[..., None]
FAMILIES = tuple(tiny_pipelines.FAMILIES)
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
    # What a scheduler keeps does not depend on the family; what the family gives to its step does.
    *(("sdxl", scheduler) for scheduler in ("euler_ancestral", "heun", "unipc")),
    *(("sd_inpaint", scheduler) for scheduler in ("euler_ancestral", "pndm")),
    ("sdxl_img2img", "lcm"),
    ("kolors", "dpm_sde"),
    *(("sd3", scheduler) for scheduler in FLOW),
    ("sana", "flow_unipc"),
    ("wan", "flow_euler"),
    ("sd3_img2img", "flow_heun"),
    ("flux_inpaint", "flow_euler"),
    ("qwen_image", "flow_unipc"),
    ("flux2", "flow_unipc"),
    ("z_image", "flow_heun"),
)


@pytest.mark.parametrize("guidance", [True, False], ids=["guided", "unguided"])
@pytest.mark.parametrize("name", FAMILIES)
def test_survivors_are_the_same_pictures_in_every_family(
    call: Call, unpruned: Call, assert_same: Same, name: str, guidance: bool
) -> None:
    if guidance and tiny_pipelines.FAMILIES[name].guided is None:
        pytest.skip("this family has no guidance")
    full = unpruned(name, guidance=guidance)
    for rows in SURVIVORS.values() if guidance else (SURVIVORS["one"],):
        pruned = call(name, prunings={1: rows}, guidance=guidance)
        assert_same(pruned, full, rows)
        share = (1 + (full.calls - 1) * len(rows) / ROWS) / full.calls
        assert pruned.evaluations == pytest.approx(full.evaluations * share)


@pytest.mark.parametrize(("name", "scheduler"), PAIRS)
def test_survivors_are_the_same_pictures_with_every_scheduler(
    call: Call, unpruned: Call, assert_same: Same, name: str, scheduler: str
) -> None:
    """After every call at which pruning may happen: Heun, PNDM and the multistep schedulers then keep other history."""
    full = unpruned(name, scheduler)
    for after in range(1, full.calls):
        row = after % ROWS
        assert_same(call(name, scheduler, {after: [row]}), full, [row])
    for rows in (SURVIVORS["two"], SURVIVORS["all but one"]):
        assert_same(call(name, scheduler, {full.calls // 2: rows}), full, rows)


@pytest.mark.parametrize("name", KINDS)
def test_two_prunings_with_two_prompts(call: Call, unpruned: Call, assert_same: Same, name: str) -> None:
    """The first leaves three rows, another number of each prompt's; the second leaves one.

    test_callback_families.py prunes every family twice.
    """
    full = unpruned(name, prompts=2, steps=6)
    assert full.calls >= 3
    assert_same(call(name, prunings={1: [1, 3, 6], 2: [6]}, prompts=2, steps=6), full, [6])
    assert_same(call(name, prunings={1: [0, 2, 4, 7], 2: [2, 7]}, prompts=2, steps=6), full, [2, 7])


@pytest.mark.parametrize("scheduler", ["euler_ancestral", "heun", "unipc"])
def test_pruning_after_every_call(call: Call, unpruned: Call, assert_same: Same, scheduler: str) -> None:
    full = unpruned("sdxl", scheduler, steps=4)
    prunings = {1: (0, 2, 3), 2: (2, 3), 3: (2,)}
    assert_same(call("sdxl", scheduler, prunings, steps=4), full, [2])


@pytest.mark.parametrize("name", FAMILIES)
def test_these_pipelines_would_show_a_mix_up(unpruned: Call, name: str) -> None:
    """Rows, prompts and guidance matter in the tiny pipelines, far above the limit."""
    family = tiny_pipelines.FAMILIES[name]
    prompts = 1 if family.one_prompt else 2
    two = unpruned(name, prompts=prompts, steps=6)
    for row in range(prompts * ROWS):
        others = [other for other in range(prompts * ROWS) if other != row]
        assert min((two.pictures[row] - two.pictures[other]).abs().max() for other in others) > 10 * LIMIT
    if family.guided is not None:
        difference = unpruned(name, guidance=True).pictures - unpruned(name, guidance=False).pictures
        assert difference.abs().flatten(1).max(1).values.min() > 10 * LIMIT


def test_every_tiny_scheduler_is_in_the_matrix() -> None:
    usual = {family.usual for family in tiny_pipelines.FAMILIES.values()}
    refused = {"flow_euler_stochastic"}
    assert {scheduler for _, scheduler in PAIRS} | usual | refused == set(tiny_pipelines.SCHEDULERS)
