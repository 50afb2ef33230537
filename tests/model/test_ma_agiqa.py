"""The whole network, small and with random weights: what goes in, what comes out, what training does."""

import dataclasses

import pytest
import torch
from torch import Tensor

from ma_agiqa_core.model import MaAgiqa, MaAgiqaConfig


def inputs(count: int = 3, width: int = 10) -> tuple[Tensor, dict[str, Tensor]]:
    torch.manual_seed(1)
    vectors = {"semantic_content": torch.randn(count, width), "coherence": torch.randn(count, width)}
    return torch.rand(count, 3, 64, 64) * 2 - 1, vectors


def test_one_score_a_picture_that_does_not_depend_on_the_batch(tiny_model: MaAgiqa) -> None:
    pixels, vectors = inputs()

    with torch.inference_mode():
        together = tiny_model(pixels, **vectors)
        alone = [tiny_model(pixels[i : i + 1], **{k: v[i : i + 1] for k, v in vectors.items()}) for i in range(3)]

    assert together.shape == (3,)
    assert together.std() > 0.01
    assert torch.allclose(together, torch.cat(alone), atol=1e-5)


def test_both_vectors_and_the_picture_count_and_are_not_interchangeable(tiny_model: MaAgiqa) -> None:
    pixels, vectors = inputs()
    swapped = {"semantic_content": vectors["coherence"], "coherence": vectors["semantic_content"]}

    with torch.inference_mode():
        scores = tiny_model(pixels, **vectors)
        others = [tiny_model(pixels, **swapped), tiny_model(pixels.flip(3), **vectors)]

    assert all((scores - other).abs().min() > 1e-5 for other in others)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_vectors_come_in_any_float_dtype_with_or_without_a_middle_dimension(
    tiny_model: MaAgiqa, dtype: torch.dtype
) -> None:
    pixels, vectors = inputs()
    stored = {name: vector[:, None].to(dtype) for name, vector in vectors.items()}

    with torch.inference_mode():
        found = tiny_model(pixels, **stored)
        expected = tiny_model(pixels, **{name: vector[:, 0].float() for name, vector in stored.items()})

    assert torch.equal(found, expected)


def test_runs_in_bfloat16(tiny_model: MaAgiqa) -> None:
    pixels, vectors = inputs()

    with torch.inference_mode():
        expected = tiny_model(pixels, **vectors)
        found = tiny_model.bfloat16()(pixels, **vectors)

    assert found.dtype == torch.bfloat16
    assert (found.float() - expected).abs().max() < 0.1 * expected.abs().max()


def test_visual_expert_alone(tiny_config: MaAgiqaConfig) -> None:
    model = MaAgiqa(dataclasses.replace(tiny_config, semantic_dim=0)).eval()
    pixels, vectors = inputs()

    assert model(pixels).shape == (3,)
    assert not any("semantic" in name or "gate" in name for name in model.state_dict())
    with pytest.raises(
        ValueError, match=r"Expected no coherence, got \(3, 10\): this model is the visual expert alone"
    ):
        model(pixels, coherence=vectors["coherence"])


@pytest.mark.parametrize(
    "backbone", ["vit_tiny_patch16_224", "vit_small_patch14_reg4_dinov2", "eva02_tiny_patch14_224"]
)
def test_other_backbones_need_no_other_setting(backbone: str) -> None:
    """14 x 14 and 16 x 16 patches; the window of 4 does not divide the former."""
    model = MaAgiqa(
        MaAgiqaConfig(backbone=backbone, backbone_blocks=(0, 1), stage_widths=(16, 8), semantic_dim=0)
    ).eval()

    with torch.inference_mode():
        assert model(torch.rand(2, 3, 224, 224)).isfinite().all()


@pytest.mark.parametrize(
    ("shape", "found"),
    [((3, 64, 64), r"\(3, 64, 64\)"), ((2, 3, 64, 32), r"\(2, 3, 64, 32\)"), ((2, 1, 64, 64), "1, 64")],
)
def test_other_pixels_are_refused(tiny_model: MaAgiqa, shape: tuple[int, ...], found: str) -> None:
    with pytest.raises(ValueError, match=rf"Expected float pixels \(B, 3, 64, 64\), got torch.float32 .*{found}"):
        tiny_model(torch.zeros(shape), **inputs(shape[0])[1])


def test_bytes_are_refused(tiny_model: MaAgiqa) -> None:
    with pytest.raises(ValueError, match=r"got torch.uint8 \(2, 3, 64, 64\). Use preprocess.visual_pixels"):
        tiny_model(torch.zeros(2, 3, 64, 64, dtype=torch.uint8), **inputs(2)[1])


def test_vectors_of_another_model_are_refused(tiny_model: MaAgiqa) -> None:
    pixels, vectors = inputs()

    with pytest.raises(
        ValueError, match=r"Expected coherence \(3, 10\), got \(3, 8\). Use the semantic model that this"
    ):
        tiny_model(pixels, semantic_content=vectors["semantic_content"], coherence=torch.zeros(3, 8))
    with pytest.raises(ValueError, match=r"Expected semantic_content \(3, 10\), got \(2, 10\)"):
        tiny_model(pixels, semantic_content=torch.zeros(2, 10), coherence=vectors["coherence"])
    with pytest.raises(ValueError, match=r"Expected semantic_content \(3, 10\), got torch.int64"):
        tiny_model(pixels, semantic_content=torch.zeros(3, 10).long(), coherence=vectors["coherence"])
    with pytest.raises(ValueError, match=r"Expected coherence \(3, 10\), got None"):
        tiny_model(pixels, semantic_content=vectors["semantic_content"])


def test_training_is_random_and_reaches_every_parameter(tiny_model: MaAgiqa) -> None:
    pixels, vectors = inputs(8)
    tiny_model.train()

    first, second = tiny_model(pixels, **vectors), tiny_model(pixels, **vectors)
    (first - 3).square().mean().backward()

    assert (first - second).abs().min() > 0
    assert all(parameter.grad is not None and parameter.grad.isfinite().all() for parameter in tiny_model.parameters())
    still = {name for name, parameter in tiny_model.named_parameters() if not _moves(parameter)}
    assert all(name.endswith(".key.bias") for name in still)  # adds the same to all logits of a row
    assert torch.equal(tiny_model.eval()(pixels, **vectors), tiny_model(pixels, **vectors))


def _moves(parameter: Tensor) -> bool:
    assert parameter.grad is not None
    return bool(parameter.grad.abs().max() > 1e-9)


def test_training_lowers_the_loss(tiny_model: MaAgiqa) -> None:
    pixels, vectors = inputs(8)
    target = torch.linspace(1, 4, 8)
    optimizer = torch.optim.Adam(tiny_model.parameters(), lr=1e-3)
    losses = []
    for _ in range(20):
        loss = (tiny_model.train()(pixels, **vectors) - target).square().mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())

    assert sum(losses[-3:]) < 0.5 * sum(losses[:3])


def test_without_dropout_training_computes_what_evaluation_does(tiny_config: MaAgiqaConfig) -> None:
    model = MaAgiqa(dataclasses.replace(tiny_config, dropout=0.0, drop_path=0.0))
    pixels, vectors = inputs()

    assert torch.allclose(model.train()(pixels, **vectors), model.eval()(pixels, **vectors), atol=1e-6)
