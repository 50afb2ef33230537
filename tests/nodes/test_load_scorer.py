"""Load Image Scorer: what it offers, what it loads, and that nothing is loaded twice."""

import gc
import os
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch


@pytest.fixture
def node(pack_module: Callable[[str], Any]) -> Iterator[Any]:
    yield pack_module("nodes.load_scorer").LoadScorer
    from comfy import model_management

    model_management.unload_all_models()


@pytest.fixture
def models(node: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """models/ma_agiqa, empty, with a second folder from extra_model_paths.yaml before it."""
    import folder_paths

    roots = [tmp_path / "extra", tmp_path / "models"]
    for root in roots:
        root.mkdir()
    monkeypatch.setitem(folder_paths.folder_names_and_paths, "ma_agiqa", ([str(root) for root in roots], set()))
    monkeypatch.setattr(folder_paths, "get_user_directory", lambda: str(tmp_path / "user"))
    return roots[1]


@pytest.fixture
def load(node: Any, run_node: Callable[..., Any], models: Path) -> Callable[..., Any]:
    return lambda model="lite", **options: run_node(node, model=model, **options).args[0]


@pytest.fixture
def pictures() -> list[torch.Tensor]:
    torch.manual_seed(0)
    return list(torch.rand(3, 40, 56, 3))


def options_of(node: Any, name: str) -> list[str]:
    return next(given.options for given in node.GET_SCHEMA().inputs if given.id == name)


def own_options(node: Any) -> list[str]:
    """The models on this machine."""
    return [name for name in options_of(node, "model") if not name.endswith(" (published)")]


def test_lite_is_always_offered(node: Any, models: Path) -> None:
    assert own_options(node) == ["lite"]
    assert options_of(node, "semantic_model") == ["from checkpoint"]


def test_models_of_all_folders_are_offered(
    node: Any, models: Path, tiny_models: ModuleType, checkpoint: Path, owl_folder: Path
) -> None:
    shutil.copy(checkpoint, models / "a.safetensors")
    (models / "sub").mkdir()
    shutil.copy(checkpoint, models / "sub" / "b.safetensors")
    tiny_models.write_clip(models.parent / "extra" / "clips" / "tiny-clip")
    shutil.copytree(owl_folder, models / "owl")
    (models / "notes.txt").write_text("nothing to load")
    (models / "half").mkdir()
    (models / "half" / "config.json").write_text("{}")
    assert own_options(node) == ["lite", "clips/tiny-clip", "a.safetensors", "sub/b.safetensors"]
    assert options_of(node, "semantic_model") == ["from checkpoint", "owl"]


def test_registering_keeps_the_folders_of_extra_model_paths(pack_module: Callable[[str], Any], models: Path) -> None:
    import folder_paths

    pack_module("nodes.scorers.model_folder").register()
    own = os.path.join(folder_paths.models_dir, "ma_agiqa")  # noqa: PTH118 (what ComfyUI makes of it)
    assert folder_paths.get_folder_paths("ma_agiqa") == [str(models.parent / "extra"), str(models), own]


def test_lite_scores_as_the_core_does(
    load: Callable[..., Any], pack_module: Callable[[str], Any], pictures: list[torch.Tensor]
) -> None:
    core = pack_module("ma_agiqa_core").load_scorer("lite", device="cpu")
    wanted = core.score(torch.stack(pictures).movedim(-1, 1))
    assert pack_module("nodes.sockets.scores").scores_of(load(), pictures) == pytest.approx(wanted.tolist())


def test_nothing_is_loaded_twice_and_what_nobody_holds_is_let_go(load: Callable[..., Any]) -> None:
    first = load()
    assert load() is first
    assert load(precision="nf4", cache_vectors=False) is first  # without effect on lite
    assert load(device="cpu") is not first
    number = id(first)
    del first
    gc.collect()
    assert number not in {id(scorer) for scorer in gc.get_objects() if type(scorer).__name__ == "ManagedScorer"}


def test_a_rewritten_file_is_loaded_again(
    node: Any, load: Callable[..., Any], models: Path, visual_checkpoint: Path
) -> None:
    target = models / "mine.safetensors"
    shutil.copy(visual_checkpoint, target)
    before, seen = load("mine.safetensors"), node.fingerprint_inputs(model="mine.safetensors")
    os.utime(target, ns=(1, 1))
    assert node.fingerprint_inputs(model="mine.safetensors") != seen
    assert load("mine.safetensors") is not before


def test_a_rewritten_semantic_model_is_noticed(node: Any, models: Path, owl_folder: Path) -> None:
    shutil.copytree(owl_folder, models / "owl")
    seen = node.fingerprint_inputs(model="lite", semantic_model="owl")
    os.utime(models / "owl" / "config.json", ns=(1, 1))
    assert node.fingerprint_inputs(model="lite", semantic_model="owl") != seen


def test_a_linked_model_is_no_reason_to_run_again(node: Any, models: Path) -> None:
    """ComfyUI asks without the inputs that are linked; an error would have it run this node and all behind it."""
    assert node.fingerprint_inputs(semantic_model="from checkpoint") == node.fingerprint_inputs(
        semantic_model="from checkpoint"
    )


def test_an_unknown_device_is_refused(load: Callable[..., Any]) -> None:
    with pytest.raises(ValueError, match="Expected the device default or cpu, or gpu:0 and so on, got 'cuda:7'"):
        load(device="cuda:7")


def test_clip_models_read_the_prompt(
    load: Callable[..., Any],
    pack_module: Callable[[str], Any],
    models: Path,
    tiny_models: ModuleType,
    pictures: list[torch.Tensor],
) -> None:
    tiny_models.write_clip(models / "tiny-clip")
    scorer, scores_of = load("tiny-clip"), pack_module("nodes.sockets.scores").scores_of
    assert scorer.info.needs_prompt
    core = pack_module("ma_agiqa_core").load_scorer(f"clip:{models / 'tiny-clip'}", device="cpu")
    for prompt in ("a red cat", "two dogs"):
        wanted = core.score(torch.stack(pictures).movedim(-1, 1), prompt)
        assert scores_of(scorer, pictures, prompt) == pytest.approx(wanted.tolist(), abs=1e-4)
    with pytest.raises(ValueError, match=r"^Expected a prompt for clipscore\(tiny-clip\)"):
        scores_of(scorer, pictures)


@pytest.mark.parametrize("precision", ["auto", "int8"])
def test_the_language_model_is_comfyuis_to_move(
    load: Callable[..., Any],
    pack_module: Callable[[str], Any],
    models: Path,
    checkpoint: Path,
    owl_folder: Path,
    pictures: list[torch.Tensor],
    progress: list[tuple[float, float, Any]],
    precision: str,
) -> None:
    from comfy import model_management

    shutil.copy(checkpoint, models / "tiny.safetensors")
    shutil.copytree(owl_folder, models / "owl")
    quantization = None if precision == "auto" else precision
    core = pack_module("ma_agiqa_core").load_scorer(
        models / "tiny.safetensors", semantic=models / "owl", device="cpu", quantization=quantization
    )
    wanted = core.score(torch.stack(pictures).movedim(-1, 1)).tolist()
    scorer = load("tiny.safetensors", semantic_model="owl", precision=precision, cache_vectors=False)
    extractor: Any = scorer._scorer.extractor
    assert not extractor.is_loaded  # loaded when the first picture needs it
    with torch.inference_mode():
        scores = pack_module("nodes.sockets.scores").scores_of(scorer, pictures)
    assert scores == pytest.approx(wanted, abs=1e-4)
    assert progress[-1][:2] == (6, 6)  # the language model and the visual expert see three pictures each
    loaded = {type(patcher.model).__name__ for patcher in model_management.loaded_models()}
    assert {"MaAgiqa", "MplugOwl2"} <= loaded
    assert not any(weight.is_inference() for weight in extractor.model.network.parameters())

    model_management.unload_all_models()  # the button "Unload Models"
    loaded = {type(patcher.model).__name__ for patcher in model_management.loaded_models()}
    assert not {"MaAgiqa", "MplugOwl2"} & loaded
    assert extractor.is_loaded == (precision != "int8")  # quantized weights cannot wait elsewhere
    more = [1 - picture for picture in pictures]
    wanted = core.score(torch.stack(more).movedim(-1, 1)).tolist()
    assert pack_module("nodes.sockets.scores").scores_of(scorer, more) == pytest.approx(wanted, abs=1e-4)


def test_vectors_are_kept_on_disk(
    load: Callable[..., Any],
    pack_module: Callable[[str], Any],
    models: Path,
    checkpoint: Path,
    owl_folder: Path,
    pictures: list[torch.Tensor],
) -> None:
    shutil.copy(checkpoint, models / "tiny.safetensors")
    shutil.copytree(owl_folder, models / "owl")
    scores_of = pack_module("nodes.sockets.scores").scores_of
    wanted = scores_of(load("tiny.safetensors", semantic_model="owl"), pictures)
    again = load("tiny.safetensors", semantic_model="owl", device="cpu")
    assert scores_of(again, pictures) == pytest.approx(wanted, abs=1e-5)
    assert not again._scorer.extractor.is_loaded
    assert list((models.parent / "user" / "ma_agiqa" / "vectors").rglob("*"))


def test_mistakes_in_a_sentence(
    load: Callable[..., Any],
    pack_module: Callable[[str], Any],
    models: Path,
    visual_checkpoint: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    with pytest.raises(
        FileNotFoundError, match=r"^Expected 'gone.safetensors' in .*models, got nothing there\. Put it"
    ):
        load("gone.safetensors")
    with pytest.raises(FileNotFoundError, match=r"^Expected 'gone' in .*, got nothing there"):
        load("lite", semantic_model="gone")
    shutil.copy(visual_checkpoint, models.parent / "outside.safetensors")
    with pytest.raises(FileNotFoundError, match=r"^Expected '\.\./outside\.safetensors' in .*, got nothing there"):
        load("../outside.safetensors")
    (models / "other.safetensors").write_bytes(b"no model")
    with pytest.raises(ValueError, match=r"^Expected a safetensors checkpoint, got '.*other\.safetensors'"):
        load("other.safetensors")
    shutil.copy(visual_checkpoint, models / "visual.safetensors")
    with pytest.raises(ValueError, match=r"^Expected no quantization= for '.*visual\.safetensors', got 'nf4'"):
        load("visual.safetensors", precision="nf4")

    def without_timm(*_: object, **__: object) -> None:
        raise ModuleNotFoundError("No module named 'timm'", name="timm")

    monkeypatch.setattr(pack_module("nodes.scorers.loading"), "load_scorer", without_timm)
    with pytest.raises(RuntimeError, match=r"The Python package 'timm' is missing\. Install .* -m pip install -r"):
        load("visual.safetensors", precision="float32")


def test_every_judge_is_offered_and_fetched_by_its_name(
    node: Any, load: Callable[..., Any], pack_module: Callable[[str], Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    published = [name for name in options_of(node, "model") if name.endswith(" (published)")]
    families = pack_module("ma_agiqa_core.scorers.families").FAMILIES
    assert published == [f"{family.name} (published)" for family in families if family.by_name]
    loading, asked = pack_module("nodes.scorers.loading"), []
    lite = loading.load_scorer("lite", device="cpu")

    def remember(model: str, **options: Any) -> Any:
        asked.append((model, options))
        return lite

    monkeypatch.setattr(loading, "load_scorer", remember)
    load("imagereward (published)", target="alignment")
    ((model, options),) = asked
    assert (model, options["target"], options["device"]) == ("imagereward", "alignment", "cpu")
    assert node.fingerprint_inputs(model="imagereward (published)", semantic_model="from checkpoint")


def test_a_judge_whose_file_must_be_brought_says_so(load: Callable[..., Any]) -> None:
    with pytest.raises(ValueError, match=r"Expected the file aesthetic_predictor_v2_5\.pth that you bring, got 'none'"):
        load("aesthetic-v2.5 (published)")


def test_a_target_that_the_scorer_has_not_is_refused(load: Callable[..., Any]) -> None:
    assert load(target="quality").info.target == "quality"
    with pytest.raises(ValueError, match=r"Expected a target of .*quality.*, got 'authenticity'"):
        load(target="authenticity")


def test_percentiles_of_ones_own_pictures(
    node: Any, load: Callable[..., Any], pack_module: Callable[[str], Any], models: Path, tiny_models: ModuleType
) -> None:
    write = pack_module("ma_agiqa_core.scorers.scaled_scorer").write_percentiles
    core = pack_module("ma_agiqa_core").load_scorer("lite", device="cpu")
    write(core, [0.0, 1.0, 2.0, 4.0], models / "mine.json")
    tiny_models.write_clip(models / "tiny-clip")  # has a config.json and other ones, which are none
    assert options_of(node, "percentiles") == ["none", "mine.json"]
    scorer = load(percentiles="mine.json")
    assert scorer.info.percentile(1.5) == pytest.approx(50, abs=1e-4)
    assert load().info.percentile(1.5) != pytest.approx(50, abs=1)
    assert load(percentiles="mine.json") is scorer
    seen = node.fingerprint_inputs(model="lite", percentiles="mine.json")
    assert seen != node.fingerprint_inputs(model="lite")
    write(core, [1.0, 2.0], models / "mine.json")
    os.utime(models / "mine.json", ns=(1, 1))
    assert node.fingerprint_inputs(model="lite", percentiles="mine.json") != seen
    assert load(percentiles="mine.json").info.percentile(1.25) == pytest.approx(25, abs=1e-4)


def test_percentiles_give_a_scale_to_a_scorer_that_has_none(
    load: Callable[..., Any],
    pack_module: Callable[[str], Any],
    models: Path,
    tiny_models: ModuleType,
    pictures: list[torch.Tensor],
) -> None:
    tiny_models.write_clip(models / "tiny-clip")
    plain = load("tiny-clip")
    pack_module("ma_agiqa_core.scorers.scaled_scorer").write_percentiles(plain, [0.0, 100.0], models / "mine.json")
    scores_of = pack_module("nodes.sockets.scores").scores_of
    before, scored = (
        scores_of(plain, pictures, "a"),
        scores_of(load("tiny-clip", percentiles="mine.json"), pictures, "a"),
    )
    assert scored == pytest.approx(before, abs=1e-5)
    assert [score.percentile for score in before] == [None] * 3
    assert [score.percentile for score in scored] == pytest.approx(scored, abs=0.01)


def test_percentiles_that_do_not_fit_are_told(
    load: Callable[..., Any], pack_module: Callable[[str], Any], models: Path, managed: Callable[..., Any]
) -> None:
    pack_module("ma_agiqa_core.scorers.scaled_scorer").write_percentiles(managed(), [0.0, 1.0], models / "other.json")
    with pytest.raises(ValueError, match=r"^Expected percentiles of lite@.*, got those of scorer 'mean'"):
        load(percentiles="other.json")
    (models / "notes.json").write_text("[]")
    with pytest.raises(ValueError, match=r"^Expected percentiles in '.*notes\.json', got .*`ma-agiqa percentiles`"):
        load(percentiles="notes.json")
    with pytest.raises(FileNotFoundError, match=r"^Expected 'gone\.json' in .*, got nothing there"):
        load(percentiles="gone.json")


@pytest.fixture
def two_cards(comfy_modules: str, monkeypatch: pytest.MonkeyPatch) -> None:
    from comfy import model_management

    cards = [torch.device("cuda", number) for number in range(2)]
    monkeypatch.setattr(model_management, "get_all_torch_devices", lambda: cards, raising=False)


def test_cards_are_offered_where_there_are_several(node: Any, two_cards: None) -> None:
    assert options_of(node, "device") == ["default", "cpu", "gpu:0", "gpu:1"]


def test_one_card_has_no_number(node: Any) -> None:
    assert options_of(node, "device") == ["default", "cpu"]


def test_a_scorer_computes_on_its_card(load: Callable[..., Any], two_cards: None) -> None:
    second = load(device="gpu:1")
    assert second._networks.device == torch.device("cuda:1")
    assert all(patcher.load_device == torch.device("cuda:1") for patcher in second._networks.patchers)
    assert load(device="gpu:0") is not second
    assert load(device="gpu:1") is second


def test_a_card_of_another_machine_is_no_mistake(
    node: Any, load: Callable[..., Any], two_cards: None, caplog: pytest.LogCaptureFixture
) -> None:
    assert node.validate_inputs(device="gpu:5") is True
    assert load(device="gpu:5")._networks.device == load()._networks.device
    assert "gpu:5 is not there; ComfyUI's own device is taken. This machine has 2." in caplog.text
    assert node.validate_inputs(device="cuda:0") == "Expected default, cpu, or gpu:0 and so on, got 'cuda:0'."


@pytest.mark.parametrize("share", [0.0, 0.001, 0.5, 0.999])
def test_a_half_written_file_is_told_and_loads_when_it_is_whole(
    node: Any, load: Callable[..., Any], models: Path, tiny_models: ModuleType, share: float
) -> None:
    """As while a download goes on: the same name, then another size."""
    whole = models / "whole.safetensors"
    tiny_models.write_checkpoint(whole, semantic_dim=0)
    content = whole.read_bytes()
    part = models / "part.safetensors"
    part.write_bytes(content[: int(share * len(content))])
    assert "part.safetensors" in own_options(node)
    with pytest.raises(ValueError, match=r"^Expected .*part\.safetensors"):
        load("part.safetensors")
    before = node.fingerprint_inputs(model="part.safetensors")
    part.write_bytes(content)
    assert node.fingerprint_inputs(model="part.safetensors") != before
    assert load("part.safetensors").info.name == load("whole.safetensors").info.name
