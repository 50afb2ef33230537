"""The extractor: vectors in order, the cache in front of the language model, reasons for failures."""

import json
import re
import shutil
from pathlib import Path

import PIL.Image
import pytest
import torch

from ma_agiqa_core import MaAgiqaError, PictureError
from ma_agiqa_core.semantic import SemanticExtractor
from ma_agiqa_core.semantic.published_mplug_owl2 import PublishedMplugOwl2
from ma_agiqa_core.semantic.questions import QUESTIONS


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """How many pictures the language model was asked about, call by call."""
    calls: list[int] = []
    features = PublishedMplugOwl2.features

    def counted(self, pictures, questions):
        calls.append(len(pictures))
        return features(self, pictures, questions)

    monkeypatch.setattr(PublishedMplugOwl2, "features", counted)
    return calls


@pytest.fixture
def extractor(owl_folder: Path) -> SemanticExtractor:
    return SemanticExtractor(owl_folder, device="cpu")


def test_vectors_by_question_in_input_order(extractor, noise_pictures):
    vectors = extractor.extract(noise_pictures)
    assert list(vectors) == ["semantic_content", "coherence"]
    for matrix in vectors.values():
        assert matrix.shape == (5, 64)
        assert matrix.dtype == torch.float32
    backwards = extractor.extract(noise_pictures[::-1])
    for name, matrix in vectors.items():
        torch.testing.assert_close(backwards[name].flip(0), matrix)


@pytest.mark.parametrize("batch_size", [1, 2, 3, 5, 100])
def test_the_batch_size_does_not_show(extractor, noise_pictures, batch_size):
    expected = extractor.extract(noise_pictures)
    for name, matrix in extractor.extract(noise_pictures, batch_size=batch_size).items():
        torch.testing.assert_close(matrix, expected[name], atol=1e-5, rtol=0)


def test_a_bug_in_loading_is_not_taken_for_a_damaged_model(extractor, noise_pictures, monkeypatch):
    monkeypatch.setattr(PublishedMplugOwl2, "from_folder", lambda *_, **__: [1].index(3))
    with pytest.raises(ValueError, match="list") as bug:
        extractor.extract(noise_pictures)
    assert not isinstance(bug.value, MaAgiqaError)


def test_no_pictures_give_no_rows(extractor):
    assert {name: matrix.shape for name, matrix in extractor.extract([]).items()} == dict.fromkeys(QUESTIONS, (0, 64))


def test_every_kind_of_input_gives_the_same(extractor, noise_pictures, tmp_path):
    array = noise_pictures[1]
    PIL.Image.fromarray(array).save(tmp_path / "a.png")
    tensor = torch.from_numpy(array).movedim(-1, 0).float() / 255
    kinds = [array, tmp_path / "a.png", PIL.Image.fromarray(array), tensor]
    for matrix in extractor.extract(kinds).values():
        assert torch.equal(matrix[0].expand(4, -1), matrix)
    assert torch.equal(extractor.extract(tensor[None])["coherence"], extractor.extract(array)["coherence"])


def test_a_picture_already_seen_costs_no_language_model(owl_folder, noise_pictures, tmp_path, asked):
    first = SemanticExtractor(owl_folder, device="cpu", cache=tmp_path / "cache").extract(noise_pictures)
    assert sum(asked) == 5
    second = SemanticExtractor(owl_folder, device="cpu", cache=tmp_path / "cache")
    again = second.extract(noise_pictures)
    assert sum(asked) == 5
    assert not second.is_loaded, "not even loaded"
    for name, matrix in again.items():
        assert torch.equal(matrix, first[name])
    third = second.extract([*noise_pictures, 255 - noise_pictures[0]])
    assert sum(asked) == 6
    assert torch.equal(third["coherence"][:5], first["coherence"])


def test_the_same_picture_twice_is_asked_about_once(extractor, noise_pictures, asked):
    vectors = extractor.extract([noise_pictures[0], noise_pictures[1], noise_pictures[0]])
    assert sum(asked) == 2
    assert torch.equal(vectors["coherence"][0], vectors["coherence"][2])


def test_another_model_precision_or_question_is_another_entry(owl_folder, noise_pictures, tmp_path, asked):
    cache = tmp_path / "cache"
    picture = noise_pictures[:1]
    SemanticExtractor(owl_folder, device="cpu", cache=cache, dtype="float32").extract(picture)
    SemanticExtractor(owl_folder, device="cpu", cache=cache, dtype="bfloat16").extract(picture)
    assert sum(asked) == 2
    questions = {**QUESTIONS, "coherence": "Is it coherent?"}
    SemanticExtractor(owl_folder, device="cpu", cache=cache, questions=questions).extract(picture)
    assert sum(asked) == 3
    moved = Path(shutil.copytree(owl_folder, tmp_path / "moved"))
    SemanticExtractor(moved, device="cpu", cache=cache).extract(picture)
    assert sum(asked) == 3, "the same files elsewhere are the same model"
    weights = torch.load(moved / "pytorch_model-3-of-3.bin", weights_only=True)
    name = next(name for name in weights if "bias" in name)
    torch.save({**weights, name: weights[name] + 1}, moved / "pytorch_model-3-of-3.bin")
    SemanticExtractor(moved, device="cpu", cache=cache).extract(picture)
    assert sum(asked) == 4


