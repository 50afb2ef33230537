"""The network against numbers that the published code computed (tests/fixtures/ma_agiqa.json)."""

import json
import zlib
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from project_paths import FIXTURES
from torch import Tensor, nn

from ma_agiqa_core.checkpoint import convert_reference
from ma_agiqa_core.model import MaAgiqa
from ma_agiqa_core.model.without_weights import without_weights

FIXTURE = json.loads((FIXTURES / "ma_agiqa.json").read_text(encoding="utf-8"))


@pytest.fixture(scope="module")
def model() -> MaAgiqa:
    torch.set_num_threads(1)
    state, config = convert_reference(published_state_dict())
    model = without_weights(config)
    model.load_state_dict(state, assign=True)
    return model.eval()


@pytest.fixture(scope="module")
def pixels() -> Tensor:
    """(4, 3, 224, 224): the fixture's pictures, resized by OpenCV, normalised."""
    cv2 = pytest.importorskip("cv2", reason="the published preprocessing: pip install opencv-python-headless")
    pictures = [
        cv2.resize(picture(height, width, seed), (224, 224), interpolation=cv2.INTER_CUBIC)
        for (height, width), seed in zip(FIXTURE["image_sizes_hw"], FIXTURE["image_seeds"], strict=True)
    ]
    return (torch.from_numpy(np.stack(pictures)).permute(0, 3, 1, 2) / 255 - 0.5) / 0.5


@pytest.fixture(scope="module")
def computed(model: MaAgiqa, pixels: Tensor) -> dict[str, Tensor]:
    """The scores and the intermediates, in the fixture's layouts."""
    found: dict[str, Tensor] = {"pixels": pixels}

    def keep(name: str, layout: Callable[[Tensor], Tensor]) -> Callable[[nn.Module, Any, Tensor], None]:
        return lambda module, inputs, output: found.update({name: layout(output)})

    hooks = [
        model.stage1.channel_attention.register_forward_hook(
            keep("after_tablock1", lambda x: x.unflatten(2, (28, 28)))
        ),
        model.stage1.swin.register_forward_hook(keep("after_swin1", lambda x: x.mT.unflatten(2, (28, 28)))),
        model.stage2.swin.register_forward_hook(keep("after_swin2", lambda x: x.mT.unflatten(2, (28, 28)))),
        model.patch_quality.register_forward_hook(keep("patch_quality", lambda x: x)),
        model.fusion.gate.register_forward_hook(keep("gating", lambda x: x)),
    ]
    content, coherence = semantic_vectors()
    with torch.inference_mode():
        found["scores"] = model(pixels, semantic_content=content, coherence=coherence)
    for hook in hooks:
        hook.remove()
    return found


def published_state_dict() -> dict[str, Tensor]:
    """The fixture's weights under their published names; buffers as the published modules hold them, of any content."""
    state = {}
    for key, entry in FIXTURE["state_dict"].items():
        if entry.get("buffer"):
            state[key] = torch.zeros(entry["shape"])
        else:
            random = np.random.RandomState(zlib.crc32(f"{FIXTURE['seed']}:{key}".encode()))
            values = random.standard_normal(entry["shape"])
            values *= entry["scale"]
            values += entry["offset"]
            state[key] = torch.from_numpy(values.astype(np.float32))
    return state


def picture(height: int, width: int, seed: int) -> np.ndarray:
    """(H, W, 3) uint8 RGB, as the fixture's README says."""
    random = np.random.RandomState(seed)
    down, across = np.mgrid[0:height, 0:width].astype(np.float64)
    out = np.zeros((height, width, 3))
    for channel in range(3):
        for _ in range(6):
            fx, fy = random.uniform(0.002, 0.2), random.uniform(0.002, 0.2)
            phase, amplitude = random.uniform(0, 6.283), random.uniform(10, 40)
            out[..., channel] += amplitude * np.sin(fx * across + fy * down + phase)
    out += 128 + random.uniform(-20, 20, out.shape)
    return np.clip(out.round(), 0, 255).astype(np.uint8)


def semantic_vectors() -> tuple[Tensor, Tensor]:
    """Semantic content and coherence, each (4, 1, 4096)."""
    random = np.random.RandomState(FIXTURE["semantic_seed"])
    content, coherence = (torch.from_numpy(random.standard_normal((4, 1, 4096))).float() for _ in range(2))
    return content, coherence


def test_scores_are_the_published_ones(computed: dict[str, Tensor]) -> None:
    expected = torch.tensor(FIXTURE["expected_scores"])

    assert computed["scores"].shape == (4,)
    assert (computed["scores"] - expected).abs().max() / expected.std() < 1e-4


@pytest.mark.parametrize("name", FIXTURE["intermediates"])
def test_intermediates_are_the_published_ones(computed: dict[str, Tensor], name: str) -> None:
    expected, found = FIXTURE["intermediates"][name], computed[name].double()
    bound = 1e-4 * expected["std"]

    assert list(found.shape) == expected["shape"]
    assert abs(found.mean() - expected["mean"]) < bound
    assert abs(found.std() - expected["std"]) < bound
    assert (found.flatten()[:8] - torch.tensor(expected["first8"], dtype=torch.float64)).abs().max() < bound
