"""Recorded answers of the denoiser are replayed, and only the rows that are left go through the model."""

from collections.abc import Callable
from typing import Any

import pytest
import torch

ROWS, SHAPE = 3, (4, 2, 2)
GUIDANCE = ("denoised", "uncond_denoised", "cond_denoised")


class Denoiser:
    """Halves what it is given, tells its hooks, and counts its rows."""

    tag = "a denoiser"

    def __init__(self) -> None:
        self.asked: list[int] = []

    def __call__(self, x: torch.Tensor, sigma: torch.Tensor, model_options: dict[str, Any]) -> torch.Tensor:
        self.asked.append(len(x))
        denoised = x / 2
        for hook in model_options.get("sampler_post_cfg_function", []):
            denoised = hook({"denoised": denoised, "uncond_denoised": x / 4, "cond_denoised": x})
        return denoised


@pytest.fixture
def replay(pack_module: Callable[[str], Any]) -> Callable[..., Any]:
    """Replays `answers` for some of three rows."""
    kind = pack_module("nodes.sampling.model_replay").ModelReplay

    def make(model: Denoiser, rows: list[int], answers: dict[int, list[Any]], keep: bool = True) -> Any:
        return kind(model, rows, {row: answers[row] for row in rows}, ROWS, {"model_options": {}}, keep=keep)

    return make


@pytest.fixture
def steps() -> list[torch.Tensor]:
    return list(torch.randn(2, ROWS, *SHAPE, generator=torch.Generator().manual_seed(0)))


def test_known_answers_are_replayed_and_new_ones_asked_for(
    replay: Callable[..., Any], steps: list[torch.Tensor]
) -> None:
    model, sigma = Denoiser(), torch.ones(ROWS)
    answers: dict[int, list[Any]] = {row: [] for row in range(ROWS)}
    first = replay(model, [0, 1, 2], answers)
    torch.testing.assert_close(first(steps[0], sigma, model_options={}), steps[0] / 2)
    assert first.is_live

    second = replay(model, [0, 2], answers, keep=False)
    replayed = second(torch.full_like(steps[0], 9.0), sigma, model_options={})  # whatever the sampler asks with
    assert not second.is_live
    torch.testing.assert_close(replayed[[0, 2]], steps[0][[0, 2]] / 2)
    assert not replayed[1].any()

    asked = second(steps[1], sigma, model_options={})
    assert second.is_live
    torch.testing.assert_close(asked[[0, 2]], steps[1][[0, 2]] / 2)
    assert not asked[1].any()
    assert model.asked == [3, 2]
    assert [len(given) for given in answers.values()] == [1, 1, 1]  # the last run's are not kept


def test_a_hook_of_the_sampler_sees_the_guidance_again(replay: Callable[..., Any], steps: list[torch.Tensor]) -> None:
    model, sigma = Denoiser(), torch.ones(ROWS)
    answers: dict[int, list[Any]] = {row: [] for row in range(ROWS)}
    seen: list[dict[str, torch.Tensor]] = []

    def hook(state: dict[str, Any]) -> torch.Tensor:
        seen.append({name: state[name] for name in GUIDANCE})
        return state["denoised"]

    options = {"sampler_post_cfg_function": [hook]}
    replay(model, [0, 1, 2], answers)(steps[0], sigma, model_options=options)
    replay(model, [1], answers)(steps[0], sigma, model_options=options)

    assert model.asked == [3]
    torch.testing.assert_close(seen[0]["uncond_denoised"], steps[0] / 4)
    for name in GUIDANCE:
        torch.testing.assert_close(seen[1][name][1], seen[0][name][1])
        assert not seen[1][name][[0, 2]].any()


def test_other_attributes_are_those_of_the_denoiser(replay: Callable[..., Any]) -> None:
    assert replay(Denoiser(), [0], {0: []}).tag == "a denoiser"
