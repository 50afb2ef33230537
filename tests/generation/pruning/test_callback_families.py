"""The filter as a user writes it, in every family: previews by the pipeline's own decoder, then fewer rows."""

from collections.abc import Callable
from typing import Any

import diffusers
import pytest
import tiny_pipelines
import torch

from ma_agiqa_core import CallableScorer
from ma_agiqa_core.generation import QualityFilterCallback
from ma_agiqa_core.generation.pipelines.families import FAMILIES

ROWS = 4
BRIGHTNESS = CallableScorer(lambda pictures, prompts: pictures.mean((1, 2, 3)), name="brightness")


def assert_rows_are_unlike(pictures: torch.Tensor) -> None:
    """Rows and prompts matter in the tiny pipelines, far above the limit: a mix-up would show."""
    for row, picture in enumerate(pictures):
        others = torch.cat([pictures[:row], pictures[row + 1 :]])
        assert (others - picture).abs().flatten(1).max(1).values.min() > 1e-3


@pytest.mark.parametrize("name", tiny_pipelines.FAMILIES)
def test_the_best_previews_go_on_and_come_out_the_same(
    unpruned: Callable[..., Any],
    name: str,
) -> None:
    prompts = 1 if tiny_pipelines.FAMILIES[name].one_prompt else 2
    full = unpruned(name, prompts=prompts)
    assert_rows_are_unlike(full.pictures)
    pipe = tiny_pipelines.pipeline(name)
    arguments = tiny_pipelines.FAMILIES[name].arguments(ROWS, prompts=prompts)
    generators = list(arguments["generator"])
    torch.manual_seed(0)  # see pruned_calls.py
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


def test_every_pipeline_of_the_table_has_a_tiny_one() -> None:
    tiny = {type(tiny_pipelines.shared(name)).__name__ for name in tiny_pipelines.available()}
    in_table = {name for family in FAMILIES for name in family.pipelines if hasattr(diffusers, name)}
    assert in_table <= tiny
