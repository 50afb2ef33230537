"""Preprocessing: equal to OpenCV, Pillow and transformers, which the published features went through."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import PIL.Image
import pytest
import torch
from project_paths import FIXTURES
from torch.nn.functional import interpolate

from ma_agiqa_core.pictures.inputs import PictureError, PictureInput
from ma_agiqa_core.preprocess import ClipPreprocessing, resize_cubic, to_bytes, visual_pixels, visual_pixels_of

FIXTURE = json.loads((FIXTURES / "ma_agiqa.json").read_text(encoding="utf-8"))
PUBLISHED_CONFIG = {  # preprocessor_config.json of mPLUG-Owl2
    "crop_size": 448,
    "do_center_crop": True,
    "do_normalize": True,
    "do_resize": True,
    "feature_extractor_type": "CLIPFeatureExtractor",
    "image_mean": [0.48145466, 0.4578275, 0.40821073],
    "image_std": [0.26862954, 0.26130258, 0.27577711],
    "resample": 3,
    "size": 448,
}
SIZES = [(512, 512), (768, 512), (333, 517), (1024, 1024), (100, 77), (448, 112), (4, 900), (224, 300)]


@pytest.fixture(autouse=True)
def _one_thread() -> Any:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


def noise(height: int, width: int, seed: int = 0) -> torch.Tensor:
    """(3, H, W) uint8, the channels side by side in memory as in decoded pictures."""
    array = np.random.RandomState(seed).randint(0, 256, (height, width, 3)).astype(np.uint8)
    return torch.from_numpy(array).movedim(-1, 0)


def as_image(pixels: torch.Tensor) -> PIL.Image.Image:
    return PIL.Image.fromarray(np.ascontiguousarray(pixels.movedim(0, -1).numpy()))


def levels_apart(ours: torch.Tensor, theirs: torch.Tensor) -> torch.Tensor:
    return (ours.int() - theirs.int()).abs()


def fixture_picture(height: int, width: int, seed: int) -> np.ndarray:
    """(H, W, 3) uint8: waves and noise, as the fixture's README tells to make them."""
    random: Any = np.random.RandomState(seed)
    y, x = np.mgrid[0:height, 0:width].astype(np.float64)
    values = np.zeros((height, width, 3))
    for channel in range(3):
        for _ in range(6):
            fx, fy = random.uniform(0.002, 0.2), random.uniform(0.002, 0.2)
            phase, amplitude = random.uniform(0, 6.283), random.uniform(10, 40)
            values[..., channel] += amplitude * np.sin(fx * x + fy * y + phase)
    values += 128 + random.uniform(-20, 20, values.shape)
    return np.clip(np.round(values), 0, 255).astype(np.uint8)


class TestResizeCubic:
    @pytest.mark.parametrize("target", [(224, 224), (37, 141), (700, 600)])
    def test_opencv_to_one_grey_level(self, target: tuple[int, int]) -> None:
        cv2: Any = pytest.importorskip("cv2", reason="pip install opencv-python-headless")
        follows_ipp = hasattr(cv2, "ipp") and cv2.ipp.useIPP()
        apart = []
        for size in [*SIZES, (1500, 31), (1, 1), (2, 300)]:
            picture = noise(*size)
            theirs = cv2.resize(picture.movedim(0, -1).numpy(), target[::-1], interpolation=cv2.INTER_CUBIC)
            levels = levels_apart(resize_cubic(picture, target), torch.from_numpy(theirs).movedim(-1, 0))
            assert levels.max() <= 1
            if min(size) >= 4:  # below, OpenCV rounds the weights everywhere
                apart.append(levels.flatten().float())
        assert torch.cat(apart).mean() < (1e-3 if follows_ipp else 0.1)  # exact ties are most of it

    def test_torch_to_one_grey_level(self) -> None:
        for size in SIZES:
            picture = noise(*size)
            theirs = interpolate(picture[None].float(), (224, 224), mode="bicubic", align_corners=False)[0]
            apart = levels_apart(resize_cubic(picture, (224, 224)), theirs.round().clamp(0, 255))
            assert apart.max() <= 1
            assert apart.float().mean() < 0.01

    def test_the_same_size_changes_nothing(self) -> None:
        picture = noise(31, 45)
        assert torch.equal(resize_cubic(picture, (31, 45)), picture)

    def test_sharp_edges_overshoot_and_are_cut_off(self) -> None:
        picture = torch.zeros(3, 8, 8, dtype=torch.uint8)
        picture[..., 4:] = 255
        resized = resize_cubic(picture, (8, 80))
        assert set(resized[..., :20].unique().tolist()) == {0}  # not 240 from below zero
        assert set(resized[..., 60:].unique().tolist()) == {255}

    def test_memory_order_is_never_visible(self) -> None:
        picture = noise(120, 90)
        assert torch.equal(resize_cubic(picture, (50, 70)), resize_cubic(picture.contiguous(), (50, 70)))

    @pytest.mark.parametrize(
        ("pixels", "size", "got"),
        [
            (torch.zeros(3, 4, 4), (2, 2), r"torch.float32 \(3, 4, 4\)"),
            (torch.zeros(4, 4, 3, dtype=torch.uint8), (2, 2), r"\(4, 4, 3\)"),
            (torch.zeros(3, 0, 4, dtype=torch.uint8), (2, 2), r"\(3, 0, 4\)"),
            (torch.zeros(3, 4, 4, dtype=torch.uint8), (2, 0), r"\(2, 0\)"),
        ],
    )
    def test_other_inputs_are_refused(self, pixels: torch.Tensor, size: tuple[int, int], got: str) -> None:
        with pytest.raises(ValueError, match=rf"Expected uint8 \(3, H, W\).*got .*{got}"):
            resize_cubic(pixels, size)


