"""Channel attention against the formula, element by element."""

import numpy as np
import torch

from ma_agiqa_core.model.channel_attention import ChannelAttention


def test_attends_between_channels_and_reads_the_transpose_as_it_lies() -> None:
    torch.manual_seed(0)
    block = ChannelAttention(5, dropout=0.5).double().eval()
    x = torch.randn(2, 3, 5, dtype=torch.float64)

    found = block(x).detach().numpy()

    for b, channels in enumerate(x.numpy()):
        q, k, v = (
            channels @ layer.weight.detach().numpy().T + layer.bias.detach().numpy()
            for layer in (block.query, block.key, block.value)
        )
        logits = q @ k.T / np.sqrt(5)
        weights = np.exp(logits) / np.exp(logits).sum(1, keepdims=True)
        attended = weights @ v  # (3, 5)
        transposed = [attended[c, n] for n in range(5) for c in range(3)]  # patch by patch ...
        expected = channels + np.array(transposed).reshape(3, 5)  # ... laid out as if channel by channel
        np.testing.assert_allclose(found[b], expected, atol=1e-12)


def test_drops_out_what_is_added_in_training() -> None:
    torch.manual_seed(0)
    block = ChannelAttention(16, dropout=0.5)
    x = torch.randn(2, 8, 16)

    unchanged = (block.train()(x) == x).float().mean()

    assert 0.3 < unchanged < 0.7
    assert torch.equal(block.eval()(x), block(x))
