"""Models and options that cannot be used: each a sentence with the file or number, before 16 GB are read."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import tiny_judges
import tiny_models
import torch

from ma_agiqa_core import MaAgiqaError, load_scorer
from ma_agiqa_core.errors import MissingFileError, UnusableModelError


@pytest.fixture(scope="module")
def judges(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    root = tmp_path_factory.mktemp("judges")
    return {
        "deqa": tiny_judges.write_owl(root / "deqa"),
        "qrealign": tiny_judges.write_qrealign(root / "qrealign"),
        "vqascore": tiny_judges.write_vqascore(root / "vqascore"),
        "hpsv3": tiny_judges.write_hpsv3(root / "hpsv3"),
        "clip": tiny_models.write_clip(root / "clip"),
    }


@pytest.fixture
def copied(judges: dict[str, Path], tmp_path: Path) -> Callable[[str], Path]:
    return lambda family: Path(shutil.copytree(judges[family], tmp_path / family))


@pytest.mark.parametrize("family", ["deqa", "qalign", "qrealign", "vqascore", "hpsv3"])
def test_another_kind_of_model_is_named(family: str, judges: dict[str, Path]) -> None:
    expected = "HPSv3.safetensors" if family == "hpsv3" else "'clip'"
    with pytest.raises(MaAgiqaError, match=expected):
        load_scorer(f"{family}:{judges['clip']}", device="cpu")


def test_a_qwen_of_another_generation_is_named(judges: dict[str, Path]) -> None:
    with pytest.raises(MaAgiqaError, match=r"'qwen3_5' for 'qrealign'.*'qwen2_5_vl'"):
        load_scorer(f"qrealign:{judges['vqascore']}", device="cpu")


@pytest.mark.parametrize(
    ("family", "missing"),
    [
        ("deqa", "tokenizer.model"),
        ("qrealign", "tokenizer.json"),
        ("vqascore", "preprocessor_config.json"),
        ("deqa", "config.json"),
    ],
)
def test_a_missing_file_is_named(family: str, missing: str, copied: Callable[[str], Path]) -> None:
    folder = copied(family)
    for name in (missing, "processor_config.json" if missing.startswith("pre") else missing):
        (folder / name).unlink(missing_ok=True)
    with pytest.raises(MaAgiqaError, match=missing):
        load_scorer(f"{family}:{folder}", device="cpu")


def test_a_truncated_shard_is_named(copied: Callable[[str], Path]) -> None:
    folder = copied("qrealign")
    shard = sorted(folder.glob("model-*.safetensors"))[0]
    shard.write_bytes(shard.read_bytes()[:-100])
    with pytest.raises(MaAgiqaError, match=shard.name):
        load_scorer(f"qrealign:{folder}", device="cpu")


def test_a_pickled_shard_with_anything_but_tensors_is_refused(copied: Callable[[str], Path]) -> None:
    folder = copied("deqa")
    shard = sorted(folder.glob("pytorch_model-*.bin"))[0]
    torch.save({"model.norm.weight": print}, shard)
    with pytest.raises(UnusableModelError, match=shard.name):
        load_scorer(f"deqa:{folder}", device="cpu").score(torch.zeros(3, 8, 8))


def test_a_lora_adapter_is_explained(tmp_path: Path) -> None:
    (tmp_path / "adapter_config.json").write_text("{}")
    with pytest.raises(MaAgiqaError, match="merge_and_unload"):
        load_scorer(f"deqa:{tmp_path}", device="cpu")


def test_levels_that_begin_alike_are_refused(copied: Callable[[str], Path]) -> None:
    folder = copied("deqa")
    tiny_models.write_tokenizer(folder / "tokenizer.model", tiny_models.OWL["config"]["vocab_size"])
    with pytest.raises(MaAgiqaError, match="5 different tokens for 'excellent', 'good'"):
        load_scorer(f"deqa:{folder}", device="cpu")


def test_a_head_that_is_not_there_is_named(copied: Callable[[str], Path]) -> None:
    folder = copied("deqa")
    index = folder / "pytorch_model.bin.index.json"
    table = json.loads(index.read_text())
    shard = folder / table["weight_map"].pop("lm_head.weight")
    index.write_text(json.dumps(table))
    torch.save({k: v for k, v in torch.load(shard, weights_only=True).items() if k != "lm_head.weight"}, shard)
    with pytest.raises(UnusableModelError, match=r"'lm_head.weight'"):
        load_scorer(f"deqa:{folder}", device="cpu").score(torch.zeros(3, 8, 8))


def test_hpsv3_without_its_base_says_what_to_fetch(
    copied: Callable[[str], Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = copied("hpsv3")
    (folder / "config.json").unlink()
    with pytest.raises(MissingFileError, match=r"hf download Qwen/Qwen2-VL-7B-Instruct config\.json"):
        load_scorer(f"hpsv3:{folder}", device="cpu", local_files_only=True)


def test_hpsv3_with_embeddings_of_too_few_tokens_is_refused(copied: Callable[[str], Path]) -> None:
    from safetensors.torch import load_file, save_file

    folder = copied("hpsv3")
    state = load_file(folder / "HPSv3.safetensors")
    state["model.embed_tokens.weight"] = state["model.embed_tokens.weight"][:-1].clone()
    save_file(state, folder / "HPSv3.safetensors")
    with pytest.raises(UnusableModelError, match=r"one token below \d+ for '<\|Reward\|>'"):
        load_scorer(f"hpsv3:{folder}", device="cpu").score(torch.zeros(3, 8, 8), "a cat")


def test_options_that_do_not_apply_are_refused(judges: dict[str, Path]) -> None:
    with pytest.raises(MaAgiqaError, match=r"no semantic= for 'deqa'"):
        load_scorer(f"deqa:{judges['deqa']}", device="cpu", semantic="x")
    with pytest.raises(MaAgiqaError, match=r"quality, aesthetics, got 'beauty'"):
        load_scorer(f"qrealign:{judges['qrealign']}", device="cpu", target="beauty")
    with pytest.raises(MaAgiqaError, match=r"target of .*quality, got 'aesthetics'"):
        load_scorer(f"deqa:{judges['deqa']}", device="cpu", target="aesthetics")


def test_the_revision_of_a_folder_is_checked(judges: dict[str, Path]) -> None:
    revision = load_scorer(f"deqa:{judges['deqa']}", device="cpu").info.revision
    assert load_scorer(f"deqa:{judges['deqa']}@{revision}", device="cpu").info.revision == revision
    with pytest.raises(MaAgiqaError, match="'0000'"):
        load_scorer(f"deqa:{judges['deqa']}", device="cpu", revision="0000")


@pytest.mark.parametrize("family", ["deqa", "qalign", "qrealign", "vqascore", "hpsv3"])
def test_a_name_alone_is_the_published_repository(family: str) -> None:
    from ma_agiqa_core.scorers.families import FAMILIES

    repository = next(one.repository for one in FAMILIES if one.name == family)
    with pytest.raises(MissingFileError, match=str(repository)):
        load_scorer(family, device="cpu", local_files_only=True)


def test_no_such_folder(tmp_path: Path) -> None:
    with pytest.raises(MissingFileError, match="no such folder"):
        load_scorer(f"qrealign:{tmp_path / 'nowhere'}", device="cpu")


def test_a_prompt_with_the_picture_s_placeholder_is_its_own_error(judges: dict[str, Path]) -> None:
    scorer = load_scorer(f"vqascore:{judges['vqascore']}", device="cpu")
    found = scorer.explain([torch.zeros(3, 8, 8)] * 2, ["a cat", "<|image_pad|>"])  # type: ignore[attr-defined]
    assert isinstance(found[0], float)
    assert "'<|image_pad|>'" in str(found[1])
