"""Model files: round trip, metadata, and every way in which one can be damaged or another's."""

import dataclasses
import json
from pathlib import Path
from typing import Any

import pytest
import torch
from project_paths import FIXTURES
from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor

from ma_agiqa_core.checkpoint import (
    CheckpointFacts,
    agiqa_3k_facts,
    convert_file,
    load_checkpoint,
    read_facts,
    save_checkpoint,
)
from ma_agiqa_core.model import MaAgiqa, MaAgiqaConfig
from ma_agiqa_core.scorers.lite import LITE_WEIGHTS
from ma_agiqa_core.semantic.questions import QUESTIONS

CONFIG = MaAgiqaConfig(
    backbone="vit_tiny_patch16_224",
    image_size=32,
    backbone_blocks=(0, 1),
    stage_widths=(8, 4),
    swin_heads=(2, 2),
    window_size=2,
    swin_mlp_width=6,
    semantic_dim=5,
)
FACTS = CheckpointFacts(
    name="mine",
    trained_on="my pictures, «named» by me",
    low=1,
    high=10.5,
    quantiles=(1.25, 3.0, 9.75),
    semantic_model="owner/model",
    semantic_revision="abc123",
    questions={"semantic_content": "Is it “meaningful”?", "coherence": "Is it coherent?"},
)


@pytest.fixture
def model() -> MaAgiqa:
    torch.manual_seed(0)
    return MaAgiqa(CONFIG)


@pytest.fixture
def path(model: MaAgiqa, tmp_path: Path) -> Path:
    path = tmp_path / "model.safetensors"
    save_checkpoint(model, path, FACTS)
    return path


def contents(path: Path) -> tuple[dict[str, Tensor], dict[str, str]]:
    with safe_open(path, framework="pt") as checkpoint:
        return {name: checkpoint.get_tensor(name) for name in checkpoint.keys()}, checkpoint.metadata()  # noqa: SIM118


def test_brings_a_model_back_ready_to_score(model: MaAgiqa, path: Path) -> None:
    loaded = load_checkpoint(str(path))

    pixels, vectors = torch.rand(2, 3, 32, 32), torch.randn(2, 5)
    assert loaded.config == CONFIG
    assert not loaded.training
    assert torch.equal(
        loaded(pixels, semantic_content=vectors, coherence=vectors),
        model.eval()(pixels, semantic_content=vectors, coherence=vectors),
    )


def test_half_precision_files_load_as_float32(model: MaAgiqa, tmp_path: Path) -> None:
    save_checkpoint(model.half(), tmp_path / "half.safetensors")

    loaded = load_checkpoint(tmp_path / "half.safetensors")

    assert {parameter.dtype for parameter in loaded.parameters()} == {torch.float32}
    assert torch.equal(loaded.fusion.score.weight, model.fusion.score.weight.float())


def test_visual_expert_alone_comes_back(tmp_path: Path) -> None:
    save_checkpoint(MaAgiqa(dataclasses.replace(CONFIG, semantic_dim=0)), tmp_path / "visual.safetensors")

    assert load_checkpoint(tmp_path / "visual.safetensors")(torch.rand(2, 3, 32, 32)).shape == (2,)
    assert read_facts(tmp_path / "visual.safetensors") == CheckpointFacts()


def test_a_model_saved_without_facts_is_asked_the_published_questions(model: MaAgiqa, tmp_path: Path) -> None:
    save_checkpoint(model, tmp_path / "model.safetensors")

    assert read_facts(tmp_path / "model.safetensors") == CheckpointFacts(questions=QUESTIONS)


