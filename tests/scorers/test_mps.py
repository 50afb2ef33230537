"""Every network under the rules of Apple's graphics processor (`mps_rules.py`): the scores are those of the CPU."""

from __future__ import annotations

import copy
from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import numpy as np
import pytest
import tiny_chat_models
import tiny_pipelines
import torch
import torch.nn.functional as F

from ma_agiqa_core import CallableScorer, EnsembleScorer, load_scorer, rank
from ma_agiqa_core.scorers.scorer import Scorer
from ma_agiqa_core.semantic.extractor import SemanticExtractor
from ma_agiqa_core.training.losses import rank_loss, squared_error

Load = Callable[[str], Scorer]


@pytest.fixture(scope="module")
def mps_rules() -> Callable[[], AbstractContextManager[None]]:
    from mps_rules import mps_rules

    return mps_rules


@pytest.fixture(scope="module")
def pictures() -> list[np.ndarray]:
    """Of the sizes that people generate, and small and strange ones: few are divided by what lite makes of them."""
    random = np.random.default_rng(0)
    sizes = [(512, 512), (768, 512), (130, 97), (5, 300), (1, 1)]
    return [random.integers(0, 256, (*size, 3), dtype=np.uint8) for size in sizes]


@pytest.fixture(scope="module")
def loaders(tiny_models: ModuleType, tmp_path_factory: pytest.TempPathFactory, owl_folder: Path) -> dict[str, Load]:
    """A scorer of every kind by a name, on a device."""
    folder = tmp_path_factory.mktemp("mps")
    clip, pickscore = tiny_models.write_clip(folder / "clip", seed=1), tiny_models.write_clip(folder / "pickscore")
    siglip = tiny_models.write_clip(folder / "siglip", model_type="siglip")
    visual = tiny_models.write_checkpoint(folder / "visual.safetensors", 0)
    full = tiny_models.write_checkpoint(folder / "full.safetensors", 64, ("quality", "alignment"))
    return {
        "lite": lambda device: load_scorer("lite", device=device),
        "clip": lambda device: load_scorer(f"clip:{clip}", device=device),
        "pickscore": lambda device: load_scorer(f"clip:{pickscore}", device=device),
        "siglip": lambda device: load_scorer(f"clip:{siglip}", device=device),
        "visual expert": lambda device: load_scorer(visual, device=device),
        "with a language model": lambda device: load_scorer(
            full, semantic=owl_folder, target="alignment", device=device, dtype="float32"
        ),
        "ensemble": lambda device: EnsembleScorer(
            [
                (load_scorer("lite", device=device), 1),
                (load_scorer(f"clip:{clip}", device=device), 1),
                (CallableScorer(lambda pictures, _: torch.linspace(0, 1, len(pictures)), name="places"), 1),
            ],
            combine="zscore",
        ),
    }


KINDS = ("lite", "clip", "pickscore", "siglip", "visual expert", "with a language model", "ensemble")


@pytest.mark.parametrize("kind", KINDS)
def test_scores_are_those_of_the_cpu(
    kind: str, loaders: dict[str, Load], pictures: list[np.ndarray], mps_rules: Any
) -> None:
    usable = pictures[:-1] if "clip" in kind or kind == "ensemble" else pictures
    wanted = loaders[kind]("cpu").score(usable, prompts="a cat")
    with mps_rules():
        scorer = loaders[kind]("auto")
        scores = scorer.score(usable, prompts="a cat")
        for network in getattr(scorer, "networks", ()):
            assert {part.device.type for part in network.state_dict().values()} == {"mps"}
    assert type(scores) is torch.Tensor
    torch.testing.assert_close(scores, wanted, atol=1e-4, rtol=1e-4)


def test_the_language_model_in_its_own_precision_there(
    owl_folder: Path, pictures: list[np.ndarray], mps_rules: Any
) -> None:
    wanted = SemanticExtractor(owl_folder, device="cpu").extract(pictures)
    with mps_rules():
        extractor = SemanticExtractor(owl_folder)
        found = extractor.extract(pictures)
    assert extractor.dtype == torch.float16
    for name, vectors in found.items():
        torch.testing.assert_close(vectors, wanted[name], atol=0.02, rtol=0.02)


@pytest.mark.parametrize("size", [(3, 512, 512), (3, 1024, 1024), (3, 640, 480), (3, 1, 1)])
def test_float_pictures_that_lie_on_the_device(size: tuple[int, ...], mps_rules: Any) -> None:
    picture = torch.rand(size, generator=torch.Generator().manual_seed(0))
    wanted = load_scorer("lite", device="cpu").score(picture)
    with mps_rules():
        ranking = rank(load_scorer("lite"), [picture.to("mps")])
    assert ranking.kept[0].score == pytest.approx(wanted.item(), abs=1e-4)


