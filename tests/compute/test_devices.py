"""Where to compute."""

import pytest
import torch

from ma_agiqa_core.compute.devices import resolve_device


@pytest.mark.parametrize(
    ("cuda", "mps", "expected"), [(2, True, "cuda"), (0, True, "mps"), (0, False, "cpu"), (1, False, "cuda")]
)
def test_auto_takes_the_best_device(monkeypatch: pytest.MonkeyPatch, cuda: int, mps: bool, expected: str) -> None:
    monkeypatch.setattr(torch.cuda, "device_count", lambda: cuda)
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: mps)
    assert resolve_device() == resolve_device("auto") == torch.device(expected)


def test_named_devices(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: False)
    assert resolve_device("cpu") == resolve_device(torch.device("cpu")) == torch.device("cpu")
    assert resolve_device("cuda:0") == torch.device("cuda", 0)
    for absent in ("cuda:1", "mps", "meta"):
        with pytest.raises(ValueError, match=f"a device of this machine, got '{absent}'"):
            resolve_device(absent)
    with pytest.raises(ValueError, match="got 'gpu'"):
        resolve_device("gpu")
