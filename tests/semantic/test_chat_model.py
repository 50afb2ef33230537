"""Chat models of transformers, as tiny random ones: shared prefill against separate runs, and against plain calls."""

import json
import logging
import shutil
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import PIL.Image
import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from ma_agiqa_core.semantic import chat_model, chat_model_files
from ma_agiqa_core.semantic.chat_model import SHARES_PREFILL, ChatModel
from ma_agiqa_core.semantic.questions import QUESTIONS

CPU = torch.device("cpu")
SIZES = [(40, 60), (60, 40), (64, 64), (40, 60), (30, 40)]  # two alike, one turned, one square

ChatFolder = Callable[[str], Path]


@pytest.fixture(scope="module", autouse=True)
def one_thread():
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="module")
def pictures() -> list[Tensor]:
    generator = torch.Generator().manual_seed(0)
    return [torch.randint(0, 256, (3, *size), generator=generator, dtype=torch.uint8) for size in SIZES]


@pytest.fixture
def changed(chat_folder: ChatFolder, tmp_path: Path) -> Path:
    """A copy of a tiny Qwen2.5-VL, to be spoiled."""
    return Path(shutil.copytree(chat_folder("qwen2_5_vl"), tmp_path / "model"))


def load(folder: Path, dtype: torch.dtype = torch.float32, **options: Any) -> ChatModel:
    return ChatModel.from_pretrained(folder, device=CPU, dtype=dtype, **options)


def close(found: dict[str, Tensor], wanted: dict[str, Tensor], tolerance: float = 1e-5) -> None:
    assert found.keys() == wanted.keys()
    for name, vectors in wanted.items():
        torch.testing.assert_close(found[name], vectors, rtol=0, atol=tolerance)


@pytest.mark.parametrize("family", SHARES_PREFILL)
def test_shared_prefill_equals_separate_runs(chat_folder: ChatFolder, pictures: list[Tensor], family: str) -> None:
    model = load(chat_folder(family))
    if not model.shares_prefill:
        pytest.skip(f"{family} shares its prefill from transformers {SHARES_PREFILL[family]} on")
    seen: list[int] = []
    model._model.register_forward_pre_hook(
        lambda _, __, inputs: seen.append("pixel_values" in inputs), with_kwargs=True
    )
    shared = model.features(pictures, QUESTIONS)
    shared_runs, looks = len(seen), sum(seen)
    assert 0 < looks < shared_runs == 3 * looks  # once with the picture, twice after it

    seen.clear()
    model.shares_prefill = False
    separate = model.features(pictures, QUESTIONS)
    assert sum(seen) == len(seen) == 2 * looks

    close(shared, separate)
    spread = separate["coherence"].std(0).mean()
    assert spread > 0.01, "the pictures must show in the vectors for this test to mean something"
    assert (separate["coherence"] - separate["semantic_content"]).abs().max() > 0.1


@pytest.mark.parametrize("family", SHARES_PREFILL)
def test_features_are_those_of_plain_calls(chat_folder: ChatFolder, pictures: list[Tensor], family: str) -> None:
    features = load(chat_folder(family)).features(pictures, QUESTIONS)
    head, mean_logits = plain_logits(chat_folder(family), pictures)
    for name, wanted in mean_logits.items():  # the head is linear: the mean of its outputs is that of the mean
        torch.testing.assert_close(head(features[name]), wanted, rtol=0, atol=1e-5)


@torch.inference_mode()
def plain_logits(folder: Path, pictures: Sequence[Tensor]) -> tuple[torch.nn.Module, dict[str, Tensor]]:
    from transformers import AutoModelForImageTextToText, AutoProcessor

    model: Any = AutoModelForImageTextToText.from_pretrained(folder).eval()
    processor = AutoProcessor.from_pretrained(folder)
    means: dict[str, list[Tensor]] = {name: [] for name in QUESTIONS}
    for name, question in QUESTIONS.items():
        for pixels in pictures:
            picture = PIL.Image.fromarray(pixels.permute(1, 2, 0).numpy())
            content = [{"type": "image", "image": picture}, {"type": "text", "text": question}]
            inputs = processor.apply_chat_template(
                [{"role": "user", "content": content}],
                add_generation_prompt=True,
                tokenize=True,
                return_dict=True,
                return_tensors="pt",
            )
            means[name].append(model(**inputs).logits[0].mean(0))
    return model.get_output_embeddings(), {name: torch.stack(rows) for name, rows in means.items()}