def test_without_a_cache_the_weights_are_not_read_for_a_fingerprint(owl_folder, noise_pictures, monkeypatch):
    from ma_agiqa_core.semantic import lazy_network

    monkeypatch.setattr(lazy_network, "fingerprint", None)
    assert SemanticExtractor(owl_folder, device="cpu").extract(noise_pictures)["coherence"].isfinite().all()


def test_what_a_graphics_card_made_in_half_precision_serves_where_any_precision_will_do(
    owl_folder, noise_pictures, tmp_path, asked
):
    made = SemanticExtractor(owl_folder, device="cpu", cache=tmp_path, dtype="bfloat16").extract(noise_pictures)
    taken = SemanticExtractor(owl_folder, device="cpu", cache=tmp_path).extract(noise_pictures)
    assert sum(asked) == 5
    assert all(torch.equal(taken[name], made[name]) for name in made)
    exact = SemanticExtractor(owl_folder, device="cpu", cache=tmp_path, dtype="float32").extract(noise_pictures)
    assert sum(asked) == 10
    assert not torch.equal(exact["coherence"], made["coherence"])


def test_unreadable_pictures_raise_or_become_nan(extractor, noise_pictures, tmp_path):
    broken = tmp_path / "broken.png"
    broken.write_bytes(b"no picture")
    pictures = [noise_pictures[0], broken, noise_pictures[1]]
    with pytest.raises(PictureError, match=r"Picture 1 \('.*broken.png'\)"):
        extractor.extract(pictures)
    for matrix in extractor.extract(pictures, on_error="nan").values():
        assert matrix[1].isnan().all()
        assert matrix[[0, 2]].isfinite().all()


@pytest.mark.parametrize("dtype", ["float32", "float16"])
def test_a_vector_that_is_not_finite_is_an_error_of_that_picture_and_not_cached(
    owl_folder, noise_pictures, tmp_path, monkeypatch, dtype
):
    features = PublishedMplugOwl2.features

    def overflowing(self, pictures, questions):
        vectors = features(self, pictures, questions)
        wide = torch.tensor([picture.shape[2] == 90 for picture in pictures])
        vectors["coherence"][wide, 3] = torch.inf
        return vectors

    monkeypatch.setattr(PublishedMplugOwl2, "features", overflowing)
    extractor = SemanticExtractor(owl_folder, device="cpu", dtype=dtype, cache=tmp_path / "cache")
    with pytest.raises(
        PictureError, match="its coherence vector has 1 values of 64 that are NaN or infinite"
    ) as caught:
        extractor.extract(noise_pictures)
    assert caught.value.index == 2
    fix = {"float16": "use dtype 'bfloat16' or 'float32'", "float32": "may be damaged: download them again"}
    assert caught.value.reason.endswith(fix[dtype])
    for matrix in extractor.extract(noise_pictures, on_error="nan").values():
        assert matrix[2].isnan().all()
        assert matrix[[0, 1, 3, 4]].isfinite().all()
    monkeypatch.setattr(PublishedMplugOwl2, "features", features)
    assert extractor.extract(noise_pictures)["coherence"].isfinite().all(), "the failure was not kept"


def test_memory_that_runs_out_halves_the_batch_and_changes_nothing(
    owl_folder, noise_pictures, monkeypatch, extractor, tmp_path
):
    expected = extractor.extract(noise_pictures)
    features = PublishedMplugOwl2.features
    tried = []

    def small(self, pictures, questions):
        tried.append(len(pictures))
        if len(pictures) > 2:
            raise torch.OutOfMemoryError("CUDA out of memory.")
        return features(self, pictures, questions)

    monkeypatch.setattr(PublishedMplugOwl2, "features", small)
    limited = SemanticExtractor(shutil.copytree(owl_folder, tmp_path / "large"), device="cpu")
    for name, matrix in limited.extract(noise_pictures).items():
        torch.testing.assert_close(matrix, expected[name])
    assert tried[:2] == [4, 2]
    assert max(tried[2:]) <= 2, "remembered"


def test_options_are_checked_before_anything_is_loaded(owl_folder, tmp_path):
    with pytest.raises(ValueError, match="'int8' or 'nf4', got 'int3'"):
        SemanticExtractor(owl_folder, quantization="int3")
    with pytest.raises(ValueError, match="'float16', got 'int4'"):
        SemanticExtractor(owl_folder, dtype="int4")
    with pytest.raises(FileNotFoundError, match="no such folder"):
        SemanticExtractor(tmp_path / "nowhere")
    with pytest.raises(ValueError, match="at least 1"):
        SemanticExtractor(owl_folder).extract([], batch_size=0)