def test_facts_come_back_and_are_strings_in_the_file(path: Path) -> None:
    assert read_facts(str(path)) == FACTS
    metadata = contents(path)[1]
    assert metadata["ma_agiqa.format"] == "1"
    assert metadata["ma_agiqa.kind"] == "ma-agiqa"
    assert json.loads(metadata["ma_agiqa.config"])["semantic_dim"] == 5
    assert json.loads(metadata["ma_agiqa.semantic"])["revision"] == "abc123"


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"low": 5.0}, "Expected low < high, got 5.0 and 5.0"),
        ({"high": float("inf")}, "got 0.0 and inf"),
        ({"quantiles": (1.0,)}, r"ascending finite quantiles, or none, got \(1.0,\)"),
        ({"quantiles": (2.0, 1.0)}, r"got \(2.0, 1.0\)"),
        ({"quantiles": (1.0, float("nan"))}, "nan"),
        ({"questions": {"coherence": "?"}}, "questions for semantic_content and coherence, got coherence"),
    ],
)
def test_impossible_facts_are_refused(change: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        CheckpointFacts(**change)


def test_percentiles_of_agiqa_3k_are_those_of_its_labels() -> None:
    facts = agiqa_3k_facts()

    assert len(facts.quantiles) == 101
    assert (facts.quantiles[0], facts.quantiles[-1]) == (0.0, pytest.approx(4.488740784, abs=1e-5))
    assert (facts.name, facts.semantic_model) == ("ma-agiqa-agiqa-3k", "MAGAer13/mplug-owl2-llama2-7b")
    assert facts.questions == QUESTIONS


def test_a_wrong_output_is_refused_before_the_published_file_is_read(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"Expected a path that ends in .safetensors, got '.*out.pt'"):
        convert_file(tmp_path / "absent.pt", tmp_path / "out.pt")


def test_saving_leaves_nothing_behind_when_it_fails(
    model: MaAgiqa, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(tensors: object, path: Path, metadata: object) -> None:
        Path(path).write_bytes(b"half")
        raise OSError("disk full")

    monkeypatch.setattr("ma_agiqa_core.checkpoint.save_file", fail)
    with pytest.raises(OSError, match="disk full"):
        save_checkpoint(model, tmp_path / "model.safetensors")

    assert list(tmp_path.iterdir()) == []


def test_only_safetensors_are_written(model: MaAgiqa, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"Expected a path that ends in .safetensors, got '.*model.pt'"):
        save_checkpoint(model, tmp_path / "model.pt")


def test_absent_and_damaged_files_are_named(path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"Expected a checkpoint, got '.*absent.safetensors': no such file"):
        load_checkpoint(path.with_name("absent.safetensors"))
    whole = path.read_bytes()
    for content in (b"", whole[:5], whole[:300], whole[:-100], b"\x80\x02" + whole):
        path.write_bytes(content)
        with pytest.raises(ValueError, match=r"Expected a whole safetensors file, got '.*model.safetensors': "):
            load_checkpoint(path)
        with pytest.raises(ValueError, match=r"model.safetensors'"):
            read_facts(path)


def test_checkpoints_of_other_models_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"kind 'ma-agiqa', got '1' and 'lite' in '.*lite.safetensors'"):
        load_checkpoint(LITE_WEIGHTS)
    save_file({"weight": torch.zeros(2)}, tmp_path / "bare.safetensors")
    with pytest.raises(ValueError, match=r"got None and None in '.*bare.safetensors'"):
        load_checkpoint(tmp_path / "bare.safetensors")


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("format", "2", r"Expected a checkpoint of format '1' and kind 'ma-agiqa', got '2' and 'ma-agiqa' in"),
        ("config", None, r"Expected ma_agiqa.config in the metadata of '.*', got none"),
        ("config", "{", r"Expected the config of a model in '.*', got another: Expecting property name"),
        ("config", "[]", r"got another: Expected the fields of a config, got \[\]"),
        ("config", '{"depth": 3}', "got another: Expected the fields of a config, got the unknown depth"),
        ("config", "[" * 100_000, "got another: maximum recursion depth"),
        ("config", {"window_size": "4"}, "got another: Expected int as window_size, got '4'"),
        ("config", {"backbone": "resnet18"}, "got another: Expected a ViT, got 'resnet18'"),
        ("config", {"backbone_blocks": [0, 99]}, r"got another: Expected backbone_blocks below 12, .* got \(0, 99\)"),
        (
            "config",
            {"semantic_dim": 6},
            r"Expected fusion.coherence.0.weight of shape \(4, 6\) in '.*', got torch.float",
        ),
        ("config", {"swin_depths": [1, 2]}, r"got 26 unknown: stage1.swin.layers.0.blocks.1.attention.position_bias, "),
        ("config", {"swin_depths": [2, 3]}, r"got 26 missing: stage1.swin.layers.1.blocks.2.attention.position_bias, "),
        ("config", {"semantic_dim": 0}, r"got 6 unknown: fusion.coherence.0.bias, .*, fusion.gate.weight, fusion.sem"),
    ],
)
def test_metadata_that_does_not_fit_is_refused_with_the_file(path: Path, name: str, value: Any, message: str) -> None:
    tensors, metadata = contents(path)
    if isinstance(value, dict):
        value = json.dumps(CONFIG.to_dict() | value)
    if value is None:
        del metadata[f"ma_agiqa.{name}"]
    else:
        metadata[f"ma_agiqa.{name}"] = value
    save_file(tensors, path, metadata)

    with pytest.raises(ValueError, match=message) as refusal:
        load_checkpoint(path)
    assert str(path) in str(refusal.value)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("low", "zero"),
        ("quantiles", "[" * 100_000),
        ("low", "9e9"),
        ("quantiles", "[3, 1]"),
        ("quantiles", "5"),
        ("semantic", "[]"),
        ("semantic", "{}"),
    ],
)
def test_facts_that_make_no_sense_are_refused_with_the_file(path: Path, name: str, value: str) -> None:
    tensors, metadata = contents(path)
    save_file(tensors, path, metadata | {f"ma_agiqa.{name}": value})

    with pytest.raises(
        ValueError, match=r"Expected the metadata of a ma-agiqa checkpoint in '.*model.safetensors', got"
    ):
        read_facts(path)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"extra": torch.zeros(1)}, r"Expected the tensors of its config in '.*', got 1 unknown: extra\."),
        ({"fusion.gate.bias": None}, r"got 1 missing: fusion.gate.bias\."),
        ({"fusion.gate.bias": torch.zeros(4)}, r"fusion.gate.bias of shape \(3,\) in '.*', got torch.float32 \(4,\)"),
        (
            {"fusion.gate.bias": torch.zeros(3).int()},
            r"fusion.gate.bias of shape \(3,\) in '.*', got torch.int32 \(3,\)",
        ),
        (
            {"fusion.gate.bias": torch.full((3,), torch.inf)},
            "finite weights in '.*', got NaN or infinity in fusion.gate.b",
        ),
    ],
)
def test_tensors_that_do_not_fit_are_refused_with_the_file(
    path: Path, change: dict[str, Tensor | None], message: str
) -> None:
    tensors, metadata = contents(path)
    changed = {name: tensor for name, tensor in (tensors | change).items() if tensor is not None}
    save_file(changed, path, metadata)

    with pytest.raises(ValueError, match=message) as refusal:
        load_checkpoint(path)
    assert str(path) in str(refusal.value)


