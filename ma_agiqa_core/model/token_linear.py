"""`nn.Linear` for many tokens, computed as a 1x1 convolution where that is faster."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

_MANY_TOKENS = 64  # below, the convolution's reordering of the weight is not worth it
_ONEDNN_BATCH = 16  # with one thread, torch gives 1x1 convolutions to oneDNN from this batch size on ...
_ONEDNN_WIDTH = 4  # ... and fewer places in a picture than this are slow


class TokenLinear(nn.Linear):
    """The same numbers as `nn.Linear` up to float rounding; the same state dict.

    torch multiplies float32 matrices with MKL, which leaves AVX-512 unused on processors that are not Intel's, and
    convolves with oneDNN, which uses it wherever it is: twice the speed on an AMD EPYC (benchmarks/visual.py).
    """

    def forward(self, x: Tensor) -> Tensor:
        """(..., in_features) -> (..., out_features)."""
        batch = _convolution_batch(x)
        if not batch:
            return super().forward(x)
        tokens = x.reshape(batch, 1, -1, self.in_features).permute(0, 3, 1, 2)  # channels last: nothing is copied
        y = F.conv2d(tokens, self.weight[:, :, None, None], self.bias)
        return y.permute(0, 2, 3, 1).reshape(*x.shape[:-1], self.out_features)


def use_token_linears(module: nn.Module) -> None:
    """Makes every `nn.Linear` inside `module` a `TokenLinear` with the same parameters."""
    for name, child in module.named_children():
        if type(child) is nn.Linear:
            linear = TokenLinear(child.in_features, child.out_features, child.bias is not None, device="meta")
            linear.weight, linear.bias = child.weight, child.bias
            setattr(module, name, linear)
        else:
            use_token_linears(child)


def _convolution_batch(x: Tensor) -> int:
    """As a batch of how many pictures, one patch high, the tokens are convolved fastest; 0: not at all."""
    tokens = x.shape[:-1].numel()
    is_faster = (
        x.device.type == "cpu"
        and x.dtype == torch.float32
        and tokens >= _MANY_TOKENS
        and torch.backends.mkldnn.is_available()
        and torch.backends.cpu.get_cpu_capability() == "AVX512"
        and not torch.is_autocast_enabled("cpu")
    )
    if not is_faster or torch.get_num_threads() > 1:
        return int(is_faster)
    return next((n for n in range(_ONEDNN_BATCH, tokens // _ONEDNN_WIDTH + 1) if tokens % n == 0), 0)
