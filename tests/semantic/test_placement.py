"""Memory is counted before it is used, and plans say where every parameter goes."""

import pytest
import torch
from torch import nn

from ma_agiqa_core.semantic import placement
from ma_agiqa_core.semantic.placement import (
    check_fits,
    check_memory,
    device_of,
    dispatch,
    free_bytes,
    module_bytes,
    plan_device_map,
)

CPU, CARD = torch.device("cpu"), torch.device("cuda", 0)


class Block(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.up, self.down = nn.Linear(64, 256, bias=False), nn.Linear(256, 64, bias=False)

    def forward(self, tokens: torch.Tensor) -> torch.Tensor:
        return tokens + self.down(self.up(tokens))


class Network(nn.Module):
    """32 768 weights in each of four blocks, 6400 in the embedding and 10 numbers in a buffer."""

    def __init__(self) -> None:
        super().__init__()
        self.embedding = nn.Embedding(100, 64)
        self.blocks = nn.ModuleList([Block() for _ in range(4)])
        self.register_buffer("table", torch.zeros(10), persistent=False)

    def forward(self, ids: torch.Tensor) -> torch.Tensor:
        tokens = self.embedding(ids)
        for block in self.blocks:
            tokens = block(tokens)
        return tokens


BLOCK, EMBEDDING, BUFFER = 2 * 64 * 256, 6400, 40


@pytest.fixture
def empty() -> Network:
    with torch.device("meta"):
        return Network().eval()


def test_bytes(empty: Network) -> None:
    assert module_bytes(empty, torch.float32) == 4 * (4 * BLOCK + EMBEDDING) + BUFFER
    assert module_bytes(empty, torch.bfloat16) == 2 * (4 * BLOCK + EMBEDDING) + BUFFER
    int8 = BLOCK + 4 * (256 + 64)  # a scale for each row
    assert module_bytes(empty, torch.bfloat16, "int8") == 4 * int8 + 2 * EMBEDDING + BUFFER
    nf4 = BLOCK // 2 + BLOCK // 64 + 2 * 4  # a scale for each block of 64, one more for 256 scales
    assert module_bytes(empty, torch.bfloat16, "nf4") == 4 * nf4 + 2 * EMBEDDING + BUFFER
    without = module_bytes(empty, torch.bfloat16, "nf4", ["blocks.0", "blocks.1"])
    assert without == 2 * nf4 + 4 * BLOCK + 2 * EMBEDDING + BUFFER


def test_shared_weights_count_once(empty: Network) -> None:
    empty.blocks[1].up = empty.blocks[0].up
    assert module_bytes(empty, torch.float32) == 4 * (4 * BLOCK + EMBEDDING - BLOCK // 2) + BUFFER


def test_too_little_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(placement, "free_bytes", lambda device: int(7.94e9))
    check_memory(int(7.9e9), CARD, "mplug-owl2 in bfloat16", "")
    with pytest.raises(
        ValueError,
        match=r"^Expected 16\.2 GB free on cuda:0 for mplug-owl2 in bfloat16, got 7\.94 GB\. Buy a card\.$",
    ):
        check_memory(int(16.2e9), CARD, "mplug-owl2 in bfloat16", "Buy a card.")


@pytest.mark.parametrize(
    ("device", "dtype", "quantization", "message"),
    [
        (
            CARD,
            torch.float32,
            None,
            r"0\.00055 GB free on cuda:0 for tiny in float32, got 1e-06 GB\. Use dtype='bfloat16' \(0\.000275 GB\) or "
            r"quantization='nf4' \(about 9\.33e-05 GB\) or device_map='auto'\.$",
        ),
        (CPU, torch.bfloat16, "int8", r"for tiny in bfloat16 and int8, got 1e-06 GB\. Free some, or use a smaller"),
    ],
)
def test_the_advice_is_what_would_fit(
    empty: Network,
    monkeypatch: pytest.MonkeyPatch,
    device: torch.device,
    dtype: torch.dtype,
    quantization: str | None,
    message: str,
) -> None:
    monkeypatch.setattr(placement, "free_bytes", lambda device: 1000)
    with pytest.raises(ValueError, match=message):
        check_fits(empty, device, dtype, quantization, what="tiny")


def test_what_cannot_be_asked_is_not_checked() -> None:
    assert (free := free_bytes(CPU)) is not None
    assert 2**26 < free < 2**50
    assert free_bytes(torch.device("meta")) is None
    check_memory(2**60, torch.device("meta"), "a large model", "")


def test_auto_fills_the_card_and_leaves_the_rest_on_the_cpu(empty: Network) -> None:
    limits: dict[int | str, int] = {0: 4 * (3 * BLOCK + EMBEDDING), "cpu": 10**9}
    plan = plan_device_map(empty, "auto", torch.float32, ["Block"], max_memory=limits)
    assert device_of(plan, "embedding.weight") == CARD
    assert device_of(plan, "blocks.0.up.weight") == CARD
    assert device_of(plan, "blocks.3.down.weight") == CPU
    for number in range(4):  # never split
        assert device_of(plan, f"blocks.{number}.up.weight") == device_of(plan, f"blocks.{number}.down.weight")
    half = plan_device_map(empty, "auto", torch.bfloat16, ["Block"], max_memory=limits)
    assert device_of(half, "blocks.3.down.weight") == CARD


def test_auto_refuses_what_fits_nowhere(empty: Network) -> None:
    with pytest.raises(
        ValueError, match=r"^Expected 0\.00055 GB in all for tiny, got 0\.0001 GB on 0, 0\.0001 GB on cpu"
    ):
        plan_device_map(empty, "auto", torch.float32, max_memory={0: 10**5, "cpu": 10**5}, what="tiny")


def test_a_dict_is_taken_as_it_is(empty: Network) -> None:
    plan = plan_device_map(empty, {"embedding": 0, "blocks": "cuda:1", "blocks.3": "cpu"}, torch.float32)
    assert plan == {"embedding": CARD, "blocks": torch.device("cuda", 1), "blocks.3": CPU}
    assert device_of(plan, "blocks.3.up.weight") == CPU
    assert device_of(plan, "blocks.2.up.weight") == torch.device("cuda", 1)
    assert device_of({"": CPU}, "blocks.2.up.weight") == CPU
    with pytest.raises(KeyError, match="blocks"):
        device_of({"embedding": CPU}, "blocks.2.up.weight")


@pytest.mark.parametrize(
    ("device_map", "message"),
    [
        ({"embedding": 0}, r"^Expected a device_map that covers the model, got \{'embedding': 0\}: .*blocks"),
        ({"": "disk"}, r"^Expected devices in device_map, got 'disk'\."),
        ({"": "gpu"}, r"^Expected devices such as 0, 'cuda:0' or 'cpu' in device_map, got 'gpu'\.$"),
        ("balanced", r"^Expected device_map 'auto' or a dict, got 'balanced'\.$"),
    ],
)
def test_bad_device_maps(empty: Network, device_map: str | dict[str, str | int], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        plan_device_map(empty, device_map, torch.float32)


def test_quantized_layers_do_not_wait_on_the_cpu(empty: Network) -> None:
    both: dict[str, str | int] = {"embedding": 0, "blocks": "cpu"}
    with pytest.raises(ValueError, match=r"on cards for quantization='nf4', got parts of it on the CPU\."):
        plan_device_map(empty, both, torch.bfloat16, quantization="nf4")
    assert plan_device_map(empty, {"": "cpu"}, torch.bfloat16, quantization="int8") == {"": CPU}


def test_dispatch_computes_the_same() -> None:
    torch.manual_seed(0)
    network = Network().eval()
    ids = torch.arange(12).reshape(2, 6)
    with torch.inference_mode():
        wanted = network(ids)
        plan = plan_device_map(network, {"embedding": "cpu", "blocks": "cpu"}, torch.float32)
        assert dispatch(network, plan) is network
        torch.testing.assert_close(network(ids), wanted)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA card")
def test_dispatch_brings_weights_from_the_cpu() -> None:
    torch.manual_seed(0)
    network = Network().eval()
    ids = torch.arange(12).reshape(2, 6)
    with torch.inference_mode():
        wanted = network(ids)
        limits: dict[int | str, int] = {0: 4 * (3 * BLOCK + EMBEDDING), "cpu": 10**9}
        plan = plan_device_map(network, "auto", torch.float32, ["Block"], max_memory=limits)
        torch.testing.assert_close(dispatch(network, plan)(ids).cpu(), wanted, rtol=1e-3, atol=1e-3)