def test_published_file_becomes_a_model_file(tmp_path: Path) -> None:
    fixture = json.loads((FIXTURES / "ma_agiqa.json").read_text(encoding="utf-8"))
    shapes = {key: entry["shape"] for key, entry in fixture["state_dict"].items()}
    shapes |= {key: [784, 8] for key in ("fc4096_784_a2.0.weight", "fc4096_784_b2.0.weight")}  # a narrow language model
    torch.save(
        {f"module.{key}": torch.full((1,), 0.5).expand(shape) for key, shape in shapes.items()}, tmp_path / "a.pt"
    )

    config = convert_file(tmp_path / "a.pt", tmp_path / "a.safetensors")
    convert_file(tmp_path / "a.pt", tmp_path / "b.safetensors", trained_on="AIGCQA-20K")

    assert config == MaAgiqaConfig(semantic_dim=8)
    assert load_checkpoint(tmp_path / "a.safetensors").config == config
    assert read_facts(tmp_path / "a.safetensors") == agiqa_3k_facts()
    other = read_facts(tmp_path / "b.safetensors")
    assert (other.name, other.trained_on, other.quantiles) == ("ma-agiqa", "AIGCQA-20K", ())
    assert other.semantic_model == "MAGAer13/mplug-owl2-llama2-7b"


def test_file_that_cannot_be_converted_is_named(tmp_path: Path) -> None:
    torch.save({"conv.weight": torch.zeros(3)}, tmp_path / "other.pt")

    with pytest.raises(ValueError, match=r"'.*other.pt' cannot be converted: Expected 'fc4096_784_a2.0.weight'"):
        convert_file(tmp_path / "other.pt", tmp_path / "out.safetensors")
    assert not (tmp_path / "out.safetensors").exists()