@pytest.mark.parametrize("family", ["qwen2_5_vl", "llava_onevision"])
def test_a_picture_alone_gives_what_it_gives_in_a_batch(
    chat_folder: ChatFolder, pictures: list[Tensor], family: str
) -> None:
    model = load(chat_folder(family))
    together = model.features(pictures, QUESTIONS)
    alone = [model.features([picture], QUESTIONS) for picture in pictures]
    close({name: torch.cat([row[name] for row in alone]) for name in QUESTIONS}, together)
    close(model.features(pictures[::-1], QUESTIONS), {name: rows.flip(0) for name, rows in together.items()})


def test_shapes(chat_folder: ChatFolder, pictures: list[Tensor]) -> None:
    model = load(chat_folder("qwen2_5_vl"))
    one = model.features(pictures[:2], {"quality": "How sharp is it?"})
    assert model.hidden_size == 64
    assert one["quality"].shape == (2, 64)
    assert one["quality"].dtype == torch.float32
    assert one["quality"].device == CPU
    twice = model.features(pictures[:2], {"a": "How sharp is it?", "b": "How sharp is it?"})
    close(twice, {"a": one["quality"], "b": one["quality"]})
    assert {name: rows.shape for name, rows in model.features([], QUESTIONS).items()} == dict.fromkeys(
        QUESTIONS, (0, 64)
    )
    assert model.features(pictures, {}) == {}


def test_a_template_that_asks_before_the_picture_is_run_separately(changed: Path, pictures: list[Tensor]) -> None:
    rewrite_template(changed, lambda template: template.replace("message['content']", "message['content'] | reverse"))
    model = load(changed)
    features = model.features(pictures, QUESTIONS)
    assert list(model._endings.values()) == [None]
    head, mean_logits = plain_logits(changed, pictures)
    for name, wanted in mean_logits.items():
        torch.testing.assert_close(head(features[name]), wanted, rtol=0, atol=1e-5)


def test_a_family_that_was_not_compared_is_run_separately(
    chat_folder: ChatFolder, pictures: list[Tensor], monkeypatch: pytest.MonkeyPatch
) -> None:
    wanted = load(chat_folder("qwen2_5_vl")).features(pictures, QUESTIONS)
    monkeypatch.setattr(chat_model, "SHARES_PREFILL", {"qwen2_5_vl": "999"})
    model = load(chat_folder("qwen2_5_vl"))
    assert not model.shares_prefill
    close(model.features(pictures, QUESTIONS), wanted)


def test_padding_is_not_averaged(
    chat_folder: ChatFolder, pictures: list[Tensor], monkeypatch: pytest.MonkeyPatch
) -> None:
    model = load(chat_folder("qwen2_5_vl"))
    wanted = model.features(pictures, QUESTIONS)
    plain = model._processor.apply_chat_template

    def padded(*arguments: Any, **options: Any) -> dict[str, Tensor]:
        inputs = dict(plain(*arguments, **options))
        shape = inputs["input_ids"].shape
        return {
            name: torch.nn.functional.pad(value, (7, 0)) if value.shape == shape else value
            for name, value in inputs.items()
        }

    monkeypatch.setattr(model._processor, "apply_chat_template", padded)
    close(model.features(pictures, QUESTIONS), wanted)


def test_a_picture_that_the_processor_refuses_has_no_vectors(
    chat_folder: ChatFolder, pictures: list[Tensor], caplog: pytest.LogCaptureFixture
) -> None:
    model = load(chat_folder("qwen2_5_vl"))
    ribbon = torch.zeros(3, 28, 28 * 201, dtype=torch.uint8)
    with caplog.at_level(logging.WARNING):
        features = model.features([pictures[0], ribbon, pictures[1]], QUESTIONS)
    assert "picture 1 (5628 × 28) is refused by Qwen2_5_VLProcessor" in caplog.text
    for name, rows in model.features(pictures[:2], QUESTIONS).items():
        torch.testing.assert_close(features[name][[0, 2]], rows, rtol=0, atol=1e-5)
        assert features[name][1].isnan().all()


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize("family", ["qwen3_vl", "internvl", "gemma3"])
def test_half_precision_is_near(
    chat_folder: ChatFolder, pictures: list[Tensor], family: str, dtype: torch.dtype
) -> None:
    wanted = load(chat_folder(family)).features(pictures, QUESTIONS)
    found = load(chat_folder(family), dtype).features(pictures, QUESTIONS)
    for name, vectors in wanted.items():
        assert (found[name] - vectors).std() < 0.05 * vectors.std()


@pytest.mark.parametrize("device_map", ["auto", {"": "cpu"}])
def test_device_map(chat_folder: ChatFolder, pictures: list[Tensor], device_map: Any) -> None:
    if device_map == "auto" and torch.cuda.is_available():
        pytest.skip("the plan would use this machine's card")
    wanted = load(chat_folder("qwen2_5_vl")).features(pictures, QUESTIONS)
    close(load(chat_folder("qwen2_5_vl"), device_map=device_map).features(pictures, QUESTIONS), wanted)


