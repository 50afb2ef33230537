"""The convolution that stands in for a linear layer."""

import pytest
import torch
from torch import nn

from ma_agiqa_core.model import token_linear
from ma_agiqa_core.model.token_linear import TokenLinear, use_token_linears


@pytest.mark.parametrize("shape", [(3, 50, 24), (200, 24), (2, 4, 30, 24)])
@pytest.mark.parametrize("bias", [True, False])
def test_computes_what_linear_computes(monkeypatch: pytest.MonkeyPatch, shape: tuple[int, ...], bias: bool) -> None:
    monkeypatch.setattr(token_linear, "_convolution_is_faster", lambda x: True)
    torch.manual_seed(0)
    layer = TokenLinear(24, 40, bias)
    x = torch.randn(shape)

    assert torch.allclose(layer(x), nn.functional.linear(x, layer.weight, layer.bias), atol=1e-5)


def test_takes_transposed_tokens_and_gives_gradients(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(token_linear, "_convolution_is_faster", lambda x: True)
    torch.manual_seed(0)
    layer = TokenLinear(24, 40)
    x = torch.randn(3, 24, 50, requires_grad=True)

    (found,) = torch.autograd.grad(layer(x.mT).square().sum(), x)
    (expected,) = torch.autograd.grad(nn.functional.linear(x.mT, layer.weight, layer.bias).square().sum(), x)

    assert torch.allclose(found, expected, atol=1e-4)


def test_few_tokens_and_other_dtypes_stay_linear() -> None:
    assert not token_linear._convolution_is_faster(torch.zeros(8, 24))
    assert not token_linear._convolution_is_faster(torch.zeros(800, 24, dtype=torch.bfloat16))
    assert not token_linear._convolution_is_faster(torch.zeros(800, 24, device="meta"))


def test_replaced_layers_keep_their_parameters_and_names() -> None:
    module = nn.Sequential(nn.Linear(4, 3), nn.ModuleList([nn.Linear(3, 2, bias=False)]), nn.ReLU())
    before = {name: id(parameter) for name, parameter in module.named_parameters()}

    use_token_linears(module)

    assert [type(part) for part in module.modules() if isinstance(part, nn.Linear)] == [TokenLinear] * 2
    assert {name: id(parameter) for name, parameter in module.named_parameters()} == before
