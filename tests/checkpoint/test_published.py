"""The authors' checkpoint: what is renamed, dropped and refused. Values are in tests/model/test_parity.py."""

import json
import pickle
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from project_paths import FIXTURES
from torch import Tensor

from ma_agiqa_core.checkpoint.published import convert_reference, read_published
from ma_agiqa_core.model import MaAgiqa

SHAPES = json.loads((FIXTURES / "ma_agiqa.json").read_text(encoding="utf-8"))["state_dict"]


def published(**changes: Tensor | None) -> dict[str, Tensor]:
    """Every published key, its tensor holding one repeated zero in memory; None takes a key away."""
    state = {key: torch.zeros(()).expand(entry["shape"]) for key, entry in SHAPES.items()}
    for key, value in changes.items():
        if value is None:
            del state[key]
        else:
            state[key] = value
    return state


def test_converts_to_what_the_model_loads_whatever_the_dtype_and_the_module_prefix() -> None:
    state = {f"module.{key}": tensor.half() for key, tensor in published().items()}

    converted, config = convert_reference(state)

    expected = MaAgiqa(config).state_dict()
    assert config.semantic_dim == 4096
    assert {name: tensor.shape for name, tensor in converted.items()} == {
        name: tensor.shape for name, tensor in expected.items()
    }
    assert {tensor.dtype for tensor in converted.values()} == {torch.float32}


def test_reads_the_semantic_width_from_the_tensors() -> None:
    narrow = torch.zeros(784, 32)

    _, config = convert_reference(published(**{"fc4096_784_a2.0.weight": narrow, "fc4096_784_b2.0.weight": narrow}))

    assert config.semantic_dim == 32


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (
            {f"extra.{i}": torch.zeros(1) for i in range(7)},
            r"got 7 unknown: extra.0, extra.1, extra.2, extra.3, extra.4 and 2 more\. Use the authors'",
        ),
        ({"vit.blocks.12.norm1.weight": torch.zeros(768)}, r"got 1 unknown: vit.blocks.12.norm1.weight\."),
        (
            {"gating.bias": None, "tablock2.1.c_k.bias": None, "swintransformer1.layers.0.blocks.1.mlp.fc1.bias": None},
            r"3 missing: gating.bias, swintransformer1.layers.0.blocks.1.mlp.fc1.bias, tablock2.1.c_k.bias\.",
        ),
        ({"output_fc.weight": torch.zeros(1, 39)}, r"Expected 'output_fc.weight' of shape \(1, 784\), got \(1, 39\)"),
        ({"conv1.weight": torch.zeros(768, 3072, 3, 3)}, r"'conv1.weight' of shape .*, got \(768, 3072, 3, 3\)"),
        ({"gating.bias": torch.zeros(3).long()}, r"Expected a float tensor as 'gating.bias', got torch.int64"),
        ({"gating.bias": torch.tensor([0, 0, torch.nan])}, "Expected finite weights, got NaN or infinity in 'gating.b"),
    ],
)
def test_every_other_difference_is_refused_by_name(changes: dict[str, Tensor | None], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        convert_reference(published(**changes))


def test_other_models_are_refused() -> None:
    with pytest.raises(ValueError, match=r"Expected 'fc4096_784_a2.0.weight' \(784, D\) among 1 entries, got none"):
        convert_reference({"conv.weight": torch.zeros(3)})
    with pytest.raises(ValueError, match="among 0 entries"):
        convert_reference({})


@pytest.mark.parametrize("old_format", [False, True])
@pytest.mark.parametrize("wrap", [lambda s: s, lambda s: {"state_dict": s, "epoch": 3}, lambda s: {"model": s}])
def test_reads_a_state_dict_bare_or_wrapped(
    tmp_path: Path, wrap: Callable[[dict[str, Tensor]], object], old_format: bool
) -> None:
    path = tmp_path / "published.pt"
    torch.save(wrap({"a.weight": torch.arange(3.0)}), path, _use_new_zipfile_serialization=not old_format)

    state = read_published(path)

    assert list(state) == ["a.weight"]
    assert torch.equal(state["a.weight"], torch.arange(3.0))


class _Exploit:
    def __reduce__(self) -> tuple[Callable[..., object], tuple[str]]:
        return Path.touch, (Path("executed"),)  # type: ignore[return-value]


@pytest.mark.parametrize("bare", [False, True])
def test_code_in_a_pickle_is_refused_and_not_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, bare: bool) -> None:
    monkeypatch.chdir(tmp_path)
    path = tmp_path / "evil.pt"
    if bare:
        path.write_bytes(pickle.dumps({"a": _Exploit()}))
    else:
        torch.save({"a": _Exploit()}, path)

    with pytest.raises(ValueError, match=r"Expected plain tensors in '.*evil.pt', got something else: it ") as caught:
        read_published(path)
    assert ("it needs" in str(caught.value)) != bare  # named where torch names it
    assert "weights_only" not in str(caught.value), "torch advises to load it nevertheless"
    assert not Path("executed").exists()


@pytest.mark.parametrize("kept", [0, 3, 40, 0.5, 0.99])
@pytest.mark.parametrize("old_format", [False, True])
def test_a_truncated_file_is_named(tmp_path: Path, kept: float, old_format: bool) -> None:
    path = tmp_path / "published.pt"
    torch.save({"a": torch.zeros(5000)}, path, _use_new_zipfile_serialization=not old_format)
    content = path.read_bytes()
    path.write_bytes(content[: int(kept * len(content)) if kept < 1 else int(kept)])

    with pytest.raises(ValueError, match=r"Expected (a whole torch checkpoint|plain tensors in|a table).*published.pt"):
        read_published(path)


def test_other_files_are_refused_by_name(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"absent.pt'"):
        read_published(tmp_path / "absent.pt")
    (tmp_path / "model.safetensors").write_bytes(b"")
    with pytest.raises(ValueError, match=r"model.safetensors'. It needs no convert"):
        read_published(tmp_path / "model.safetensors")
    torch.save([torch.zeros(1)], tmp_path / "list.pt")
    with pytest.raises(ValueError, match=r"Expected a table of tensors in '.*list.pt', got list"):
        read_published(tmp_path / "list.pt")