@pytest.mark.parametrize("place", ["file", "file/vectors"])
def test_a_cache_that_cannot_be_written_is_named_before_the_model_is_loaded(
    owl_folder, noise_pictures, tmp_path, monkeypatch, caplog, place
):
    (tmp_path / "file").write_bytes(b"")
    monkeypatch.setattr(PublishedMplugOwl2, "from_folder", None)
    extractor = SemanticExtractor(owl_folder, device="cpu", cache=tmp_path / place)
    with pytest.raises(OSError, match=r"Expected a folder to write semantic vectors to, got .*file.*--cache"):
        extractor.extract(noise_pictures)
    assert not caplog.messages


def test_too_little_memory_is_said_with_numbers(owl_folder, noise_pictures, monkeypatch):
    from ma_agiqa_core.semantic import placement

    monkeypatch.setattr(placement, "free_bytes", lambda device: 1000)
    extractor = SemanticExtractor(owl_folder, device="cpu")
    with pytest.raises(ValueError, match=r"free on cpu for mPLUG-Owl2 in float32, got .*Use dtype='bfloat16'"):
        extractor.extract(noise_pictures)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("tokenizer.model", "tokenizer.model or tokenizer.json"),
        ("pytorch_model-2-of-3.bin", "pytorch_model-2-of-3.bin missing"),
        ("pytorch_model.bin.index.json", "or an index of shards"),
    ],
)
def test_a_missing_file_is_found_before_a_picture_is_read(owl_folder, tmp_path, name, message):
    folder = Path(shutil.copytree(owl_folder, tmp_path / "owl"))
    (folder / name).unlink()
    with pytest.raises(ValueError, match=message):
        SemanticExtractor(folder)


@pytest.mark.parametrize("name", ["pytorch_model-2-of-3.bin", "tokenizer.model", "config.json"])
@pytest.mark.parametrize("kept", [0, 0.5, 0.99])
def test_a_cut_file_is_found_before_a_picture_is_read(owl_folder, tmp_path, name, kept):
    folder = Path(shutil.copytree(owl_folder, tmp_path / "owl"))
    content = (folder / name).read_bytes()
    (folder / name).write_bytes(content[: int(kept * len(content))])
    with pytest.raises(ValueError, match=re.escape(name)):
        SemanticExtractor(folder)


def test_a_config_without_model_type_is_known_by_its_visual_config(owl_folder, tmp_path, noise_pictures, extractor):
    folder = Path(shutil.copytree(owl_folder, tmp_path / "owl"))
    config = json.loads((folder / "config.json").read_text())
    del config["model_type"]
    (folder / "config.json").write_text(json.dumps(config))
    vectors = SemanticExtractor(folder, device="cpu").extract(noise_pictures)
    assert torch.equal(vectors["coherence"], extractor.extract(noise_pictures)["coherence"])


def test_half_written_entries_are_made_again(owl_folder, noise_pictures, tmp_path, asked):
    cache = tmp_path / "cache"
    SemanticExtractor(owl_folder, device="cpu", cache=cache).extract(noise_pictures[:1])
    entry = next(path for path in cache.rglob("*") if path.is_file())
    entry.write_bytes(entry.read_bytes()[:-5])
    vectors = SemanticExtractor(owl_folder, device="cpu", cache=cache).extract(noise_pictures[:1])
    assert asked == [1, 1]
    assert all(matrix.isfinite().all() for matrix in vectors.values())


class SharedDevice:
    """A program that moves models: what it was asked for, and where it has them."""

    device = torch.device("cpu")

    def __init__(self) -> None:
        self.asked: list[str] = []

    def before_loading(self, quantized: bool) -> torch.device:
        self.asked.append(f"load quantized={quantized}")
        return torch.device("cpu")

    def before_use(self, network: torch.nn.Module, quantized: bool) -> None:
        self.asked.append(f"use {type(network).__name__}")


def test_another_program_may_decide_where_the_language_model_is(owl_folder, noise_pictures, extractor):
    wanted = extractor.extract(noise_pictures)
    shared, placement = SemanticExtractor(owl_folder, device="cpu"), SharedDevice()
    shared.hand_over(placement)
    assert placement.asked == []
    for name, vectors in shared.extract(noise_pictures).items():
        assert torch.equal(vectors, wanted[name])
    assert placement.asked == ["load quantized=False", "use MplugOwl2"]
    shared.extract(noise_pictures)
    assert placement.asked[2:] == ["use MplugOwl2"]
    shared.drop_model()
    shared.extract(noise_pictures)
    assert placement.asked[3:] == ["load quantized=False", "use MplugOwl2"]


def test_the_precision_is_that_of_the_device_handed_over_to(owl_folder):
    placement = SharedDevice()
    placement.device = torch.device("mps")
    extractor = SemanticExtractor(owl_folder, device="cpu")
    assert extractor.dtype == torch.float32
    extractor.hand_over(placement)
    assert extractor.dtype == torch.float16
    with pytest.raises(ValueError, match=r"^Expected no device_map, got 'auto'\. The device is shared with others"):
        SemanticExtractor(owl_folder, device="cpu", device_map="auto").hand_over(placement)
