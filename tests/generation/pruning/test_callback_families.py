"""The filter as a user writes it, in every family: previews by the pipeline's own decoder, then fewer rows."""

from collections.abc import Callable
from types import ModuleType
from typing import Any

import pytest
import torch

from ma_agiqa_core import CallableScorer
from ma_agiqa_core.generation import QualityFilterCallback
from ma_agiqa_core.generation.pipelines.families import family_of

ROWS = 4
BRIGHTNESS = CallableScorer(lambda pictures, prompts: pictures.mean((1, 2, 3)), name="brightness")
NAMES = [
    "sd",
    "sd_lcm",
    "lcm",
    "lcm_img2img",
    "sd_img2img",
    "sd_inpaint",
    "sd_inpaint_9",
    "sd_controlnet",
    "sd_controlnet_inpaint",
    "sd_ip_adapter",
    "sdxl",
    "sdxl_img2img",
    "sdxl_inpaint",
    "sdxl_controlnet",
    "sdxl_controlnet_inpaint",
    "kolors",
    "kolors_img2img",
    "sd3",
    "sd3_img2img",
    "sd3_inpaint",
    "flux",
    "flux_img2img",
    "flux_inpaint",
    "flux_ip_adapter",
    "flux2",
    "flux2_reference",
    "flux2_klein",
    "flux2_klein_reference",
    "qwen_image",
    "qwen_image_img2img",
    "qwen_image_inpaint",
    "sana",
    "wan",
    "wan_two",
]


@pytest.mark.parametrize("prompts", [1, 2])
@pytest.mark.parametrize("name", NAMES)
def test_the_best_previews_go_on_and_come_out_the_same(
    tiny_pipelines: ModuleType,
    unpruned: Callable[..., Any],
    name: str,
    prompts: int,
) -> None:
    full = unpruned(name, prompts=prompts, steps=6)
    pipe = tiny_pipelines.pipeline(name)
    arguments = tiny_pipelines.FAMILIES[name].arguments(ROWS, prompts=prompts, steps=6)
    generators = list(arguments["generator"])
    with QualityFilterCallback(pipe, BRIGHTNESS, prune_at={0.3: 3, 0.7: 1}, preview="vae") as callback:
        output = pipe(
            **arguments,
            output_type="pt",
            callback_on_step_end=callback,
            callback_on_step_end_tensor_inputs=callback.tensor_inputs,
        )
    pictures = torch.as_tensor(tiny_pipelines.pictures_of(output))
    rows = list(callback.survivors)
    assert [row // ROWS for row in rows] == list(range(prompts))
    assert (pictures - full.pictures[rows]).abs().max() <= 1e-4
    assert callback.network_evaluations < full.evaluations
    assert arguments["generator"] == generators
    for step in callback.history:
        for prompt in range(prompts):
            kept, dropped = (
                [step.scores[row] for row in rows if row // ROWS == prompt] for rows in (step.kept, step.dropped)
            )
            assert min(kept) >= max(dropped)


def test_every_tiny_pipeline_class_goes_through_the_callback(tiny_pipelines: ModuleType) -> None:
    shared = {name: type(tiny_pipelines.shared(name)).__name__ for name in tiny_pipelines.available()}
    left_out = set(shared.values()) - {shared[name] for name in NAMES if name in shared}
    assert left_out <= {"StableDiffusionControlNetImg2ImgPipeline", "StableDiffusionXLControlNetImg2ImgPipeline"}
    assert {family_of(tiny_pipelines.shared(name)).layout for name in NAMES if name in shared} >= {
        "plain",
        "flux",
        "qwen",
        "video",
    }
