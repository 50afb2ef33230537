"""Eight steps: a plan in the loop from calibration to picture, and previews that cost more than they save."""

import logging
from collections.abc import Callable, Iterator
from types import ModuleType
from typing import Any

import numpy as np
import pytest
import torch

from ma_agiqa_core import CallableScorer
from ma_agiqa_core.generation import QualityFilterCallback, best_of_n, calibrate
from ma_agiqa_core.generation.calibration import measure
from ma_agiqa_core.generation.pruning import look_cost

STEPS, N = 8, 4
FRACTIONS = (0.25, 0.5, 0.75)
PROMPTS = [f"cat {letter}" for letter in "abcdefghijkl"]
CALL: dict[str, Any] = {"height": 16, "width": 16, "num_inference_steps": STEPS, "guidance_scale": 1.0}
BRIGHT = CallableScorer(lambda images, _: [float(np.asarray(one).mean()) for one in images], name="bright", high=255.0)


class Work:
    """A clock by what was computed: a row's network evaluation takes 1 s, its preview with score `look` seconds."""

    def __init__(self, pipe: Any, look: float) -> None:
        self.seconds = 0.0
        self._pipe, self._look = pipe, look

    def evaluate(self, module: Any, args: Any, kwargs: dict[str, Any]) -> None:
        self.seconds += len(args[0] if args else kwargs["hidden_states"])

    def preview(self, latents: torch.Tensor) -> torch.Tensor:
        self.seconds += self._look * len(latents)
        vae = self._pipe.vae
        decoded = vae.decode(latents / vae.config.scaling_factor + vae.config.shift_factor, return_dict=False)[0]
        return (decoded / 2 + 0.5).clamp(0, 1)


@pytest.fixture
def work(tiny_pipelines: ModuleType, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[float], tuple[Any, Work]]]:
    pipe = tiny_pipelines.pipeline("flux")
    hooks = []

    def begin(look: float) -> tuple[Any, Work]:
        work = Work(pipe, look)
        hooks.append(pipe.transformer.register_forward_pre_hook(work.evaluate, with_kwargs=True))
        for module in (measure, look_cost):
            monkeypatch.setattr(module, "device_clock", lambda: work.seconds)
        return pipe, work

    yield begin
    for hook in hooks:
        hook.remove()


def test_a_plan_for_eight_steps_from_calibration_to_picture(work, caplog):
    pipe, seen = work(0.1)
    report = calibrate(pipe, BRIGHT, PROMPTS, n=N, fractions=FRACTIONS, preview=seen.preview, **CALL)
    assert report.preview_cost == pytest.approx(0.1)  # of a network evaluation
    assert report.recommended.prune_at
    assert report.recommended.cost < report.recommended.time < 1
    assert {round(f * STEPS) for f in report.recommended.prune_at} <= {2, 4, 6}
    with caplog.at_level(logging.WARNING):
        result = best_of_n(pipe, BRIGHT, PROMPTS[0], n=N, prune_at=report.plan, preview=seen.preview, **CALL)
    assert not caplog.records
    gain, cost = report.plan.evaluations(report.measured.previews, report.measured.final)
    assert result.scores[0] - report.measured.final[0].mean() == pytest.approx(gain[0], abs=0.1)
    assert result.network_evaluations == round(cost[0] * N * STEPS) < N * STEPS
    alone = pipe(PROMPTS[0], generator=torch.Generator("cpu").manual_seed(result.seeds[0]), **CALL).images[0]
    assert np.abs(np.asarray(result.images[0], int) - np.asarray(alone, int)).max() <= 1


def test_previews_that_cost_more_than_they_save_prune_nothing_and_say_why(work, caplog):
    pipe, seen = work(4.0)  # of eight evaluations
    report = calibrate(pipe, BRIGHT, PROMPTS, n=N, fractions=FRACTIONS, preview=seen.preview, **CALL)
    assert report.preview_cost == pytest.approx(4.0)
    assert (report.recommended.prune_at, report.plan.prune_at) == ({}, {})
    assert "each as long as 0.5 of a picture" in report.recommended.reason
    with caplog.at_level(logging.WARNING):
        result = best_of_n(pipe, BRIGHT, PROMPTS[0], n=N, prune_at=report.plan, preview=seen.preview, **CALL)
        QualityFilterCallback(pipe, BRIGHT, prune_at=report.recommended)
    assert result.network_evaluations == N * STEPS
    told = [record.message for record in caplog.records if "nothing is pruned: previews cost more" in record.message]
    assert len(told) == 2


def test_a_schedule_whose_previews_cost_more_than_they_saved_is_told_with_the_arithmetic(work, caplog):
    """Four previews of 5 s after four steps; two candidates were spared four evaluations each."""
    pipe, seen = work(5.0)
    expected = (
        "previews cost more than they saved: 4 previews with their scores took 20 s, and the 8 network evaluations "
        "that dropping saved would have taken 8 s"
    )
    with caplog.at_level(logging.WARNING):
        best_of_n(pipe, BRIGHT, PROMPTS[0], n=N, prune_at={0.5: 2}, preview=seen.preview, batch_size=2, **CALL)
    assert [expected in record.message for record in caplog.records] == [True]
    caplog.clear()
    tensors = CallableScorer(lambda images, _: [float(one.mean()) for one in images], name="bright")
    with (
        caplog.at_level(logging.WARNING),
        QualityFilterCallback(pipe, tensors, prune_at={0.5: 2}, preview=seen.preview) as callback,
    ):
        pipe(
            PROMPTS[0],
            num_images_per_prompt=N,
            generator=[torch.Generator("cpu").manual_seed(row) for row in range(N)],
            callback_on_step_end=callback,
            callback_on_step_end_tensor_inputs=callback.tensor_inputs,
            **CALL,
        )
    assert [expected in record.message for record in caplog.records] == [True]