def test_weights_that_wait_elsewhere_give_the_same(chat_folder: ChatFolder, pictures: list[Tensor]) -> None:
    from accelerate import cpu_offload

    model = load(chat_folder("qwen2_5_vl"))
    wanted = model.features(pictures, QUESTIONS)
    cpu_offload(model._model, execution_device=CPU)
    assert all(parameter.is_meta for parameter in model._model.parameters())
    close(model.features(pictures, QUESTIONS), wanted)


def test_too_little_memory_is_told_before_loading(chat_folder: ChatFolder, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("ma_agiqa_core.semantic.placement.free_bytes", lambda device: 1000)
    with pytest.raises(ValueError, match=r"^Expected 0\.00\d+ GB free on cpu for qwen2_5_vl in float32, got 1e-06 GB"):
        load(chat_folder("qwen2_5_vl"))


@pytest.mark.parametrize(
    ("lacking", "message"),
    [
        (["config.json"], r"^Expected a model of transformers [\d.]+ in '.*model', got .*Download the model's whole"),
        (
            ["tokenizer.json", "vocab.json", "merges.txt"],  # the last two are there before transformers 5
            r"^Expected a tokenizer, an image processor and a chat template in '.*model', got no tokenizer\.json\.",
        ),
        (["model.safetensors"], r"^Expected the weights of a qwen2_5_vl in '.*model', got .*model\.safetensors"),
    ],
)
def test_missing_files(changed: Path, lacking: list[str], message: str) -> None:
    for name in lacking:
        (changed / name).unlink(missing_ok=True)
    with pytest.raises(ValueError, match=message):
        load(changed)


def test_no_chat_template(changed: Path) -> None:
    (changed / "chat_template.jinja").unlink(missing_ok=True)
    (changed / "chat_template.json").unlink(missing_ok=True)
    with pytest.raises(ValueError, match=r"in '.*model', got no chat_template\. Download the model's whole"):
        load(changed)


def test_a_template_that_fails(changed: Path) -> None:
    rewrite_template(changed, lambda template: template + "{{ raise_exception('no pictures') }}")
    with pytest.raises(
        ValueError, match=r"take a picture and a question, got .*no pictures.* from Qwen2_5_VLProcessor"
    ):
        load(changed)


def test_a_model_that_sees_no_pictures(changed: Path) -> None:
    (changed / "config.json").write_text(json.dumps({"model_type": "llama"}))
    with pytest.raises(ValueError, match=r"^Expected an image-text-to-text model in '.*model', got model_type 'llama'"):
        load(changed)


def test_an_unknown_model(changed: Path) -> None:
    (changed / "config.json").write_text(json.dumps({"model_type": "of_tomorrow"}))
    with pytest.raises(ValueError, match=r"^Expected a model of transformers [\d.]+ in '.*model', got .*of_tomorrow"):
        load(changed)


def test_a_truncated_shard_is_named(changed: Path) -> None:
    weights = changed / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-1000])
    with pytest.raises(ValueError, match=r"got a damaged '.*model\.safetensors': .* Download it again\.$"):
        load(changed)


def test_missing_weights_are_named(changed: Path) -> None:
    weights = load_file(changed / "model.safetensors")
    lost = sorted(name for name in weights if "mlp" in name)
    for name in lost:
        del weights[name]
    save_file(weights, changed / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(
        ValueError, match=rf"^Expected all weights of a qwen2_5_vl .* for .*mlp.*, .* and {len(lost) - 5} more\. Check"
    ):
        load(changed)


def test_pickles_are_refused(changed: Path) -> None:
    torch.save(load_file(changed / "model.safetensors"), changed / "pytorch_model.bin")
    (changed / "model.safetensors").unlink()
    with pytest.raises(ValueError, match=r"^Expected the weights of a qwen2_5_vl in '.*model', got .*safetensors"):
        load(changed)


def test_layers_outside_the_language_model(chat_folder: ChatFolder) -> None:
    model = load(chat_folder("qwen2_5_vl"))._model
    outside = chat_model_files.not_in_language_model(model)
    assert outside
    assert all("visual" in name for name in outside)  # the head is off


def rewrite_template(folder: Path, change: Callable[[str], str]) -> None:
    """The chat template is a file of its own, or in JSON before transformers 4.52."""
    if (path := folder / "chat_template.jinja").is_file():
        path.write_text(change(path.read_text(encoding="utf-8")), encoding="utf-8")
    else:
        path = folder / "chat_template.json"
        path.write_text(json.dumps({"chat_template": change(json.loads(path.read_text())["chat_template"])}))
