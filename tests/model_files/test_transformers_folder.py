"""Published folders of language models: shards, indexes, damage, fingerprints."""

import json
import os
import pickle
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from ma_agiqa_core.model_files.transformers_folder import (
    display_name,
    fingerprint,
    model_folder,
    read_json,
    read_shard,
    weight_files,
)


@pytest.fixture
def weights() -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    return {name: torch.randn(3, 4, generator=generator) for name in ("a", "b", "c")}


def write(folder: Path, weights: dict[str, torch.Tensor], kind: str, *, sharded: bool) -> None:
    (folder / "config.json").write_text('{"model_type": "test"}')
    stem, suffix = ("model", ".safetensors") if kind == "safetensors" else ("pytorch_model", ".bin")
    save = save_file if kind == "safetensors" else torch.save
    if not sharded:
        save(weights, folder / f"{stem}{suffix}")
        return
    weight_map = {}
    for number, (name, tensor) in enumerate(weights.items(), start=1):
        weight_map[name] = f"{stem}-{number:05}-of-{len(weights):05}{suffix}"
        save({name: tensor}, folder / weight_map[name])
    (folder / f"{stem}{suffix}.index.json").write_text(json.dumps({"metadata": {}, "weight_map": weight_map}))


@pytest.mark.parametrize("sharded", [False, True])
@pytest.mark.parametrize("kind", ["safetensors", "bin"])
def test_every_published_layout_gives_its_tensors(tmp_path, weights, kind, sharded):
    write(tmp_path, weights, kind, sharded=sharded)
    read = {name: tensor for path in weight_files(tmp_path) for name, tensor in read_shard(path)}
    assert read.keys() == weights.keys()
    assert all(torch.equal(read[name], weights[name]) for name in weights)
    assert model_folder(tmp_path) == tmp_path


def test_pickles_of_torch_before_its_zip_format_are_read(tmp_path, weights):
    torch.save(weights, tmp_path / "pytorch_model.bin", _use_new_zipfile_serialization=False)
    assert [name for name, _ in read_shard(tmp_path / "pytorch_model.bin")] == ["a", "b", "c"]


def test_safetensors_are_preferred_to_pickles(tmp_path, weights):
    write(tmp_path, weights, "bin", sharded=False)
    write(tmp_path, weights, "safetensors", sharded=True)
    assert all(path.suffix == ".safetensors" for path in weight_files(tmp_path))


def test_a_missing_shard_is_named(tmp_path, weights):
    write(tmp_path, weights, "bin", sharded=True)
    (tmp_path / "pytorch_model-00002-of-00003.bin").unlink()
    with pytest.raises(ValueError, match=r"3 shards in .*, got 2: pytorch_model-00002-of-00003.bin missing"):
        weight_files(tmp_path)


@pytest.mark.parametrize("kind", ["safetensors", "bin"])
@pytest.mark.parametrize("kept", [0, 10, -20])
def test_a_truncated_shard_is_named(tmp_path, weights, kind, kept):
    write(tmp_path, weights, kind, sharded=False)
    (path,) = weight_files(tmp_path)
    path.write_bytes(path.read_bytes()[:kept])
    with pytest.raises(ValueError, match=r"a whole shard of weights, got .*(safetensors|bin).*Download it again"):
        list(read_shard(path))


class Hostile:
    def __reduce__(self):
        return os.mkdir, ("executed",)


def test_a_pickle_with_code_is_refused_and_not_executed(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    path = tmp_path / "pytorch_model.bin"
    path.write_bytes(pickle.dumps({"a": Hostile()}))
    with pytest.raises(ValueError, match="a whole shard of weights") as caught:
        list(read_shard(path))
    assert "weights_only" not in str(caught.value), "torch advises to load it nevertheless"
    assert not (tmp_path / "executed").exists()


def test_a_pickle_of_something_else_is_refused(tmp_path):
    torch.save([torch.ones(2)], tmp_path / "pytorch_model.bin")
    with pytest.raises(ValueError, match="a table of tensors was expected, it holds a list"):
        list(read_shard(tmp_path / "pytorch_model.bin"))


@pytest.mark.parametrize("content", ["{", "[]", '{"weight_map": {}}', '{"weight_map": {"a": "../other.bin"}}'])
def test_a_bad_index_is_named(tmp_path, content):
    (tmp_path / "pytorch_model.bin.index.json").write_text(content)
    with pytest.raises(ValueError, match=r"pytorch_model\.bin\.index\.json"):
        weight_files(tmp_path)


def test_folders_that_are_no_models_say_what_is_missing(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"'.*nowhere': no such folder"):
        model_folder(tmp_path / "nowhere")
    with pytest.raises(ValueError, match=r"config.json in .*whole repository"):
        model_folder(tmp_path)
    (tmp_path / "config.json").write_text("{}")
    with pytest.raises(ValueError, match=r"model.safetensors or pytorch_model.bin, or an index"):
        model_folder(tmp_path)
    with pytest.raises(ValueError, match="no revision of a local folder, got 'v1'"):
        model_folder(tmp_path, revision="v1")


def test_json_must_be_an_object(tmp_path):
    (tmp_path / "config.json").write_text("[1]")
    with pytest.raises(ValueError, match=r"a JSON object in .*config.json', got list"):
        read_json(tmp_path / "config.json")


def test_the_fingerprint_follows_content_and_not_place(tmp_path, weights):
    first, second = tmp_path / "first", tmp_path / "second"
    for folder in (first, second):
        folder.mkdir()
        write(folder, weights, "bin", sharded=True)
        (folder / "README.md").write_text(folder.name)
    assert fingerprint(first) == fingerprint(second)
    (second / "tokenizer.model").write_bytes(b"other words")
    assert fingerprint(first) != fingerprint(second)
    before = fingerprint(first)
    torch.save({"a": weights["a"] + 1e-3}, first / "pytorch_model-00001-of-00003.bin")
    assert fingerprint(first) != before


def test_digests_of_large_files_are_remembered_until_the_file_changes(tmp_path, monkeypatch):
    import huggingface_hub

    from ma_agiqa_core.model_files import digest as file_digest

    def assets(library_name: str, namespace: str) -> Path:
        (folder := tmp_path / "assets" / library_name / namespace).mkdir(parents=True, exist_ok=True)
        return folder

    monkeypatch.setattr(huggingface_hub, "cached_assets_path", assets)
    hashed: list[str] = []
    read = file_digest._sha256

    def counted(path: Path) -> str:
        hashed.append(path.name)
        return read(path)

    monkeypatch.setattr(file_digest, "_sha256", counted)
    (tmp_path / "config.json").write_text("{}")
    large = tmp_path / "pytorch_model.bin"
    large.write_bytes(bytes(2**24 + 1))
    first = fingerprint(tmp_path)
    assert fingerprint(tmp_path) == first
    assert hashed.count("pytorch_model.bin") == 1
    large.write_bytes(bytes(2**24) + b"1")
    os.utime(large, ns=(1, 1))  # whatever the file system's clock resolves
    assert fingerprint(tmp_path) != first
    assert hashed.count("pytorch_model.bin") == 2


def test_names_for_messages(tmp_path):
    assert display_name("owner/name@v1") == "owner/name"
    (tmp_path / "owl").mkdir()
    assert display_name(tmp_path / "owl") == "owl"