class TestVisualPixels:
    def test_the_published_pixels(self) -> None:
        expected = FIXTURE["intermediates"]["pixels"]
        made = zip(FIXTURE["image_sizes_hw"], FIXTURE["image_seeds"], strict=True)
        pixels = visual_pixels([fixture_picture(height, width, seed) for (height, width), seed in made])
        assert list(pixels.shape) == expected["shape"]
        assert pixels.dtype == torch.float32
        assert pixels.double().mean().item() == pytest.approx(expected["mean"], abs=1e-6)
        assert pixels.double().std().item() == pytest.approx(expected["std"], abs=1e-6)
        torch.testing.assert_close(pixels.flatten()[:8].tolist(), expected["first8"], rtol=0, atol=1e-6)

    def test_bytes_become_minus_one_to_one(self) -> None:
        picture = torch.tensor([0, 51, 255], dtype=torch.uint8).view(3, 1, 1).expand(3, 5, 9)
        pixels = visual_pixels_of([picture], 4, "cpu")
        assert pixels.shape == (1, 3, 4, 4)
        torch.testing.assert_close(pixels[0, :, 2, 2], torch.tensor([-1.0, -0.6, 1.0]))

    def test_every_kind_of_input_gives_the_same(self, tmp_path: Path) -> None:
        picture = noise(40, 60)
        as_image(picture).save(tmp_path / "picture.png")
        array = np.ascontiguousarray(picture.movedim(0, -1).numpy())
        kinds: list[PictureInput] = [tmp_path / "picture.png", as_image(picture), array, picture.float() / 255]
        pixels = visual_pixels(kinds, size=32)
        assert pixels.shape == (4, 3, 32, 32)
        assert all(torch.equal(pixels[0], other) for other in pixels[1:])
        assert torch.equal(visual_pixels(tmp_path / "picture.png", size=32)[0], pixels[0])

    def test_floats_are_rounded_to_8_bits_first(self) -> None:
        picture = noise(40, 60)
        almost = (picture.float() + 0.4 * torch.rand(picture.shape, generator=torch.Generator().manual_seed(0))) / 255
        assert torch.equal(visual_pixels(almost.clamp(0, 1), size=32), visual_pixels_of([picture], 32, "cpu"))
        assert to_bytes(torch.tensor([0.0, 0.5, 1.0], dtype=torch.float16)).tolist() == [0, 128, 255]
        assert to_bytes(picture) is picture

    def test_a_picture_never_depends_on_its_batch(self) -> None:
        pictures = [noise(30 + i, 50 - i, seed=i) for i in range(4)]
        batch = visual_pixels_of(pictures, 32, "cpu")
        assert all(
            torch.equal(visual_pixels_of([p], 32, "cpu")[0], row) for p, row in zip(pictures, batch, strict=True)
        )

    def test_no_pictures(self) -> None:
        assert visual_pixels([]).shape == (0, 3, 224, 224)

    def test_an_unreadable_picture_is_named(self, tmp_path: Path) -> None:
        (tmp_path / "broken.png").write_bytes(b"no picture")
        with pytest.raises(PictureError, match=r"Picture 1 .*broken.png") as caught:
            visual_pixels([as_image(noise(5, 5)), tmp_path / "broken.png"])
        assert caught.value.index == 1