def test_a_student_sees_the_same(mps_rules: Any) -> None:
    from ma_agiqa_core.scorers.lite.student import StudentNetwork

    picture = torch.rand(1, 3, 213, 130, generator=torch.Generator().manual_seed(0))
    network = StudentNetwork(load_scorer("lite", device="cpu").network)  # type: ignore[attr-defined]
    wanted = network.describe(picture)
    with mps_rules():
        network.to("mps")
        found = network.describe(picture.to("mps")).cpu()
        network.score(picture.to("mps"))
    torch.testing.assert_close(found, wanted, atol=1e-3, rtol=1e-3)


@pytest.mark.parametrize("family", ["qwen2_5_vl", "llava_onevision"])
def test_chat_models(family: str, tmp_path: Path, noise_pictures: list[np.ndarray], mps_rules: Any) -> None:
    from ma_agiqa_core.semantic.chat_model import ChatModel

    tiny_chat_models.FAMILIES[family][1](tmp_path / family)
    model = ChatModel.from_pretrained(tmp_path / family, device=torch.device("cpu"), dtype=torch.float32)
    pictures = [torch.from_numpy(picture).movedim(-1, 0) for picture in noise_pictures if min(picture.shape[:2]) > 28]
    questions = {"a": "Is it coherent?", "b": "What is it?"}
    wanted = model.features(pictures, questions)
    with mps_rules():  # transformers loads in threads of its own, where no rules are
        model.network.to("mps")
        found = model.features(pictures, questions)
    for name in questions:
        torch.testing.assert_close(found[name], wanted[name], atol=1e-4, rtol=1e-3)


@pytest.mark.parametrize(("name", "layout"), [("sd", "plain"), ("flux", "flux"), ("qwen_image", "qwen")])
@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning")
def test_previews(name: str, layout: str, mps_rules: Any) -> None:
    from ma_agiqa_core.generation.preview.decoding import Previewer

    pipe = copy.deepcopy(tiny_pipelines.pipeline(name))  # which others use as well
    family: Any = SimpleNamespace(name="tiny", layout=layout, tiny_decoder=None)
    channels = getattr(pipe.vae.config, "latent_channels", None) or pipe.vae.config.z_dim
    generator = torch.Generator().manual_seed(0)
    shape = (2, channels, 4, 6) if layout == "plain" else (2, 6, 4 * channels)
    latents = torch.randn(shape, generator=generator)
    places = torch.tensor([[0.0, y, x] for y in range(2) for x in range(3)])
    arguments = {"img_ids": places, "img_shapes": [[(1, 2, 3)]] * 2}
    wanted = Previewer(pipe, family, "vae").pictures(latents, arguments)
    with mps_rules():
        pipe.vae.to("mps")
        on_device = arguments | {"img_ids": places.to("mps")}
        found = Previewer(pipe, family, "vae").pictures(latents.to("mps"), on_device)
    assert found.device.type == "mps"
    torch.testing.assert_close(found.cpu(), wanted, atol=1e-4, rtol=1e-4)


def test_losses(mps_rules: Any) -> None:
    predictions, labels = torch.tensor([[1.0, 2.0], [3.0, 1.0]]), torch.tensor([[2.0, torch.nan], [2.5, 3.0]])
    counts = torch.tensor([2.0, 1.0])
    wanted = squared_error(predictions, labels, counts) + rank_loss(predictions, labels)
    with mps_rules():
        given = [part.to("mps") for part in (predictions, labels, counts)]
        found = squared_error(*given) + rank_loss(*given[:2])
    assert found.item() == pytest.approx(wanted.item())


def test_the_rules_refuse_what_the_device_refuses(mps_rules: Any) -> None:
    with mps_rules():
        maps = torch.rand(1, 1, 511, 510).to("mps")
        assert maps.device.type == "mps"
        with pytest.raises(RuntimeError, match="must be divisible"):
            F.adaptive_avg_pool2d(maps, 5)
        with pytest.raises(TypeError, match="float64"):
            maps.double()
        with pytest.raises(TypeError, match="float64"):
            torch.zeros(2, dtype=torch.float64, device="mps")
        with pytest.raises(TypeError, match="float64"):
            torch.from_numpy(np.zeros(2)).to("mps")
        with pytest.raises(NotImplementedError, match="_linalg_eigh"):
            torch.linalg.eigh(maps[0, 0, :4, :4])
        with pytest.raises(RuntimeError, match="same device"):
            maps + torch.rand(510)
        with pytest.raises(TypeError, match="numpy"):
            maps.numpy()
        assert F.adaptive_avg_pool2d(maps[..., :510, :], 5).cpu().double().dtype == torch.float64
