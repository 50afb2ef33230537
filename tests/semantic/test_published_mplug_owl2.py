"""A folder in the published layout, from pixels and questions to features, and every way it can be broken."""

import json
import shutil
from pathlib import Path

import numpy as np
import PIL.Image
import pytest
import tiny_models
import torch
from transformers import CLIPImageProcessor

from ma_agiqa_core.semantic import MplugOwl2
from ma_agiqa_core.semantic.published_mplug_owl2 import PublishedMplugOwl2, read_tokenizer
from ma_agiqa_core.semantic.questions import QUESTIONS

CPU = torch.device("cpu")


@pytest.fixture
def folder(owl_folder: Path, tmp_path: Path) -> Path:
    """A copy to break."""
    return Path(shutil.copytree(owl_folder, tmp_path / "owl"))


@pytest.fixture(scope="module")
def owl(owl_folder: Path) -> PublishedMplugOwl2:
    return PublishedMplugOwl2.from_folder(owl_folder, device=CPU, dtype=torch.float32)


def as_tensors(pictures: list[np.ndarray]) -> list[torch.Tensor]:
    return [torch.from_numpy(picture).movedim(-1, 0) for picture in pictures]


def padded(picture: np.ndarray) -> PIL.Image.Image:
    """As the published extraction pads: the picture in the middle of a square of the mean colour."""
    height, width = picture.shape[:2]
    side = max(height, width)
    square = PIL.Image.new("RGB", (side, side), (122, 116, 104))
    square.paste(PIL.Image.fromarray(picture), ((side - width) // 2, (side - height) // 2))
    return square


def test_features_are_those_of_the_network_on_published_inputs(owl, owl_folder, noise_pictures):
    network = MplugOwl2.from_reference(tiny_models.OWL["config"], tiny_models.owl_weights())
    processor = CLIPImageProcessor.from_pretrained(owl_folder)
    squares = [padded(picture) for picture in noise_pictures]
    pixels = processor(squares, return_tensors="pt")["pixel_values"]
    expected = network.features(pixels, {name: owl.prompt_ids(text) for name, text in QUESTIONS.items()})
    features = owl.features(as_tensors(noise_pictures), QUESTIONS)
    assert features.keys() == QUESTIONS.keys()
    for name, vectors in features.items():
        assert vectors.dtype == torch.float32
        # today's processor resizes with torchvision, we with Pillow: a grey level apart here and there
        assert torch.corrcoef(torch.stack([vectors.flatten(), expected[name].flatten()]))[0, 1] > 0.9999


def test_the_prompt_has_one_beginning_and_one_picture_and_is_tokenized_in_two_parts(owl, owl_folder):
    import sentencepiece

    pieces = sentencepiece.SentencePieceProcessor(model_file=str(owl_folder / "tokenizer.model"))
    ids = owl.prompt_ids(QUESTIONS["coherence"])
    assert ids.count(pieces.bos_id()) == 1
    assert ids[0] == pieces.bos_id()
    picture = ids.index(MplugOwl2.image_token_id)
    assert ids[1:picture] == pieces.encode(f"USER: {QUESTIONS['coherence']}\n")
    assert ids[picture + 1 :] == pieces.encode(" ASSISTANT:")
    assert pieces.id_to_piece(ids[picture + 1]) == "▁", "the space before ASSISTANT: is a piece of its own"


def test_tokenizer_json_does_where_the_sentencepiece_model_is_absent(folder):
    from tokenizers import Tokenizer, models, normalizers

    (folder / "tokenizer.model").unlink()
    characters = sorted({c for text in QUESTIONS.values() for c in f"USER: {text}\n ASSISTANT:▁"})
    vocabulary = {"<unk>": 0, "<s>": 1, **{c: i for i, c in enumerate(characters, start=2)}}
    tokenizer = Tokenizer(models.BPE(vocabulary, [], unk_token="<unk>"))
    tokenizer.normalizer = normalizers.Sequence([normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")])
    tokenizer.save(str(folder / "tokenizer.json"))
    tokenize, bos, size = read_tokenizer(folder)
    assert (bos, size) == (1, len(vocabulary))
    assert tokenize(" A") == [vocabulary["▁"], vocabulary["▁"], vocabulary["A"]]
    assert PublishedMplugOwl2.from_folder(folder, device=CPU, dtype=torch.float32).hidden_size == 64


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_is_near_and_float32_comes_out(owl, owl_folder, noise_pictures, dtype):
    half = PublishedMplugOwl2.from_folder(owl_folder, device=CPU, dtype=dtype)
    assert {parameter.dtype for parameter in half.network.parameters()} == {dtype}
    pictures = as_tensors(noise_pictures)
    exact = owl.features(pictures, QUESTIONS)
    for name, vectors in half.features(pictures, QUESTIONS).items():
        assert vectors.dtype == torch.float32
        assert (vectors - exact[name]).abs().max() < 0.05


def test_a_device_map_gives_the_same_features(owl, owl_folder, noise_pictures):
    spread = PublishedMplugOwl2.from_folder(owl_folder, device=CPU, dtype=torch.float32, device_map="auto")
    pictures = as_tensors(noise_pictures)
    for name, vectors in spread.features(pictures, QUESTIONS).items():
        torch.testing.assert_close(vectors, owl.features(pictures, QUESTIONS)[name])


@pytest.mark.parametrize(("quantization", "library"), [("int8", "torchao"), ("nf4", "bitsandbytes")])
def test_quantized_layers_are_near(tmp_path, noise_pictures, quantization, library):
    pytest.importorskip(library, reason=f"{library} is not installed: {quantization} was not tried")
    folder = tiny_models.write_owl(tmp_path / "owl", intermediate_size=128)  # nf4 on a processor: a multiple of 32
    exact, small = (
        PublishedMplugOwl2.from_folder(folder, device=CPU, dtype=torch.float32, quantization=kind)
        for kind in (None, quantization)
    )
    pictures = as_tensors(noise_pictures)
    expected = exact.features(pictures, QUESTIONS)
    for name, vectors in small.features(pictures, QUESTIONS).items():
        assert not torch.equal(vectors, expected[name])
        assert torch.corrcoef(torch.stack([vectors.flatten(), expected[name].flatten()]))[0, 1] > 0.9


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("config.json", r"config.json in .*whole repository"),
        ("tokenizer.model", r"tokenizer.model or tokenizer.json in .*got neither"),
        ("pytorch_model-2-of-3.bin", r"3 shards in .*got 2: pytorch_model-2-of-3.bin missing"),
    ],
)
def test_a_missing_file_is_named(folder, name, message):
    (folder / name).unlink()
    with pytest.raises(ValueError, match=message):
        PublishedMplugOwl2.from_folder(folder, device=CPU, dtype=torch.float32)


@pytest.mark.parametrize("name", ["tokenizer.model", "pytorch_model-2-of-3.bin", "preprocessor_config.json"])
def test_a_truncated_file_is_named(folder, name):
    content = (folder / name).read_bytes()
    (folder / name).write_bytes(content[: len(content) // 2])
    with pytest.raises(ValueError, match=name.replace(".", r"\.")):
        PublishedMplugOwl2.from_folder(folder, device=CPU, dtype=torch.float32)


def test_weights_of_another_model_are_refused_by_name(folder):
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**config, "intermediate_size": 100}))
    with pytest.raises(
        ValueError, match=r"\(100, 64\) for 'model.layers.0.mlp.gate_proj.weight' in .*, got \(112, 64\)"
    ):
        PublishedMplugOwl2.from_folder(folder, device=CPU, dtype=torch.float32)
    (folder / "config.json").write_text(json.dumps({**config, "num_hidden_layers": 2}))
    with pytest.raises(ValueError, match=r"no other weights than the model's .* unknown model.layers.2.* and \d+ more"):
        PublishedMplugOwl2.from_folder(folder, device=CPU, dtype=torch.float32)
    (folder / "config.json").write_text(json.dumps({**config, "num_hidden_layers": 4}))
    with pytest.raises(ValueError, match=r"all of the model's weights .* got nothing for layers.3"):
        PublishedMplugOwl2.from_folder(folder, device=CPU, dtype=torch.float32)


def test_another_models_config_is_refused(folder):
    (folder / "config.json").write_text('{"model_type": "mplug_owl2", "hidden_size": "wide"}')
    with pytest.raises(ValueError, match=r"config of an mPLUG-Owl2 in .*config.json"):
        PublishedMplugOwl2.from_folder(folder, device=CPU, dtype=torch.float32)


def test_preprocessing_for_another_model_is_refused(folder):
    settings = json.loads((folder / "preprocessor_config.json").read_text())
    (folder / "preprocessor_config.json").write_text(json.dumps({**settings, "size": 224, "crop_size": 224}))
    with pytest.raises(ValueError, match=r"pictures of 56 px from preprocessor_config.json in .*owl', got 224"):
        PublishedMplugOwl2.from_folder(folder, device=CPU, dtype=torch.float32)


def test_a_tokenizer_with_too_many_words_is_refused(folder):
    config = json.loads((folder / "config.json").read_text())
    shard = torch.load(folder / "pytorch_model-1-of-3.bin", weights_only=True)
    shard["model.embed_tokens.weight"] = shard["model.embed_tokens.weight"][:20].clone()
    torch.save(shard, folder / "pytorch_model-1-of-3.bin")
    (folder / "config.json").write_text(json.dumps({**config, "vocab_size": 20}))
    with pytest.raises(ValueError, match=r"a tokenizer of at most 20 tokens in .*owl', got 96"):
        PublishedMplugOwl2.from_folder(folder, device=CPU, dtype=torch.float32)


def test_without_its_preprocessor_config_the_published_settings_are_taken(folder, owl, noise_pictures, caplog):
    (folder / "preprocessor_config.json").unlink()
    bare = PublishedMplugOwl2.from_folder(folder, device=CPU, dtype=torch.float32)
    assert "taking CLIP's settings" in caplog.text
    pictures = as_tensors(noise_pictures)
    expected = owl.features(pictures, QUESTIONS)
    assert all(torch.equal(vectors, expected[name]) for name, vectors in bare.features(pictures, QUESTIONS).items())
