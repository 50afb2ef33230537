"""Quantized layers against the layers they come from, on the CPU; bitsandbytes on CUDA where there is a card."""

import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers
from packaging.version import Version
from torch import Tensor, nn

from ma_agiqa_core.semantic import chat_model_files, quantization
from ma_agiqa_core.semantic.chat_model import ChatModel
from ma_agiqa_core.semantic.quantization import (
    linears,
    quantization_library,
    quantize_linears,
    quantized_bytes,
)
from ma_agiqa_core.semantic.questions import QUESTIONS

WAYS = [("int8", "torchao"), ("int8", "bitsandbytes"), ("nf4", "bitsandbytes")]
ROUNDING = {"int8": 0.02, "nf4": 0.15}  # of the spread of a layer's outputs
DTYPES = [torch.float32, torch.bfloat16, torch.float16]


class Attention(nn.Module):
    """In our own networks' manner: named linear layers, called as modules."""

    def __init__(self) -> None:
        super().__init__()
        self.query = nn.Linear(64, 128)
        self.value = nn.Linear(64, 128, bias=False)
        self.narrow = nn.Linear(72, 32)
        self.short = nn.Linear(64, 16)

    def forward(self, tokens: Tensor) -> Tensor:
        return self.query(tokens) * self.value(tokens)


