"""The convolution that stands in for a linear layer."""

import pytest
import torch
from torch import nn

from ma_agiqa_core.model import token_linear
from ma_agiqa_core.model.token_linear import TokenLinear, use_token_linears


@pytest.mark.parametrize("shape", [(4, 50, 24), (200, 24), (2, 4, 25, 24)])
@pytest.mark.parametrize(("batch", "bias"), [(1, True), (20, True), (1, False)])
def test_computes_what_linear_computes(
    monkeypatch: pytest.MonkeyPatch, shape: tuple[int, ...], batch: int, bias: bool
) -> None:
    monkeypatch.setattr(token_linear, "_convolution_batch", lambda x: batch)
    torch.manual_seed(0)
    layer = TokenLinear(24, 40, bias)
    x = torch.randn(shape)

    assert torch.allclose(layer(x), nn.functional.linear(x, layer.weight, layer.bias), atol=1e-5)


def test_takes_transposed_tokens_and_gives_gradients(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(token_linear, "_convolution_batch", lambda x: 1)
    torch.manual_seed(0)
    layer = TokenLinear(24, 40)
    x = torch.randn(3, 24, 50, requires_grad=True)

    (found,) = torch.autograd.grad(layer(x.mT).square().sum(), x)
    (expected,) = torch.autograd.grad(nn.functional.linear(x.mT, layer.weight, layer.bias).square().sum(), x)

    assert torch.allclose(found, expected, atol=1e-4)


@pytest.mark.parametrize(("threads", "tokens", "batch"), [(2, 785, 1), (1, 785, 157), (1, 3072, 16), (1, 197, 0)])
def test_with_one_thread_tokens_are_split_where_they_can_be(
    monkeypatch: pytest.MonkeyPatch, threads: int, tokens: int, batch: int
) -> None:
    monkeypatch.setattr(torch.backends.mkldnn, "is_available", lambda: True)
    monkeypatch.setattr(torch.backends.cpu, "get_cpu_capability", lambda: "AVX512")
    monkeypatch.setattr(torch, "get_num_threads", lambda: threads)

    assert token_linear._convolution_batch(torch.zeros(tokens, 3)) == batch


def test_few_tokens_and_other_dtypes_processors_and_devices_stay_linear(monkeypatch: pytest.MonkeyPatch) -> None:
    assert token_linear._convolution_batch(torch.zeros(8, 24)) == 0
    assert token_linear._convolution_batch(torch.zeros(800, 24, dtype=torch.bfloat16)) == 0
    assert token_linear._convolution_batch(torch.zeros(800, 24, device="meta")) == 0
    monkeypatch.setattr(torch.backends.cpu, "get_cpu_capability", lambda: "AVX2")
    assert token_linear._convolution_batch(torch.zeros(800, 24)) == 0


def test_replaced_layers_keep_their_parameters_and_names() -> None:
    module = nn.Sequential(nn.Linear(4, 3), nn.ModuleList([nn.Linear(3, 2, bias=False)]), nn.ReLU())
    before = {name: id(parameter) for name, parameter in module.named_parameters()}

    use_token_linears(module)

    assert [type(part) for part in module.modules() if isinstance(part, nn.Linear)] == [TokenLinear] * 2
    assert {name: id(parameter) for name, parameter in module.named_parameters()} == before
