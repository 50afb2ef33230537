"""Our mPLUG-Owl2 against numbers of the published code."""

import json
import zlib
from typing import Any

import numpy as np
import pytest
import torch
from project_paths import FIXTURES

from ma_agiqa_core.semantic.mplug_owl2 import MplugOwl2

FIXTURE = json.loads((FIXTURES / "mplug_owl2.json").read_text(encoding="utf-8"))
PROMPTS = {name: expected["input_ids"] for name, expected in FIXTURE["expected"].items()}


def published_state_dict() -> dict[str, torch.Tensor]:
    """The fixture's weights, as fixtures/README says; tables that the model computes are left out."""
    state = {}
    for key, made in FIXTURE["state_dict"].items():
        if not made.get("buffer"):
            random = np.random.RandomState(zlib.crc32(f"{FIXTURE['seed']}:{key}".encode()))
            values = made["offset"] + made["scale"] * random.standard_normal(made["shape"])
            state[key] = torch.from_numpy(values).float()
    return state


def published_pixels() -> torch.Tensor:
    random = np.random.RandomState(FIXTURE["pixel_values_seed"])
    return torch.from_numpy(random.standard_normal(FIXTURE["pixel_values_shape"])).float()


@pytest.fixture(scope="module")
def state() -> dict[str, torch.Tensor]:
    return published_state_dict()


@pytest.fixture(scope="module")
def owl(state: dict[str, torch.Tensor]) -> MplugOwl2:
    return MplugOwl2.from_reference(FIXTURE["config"], state)


def assert_summary(got: torch.Tensor, expected: dict[str, Any]) -> None:
    assert list(got.shape) == expected["shape"]
    assert float(got.mean()) == pytest.approx(expected["mean"], abs=1e-4 * expected["std"])
    assert float(got.std()) == pytest.approx(expected["std"], rel=1e-4)
    assert got.flatten()[:8].tolist() == pytest.approx(expected["first8"], abs=1e-4 * expected["std"])


def test_stages_are_those_of_the_published_code(owl: MplugOwl2) -> None:
    patches = owl.vision_model(published_pixels())
    assert_summary(patches, FIXTURE["vision_last_hidden"])
    assert_summary(owl.visual_abstractor(patches), FIXTURE["abstractor_output"])


def test_features_are_those_of_the_published_code(owl: MplugOwl2) -> None:
    features = owl.features(published_pixels(), PROMPTS)

    assert list(features) == list(PROMPTS)
    for name, expected in FIXTURE["expected"].items():
        wanted = torch.tensor(expected["mean_last_hidden_state"])
        assert features[name].dtype == torch.float32
        torch.testing.assert_close(features[name], wanted, rtol=0, atol=1e-4 * float(wanted.std()))


def test_logits_are_those_of_the_published_code(owl: MplugOwl2, state: dict[str, torch.Tensor]) -> None:
    prompts = [owl._prompt(name, ids) for name, ids in PROMPTS.items()]
    prefix, image, text = owl.last_hidden_states(owl.image_tokens(published_pixels()), prompts)

    for q, expected in enumerate(FIXTURE["expected"].values()):
        after = len(prompts[q].after)
        assert prefix.lengths[q] + image.shape[2] + after == expected["sequence_length"]
        logits = text[q, :, after - 1] @ state["lm_head.weight"].T
        wanted = torch.tensor(expected["logits_last_token_first8"])
        torch.testing.assert_close(logits[:, :8], wanted, rtol=0, atol=1e-4 * float(wanted.std()))