def padded(image: PIL.Image.Image, colour: tuple[int, int, int]) -> PIL.Image.Image:
    """The whole picture in the middle of a square."""
    edge = max(image.size)
    square = PIL.Image.new("RGB", (edge, edge), colour)
    square.paste(image, ((edge - image.width) // 2, (edge - image.height) // 2))
    return square


class TestClipPreprocessing:
    def test_transformers_with_pillow(self) -> None:
        import transformers

        name = "CLIPImageProcessorPil" if hasattr(transformers, "CLIPImageProcessorPil") else "CLIPImageProcessor"
        processor = getattr(transformers, name)(**{k: v for k, v in PUBLISHED_CONFIG.items() if k[:7] != "feature"})
        sizes = [(448, 448), (512, 512), (300, 517), (517, 300), (1100, 1099), (20, 31), (64, 65), (600, 8), (8, 600)]
        pictures = [noise(*size, seed=seed) for seed, size in enumerate(sizes)]
        squares = [padded(as_image(picture), (122, 116, 104)) for picture in pictures]
        theirs = processor.preprocess(squares, return_tensors="pt")["pixel_values"]
        ours = ClipPreprocessing.from_config(PUBLISHED_CONFIG)(pictures, "cpu", torch.float32)
        assert ours.shape == (len(sizes), 3, 448, 448)
        torch.testing.assert_close(ours, theirs, rtol=0, atol=1e-6)

    def test_dtype_is_of_the_result_alone(self) -> None:
        preprocessing, pictures = ClipPreprocessing(size=16), [noise(20, 30)]
        exact = preprocessing(pictures, "cpu", torch.float32)
        for dtype in (torch.float16, torch.bfloat16):
            assert torch.equal(preprocessing(pictures, "cpu", dtype), exact.to(dtype))
        assert torch.equal(preprocessing([pictures[0].float() / 255], "cpu", torch.float32), exact)

    def test_no_pictures(self) -> None:
        assert ClipPreprocessing(size=16)([], "cpu", torch.float16).shape == (0, 3, 16, 16)

    @pytest.mark.parametrize("size", [(3, 12_000), (12_000, 3)])
    def test_the_square_of_a_long_picture_is_never_made(
        self, size: tuple[int, int], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        made: list[tuple[int, int]] = []
        new = PIL.Image.new

        def watched(mode: str, size: tuple[int, int], colour: Any = 0) -> PIL.Image.Image:
            made.append(size)
            return new(mode, size, colour)

        monkeypatch.setattr(PIL.Image, "new", watched)
        ClipPreprocessing(size=8)([noise(*size)], "cpu", torch.float32)
        assert 0 < max(width * height for width, height in made) <= 256 * 12_000

    @pytest.mark.parametrize(
        "new_style",
        [
            {"size": {"shortest_edge": 448}, "crop_size": {"height": 448, "width": 448}},
            {"size": {"height": 448, "width": 448}, "do_rescale": True, "rescale_factor": 0.00392156862745098},
            {"do_convert_rgb": True, "do_pad": None, "image_processor_type": "CLIPImageProcessorFast"},
            {"do_center_crop": False, "crop_size": 224},
        ],
    )
    def test_configs_of_old_and_new_transformers_mean_the_same(self, new_style: dict[str, Any]) -> None:
        assert ClipPreprocessing.from_config(PUBLISHED_CONFIG | new_style) == ClipPreprocessing()
        assert ClipPreprocessing.from_config({"size": 448}) == ClipPreprocessing()

    @pytest.mark.parametrize(
        ("changed", "got"),
        [
            ({"resample": 2}, r"Expected resample 3 \(bicubic\).*got 2\."),
            ({"size": None}, "Expected size .*got None"),
            ({"size": True}, "Expected size .*got True"),
            ({"size": {"height": 448, "width": 336}}, "got {'height': 448, 'width': 336}"),
            ({"size": {"longest_edge": 448}}, "got {'longest_edge': 448}"),
            ({"crop_size": 336}, "Expected crop_size of the size, 448,.*got 336"),
            ({"do_normalize": False}, "Expected do_normalize true.*got False"),
            ({"do_resize": False}, "do_resize"),
            ({"do_rescale": False}, "do_rescale"),
            ({"do_pad": True}, "do_pad"),
            ({"rescale_factor": 1 / 127.5}, "Expected rescale_factor 1/255.*got 0.0078"),
            ({"image_mean": [0.5, 0.5]}, r"Expected image_mean three numbers.*got \[0.5, 0.5\]"),
            ({"image_mean": 0.5}, "image_mean"),
            ({"image_std": [0.5, 0.5, "0.5"]}, "image_std"),
            ({"image_mean": [122.0, 116.0, 104.0]}, r"Expected image_mean in \[0, 1\], got \(122"),
            ({"image_std": [0.5, 0.5, 0]}, "Expected image_std above 0, got"),
        ],
    )
    def test_settings_that_would_give_other_pixels_are_refused(self, changed: dict[str, Any], got: str) -> None:
        with pytest.raises(ValueError, match=got):
            ClipPreprocessing.from_config(PUBLISHED_CONFIG | changed)

    def test_a_size_of_nothing_is_refused(self) -> None:
        with pytest.raises(ValueError, match="size of at least 1, got 0"):
            ClipPreprocessing(size=0)
