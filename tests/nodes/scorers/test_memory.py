"""Networks that ComfyUI moves: wholly, in part, and out again. The device "meta" stands for a graphics card."""

from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch
from torch import nn

CPU, CARD = torch.device("cpu"), torch.device("meta")


@pytest.fixture
def memory(pack_module: Callable[[str], Any], monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    memory = pack_module("nodes.scorers.memory")
    monkeypatch.setattr(memory, "WORTH_LEAVING", 1000)
    yield memory
    from comfy import model_management

    model_management.unload_all_models()


class Block(nn.Module):
    """A bit of everything: bare weights beside layers, a buffer, an attention whose layers are never called."""

    def __init__(self) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.ones(8))
        self.offset = nn.Buffer(torch.zeros(8))
        self.norm = nn.LayerNorm(8)
        self.wide, self.narrow = nn.Linear(8, 64), nn.Linear(64, 8, bias=False)
        self.attention = nn.MultiheadAttention(8, 2, batch_first=True)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.norm(x * self.scale + self.offset)
        x = self.narrow(self.wide(x).relu())
        return self.attention(x, x, x, need_weights=False)[0]


@pytest.fixture
def network() -> Any:
    torch.manual_seed(0)
    return nn.Sequential(Block(), Block()).eval()


def test_a_network_that_fits_goes_as_a_whole_and_comes_back(memory: Any, network: Any) -> None:
    patcher = memory.patcher_of(network, CARD)
    patcher.partially_load(CARD, 1e32)
    assert {weight.device for weight in network.state_dict().values()} == {CARD}
    assert network(torch.zeros(1, 3, 8, device=CARD)).device == CARD


@pytest.mark.parametrize("budget", [0.1, 4000])
def test_of_one_that_does_not_fit_only_linear_layers_stay(memory: Any, network: Any, budget: float) -> None:
    before = {name: weight.clone() for name, weight in network.state_dict().items()}
    patcher = memory.patcher_of(network, CARD)
    patcher.partially_load(CARD, budget)
    patcher.model.complete(CARD)
    left = {name for name, weight in network.state_dict().items() if weight.device == CPU}
    assert left
    assert {name.split(".")[1] for name in left} <= {"wide", "narrow"}
    assert network(torch.zeros(1, 3, 8, device=CARD)).device == CARD  # a weight that stayed away would be refused
    assert left == {name for name, weight in network.state_dict().items() if weight.device == CPU}
    assert all(torch.equal(network.state_dict()[name], before[name]) for name in left)


def test_layers_left_behind_are_put_back_whatever_happens(memory: Any, network: Any) -> None:
    patcher = memory.patcher_of(network, CARD)
    patcher.partially_load(CARD, 0.1)
    patcher.model.complete(CARD)
    with pytest.raises(RuntimeError):  # 5 is no width of it
        network[0].wide(torch.zeros(1, 5, device=CARD))
    assert network[0].wide.weight.device == CPU
    assert isinstance(network[0].wide.weight, nn.Parameter)


