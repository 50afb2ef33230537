"""Features: what colours say, lite's own score out of its description, models in folders."""

import numpy as np
import pytest
import tiny_models
import torch
import transformers
from PIL import Image

from ma_agiqa_core import load_scorer
from ma_agiqa_core.errors import MaAgiqaError, MissingFileError
from ma_agiqa_core.pictures.inputs import iterate_pictures
from ma_agiqa_core.scorers.picture_features.colour_statistics import COLOUR_PARTS, HUES, describe_colours
from ma_agiqa_core.scorers.picture_features.lite_features import LiteFeatures
from ma_agiqa_core.scorers.picture_features.load import backbone_of, load_described, load_features
from ma_agiqa_core.scorers.prior import load_prior

CPU = torch.device("cpu")


def parts_of(description: torch.Tensor) -> dict[str, np.ndarray]:
    ends = np.cumsum([0, *COLOUR_PARTS.values()])
    return {
        name: description[:, start:end].numpy()
        for name, start, end in zip(COLOUR_PARTS, ends[:-1], ends[1:], strict=True)
    }


def test_colours_of_one_picture_do_not_depend_on_the_others():
    rgb = torch.rand(3, 3, 40, 56, generator=torch.Generator().manual_seed(0))
    together = describe_colours(rgb)
    assert together.shape == (3, sum(COLOUR_PARTS.values()))
    assert torch.allclose(together[1:2], describe_colours(rgb[1:2]), atol=1e-6)


def test_opposite_colours_are_half_a_circle_apart_and_grey_has_no_hue():
    colours = torch.tensor([[0.8, 0.4, 0.2], [0.2, 0.6, 0.8], [0.5, 0.5, 0.5]])
    hues = parts_of(describe_colours(colours[:, :, None, None].expand(-1, -1, 32, 32)))["hues"][:, :HUES]
    one, opposite = hues[0].argmax(), hues[1].argmax()
    assert (one - opposite) % HUES == HUES // 2
    assert hues[0].sum() > 0.9
    assert hues[2].sum() < 0.01


def test_light_and_places_are_what_numpy_says():
    rgb = torch.zeros(1, 3, 96, 96)
    rgb[..., :32] = 0.9  # the left third is white
    found = parts_of(describe_colours(rgb))
    grey = rgb[0].mean(0).numpy()
    assert found["light"][0, -2:] == pytest.approx([grey.mean(), grey.std()], abs=1e-5)
    places = found["places"][0].reshape(3, 3, 3)[0]
    assert places[:, 0] == pytest.approx([0.6] * 3, abs=1e-5)
    assert places[:, 1:] == pytest.approx(np.full((3, 2), -0.3), abs=1e-5)


def test_lites_own_score_is_in_its_description():
    pictures = [np.random.default_rng(seed).integers(0, 256, (70, 90, 3), np.uint8) for seed in range(3)]
    features = LiteFeatures(CPU)
    described = torch.stack(
        [found for found in features.describe(iterate_pictures(pictures)) if not isinstance(found, str)]
    )
    assert described.shape == (3, sum(features.parts.values()))
    lite = load_scorer("lite", device="cpu")
    assert torch.allclose(features.quality(described), lite.score(pictures), atol=1e-5)
    low, middle, high = np.quantile(lite.info.quantiles, [0.16, 0.5, 0.84])
    expected = (lite.score(pictures).numpy() - middle) / ((high - low) / 2)
    decoded = list(iterate_pictures(pictures))
    assert load_prior("lite", features, CPU).standardised(decoded, described) == pytest.approx(expected, abs=1e-4)
    other = torch.zeros(3, 16)
    elsewhere = load_prior("lite", _NoLite(), CPU).standardised(decoded, other)  # type: ignore[arg-type]
    assert elsewhere == pytest.approx(expected, abs=1e-4)


class _NoLite:
    """Features of another kind."""


def test_clip_and_siglip_give_the_embedding_that_they_compare_with_texts(tmp_path):
    picture = Image.fromarray(np.random.default_rng(0).integers(0, 256, (40, 60, 3), np.uint8))
    for kind in ("clip", "siglip"):
        folder = tiny_models.write_clip(tmp_path / kind, model_type=kind)
        features = load_features(f"{kind}:{folder}", CPU)
        (found,) = features.describe(iterate_pictures([picture]))
        model = transformers.AutoModel.from_pretrained(folder).eval()
        pixels = transformers.AutoImageProcessor.from_pretrained(folder)(images=picture, return_tensors="pt")
        with torch.no_grad():
            expected = model.get_image_features(**pixels)
        expected = expected if isinstance(expected, torch.Tensor) else expected.pooler_output
        assert isinstance(found, torch.Tensor)
        assert torch.allclose(found, expected[0] / expected[0].norm(), atol=1e-5)
        assert sum(features.parts.values()) == len(found)


def test_dinov2_gives_its_class_token_and_the_mean_of_its_patches(tmp_path):
    folder = tiny_models.write_dinov2(tmp_path / "dino")
    features = load_features(f"dinov2:{folder}", CPU)
    picture = Image.fromarray(np.random.default_rng(0).integers(0, 256, (40, 60, 3), np.uint8))
    (found,) = features.describe(iterate_pictures([picture]))
    assert isinstance(found, torch.Tensor)
    model = transformers.Dinov2Model.from_pretrained(folder).eval()
    pixels = transformers.AutoImageProcessor.from_pretrained(folder)(images=picture, return_tensors="pt")
    with torch.no_grad():
        tokens = model(**pixels).last_hidden_state[0]
    parts = [tokens[0], tokens[1:].mean(0)]
    assert torch.allclose(found, torch.cat([part / part.norm() for part in parts]), atol=1e-5)
    assert features.parts == {"class": 32, "patches": 32}


def test_broken_pictures_keep_their_reason(tmp_path):
    (tmp_path / "broken.png").write_bytes(b"")
    whole = np.zeros((40, 40, 3), np.uint8)
    first, second = LiteFeatures(CPU).describe(iterate_pictures([tmp_path / "broken.png", whole]))
    assert isinstance(first, str)
    assert isinstance(second, torch.Tensor)


def test_what_is_no_features_is_refused(tmp_path):
    clip = tiny_models.write_clip(tmp_path / "clip")
    for source, message in (
        ("vgg", "got 'vgg'"),
        ("lite:x", "no folder after 'lite'"),
        ("clip:", "a folder after 'clip:'"),
        (f"dinov2:{clip}", f"Write 'clip:{clip}'"),
    ):
        with pytest.raises(MaAgiqaError, match=message):
            load_features(source, CPU)
    with pytest.raises(MissingFileError, match="no such folder"):
        load_features(f"clip:{tmp_path / 'none'}", CPU)
    (clip / "preprocessor_config.json").unlink()
    with pytest.raises(MaAgiqaError, match="picture preprocessing"):
        load_features(f"clip:{clip}", CPU)


def test_another_revision_is_refused(tmp_path):
    features = load_features("lite", CPU)
    assert load_described(backbone_of(features), CPU, tmp_path / "m.safetensors").revision == features.revision
    with pytest.raises(MaAgiqaError, match=r"revision 'old'.*m\.safetensors.*Train it again"):
        load_described("lite@old", CPU, tmp_path / "m.safetensors")
