"""The pruning core: stages are reached at their steps, and `on_stage` alone decides."""

from collections.abc import Sequence
from types import ModuleType
from typing import Any

import pytest
import torch

from ma_agiqa_core.errors import MisusedCallbackError
from ma_agiqa_core.generation.pipelines.families import family_of
from ma_agiqa_core.generation.preview.decoding import Previewer
from ma_agiqa_core.generation.pruning.row_pruner import RowPruner, Stage, watched_calls

ROWS = 4


def run(pipe: Any, pruner: RowPruner, arguments: dict[str, Any]) -> torch.Tensor:
    with pruner, watched_calls(pipe, pruner.begin):
        return pipe(
            **arguments,
            output_type="pt",
            callback_on_step_end=lambda pipe, step, timestep, tensors: pruner.end_step(step, tensors),
            callback_on_step_end_tensor_inputs=pipe._callback_tensor_inputs,
        ).images


@pytest.mark.parametrize("name", ["sd", "sdxl", "flux"])
def test_on_stage_decides_and_survivors_are_the_same_pictures(tiny_pipelines: ModuleType, name: str) -> None:
    pipe = tiny_pipelines.pipeline(name)
    family = family_of(pipe)
    stages: list[Stage] = []

    def on_stage(stage: Stage) -> Sequence[int]:
        stages.append(stage)
        assert pruner.previews(Previewer(pipe, family, "vae")).shape[:2] == (len(stage.rows), 3)
        return [0, 2] if stage.number == 0 else [2]

    full = pipe(**tiny_pipelines.FAMILIES[name].arguments(ROWS), output_type="pt").images
    pruner = RowPruner(pipe, family, (0.3, 0.7), on_stage)
    pictures = run(pipe, pruner, tiny_pipelines.FAMILIES[name].arguments(ROWS))

    assert [(stage.number, stage.fraction, stage.rows) for stage in stages] == [
        (0, 0.3, (0, 1, 2, 3)),
        (1, 0.7, (0, 2)),
    ]
    calls = pipe.num_timesteps
    assert [stage.step for stage in stages] == [round(0.3 * calls) - 1, round(0.7 * calls) - 1]
    assert pruner.rows == (2,)
    assert (pictures - full[[2]]).abs().max() < 1e-4


def test_steps_of_a_call_that_did_not_begin_are_refused(tiny_pipelines: ModuleType) -> None:
    pipe = tiny_pipelines.pipeline("sd")
    pruner = RowPruner(pipe, family_of(pipe), (0.5,), lambda stage: stage.rows)

    with pruner, pytest.raises(MisusedCallbackError, match="got a call of another pipeline"):
        pruner.end_step(0, {"latents": torch.zeros(ROWS, 4, 2, 2)})

    assert "step" not in vars(pipe.scheduler)
    assert not pipe.unet._forward_pre_hooks


def test_watching_calls_leaves_the_pipeline_as_it_was(tiny_pipelines: ModuleType) -> None:
    pipe = tiny_pipelines.pipeline("sd")
    seen: list[int] = []

    with watched_calls(pipe, lambda call: seen.append(call["num_images_per_prompt"])):
        pipe(**tiny_pipelines.FAMILIES["sd"].arguments(2, steps=1), output_type="latent")

    assert seen == [2]
    assert "check_inputs" not in vars(pipe)