def test_the_entry_is_always_where_the_network_computes(memory: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(memory, "WORTH_LEAVING", 0)
    network = nn.Sequential(nn.Linear(8, 8), nn.Linear(8, 8))
    patcher = memory.patcher_of(network, CARD)
    patcher.partially_load(CARD, 0.1)
    patcher.model.complete(CARD)
    assert [layer.weight.device for layer in network] == [CARD, CPU]
    assert network(torch.zeros(2, 8, device=CARD)).shape == (2, 8)


def test_results_do_not_change_while_a_network_is_managed(memory: Any, network: Any) -> None:
    x = torch.randn(2, 3, 8)
    with torch.no_grad():
        wanted = network(x)
        managed = memory.ManagedNetworks([network], CPU)
        managed.load()
        assert torch.equal(network(x), wanted)
        managed.make_room()
        assert torch.equal(network(x), wanted)


def test_weights_survive_moves_inside_and_outside_of_inference_mode(memory: Any, network: Any) -> None:
    """ComfyUI moves models in inference mode, scoring happens outside; a change of type stands for a move."""
    x = torch.randn(2, 3, 8)
    with torch.no_grad():
        wanted = network(x)
    for inside in (True, False, True, True, False, False):
        with torch.inference_mode(inside):
            network.to(torch.float64).to(torch.float32)
        with torch.inference_mode(False), torch.no_grad(), torch.inference_mode():
            assert torch.equal(network(x), wanted)


def test_networks_with_a_device_of_their_own_and_their_names_in_the_log(memory: Any) -> None:
    class Strange(nn.Module):
        @property
        def device(self) -> torch.device:  # as models of transformers have it
            return CPU

    assert type(memory.patcher_of(Strange(), CPU).model).__name__ == "Strange"


def test_comfyui_counts_and_unloads_them(memory: Any, network: Any) -> None:
    from comfy import model_management

    managed = memory.ManagedNetworks([network])
    managed.load()
    managed.load()
    assert [patcher for patcher in model_management.loaded_models() if patcher in managed.patchers] == managed.patchers
    assert managed.patchers[0].loaded_size() == managed.patchers[0].model_size()
    model_management.unload_all_models()
    assert not [patcher for patcher in model_management.loaded_models() if patcher in managed.patchers]
    assert managed.patchers[0].loaded_size() == 0


def test_the_interrupt_button_stops_within_a_forward(memory: Any, network: Any) -> None:
    from comfy import model_management

    memory.ManagedNetworks([network], CPU)
    reached = []
    network[1].register_forward_hook(lambda *_: reached.append(1))
    network[0].register_forward_hook(lambda *_: model_management.interrupt_current_processing())
    with pytest.raises(model_management.InterruptProcessingException):
        network(torch.zeros(1, 3, 8))
    assert not reached


@pytest.fixture
def card(comfy_modules: str, monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """Makes ComfyUI's own loader believe in a graphics card with room for everything, in one of its states."""
    from comfy import model_management

    def pretend(state: str = "NORMAL_VRAM") -> None:
        room = lambda device=None, torch_free_too=False: (2**40, 2**40) if torch_free_too else 2**40  # noqa: E731
        monkeypatch.setattr(model_management, "get_torch_device", lambda: CARD)
        monkeypatch.setattr(model_management, "get_free_memory", room)
        monkeypatch.setattr(model_management, "minimum_inference_memory", lambda: 1000)
        monkeypatch.setattr(model_management, "extra_reserved_memory", lambda: 0)
        monkeypatch.setattr(model_management, "vram_state", model_management.VRAMState[state])
        monkeypatch.setattr(model_management, "current_loaded_models", [])  # nothing comes back from "meta"

    return pretend


@pytest.fixture
def linears() -> Any:
    return nn.Sequential(nn.Linear(8, 96), nn.Linear(96, 128), nn.Linear(128, 96))


@pytest.mark.comfyui_only
def test_comfyui_loads_onto_a_card_once_and_then_only_makes_room(
    memory: Any, card: Callable[..., None], linears: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    from comfy import model_management

    card()
    managed = memory.ManagedNetworks([linears])
    managed.load()
    assert [layer.weight.device for layer in linears] == [CARD, CARD, CARD]
    assert linears(torch.zeros(1, 8, device=CARD)).device == CARD
    asked: list[Any] = []
    monkeypatch.setattr(model_management, "load_models_gpu", lambda *_, **__: asked.append("load"))
    monkeypatch.setattr(
        model_management,
        "free_memory",
        lambda needed, device, keep_loaded=(): asked.append((needed, device, [entry.model for entry in keep_loaded])),
    )
    managed.load(work=10**6)
    assert asked == [(10**6, CARD, managed.patchers)]


@pytest.mark.comfyui_only
def test_with_novram_linear_layers_wait_on_the_cpu(memory: Any, card: Callable[..., None], linears: Any) -> None:
    card("NO_VRAM")
    managed = memory.ManagedNetworks([linears])
    for _ in range(2):  # another run finds them where they are
        managed.load()
        assert [layer.weight.device for layer in linears] == [CARD, CPU, CPU]  # the first is where the network computes
        assert linears(torch.zeros(1, 8, device=CARD)).device == CARD


def test_small_layers_always_go_along(memory: Any, monkeypatch: pytest.MonkeyPatch, linears: Any) -> None:
    monkeypatch.setattr(memory, "WORTH_LEAVING", 128 * 96 * 4 + 1)
    patcher = memory.patcher_of(linears, CARD)
    patcher.partially_load(CARD, 0.1)
    patcher.model.complete(CARD)
    assert [layer.weight.device for layer in linears] == [CARD, CARD, CARD]


@pytest.mark.parametrize("model_type", ["clip", "siglip"])
def test_clip_models_compute_with_their_large_layers_left_behind(
    memory: Any,
    pack_module: Callable[[str], Any],
    tiny_models: ModuleType,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    model_type: str,
) -> None:
    monkeypatch.setattr(memory, "WORTH_LEAVING", 0)
    folder = tiny_models.write_clip(tmp_path / "clip", model_type=model_type)
    scorer = pack_module("ma_agiqa_core").load_scorer(f"clip:{folder}", device="cpu")
    (model,) = scorer.networks
    patcher = memory.patcher_of(model, CARD)
    patcher.partially_load(CARD, 0.1)
    patcher.model.complete(CARD)
    assert {weight.device for weight in model.parameters()} == {CPU, CARD}
    assert scorer._device == CARD
    side = model.config.vision_config.image_size
    with torch.no_grad():  # a weight on another device would be refused
        model.get_image_features(pixel_values=torch.zeros(2, 3, side, side, device=CARD))
        model.get_text_features(input_ids=torch.ones(2, scorer._limit, dtype=torch.long, device=CARD))


def test_mplug_owl2_computes_with_its_large_layers_left_behind(
    memory: Any, pack_module: Callable[[str], Any], checkpoint: Path, owl_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(memory, "WORTH_LEAVING", 0)
    scorer = pack_module("ma_agiqa_core").load_scorer(checkpoint, semantic=owl_folder, device="cpu")
    owl = scorer.extractor.model
    patcher = memory.patcher_of(owl.network, CARD)
    patcher.partially_load(CARD, 0.1)
    patcher.model.complete(CARD)
    left = [weight.nbytes for weight in owl.network.parameters() if weight.device == CPU]
    assert sum(left) > 0.5 * sum(weight.nbytes for weight in owl.network.parameters())
    side = owl.network.config.vision.image_size
    prompts = {question: owl.prompt_ids(question) for question in ("coherent?", "meaningful?")}
    features = owl.network.features(torch.zeros(2, 3, side, side, device=CARD), prompts)
    assert {vectors.device for vectors in features.values()} == {CARD}
