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


@pytest.mark.parametrize("name", FAMILIES)
def test_survivors_are_the_same_pictures_in_every_family(
    call: Call, unpruned: Call, assert_same: Same, name: str
) -> None:
    """With guidance and without, which also shows here, far above the limit."""
    is_guided = tiny_pipelines.FAMILIES[name].guided is not None
    full = {guidance: unpruned(name, guidance=guidance) for guidance in {is_guided, False}}
    for guidance, rows in ((is_guided, SURVIVORS["all but one"]), *((guidance, SURVIVORS["one"]) for guidance in full)):
        pruned = call(name, prunings={1: rows}, guidance=guidance)
        assert_same(pruned, full[guidance], rows)
        share = (1 + (full[guidance].calls - 1) * len(rows) / ROWS) / full[guidance].calls
        assert pruned.evaluations == pytest.approx(full[guidance].evaluations * share)
    if is_guided:
        difference = full[True].pictures - full[False].pictures
        assert difference.abs().flatten(1).max(1).values.min() > 10 * LIMIT


@pytest.mark.parametrize(("name", "scheduler"), PAIRS)
def test_survivors_are_the_same_pictures_with_every_scheduler(
    call: Call, unpruned: Call, assert_same: Same, name: str, scheduler: str
) -> None:
    """After every call at which pruning may happen: Heun, PNDM and the multistep schedulers then keep other history.

    In families other than SD at the first, which shows what the family gives to the scheduler's step.
    """
    full = unpruned(name, scheduler)
    for after in range(1, full.calls if name in ("sd", "sd3") else 2):
        row = after % ROWS
        assert_same(call(name, scheduler, {after: [row]}), full, [row])
    assert_same(call(name, scheduler, {full.calls // 2: SURVIVORS["two"]}), full, SURVIVORS["two"])


@pytest.mark.parametrize("name", KINDS)
def test_two_prunings_with_two_prompts(call: Call, unpruned: Call, assert_same: Same, name: str) -> None:
    """The first leaves another number of each prompt's rows, and the second of one prompt only.

    test_callback_families.py prunes every family twice.
    """
    full = unpruned(name, prompts=2)
    assert full.calls >= 3
    assert_same(call(name, prunings={1: [0, 2, 3, 6], 2: [6]}, prompts=2), full, [6])


@pytest.mark.parametrize("scheduler", ["euler_ancestral", "heun"])
def test_pruning_after_every_call(call: Call, unpruned: Call, assert_same: Same, scheduler: str) -> None:
    full = unpruned("sdxl", scheduler, steps=4)
    prunings = {1: (0, 2, 3), 2: (2, 3), 3: (2,)}
    assert_same(call("sdxl", scheduler, prunings, steps=4), full, [2])


def test_every_tiny_scheduler_is_in_the_matrix() -> None:
    usual = {family.usual for family in tiny_pipelines.FAMILIES.values()}
    refused = {"flow_euler_stochastic"}
    assert {scheduler for _, scheduler in PAIRS} | usual | refused == set(tiny_pipelines.SCHEDULERS)
