"""Whole numbers and others, from whatever library; and where the generation takes them."""

import json
from types import ModuleType
from typing import Any

import numpy as np
import pytest
import torch

from ma_agiqa_core import CallableScorer
from ma_agiqa_core.arguments.numbers import plain, real_number, whole_number
from ma_agiqa_core.errors import MaAgiqaError
from ma_agiqa_core.generation import QualityFilterCallback, best_of_n, calibrate
from ma_agiqa_core.records.png_metadata import read_metadata

BRIGHT = CallableScorer(
    lambda images, _: [float(np.asarray(image).mean()) for image in images], name="bright", high=255.0
)
CALL: dict[str, Any] = {"height": 16, "width": 16, "num_inference_steps": 4}


@pytest.mark.parametrize("three", [3, np.int64(3), np.uint8(3), np.array(3), torch.tensor(3)])
def test_whole_numbers(three):
    assert (whole_number(three), type(whole_number(three))) == (3, int)
    assert (real_number(three), type(real_number(three))) == (3.0, float)
    assert type(plain(three)) is int


@pytest.mark.parametrize("value", [True, np.bool_(True), np.array(True), torch.tensor(True), "3", None, [3], 3j, b"3"])
def test_no_numbers(value):
    assert whole_number(value) is None
    assert real_number(value) is None


@pytest.mark.parametrize("half", [0.5, np.float32(0.5), np.array(0.5), torch.tensor(0.5)])
def test_real_numbers(half):
    assert whole_number(half) is None
    assert (real_number(half), type(real_number(half))) == (0.5, float)


def test_best_of_n_takes_them(tiny_pipelines: ModuleType, tmp_path: Any) -> None:
    pipe = tiny_pipelines.pipeline("sd")
    plainly = best_of_n(pipe, BRIGHT, "a cat", n=4, keep=2, seed=3, prune_at={0.5: 2}, batch_size=2, **CALL)
    given: dict[str, Any] = {
        "n": np.int32(4),
        "keep": np.int64(2),
        "seed": np.uint64(3),
        "prune_at": {np.float64(0.5): np.int64(2)},
        "batch_size": torch.tensor(2),
        "max_rounds": np.int8(1),
        "min_score": np.float32(0),
        "num_inference_steps": np.int64(4),
        "guidance_scale": np.float32(7.5),
    }
    result = best_of_n(pipe, BRIGHT, "a cat", **{**CALL, **given}, save_dir=tmp_path)
    assert (result.seeds, result.network_evaluations) == (plainly.seeds, plainly.network_evaluations)
    json.dumps([result.seeds, result.scores, result.history[0].fraction, result.history[0].kept])
    metadata = read_metadata(result.paths[0])
    assert metadata is not None
    assert (metadata.seed, metadata.steps, metadata.guidance) == (result.seeds[0], 4, 7.5)


def test_calibrate_takes_them(tiny_pipelines: ModuleType, tmp_path: Any) -> None:
    pipe = tiny_pipelines.pipeline("sd")
    given: dict[str, Any] = {"n": np.int64(2), "seed": np.int64(3), "target_share": np.float32(0.5)}
    given |= {"fractions": np.array([0.5]), "batch_size": np.int64(2), "num_inference_steps": np.int64(4)}
    prompts: Any = np.array(["a cat", "two cats"])
    report = calibrate(pipe, BRIGHT, prompts, **{**CALL, **given})
    assert report.setting.steps == 4
    assert report.setting.arguments["num_inference_steps"] == 4
    report.save(tmp_path / "report.json")


def test_the_callback_takes_them(tiny_pipelines: ModuleType) -> None:
    pipe = tiny_pipelines.pipeline("sd")
    given: dict[str, Any] = {"prune_at": {np.float32(0.5): np.int64(1)}, "min_score": np.float64(0)}
    with QualityFilterCallback(pipe, BRIGHT, preview="vae", **given) as callback:
        pipe(
            "a cat",
            num_images_per_prompt=2,
            generator=tiny_pipelines.generators(2),
            callback_on_step_end=callback,
            callback_on_step_end_tensor_inputs=callback.tensor_inputs,
            **CALL,
        )
    assert len(callback.survivors) == 1


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"n": True}, "Expected n as a whole number of at least 1, got True"),
        ({"n": "4"}, "Expected n as a whole number of at least 1, got '4'"),
        ({"batch_size": "4"}, "Expected batch_size as a whole number of at least 1, got '4'"),
        ({"keep": np.bool_(True)}, "Expected keep as a whole number of at least 1, got"),
        ({"seed": 2.5}, r"Expected seed as a whole number, got 2\.5"),
        ({"seed": "7"}, "Expected seed as a whole number, got '7'"),
        ({"seed": None}, "Expected seed as a whole number, got None"),
        ({"seed": np.int64(-1)}, r"Expected a seed from 0 to 2\*\*63 - n \* max_rounds, got -1"),
        ({"seed": 2**63}, r"Expected a seed from 0 to 2\*\*63 - n \* max_rounds, got 9223372036854775808"),
        ({"min_score": "high"}, "Expected a finite min_score, or None, got 'high'"),
        ({"min_score": True}, "Expected a finite min_score, or None, got True"),
    ],
)
def test_what_is_no_number_is_told(tiny_pipelines: ModuleType, options: dict[str, Any], message: str) -> None:
    with pytest.raises(MaAgiqaError, match=message):
        best_of_n(tiny_pipelines.pipeline("sd"), BRIGHT, "a cat", **{"n": 2, **options}, **CALL)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"target_share": "0.9"}, "Expected target_share above 0 and up to 1, got '0.9'"),
        ({"fractions": 0.5}, r"Expected a list of fractions, got 0\.5"),
        ({"fractions": ["half"]}, "Expected fractions between 0 and 1, got 'half'"),
        ({"prompts": 3}, "Expected a text or a list of texts as prompts, got 3"),
        ({"n": "4"}, "Expected n as a whole number of at least 1, got '4'"),
    ],
)
def test_calibrate_tells_it_too(tiny_pipelines: ModuleType, options: dict[str, Any], message: str) -> None:
    given: dict[str, Any] = {"prompts": "a cat", "n": 2, **CALL, **options}
    with pytest.raises(MaAgiqaError, match=message):
        calibrate(tiny_pipelines.pipeline("sd"), BRIGHT, given.pop("prompts"), **given)


def test_the_last_seed(tiny_pipelines: ModuleType) -> None:
    result = best_of_n(tiny_pipelines.pipeline("sd"), BRIGHT, "a cat", n=2, keep=2, seed=2**63 - 2, **CALL)
    assert sorted(result.seeds) == [2**63 - 2, 2**63 - 1]