class Network(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.vision = Attention()
        self.layers = nn.ModuleList([Attention(), Attention()])
        self.norm = nn.LayerNorm(64)


@pytest.fixture
def network() -> Network:
    torch.manual_seed(0)
    return Network().eval()


def only(monkeypatch: pytest.MonkeyPatch, *libraries: str) -> None:
    """Makes other libraries look uninstalled; skips where these are."""
    for library in libraries:
        pytest.importorskip(library, reason=f"{library} is optional and not installed")
    monkeypatch.setattr(quantization, "_is_installed", lambda library: library in libraries)


def test_linears_leaves_out_the_named_parts_and_broken_blocks(network: Network) -> None:
    every = [
        f"{part}.{own}" for part in ("vision", "layers.0", "layers.1") for own in ("query", "value", "narrow", "short")
    ]
    assert linears(network, "int8") == every
    assert linears(network, "int8", ["vision", "layers.0.value", "layers.1.val"]) == [every[4], *every[6:]]
    assert linears(network, "nf4", ["vision", "layers.0"]) == ["layers.1.query", "layers.1.value"]


@pytest.mark.parametrize(("kind", "library"), WAYS)
@pytest.mark.parametrize("dtype", DTYPES)
def test_quantized_layers_are_near_and_do_not_depend_on_the_batch(
    network: Network, kind: str, library: str, dtype: torch.dtype, monkeypatch: pytest.MonkeyPatch
) -> None:
    only(monkeypatch, library)
    tokens = torch.randn(3, 5, 64, generator=torch.Generator().manual_seed(1)).to(dtype)
    first: Any = network.layers[0]
    plain = first.query(tokens.float())
    done = quantize_linears(network, kind, skip=["vision"], dtype=dtype)
    assert done == linears(Network(), kind, ["vision"])
    assert type(network.vision.query) is nn.Linear
    assert network.vision.query.weight.dtype == torch.float32

    with torch.inference_mode():
        found, alone = first.query(tokens), first.query(tokens[1:2])
    assert found.dtype == dtype
    noise = 0.01 if dtype != torch.float32 else 0  # of the type itself
    assert 0 < (found.float() - plain).std() < (ROUNDING[kind] + noise) * plain.std()
    torch.testing.assert_close(alone, found[1:2], rtol=0, atol=1e-4 if dtype == torch.float32 else 0.02)


@pytest.mark.parametrize(("kind", "library"), WAYS)
def test_layers_without_weights_wait_and_none_is_done_twice(
    kind: str, library: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    only(monkeypatch, library)
    with torch.device("meta"):
        network = Network().eval()
    assert quantize_linears(network, kind) == []
    network.layers[0].to_empty(device="cpu")
    for parameter in network.layers[0].parameters():
        nn.init.normal_(parameter)
    first = quantize_linears(network, kind, device=torch.device("cpu"))
    assert first
    assert all(name.startswith("layers.0.") for name in first)
    assert quantize_linears(network, kind) == []
    assert all(parameter.is_meta for parameter in network.layers[1].parameters())


@pytest.mark.parametrize(("kind", "library"), WAYS)
def test_the_counted_bytes_are_those_of_the_weights(kind: str, library: str, monkeypatch: pytest.MonkeyPatch) -> None:
    only(monkeypatch, library)
    layer = nn.Linear(512, 256, bias=False)
    network = nn.Sequential(layer)
    counted = quantized_bytes(layer, kind)
    quantize_linears(network, kind)
    weight: Any = network[0].weight
    if library == "torchao":
        stored = weight.qdata.nbytes + weight.scale.nbytes
    elif kind == "int8":
        stored = weight.nbytes + weight.SCB.nbytes
    else:
        state = weight.quant_state
        stored = weight.nbytes + state.absmax.nbytes + state.state2.absmax.nbytes
    assert counted == stored


def test_torchao_is_taken_before_bitsandbytes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(quantization, "_is_installed", lambda library: True)
    assert quantization_library("int8") == "torchao"
    assert quantization_library("nf4") == "bitsandbytes"


def test_a_missing_library_names_its_pip_line(network: Network, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(quantization, "_is_installed", lambda library: library == "torchao")
    with pytest.raises(ImportError, match=r"for quantization='nf4', got none\. Run: pip install bitsandbytes$"):
        quantize_linears(network, "nf4")
    monkeypatch.setattr(quantization, "_is_installed", lambda library: False)
    with pytest.raises(
        ImportError, match=r"^Expected torchao or bitsandbytes for .*'int8', got none\. Run: pip install torchao$"
    ):
        quantize_linears(network, "int8")


def test_another_kind_is_refused(network: Network) -> None:
    with pytest.raises(ValueError, match=r"^Expected quantization None, 'int8' or 'nf4', got 'int4'\.$"):
        quantize_linears(network, "int4")


@pytest.mark.parametrize(("kind", "library"), WAYS)
def test_a_transformers_model_keeps_vision_and_quantizes_the_rest(
    chat_folder: Callable[[str], Path],
    kind: str,
    library: str,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    only(monkeypatch, library)
    if library == "bitsandbytes" and Version(transformers.__version__) < Version("4.57"):
        pytest.skip("this transformers runs bitsandbytes on the CPU only with Intel's extension")
    torch.set_num_threads(1)
    folder, cpu = chat_folder("llava_onevision"), torch.device("cpu")
    generator = torch.Generator().manual_seed(0)
    pictures = [torch.randint(0, 256, (3, 40, 60), generator=generator, dtype=torch.uint8) for _ in range(3)]
    plain = ChatModel.from_pretrained(folder, device=cpu, dtype=torch.float32).features(pictures, QUESTIONS)
    model = ChatModel.from_pretrained(folder, device=cpu, dtype=torch.float32, quantization=kind)
    with caplog.at_level(logging.WARNING):
        found = model.features(pictures, QUESTIONS)
    assert "cast" not in caplog.text

    layers = [layer for _, layer in model._model.named_modules() if isinstance(layer, nn.Linear)]
    names = [name for name, layer in model._model.named_modules() if isinstance(layer, nn.Linear)]
    for name, layer in zip(names, layers, strict=True):
        weight = layer.weight
        is_plain = type(layer) is nn.Linear and type(weight.data) is Tensor and weight.dtype == torch.float32
        assert is_plain == ("language_model" not in name), name
    for name, vectors in plain.items():
        error = (found[name] - vectors).std() / vectors.std()
        assert 0 < error < (0.1 if kind == "int8" else 0.6)  # random weights are the worst case
    if (kind, library) == ("int8", "bitsandbytes"):
        return  # which activations it rounds depends on the batch, as the module says
    for index, picture in enumerate(pictures):
        alone = model.features([picture], QUESTIONS)
        torch.testing.assert_close(alone["coherence"][0], found["coherence"][index], rtol=0, atol=1e-4)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA card")
@pytest.mark.parametrize(("kind", "library"), WAYS)
def test_on_a_card(network: Network, kind: str, library: str, monkeypatch: pytest.MonkeyPatch) -> None:
    only(monkeypatch, library)
    card = torch.device("cuda", 0)
    tokens = torch.randn(3, 5, 64, generator=torch.Generator().manual_seed(1))
    first: Any = network.layers[0]
    plain = first.query(tokens)
    quantize_linears(network, kind, skip=["vision"], device=card, dtype=torch.bfloat16)
    assert network.vision.query.weight.device.type == "cpu"
    first = network.layers[0]
    with torch.inference_mode():
        found = first.query(tokens.to(card, torch.bfloat16)).float().cpu()
    assert 0 < (found - plain).std() < (ROUNDING[kind] + 0.01) * plain.std()


def test_layers_that_were_left_as_they_are_are_told(
    chat_folder: Callable[[str], Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    only(monkeypatch, "torchao")
    monkeypatch.setattr(chat_model_files, "_is_plain", lambda layer: True)
    with pytest.raises(ValueError, match=r"^Expected 21 layers in int8, got 21 that transformers .* left as they are"):
        ChatModel.from_pretrained(
            chat_folder("llava_onevision"), device=torch.device("cpu"), dtype=torch.float32, quantization="int8"
        )
